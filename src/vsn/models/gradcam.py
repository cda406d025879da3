"""Grad-CAM for video models: where in each frame a class score comes from.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
ICCV 2017, for each frame of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vsn.config import STAGES, ConfigError
from vsn.models import VideoClassifier
from vsn.models.blocks import stage_blocks
from vsn.models.layers import ShuffleBatchNorm2d

_COLORS = np.array([[0, 0, 96], [0, 96, 255], [0, 220, 160], [255, 220, 0], [255, 40, 0]], dtype=np.float64)
"""Colors of a map from 0 to its largest value, at equal distances."""


class GradCam(NamedTuple):
    """Maps of a class score, and the scores.

    `maps` is float32 `(B, T, h, w)`, 0 or more, in units of the score; frames of a clip share one scale,
    so that a frame that counts for little is dark. `targets` is int64 `(B,)`, the classes the maps are
    of. `logits` is float32 `(B, num_classes)`.
    """

    maps: Tensor
    targets: Tensor
    logits: Tensor


def grad_cam(
    model: VideoClassifier, clip: Tensor, *, targets: Sequence[int] | None = None, stage: str = "res5"
) -> GradCam:
    """Grad-CAM of each frame of a clip: ReLU of the channels, weighted by their mean gradient in that frame.

    The features are what a residual block hands on, after its addition. There the frames of a VSN are in
    their own order again, of a compact as of a headtail block, so that map t lies on frame t; through the
    operations before it those features have seen the other frames too. Inside a headtail block a
    channel belongs to another frame, so a module there is refused.

    The features of a 3D network have fewer steps in time than the clip has frames. Each frame gets the map of the step
    it falls into, which looks at the frames around it too.

    Args:
        model: its mode is kept; it runs in evaluation mode, in the precision of its weights.
        clip: `(B, T, 3, H, W)`, uint8 or float in [0, 1], on the model's device.
        targets: a class for each clip; default the one with the highest score.
        stage: "res2" to "res5", whose last block's features are taken, or the name of a module of the backbone
            that gives feature maps `(B*T, C, h, w)`, or `(B, C, T', h, w)`.

    Raises:
        ConfigError: (a ValueError) no such stage or module, one inside a headtail block, or without maps.
        ValueError: targets that are not a class for each clip.
    """
    name = _feature_module(model.backbone, stage)
    held: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim not in (4, 5):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ConfigError(
                f"Grad-CAM needs feature maps (B*T, C, h, w), or (B, C, T', h, w); {name!r} gives {shape}. Choose a stage "
                f"from {list(STAGES)}, or a convolution."
            )
        held.append(output.detach().requires_grad_())  # nothing before it needs a gradient
        return held[-1]

    was_training = {part: part.training for part in model.modules()}
    handle = model.backbone.get_submodule(name).register_forward_hook(keep)
    model.eval()
    try:
        # Ordinary tensors even under a caller's inference mode, which has no gradients.
        with torch.inference_mode(False), torch.enable_grad():
            logits = model(clip.clone())
            if len(held) != 1:
                raise ConfigError(
                    f"{name!r} ran {len(held)} times in one pass; Grad-CAM needs a module that runs once. Choose "
                    f"a stage from {list(STAGES)}."
                )
            chosen = _targets(logits, targets)
            (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), held[0])
    finally:
        handle.remove()
        for part, mode in was_training.items():
            part.training = mode
    features = held[0].detach()
    weights = gradient.sum(dim=(-2, -1), keepdim=True)  # the mean's divisor would only change the unit
    maps = (weights * features).sum(dim=1).relu() / (features.shape[-2] * features.shape[-1])
    by_frame = _at_frames(maps.float(), clip.shape[1]) if maps.ndim == 4 else maps.float().unflatten(0, clip.shape[:2])
    return GradCam(by_frame, chosen, logits.detach().float())


def overlay(
    frames: NDArray[np.uint8], maps: Tensor | NDArray[np.floating], *, strength: float = 0.6
) -> NDArray[np.uint8]:
    """Frames with their maps laid over them in color, blue (nothing) to red (the clip's most).

    Args:
        frames: uint8 `(T, H, W, 3)`.
        maps: `(T, h, w)`, 0 or more, of one clip as `grad_cam` gives them; resized bilinearly.
        strength: share of the color where the map is largest, 0 to 1; it falls to a third of that at 0.

    Returns:
        uint8 `(T, H, W, 3)`. Maps that are 0 everywhere give dark blue frames.

    Raises:
        ValueError: shapes that do not fit each other, a strength outside 0 to 1.
    """
    maps = torch.as_tensor(maps, dtype=torch.float32).cpu()
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or maps.ndim != 3:
        raise ValueError(
            f"overlay: frames are {frames.dtype} {frames.shape} and maps {tuple(maps.shape)}; they must be uint8 "
            "(T, H, W, 3) and (T, h, w)."
        )
    if len(frames) != len(maps):
        raise ValueError(f"overlay: {len(frames)} frames and {len(maps)} maps; there must be a map for each frame.")
    if not 0 <= strength <= 1:
        raise ValueError(f"overlay: strength is {strength}; it must be between 0 and 1.")
    sized = torch.nn.functional.interpolate(maps[:, None], frames.shape[1:3], mode="bilinear")[:, 0].numpy()
    share = np.clip(sized / max(float(maps.max()), 1e-12), 0, 1)
    place = share * (len(_COLORS) - 1)
    colors = np.stack([np.interp(place, range(len(_COLORS)), channel) for channel in _COLORS.T], axis=-1)
    opacity = strength * (1 + 2 * share[..., None]) / 3
    return np.rint((1 - opacity) * frames + opacity * colors).astype(np.uint8)


def _at_frames(maps: Tensor, num_frames: int) -> Tensor:
    """Maps `(B, T', h, w)` of steps in time, `(B, T, h, w)`: of each frame that of the step it falls into."""
    steps = torch.arange(num_frames, device=maps.device) * maps.shape[1] // num_frames
    return maps[:, steps]


def _targets(logits: Tensor, targets: Sequence[int] | None) -> Tensor:
    if targets is None:
        return logits.argmax(dim=1)
    count, num_classes = logits.shape
    if len(targets) != count or not all(0 <= target < num_classes for target in targets):
        raise ValueError(
            f"grad_cam: targets are {list(targets)}; there must be one for each of {count} clips, each 0 to "
            f"{num_classes - 1}."
        )
    return torch.tensor(list(targets), device=logits.device)


def _feature_module(backbone: nn.Module, stage: str) -> str:
    """The name of the module whose output is taken."""
    if stage in STAGES:
        name = stage_blocks(backbone)[stage][-1]
        # A dense layer gives only the channels it adds; the dense block around it gives all.
        is_layer = type(backbone.get_submodule(name)).__name__.endswith("DenseLayer")
        return name.rpartition(".")[0] if is_layer else name
    names = dict(backbone.named_modules())
    if stage not in names or not stage:
        raise ConfigError(
            f"The stage is {stage!r}; it is one of {list(STAGES)}, or the name of a module of the backbone, which "
            f"begin {[n for n, _ in backbone.named_children()]}."
        )
    for outer, module in names.items():
        tails = [n for n, part in module.named_children() if isinstance(part, ShuffleBatchNorm2d)]
        if tails and stage.startswith(f"{outer}.") and stage != f"{outer}.{tails[0]}":
            raise ConfigError(
                f"{stage!r} lies inside a headtail block, where a channel belongs to another frame, so that its map "
                f"would lie on the wrong one. Take {outer!r}."
            )
    return stage
