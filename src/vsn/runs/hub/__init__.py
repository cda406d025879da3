"""Download runs from the Hugging Face hub, and publish runs there.

A repository is a run folder with a ``config.json`` and a model card, ``README.md``: every command that takes a run takes
what `pull` returns. The package huggingface_hub (extra ``hub``) is imported only when it is needed.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vsn.config.distribution import install_command
from vsn.config.errors import one_line
from vsn.runs.checkpoint import load_model
from vsn.runs.hub.repository import FILES, HubError, check_repository, write_repository
from vsn.runs.run import WeightsKind, check_new, open_run
from vsn.system.files import atomic_write

if TYPE_CHECKING:
    from vsn.models import VideoClassifier

# Path("hf://user/name") has one slash only: hf:/user/name
_CONNECT_SECONDS = 5
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3")
"""Packages through which versions of huggingface_hub reach the network; their errors share no class."""
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>.+))?")


def local_run(run: str | Path) -> Path:
    """Return the folder of a run: a path unchanged; ``hf://user/name`` or ``hf://user/name@revision`` is downloaded.

    Raises:
        HubError: not an address, or a repository that cannot be downloaded.
    """
    return pull(run) if Path(run).as_posix().startswith("hf:/") else Path(run)


def pull(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Download a repository into the local cache, and return its run folder; a local folder is returned as it is.

    Args:
        name: ``user/name`` or ``hf://user/name``, or a folder that `save_pretrained` wrote (or any run folder).
        revision: branch, tag or commit; default the newest of the main branch.
        cache_dir: the cache; default huggingface_hub's.
        token: access token; default the one stored by its login.
        local_files_only: do not use the network.

    Returns:
        The folder. The cache must not be changed; `copy_run` makes a copy that can.

    Raises:
        HubError: no such repository, not one that vsn wrote, or no network and nothing in the cache.
        RunError: a folder that is not a run.
    """
    if Path(name).as_posix().startswith("hf:/"):
        address = _ADDRESS.fullmatch(Path(name).as_posix())
        if address is None:
            raise HubError(f"Expected hf://user/name or hf://user/name@revision, got {name}.")
        # A revision in the address is more specific than the argument's default.
        name, revision = address["repo"], address["revision"] or revision
    _require_package()
    folder = Path(name)
    if not folder.is_dir():
        # huggingface_hub would report a mistyped path as a repository that does not exist.
        if folder.is_absolute() or len(folder.parts) != 2 or "." in folder.parts[0]:
            raise HubError(f"{name} is neither an existing folder nor a repository name, user/name.")
        import huggingface_hub

        with _hub_errors(str(name), "downloaded"):
            snapshot = huggingface_hub.snapshot_download(
                str(name),
                revision=revision,
                cache_dir=cache_dir,
                token=token,
                local_files_only=local_files_only or not _is_reachable(),
                allow_patterns=FILES,
            )
        folder = Path(snapshot)
    check_repository(folder, str(name))
    return folder


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> VideoClassifier:
    """Load a trained model, in evaluation mode, from the hub or a folder; arguments and errors are those of `pull`.

    It maps a clip ``(B, T, C, H, W)``, uint8 or float in [0, 1], to logits. `vsn.Predictor.from_pretrained` takes
    video files and returns class names.
    """
    folder = pull(name, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only)
    return load_model(open_run(folder))


def save_pretrained(
    run: str | Path,
    folder: str | Path,
    *,
    weights: WeightsKind = "last",
    license: str | None = None,
    repo_id: str | None = None,
) -> Path:
    """Write a run as a folder for the hub: weights, settings, class names, results, model card.

    Private parts stay behind: the paths of its data, the state for resuming, the scores of each video.

    Args:
        run: a run folder.
        folder: the folder to create; it must not exist or be empty.
        weights: the last weights, or those of the best validation.
        license: of the weights, an identifier of the hub such as "apache-2.0"; None: the card says that none was stated.
        repo_id: ``user/name``, for the usage example of the card; default the folder's name.

    Raises:
        RunError: not a run, no weights yet, or a folder that is not empty.
        HubError: huggingface_hub is not installed.
    """
    _require_package()
    folder = Path(folder)
    with _new_folder(folder) as temporary:
        write_repository(Path(run), temporary, weights=weights, license=license, repo=repo_id or folder.name)
    return folder


