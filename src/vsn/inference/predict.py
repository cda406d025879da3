"""Predict with the PyTorch models of runs: one run, or a run on frames together with one on flow."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.data.video import Part
from vsn.data.views import window_share
from vsn.inference.forward import autocast, mean_of_views, pick_test_device, view_features, view_scores
from vsn.inference.prediction import Prediction, check_top_k
from vsn.inference.predictor import Average, FrameParts, Predictor, reuse_note
from vsn.models import VideoClassifier
from vsn.models.classifier import FrameClassifier
from vsn.models.split import CannotSplitError, SplitBackbone, split_backbone
from vsn.runs.checkpoint import load_model
from vsn.runs.hub import local_run
from vsn.runs.run import WeightsKind, open_run, weights_hash
from vsn.scores.scores import require_finite


class RunPredictor(Predictor):
    """Predict with the PyTorch model of a run; see `Predictor`.

    Attributes:
        model: in evaluation mode, on `device`.
        precision: of inference: fp32, fp16 or bf16.
    """

    def __init__(
        self,
        model: VideoClassifier,
        recipe: Recipe,
        classes: tuple[str, ...],
        *,
        device: str = "auto",
        weights_hash: str | None = None,
    ) -> None:
        super().__init__(recipe, classes, weights_hash=weights_hash)
        chosen, self.precision = pick_test_device(recipe, device)
        self.device = str(chosen)
        self.model = model.eval().to(chosen)

    @classmethod
    def of_run(cls, path: str | Path, *, device: str = "auto", weights: WeightsKind = "last") -> RunPredictor:
        """Load the weights of a run; see `Predictor.from_run`."""
        run = open_run(local_run(path))
        model = load_model(run, weights)
        return cls(model, run.recipe, run.classes, device=device, weights_hash=weights_hash(run, weights))

    def scores(self, clips: NDArray[np.uint8], view: EvalConfig) -> NDArray[np.float32]:
        """See `Predictor.scores`."""
        batch = torch.from_numpy(clips)
        return view_scores(
            self.model,
            batch,
            self.precision,
            batch_size=view.batch_size,
            average=view.average,
            window_share=window_share(view.protocol, self.recipe.clip),
        )

    def clip_features(
        self, clips: NDArray[np.uint8], view: EvalConfig, *, per_frame: bool = False
    ) -> NDArray[np.float32]:
        """See `Predictor.clip_features`."""
        batch = torch.from_numpy(clips)
        return view_features(self.model, batch, self.precision, batch_size=view.batch_size, per_frame=per_frame)

    def frame_parts(self) -> tuple[FrameParts | None, str]:
        """See `Predictor.frame_parts`."""
        return self._parts

    @cached_property  # several sources share it
    def _parts(self) -> tuple[FrameParts | None, str]:
        model, config = self.model, self.recipe.model
        if not isinstance(model, FrameClassifier):
            return None, f"Features are not reused: {config.name} mixes the frames of a window from its first layer on."
        try:
            split = split_backbone(model.backbone, channels=config.stem_channels)
        except CannotSplitError as error:
            return None, f"Features of {config.name} are not reused: {error}."
        return _Parts(self, model, split), reuse_note(split.first_temporal)


_Features = list[tuple[torch.Tensor, ...]]
"""Features of a frame: for each of its crops the tensors that the second part of the network takes."""


class _Parts:
    """The two parts of a run's network; see `FrameParts`."""

    def __init__(self, predictor: RunPredictor, model: FrameClassifier, split: SplitBackbone) -> None:
        self.first_temporal = split.first_temporal
        self._predictor, self._model, self._split = predictor, model, split

    @torch.inference_mode()
    def frame_features(self, crops: NDArray[np.uint8]) -> _Features:
        # Crop by crop, each frame by itself: in a batch convolutions may round differently.
        on_device = torch.from_numpy(crops).to(self._predictor.device)
        with self._autocast():
            return [self._split.frame_part(self._model.normalize(crop[None])[0]) for crop in on_device]

    @torch.inference_mode()
    def scores(self, windows: Sequence[Sequence[_Features]], average: Average) -> NDArray[np.float32]:
        # From frames of crops to crops of frames: a crop of a window has that crop of each frame.
        crops = [crop for frames in windows for crop in zip(*frames, strict=True)]
        # One at a time on the CPU, where the scores of a window then do not depend on others; see `forward_views`.
        at_once = 1 if self._predictor.device == "cpu" else len(crops)
        with self._autocast():
            logits = torch.cat([self._logits(crops[i : i + at_once]) for i in range(0, len(crops), at_once)])
        logits = logits.float().cpu()  # not every device has float64
        means = [mean_of_views(views, average) for views in logits.unflatten(0, (len(windows), -1))]
        return require_finite(torch.stack(means).float().numpy())

    def _logits(self, crops: Sequence[Sequence[tuple[torch.Tensor, ...]]]) -> torch.Tensor:
        """Return logits ``(num_crops, num_classes)`` from the features of the frames of each crop."""
        frames = [frame for crop in crops for frame in crop]
        joined = (torch.cat(values) for values in zip(*frames, strict=True))
        return self._model.scores_of(self._split.clip_part(*joined).unflatten(0, (len(crops), -1)))

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        return autocast(torch.device(self._predictor.device), self._predictor.precision)


