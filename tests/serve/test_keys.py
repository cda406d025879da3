"""API keys: what a file of them must be, who is let in, and what strangers learn."""

import base64
import os
import re
from pathlib import Path

import pytest

from tests.helpers.planted import FAIL
from tests.serve.conftest import KEY, OTHER, Live, key_file, wait_until
from vsn import cli
from vsn.config import ConfigError
from vsn.serve.guards import SECURITY_HEADERS
from vsn.serve.keys import read_keys


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "name"),
    [
        (f"Bearer {KEY}", "alice"),
        (f"bearer   {OTHER}", "bob"),
        (basic(f"anyone:{KEY}"), "alice"),
        (basic(f":{OTHER}"), "bob"),
        ("", None),
        ("Bearer", None),
        (f"Bearer {KEY}k", None),
        (f"Bearer {KEY[:-1]}", None),
        (f"Bearer {KEY.upper()}", None),
        (KEY, None),
        (f"Digest {KEY}", None),
        ("Bearer alice", None),
        (f"Bearer alice:{KEY}", None),
        ("Bearer \xff\xfe", None),
        (basic(KEY), None),
        (basic(f"{KEY}:"), None),
        ("Basic no base64 at all", None),
        ("Basic \xe9", None),
        (f"Basic {KEY}", None),
    ],
)
def test_who_has_a_key_is_let_in(guarded: Live, authorization: str, name: str | None):
    def counted() -> float:
        return guarded.service.metrics.registry.get_sample_value("vsn_key_requests_total", {"name": name or ""}) or 0.0

    before = counted()
    headers = {"authorization": authorization.encode("latin-1")} if authorization else {}
    with guarded.client() as client:
        answer = client.get("/v1/model", headers=headers)
    assert answer.status_code == (401 if name is None else 200)
    assert counted() - before == 1


@pytest.mark.parametrize("path", ["/", "/serve.js", "/v1/model", "/metrics", "/openapi.json", "/nowhere", "/healthz/"])
def test_strangers_learn_nothing(guarded: Live, path: str):
    with guarded.client() as client:
        answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "no_key")
    assert answer.headers["content-type"] == "application/problem+json"
    assert [value.split()[0] for value in answer.headers.get_list("www-authenticate")] == ["Basic", "Bearer"]
    assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_probes_need_no_key(guarded: Live):
    with guarded.client() as client:
        assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        assert client.head("/healthz").status_code == 200


def test_an_upload_without_a_key_is_not_received(guarded: Live, clip: Path):
    uploads = guarded.metric("vsn_stage_seconds_count", stage="upload")
    with guarded.client() as client:
        refused = client.post("/v1/predict", files={"video": clip.read_bytes()})
        labeled = client.post("/v1/predict", files={"video": clip.read_bytes()}, auth=("anyone", KEY))
    assert (refused.status_code, labeled.status_code) == (401, 200)
    assert guarded.metric("vsn_stage_seconds_count", stage="upload") - uploads == 1
    wait_until(
        lambda: guarded.metric("vsn_requests_total", path="/v1/predict", status="401") == 1, "the refusal is counted"
    )


def test_the_log_names_who_and_no_key_is_shown(guarded: Live, caplog: pytest.LogCaptureFixture):
    with guarded.client(auth=("anyone", OTHER)) as client:
        assert client.post("/v1/predict", files={"video": FAIL}).status_code == 422
        shown = "".join(client.get(path).text for path in ("/", "/serve.js", "/v1/model", "/openapi.json", "/metrics"))
        shown += client.get("/v1/model", headers={"authorization": f"Bearer {KEY}x"}).text
    assert "bob" in caplog.text
    assert 'name="bob"' in shown  # of the metrics
    for key in (KEY, OTHER):
        assert key not in shown + caplog.text
        assert key not in repr(vars(guarded.service.config))


def test_openapi_describes_the_keys(guarded: Live, live: Live):
    with guarded.client(auth=("anyone", KEY)) as client:
        api = client.get("/openapi.json").json()
    assert {one["scheme"] for one in api["components"]["securitySchemes"].values()} == {"bearer", "basic"}
    assert api["security"] == [{"bearer": []}, {"basic": []}]
    for path, operations in api["paths"].items():
        for operation in operations.values():
            if path in ("/healthz", "/readyz"):
                assert operation["security"] == []
                assert "401" not in operation["responses"]
            else:
                (content,) = operation["responses"]["401"]["content"].values()
                assert content["example"]["error"]["code"] == "no_key"
    with live.client() as client:
        assert "security" not in client.get("/openapi.json").text


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no key"),
        ("# only a comment\n\n", "holds no key"),
        (KEY, r"Line 1 .*NAME:KEY"),
        (f"alice:{KEY}\n:{OTHER}", r"Line 2 .*NAME:KEY"),
        ("alice:", r"Line 1 .*NAME:KEY"),
        ("alice:short", r"'alice' has 5 characters.*16"),
        (f"alice:{KEY} {KEY}", "spaces"),
        (f"alice:{'é' * 20}", "ASCII"),
        (f"alice:{KEY}\nbob:{KEY}", r"Line 2 .*'bob'.*'alice'"),
    ],
)
def test_a_file_of_keys_that_is_wrong_is_refused(tmp_path: Path, text: str, match: str):
    path = key_file(tmp_path, text)
    with pytest.raises(ConfigError, match=re.compile(match)) as raised:
        read_keys(path)
    assert KEY not in str(raised.value)


@pytest.mark.skipif(os.name == "nt", reason="no modes of files")
@pytest.mark.parametrize(("mode", "is_refused"), [(0o644, True), (0o602, True), (0o600, False), (0o440, False)])
def test_a_file_that_every_user_may_read_is_refused(tmp_path: Path, mode: int, is_refused: bool):
    path = key_file(tmp_path, f"alice:{KEY}\n", mode)
    if is_refused:
        with pytest.raises(ConfigError, match=f"{mode:04o}.*chmod 600"):
            read_keys(path)
    else:
        assert read_keys(path).name_of(f"Bearer {KEY}") == "alice"


def test_one_name_may_have_two_keys_while_one_replaces_the_other(tmp_path: Path):
    keys = read_keys(key_file(tmp_path, f"alice:{KEY}\nalice:{OTHER}\n"))
    assert [keys.name_of(f"Bearer {key}") for key in (KEY, OTHER)] == ["alice", "alice"]


@pytest.mark.parametrize("content", [None, b"alice:\xff\xfe"])
def test_a_file_that_cannot_be_read_stops_the_command_before_the_model(
    tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_bytes(content)
        path.chmod(0o600)
    with pytest.raises(SystemExit, match=r"keys\.txt cannot be read"):
        cli.main(["serve", str(tmp_path / "no run"), "--api-key-file", str(path), "--port", "0"])
