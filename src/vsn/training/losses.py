"""Compute the training loss: cross-entropy for one label per video, binary cross-entropy for several."""

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
    """The loss of a step as a sum and the weight that it is divided by.

    A step may be spread over ranks, and over parts within a rank. A mean of their means would be wrong when
    they have different numbers of videos, so that each adds its sum and all divide by the total weight.
    """

    multi_label: bool
    label_smoothing: float
    class_weights: torch.Tensor | None
    """float32 `(num_classes,)`; None weighs all classes equally."""

    def total(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the sum over the videos, a scalar; 0 for no videos.

        Logits are `(B, num_classes)`; targets int64 `(B,)` or float `(B, num_classes)`.
        """
        weight = None if self.class_weights is None else self.class_weights.to(logits.device)
        if self.multi_label:
            loss = functional.binary_cross_entropy_with_logits(logits, targets, weight=weight, reduction="none")
            return loss.mean(dim=1).sum()
        return functional.cross_entropy(
            logits, targets, weight=weight, label_smoothing=self.label_smoothing, reduction="sum"
        )

    def weight(self, targets: torch.Tensor) -> float:
        """Return the number of videos, or with class weights the sum of the weights of their classes."""
        if self.class_weights is None or targets.ndim == 2:
            return float(len(targets))
        return float(self.class_weights[targets.cpu()].sum())


def build_loss(config: TrainConfig, records: Sequence[VideoRecord], num_classes: int, *, multi_label: bool) -> Loss:
    """Build the loss of a recipe; `config.class_weights` weighs each class by the inverse of its share of ``records``."""
    weights = class_weights(records, num_classes) if config.class_weights else None
    return Loss(multi_label, config.label_smoothing, weights)


def class_weights(records: Sequence[VideoRecord], num_classes: int) -> torch.Tensor:
    """Return float32 `(num_classes,)`: the inverse frequency of each class, 1 on average over the labels.

    A class without labels has weight 0.

    >>> from pathlib import Path
    >>> class_weights([VideoRecord(Path("a"), (label,), "a") for label in (0, 0, 0, 2)], 3).round(decimals=2)
    tensor([0.6700, 0.0000, 2.0000])
    """
    counts = np.bincount([label for record in records for label in record.labels], minlength=num_classes).astype(float)
    # 0 would be an infinite weight, and a class without videos has no loss that it could weigh.
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return torch.from_numpy(weights).float()


def mean_loss(scores: Scores) -> float:
    """Return the mean (binary) cross-entropy of scores and their labels; NaN if no video could be read."""
    # Scores of videos that could not be read are NaN: metrics count them as wrong, a loss cannot.
    readable = ~np.isnan(scores.logits).any(axis=1)
    if not readable.any():
        return float("nan")
    logits, labels = torch.from_numpy(scores.logits[readable]), torch.from_numpy(scores.labels[readable])
    if scores.multi_label:
        return float(functional.binary_cross_entropy_with_logits(logits, labels.float()))
    return float(functional.cross_entropy(logits, labels))
