"""The one network TSN, TSM and VSN share: normalise, fold, backbone, dropout, head, consensus."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vsn.config import Modality


class VideoClassifier(nn.Module):
    """A 2D CNN on the frames of a clip, and the average of what it says of them (TSN).

    Args:
        backbone: frames ``(N, 3, H, W)``, or as many channels as the modality has, to features
            ``(N, feature_dim)``.
        feature_dim: D.
        num_classes: outputs.
        num_frames: T.
        any_num_frames: whether clips of another T are accepted (TSN, which has no order to keep).
        dropout: drop probability before the classifier.
        normalisation: mean and standard deviation of values in [0, 1], a value a channel, or one for all.
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
        normalisation: tuple[Sequence[float], Sequence[float]],
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
        self.register_buffer("mean", torch.tensor(normalisation[0]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation[1]).view(-1, 1, 1), persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        """Scores of a clip.

        Args:
            clip: ``(B, T, C, H, W)``, uint8, or floating point in [0, 1]; any H and W the backbone takes.

        Returns:
            Logits ``(B, num_classes)``: the mean over the frames.

        Raises:
            ValueError: another layout, or another T than the model was built for.
        """
        features = self.dropout(self.frame_features(clip))
        scores = self.head(features)
        # In half precision the means of many videos would tie.
        return scores.mean(dim=1, dtype=torch.promote_types(scores.dtype, torch.float32))

    def frame_features(self, clip: Tensor) -> Tensor:
        """Features ``(B, T, D)`` of each frame of a clip, before dropout and head."""
        if clip.ndim != 5 or clip.shape[2] != self.num_channels:
            what = "" if self.modality == "rgb" else f" of modality {self.modality!r}"
            raise ValueError(
                f"A clip is (B, T, {self.num_channels}, H, W){what}, uint8 or float in [0, 1]; this one has shape "
                f"{tuple(clip.shape)}. Add the batch axis of a single clip with clip[None]."
            )
        batch, num_frames = clip.shape[:2]
        if num_frames != self.num_frames and not self.any_num_frames:
            raise ValueError(
                f"This model was built for clips of {self.num_frames} frames, and its channels mean those frames; the "
                f"clip has {num_frames}. Sample {self.num_frames} frames, or train a model with num_frames={num_frames}."
            )
        frames = clip.flatten(0, 1)
        if frames.dtype == torch.uint8:
            frames = frames.to(self.mean.dtype) / 255
        elif not frames.is_floating_point():
            raise ValueError(
                f"A clip is uint8 or float in [0, 1]; this one is {frames.dtype}. Convert it with clip.byte()."
            )
        return self.backbone(self._normalised(frames)).unflatten(0, (batch, num_frames))

    def _normalised(self, frames: Tensor) -> Tensor:
        """What the backbone sees of frames in [0, 1].

        Of "rgbdiff", ``(N, 3 (L + 1), H, W)``, the differences of normalised frames, ``(N, 3L, H, W)``:
        later less former, R1, G1, B1, R2, ... The mean cancels, the standard deviation divides (TSN).
        """
        if self.modality != "rgbdiff":
            return (frames - self.mean) / self.std
        frames = frames.unflatten(1, (-1, 3))
        return ((frames[:, 1:] - frames[:, :-1]) / self.std).flatten(1, 2)
