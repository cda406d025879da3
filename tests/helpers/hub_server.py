"""A hub on the loopback interface, which the real huggingface_hub client talks to over HTTP: repositories with commits,
access tokens, uploads, and the failures of a network."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

TOKEN = "hf_of_a_member"
READ_TOKEN = "hf_that_may_only_read"
LARGE = 10_000
"""Files from so many bytes on are uploaded apart from the commit, as weights are."""


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # commit -> path -> contents
    refs: dict[str, str] = field(default_factory=dict)  # branch or tag -> commit
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str, ref: str = "main") -> str:
        commit = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[commit] = files
        self.refs[ref] = commit
        self.messages.append(message)
        return commit

    def files(self, revision: str) -> dict[str, bytes] | None:
        return self.commits.get(self.refs.get(revision, revision))


@dataclass
class LoopbackHub:
    """What the server has, and how it fails."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # SHA-256 -> uploaded contents
    ranges: list[tuple[str, str | None]] = field(default_factory=list)  # downloads: path, Range
    cut_after: list[int] = field(default_factory=list)  # so many bytes of the next downloads of large files
    refuse: tuple[str, int] | None = None  # requests whose path has this part are answered with this status

    def clear(self) -> None:
        self.repositories, self.objects, self.ranges, self.cut_after, self.refuse = {}, {}, [], [], None

    def publish(self, name: str, folder: Path, message: str = "first", ref: str = "main") -> str:
        """Put a folder into a repository, as a commit of a branch or tag."""
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        return self.repositories.setdefault(name, Repository()).commit(files, message, ref)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def do_PUT(self) -> None:
        self.do_POST()

    def _answer(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.hub.refuse and self.hub.refuse[0] in path:
            self._send(self.hub.refuse[1], {"error": "refused"})
        elif token not in ("", TOKEN, READ_TOKEN):
            self._send(
                401, {"error": "no such token"}, {"X-Error-Message": "Invalid credentials in Authorization header"}
            )
        elif self.command == "PUT":
            self.hub.objects[parts[-1]] = body
            self._send(200, {})
        elif self.command == "POST" and path != "/api/validate-yaml" and token != TOKEN:
            self._send(403 if token else 401, {"error": "no"}, {"X-Error-Message": "this token cannot write"})
        elif self.command == "POST":
            self._write(parts, body)
        else:
            self._read(parts, token)

    def _write(self, parts: list[str], body: bytes) -> None:
        match parts:
            case ["api", "validate-yaml"]:
                self._send(200, {"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                asked = json.loads(body)
                name = f"{asked.get('organization') or 'me'}/{asked['name']}"
                private = asked.get("visibility") == "private" or bool(asked.get("private"))
                new = name not in self.hub.repositories
                if new:
                    self.hub.repositories[name] = Repository(private)
                    self.hub.repositories[name].commit({".gitattributes": b""}, "initial commit")
                self._send(200 if new else 409, {"url": f"{self.hub.url}/{name}", "name": name})
            case ["api", "models", user, name, "preupload", _]:
                asked = json.loads(body)["files"]
                modes = [
                    {"path": f["path"], "shouldIgnore": False, "uploadMode": "lfs" if f["size"] > LARGE else "regular"}
                    for f in asked
                ]
                self._send(200, {"files": modes})
            case [_, _, "info", "lfs", "objects", "batch"]:
                wanted = json.loads(body)["objects"]
                objects = [
                    wish | {"actions": {"upload": {"href": f"{self.hub.url}/storage/{wish['oid']}"}}} for wish in wanted
                ]
                self._send(200, {"transfer": "basic", "objects": objects})
            case ["api", "models", user, name, "branch", branch]:
                repository = self.hub.repositories[f"{user}/{name}"]
                if branch in repository.refs:
                    self._send(409, {"error": "exists"})
                else:
                    repository.refs[branch] = repository.refs["main"]
                    self._send(201, {})
            case ["api", "models", user, name, "commit", revision]:
                repository = self.hub.repositories[f"{user}/{name}"]
                files = dict(repository.files(revision) or {})
                message = ""
                for line in map(json.loads, body.splitlines()):
                    value = line["value"]
                    match line["key"]:
                        case "header":
                            message = value["summary"]
                        case "file":
                            files[value["path"]] = base64.b64decode(value["content"])
                        case "lfsFile":
                            files[value["path"]] = self.hub.objects[value["oid"]]
                        case "deletedFile":
                            del files[value["path"]]
                commit = repository.commit(files, message, revision)
                url = f"{self.hub.url}/{user}/{name}/commit/{commit}"
                self._send(200, {"commitUrl": url, "commitOid": commit, "success": True})
            case _:
                self._send(404, {"error": f"the test server has no {self.command} {self.path}"})

    def _read(self, parts: list[str], token: str) -> None:
        if parts == [""]:
            self._send(200, {})
            return
        in_api = parts[:2] == ["api", "models"]
        user, name, *rest = parts[2:] if in_api else parts
        repository = self.hub.repositories.get(f"{user}/{name}")
        if repository is None or (repository.private and not token):
            # As the hub does: strangers do not learn whether a private repository exists.
            self._send(404 if token else 401, {"error": "not found"}, {"X-Error-Code": "RepoNotFound"})
            return
        revision = rest[1] if len(rest) > 1 else "main"
        files = repository.files(revision)
        if files is None:
            self._send(404, {"error": "no such revision"}, {"X-Error-Code": "RevisionNotFound"})
            return
        commit = repository.refs.get(revision, revision)
        if in_api and rest[:1] == ["tree"]:
            entries = [
                {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for p, c in files.items()
            ]
            self._send(200, entries)
        elif in_api:
            siblings = [{"rfilename": path} for path in files]
            self._send(
                200, {"id": f"{user}/{name}", "sha": commit, "private": repository.private, "siblings": siblings}
            )
        else:
            self._send_file("/".join(rest[2:]), files, commit)

    def _send_file(self, path: str, files: dict[str, bytes], commit: str) -> None:
        if path not in files:
            self._send(404, {"error": "no such file"}, {"X-Error-Code": "EntryNotFound"})
            return
        whole = files[path]
        start = 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
        if self.command == "GET":
            self.hub.ranges.append((path, asked))
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha256(whole).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(whole) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        self.end_headers()
        if self.command == "GET":
            part = whole[start:]
            if len(whole) > LARGE and self.hub.cut_after:
                part = part[: self.hub.cut_after.pop(0)]
                self.close_connection = True
            self.wfile.write(part)

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def loopback_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """Serve an empty hub, and send the client there. HF_ENDPOINT does so for a new process."""
    hub = LoopbackHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in (constants, huggingface_hub.file_download):  # old versions have it in both
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    # The other protocol of uploads needs servers of its own; old versions do not have it.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent/token")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
