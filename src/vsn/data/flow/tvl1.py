"""Compute TV-L1 optical flow of batches of frame pairs, in PyTorch, on any device.

Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow" (DAGM 2007), as described by Perez,
Meinhardt-Llopis and Facciolo, "TV-L1 Optical Flow Estimation" (IPOL 2013), whose equations the comments cite. Differences
from the latter:

- A fixed number of iterations (`Tvl1Config`).
- The dual variable is stored times theta, q = theta p, and the image gradient over its squared length. An iteration is
  limited by memory bandwidth, and so takes fewer passes over memory.
- No smoothing of the frames (0.8 pixels there), which raised the error against known motion; OpenCV does not smooth
  either. Coarser scales are antialiased.
- No data term for pixels that the flow moves out of the picture; smoothness decides there.
- A 3x3 median after each warp, as in OpenCV (5x5 there, at every tenth of the iterations).

The same input gives bit-equal flow on one device with one number of threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vsn.config import Tvl1Config

_MIN_SIDE = 16
"""Smallest shorter side, pixels, of the coarsest scale."""
_FLAT = 1e-9
"""Squared image gradient below which a pixel has no information about motion."""


def tvl1_flow(pairs: torch.Tensor, config: Tvl1Config | None = None) -> torch.Tensor:
    """Compute the motion of each pixel from the first to the second frame of each pair.

    Args:
        pairs: Gray frames `(B, 2, H, W)`, uint8 or floating point, values 0 to 255.
        config: Default `Tvl1Config()`.

    Returns:
        float32 `(B, 2, H, W)`, pixels to the right (u) and down (v), on the device of `pairs`: the point (x, y) of the
        first frame is at (x + u, y + v) in the second.

    Raises:
        ValueError: Another shape or dtype, NaN or infinity.
    """
    if pairs.ndim != 4 or pairs.shape[1] != 2 or not pairs.numel():
        raise ValueError(f"Expected pairs of gray frames (B, 2, H, W), got shape {tuple(pairs.shape)}.")
    if not (pairs.dtype == torch.uint8 or pairs.dtype.is_floating_point):
        raise ValueError(f"Expected pairs of uint8 or floating point, 0 to 255, got {pairs.dtype}.")
    if pairs.dtype != torch.uint8 and not torch.isfinite(pairs).all():
        raise ValueError("The frames have NaN or infinite values.")
    config = config or Tvl1Config()
    with torch.inference_mode():
        scales = _pyramid(pairs.float(), config)
        flow = scales[-1].new_zeros(scales[-1].shape)
        # Coarse to fine: each scale starts from the flow of the coarser one, so large motions become small ones.
        for frames in reversed(scales):
            flow = _resized_flow(flow, *frames.shape[2:])
            flow = _flow_of_scale(frames, flow, config)
    return flow.clone()  # an inference tensor could not be used in autograd


def _flow_of_scale(frames: torch.Tensor, flow: torch.Tensor, config: Tvl1Config) -> torch.Tensor:
    """Refine `flow`, in place, at one scale: warps, each followed by iterations (IPOL, algorithm 1)."""
    batch, _, height, width = frames.shape
    first, second = frames[:, :1], frames[:, 1:]
    # One warp moves the second frame and its gradient together.
    moved = torch.cat([second, _central_differences(second)], 1)
    # dual_x[..., j] lies between columns j - 1 and j, dual_y between rows. The outermost stay 0: no flux through the
    # border of the picture (Neumann). So backward differences need no special case there.
    dual_x = frames.new_zeros(batch, 2, height, width + 1)
    dual_y = frames.new_zeros(batch, 2, height + 1, width)
    work = _Work(flow)
    for _ in range(config.nwarps):
        warped, inside = _warp(moved, flow)
        image, gradient = warped[:, :1], warped[:, 1:] * inside
        # rho(u) = I1(x + u0) + <grad, u - u0> - I0 (IPOL, eq. 9), here over |grad|^2: constant + <slope, u>
        slope = gradient / gradient.square().sum(1, keepdim=True).clamp_(min=_FLAT)
        residual = image - first - (gradient * flow).sum(1, keepdim=True)
        constant = residual / gradient.square().sum(1, keepdim=True).clamp_(min=_FLAT) * inside
        for _ in range(config.iterations):
            _threshold(flow, constant, slope, gradient, work, limit=config.lambda_ * config.theta)
            _add_divergence(flow, dual_x, dual_y)
            _update_dual(flow, dual_x, dual_y, work, tau=config.tau, theta=config.theta)
        if config.median:  # removes outliers, which the next warp would start from
            flow = _median3(flow)
    return flow


class _Work:
    """Buffers of the iterations: allocating them in each would take longer than filling them."""

    def __init__(self, flow: torch.Tensor) -> None:
        self.step = torch.empty_like(flow[:, :1], memory_format=torch.contiguous_format)
        self.right, self.down, self.length = (torch.zeros_like(flow) for _ in range(3))


def _threshold(
    flow: torch.Tensor,
    constant: torch.Tensor,
    slope: torch.Tensor,
    gradient: torch.Tensor,
    work: _Work,
    *,
    limit: float,
) -> None:
    """Replace u by v = u + TH(u) (IPOL, eq. 15), in place.

    The three cases of TH are one clamp: v = u - clamp(rho / |grad|^2, -lambda theta, lambda theta) grad.
    """
    torch.addcmul(constant, slope[:, :1], flow[:, :1], out=work.step)
    work.step.addcmul_(slope[:, 1:], flow[:, 1:]).clamp_(-limit, limit)
    flow.addcmul_(work.step, gradient, value=-1)


def _add_divergence(flow: torch.Tensor, dual_x: torch.Tensor, dual_y: torch.Tensor) -> None:
    """Replace v by u = v + theta div p (IPOL, eq. 14), in place: backward differences of q = theta p."""
    flow.add_(dual_x[..., 1:]).sub_(dual_x[..., :-1])
    flow.add_(dual_y[..., 1:, :]).sub_(dual_y[..., :-1, :])


def _update_dual(
    flow: torch.Tensor, dual_x: torch.Tensor, dual_y: torch.Tensor, work: _Work, *, tau: float, theta: float
) -> None:
    """Update p = (p + tau/theta grad u) / (1 + tau/theta |grad u|) (IPOL, eq. 16), in place: forward differences."""
    right, down = work.right[..., :-1], work.down[..., :-1, :]  # the last column and row stay 0
    torch.sub(flow[..., 1:], flow[..., :-1], out=right)
    torch.sub(flow[..., 1:, :], flow[..., :-1, :], out=down)
    length = torch.mul(work.right, work.right, out=work.length)
    length.addcmul_(work.down, work.down).sqrt_().mul_(tau / theta).add_(1)
    dual_x[..., 1:-1].add_(right, alpha=tau).div_(length[..., :-1])
    dual_y[..., 1:-1, :].add_(down, alpha=tau).div_(length[..., :-1, :])


def _warp(images: torch.Tensor, flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample images at x + u (bicubic); also return where that is inside the picture: `(B, 1, H, W)`, 0.0 or 1.0."""
    height, width = flow.shape[2:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    # grid_sample counts from -1, the center of the first pixel, to 1, that of the last.
    grid = torch.stack([x * (2 / max(1, width - 1)) - 1, y * (2 / max(1, height - 1)) - 1], 3)
    warped = F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=True)
    return warped, inside[:, None].to(flow.dtype)


