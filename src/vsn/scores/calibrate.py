"""Calibrate probabilities: temperature scaling, calibration error, a threshold for "unknown".

Source of temperature scaling and of the expected calibration error: Guo, Pleiss, Sun and Weinberger, "On
Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.scores.facts import different_facts, hash_videos, same_weights, weight_shares
from vsn.scores.intervals import Interval, share_interval, share_p_value
from vsn.scores.metrics import log_softmax, require_labels, softmax, top_k_hits
from vsn.scores.scores import Scores, ScoresError
from vsn.system.files import write_json
from vsn.system.numbers import percent

FORMAT_VERSION = 1
NUM_BINS = 15
UNKNOWN = "unknown"
MAX_CANDIDATES = 1000
"""Thresholds that are tested for a precision."""
_SHOWN = ("protocol", "order", "average", "fusion")
"""Facts of how scores are made with equal weights; with others a model is confident in another way."""
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0


def fit_temperature(scores: Scores) -> float:
    """Return the temperature T that minimizes the mean negative log-likelihood of softmax(logits / T).

    Videos that could not be read are left out.

    Raises:
        ScoresError: multi-label or unlabeled scores; no minimum between `MIN_TEMPERATURE` and
            `MAX_TEMPERATURE`, because all videos are right or the logits are uninformative.
    """
    readable = _readable(scores)
    # Golden-section search on log T. The likelihood is convex in 1/T, so it has one minimum; each step
    # keeps one of the two inner points and evaluates one new point.
    ratio = (math.sqrt(5) - 1) / 2
    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    inner = [high - ratio * (high - low), low + ratio * (high - low)]
    values = [negative_log_likelihood(readable, math.exp(x)) for x in inner]
    while high - low > 1e-7:
        if values[0] <= values[1]:
            high, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = high - ratio * (high - low)
            values[0] = negative_log_likelihood(readable, math.exp(inner[0]))
        else:
            low, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = low + ratio * (high - low)
            values[1] = negative_log_likelihood(readable, math.exp(inner[1]))
    log_temperature = (low + high) / 2
    # A search that ends at a bound has found no minimum: with all videos right, T = 0 is best.
    if min(log_temperature - math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE) - log_temperature) < 1e-3:
        raise ScoresError(
            f"No temperature between {MIN_TEMPERATURE} and {MAX_TEMPERATURE:g} minimizes the loss: "
            f"{percent(float(top_k_hits(readable, 1).mean()))} of {len(readable.video_ids)} videos are right. Fit on more "
            "validation "
            "videos, with some wrong and most right."
        )
    return math.exp(log_temperature)


def negative_log_likelihood(scores: Scores, temperature: float = 1.0) -> float:
    """Return the mean over readable videos of -log of the label's probability, in nats."""
    readable = _readable(scores)
    values = log_softmax(readable.logits / np.float64(_checked_temperature(temperature)))
    return float(-values[np.arange(len(readable.labels)), readable.labels].mean())


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions whose confidence is in (low, high]; the first bin includes 0."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean confidence; None for an empty bin."""
    accuracy: float | None
    """Share that is right; None for an empty bin."""


def reliability_curve(scores: Scores, *, temperature: float = 1.0, num_bins: int = NUM_BINS) -> list[ReliabilityBin]:
    """Return accuracy against confidence (the top probability of a video) in bins of equal width."""
    if num_bins < 1:
        raise ScoresError(f"Expected num_bins of 1 or more, got {num_bins}.")
    confidence, right = confidences(scores, temperature)
    # Bins are open below and closed above, so that a confidence of 1 is in the last: of 5 bins, 0.6 is in
    # (0.4, 0.6], index ceil(3.0) - 1 = 2.
    bin_index = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    bins = []
    for index in range(num_bins):
        members = bin_index == index
        count = int(members.sum())
        bins.append(
            ReliabilityBin(
                index / num_bins,
                (index + 1) / num_bins,
                count,
                float(confidence[members].mean()) if count else None,
                float(right[members].mean()) if count else None,
            )
        )
    return bins


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Return the sum over bins of count / N * |accuracy - confidence|, a share of 1.

    Guo et al. 2017, eq. 3, there with 15 bins of equal width. It depends on the number of bins.
    """
    # Empty bins have no accuracy and weigh nothing.
    gaps = [
        part.count * abs(part.accuracy - part.confidence)
        for part in bins
        if part.accuracy is not None and part.confidence is not None
    ]
    return math.fsum(gaps) / sum(part.count for part in bins)


def confidences(scores: Scores, temperature: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the top probability of each readable video, and whether its class is right."""
    readable = _readable(scores)
    return calibrated_probabilities(readable.logits, temperature).max(axis=1), top_k_hits(readable, 1)


