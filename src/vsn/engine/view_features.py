"""Features of a video's views: what the classifier of a model would see of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vsn.config import ConfigError, Protocol
from vsn.data.views import PROTOCOLS
from vsn.engine.evaluate import see_views
from vsn.models import VideoClassifier


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
    logits that `vsn.engine.evaluate.view_scores` averages. With ``per_frame`` the mean is over the views
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
        features = see_views(model, see, clips, precision, batch_size=batch_size)
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
