"""Define how optical flow is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.errors import check_range

FlowMethod = Literal["tvl1", "tvl1-opencv", "dis", "farneback"]
StoredLayout = Literal["file", "xy", "rg"]


@dataclass(frozen=True, kw_only=True)
class Tvl1Config:
    """Parameters of TV-L1, with the names of Perez, Meinhardt-Llopis and Facciolo (IPOL 2013).

    tau, lambda, theta, zfactor and nwarps are that paper's, for gray values in 0 to 255; OpenCV differs in the
    factor, 0.8. The number of iterations is fixed, where both go on until u moves by less than an epsilon of
    0.01 pixels: a test of convergence would wait for the device at each iteration, and tie the pairs of a
    batch to one another.
    """

    tau: float = 0.25
    """Step of the dual update; convergence is certain up to 0.125 and seen in practice up to 0.25."""
    lambda_: float = 0.15
    """Weight of the data term: smaller gives smoother flow."""
    theta: float = 0.3
    """Tightness: how far u may be from the pixel-wise solution v."""
    nscales: int = 5
    """Sizes of the pyramid, at most; none has a side below 16 pixels."""
    zfactor: float = 0.5
    """Size of each scale to the finer one."""
    nwarps: int = 5
    """Warps of the second frame at each scale."""
    iterations: int = 20
    """Of thresholding step and dual update, after each warp."""
    median: bool = True
    """A 3x3 median of the flow after each warp."""

    def __post_init__(self) -> None:
        check_range(self, "(0, 0.25]", "tau", table="TV-L1 ")
        check_range(self, "(0, inf]", "lambda_", "theta", table="TV-L1 ")
        check_range(self, "(0, 1)", "zfactor", table="TV-L1 ")
        check_range(self, "[1, inf)", "nscales", "nwarps", "iterations", table="TV-L1 ")
