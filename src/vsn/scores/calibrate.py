"""Probabilities that mean what they say: temperature scaling, calibration error, a threshold for "unknown".

Temperature scaling and the expected calibration error: Guo, Pleiss, Sun and Weinberger, "On Calibration
of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.scores.intervals import bootstrap_interval
from vsn.scores.metrics import log_softmax, require_labels, softmax, top_k_hits
from vsn.scores.scores import Scores, ScoresError
from vsn.system.files import write_json

FORMAT_VERSION = 1
NUM_BINS = 15
UNKNOWN = "unknown"
LOWEST, HIGHEST = 0.01, 100.0
"""Bounds of the temperature; a fit that ends at one has found none."""


def fit_temperature(scores: Scores) -> float:
    """The temperature T that minimizes the mean negative log-likelihood of softmax(logits / T).

    Golden section on log T between 0.01 and 100: the likelihood is convex in 1/T, so that there is one
    minimum. Videos that could not be read are left out.

    Raises:
        ScoresError: multi-label or unlabeled scores; scores that fix no temperature, since all videos are
            right, or the logits say nothing.
    """
    read = _readable(scores)
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(LOWEST), math.log(HIGHEST)
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    values = [negative_log_likelihood(read, math.exp(x)) for x in inner]
    while high - low > 1e-7:
        if values[0] <= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - ratio * (high - low)
            values[0] = negative_log_likelihood(read, math.exp(inner[0]))
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + ratio * (high - low)
            values[1] = negative_log_likelihood(read, math.exp(inner[1]))
    found = (low + high) / 2
    if min(found - math.log(LOWEST), math.log(HIGHEST) - found) < 1e-3:
        right = top_k_hits(read, 1).mean()
        raise ScoresError(
            f"The scores fix no temperature between {LOWEST} and {HIGHEST:g}: {right:.1%} of {len(read.video_ids)} videos "
            "are right. Fit on more validation videos, of which the model gets some wrong, and most right."
        )
    return math.exp(found)


def negative_log_likelihood(scores: Scores, temperature: float = 1.0) -> float:
    """Mean over the readable videos of -log of the probability of the label, in nats."""
    read = _readable(scores)
    values = log_softmax(read.logits / np.float64(_checked(temperature)))
    return float(-values[np.arange(len(read.labels)), read.labels].mean())


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose confidence lies in (low, high]; the first bin includes 0.

    Attributes:
        low: lower edge, a share of 1.
        high: upper edge.
        count: predictions in it.
        confidence: their mean confidence; None when there are none.
        accuracy: the share of them that is right; None when there are none.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def reliability_curve(scores: Scores, *, temperature: float = 1.0, num_bins: int = NUM_BINS) -> list[ReliabilityBin]:
    """Accuracy against confidence, the highest probability of a video, in bins of equal width."""
    if num_bins < 1:
        raise ScoresError(f"Expected at least 1 of num_bins, got {num_bins}.")
    confidence, right = confidences(scores, temperature)
    # Bins are open below and closed above, so that a confidence of 1 is in the last.
    place = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins = []
    for index in range(num_bins):
        own = place == index
        count = int(own.sum())
        bins.append(
            ReliabilityBin(
                index / num_bins,
                (index + 1) / num_bins,
                count,
                float(confidence[own].mean()) if count else None,
                float(right[own].mean()) if count else None,
            )
        )
    return bins


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Mean over videos of the gap of their bin: sum over bins of count / N * |accuracy - confidence|.

    Guo et al. 2017, eq. 3; there with 15 bins of equal width, as `reliability_curve` makes them. A
    share of 1. It depends on the bins: compare errors of the same number of bins only.
    """
    total = sum(one.count for one in bins)
    gaps = [
        one.count * abs(one.accuracy - one.confidence)
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    ]
    return math.fsum(gaps) / total


