"""The run folder: written so that nothing is ever half there, read back into a model.

``recipe.toml`` all settings, ``classes.json`` class names, ``preprocessing.json`` what is done to a
video, ``versions.json``, ``metrics.jsonl`` a line an epoch (and a validation within one), ``bad_videos.json``
videos that could not be read, ``model.safetensors`` and ``best.safetensors`` the last and the best
weights in the backbone's own names, ``state.pt`` what resuming needs and ``state-before.pt`` the one
before it, ``summary.json`` once it is finished, ``eval/`` results, ``tensorboard/``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from vsn.config import ConfigError, ModelConfig, Recipe
from vsn.config.recipes import dump_recipe, load_recipe
from vsn.data.views import PROTOCOLS
from vsn.models import VideoClassifier, build_model
from vsn.system.allocator import keeps_freed_memory
from vsn.system.files import atomic_write, write_json, write_text
from vsn.system.version import installed_version

WeightsKind = Literal["last", "best"]
_WEIGHTS: dict[WeightsKind, str] = {"last": "model.safetensors", "best": "best.safetensors"}


class RunError(ValueError):
    """A run folder that cannot be used as asked; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """A run folder and what it was made with."""

    path: Path
    recipe: Recipe
    classes: tuple[str, ...]


def new_run(path: Path, recipe: Recipe, classes: tuple[str, ...]) -> Run:
    """A run to come; `write_run` writes its folder, once everything it needs is known to be there."""
    check_new(path)
    if recipe.model.num_classes not in (0, len(classes)):
        raise ConfigError(
            f"model.num_classes is {recipe.model.num_classes}, but the data has {len(classes)} classes; "
            f"set it to {len(classes)}, or to 0 to go by the data."
        )
    return Run(path, replace(recipe, model=replace(recipe.model, num_classes=len(classes))), classes)


def check_new(path: Path) -> None:
    """Refuse a folder that holds something already, or that cannot be made. Raises `RunError`."""
    place = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if place != path.absolute() and not (place.is_dir() and os.access(place, os.W_OK)):
        raise RunError(f"The run folder {path} cannot be made: {place} is no folder that can be written.")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} exists and is not empty. Continue that run with --resume, or choose another folder with --out."
        )


def check_resumable(run: Run, recipe: Recipe, classes: tuple[str, ...]) -> None:
    """Refuse to go on with a run under other settings, or on data with other classes. Raises `RunError`.

    What changes no result may differ: where the data is and how it is read, where the run computes, how
    it is saved and shown.
    """
    former, now = flat_settings(run.recipe), flat_settings(recipe)
    now["model.num_classes"] = len(run.classes)
    differing = [key for key in former if former[key] != now[key] and key not in RESUMABLE_SETTINGS]
    if differing:
        key = differing[0]
        raise RunError(
            f"{run.path} was trained with other settings: {key} was {former[key]!r} and is {now[key]!r} now. A run goes on "
            "as it began; choose another folder with --out (and --init-from to start from its weights), or delete it. "
            f"These may change: {', '.join(sorted(RESUMABLE_SETTINGS))}."
        )
    if run.classes != classes:
        raise RunError(
            f"{run.path} was trained on the classes {_some(run.classes)}; the data has {_some(classes)} now. "
            "Restore the data, or train anew."
        )


RESUMABLE_SETTINGS = frozenset({
    "data.root", "data.annotations", "data.videos", "data.num_workers", "data.cache", "data.bad_videos", "train.device",
    "train.save_minutes", "train.trackers", "train.compile", "train.checkpoint_activations",
    "eval.batch_size",
})  # fmt: skip
"""Settings that a resumed run may change: they change no weights beyond rounding."""


def flat_settings(recipe: Recipe) -> dict[str, Any]:
    """All settings of a recipe by their full names, such as ``train.lr``."""
    return {f"{table}.{key}": value for table, part in recipe.to_dict().items() for key, value in part.items()}


