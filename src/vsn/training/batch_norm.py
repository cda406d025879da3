"""Synchronize batch normalization over the ranks of a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vsn.config import ConfigError
from vsn.models.layers import ShuffleBatchNorm2d
from vsn.ops import video_shuffle


class _SumOverRanks(torch.autograd.Function):
    """Sum a tensor over the ranks, and the gradients of the sum too: every rank's loss depends on every rank's tensor."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        total = input.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class CpuSyncBatchNorm(_BatchNorm):
    """`nn.SyncBatchNorm` for CPU tensors; the batch of a rank may be empty."""

    # Not a subclass of it: PyTorch's refuses CPU tensors, and `DistributedDataParallel` refuses it in a CPU model.

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``(N, C, ...)``; in training every rank must call it."""
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        # float64: the statistics must not depend on how the batch is spread over the ranks.
        values = input.double()
        sum_over_ranks = _SumOverRanks.apply
        count = sum_over_ranks(torch.tensor([input.numel() / self.num_features], dtype=torch.float64))
        # Two passes: E[x^2] - E[x]^2 would cancel digits.
        mean = sum_over_ranks(values.sum(axes)) / count
        centered = values - mean.view(shape)
        variance = sum_over_ranks(centered.square().sum(axes)) / count
        if self.track_running_stats:
            self._update_statistics(mean.detach(), variance.detach(), float(count))
        normalized = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions: the layer replaces 1d, 2d and 3d ones."""

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * count / max(1.0, count - 1.0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class _ShuffleCpuSyncBatchNorm(CpuSyncBatchNorm):
    """The synchronized `ShuffleBatchNorm2d` for CPU tensors."""

    num_frames: int

    def forward(self, input: Tensor) -> Tensor:
        return video_shuffle(super().forward(input), self.num_frames)


class _ShuffleSyncBatchNorm(nn.SyncBatchNorm):
    """The synchronized `ShuffleBatchNorm2d`."""

    num_frames: int

    def forward(self, input: Tensor) -> Tensor:
        return video_shuffle(super().forward(input), self.num_frames)


_CPU_FORMS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: CpuSyncBatchNorm,
    nn.BatchNorm2d: CpuSyncBatchNorm,
    nn.BatchNorm3d: CpuSyncBatchNorm,
    ShuffleBatchNorm2d: _ShuffleCpuSyncBatchNorm,
}


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Compute the statistics of every batch normalization over all ranks; names and weights stay.

    Raises:
        ConfigError: a kind of batch normalization that has no synchronized form on this device.
    """
    on_cpu = device.type == "cpu"
    kinds = {type(module) for module in model.modules() if isinstance(module, _BatchNorm)}
    # On a GPU timm converts its own layers.
    known = {*_CPU_FORMS, *(_CPU_FORMS.values() if on_cpu else ())}
    unknown = [kind for kind in kinds - known if on_cpu or not kind.__module__.startswith("timm.")]
    if unknown:
        raise ConfigError(
            f"{unknown[0].__name__} cannot be synchronized between processes on the device {device.type!r}; use one "
            "process, or train.partial_bn."
        )
    if on_cpu:
        for module in model.modules():
            # Only the forward differs: changing the class keeps parameters, buffers and hooks in place.
            module.__class__ = _CPU_FORMS.get(type(module), type(module))
        return model
    num_frames = {name: m.num_frames for name, m in model.named_modules() if isinstance(m, ShuffleBatchNorm2d)}
    if any(type(module).__module__.startswith("timm.") for module in model.modules()):
        from timm.layers import convert_sync_batchnorm  # keeps the activation inside timm's layers

        model = convert_sync_batchnorm(model)
    else:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    # Both make a plain layer of every batch normalization.
    for name, number in num_frames.items():
        tail = model.get_submodule(name)
        tail.__class__ = _ShuffleSyncBatchNorm
        tail.num_frames = number  # type: ignore[assignment]
    return model
