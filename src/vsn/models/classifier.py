"""Define the classifiers: a clip is checked and normalized, a network computes features, a linear layer scores them.

`VideoClassifier` is what all models share, `FrameClassifier` applies a 2D CNN to each frame (TSN, TSM, VSN, TRN) and
`VolumeClassifier` a 3D network to the whole clip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vsn.config import ZERO_PATH, ConfigError, Modality, ModelConfig, Plane
from vsn.models.backbones import rgb_normalization
from vsn.models.normalization import FLOW_MEAN, FLOW_STD, IMAGENET_MEAN, IMAGENET_STD
from vsn.models.short_clips import guard_short_clips
from vsn.models.stem import widen_stem

Normalization = tuple[Sequence[float], Sequence[float]]
IMAGENET: Normalization = (IMAGENET_MEAN, IMAGENET_STD)
KINETICS: Normalization = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))
"""Mean and standard deviation of the pixels of Kinetics, with which torchvision's video networks were trained."""


def plane_normalization(plane: Plane, config: ModelConfig) -> tuple[float, float]:
    """Return mean and standard deviation that turn the values in [0, 1] of an extra plane into what the network takes."""
    match plane:
        case "path-x" | "path-y":
            return ZERO_PATH / 255, 0.5 / config.path_bound  # pixels of motion
        case "box":
            return 0.0, 1.0


_ROUNDING = 1e-3
"""By which a float clip may leave its range."""


