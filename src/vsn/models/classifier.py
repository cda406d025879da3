"""What every model shares: a clip is checked and normalized, a network sees it, a linear layer decides.

`VideoClassifier` is the shared part; `FrameClassifier` is the one network of TSN, TSM and VSN. Networks that
see a volume are in `vsn.models.volume`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vsn.config import Modality


class VideoClassifier(nn.Module):
    """The part that all models share; a subclass says in `forward` what happens between clip and head.

    Args:
        backbone: the network before the head.
        feature_dim: D, features that the head sees.
        num_classes: outputs.
        num_frames: T.
        any_num_frames: whether clips of another T are accepted (TSN, which has no order to keep).
        dropout: drop probability before the classifier.
        normalization: mean and standard deviation of values in [0, 1], a value a channel, or one for all.
        modality: what the channels of a clip are. "rgb" and "flow" (x1, y1, x2, y2, ...) go to the backbone
            as they are; of "rgbdiff", L + 1 RGB frames, go the L differences of successive ones.
        num_channels: C, channels of a clip: 3, 2L or 3 (L + 1).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        *,
        feature_dim: int,
        num_classes: int,
        num_frames: int,
        any_num_frames: bool,
        dropout: float,
        normalization: tuple[Sequence[float], Sequence[float]],
        modality: Modality = "rgb",
        num_channels: int = 3,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(feature_dim, num_classes)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)
        self.num_frames = num_frames
        self.any_num_frames = any_num_frames
        self.modality: Modality = modality
        self.num_channels = num_channels
        # Not persistent: weights files hold weights, and an exported model is self-contained.
        self.register_buffer("mean", torch.tensor(normalization[0]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalization[1]).view(-1, 1, 1), persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        """Scores of a clip.

        Args:
            clip: ``(B, T, C, H, W)``, uint8, or floating point in [0, 1]; any H and W the backbone takes.

        Returns:
            Logits ``(B, num_classes)``, float32 or wider.

        Raises:
            ValueError: another layout, or another T than the model was built for.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward.")

    def normalized(self, clip: Tensor) -> Tensor:
        """What the backbone sees of a clip, checked: floating point, ``(B, T, C', H, W)``.

        C' is C, but of "rgbdiff", C = 3 (L + 1), it is 3L: the differences of normalized frames, later less
        former, R1, G1, B1, R2, ... The mean cancels, the standard deviation divides (TSN).

        Raises:
            ValueError: as `forward`.
        """
        if clip.ndim != 5 or clip.shape[2] != self.num_channels:
            what = "" if self.modality == "rgb" else f" of modality {self.modality!r}"
            raise ValueError(
                f"A clip is (B, T, {self.num_channels}, H, W){what}, uint8 or float in [0, 1]; this one has shape "
                f"{tuple(clip.shape)}. Add the batch axis of a single clip with clip[None]."
            )
        num_frames = clip.shape[1]
        if num_frames != self.num_frames and not self.any_num_frames:
            raise ValueError(
                f"This model was built for clips of {self.num_frames} frames, and its weights mean those frames; the "
                f"clip has {num_frames}. Sample {self.num_frames} frames, or train a model with num_frames={num_frames}."
            )
        if clip.dtype != torch.uint8 and not clip.is_floating_point():
            raise ValueError(
                f"A clip is uint8 or float in [0, 1]; this one is {clip.dtype}. Convert it with clip.byte()."
            )
        return self.normalize(clip)

    def normalize(self, clip: Tensor) -> Tensor:
        """`normalized` without its checks, so of clips of any T: each frame by itself."""
        if clip.dtype == torch.uint8:
            clip = clip.to(self.mean.dtype) / 255
        if self.modality != "rgbdiff":
            return (clip - self.mean) / self.std
        frames = clip.unflatten(2, (-1, 3))
        return ((frames[:, :, 1:] - frames[:, :, :-1]) / self.std).flatten(2, 3)


class FrameClassifier(VideoClassifier):
    """A 2D CNN on the frames of a clip, and the average of what it says of them (TSN).

    Its backbone maps frames ``(N, C', H, W)`` to features ``(N, D)``.
    """

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of a clip ``(B, T, C, H, W)``: the mean over the frames."""
        return self.scores_of(self.frame_features(clip))

    def scores_of(self, features: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of what `frame_features` gives."""
        scores = self.head(self.dropout(features))
        # In half precision the means of many videos would tie.
        return scores.mean(dim=1, dtype=torch.promote_types(scores.dtype, torch.float32))

    def frame_features(self, clip: Tensor) -> Tensor:
        """Features ``(B, T, D)`` of each frame of a clip, before dropout and head."""
        frames = self.normalized(clip)
        return self.backbone(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
