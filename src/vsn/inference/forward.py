"""Run a model over the views of videos."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vsn.config import ConfigError, Protocol, Recipe
from vsn.data.views import PROTOCOLS
from vsn.models import VideoClassifier
from vsn.system.distributed import pick_device

Average = Literal["logits", "softmax"]


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision on a device; "fp32" is none.

    Raises:
        ConfigError: fp16 without CUDA.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("train.precision 'fp16' needs a CUDA device; use 'bf16' or 'fp32' here.")
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def pick_test_device(recipe: Recipe, name: str | None) -> tuple[torch.device, str]:
    """Device and precision to test a run with: ``name``, or what it was trained on where that is here."""
    if name is None:
        try:
            device = pick_device(recipe.train.device)
        except ConfigError:
            device = pick_device("auto")
    else:
        device = pick_device(name)
    precision = recipe.train.precision
    return device, "fp32" if precision == "fp16" and device.type != "cuda" else precision


def forward_views(
    model: VideoClassifier,
    see: Callable[[torch.Tensor], torch.Tensor],
    clips: torch.Tensor,
    precision: str,
    *,
    batch_size: int,
) -> torch.Tensor:
    """What ``see``, the model or a part of it, makes of every view: float32 `(B, views, ...)`.

    Of clips `(B, T, C, H, W)` or `(B, views, T, C, H, W)`, as many at once as `view_scores` says.
    """
    device = next(model.parameters()).device
    views = clips if clips.ndim == 5 else clips.flatten(0, 1)
    with autocast(device, precision):
        seen = torch.cat(
            [
                see(part.to(device, non_blocking=True)).float()
                for part in views.split(1 if device.type == "cpu" else batch_size)
            ]
        )
    return seen.unflatten(0, (len(clips), -1))


@torch.inference_mode()
def view_scores(
    model: VideoClassifier,
    clips: torch.Tensor,
    precision: str,
    *,
    batch_size: int,
    average: Average = "logits",
) -> NDArray[np.float32]:
    """Scores of videos, float32 `(B, num_classes)`, from clips `(B, T, C, H, W)` or `(B, views, T, C, H, W)`.

    On a GPU at most ``batch_size`` views go through the model at once. On the CPU, where more at once gain
    nothing, one by one: a video's scores are then the same to the last bit, whatever came with it. Over
    the views of a video logits are averaged, or probabilities, whose logarithm then stands for a logit
    (softmax gives them back).
    """
    # averaged one by one: sums of many round otherwise
    videos = forward_views(model, model, clips, precision, batch_size=batch_size)
    scores = torch.stack([mean_of_views(video, average) for video in videos])
    found: NDArray[np.float32] = scores.float().cpu().numpy()
    return found


def mean_of_views(logits: torch.Tensor, average: Average) -> torch.Tensor:
    """Scores `(num_classes,)` of a video from those of its views `(views, num_classes)`; see `view_scores`."""
    return _mean_probability(logits) if average == "softmax" else logits.mean(dim=0)


def _mean_probability(logits: torch.Tensor) -> torch.Tensor:
    """The logarithm of the mean over views of the probabilities: `(views, num_classes)` to `(num_classes,)`."""
    return logits.double().log_softmax(dim=1).logsumexp(dim=0) - math.log(len(logits))


def check_per_frame(protocol: Protocol) -> None:
    """Refuse features by frame of a protocol whose clips show different frames. Raises `ConfigError`."""
    if PROTOCOLS[protocol].clips != "one":
        one = ", ".join(name for name, plan in PROTOCOLS.items() if plan.clips == "one")
        raise ConfigError(
            f"Protocol {protocol!r} shows several clips of a video, whose frames are not the same, so that there is no mean "
            f"by frame. Take one of {one}, or the mean over frames (without per_frame)."
        )


@torch.inference_mode()
def view_features(
    model: VideoClassifier,
    clips: torch.Tensor,
    precision: str,
    *,
    batch_size: int,
    per_frame: bool = False,
) -> NDArray[np.float32]:
    """Features of videos, float32 `(B, D)`, from clips `(B, T, C, H, W)` or `(B, views, T, C, H, W)`.

    They are the input of the classifier, averaged over frames and views: the classifier makes of them the
    logits that `vsn.inference.forward.view_scores` averages. With ``per_frame`` the mean is over the views
    alone, `(B, T, D)`; they must be of one clip then (`check_per_frame`).

    Raises:
        ConfigError: ``per_frame`` of a model that has no features of single frames.
    """
    taken: list[torch.Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        taken.append(inputs[0])

    def see(views: torch.Tensor) -> torch.Tensor:
        model(views)
        return taken.pop()

    handle = model.head.register_forward_pre_hook(keep)
    try:
        features = forward_views(model, see, clips, precision, batch_size=batch_size)
    finally:
        handle.remove()
    # (B, views, T, D), or without T where the network itself has joined the frames
    if per_frame and features.ndim != 4:
        raise ConfigError(
            f"{type(model).__name__} joins the frames before its features; there are none by frame. Leave per_frame out."
        )
    axes = (1,) if per_frame or features.ndim == 3 else (1, 2)
    # One by one, so that a video's features are the same whatever came with it.
    found = torch.stack([one[None].mean(dim=axes)[0] for one in features])
    result: NDArray[np.float32] = found.cpu().numpy()
    return result