def write_run(run: Run) -> None:
    """Start a run's folder: recipe, class names, versions.

    Raises:
        RunError: it cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.path / "recipe.toml", dump_recipe(run.recipe))
        write_json(run.path / "classes.json", list(run.classes))
        write_json(run.path / "versions.json", versions())
        write_json(run.path / "preprocessing.json", describe_preprocessing(run.recipe))
    except OSError as error:
        raise RunError(f"The run folder {run.path} cannot be written: {error}. Choose another with --out.") from error


def describe_preprocessing(recipe: Recipe) -> dict[str, Any]:
    """What evaluation and prediction do to a video, for those who feed the model themselves."""
    plan, crop, side = PROTOCOLS[recipe.eval.protocol], recipe.clip.crop_size, recipe.clip.short_side
    crops = {
        "whole": "the whole frame",
        "center": f"one center crop of {crop}x{crop} pixels",
        "three": f"three squares of {side}x{side} pixels along the longer side",
        "ten": f"corners and center of {crop}x{crop} pixels, and their mirror images",
    }
    clips = {
        "one": "",
        "two": " of two clips: centers and beginnings of the segments",
        "dense": " of ten dense clips",
    }
    sampling = {
        "segment": "the center of each of as many equal segments of the video",
        "dense": "at equal distances in the middle 64 frames of the video",
        "rate": f"{recipe.clip.frames_per_second:g} a second, from the middle of the video",
    }
    return {
        "frames": f"{recipe.model.num_frames}: {sampling[recipe.clip.sampling]}",
        "resize": f"shorter side to {recipe.clip.short_side} pixels, bilinear",
        "protocol": recipe.eval.protocol,
        "view": crops[plan.crops] + clips[plan.clips],
        "average": f"{recipe.eval.average} over {plan.num_views} views",
        "modality": recipe.model.modality,
        "input": f"(B, T, {recipe.model.clip_channels}, H, W), uint8 or float in [0, 1]",
        "normalization": "inside the model",
    }


def open_run(path: str | Path) -> Run:
    """Read a run folder's recipe and class names.

    Raises:
        RunError: no such folder, or not a run.
    """
    path = Path(path)
    if path.is_file():
        raise RunError(
            f"{path} is a file, not a run folder (made by `vsn train`). Exported files go to `vsn predict` and `vsn serve`."
        )
    try:
        classes = json.loads((path / "classes.json").read_text(encoding="utf-8"))
        return Run(path, load_recipe(path / "recipe.toml"), tuple(classes))
    except FileNotFoundError as error:
        missing = f"it has no {Path(error.filename).name}" if path.is_dir() else "there is no such folder"
        raise RunError(f"{path} is not a run folder (made by `vsn train`): {missing}.") from error
    except (OSError, json.JSONDecodeError, ConfigError) as error:
        raise RunError(f"{path} is not a run folder (made by `vsn train`): {error}") from error


def load_model(run: Run, kind: WeightsKind = "last") -> VideoClassifier:
    """Rebuild a run's model, in evaluation mode, from its own recipe and its last or best weights.

    Raises:
        RunError: no weights yet, or weights that do not fit the recipe.
    """
    path = run.path / _WEIGHTS[kind]
    if not path.is_file():
        raise RunError(f"{run.path} has no weights yet ({path.name}); its training has not finished an epoch.")
    _check_stored_model(path, run.recipe.model)
    model = build_model(run.recipe.model)
    try:
        model.load_state_dict(load_file(path), strict=True)
    except Exception as error:  # safetensors and torch raise several types for damage and mismatch
        raise RunError(f"{path} does not fit its recipe or is damaged: {error}") from error
    return model.eval()


def _check_stored_model(path: Path, asked: ModelConfig) -> None:
    """Refuse another T, placement or shift than the weights were trained with: all have the same shapes."""
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {}).get("model", "{}"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is damaged: {error}") from error
    now = json.loads(json.dumps(asdict(asked)))
    for key in stored.keys() & now.keys() - {"weights", "dropout"}:
        if stored[key] != now[key]:
            raise RunError(
                f"{path} was trained with model.{key} = {stored[key]!r}, and the recipe beside it says {now[key]!r}. "
                "Put it back, or train a model with the new value."
            )


def save_weights(run: Run, model: VideoClassifier, kind: WeightsKind = "last") -> None:
    """Write the weights, whole or not at all."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    with _writing(run.path / _WEIGHTS[kind]) as temporary:
        save_file(tensors, temporary, metadata={"model": json.dumps(asdict(run.recipe.model))})


