"""Hold the prediction for one video, and turn logits into one. Arrays only, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError
from vsn.config.errors import require_number
from vsn.scores.calibrate import Calibration, calibrated_probabilities
from vsn.scores.metrics import sigmoid, softmax


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one video.

    Attributes:
        path: the video.
        labels: class names, most probable first.
        probabilities: their probabilities; over all classes they sum to 1, except for a multi-label run.
        accepted: False if the first is below the threshold of a calibration, so that the answer is "unknown".
    """

    path: Path
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    accepted: bool = True

    @classmethod
    def from_logits(
        cls, path: Path, logits: NDArray[np.floating], classes: Sequence[str], *, multi_label: bool, top_k: int
    ) -> Prediction:
        """Return the ``top_k`` most probable classes (at most all), from logits ``(num_classes,)``."""
        # With several labels per video each class has its own probability, and they do not sum to 1.
        probabilities = sigmoid(logits) if multi_label else softmax(logits)
        best = probabilities.argsort()[::-1][:top_k]
        return cls(path, tuple(classes[i] for i in best), tuple(float(probabilities[i]) for i in best))

    def calibrated(self, calibration: Calibration, *, top_k: int = 5) -> Prediction:
        """Apply a calibration to a prediction of all classes. It does not change the order of the labels.

        Raises:
            ConfigError: a calibration for other classes, or a prediction of some classes only.
            ValueError: ``top_k`` below 1.
        """
        check_top_k(top_k)
        if different := sorted(set(calibration.classes) ^ set(self.labels)):
            raise ConfigError(
                f"The calibration is for other classes: {len(different)} differ, for example {different[0]!r}. Fit one on "
                "this run's validation scores: vsn calibrate RUN."
            )
        # softmax(log p / T) = softmax(logits / T): logits are not needed, so fused streams can be calibrated too.
        with np.errstate(divide="ignore"):  # a probability of 0 stays 0
            values = calibrated_probabilities(np.log(self.probabilities), calibration.temperature)
        # The threshold is for the calibrated probability of the first class.
        accepted = calibration.threshold is None or bool(values[0] >= calibration.threshold)
        return Prediction(self.path, self.labels[:top_k], tuple(values[:top_k].tolist()), accepted)


def check_top_k(top_k: int) -> None:
    """Raise `ValueError` if ``top_k`` is below 1, `ConfigTypeError` if it is no whole number."""
    require_number(top_k, "top_k", whole=True)
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}; it must be 1 or more.")