def confidences(scores: Scores, temperature: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The highest probability of each readable video, and whether its class is right."""
    read = _readable(scores)
    values = calibrated_probabilities(read.logits, temperature).max(axis=1)
    return values, top_k_hits(read, 1)


def calibrated_probabilities(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """softmax(logits / T) over the last axis; the order of the classes stays as it is."""
    return softmax(np.asarray(logits, np.float64) / _checked(temperature))


def accepted_labels(values: NDArray[np.floating], classes: Sequence[str], threshold: float | None) -> list[str]:
    """``(N, num_classes)`` probabilities to a class name each, or "unknown" below the threshold.

    A video whose probabilities are not numbers is unknown. No threshold accepts all others.
    """
    if values.ndim != 2 or values.shape[1] != len(classes):
        raise ScoresError(f"The probabilities are {values.shape}; expected (videos, {len(classes)}).")
    best = np.where(np.isnan(values).any(axis=1, keepdims=True), -np.inf, values)
    limit = 0.0 if threshold is None else threshold
    return [classes[row.argmax()] if row.max() >= limit else UNKNOWN for row in best]


def choose_threshold(scores: Scores, precision: float, *, temperature: float = 1.0) -> float:
    """The lowest confidence such that of the videos at or above it the share ``precision`` is right.

    The lowest accepts most. It is chosen on these scores, so that on others the precision may be lower:
    `threshold_facts` of a second set tells.

    Raises:
        ScoresError: a precision outside 0 to 1, or one that no threshold reaches.
    """
    if not 0 < precision <= 1:
        raise ScoresError(f"The precision is {precision}; it must be above 0 and at most 1, such as 0.95.")
    confidence, right = confidences(scores, temperature)
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    ends = np.append(ranked[1:] != ranked[:-1], True)  # equal confidences are accepted together
    good = np.flatnonzero(ends & (reached >= precision - 1e-12))
    if not len(good):
        best = np.flatnonzero(ends)[reached[ends].argmax()]
        raise ScoresError(
            f"No threshold reaches a precision of {precision:.1%}; the most is {reached[best]:.1%}, of the "
            f"{best + 1} of {len(order)} videos at or above {ranked[best]:.3f}. Ask for less with --precision."
        )
    return float(ranked[good[-1]])


def threshold_facts(scores: Scores, threshold: float, *, temperature: float = 1.0) -> dict[str, Any]:
    """Coverage (share of videos accepted, unreadable ones are not) and precision of a threshold, 95% interval."""
    confidence, right = confidences(scores, temperature)
    accepted = confidence >= threshold
    groups = np.array(scores.groups)[~scores.unreadable][accepted].tolist()
    return {
        "coverage": float(accepted.sum() / len(scores.video_ids)),
        "precision": float(right[accepted].mean()) if accepted.any() else None,
        "precision_interval": list(bootstrap_interval(right[accepted], groups=groups)) if accepted.any() else None,
    }


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What `vsn calibrate` found, and a predictor can apply: `calibrated_probabilities`, `accepted_labels`.

    Attributes:
        temperature: divides the logits.
        threshold: least calibrated probability of a label that is not "unknown"; None accepts all.
        classes: of the model it was fitted for.
        nll_before: negative log-likelihood on the videos it was fitted on, in nats.
        nll_after: the same with the temperature.
        ece_before: expected calibration error there, a share of 1, 15 bins.
        ece_after: the same with the temperature, so of a fitted value on its own data.
        wanted_precision: what the threshold was chosen for; None without one.
        coverage: share of those videos that the threshold accepts.
        precision: share of the accepted that is right.
        precision_interval: its 95% interval.
        fitted_on: file, videos, and the facts of the scores.
    """

    temperature: float
    threshold: float | None = None
    classes: tuple[str, ...]
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    wanted_precision: float | None = None
    coverage: float | None = None
    precision: float | None = None
    precision_interval: tuple[float, float] | None = None
    fitted_on: dict[str, Any] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all; `load_calibration` reads it back."""
        write_json(path, {"format_version": FORMAT_VERSION, **asdict(self)})


def calibrate(scores: Scores, *, precision: float | None = None, file: str = "") -> Calibration:
    """Fit temperature, and with ``precision`` a threshold, on validation scores.

    Raises:
        ScoresError: see `fit_temperature` and `choose_threshold`.
    """
    temperature = fit_temperature(scores)
    facts: dict[str, Any] = {}
    threshold = None
    if precision is not None:
        threshold = choose_threshold(scores, precision, temperature=temperature)
        facts = threshold_facts(scores, threshold, temperature=temperature)
        facts["precision_interval"] = tuple(facts["precision_interval"])
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        classes=scores.classes,
        nll_before=negative_log_likelihood(scores),
        nll_after=negative_log_likelihood(scores, temperature),
        ece_before=expected_calibration_error(reliability_curve(scores)),
        ece_after=expected_calibration_error(reliability_curve(scores, temperature=temperature)),
        wanted_precision=precision,
        fitted_on={
            "file": file,
            "num_videos": len(scores.video_ids),
            "num_unreadable": int(scores.unreadable.sum()),
            **scores.facts,
        },
        **facts,
    )


def apply_report(calibration: Calibration, scores: Scores) -> dict[str, Any]:
    """What a calibration does on other scores of the same model, as shares of 1.

    Returns:
        num_videos, nll and ece before and after, coverage, precision and its interval where there is a
        threshold, and "note": what stands against the figures (the scores it was fitted on, other weights), or "".

    Raises:
        ScoresError: other classes than it was fitted for.
    """
    odd = sorted(set(calibration.classes) ^ set(scores.classes))
    if odd:
        raise ScoresError(
            f"The calibration was fitted for {len(calibration.classes)} classes and the scores have "
            f"{len(scores.classes)}; they differ in {odd[:3]}. Use scores of the same model."
        )
    temperature = calibration.temperature
    fitted = calibration.fitted_on
    note = ""
    hashes = (fitted.get("weights_hash"), scores.facts.get("weights_hash"))
    if None not in hashes and hashes[0] != hashes[1]:
        note = "the two scores are of other weights; a calibration is for the weights it was fitted with."
    elif "split" in fitted and fitted["split"] == scores.facts.get("split"):
        note = f"both scores are of split {fitted['split']!r}; only other videos tell what a calibration is worth."
    accepted: dict[str, Any] = {}
    if calibration.threshold is not None:
        accepted = threshold_facts(scores, calibration.threshold, temperature=temperature)
    return {
        "num_videos": len(scores.video_ids),
        "nll_before": negative_log_likelihood(scores),
        "nll_after": negative_log_likelihood(scores, temperature),
        "ece_before": expected_calibration_error(reliability_curve(scores)),
        "ece_after": expected_calibration_error(reliability_curve(scores, temperature=temperature)),
        **accepted,
        "note": note,
    }


def load_calibration(path: str | Path) -> Calibration:
    """Read what `Calibration.save` wrote.

    Raises:
        ScoresError: no such file, damaged, not ours, or of another version.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        version = value.pop("format_version")
        if version != FORMAT_VERSION:
            raise ScoresError(
                f"{path} has format version {version}; this vsn reads version {FORMAT_VERSION}. Write it again "
                "with `vsn calibrate`."
            )
        value["classes"] = tuple(value["classes"])
        if value.get("precision_interval") is not None:
            value["precision_interval"] = tuple(value["precision_interval"])
        found = Calibration(**value)
        _checked(found.temperature)
    except FileNotFoundError as error:
        raise ScoresError(f"{path}: there is no such file. `vsn calibrate` writes it.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ScoresError(f"{path} is no calibration that `vsn calibrate` wrote: {error!r}.") from error
    return found


def _readable(scores: Scores) -> Scores:
    if scores.multi_label:
        raise ScoresError(
            "The scores are multi-label; calibration is for one label a video, whose probabilities sum to 1."
        )
    require_labels(scores, "calibration")
    lost = scores.unreadable
    if lost.all():
        raise ScoresError("None of the videos could be read; there is nothing to calibrate on.")
    return scores.take(~lost) if lost.any() else scores


def _checked(temperature: float) -> float:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ScoresError(f"Expected a temperature above 0, got {temperature}.")
    return temperature
