"""The model that is served: from a run folder or an exported file, with its card. Used by one thread."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import ConfigError, Recipe
from vsn.data.views import PROTOCOLS
from vsn.inference.forward import view_scores
from vsn.inference.predict import Predictor
from vsn.inference.prediction import most_probable
from vsn.models.gradcam import grad_cam, overlay
from vsn.runs.metadata import describe_preprocessing
from vsn.runs.run import WeightsKind, open_run, weights_hash
from vsn.serve.decoding import shown_frames
from vsn.serve.problems import no_heat_maps, unknown_label
from vsn.stream.frames import check_windows
from vsn.system.version import installed_version

Clip = NDArray[np.uint8]
"""`(T, C, H, W)`, or `(views, T, C, H, W)`."""
Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model as the service uses it.

    Attributes:
        recipe: how a video becomes clips.
        classes: names, in the order of the logits.
        score: logits `(num_classes,)` for each clip; clips may differ in size.
        predictor: what heat maps are made of; None for an exported file.
        card: what /v1/model says of it.
    """

    recipe: Recipe
    classes: tuple[str, ...]
    score: Callable[[Sequence[Clip]], list[Logits]]
    predictor: Predictor | None
    card: dict[str, Any]

    @property
    def has_windows(self) -> bool:
        """Whether the windows of a long video can be scored, as `vsn predict --windows` does it."""
        try:
            check_windows(self.recipe)
        except ConfigError:
            return False
        return True

    def top(self, logits: Logits, top_k: int) -> list[tuple[str, float]]:
        """Labels with their probabilities, most probable first, exactly as `vsn predict` makes them."""
        said = most_probable(Path(), logits, self.classes, recipe=self.recipe, top_k=top_k)
        return list(zip(said.labels, said.probabilities, strict=True))

    def index_of(self, label: str) -> int:
        """The place of a class. Raises `Problem` (422) for one that there is not."""
        if label not in self.classes:
            raise unknown_label(label, next(iter(get_close_matches(label, self.classes, n=1, cutoff=0.0)), ""))
        return self.classes.index(label)

    def check_heat_maps(self) -> None:
        """Raise `Problem` (422) for a model that none can be made of."""
        if self.predictor is None:
            raise no_heat_maps("this is an exported file")
        if self.recipe.model.modality != "rgb":
            raise no_heat_maps(f"this model looks at {self.recipe.model.modality}")

    def heat_maps(self, clip: Clip, target: int) -> NDArray[np.uint8]:
        """Grad-CAM of a class laid over the T frames of the first view: uint8 `(T, h, w, 3)`."""
        assert self.predictor is not None
        view = torch.from_numpy(clip if clip.ndim == 4 else clip[0])
        maps = grad_cam(self.predictor.model, view[None].to(self.predictor.device), targets=[target]).maps[0]
        return overlay(shown_frames(view), maps)


def open_model(path: Path, *, weights: WeightsKind = "last", device: str = "auto") -> ServedModel:
    """Open what is to be served: a run folder, or a file that `vsn export` wrote.

    Raises:
        RunError, ConfigError: neither, or one that cannot be used here; says what to do.
    """
    if not path.is_dir() and importlib.util.find_spec("vsn.export.exported") is not None:
        return _open_exported(path)
    run = open_run(path)
    predictor = Predictor.from_run(path, device=device, weights=weights)

    def score(clips: Sequence[Clip]) -> list[Logits]:
        view = predictor.recipe.eval
        found: dict[int, Logits] = {}
        for places in _of_one_shape(clips).values():
            stacked = torch.from_numpy(np.stack([clips[place] for place in places]))
            logits = view_scores(
                predictor.model,
                stacked,
                predictor.precision,
                batch_size=view.batch_size,
                average=view.average,
            )
            found |= dict(zip(places, logits, strict=True))
        return [found[place] for place in range(len(clips))]

    card = _card(
        path.resolve().name,
        run.recipe,
        run.classes,
        weights=weights,
        weights_sha256=weights_hash(run, weights),
        device=str(predictor.device),
        accuracy=read_accuracy(path, weights),
    )
    return ServedModel(recipe=run.recipe, classes=run.classes, score=score, predictor=predictor, card=card)


def read_accuracy(path: Path, weights: WeightsKind) -> list[dict[str, Any]]:
    """What `vsn eval` measured of these weights; a file that cannot be read is left out."""
    found = []
    for file in sorted((path / "eval").glob("*.json")):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if facts.get("weights", "last") != weights:
            continue
        keys = ("split", "protocol", "order", "num_videos", "top1", "top1_interval", "top5", "mean_ap")
        found.append({key: facts[key] for key in keys if key in facts})
    return found


def _of_one_shape(clips: Sequence[Clip]) -> dict[tuple[int, ...], list[int]]:
    places: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, clip in enumerate(clips):
        places[clip.shape].append(place)
    return places


def _card(
    name: str,
    recipe: Recipe,
    classes: Sequence[str],
    *,
    weights: str,
    weights_sha256: str,
    device: str,
    accuracy: list[dict[str, Any]],
    exported: str = "",
) -> dict[str, Any]:
    return {
        "name": name,
        "model": recipe.model.name,
        "classes": list(classes),
        "num_frames": recipe.model.num_frames,
        "modality": recipe.model.modality,
        "task": recipe.data.task,
        "protocol": recipe.eval.protocol,
        "num_views": PROTOCOLS[recipe.eval.protocol].num_views,
        "preprocessing": describe_preprocessing(recipe),
        "accuracy": accuracy,
        "weights": weights,
        "weights_sha256": weights_sha256,
        "exported": exported,
        "device": device,
        "vsn": installed_version(),
    }


def _open_exported(path: Path) -> ServedModel:
    """An exported file, through the room that opens them."""
    exported: Any = importlib.import_module("vsn.export.exported")
    if not exported.is_exported(path):
        raise ConfigError(
            f"{path} is neither a run folder (made by `vsn train`) nor an exported model (.onnx, .xml or .pt2)."
        )
    predictor = exported.ExportedPredictor.from_file(path)
    recipe: Recipe = predictor.recipe
    facts = predictor.model.facts

    def score(clips: Sequence[Clip]) -> list[Logits]:
        average = recipe.eval.average
        return [exported.video_logits(predictor.model, clip, average=average) for clip in clips]

    card = _card(
        path.stem,
        recipe,
        predictor.classes,
        weights=facts.weights,
        weights_sha256=facts.weights_hash,
        device="cpu",
        accuracy=[],
        exported=facts.to,
    )
    return ServedModel(recipe=recipe, classes=predictor.classes, score=score, predictor=None, card=card)
