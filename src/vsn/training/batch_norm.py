"""Synchronize batch normalization over the ranks of a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vsn.config import ConfigError


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


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """Compute the statistics of every batch normalization over all ranks; names and weights stay.

    Raises:
        ConfigError: a kind of batch normalization that has no synchronized form on the CPU.
    """
    if device.type != "cpu":
        if any(type(module).__module__.startswith("timm.") for module in model.modules()):
            from timm.layers import convert_sync_batchnorm  # keeps the activation inside timm's layers

            return convert_sync_batchnorm(model)
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, CpuSyncBatchNorm):
                raise ConfigError(
                    f"{type(module).__name__} cannot be synchronized between processes on the CPU; use one process, GPUs, "
                    "or train.partial_bn."
                )
            # Only the forward differs: changing the class keeps parameters, buffers and hooks in place.
            module.__class__ = CpuSyncBatchNorm
    return model
