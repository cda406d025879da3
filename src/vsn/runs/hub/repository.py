"""Repositories of the hub as folders: written from a run, uploaded, fetched. Needs huggingface_hub."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path, PurePath
from typing import Any

import huggingface_hub
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from vsn.config import Recipe
from vsn.config.recipes import dump_recipe
from vsn.runs.hub.card import CardFacts, data_name, write_card
from vsn.runs.hub.errors import HubError
from vsn.runs.metadata import describe_preprocessing
from vsn.runs.results import BadVideoEntry, EvalResult, list_results
from vsn.runs.run import Run, RunError, WeightsKind, check_new, open_run, weights_file, weights_hash
from vsn.system.files import write_json, write_text

FORMAT_VERSION = 1
CONFIG = "config.json"
_COPIED = ("classes.json", "versions.json", "metrics.jsonl", "summary.json", "converted.json")
_FILES = ("recipe.toml", "preprocessing.json", "model.safetensors", *_COPIED)
_ALLOWED = [CONFIG, "README.md", *_FILES, "eval/*.json"]
"""What is fetched of a repository; other files in it are left there."""


class HubRun(ModelHubMixin, library_name="vsn", pipeline_tag="video-classification", tags=["vsn", "video"]):
    """A run to huggingface_hub's machinery, which does the folders, the commits and the cache."""

    def __init__(self, run: Run, weights: WeightsKind, license: str | None, repo_id: str) -> None:
        self.run, self.weights, self.license, self.repo_id = run, weights, license, repo_id
        self.hash = weights_hash(run, weights)

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write all files but the card, which the mixin asks for afterwards."""
        recipe = public_recipe(self.run.recipe)
        write_text(save_directory / "recipe.toml", dump_recipe(recipe))
        write_json(save_directory / "preprocessing.json", describe_preprocessing(recipe))
        write_json(save_directory / CONFIG, describe_run(recipe, self.run.classes))
        for name in _COPIED:
            if (self.run.path / name).is_file():
                shutil.copyfile(self.run.path / name, save_directory / name)
        if not (save_directory / "summary.json").exists():
            write_json(save_directory / "summary.json", {"note": "published before its training had finished"})
        self._save_weights(save_directory / "model.safetensors", recipe)
        saved = weights_hash(Run(save_directory, recipe, self.run.classes))
        for result in self.results():
            # Without the folders of the owner's machine; and the repository has these weights only, as its last.
            bad = [BadVideoEntry(path=PurePath(v["path"]).name, reason=v["reason"]) for v in result.bad_videos or ()]
            published = replace(result, bad_videos=tuple(bad), weights="last", weights_hash=saved)
            published.save(save_directory, None)

    def results(self) -> list[EvalResult]:
        """Results of exactly these weights; the run may have others, of its other weights or of before it was resumed."""
        results = list_results(self.run.path, damaged=[])
        return [result for result in results if result.weights_hash == self.hash and result.is_measured]

    def _save_weights(self, file: Path, recipe: Recipe) -> None:
        """The weights as they are; but where they name the place they started from, with its last name alone."""
        if recipe.model == self.run.recipe.model:
            shutil.copyfile(weights_file(self.run, self.weights), file)
        else:
            tensors = load_file(weights_file(self.run, self.weights))
            save_file(tensors, file, metadata={"model": json.dumps(asdict(recipe.model))})

    @classmethod
    def _from_pretrained(  # type: ignore[override]  # without the mixin's open end of arguments
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
    ) -> HubRun:
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=_ALLOWED,
                )
            )
        return cls(_open_repository(folder, model_id), "last", None, model_id)

    def generate_model_card(self) -> ModelCard:
        """The card: its settings for the hub, and the text of `vsn.runs.hub.card`."""
        run, recipe = self.run, public_recipe(self.run.recipe)
        results = self.results()
        settings = ModelCardData(
            library_name="vsn",
            pipeline_tag="video-classification",
            license=self.license,
            tags=self._hub_mixin_info.model_card_data.tags,
            model_name=self.repo_id.rpartition("/")[2],
            eval_results=[_hub_result(one, recipe) for one in results if one.order == "forward"] or None,
        )
        text = write_card(
            CardFacts(
                recipe=recipe,
                classes=run.classes,
                results=results,
                versions=_read_json(run.path / "versions.json") or {},
                preprocessing=describe_preprocessing(recipe),
                converted=_read_json(run.path / "converted.json"),
                license=self.license,
                repo=self.repo_id,
            )
        )
        return ModelCard(f"---\n{settings.to_yaml()}\n---\n\n{text}", ignore_metadata_errors=False)


def public_recipe(recipe: Recipe) -> Recipe:
    """A recipe without the places of files: of the data's root and of starting weights the last name stays."""
    data = replace(recipe.data, root=PurePath(recipe.data.root).name, annotations="", videos="", flow="")
    weights = PurePath(recipe.model.weights).name or "none"
    return replace(recipe, data=data, model=replace(recipe.model, weights=weights))


