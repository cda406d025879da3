"""Compute Grad-CAM for video models: where in each frame a class score comes from.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization",
ICCV 2017, applied to each frame of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vsn.config import STAGES, ConfigError
from vsn.models import VideoClassifier
from vsn.models.blocks import stage_blocks
from vsn.models.layers import ShuffleBatchNorm2d

# Color map from 0 to the largest value, linearly interpolated.
_COLORS = np.array([[0, 0, 96], [0, 96, 255], [0, 220, 160], [255, 220, 0], [255, 40, 0]], dtype=np.float64)


MIN_CELLS = 6
"""Cells on the shorter side of a map from which on it shows a place rather than a blotch."""
_STAGES_BY_SIZE: WeakKeyDictionary[nn.Module, dict[tuple[int, int], str]] = WeakKeyDictionary()
"""What `choose_stage` found by a forward pass, by height and width."""


class GradCam(NamedTuple):
    """Maps of a class score, and the scores.

    `maps` is float32 `(B, T, h, w)`, nonnegative: gradient times activation, not normalized; all frames of a clip share one
    scale, so that a frame that contributes little is dark. `targets` is int64 `(B,)`, the classes of the maps. `logits` is
    float32 `(B, num_classes)`. `stage` is that of the features.
    """

    maps: Tensor
    targets: Tensor
    logits: Tensor
    stage: str


def grad_cam(
    model: VideoClassifier, clip: Tensor, *, targets: Sequence[int] | None = None, stage: str = STAGES[-1]
) -> GradCam:
    """Compute Grad-CAM of each frame of a clip: the ReLU of the channels weighted by their mean gradient in that frame.

    The features are the output of a residual block, after its addition. There the channels of a VSN are unshuffled, after
    a compact and a headtail block, so that map t belongs to frame t; earlier operations let those features depend on other
    frames too. Inside a headtail block channels belong to other frames, so that its modules are refused.

    Features of a 3D network have fewer steps in time than the clip has frames. Each frame takes the map of its step, which
    also depends on the frames around it.

    Args:
        model: runs in evaluation mode, in the precision of its weights; its mode is restored.
        clip: `(B, T, 3, H, W)`, uint8 or float in [0, 1], on the model's device.
        targets: a class for each clip; default the one with the highest score.
        stage: "res2" to "res5", for the features of its last block, or the name of a module of the backbone with outputs
            `(B*T, C, h, w)` or `(B, C, T', h, w)`; "auto": what `choose_stage` returns.

    Raises:
        ConfigError: (a ValueError) no such stage or module, one inside a headtail block, or one without feature maps.
        ValueError: targets that are not a class for each clip.
    """
    stage = choose_stage(model, clip) if stage == "auto" else stage
    name = _feature_module(model.backbone, stage)
    held: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.ndim not in (4, 5):
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ConfigError(
                f"Grad-CAM needs feature maps (B*T, C, h, w) or (B, C, T', h, w); the output of {name!r} is {shape}. Choose "
                f"a stage from {list(STAGES)}, or a convolution."
            )
        # A new leaf, from which on gradients are computed: earlier layers would keep all of their activations in memory.
        torch.set_grad_enabled(True)
        held.append(output.detach().requires_grad_())
        return held[-1]

    # Remember the mode of every part: frozen batch normalizations are in evaluation mode inside a training model.
    was_training = {part: part.training for part in model.modules()}
    # A forward hook may replace the output: the rest of the network then depends on the leaf that `keep` returns.
    handle = model.backbone.get_submodule(name).register_forward_hook(keep)
    model.eval()
    try:
        # A caller may be in inference mode, whose tensors have no gradients: leave it, and copy the clip. `keep` enables
        # gradients until the end of the block.
        with torch.inference_mode(False), torch.no_grad():
            logits = model(clip.clone())
            if len(held) != 1:
                raise ConfigError(
                    f"{name!r} runs {len(held)} times per forward pass; Grad-CAM needs a module that runs once. Choose a "
                    f"stage from {list(STAGES)}."
                )
            num_clips, num_classes = logits.shape
            classes = list(logits.argmax(dim=1).tolist() if targets is None else targets)
            if len(classes) != num_clips or not all(0 <= label < num_classes for label in classes):
                raise ValueError(
                    f"grad_cam: targets are {classes}; expected a class in 0 to {num_classes - 1} for each of {num_clips} "
                    "clips."
                )
            chosen = torch.tensor(classes, device=logits.device)
            (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), held[0])
    finally:
        handle.remove()
        for part, mode in was_training.items():
            part.training = mode
    features = held[0].detach()
    # The mean gradient of a channel is its weight; dividing the map instead of the weight is the same.
    weights = gradient.sum(dim=(-2, -1), keepdim=True)
    maps = ((weights * features).sum(dim=1).relu() / (features.shape[-2] * features.shape[-1])).float()
    num_frames = clip.shape[1]
    if maps.ndim == 4:  # of T' steps: with T = 8 and T' = 2, frames 0 to 3 take step 0, frames 4 to 7 step 1
        maps = maps[:, torch.arange(num_frames, device=maps.device) * maps.shape[1] // num_frames]
    else:
        maps = maps.unflatten(0, clip.shape[:2])
    return GradCam(maps, chosen, logits.detach().float(), stage)


def choose_stage(model: VideoClassifier, clip: Tensor) -> str:
    """Return the deepest stage whose maps have `MIN_CELLS` cells on their shorter side, for clips of this size.

    Deep features tell classes apart best, and have few cells: res5 of 224 pixels has 7, of 64 pixels 2, whose map is a
    blotch. If none has enough it is the one with most.

    Args:
        model: the classifier, whose mode is restored.
        clip: `(B, T, 3, H, W)`; its content does not matter.

    Raises:
        ConfigError: the architecture has no known stages.
    """
    size = (clip.shape[-2], clip.shape[-1])
    known = _STAGES_BY_SIZE.setdefault(model, {})
    if size not in known:
        cells: dict[str, int] = {}

        def count(stage: str, output: object) -> None:
            if isinstance(output, Tensor):
                cells[stage] = min(output.shape[-2:])

        handles = [
            model.backbone.get_submodule(_feature_module(model.backbone, stage)).register_forward_hook(
                lambda module, inputs, output, stage=stage: count(stage, output)
            )
            for stage in STAGES
        ]
        was_training = {part: part.training for part in model.modules()}
        model.eval()
        try:
            # One clip shows the sizes of all.
            with torch.inference_mode():
                model(clip[:1])
        finally:
            for handle in handles:
                handle.remove()
            for part, mode in was_training.items():
                part.training = mode
        enough = [stage for stage in STAGES if cells.get(stage, 0) >= MIN_CELLS]
        known[size] = enough[-1] if enough else max(STAGES, key=lambda stage: cells.get(stage, 0))
    return known[size]


def overlay(
    frames: NDArray[np.uint8], maps: Tensor | NDArray[np.floating], *, strength: float = 0.6
) -> NDArray[np.uint8]:
    """Blend frames with their maps in color, from blue (0) to red (the clip's maximum).

    Args:
        frames: uint8 `(T, H, W, 3)`.
        maps: `(T, h, w)`, nonnegative, of one clip from `grad_cam`; resized bilinearly.
        strength: opacity of the color where the map is largest, in [0, 1]; a third of it where the map is 0.

    Returns:
        uint8 `(T, H, W, 3)`. Where all maps are 0 the frames are dark blue.

    Raises:
        ValueError: shapes that do not fit, or a strength outside [0, 1].
    """
    maps = torch.as_tensor(maps, dtype=torch.float32).cpu()
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or maps.ndim != 3:
        raise ValueError(
            f"overlay: expected frames uint8 (T, H, W, 3) and maps (T, h, w), got {frames.dtype} {frames.shape} and "
            f"{tuple(maps.shape)}."
        )
    if len(frames) != len(maps):
        raise ValueError(f"overlay: expected a map for each of {len(frames)} frames, got {len(maps)}.")
    if not 0 <= strength <= 1:
        raise ValueError(f"overlay: strength is {strength}; it must be in [0, 1].")
    resized = torch.nn.functional.interpolate(maps[:, None], frames.shape[1:3], mode="bilinear")[:, 0].numpy()
    heat = np.clip(resized / max(float(maps.max()), 1e-12), 0, 1)
    position = heat * (len(_COLORS) - 1)
    colors = np.stack([np.interp(position, range(len(_COLORS)), channel) for channel in _COLORS.T], axis=-1)
    opacity = strength * (1 + 2 * heat[..., None]) / 3
    return np.rint((1 - opacity) * frames + opacity * colors).astype(np.uint8)


def _feature_module(backbone: nn.Module, stage: str) -> str:
    """Return the name of the module whose output is used."""
    if stage in STAGES:
        name = stage_blocks(backbone)[stage][-1]
        # The output of a dense layer is only the channels that it adds; that of its dense block is all of them.
        is_layer = type(backbone.get_submodule(name)).__name__.endswith("DenseLayer")
        return name.rpartition(".")[0] if is_layer else name
    names = dict(backbone.named_modules())
    if stage not in names or not stage:
        raise ConfigError(
            f"stage is {stage!r}; it must be one of {list(STAGES)}, or the name of a module of the backbone, which "
            f"begin with {[n for n, _ in backbone.named_children()]}."
        )
    # Between the head and the tail of a headtail block, channels are shuffled.
    for outer, module in names.items():
        tails = [n for n, part in module.named_children() if isinstance(part, ShuffleBatchNorm2d)]
        if tails and stage.startswith(f"{outer}.") and stage != f"{outer}.{tails[0]}":
            raise ConfigError(
                f"{stage!r} is inside a headtail block, where channels belong to other frames, so that maps would be of the "
                f"wrong frame. Use {outer!r}."
            )
    return stage