def calibrated_probabilities(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return softmax(logits / T) over the last axis; the ranking of the classes does not change."""
    return softmax(np.asarray(logits, np.float64) / _checked_temperature(temperature))


def accepted_labels(values: NDArray[np.floating], classes: Sequence[str], threshold: float | None) -> list[str]:
    """Return the top class name of each video, or "unknown" below the threshold; None accepts all.

    ``values`` are ``(N, num_classes)`` probabilities; a video with NaN is unknown.
    """
    if values.ndim != 2 or values.shape[1] != len(classes):
        raise ScoresError(f"Expected probabilities of shape (videos, {len(classes)}), got {values.shape}.")
    # NaN compares false, so that max() of a row would be NaN: replace it by a value below every threshold.
    values = np.where(np.isnan(values).any(axis=1, keepdims=True), -np.inf, values)
    limit = 0.0 if threshold is None else threshold
    return [classes[row.argmax()] if row.max() >= limit else UNKNOWN for row in values]


def choose_threshold(scores: Scores, precision: float, *, temperature: float = 1.0) -> float:
    """Return the lowest confidence at or above which the share of right videos is at least ``precision``.

    On other videos it holds in about 95% of draws of the videos it is chosen on (`results/interval-coverage-cpu.json`):
    the one-sided p-value of a higher share is at most 5%. The lowest accepts most videos.

    Raises `ScoresError` for a precision outside (0, 1), or one that no threshold reaches.
    """
    if not 0 < precision < 1:
        raise ScoresError(f"Expected a precision above 0 and below 1, such as 0.95, got {precision}.")
    confidence, right = confidences(scores, temperature)
    # Walk down the ranking: precision of accepting the first 1, 2, ... videos.
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    _, groups = np.unique(np.array(scores.groups)[~scores.unreadable][order], return_inverse=True)
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    # A threshold accepts all videos of equal confidence, so only the last of each tie is a candidate.
    ends = np.append(ranked[1:] != ranked[:-1], True)
    candidates = np.flatnonzero(ends & (reached >= precision))[::-1]
    # Of many, every so many: neighbors differ by a few videos.
    candidates = candidates[:: -(-len(candidates) // MAX_CANDIDATES) or 1]
    p_values = []
    for last in candidates:
        p_values.append(share_p_value(right[order[: last + 1]], precision, groups=groups[: last + 1]))
        if p_values[-1] <= 0.05:
            return float(ranked[last])
    best = candidates[np.argmin(p_values)] if p_values else np.flatnonzero(ends)[reached[ends].argmax()]
    # One-sided: a share above the upper bound does no harm.
    bound, _ = share_interval(right[order[: best + 1]], groups=groups[: best + 1], confidence=0.9)
    raise ScoresError(
        f"No threshold has precision {percent(precision)} with 95% certainty. The best accepts {best + 1} of {len(order)} "
        f"videos, at or above {ranked[best]:.3f}: {percent(reached[best])} of them are right, {percent(bound)} with 95% "
        "certainty. "
        "Pass a lower --precision, or scores of more videos."
    )


@dataclass(frozen=True, kw_only=True)
class CalibrationQuality:
    """Effect of a calibration on a set of scores."""

    nll_before: float
    """Negative log-likelihood in nats, without temperature."""
    nll_after: float
    ece_before: float
    """Expected calibration error with 15 bins, a share of 1, without temperature."""
    ece_after: float
    coverage: float | None = None
    """Share of the videos that the threshold accepts, never an unreadable one; None without a threshold."""
    precision: float | None = None
    """Share of the accepted videos that is right; None if there are none."""
    precision_interval: Interval | None = None
    """95% interval."""


def measure_calibration(scores: Scores, temperature: float, threshold: float | None = None) -> CalibrationQuality:
    """Measure what a temperature and a threshold do on these scores."""
    # Coverage is of all videos, precision of the accepted: an unreadable video lowers coverage, not precision.
    coverage = precision = interval = None
    if threshold is not None:
        confidence, right = confidences(scores, temperature)
        accepted = confidence >= threshold
        coverage = float(accepted.sum() / len(scores.video_ids))
        if accepted.any():
            groups = np.array(scores.groups)[~scores.unreadable][accepted].tolist()
            precision = float(right[accepted].mean())
            interval = share_interval(right[accepted], groups=groups)
    return CalibrationQuality(
        nll_before=negative_log_likelihood(scores),
        nll_after=negative_log_likelihood(scores, temperature),
        ece_before=expected_calibration_error(reliability_curve(scores)),
        ece_after=expected_calibration_error(reliability_curve(scores, temperature=temperature)),
        coverage=coverage,
        precision=precision,
        precision_interval=interval,
    )


@dataclass(frozen=True, kw_only=True)
class Calibration(CalibrationQuality):
    """A fitted calibration, with its quality on the scores it was fitted on.

    Apply it with `calibrated_probabilities` and `accepted_labels`.
    """

    temperature: float
    """Divides the logits."""
    threshold: float | None = None
    """Minimum calibrated probability of a label that is not "unknown"; None accepts all."""
    classes: tuple[str, ...]
    """Of the model it was fitted for."""
    wanted_precision: float | None = None
    """The threshold was chosen to hold this precision in 95% of draws; None without a threshold."""
    fitted_on: dict[str, Any] = field(default_factory=dict)
    """File, number of videos, and the metadata of the scores."""

    def save(self, path: str | Path) -> None:
        """Write as JSON, atomically; `load_calibration` reads it."""
        write_json(path, {"format_version": FORMAT_VERSION, **asdict(self)})


def calibrate(scores: Scores, *, precision: float | None = None, file: str = "") -> Calibration:
    """Fit a temperature, and with ``precision`` a threshold, on validation scores. Raises `ScoresError`."""
    temperature = fit_temperature(scores)
    # The threshold is one of calibrated probabilities, so the temperature comes first.
    threshold = None if precision is None else choose_threshold(scores, precision, temperature=temperature)
    return Calibration(
        **asdict(measure_calibration(scores, temperature, threshold)),
        temperature=temperature,
        threshold=threshold,
        classes=scores.classes,
        wanted_precision=precision,
        fitted_on={
            "file": file,
            "num_videos": len(scores.video_ids),
            "num_unreadable": int(scores.unreadable.sum()),
            "videos_hash": hash_videos(scores),
            **scores.facts,
        },
    )


@dataclass(frozen=True, kw_only=True)
class AppliedCalibration(CalibrationQuality):
    """Quality of a calibration on scores it was not fitted on."""

    num_videos: int
    note: str
    """Why the quality is not that of new videos: scores of the same videos, of other weights, of another test; or ""."""


def evaluate_calibration(calibration: Calibration, scores: Scores) -> AppliedCalibration:
    """Measure a calibration on other scores of the same model.

    Raises `ScoresError` for other classes than it was fitted for.
    """
    if different := sorted(set(calibration.classes) ^ set(scores.classes)):
        raise ScoresError(
            f"Expected the {len(calibration.classes)} classes the calibration was fitted for, got {len(scores.classes)}; "
            f"they differ in {different[:3]}. Use scores of the same model."
        )
    fitted, facts = calibration.fitted_on, scores.facts
    # Measured on its own data, or for other weights, a calibration looks better or worse than it is.
    note = ""
    if not same_weights(weight_shares(fitted), weight_shares(facts)):
        note = "the scores are of other weights than the calibration was fitted for."
    elif "split" in fitted and fitted["split"] == facts.get("split"):
        note = f"both scores are of split {fitted['split']!r}; use another split to measure the calibration."
    elif fitted.get("videos_hash") == hash_videos(scores):
        note = "both scores are of the same videos; use other videos to measure the calibration."
    elif differing := different_facts([fitted, facts], _SHOWN):
        note = f"the scores differ from those of the calibration in {', '.join(differing)}."
    quality = measure_calibration(scores, calibration.temperature, calibration.threshold)
    return AppliedCalibration(**asdict(quality), num_videos=len(scores.video_ids), note=note)


def check_calibration(
    calibration: Calibration, *, weights: Mapping[str, float] | None, protocol: str, average: str
) -> str:
    """Check that a calibration was fitted for the model that it is applied to.

    Args:
        calibration: of `load_calibration`.
        weights: of the model, see `vsn.scores.facts.weight_shares`; None: not known.
        protocol: that the model shows videos with.
        average: over the views.

    Returns:
        A note where the model shows videos in another way, else "".

    Raises:
        ScoresError: it was fitted on scores of other weights.
    """
    fitted = weight_shares(calibration.fitted_on)
    if not same_weights(fitted, weights):
        assert fitted is not None
        assert weights is not None
        same_runs = fitted.keys() == weights.keys()
        raise ScoresError(
            f"The calibration was fitted on {calibration.fitted_on.get('file') or 'scores'}, of "
            f"{'the same runs with other weights of the fusion' if same_runs else 'other weights than those used here'} "
            f"({_shares(fitted)}; here {_shares(weights)}). Fit one on scores of these: vsn calibrate RUN --out FILE."
        )
    facts = {"protocol": protocol, "average": average, "order": "forward"}
    # Two streams are fused by their probabilities.
    facts |= {"fusion": "softmax"} if weights is not None and len(weights) > 1 else {}
    different = different_facts([calibration.fitted_on, facts], _SHOWN)
    pairs = ", ".join(f"{key} {before!r} (here {now!r})" for key, (before, now) in different.items())
    return f"the calibration was fitted on scores of {pairs}." if pairs else ""


def _shares(weights: Mapping[str, float]) -> str:
    return ", ".join(f"{name[:8]} {share:.2g}" for name, share in sorted(weights.items()))


def load_calibration(path: str | Path) -> Calibration:
    """Read a file written by `Calibration.save`.

    Raises `ScoresError` for a file that is missing, damaged, or of another format.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        version = value.pop("format_version")
        if version != FORMAT_VERSION:
            raise ScoresError(
                f"Expected format version {FORMAT_VERSION} in {path}, got {version}. Run `vsn calibrate` again."
            )
        # JSON has lists for the tuples of the dataclass.
        for name in ("classes", "precision_interval"):
            if value.get(name) is not None:
                value[name] = tuple(value[name])
        calibration = Calibration(**value)
        _checked_temperature(calibration.temperature)
    except FileNotFoundError as error:
        raise ScoresError(f"{path} does not exist. `vsn calibrate` writes it.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ScoresError(f"{path} is not a calibration of `vsn calibrate`: {error!r}.") from error
    return calibration


def _readable(scores: Scores) -> Scores:
    if scores.multi_label:
        raise ScoresError("Calibration needs one label per video, but the scores are multi-label.")
    require_labels(scores, "calibration")
    unreadable = scores.unreadable
    if unreadable.all():
        raise ScoresError(f"Calibration needs readable videos, but all {len(unreadable)} are unreadable.")
    return scores.take(~unreadable) if unreadable.any() else scores


def _checked_temperature(temperature: float) -> float:
    if not (math.isfinite(temperature) and temperature > 0):
        raise ScoresError(f"Expected a temperature above 0, got {temperature}.")
    return temperature
