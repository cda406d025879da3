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
    factor, 0.8. The number of iterations is fixed, while both stop when u moves by less than 0.01 pixels: a test of
    convergence would synchronize with the device at each iteration, and pairs of a batch converge at different times.
    """

    tau: float = 0.25
    """Step of the dual update; convergence is proven up to 0.125 and observed up to 0.25."""
    lambda_: float = 0.15
    """Weight of the data term: smaller gives smoother flow."""
    theta: float = 0.3
    """Tightness: how far u may be from the pixel-wise solution v."""
    nscales: int = 5
    """Scales of the pyramid, at most; no side gets below 16 pixels."""
    zfactor: float = 0.5
    """Size of each scale relative to the next finer one."""
    nwarps: int = 5
    """Warps of the second frame at each scale."""
    iterations: int = 20
    """Iterations of thresholding step and dual update after each warp."""
    median: bool = True
    """Filter the flow with a 3x3 median after each warp."""

    def __post_init__(self) -> None:
        # Above 0.25 the dual update need not converge.
        check_range(self, "(0, 0.25]", "tau", table="TV-L1 ")
        check_range(self, "(0, inf)", "lambda_", "theta", table="TV-L1 ")
        check_range(self, "(0, 1)", "zfactor", table="TV-L1 ")
        check_range(self, "[1, inf)", "nscales", "nwarps", "iterations", table="TV-L1 ")