def _central_differences(image: torch.Tensor) -> torch.Tensor:
    """Return d/dx and d/dy of `(B, 1, H, W)` as `(B, 2, H, W)`, with a replicated border."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    along_x = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    along_y = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.cat([along_x, along_y], 1).mul_(0.5)


def _pyramid(frames: torch.Tensor, config: Tvl1Config) -> list[torch.Tensor]:
    """Return the frames at each scale, the finest first."""
    scales = [frames]
    height, width = frames.shape[2:]
    for number in range(1, config.nscales):
        size = round(height * config.zfactor**number), round(width * config.zfactor**number)
        if min(size) < _MIN_SIDE:
            break
        # From the next finer scale, not from the original: cheaper, and close enough with antialiasing.
        scales.append(F.interpolate(scales[-1], size, mode="bilinear", antialias=True))
    return scales


def _resized_flow(flow: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize flow; its motions, in pixels, scale with the picture."""
    if flow.shape[2:] == (height, width):
        return flow
    growth = flow.new_tensor([width / flow.shape[3], height / flow.shape[2]]).view(1, 2, 1, 1)
    return F.interpolate(flow, (height, width), mode="bilinear") * growth


def _median3(planes: torch.Tensor) -> torch.Tensor:
    """Compute a 3x3 median, with a replicated border.

    Each column of three is sorted once, for the three windows that it is in. The median of nine is the median of: the
    largest of the three lows, the middle of the three middles, the smallest of the three highs. Unlike `torch.median`
    over unfolded windows this needs only elementwise minima and maxima.
    """
    padded = F.pad(planes, (1, 1, 1, 1), mode="replicate")
    a, b, c = padded[..., :-2, :], padded[..., 1:-1, :], padded[..., 2:, :]
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    middle = torch.maximum(low, torch.minimum(high, c))
    low, high = torch.minimum(low, c), torch.maximum(high, c)
    lows = torch.maximum(torch.maximum(low[..., :-2], low[..., 1:-1]), low[..., 2:])
    highs = torch.minimum(torch.minimum(high[..., :-2], high[..., 1:-1]), high[..., 2:])
    middles = _middle(middle[..., :-2], middle[..., 1:-1], middle[..., 2:])
    return _middle(lows, middles, highs)


def _middle(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    return torch.maximum(low, torch.minimum(high, c))
