"""Batch normalization over the processes of a run: as one process would compute it.

On GPUs PyTorch's own `SyncBatchNorm` serves. It does not exist on the CPU, where the class here takes
its place, so that a run on several CPU processes can be held against the run on one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vsn.config import ConfigError


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes, in each; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    total: Tensor = _SumOverProcesses.apply(values)
    return total


class CpuSyncBatchNorm(_BatchNorm):
    """`nn.SyncBatchNorm` for the CPU: statistics over the batches of all processes, empty ones too."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"Batch normalization needs (N, C, ...); this has shape {tuple(input.shape)}.")

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``(N, C, ...)``; in training every process must call it at the same place."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1] + [1] * (input.ndim - 2)
        values = input.double()  # sums of many values; rounding must not depend on how they are spread
        per_channel = torch.tensor([input.numel() / self.num_features], dtype=torch.float64)
        count = _sum(per_channel)
        mean = _sum(values.sum(axes)) / count
        centered = values - mean.view(shape)
        variance = _sum(centered.square().sum(axes)) / count
        self._update(mean.detach(), variance.detach(), float(count))
        normalized = centered * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normalized = normalized * self.weight.view(shape) + self.bias.view(shape)
        return normalized.to(input.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: float) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * count / max(1.0, count - 1.0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def synchronize_batch_norm(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every batch normalization replaced by one over all processes; names and weights stay.

    Raises:
        ConfigError: a kind of batch normalization that the CPU has no synchronized form of.
    """
    if device.type != "cpu":
        if any(type(module).__module__.startswith("timm.") for module in model.modules()):
            from timm.layers import convert_sync_batchnorm  # keeps the activation timm folds into its own

            return convert_sync_batchnorm(model)
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, _BatchNorm) and not isinstance(module, CpuSyncBatchNorm):
                setattr(parent, name, _on_cpu(module))
    return model


def _on_cpu(module: _BatchNorm) -> CpuSyncBatchNorm:
    if type(module) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        raise ConfigError(
            f"{type(module).__name__} cannot be synchronized between processes on the CPU; use one process, GPUs, or "
            "train.partial_bn."
        )
    synced = CpuSyncBatchNorm(
        module.num_features, module.eps, module.momentum, module.affine, module.track_running_stats
    )
    synced.train(module.training)
    synced.weight, synced.bias = module.weight, module.bias
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        setattr(synced, name, getattr(module, name))
    return synced
