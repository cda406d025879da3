"""Run a model over the views of videos: scores and features, averaged over views."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from vsn.config import ConfigError, Recipe
from vsn.data.dataset import BadVideo, VideoDataset
from vsn.data.loader import Share, make_loader
from vsn.data.views import PROTOCOLS
from vsn.inference.predictor import Average
from vsn.models import VideoClassifier
from vsn.scores.scores import require_finite
from vsn.system.distributed import pick_device
from vsn.system.interrupt import StopRequest


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Return the mixed-precision context of a device; none for "fp32".

    Raises:
        ConfigError: fp16 without CUDA.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("train.precision 'fp16' needs a CUDA device; use 'bf16' or 'fp32' here.")
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def pick_test_device(recipe: Recipe, name: str | None) -> tuple[torch.device, str]:
    """Return device and precision for inference: ``name``, or the device of training if it exists on this machine."""
    try:
        device = pick_device(recipe.train.device if name is None else name)
    except ConfigError:
        if name is not None:
            raise
        # The device of training may not exist here: a run trained on a GPU is often used on a laptop.
        device = pick_device("auto")
    # bf16 works on every device, fp16 only on CUDA.
    precision = recipe.train.precision
    return device, "fp32" if precision == "fp16" and device.type != "cuda" else precision


def view_loader(
    dataset: VideoDataset,
    *,
    batch_size: int,
    num_workers: int,
    indices: Sequence[int] | None = None,
    share: Share = Share(),  # noqa: B008  (immutable)
    bad: list[BadVideo],
    stop: StopRequest | None = None,
) -> DataLoader[Any]:
    """Return a loader in the order of the data set, with at most ``batch_size`` views in a batch (or one video).

    Unreadable videos are appended to ``bad``, and their batches come without them. ``indices``, by default of all, and
    ``stop`` are those of `make_loader`.
    """
    num_videos = max(1, batch_size // PROTOCOLS[dataset.protocol].num_views)
    # `whole`: each process takes whole batches, so they hold the same videos for any number of processes.
    return make_loader(
        dataset,
        batch_size=num_videos,
        num_workers=num_workers,
        shuffle=False,
        indices=indices,
        share=share,
        whole=True,
        bad=bad,
        stop=stop,
    )


def forward_views(
    model: VideoClassifier,
    forward: Callable[[torch.Tensor], torch.Tensor],
    clips: torch.Tensor,
    precision: str,
    *,
    batch_size: int,
) -> torch.Tensor:
    """Apply ``forward`` to every view of clips `(B, T, C, H, W)` or `(B, views, T, C, H, W)`: float32 `(B, views, ...)`.

    On a GPU at most ``batch_size`` views are in one call, on the CPU one.
    """
    device = next(model.parameters()).device
    views = clips if clips.ndim == 5 else clips.flatten(0, 1)
    # On the CPU larger batches are not faster, and one view at a time makes the scores of a video independent of
    # the other videos in its batch, to the last bit.
    parts = views.split(1 if device.type == "cpu" else batch_size)
    with autocast(device, precision):
        outputs = torch.cat([forward(part.to(device, non_blocking=True)).float() for part in parts])
    # (B * views, ...) -> (B, views, ...)
    return outputs.unflatten(0, (len(clips), -1))


@torch.inference_mode()
def view_scores(
    model: VideoClassifier,
    clips: torch.Tensor,
    precision: str,
    *,
    batch_size: int,
    average: Average = "logits",
    window_share: float | None = None,
) -> NDArray[np.float32]:
    """Return scores of videos, float32 `(B, num_classes)`, from clips `(B, T, C, H, W)` or `(B, views, T, C, H, W)`.

    With "logits" the logits of the views are averaged. With "softmax" their probabilities are, and the score is the
    logarithm of the mean: its softmax is that mean. With `window_share` (`vsn.data.views.window_share`) the logits of a
    view are those of `VideoClassifier.window_scores`.

    Raises:
        ConfigError: windows of a network that has none.
        ScoresError: a score is NaN or infinite.
    """
    forward = model if window_share is None else partial(model.window_scores, share=window_share)
    # On the CPU, because not every device has float64.
    logits = forward_views(model, forward, clips, precision, batch_size=batch_size).cpu()
    # One video at a time: sums over a batch round differently.
    scores = torch.stack([mean_of_views(video_logits, average) for video_logits in logits])
    return require_finite(scores.float().numpy())


def mean_of_views(logits: torch.Tensor, average: Average) -> torch.Tensor:
    """Return scores `(num_classes,)` of a video from the logits of its views `(views, num_classes)`; see `view_scores`."""
    if average == "logits":
        return logits.mean(dim=0)
    # log(mean p) = logsumexp(log p) - log(num_views), in which small probabilities do not underflow.
    return logits.double().log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))


@torch.inference_mode()
def view_features(
    model: VideoClassifier,
    clips: torch.Tensor,
    precision: str,
    *,
    batch_size: int,
    per_frame: bool = False,
) -> NDArray[np.float32]:
    """Return features of videos, float32 `(B, D)`, from clips `(B, T, C, H, W)` or `(B, views, T, C, H, W)`.

    Features are the input of the classifier, averaged over frames and views; the classifier maps them to the logits that
    `view_scores` averages. With ``per_frame`` they are averaged over the crops of one clip only: `(B, T, D)`.

    Raises:
        ConfigError: ``per_frame``, and the model has no features of single frames.
        ScoresError: a feature is NaN or infinite.
    """
    inputs_of_head: list[torch.Tensor] = []

    def forward(views: torch.Tensor) -> torch.Tensor:
        model(views)
        return inputs_of_head.pop()

    def keep_input(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        inputs_of_head.append(inputs[0])

    # A hook rather than a second forward method: it works for every model, and the features are exactly what the
    # classifier saw.
    handle = model.head.register_forward_pre_hook(keep_input)
    try:
        features = forward_views(model, forward, clips, precision, batch_size=batch_size)
    # A hook that stays would keep a copy of every later batch.
    finally:
        handle.remove()
    # (B, views, T, D); or (B, views, D) where the network itself merges the frames
    if per_frame and features.ndim != 4:
        raise ConfigError(
            f"{type(model).__name__} merges the frames before its features, so it has none per frame. Leave out per_frame."
        )
    axes = (1,) if per_frame or features.ndim == 3 else (1, 2)
    # One video at a time, as in `view_scores`.
    means = torch.stack([video[None].mean(dim=axes)[0] for video in features])
    return require_finite(means.cpu().numpy())