def weights_file(run: Run, kind: WeightsKind = "last") -> Path:
    """The file of a run's last or best weights, there or not."""
    return run.path / _WEIGHTS[kind]


def weights_hash(run: Run, kind: WeightsKind = "last") -> str:
    """SHA-256 of a file of weights: what results carry to tell which weights they are of."""
    with weights_file(run, kind).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_state(run: Run, state: dict[str, Any]) -> None:
    """Write what resuming needs, whole or not at all, and keep the one before beside it."""
    path = run.path / "state.pt"
    with _writing(path) as temporary:
        torch.save(state, temporary)
        _to_disk(temporary)  # before the former goes, or a power cut could take both
        if path.exists():
            path.replace(run.path / "state-before.pt")


def load_state(run: Run) -> tuple[dict[str, Any], str]:
    """Read what `save_state` wrote: the state, and a word on it where the last one is missing or damaged.

    Raises:
        RunError: there is nothing to resume from, or all of it is damaged.
    """
    last, before = run.path / "state.pt", run.path / "state-before.pt"
    if not last.is_file() and not before.is_file():
        raise RunError(f"{run.path} has nothing to resume from ({last.name} is missing); train it anew.")
    wrong: list[str] = []
    for path in (last, before):
        if not path.is_file():
            wrong.append(f"{path.name} is missing")
            continue
        try:
            with zipfile.ZipFile(path) as archive:  # torch writes checksums and does not look at them
                if archive.testzip():
                    raise ValueError("a checksum is wrong")
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for a damaged file
            wrong.append(f"{path.name} is damaged ({' '.join(str(error).split())[:200]})")
            continue
        return state, f"{wrong[0]}; this goes on from {before.name}, saved before it." if wrong else ""
    raise RunError(f"{run.path} cannot be resumed: {' and '.join(wrong)}. Train it anew.")


def clear_leftovers(run: Run) -> None:
    """Delete what a killed process was writing beside its place."""
    for name in ("state.pt", *_WEIGHTS.values(), "metrics.jsonl"):
        stem, dot, suffix = name.partition(".")
        for left in run.path.glob(f".{stem}-*{dot}{suffix}"):
            left.unlink()


def append_metrics(run: Run, line: dict[str, Any]) -> None:
    """Append one line to metrics.jsonl, whole or not at all.

    A resumed run comes by some steps a second time; what is in the file of such a step stays.
    """
    file = run.path / "metrics.jsonl"
    former = file.read_text(encoding="utf-8") if file.is_file() else ""
    kind = "train_loss" in line
    if any(old["step"] == line["step"] and ("train_loss" in old) == kind for old in read_metrics(run.path)):
        return
    write_text(file, f"{former}{json.dumps(line)}\n")


def write_bad_videos(run: Run, bad: dict[str, str]) -> None:
    """List the videos that could not be read, path -> reason, in ``bad_videos.json``."""
    write_json(run.path / "bad_videos.json", bad)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a run's metrics.jsonl; empty when there are none yet."""
    file = path / "metrics.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def write_summary(run: Run, summary: dict[str, Any]) -> None:
    """Mark a run as finished: ``summary.json`` holds its best validation, its epochs and its seconds."""
    write_json(run.path / "summary.json", summary)


def is_finished(path: Path) -> bool:
    """Whether a run has come to its end."""
    return (path / "summary.json").is_file()


def _to_disk(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def versions() -> dict[str, Any]:
    """Versions and hardware, as results carry them."""
    import av
    import torchvision

    return {
        "vsn": installed_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": metadata.version("accelerate"),
        "torchvision": torchvision.__version__,
        "av": av.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "num_threads": torch.get_num_threads(),
        "keeps_freed_memory": keeps_freed_memory(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """`atomic_write`, with an error that tells what was kept."""
    try:
        with atomic_write(path) as temporary:
            yield temporary
    except (OSError, RuntimeError, SafetensorError) as error:  # torch raises RuntimeError on a full disk
        kept = f"{path.name} is still that of the last time it was saved" if path.exists() else "nothing is there"
        raise RunError(f"{path} cannot be written ({error}); {kept}. Is the disk full?") from error


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names[:5])) + (f", ... ({len(names)})" if len(names) > 5 else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
