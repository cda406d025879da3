"""What a prediction is, and how a video becomes the views that are predicted from: no network here."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.flow.compute import compute_fields, flow_method, method_of
from vsn.data.flow.find import flow_of_video, list_flow
from vsn.data.flow.values import wanted_flow
from vsn.data.records import (
    IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    RecordSet,
    VideoRecord,
    list_videos,
    walk_folders,
)
from vsn.data.video import VideoError
from vsn.data.video.frame_folders import describe_frames
from vsn.data.video.reader import Choose, frame_size, resize_rgb
from vsn.scores.calibrate import Calibration, calibrated_probabilities
from vsn.scores.metrics import sigmoid, softmax


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    Attributes:
        path: the video.
        labels: class names, most probable first.
        probabilities: their probabilities; all classes together sum to 1, but for a multi-label run.
        accepted: False where the first is below the threshold of a calibration, so that the answer is "unknown".
    """

    path: Path
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    accepted: bool = True

    def calibrated(self, calibration: Calibration, *, top_k: int = 5) -> Prediction:
        """What a calibration makes of a prediction of all classes: the order of the labels stays.

        softmax(log p / T) is softmax(logits / T), so that no logits are needed and two streams can be
        calibrated as one.

        Raises:
            ConfigError: a calibration for other classes, or a prediction of some classes only.
            ValueError: less than one class.
        """
        check_top_k(top_k)
        if differing := sorted(set(calibration.classes) ^ set(self.labels)):
            raise ConfigError(
                f"The calibration is for other classes: {len(differing)} are known to it or to the run alone, for "
                f"example {differing[0]!r}. Fit one on this run's validation scores: vsn calibrate RUN."
            )
        with np.errstate(divide="ignore"):  # a probability of 0 stays 0
            values = calibrated_probabilities(np.log(self.probabilities), calibration.temperature)
        accepted = calibration.threshold is None or bool(values[0] >= calibration.threshold)
        return Prediction(self.path, self.labels[:top_k], tuple(values[:top_k].tolist()), accepted)


def most_probable(
    path: Path, logits: NDArray[np.floating], classes: Sequence[str], *, recipe: Recipe, top_k: int
) -> Prediction:
    """The ``top_k`` most probable classes (at most all) of a video, from its logits ``(num_classes,)``."""
    # Of several labels each has a probability of its own.
    probabilities = sigmoid(logits) if recipe.data.task == "multilabel" else softmax(logits)
    best = probabilities.argsort()[::-1][:top_k]
    return Prediction(path, tuple(classes[i] for i in best), tuple(float(probabilities[i]) for i in best))


def check_top_k(top_k: int) -> None:
    """Raise `ValueError` for less than one class."""
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be 1 or more.")


def list_inputs(recipe: Recipe, path: str | Path) -> list[Path]:
    """What can be predicted of a path: itself, or all videos of a folder (for a flow model all flow, if any).

    A folder of numbered pictures is a video. Raises `ConfigError` for a folder without any.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    flow = list_flow(path) if recipe.model.modality == "flow" else []
    return flow or _folders_of_frames(path, recipe.data.frame_template) or list_videos(path)


def _folders_of_frames(folder: Path, template: str) -> list[Path]:
    """The folders of frames at any depth; none where there are video files, whose folders may hold pictures too."""
    found = []
    for parent, _, files in walk_folders(folder):
        if any(Path(name).suffix.lower() in VIDEO_EXTENSIONS for name in files):
            return []
        if any(Path(name).suffix.lower() in IMAGE_EXTENSIONS for name in files):
            with contextlib.suppress(VideoError):
                describe_frames(parent, template)
                found.append(parent)
    return found


def views_of_video(
    path: Path, recipe: Recipe, classes: tuple[str, ...], view: EvalConfig, *, device: str = "cpu"
) -> torch.Tensor:
    """The clips of a video that a protocol looks at: uint8 ``(T, C, H, W)``, or ``(views, T, C, H, W)``.

    Args:
        path: a video file or a folder of frames; for a flow model its stored flow too, a folder of
            pictures or a `.vsnflow` file. Of a video the flow is computed, as it was for training.
        recipe: the run's: what the model looks at and how a video becomes a clip.
        classes: names, in the order of the logits.
        view: protocol and order of the frames.
        device: where flow is computed.

    Raises:
        VideoError: the file cannot be read as a video; names it and says why.
        ConfigError: flow that is stored otherwise than the model wants it, or that cannot be computed here.
    """
    model = recipe.model

    def computed_fields(path: Path, choose: Choose) -> np.ndarray:
        """Fields of a video without stored flow: those that are looked at."""
        method = method_of(model.flow_method)
        fields = compute_fields(
            path,
            choose,
            flow_method(method, device if method == "tvl1" else "cpu"),
            bound=model.flow_bound,
            short_side=wanted_flow(recipe).short_side,
            frame_template=recipe.data.frame_template,
            decoder=recipe.data.decoder,
        )
        size = frame_size(path, fields.shape[1], fields.shape[2], recipe.clip.short_side)
        return fields if fields.shape[1:3] == size else np.stack([resize_rgb(one, *size) for one in fields])

    stored = model.modality == "flow" and flow_of_video(path, wanted_flow(recipe))
    record = VideoRecord(path=path, labels=(), video_id=path.name)
    uncached = replace(recipe, data=replace(recipe.data, cache="none", flow_layout="auto"))
    dataset = VideoDataset(
        RecordSet((record,), classes),
        uncached,
        train=False,
        view=view,
        read_fields=computed_fields if model.modality == "flow" and not stored else None,
    )
    return dataset[0].clip
