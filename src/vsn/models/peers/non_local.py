"""Non-local blocks: every place of a volume sees every other, in space and time.

Source: Wang, Girshick, Gupta and He, "Non-local Neural Networks", CVPR 2018: equations (1), (4), (5) and (6),
Figure 2, and section 3.3 for the bottleneck, the sub-sampling and the start at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from vsn.config import ConfigError, Pairwise
from vsn.models.peers.resnet3d import ResNet3d

PLACES: dict[str, dict[str, tuple[int, ...]]] = {
    "resnet50": {"layer2": (1, 3), "layer3": (1, 3, 5)},
    "resnet101": {"layer2": (1, 3), "layer3": (6, 13, 20)},
    "resnet26_thin": {"layer2": (1,), "layer3": (1,)},
}
"""Blocks after which the five non-local blocks stand. ResNet-50: every other block of res3 and res4. ResNet-101: as
many, in res4 every seventh (our reading of "5 blocks" for a stage of 23)."""


class NonLocal3d(nn.Module):
    """``z = x + BN(W y)``, y a mean of all places' g, weighted by how theta of one fits phi of the other.

    Args:
        channels: C of the volume; inside there are half as many (section 3.3).
        pairwise: "embedded-gaussian", weights ``softmax(theta phi)`` (equation 4, the paper's default: no divisor by
            the square root of the width), or "dot-product", ``theta phi / N`` (equation 5).
        subsample: let phi and g see 1x2x2 max-pooled places, a quarter of the pairs (section 3.3). A
            volume of one pixel's height or width is not pooled along it.

    The normalization's weight starts at 0, so that a new block is the identity and can stand inside a
    pretrained network.
    """

    def __init__(self, channels: int, *, pairwise: Pairwise = "embedded-gaussian", subsample: bool = True) -> None:
        super().__init__()
        inner = channels // 2
        self.pairwise: Pairwise = pairwise
        self.subsample = subsample
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.bn = nn.BatchNorm3d(channels)
        for conv in (self.theta, self.phi, self.g, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.bn.weight)

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to the same shape."""
        theta = self.theta(volume).flatten(2).transpose(1, 2)  # (B, N, C/2)
        phi = self._pooled(self.phi(volume)).flatten(2)  # (B, C/2, M)
        g = self._pooled(self.g(volume)).flatten(2).transpose(1, 2)  # (B, M, C/2)
        weights = theta @ phi  # (B, N, M)
        weights = weights.softmax(dim=2) if self.pairwise == "embedded-gaussian" else weights / phi.shape[2]
        seen = (weights @ g).transpose(1, 2).unflatten(2, volume.shape[2:])
        return volume + self.bn(self.out(seen))

    def _pooled(self, volume: Tensor) -> Tensor:
        if not self.subsample:
            return volume
        window = (1, min(2, volume.shape[3]), min(2, volume.shape[4]))
        return nn.functional.max_pool3d(volume, window)

    def extra_repr(self) -> str:
        """What is not in the modules."""
        return f"pairwise={self.pairwise}, subsample={self.subsample}"


def insert_nonlocal(
    body: ResNet3d,
    places: Mapping[str, Sequence[int]],
    *,
    pairwise: Pairwise = "embedded-gaussian",
    subsample: bool = True,
) -> ResNet3d:
    """Put non-local blocks after residual blocks of a 3D ResNet, in place; names of its weights stay.

    Args:
        body: the network.
        places: a stage's module name to the numbers of its blocks, such as ``{"layer2": (1, 3)}``.
        pairwise: as in `NonLocal3d`.
        subsample: as in `NonLocal3d`.

    Raises:
        ConfigError: a block that is not there.
    """
    for stage, numbers in places.items():
        blocks = getattr(body, stage, None)
        depth = len(blocks) if isinstance(blocks, nn.Sequential) else 0
        for number in numbers:
            if not 0 <= number < depth:
                raise ConfigError(
                    f"There is no block {stage}.{number} for a non-local block to follow: the network has layer1 to "
                    f"layer4, and {stage} has {depth} blocks, counted from 0."
                )
            block = blocks[number]  # type: ignore[index]
            block.non_local = NonLocal3d(block.conv3.out_channels, pairwise=pairwise, subsample=subsample)
    return body
