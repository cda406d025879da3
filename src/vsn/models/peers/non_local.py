"""Insert non-local blocks: every position of a volume attends to every other, in space and time.

Source: Wang, Girshick, Gupta and He, "Non-local Neural Networks", CVPR 2018: equations (1), (4), (5) and (6),
Figure 2, and section 3.3 for the bottleneck, the subsampling and the initialization at zero. The authors' code pools the
input of phi and g, a quarter of the cost of pooling their outputs, and scales the products of the embedded Gaussian by
the square root of the width, which equation (4) does not; both are settings (`Attention`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from vsn.config import ModelConfig, NonLocalPool, Pairwise
from vsn.models.peers.resnet3d import Bottleneck3d, ResNet3d

PLACES: dict[str, dict[str, tuple[int, ...]]] = {
    "resnet50": {"layer2": (1, 3), "layer3": (1, 3, 5)},
    "resnet101": {"layer2": (1, 3), "layer3": (6, 13, 20)},
    "resnet26_thin": {"layer2": (1,), "layer3": (1,)},
}
"""Residual blocks that are followed by a non-local one. ResNet-50: every other block of res3 and res4. ResNet-101: as
many, in res4 every seventh (our reading of "5 blocks" for a stage of 23)."""


@dataclass(frozen=True)
class Attention:
    """How a non-local block weights the positions; the settings of `ModelConfig` with these names."""

    pairwise: Pairwise = "embedded-gaussian"
    """"embedded-gaussian": ``softmax(theta phi)`` (equation 4); "dot-product": ``theta phi / N`` (equation 5)."""
    pool: NonLocalPool = "before"
    """Max-pool the input of phi and g, or ("after") their outputs."""
    scale: bool = False
    """Divide ``theta phi`` by the square root of its width before the softmax."""

    @classmethod
    def of(cls, config: ModelConfig) -> Attention:
        """Take the settings from a model's."""
        return cls(config.pairwise, config.non_local_pool, config.non_local_scale)


DEFAULT = Attention()


class NonLocal3d(nn.Module):
    """Self-attention over the positions of a volume: ``z = x + BN(W y)``, y the mean of g weighted by theta and phi.

    Args:
        channels: C of the volume; theta, phi and g have half as many (section 3.3).
        attention: how they are weighted.
    """

    def __init__(self, channels: int, *, attention: Attention = DEFAULT) -> None:
        super().__init__()
        inner = channels // 2
        self.attention = attention
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
        if self.attention.pool == "before":
            pooled = functional.max_pool3d(volume, window)
            phi, g = self.phi(pooled), self.g(pooled)
        else:
            phi, g = (functional.max_pool3d(conv(volume), window) for conv in (self.phi, self.g))
        phi, g = phi.flatten(2), g.flatten(2).transpose(1, 2)  # (B, C/2, M), (B, M, C/2)
        weights = theta @ phi  # (B, N, M)
        if self.attention.pairwise == "dot-product":
            weights = weights / phi.shape[2]
        else:
            weights = (weights * phi.shape[1] ** -0.5 if self.attention.scale else weights).softmax(dim=2)
        mean = (weights @ g).transpose(1, 2).unflatten(2, volume.shape[2:])
        return volume + self.bn(self.out(mean))

    def extra_repr(self) -> str:
        """Show how positions are weighted."""
        return str(self.attention)


def insert_nonlocal(body: ResNet3d, places: Mapping[str, Sequence[int]], *, attention: Attention = DEFAULT) -> ResNet3d:
    """Insert non-local blocks after residual blocks of a 3D ResNet, in place; weight names do not change.

    ``places`` maps a stage to the indices of its blocks: ``{"layer2": (1, 3)}``.
    """
    for stage, numbers in places.items():
        for number in numbers:
            block = body.get_submodule(f"{stage}.{number}")
            assert isinstance(block, Bottleneck3d)
            block.non_local = NonLocal3d(block.conv3.out_channels, attention=attention)
    return body
