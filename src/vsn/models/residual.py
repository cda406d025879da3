"""What the placement of temporal operations needs to know of a residual block."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ResidualBlock:
    """A residual block of a backbone, by the names of its modules.

    Attributes:
        name: the block, such as ``layer1.2``.
        head: its first convolution, relative to the block; the residual branch enters there.
        spatial: its 3x3 convolution, the one a compact block wraps; where that is depthwise, the pointwise
            one that mixes (`vsn.models.separable`).
        tail: the last module of the residual branch before the addition.
        pointwise: its projecting 1x1 convolution or linear layer, which a pointwise block wraps; "" where
            there is none, or none is known.
    """

    name: str
    head: str
    spatial: str
    tail: str
    pointwise: str = ""

    def path(self, part: str) -> str:
        """The full name of a part of the block."""
        return f"{self.name}.{part}"
