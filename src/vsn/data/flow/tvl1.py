"""TV-L1 optical flow of batches of frame pairs, in PyTorch, on any device.

Zach, Pock and Bischof, "A Duality Based Approach for Realtime TV-L1 Optical Flow" (DAGM 2007), as written
down by Perez, Meinhardt-Llopis and Facciolo, "TV-L1 Optical Flow Estimation" (IPOL 2013), whose equations
the comments below name. What differs from the latter, and why:

- The number of iterations is fixed (`Tvl1Config`).
- The dual variable is kept times theta, q = theta p, and the gradient of the image over its squared
  length: an iteration then needs fewer passes over memory, which is what it waits for.
- The frames are not smoothed first (there by 0.8 pixels), which raised the error against known
  motion; the coarser scales are antialiased. OpenCV does not smooth either.
- Pixels that the flow moves out of the picture have no data term; the smoothness alone decides there.
- A median after each warp, as OpenCV does it (there 5x5, at each tenth part of the iterations).

The same input gives the same flow, to the bit on one device with one number of threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from vsn.config import Tvl1Config

_SMALLEST = 16
"""Pixels of the shorter side of the coarsest scale, at least."""
_FLAT = 1e-9
"""Squared gradient of the image below which a pixel says nothing about motion."""


def tvl1_flow(pairs: torch.Tensor, config: Tvl1Config | None = None) -> torch.Tensor:
    """The motion of each pixel from the first to the second frame of each pair.

    Args:
        pairs: gray frames `(B, 2, H, W)`, uint8 or floating point, of values in 0 to 255.
        config: default `Tvl1Config()`.

    Returns:
        float32 `(B, 2, H, W)`, pixels to the right and down, on the device of `pairs`: what is at (x, y) in the first
        frame is at (x + u, y + v) in the second.

    Raises:
        ValueError: another shape, or values that are not numbers.
    """
    if pairs.ndim != 4 or pairs.shape[1] != 2 or not pairs.numel():
        raise ValueError(f"pairs of shape {tuple(pairs.shape)} came; TV-L1 takes gray frames (B, 2, H, W).")
    if not (pairs.dtype == torch.uint8 or pairs.dtype.is_floating_point):
        raise ValueError(f"pairs of {pairs.dtype} came; TV-L1 takes uint8 or floating point, 0 to 255.")
    if pairs.dtype != torch.uint8 and not torch.isfinite(pairs).all():
        raise ValueError("the frames have values that are not numbers.")
    config = config or Tvl1Config()
    with torch.inference_mode():
        scales = _pyramid(pairs.float(), config)
        flow = scales[-1].new_zeros(scales[-1].shape)
        for frames in reversed(scales):
            flow = _resized_flow(flow, *frames.shape[2:])
            flow = _flow_of_scale(frames, flow, config)
    return flow.clone()  # of an ordinary tensor, that may be used outside of inference mode


def _flow_of_scale(frames: torch.Tensor, flow: torch.Tensor, config: Tvl1Config) -> torch.Tensor:
    """Improve `flow`, in place, at one scale: warps, and iterations after each (IPOL, algorithm 1)."""
    batch, _, height, width = frames.shape
    first, second = frames[:, :1], frames[:, 1:]
    moved = torch.cat([second, _central_differences(second)], 1)
    # q_x[..., j] is that between columns j - 1 and j; the outermost stay 0 (Neumann), and so q_y for rows.
    dual_x = frames.new_zeros(batch, 2, height, width + 1)
    dual_y = frames.new_zeros(batch, 2, height + 1, width)
    work = _Work(flow)
    for _ in range(config.nwarps):
        warped, inside = _warp(moved, flow)
        image, gradient = warped[:, :1], warped[:, 1:] * inside
        # rho(u) = I1(x + u0) + <grad, u - u0> - I0 (IPOL, eq. 9), over |grad|^2
        slope = gradient / gradient.square().sum(1, keepdim=True).clamp_(min=_FLAT)
        residual = image - first - (gradient * flow).sum(1, keepdim=True)
        constant = residual / gradient.square().sum(1, keepdim=True).clamp_(min=_FLAT) * inside
        for _ in range(config.iterations):
            _threshold(flow, constant, slope, gradient, work, limit=config.lambda_ * config.theta)
            _add_divergence(flow, dual_x, dual_y)
            _update_dual(flow, dual_x, dual_y, work, tau=config.tau, theta=config.theta)
        if config.median:
            flow = _median3(flow)
    return flow


class _Work:
    """Buffers of an iteration, so that none is allocated in it."""

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
    """u becomes v = u + TH(u) (IPOL, eq. 15), in place.

    Its three cases are one: v = u - clamp(rho / |grad|^2, -lambda theta, lambda theta) grad.
    """
    torch.addcmul(constant, slope[:, :1], flow[:, :1], out=work.step)
    work.step.addcmul_(slope[:, 1:], flow[:, 1:]).clamp_(-limit, limit)
    flow.addcmul_(work.step, gradient, value=-1)


def _add_divergence(flow: torch.Tensor, dual_x: torch.Tensor, dual_y: torch.Tensor) -> None:
    """u = v + theta div p (IPOL, eq. 14), in place; backward differences, q = theta p."""
    flow.add_(dual_x[..., 1:]).sub_(dual_x[..., :-1])
    flow.add_(dual_y[..., 1:, :]).sub_(dual_y[..., :-1, :])


def _update_dual(
    flow: torch.Tensor, dual_x: torch.Tensor, dual_y: torch.Tensor, work: _Work, *, tau: float, theta: float
) -> None:
    """p = (p + tau/theta grad u) / (1 + tau/theta |grad u|) (IPOL, eq. 16), forward differences."""
    right, down = work.right[..., :-1], work.down[..., :-1, :]  # the last column and row stay 0
    torch.sub(flow[..., 1:], flow[..., :-1], out=right)
    torch.sub(flow[..., 1:, :], flow[..., :-1, :], out=down)
    length = torch.mul(work.right, work.right, out=work.length)
    length.addcmul_(work.down, work.down).sqrt_().mul_(tau / theta).add_(1)
    dual_x[..., 1:-1].add_(right, alpha=tau).div_(length[..., :-1])
    dual_y[..., 1:-1, :].add_(down, alpha=tau).div_(length[..., :-1, :])


def _warp(images: torch.Tensor, flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images at x + u, bicubic, and where that is inside of the picture: `(B, 1, H, W)`, 0.0 or 1.0."""
    height, width = flow.shape[2:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    grid = torch.stack([x * (2 / max(1, width - 1)) - 1, y * (2 / max(1, height - 1)) - 1], 3)
    warped = F.grid_sample(images, grid, mode="bicubic", padding_mode="border", align_corners=True)
    return warped, inside[:, None].to(flow.dtype)


def _central_differences(image: torch.Tensor) -> torch.Tensor:
    """d/dx and d/dy, `(B, 2, H, W)` of `(B, 1, H, W)`; the border counts as repeated."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    along_x = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    along_y = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return torch.cat([along_x, along_y], 1).mul_(0.5)


def _pyramid(frames: torch.Tensor, config: Tvl1Config) -> list[torch.Tensor]:
    """The frames at each scale, the finest first."""
    scales = [frames]
    height, width = frames.shape[2:]
    for number in range(1, config.nscales):
        size = round(height * config.zfactor**number), round(width * config.zfactor**number)
        if min(size) < _SMALLEST:
            break
        scales.append(F.interpolate(scales[-1], size, mode="bilinear", antialias=True))
    return scales


def _resized_flow(flow: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Flow at another size: its motions grow with the picture."""
    if flow.shape[2:] == (height, width):
        return flow
    growth = flow.new_tensor([width / flow.shape[3], height / flow.shape[2]]).view(1, 2, 1, 1)
    return F.interpolate(flow, (height, width), mode="bilinear") * growth


def _median3(planes: torch.Tensor) -> torch.Tensor:
    """3x3 median, borders repeated.

    Each column of three is sorted once; the median of nine is that of the largest of the lows, the
    middle of the middles and the smallest of the highs.
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
