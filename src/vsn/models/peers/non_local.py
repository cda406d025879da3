"""Insert non-local blocks: every position of a volume attends to every other, in space and time.

Source: Wang, Girshick, Gupta and He, "Non-local Neural Networks", CVPR 2018: equations (1), (4), (5) and (6),
Figure 2, and section 3.3 for the bottleneck, the subsampling and the initialization at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional

from vsn.config import Pairwise
from vsn.models.peers.resnet3d import Bottleneck3d, ResNet3d

PLACES: dict[str, dict[str, tuple[int, ...]]] = {
    "resnet50": {"layer2": (1, 3), "layer3": (1, 3, 5)},
    "resnet101": {"layer2": (1, 3), "layer3": (6, 13, 20)},
    "resnet26_thin": {"layer2": (1,), "layer3": (1,)},
}
"""Residual blocks that are followed by a non-local one. ResNet-50: every other block of res3 and res4. ResNet-101: as
many, in res4 every seventh (our reading of "5 blocks" for a stage of 23)."""


class NonLocal3d(nn.Module):
    """Self-attention over the positions of a volume: ``z = x + BN(W y)``, y the mean of g weighted by theta and phi.

    Args:
        channels: C of the volume; theta, phi and g have half as many (section 3.3).
        pairwise: "embedded-gaussian", weights ``softmax(theta phi)`` (equation 4; as in the paper not divided by the square
            root of the width), or "dot-product", ``theta phi / N`` (equation 5).
    """

    def __init__(self, channels: int, *, pairwise: Pairwise = "embedded-gaussian") -> None:
        super().__init__()
        inner = channels // 2
        self.pairwise: Pairwise = pairwise
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        self.out = nn.Conv3d(inner, channels, 1)
        self.bn = nn.BatchNorm3d(channels)
        for conv in (self.theta, self.phi, self.g, self.out):
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        # A new block is the identity, so that it can be inserted into a pretrained network.
        nn.init.zeros_(self.bn.weight)

    def forward(self, volume: Tensor) -> Tensor:
        """``(B, C, T, H, W)`` to the same shape."""
        # N positions attend to M, a quarter of them, after max-pooling 1x2x2 (section 3.3). One pixel cannot be pooled.
        window = (1, min(2, volume.shape[3]), min(2, volume.shape[4]))
        theta = self.theta(volume).flatten(2).transpose(1, 2)  # (B, N, C/2)
        phi = functional.max_pool3d(self.phi(volume), window).flatten(2)  # (B, C/2, M)
        g = functional.max_pool3d(self.g(volume), window).flatten(2).transpose(1, 2)  # (B, M, C/2)
        weights = theta @ phi  # (B, N, M)
        weights = weights.softmax(dim=2) if self.pairwise == "embedded-gaussian" else weights / phi.shape[2]
        mean = (weights @ g).transpose(1, 2).unflatten(2, volume.shape[2:])
        return volume + self.bn(self.out(mean))

    def extra_repr(self) -> str:
        """Show the pairwise function."""
        return f"pairwise={self.pairwise}"


def insert_nonlocal(
    body: ResNet3d, places: Mapping[str, Sequence[int]], *, pairwise: Pairwise = "embedded-gaussian"
) -> ResNet3d:
    """Insert non-local blocks after residual blocks of a 3D ResNet, in place; weight names do not change.

    ``places`` maps a stage to the indices of its blocks: ``{"layer2": (1, 3)}``.
    """
    for stage, numbers in places.items():
        for number in numbers:
            block = body.get_submodule(f"{stage}.{number}")
            assert isinstance(block, Bottleneck3d)
            block.non_local = NonLocal3d(block.conv3.out_channels, pairwise=pairwise)
    return body
