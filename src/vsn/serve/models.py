"""Open the model to serve, from a run folder or an exported file, with its model card. Used by one thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, Recipe
from vsn.config.distribution import installed_version
from vsn.data.views import PROTOCOLS, num_test_frames
from vsn.inference.exported import ExportedPredictor
from vsn.inference.exported_metadata import SUFFIXES, is_exported
from vsn.inference.prediction import Prediction
from vsn.inference.predictor import Predictor, open_predictor
from vsn.runs.results import list_results
from vsn.runs.run import WeightsKind
from vsn.scores.scores import ScoresError, require_finite
from vsn.serve.decoding import small_frames
from vsn.serve.problems import Problem
from vsn.serve.schemas import Accuracy, Card
from vsn.stream.plan import window_processor

Clip = NDArray[np.uint8]
"""`(T, C, H, W)`, or `(views, T, C, H, W)`."""
Logits = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model as the service uses it."""

    recipe: Recipe
    classes: tuple[str, ...]
    score: Callable[[Sequence[Clip]], list[Logits]]
    """Logits `(num_classes,)` for each clip; clips may differ in size."""
    predictor: Predictor
    """Source of heat maps, if it is of a run."""
    fixed_size: tuple[int | None, int | None] = (None, None)
    """Height and width of the clips of an exported file; None: any."""
    card: Card
    """What /v1/model returns, without the limits of the service."""

    def top(self, logits: Logits, top_k: int) -> list[tuple[str, float]]:
        """Return labels with probabilities, most probable first, computed by the code of `vsn predict`."""
        prediction = Prediction.from_logits(
            Path(), logits, self.classes, multi_label=self.recipe.data.task == "multilabel", top_k=top_k
        )
        return list(zip(prediction.labels, prediction.probabilities, strict=True))

    def check(self) -> None:
        """Label a gray clip. Raises `ConfigError` for a model whose scores are not finite."""
        spec, model = self.recipe.clip, self.recipe.model
        num_frames = num_test_frames(model, self.recipe.eval.protocol)
        num_views = PROTOCOLS[self.recipe.eval.protocol].num_views
        # The size that the views of a square video have.
        side = spec.short_side if PROTOCOLS[self.recipe.eval.protocol].crops in ("whole", "three") else spec.crop_size
        height, width = self.fixed_size
        shape = (num_frames, model.clip_channels, height or side, width or side)
        clip = np.full(shape if num_views == 1 else (num_views, *shape), 128, np.uint8)
        try:
            (logits,) = self.score([clip])
            probabilities = [probability for _, probability in self.top(logits, len(self.classes))]
            require_finite(np.array(probabilities, np.float32))
        except ScoresError as error:
            raise ConfigError(f"The model cannot be served. {error}") from None

    def index_of(self, label: str) -> int:
        """Return the index of a class. Raises `Problem` (422) for an unknown label."""
        if label not in self.classes:
            (nearest,) = get_close_matches(label, self.classes, n=1, cutoff=0.0)
            received = f"The label is {label!r}, which is not a class of the model."
            raise Problem("unknown_label", received, hint=f"Did you mean {nearest!r}?")
        return self.classes.index(label)

    def check_heat_maps(self) -> None:
        """Raise `Problem` (422) for a model without heat maps."""
        if not self.card.heat_maps:
            kind = f"exported to {self.card.exported}" if self.card.exported else f"on {self.card.modality}"
            raise Problem("no_heat_maps", f"Heat maps were requested of a model {kind}.")

    def heat_maps(self, clip: Clip, target: int) -> NDArray[np.uint8]:
        """Draw Grad-CAM of a class over the T frames of the first view: uint8 `(T, h, w, 3)`."""
        # These need PyTorch, which exported files do without.
        import torch

        from vsn.inference.predict import RunPredictor
        from vsn.models.gradcam import grad_cam, overlay

        assert isinstance(self.predictor, RunPredictor)
        view = clip if clip.ndim == 4 else clip[0]
        on_device = torch.from_numpy(view)[None].to(self.predictor.device)
        maps = grad_cam(self.predictor.model, on_device, targets=[target], stage="auto").maps[0]
        return overlay(small_frames(view), maps)


def open_model(path: Path, *, weights: WeightsKind = "last", device: str = "auto") -> ServedModel:
    """Open a run folder, or a file that `vsn export` wrote.

    Raises:
        RunError, ConfigError: the path is neither, or cannot be used here.
    """
    if not path.is_dir() and not is_exported(path):
        raise ConfigError(
            f"{path} is neither a run folder (made by `vsn train`) nor an exported model ({', '.join(SUFFIXES.values())})."
        )
    predictor = open_predictor(path, weights=weights, device=device)
    recipe, view = predictor.recipe, predictor.recipe.eval

    # Called by one thread only (`Batcher`), so nothing here is locked.
    def score(clips: Sequence[Clip]) -> list[Logits]:
        # Videos of several aspect ratios give clips of several sizes; only equal sizes stack into one batch.
        by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, clip in enumerate(clips):
            by_shape[clip.shape].append(index)
        logits: dict[int, Logits] = {}
        for indices in by_shape.values():
            scores = predictor.scores(np.stack([clips[index] for index in indices]), view)
            logits |= dict(zip(indices, scores, strict=True))
        return [logits[index] for index in range(len(clips))]

    metadata = predictor.model.metadata if isinstance(predictor, ExportedPredictor) else None
    card = Card(
        model=recipe.model.name,
        classes=list(predictor.classes),
        num_frames=recipe.model.num_frames,
        modality=recipe.model.modality,
        task=recipe.data.task,
        protocol=view.protocol,
        num_views=PROTOCOLS[view.protocol].num_views,
        preprocessing=predictor.processor.describe(),
        exported=metadata.to if metadata else "",
        vsn=installed_version(),
        heat_maps=metadata is None and recipe.model.modality != "flow",
        timelines=has_windows(recipe),
        name=path.stem if metadata else path.resolve().name,
        weights=metadata.weights if metadata else weights,
        weights_sha256=predictor.weights_hash or "",
        device=predictor.device,
        # A damaged result must not keep the service from starting: those are left out.
        accuracy=[
            Accuracy(**asdict(result))
            for result in ([] if metadata else list_results(path, weights=weights, damaged=[]))
            if result.is_own and not result.is_stale
        ],
    )
    fixed_size = (metadata.height, metadata.width) if metadata else (None, None)
    return ServedModel(
        recipe=recipe,
        classes=predictor.classes,
        score=score,
        predictor=predictor,
        card=card,
        fixed_size=fixed_size,
    )


def has_windows(recipe: Recipe) -> bool:
    """Whether the model can label the windows of a long video, as `vsn predict --windows` does."""
    try:
        window_processor(recipe)
    except ConfigError:
        return False
    return True
