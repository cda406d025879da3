"""Build the optimizer with its parameter groups, the learning-rate schedule and the moving average; freeze modules."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from vsn.config import ConfigError, TrainConfig
from vsn.models import VideoClassifier
from vsn.models.stem import stem_name

FLOW_STEM_LR_MULT = 5.0
"""Learning rate of a flow model's first convolution, times lr; its bias takes twice that (TSN)."""


def base_lr(config: TrainConfig) -> float:
    """Return the learning rate for this batch size: ``lr``, scaled linearly from ``lr_batch_size``."""
    return config.lr * config.batch_size / config.lr_batch_size if config.lr_batch_size else config.lr


def build_optimizer(model: VideoClassifier, config: TrainConfig, *, fresh: Collection[str]) -> torch.optim.Optimizer:
    """Build SGD or AdamW with TSN's parameter groups.

    | parameters               | learning rate        | weight decay |
    |--------------------------|----------------------|--------------|
    | weights                  | 1                    | 1            |
    | biases                   | 2                    | 0            |
    | batch normalization      | 1                    | 0            |
    | classifier weight, bias  | head_lr_mult, twice  | 1, 0         |
    | stem of a flow model     | 5, its bias 10       | 1, 0         |

    Backbone parameters named in ``fresh`` (without pretrained weights) take ``fresh_lr_mult`` on top.
    """
    # A flow stem starts as the mean of an RGB stem, which is only a guess: it learns faster.
    stem = f"backbone.{stem_name(model.backbone)}." if model.modality == "flow" else None
    norms = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
    # One group for each pair of factors: fewer groups mean fewer kernel launches per step.
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = name.endswith(".bias") and name not in norms
        factor = config.head_lr_mult if name.startswith("head.") else 1.0
        if stem is not None and name.startswith(stem):
            factor = FLOW_STEM_LR_MULT
        if name.removeprefix("backbone.") in fresh:
            factor *= config.fresh_lr_mult
        decay = 0.0 if is_bias or name in norms else config.weight_decay
        groups.setdefault((factor * (2.0 if is_bias else 1.0), decay), []).append(parameter)
    settings: list[dict[str, Any]] = [
        # `lr_factor` is ours: `set_lr` multiplies the scheduled rate by it.
        {"params": parameters, "lr": base_lr(config) * factor, "lr_factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=base_lr(config), momentum=config.momentum)
    return torch.optim.AdamW(settings, lr=base_lr(config))


def schedule_factor(step: int, *, steps_per_epoch: int, config: TrainConfig) -> float:
    """Return the factor of the learning rate at a step, counted from 0 over the whole run."""
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        # 4 warm-up steps: 1/5, 2/5, 3/5, 4/5, then 1.
        return (step + 1) / (warmup + 1)
    if config.schedule == "multistep":
        return 0.1 ** sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    share = (step - warmup) / max(1.0, config.epochs * steps_per_epoch - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to ``lr`` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Build an exponential moving average of a model's weights; its buffers are copies of the model's.

    After step n it is ``d * average + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))``.
    """

    # Not torch's `get_ema_multi_avg_fn`: its constant decay remembers the random start for 1 / (1 - decay) steps.
    @torch.no_grad()
    def update(averages: Any, weights: Any, num_updates: torch.Tensor | int) -> None:
        steps = float(num_updates)
        torch._foreach_lerp_(averages, weights, 1.0 - min(decay, (1.0 + steps) / (10.0 + steps)))

    return AveragedModel(model, multi_avg_fn=update)


def freeze_parts(model: VideoClassifier, config: TrainConfig) -> None:
    """Freeze the modules in ``train.freeze`` and, with partial BN, every batch normalization but the first.

    Frozen batch normalization keeps its statistics and its affine parameters. Call it after each
    ``model.train()``, which would update the statistics.

    Raises:
        ConfigError: ``train.freeze`` has a module that the backbone does not have.
    """
    # TSN's partial BN: the first layer adapts to the new data, the rest keeps the pretrained statistics.
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    frozen: list[nn.Module] = list(norms[1:]) if config.partial_bn else []
    for name in config.freeze:
        try:
            frozen.append(model.backbone.get_submodule(name))
        except AttributeError:
            names = ", ".join(child for child, _ in model.backbone.named_children())
            raise ConfigError(f"train.freeze has {name!r}; the modules of the backbone are {names}.") from None
    for module in frozen:
        module.eval()
        module.requires_grad_(False)