def describe_run(recipe: Recipe, classes: tuple[str, ...]) -> dict[str, Any]:
    """What config.json holds: enough to build the model and to feed it."""
    settings = recipe.to_dict()
    return {
        "library_name": "vsn",
        "format_version": FORMAT_VERSION,
        "model": settings["model"],
        "clip": settings["clip"],
        "eval": settings["eval"],
        "task": recipe.data.task,
        "classes": list(classes),
    }


def _hub_result(result: EvalResult, recipe: Recipe) -> huggingface_hub.EvalResult:
    metric = "top1" if result.mean_average_precision is None else "mean_average_precision"
    return huggingface_hub.EvalResult(
        task_type="video-classification",
        dataset_type=recipe.data.source,
        dataset_name=data_name(recipe),
        dataset_split=result.split,
        metric_type="accuracy" if metric == "top1" else metric,
        metric_name=f"{'top-1' if metric == 'top1' else 'mAP'}, protocol {result.protocol}",
        metric_value=round(getattr(result, metric), 4),
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _open_repository(folder: Path, name: str) -> Run:
    """A folder's run, whose config.json, where there is one, says the same as its recipe."""
    if (folder / CONFIG).is_file() and not (folder / "recipe.toml").is_file():
        raise HubError(f"{name} has a {CONFIG} and no recipe.toml; it is no repository that vsn wrote.")
    run = open_run(folder)
    stated = _read_json(folder / CONFIG)
    if stated is None:
        return run
    meant = describe_run(run.recipe, run.classes)
    differing = [key for key in meant if stated.get(key) != meant[key]]
    if differing:
        raise HubError(
            f"{name}: {CONFIG} says another {differing[0]!r} than recipe.toml and classes.json beside it, by which a model "
            "is built. Put them right, or write the folder again with save_pretrained."
        )
    return run


@contextmanager
def _hub_errors(name: str, doing: str) -> Iterator[None]:
    """The many errors of huggingface_hub as one that says what to do."""
    try:
        yield
    except LocalEntryNotFoundError as error:
        raise HubError(
            f"{name} could not be {doing}: no connection to the hub, and it is not in the local cache. Without a network, "
            "fetch it elsewhere (vsn hub pull NAME --to RUN) and name the folder."
        ) from error
    except HFValidationError as error:
        raise HubError(f"{name!r} is no name on the hub; one is user/name. ({_line(error)})") from error
    except HfHubHTTPError as error:
        raise HubError(
            f"{name} could not be {doing}: {_line(error)} Is the name right, and for a private one, is there a token (hf "
            "auth login)?"
        ) from error
    except OSError as error:  # connections; RunError and ours are ValueErrors
        if isinstance(error, FileNotFoundError):
            raise
        raise HubError(f"{name} could not be {doing}: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def fetch(
    name: str | Path,
    *,
    revision: str | None,
    cache_dir: str | Path | None,
    token: str | None,
    local_files_only: bool,
) -> Path:
    """See `vsn.runs.hub.pull`."""
    folder = Path(name)
    if not folder.is_dir() and (folder.is_absolute() or len(folder.parts) != 2 or "." in folder.parts[0]):
        raise HubError(f"{name} is neither a folder that is there nor a name on the hub, user/name.")
    with _hub_errors(str(name), "fetched"):
        hub_run = HubRun.from_pretrained(
            str(name),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
        )
    return hub_run.run.path


def save(run: Path, folder: Path, *, weights: WeightsKind, license: str | None, repo_id: str | None) -> Path:
    """See `vsn.runs.hub.save_pretrained`."""
    hub_run = HubRun(_run_with(run, weights), weights, license, repo_id or folder.name)
    return _make_folder(folder, lambda place: hub_run.save_pretrained(place))


def push(
    run: Path,
    repo_id: str,
    *,
    weights: WeightsKind,
    license: str | None,
    private: bool | None,
    token: str | None,
    branch: str | None,
    message: str,
) -> str:
    """See `vsn.runs.hub.push_to_hub`."""
    hub_run = HubRun(_run_with(run, weights), weights, license, repo_id)
    with _hub_errors(repo_id, "uploaded"):
        return str(hub_run.push_to_hub(repo_id, commit_message=message, private=private, token=token, branch=branch))


def copy_repository(folder: Path, to: Path) -> Path:
    """See `vsn.runs.hub.copy_run`."""
    return _make_folder(to, lambda place: shutil.copytree(folder, place, dirs_exist_ok=True))


def _run_with(path: Path, weights: WeightsKind) -> Run:
    run = open_run(path)
    if not weights_file(run, weights).is_file():
        raise RunError(f"{path} has no {weights_file(run, weights).name}; train it, or name its other weights.")
    return run


def _make_folder(folder: Path, write: Callable[[Path], object]) -> Path:
    """Make a folder, whole or not at all: beside its place first, then renamed."""
    check_new(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        place = Path(temporary) / "new"
        write(place)
        if folder.is_dir():  # empty, by check_new
            folder.rmdir()
        place.rename(folder)
    return folder
