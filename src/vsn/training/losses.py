"""The loss of a recipe: cross-entropy for one label a video, sigmoid for several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from vsn.config import TrainConfig
from vsn.data.records import VideoRecord
from vsn.scores.scores import Scores


@dataclass(frozen=True)
class Loss:
    """The loss of a training step, as a sum and what the sum is divided by.

    They are apart because the videos of a step may lie in several processes, and in several parts within
    one: the mean is over all of them.
    """

    multi_label: bool
    label_smoothing: float
    class_weights: torch.Tensor | None
    """float32 `(num_classes,)`; None counts all classes alike."""

    def total(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum over the videos, a scalar; 0 for no videos.

        Logits are `(B, num_classes)`; targets int64 `(B,)` or float `(B, num_classes)`.
        """
        weight = None if self.class_weights is None else self.class_weights.to(logits.device)
        if self.multi_label:
            each = functional.binary_cross_entropy_with_logits(logits, targets, weight=weight, reduction="none")
            return each.mean(dim=1).sum()
        return functional.cross_entropy(
            logits, targets, weight=weight, label_smoothing=self.label_smoothing, reduction="sum"
        )

    def weight(self, targets: torch.Tensor) -> float:
        """What these videos count: as many as they are, or with class weights the sum of their classes'."""
        if self.class_weights is None or targets.ndim == 2:
            return float(len(targets))
        return float(self.class_weights[targets.cpu()].sum())


def build_loss(config: TrainConfig, records: Sequence[VideoRecord], num_classes: int, *, multi_label: bool) -> Loss:
    """Cross-entropy for one label a video, sigmoid for several.

    With `config.class_weights` each class counts by the inverse of its share of `records`, 1 on average
    over them.
    """
    weights = class_weights(records, num_classes) if config.class_weights else None
    return Loss(multi_label, config.label_smoothing, weights)


def class_weights(records: Sequence[VideoRecord], num_classes: int) -> torch.Tensor:
    """float32 `(num_classes,)`: labels in all / (classes that have any * labels of the class); 0 for none.

    >>> from pathlib import Path
    >>> class_weights([VideoRecord(Path("a"), (label,), "a") for label in (0, 0, 0, 2)], 3).round(decimals=2)
    tensor([0.6700, 0.0000, 2.0000])
    """
    counts = np.bincount([label for record in records for label in record.labels], minlength=num_classes).astype(float)
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
