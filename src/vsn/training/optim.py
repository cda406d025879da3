"""Optimizer, parameter groups, learning-rate schedule, frozen batch normalization."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vsn.config import ConfigError, TrainConfig
from vsn.models import VideoClassifier
from vsn.models.stem import stem_name

FLOW_STEM_LR_MULT = 5.0
"""Learning rate of a flow model's first convolution, times lr; its bias takes twice that (TSN)."""


def base_lr(config: TrainConfig) -> float:
    """The learning rate for this batch size: ``lr``, scaled linearly from ``lr_batch_size``."""
    return config.lr * config.batch_size / config.lr_batch_size if config.lr_batch_size else config.lr


def build_optimizer(model: VideoClassifier, config: TrainConfig, *, fresh: Collection[str]) -> torch.optim.Optimizer:
    """SGD or AdamW with TSN's parameter groups.

    Weights have factors 1 and 1 for learning rate and decay, biases 2 and 0, batch normalization 1
    and 0, the classifier's weights and bias ``head_lr_mult`` and twice that. Backbone parameters
    named in ``fresh`` (those without pretrained weights) take ``fresh_lr_mult`` on top. The stem of a
    flow model has 5 and 1, its bias 10 and 0: its start, the mean of an RGB stem, is only a guess.
    """
    stem = f"backbone.{stem_name(model.backbone)}." if model.modality == "flow" else None
    norms = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
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
        {"params": parameters, "lr": base_lr(config) * factor, "lr_factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(settings, lr=base_lr(config), momentum=config.momentum)
    return torch.optim.AdamW(settings, lr=base_lr(config))


def schedule_factor(step: int, *, steps_per_epoch: int, config: TrainConfig) -> float:
    """What the learning rate is multiplied by at a step (counted from 0 over the whole run)."""
    warmup = config.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "multistep":
        return 0.1 ** sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
    share = (step - warmup) / max(1.0, config.epochs * steps_per_epoch - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate to ``lr`` times the group's factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def freeze_parts(model: VideoClassifier, config: TrainConfig) -> None:
    """Freeze what ``train.freeze`` names and, with partial BN, every batch normalization but the first.

    A frozen batch normalization keeps its statistics as well as its affine. Call it after each
    ``model.train()``, which turns the statistics on again.

    Raises:
        ConfigError: ``train.freeze`` names a module the backbone does not have.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    frozen: list[nn.Module] = list(norms[1:]) if config.partial_bn else []
    for name in config.freeze:
        try:
            frozen.append(model.backbone.get_submodule(name))
        except AttributeError:
            names = ", ".join(child for child, _ in model.backbone.named_children())
            raise ConfigError(f"train.freeze names {name!r}; the backbone's modules are {names}.") from None
    for module in frozen:
        module.eval()
        module.requires_grad_(False)


def check_partial_bn(config: TrainConfig, weights: str) -> None:
    """Refuse partial BN without pretrained weights: the statistics would stay at mean 0, variance 1.

    Raises:
        ConfigError: says what to change.
    """
    if config.partial_bn and weights == "none":
        raise ConfigError(
            "train.partial_bn freezes the batch statistics that the pretrained weights came with, but model.weights is "
            "'none'. Give pretrained weights, or set train.partial_bn = false "
            "(--train.no-partial-bn)."
        )