class TwoStreamPredictor:
    """Average the probabilities of an RGB run and of a flow run, whose flow is computed on the fly.

    Example:
        predictor = TwoStreamPredictor(Predictor.from_run("rgb"), Predictor.from_run("flow"), flow_weight=1.0)
        print(predictor.predict("clip.mp4").labels[0])
    """

    def __init__(self, frames: Predictor, flow: Predictor, *, flow_weight: float) -> None:
        """Check that two runs can be fused; ``flow_weight`` is relative to the frames' weight of 1.

        Raises:
            ConfigError: modalities, classes or tasks do not fit (classes are matched by name, in any order), or the
                weight is not above 0.
        """
        if flow.recipe.model.modality != "flow" or frames.recipe.model.modality == "flow":
            raise ConfigError(
                f"Two streams need a run on frames and a run on flow; model.modality is {frames.recipe.model.modality!r} "
                f"of the first and {flow.recipe.model.modality!r} of the flow run."
            )
        if different := sorted(set(frames.classes) ^ set(flow.classes)):
            raise ConfigError(
                f"The run and the flow run have different classes: {len(different)} differ, for example {different[0]!r}. "
                "Train both on the same classes."
            )
        # Probabilities of softmax and of sigmoid cannot be averaged.
        tasks = [predictor.recipe.data.task for predictor in (frames, flow)]
        if ("multilabel" in tasks) and tasks[0] != tasks[1]:
            raise ConfigError(
                f"data.task is {tasks[0]!r} of the run and {tasks[1]!r} of the flow run; both must be equal."
            )
        if not flow_weight > 0:
            raise ConfigError(f"The weight of flow is {flow_weight}; it must be above 0 (1: as much as the frames).")
        self.frames, self.flow, self.flow_weight = frames, flow, flow_weight
        self.recipe = frames.recipe
        self.weight_shares = None
        if frames.weight_shares is not None and flow.weight_shares is not None:
            parts = ((frames.weight_shares, 1.0), (flow.weight_shares, flow_weight))
            self.weight_shares = {name: weight / (1 + flow_weight) for shares, weight in parts for name in shares}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the run on frames."""
        return self.frames.classes

    def list_inputs(self, path: str | Path) -> list[Path]:
        """Return the videos that a path names; see `Predictor.list_inputs`."""
        return self.frames.list_inputs(path)

    def predict(self, path: str | Path, *, top_k: int = 5, part: Part | None = None) -> Prediction:
        """Return the most probable classes of one video file or folder of frames; see `Predictor.predict`."""
        check_top_k(top_k)
        # All classes, because the best fused class may be in neither stream's top k.
        frames, flow = (stream.predict(path, top_k=len(self.classes), part=part) for stream in (self.frames, self.flow))
        flow_probability = dict(zip(flow.labels, flow.probabilities, strict=True))
        fused = {
            label: (probability + self.flow_weight * flow_probability[label]) / (1 + self.flow_weight)
            for label, probability in zip(frames.labels, frames.probabilities, strict=True)
        }
        best = sorted(fused, key=lambda label: -fused[label])[:top_k]
        return Prediction(Path(path), tuple(best), tuple(fused[label] for label in best))