def push_to_hub(
    run: str | Path,
    repo_id: str,
    *,
    weights: WeightsKind = "last",
    license: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    branch: str | None = None,
    message: str = "A run of vsn",
) -> str:
    """Upload a run to the hub in one commit; the repository is created if needed.

    Args:
        run: a run folder.
        repo_id: ``user/name``.
        weights: the last weights, or those of the best validation.
        license: of the weights, as for `save_pretrained`.
        private: whether a new repository is private; None: the default of the hub's settings.
        token: access token; default the one stored by huggingface_hub's login.
        branch: default the main branch.
        message: of the commit.

    Returns:
        The URL of the commit.

    Raises:
        RunError: not a run, or no weights yet.
        HubError: the upload fails; no part of it is kept.
    """
    _require_package()
    import huggingface_hub

    with _hub_errors(repo_id, "uploaded"), tempfile.TemporaryDirectory() as temporary:
        # Before hashing and copying weights.
        from huggingface_hub.utils import validate_repo_id

        validate_repo_id(repo_id)
        write_repository(Path(run), Path(temporary), weights=weights, license=license, repo=repo_id)
        api = huggingface_hub.HfApi(token=token)
        # The hub may complete a name without a user.
        repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
        if branch is not None:
            api.create_branch(repo_id, branch=branch, exist_ok=True)
        files = {
            path.relative_to(temporary).as_posix(): path
            for path in sorted(Path(temporary).rglob("*"))
            if path.is_file()
        }
        # Results of weights pushed before would stay beside the new ones.
        stale = [
            path for path in api.list_repo_files(repo_id, revision=branch)
            if path not in files and any(fnmatch.fnmatchcase(path, pattern) for pattern in FILES)
        ]  # fmt: skip
        # One commit: other users never see a part of it. upload_folder may make several.
        commit = api.create_commit(
            repo_id,
            [
                *(huggingface_hub.CommitOperationAdd(name, path) for name, path in files.items()),
                *(huggingface_hub.CommitOperationDelete(path) for path in stale),
            ],
            commit_message=message,
            revision=branch,
        )
    return str(commit.commit_url)


def copy_run(name: str | Path, to: str | Path, *, revision: str | None = None) -> Path:
    """Copy a repository of the hub to a new run folder, to evaluate it, to start from it, to write results into.

    Raises:
        RunError: the folder is not empty.
        HubError: as `pull`.
    """
    source, to = pull(name, revision=revision), Path(to)
    with _new_folder(to) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True)
    return to


def _require_package() -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise HubError(
            f"The Hugging Face hub needs the package huggingface_hub, which is not installed: {install_command('hub')}."
        )


@contextmanager
def _hub_errors(name: str, action: str) -> Iterator[None]:
    """Convert the many errors of huggingface_hub to one that says what to do."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise HubError(f"Expected a repository name user/name, got {name!r}. ({one_line(error)})") from error
    except Exception as error:
        reason = _hub_reason(error)
        if reason is None:
            raise
        raise HubError(f"{name} could not be {action}: {reason}") from error


def _hub_reason(error: Exception) -> str | None:
    """Say why the hub failed and what to do; None if the error is not the hub's."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # The client wraps errors: an answer of the hub arrives as a file that is not in the cache, or as a RuntimeError.
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    for cause in causes:
        # Some versions derive the missing local file from the hub's errors.
        if isinstance(cause, HfHubHTTPError) and not isinstance(cause, LocalEntryNotFoundError):
            if cause.response is not None and (cause.response.status_code == 429 or cause.response.status_code >= 500):
                return f"{one_line(cause)} The hub is busy or down: try again later."
            return f"{one_line(cause)} Check the name; a private repository needs a token (hf auth login)."
    if isinstance(error, LocalEntryNotFoundError):
        return (
            "no connection to the hub, and it is not in the local cache. Without a network, download it elsewhere "
            "(vsn hub pull NAME --to RUN) and name the folder."
        )
    for cause in causes:
        if type(cause).__module__.partition(".")[0] in _TRANSPORTS:
            return f"no connection to the hub ({one_line(cause)}). Check the network."
    # Connection errors of the system; a missing file of the run is not the hub's.
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return one_line(error)
    return None


def _is_reachable() -> bool:
    """Return whether the hub answers. Without a network its package would wait for minutes and print its attempts."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_CONNECT_SECONDS)
    except Exception:  # of the operating system, TLS, a proxy, or one of several packages
        return False
    return True


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    check_new(folder, "--to")
    with atomic_write(folder, folder=True) as temporary:
        yield temporary
        if folder.is_dir():  # empty, by check_new
            folder.rmdir()
