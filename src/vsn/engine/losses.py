"""The loss of a recipe: cross-entropy for one label a video, sigmoid for several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from vsn.config import TrainConfig
from vsn.data.records import VideoRecord
from vsn.engine.scores import Scores

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def build_loss(
    config: TrainConfig, records: Sequence[VideoRecord], num_classes: int, *, multi_label: bool
) -> Loss:
    """A function of logits `(B, num_classes)` and targets to the mean loss, a scalar.

    Targets are int64 `(B,)` or float `(B, num_classes)`. With `config.class_weights` each class counts
    by the inverse of its share of `records`, 1 on average over them.
    """
    weights = class_weights(records, num_classes) if config.class_weights else None

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weight = None if weights is None else weights.to(logits.device)
        if multi_label:
            return functional.binary_cross_entropy_with_logits(logits, targets, weight=weight)
        return functional.cross_entropy(
            logits, targets, weight=weight, label_smoothing=config.label_smoothing
        )

    return loss


def class_weights(records: Sequence[VideoRecord], num_classes: int) -> torch.Tensor:
    """float32 `(num_classes,)`: labels in all / (classes that have any * labels of the class); 0 for none.

    >>> from pathlib import Path
    >>> class_weights([VideoRecord(Path("a"), (label,), "a") for label in (0, 0, 0, 2)], 3).round(decimals=2)
    tensor([0.6700, 0.0000, 2.0000])
    """
    counts = np.bincount(
        [label for record in records for label in record.labels], minlength=num_classes
    ).astype(float)
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return torch.from_numpy(weights).float()


def mean_loss(scores: Scores) -> float:
    """Mean cross-entropy of scores against their labels (natural logarithm), or binary cross-entropy.

    Videos that could not be read are left out: they have no loss.
    """
    read = ~np.isnan(scores.logits).any(axis=1)
    if not read.any():
        return float("nan")
    logits, labels = torch.from_numpy(scores.logits[read]), torch.from_numpy(scores.labels[read])
    if scores.multi_label:
        return float(functional.binary_cross_entropy_with_logits(logits, labels.float()))
    return float(functional.cross_entropy(logits, labels))
