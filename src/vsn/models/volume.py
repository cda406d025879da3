"""What the 3D networks share: the clip becomes a volume, a body sees it, its features are averaged."""

from __future__ import annotations

import torch
from torch import Tensor

from vsn.models.classifier import VideoClassifier

KINETICS_MEAN = (0.43216, 0.394666, 0.37645)
KINETICS_STD = (0.22803, 0.22145, 0.216989)
"""Of the pixels of Kinetics, with which torchvision's video networks were trained."""


class VolumeClassifier(VideoClassifier):
    """A 3D network on a clip; the average of its features over time and space; a linear layer.

    Its first argument is the body, a module from a volume ``(B, C', T, H, W)``, floating point and normalised, to
    features ``(B, feature_dim, T', H', W')``. It becomes `backbone`: the names of its weights begin so.
    """

    def forward(self, clip: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of a clip ``(B, T, C, H, W)``."""
        scores = self.head(self.dropout(self.clip_features(clip)))
        # As a `FrameClassifier` gives them.
        return scores.to(torch.promote_types(scores.dtype, torch.float32))

    def clip_features(self, clip: Tensor) -> Tensor:
        """Features ``(B, D)`` of a clip, before dropout and head."""
        volume = self.normalised(clip).transpose(1, 2)
        return self.backbone(volume).mean(dim=(2, 3, 4))