class VideoClassifier(nn.Module):
    """The base class of all models; a subclass defines `forward`.

    Args:
        backbone: the network before the head. The names of its weights begin with ``backbone.``.
        config: num_classes, num_frames, dropout and modality are taken from it.
        feature_dim: D, features that the head sees.
        normalization: mean and standard deviation of RGB in [0, 1]; flow has its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, config: ModelConfig, *, feature_dim: int, normalization: Normalization = IMAGENET
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(feature_dim, config.num_classes)
        # Small weights (TSN): all classes start with nearly equal scores.
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)
        self.num_frames = config.num_frames
        self.any_num_frames = config.any_num_frames
        self.modality: Modality = config.modality
        self.extra_input = config.extra_input
        self.num_channels = config.clip_channels
        self.clip_max = 1.0
        """Largest value of a float clip; its smallest is 0."""
        mean, std = (FLOW_MEAN, FLOW_STD) if config.modality == "flow" else normalization
        # The planes of an extra input follow the colors.
        extra = [plane_normalization(plane, config) for plane in config.extra_planes]
        mean, std = [*mean, *(m for m, _ in extra)], [*std, *(s for _, s in extra)]
        # Not persistent: weight files hold weights only, and an exported model is self-contained.
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        """Compute the scores of a clip.

        Args:
            clip: ``(B, T, C, H, W)``, uint8, or floating point in [0, 1]; any H and W the backbone takes. C is 3 for RGB,
                2L for flow (x1, y1, x2, y2, ...), 3 (L + 1) for differences; the planes of an extra input follow.

        Returns:
            Logits ``(B, num_classes)``, float32 or wider.

        Raises:
            TypeError: no tensor.
            ValueError: another layout or type, another T than the model was built for, or floating point outside [0, 1]
                (see `normalized`).
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward.")

    def window_scores(self, clip: Tensor, *, share: float) -> Tensor:
        """Score every window of the last feature maps, and average the probabilities (the Non-local code's test).

        Args:
            clip: as for `forward`.
            share: side of a window, of the shorter side of the maps: 0.875 is 7x7 places of 8x10. At stride 1.

        Returns:
            Logarithms of the mean probabilities, ``(B, num_classes)``, float32 or wider.

        Raises:
            ConfigError: the network has no feature maps that are averaged over space.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no window_scores.")

    def normalized(self, clip: Tensor) -> Tensor:
        """Check and normalize a clip: floating point ``(B, T, C', H, W)``, the backbone's input.

        The values of a float clip are compared with [0, 1]: 0 to 255, or normalized frames, would give other scores. Not
        while training on a GPU, where the answer would wait for the device in each step, and not in a compiled or
        exported graph, which cannot stop. uint8 needs no check.
        """
        if not isinstance(clip, Tensor):
            raise TypeError(f"Expected a clip as a tensor, got {type(clip).__name__}. Use torch.as_tensor(clip).")
        if clip.ndim != 5 or clip.shape[2] != self.num_channels:
            modality = "" if self.modality == "rgb" else f" of modality {self.modality!r}"
            raise ValueError(
                f"Expected a clip (B, T, {self.num_channels}, H, W){modality}, uint8 or float in [0, 1], got shape "
                f"{tuple(clip.shape)}. Add the batch axis of a single clip with clip[None]."
            )
        if clip.shape[1] != self.num_frames and not self.any_num_frames:
            raise ValueError(
                f"Expected T={self.num_frames} frames (as trained), got {clip.shape[1]}. Sample {self.num_frames} frames, "
                f"or train a model with num_frames={clip.shape[1]}."
            )
        if clip.dtype != torch.uint8 and not clip.is_floating_point():
            raise ValueError(
                f"Expected a clip of uint8 or float in [0, 1], got {clip.dtype}. Convert it with clip.byte()."
            )
        # "meta" has shapes only; multiply-adds are counted there.
        waits = clip.is_cuda and self.training
        if clip.is_floating_point() and clip.numel() and not (waits or clip.is_meta or torch.compiler.is_compiling()):
            low, high = torch.stack(clip.detach().aminmax()).tolist()  # one synchronization
            # NaN is in no range.
            if not (low >= -_ROUNDING and high <= self.clip_max + _ROUNDING):
                raise ValueError(
                    f"Expected a float clip in [0, {self.clip_max:g}], got values from {low:.3g} to {high:.3g}. Pass uint8, "
                    "or divide by 255; the model normalizes by itself."
                )
        return self.normalize(clip)

    def normalize(self, clip: Tensor) -> Tensor:
        """Normalize a clip of any T, frame by frame, without checks.

        C' is C, except for "rgbdiff": there C = 3 (L + 1) and C' = 3L, the differences of successive normalized frames,
        later minus earlier: R1, G1, B1, R2, ... (TSN).
        """
        # Clips are uint8 until here: a quarter of the bytes from the loader to the device.
        if clip.dtype == torch.uint8:
            clip = clip.to(self.mean.dtype) / 255
        elif clip.dtype == torch.float64:  # frames divided by NumPy
            clip = clip.to(self.mean.dtype)
        if self.modality != "rgbdiff":
            return (clip - self.mean) / self.std
        # The mean cancels in a difference, the standard deviation does not.
        frames = clip.unflatten(2, (-1, 3))
        return ((frames[:, :, 1:] - frames[:, :, :-1]) / self.std).flatten(2, 3)


def windows_of(maps: Tensor, share: float) -> Tensor:
    """Cut every window at stride 1 out of maps ``(N, C, H, W)``: ``(windows * N, C, side, side)``.

    Example:
        >>> windows_of(torch.zeros(2, 1, 8, 10), 0.875).shape  # 2 x 4 windows
        torch.Size([16, 1, 7, 7])
    """
    side = max(1, round(min(maps.shape[2:]) * share))
    rows, columns = (range(size - side + 1) for size in maps.shape[2:])
    return torch.cat([maps[..., y : y + side, x : x + side] for y in rows for x in columns])


def mean_probabilities(scores: Tensor, num_videos: int) -> Tensor:
    """Average the probabilities of windows: logits ``(windows * B, num_classes)`` to logarithms ``(B, num_classes)``."""
    of_windows = scores.unflatten(0, (-1, num_videos)).log_softmax(dim=2)
    return of_windows.logsumexp(dim=0) - math.log(len(of_windows))


class FrameClassifier(VideoClassifier):
    """A 2D CNN on each frame of a clip, and the average of the frames' scores (TSN).

    The backbone maps frames ``(N, C', H, W)`` to features ``(N, D)``.
    """

    _last_pool = ""

    def __init__(self, backbone: nn.Module, config: ModelConfig, *, feature_dim: int) -> None:
        super().__init__(backbone, config, feature_dim=feature_dim, normalization=rgb_normalization(backbone))

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of a clip ``(B, T, C, H, W)``."""
        return self.scores_of(self.frame_features(clip))

    def frame_features(self, clip: Tensor) -> Tensor:
        """Features ``(B, T, D)`` of each frame of a clip, before dropout and head."""
        clip = self.normalized(clip)
        # (B, T, C, H, W) to frames (B*T, C, H, W) and back: for the backbone, frames are a batch.
        return self.backbone(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])

    def window_scores(self, clip: Tensor, *, share: float) -> Tensor:
        """See `VideoClassifier.window_scores`."""
        frames = self.normalized(clip).flatten(0, 1)
        if not self._last_pool:
            self._last_pool = self._find_last_pool(frames[: clip.shape[1]])
        # Windows are a batch from there on: all that follows is of each frame alone.
        last_pool = self.backbone.get_submodule(self._last_pool)
        handle = last_pool.register_forward_pre_hook(lambda _, maps: (windows_of(maps[0], share),))
        try:
            features = self.backbone(frames)
        finally:
            handle.remove()
        scores = self.scores_of(features.unflatten(0, (-1, clip.shape[1])))
        return mean_probabilities(scores, len(clip))

    def _find_last_pool(self, frames: Tensor) -> str:
        """Return the name of the pooling layer of the backbone that is called last. Raises `ConfigError` without one."""
        # Those of squeeze and excitation are inside of blocks, so that the last one averages the features.
        pools = [(name, part) for name, part in self.backbone.named_modules() if isinstance(part, nn.AdaptiveAvgPool2d)]
        called: list[str] = []
        handles = [pool.register_forward_pre_hook(lambda *_, name=name: called.append(name)) for name, pool in pools]
        try:
            self.backbone(frames)
        finally:
            for handle in handles:
                handle.remove()
        if not called:
            raise ConfigError(
                "Protocol 'fcn-windows' scores windows of the features that are averaged last, and this backbone has no "
                "pooling layer there. Use protocol 'fcn'."
            )
        return called[-1]

    def scores_of(self, features: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of frame features ``(B, T, D)``: the mean over the frames."""
        scores = self.head(self.dropout(features))
        # In half precision the means of many videos would tie.
        return scores.mean(dim=1, dtype=torch.promote_types(scores.dtype, torch.float32))


class VolumeClassifier(VideoClassifier):
    """A 3D network on a clip, whose features are averaged over time and space.

    The body maps a volume ``(B, C', T, H, W)`` to features ``(B, D, T', H', W')``. It becomes `backbone`; its first
    convolution is widened to the modality's channels.
    """

    def __init__(
        self, body: nn.Module, config: ModelConfig, *, feature_dim: int, normalization: Normalization = IMAGENET
    ) -> None:
        # Before the head is made, as in `build_backbone`: the order of random draws is part of a seed's result.
        widen_stem(body, config.stem_channels)
        guard_short_clips(body)
        super().__init__(body, config, feature_dim=feature_dim, normalization=normalization)

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of a clip ``(B, T, C, H, W)``."""
        scores = self.head(self.dropout(self.clip_features(clip)))
        # float32 or wider, as the scores of a `FrameClassifier`.
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def window_scores(self, clip: Tensor, *, share: float) -> Tensor:
        """See `VideoClassifier.window_scores`."""
        maps = self.backbone(self.normalized(clip).transpose(1, 2)).mean(dim=2)
        if self.extra_input == "boxes":  # averaged over boxes, which lie in many windows
            raise ConfigError(
                "Protocol 'fcn-windows' scores windows of feature maps, and this network averages over boxes. Use 'fcn'."
            )
        scores = self.head(self.dropout(windows_of(maps, share).mean(dim=(2, 3))))
        return mean_probabilities(scores.to(torch.promote_types(scores.dtype, torch.float32)), len(clip))

    def clip_features(self, clip: Tensor) -> Tensor:
        """Features ``(B, D)`` of a clip, before dropout and head."""
        volume = self.normalized(clip).transpose(1, 2)  # (B, C', T, H, W)
        return self.backbone(volume).mean(dim=(2, 3, 4))
