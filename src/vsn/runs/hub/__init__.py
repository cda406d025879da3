"""The Hugging Face hub: a run as a repository there, and a repository there as a run.

A repository is a run folder with a ``config.json`` and a model card, ``README.md``, beside what a run holds:
whatever takes a run takes what `pull` gives. The package huggingface_hub (extra ``hub``) is imported when something
is fetched or saved.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vsn.runs.hub.errors import HubError as HubError

if TYPE_CHECKING:
    from vsn.models import VideoClassifier
    from vsn.runs.run import WeightsKind

_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>.+))?")


def local_run(run: str | Path) -> Path:
    """The folder of a run: a path as it is, or what ``hf://user/name`` or ``hf://user/name@revision`` names, fetched.

    Raises:
        HubError: an address that is none, or a repository that cannot be had; says what to do.
    """
    return pull(run) if _is_address(run) else Path(run)


def _require_package() -> None:
    """Raise `HubError` where huggingface_hub, which `vsn.runs.hub.repository` imports, is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise HubError(
            "The Hugging Face hub needs the package huggingface_hub, which is not installed: pip install 'vsn[hub]'."
        )


def _is_address(name: str | Path) -> bool:
    return Path(name).as_posix().startswith("hf:/")  # of hf://user/name a Path keeps hf:/user/name


def pull(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """The run folder of a repository on the hub, fetched into the local cache, or of a folder.

    Args:
        name: ``user/name`` or ``hf://user/name``, or a folder that `save_pretrained` wrote (or any run folder).
        revision: branch, tag or commit; default the newest of the main branch.
        cache_dir: where to keep it; default huggingface_hub's cache.
        token: access token; default the one stored by its login.
        local_files_only: take it from the cache alone.

    Returns:
        The folder. That of the cache is to be read only; `copy_run` makes a run of one's own of it.

    Raises:
        HubError: no such repository, none that vsn wrote, or no network and nothing in the cache.
        RunError: a folder that is no run.
    """
    if _is_address(name):
        address = _ADDRESS.fullmatch(Path(name).as_posix())
        if address is None:
            raise HubError(
                f"{name} is no address on the Hugging Face hub; one is hf://user/name or hf://user/name@revision."
            )
        name, revision = address["repo"], address["revision"] or revision
    _require_package()
    from vsn.runs.hub.repository import fetch

    return fetch(
        name,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=local_files_only,
    )


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> VideoClassifier:
    """A trained model, in evaluation mode, from the hub or a folder; arguments and errors are those of `pull`.

    It maps a clip ``(B, T, C, H, W)``, uint8 or float in [0, 1], to logits. `vsn.Predictor.from_pretrained` takes
    video files and gives names of classes.
    """
    from vsn.runs.checkpoint import load_model
    from vsn.runs.run import open_run

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
    """Write a run as a folder that is fit for the hub: weights, settings, class names, measured results, card.

    What is private of a run stays behind: where its data was, the state that resumes it, its scores by video.

    Args:
        run: a run folder.
        folder: the folder to make; new or empty.
        weights: the last of the run, or those of its best validation.
        license: of the weights, an identifier of the hub such as "apache-2.0"; None: the card says that none
            was stated.
        repo_id: ``user/name`` under which the card says how to use it; None: by the folder's name.

    Raises:
        RunError: no run, no weights yet, or a folder that is not empty.
        HubError: huggingface_hub is not installed.
    """
    _require_package()
    from vsn.runs.hub.repository import save

    return save(Path(run), Path(folder), weights=weights, license=license, repo_id=repo_id)


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
    """Upload a run to the hub in one commit; the repository is made where there is none.

    Args:
        run: a run folder.
        repo_id: ``user/name``.
        weights: the last of the run, or those of its best validation.
        license: of the weights, as for `save_pretrained`.
        private: whether a new repository is; None: as the hub's settings say.
        token: access token; default the one stored by huggingface_hub's login.
        branch: default the main branch.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        RunError, HubError: what is wrong and what to do. Nothing is uploaded in parts.
    """
    _require_package()
    from vsn.runs.hub.repository import push

    return push(
        Path(run),
        repo_id,
        weights=weights,
        license=license,
        private=private,
        token=token,
        branch=branch,
        message=message,
    )


def copy_run(name: str | Path, to: str | Path, *, revision: str | None = None) -> Path:
    """A run folder of one's own of a repository on the hub: to test, to start from, to write results into.

    Raises:
        RunError: the folder is not empty.
        HubError: as `pull`.
    """
    _require_package()
    from vsn.runs.hub.repository import copy_repository

    return copy_repository(pull(name, revision=revision), Path(to))
