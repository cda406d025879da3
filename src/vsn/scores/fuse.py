"""Fuse the scores of several models: ensembles, and the two streams of RGB and flow.

The paper (Table 2) averages the predictions of VSN-R50 and VSN-R101, and of the RGB and the flow stream, with
equal weights. Our reading of "averages the predictions": the mean of the softmax probabilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.scores.intervals import Interval, difference_interval
from vsn.scores.metrics import (
    Summary,
    average_precisions,
    log_softmax,
    probabilities,
    require_labels,
    summarize,
    top_k_hits,
)
from vsn.scores.scores import Scores, ScoresError

# Number of inputs -> weights of a search are multiples of 1 over this.
_SEARCH_STEPS = {2: 20, 3: 10, 4: 10}
# Metadata of a single network: wrong for fused scores, even if all inputs share it.
_NETWORK_FACTS = {"model", "num_frames", "parameters", "multiply_adds"}


def fuse_scores(inputs: Sequence[Scores], *, weights: Sequence[float] | None = None, logits: bool = False) -> Scores:
    """Return the weighted mean of several models' probabilities, or of their logits.

    Args:
        inputs: of the same videos and classes in the same order: `vsn.scores.match.match_scores`.
        weights: one per input, 0 or more, not all 0; default all 1. Only their ratio counts.
        logits: average the logits instead of the probabilities.

    Returns:
        Scores of kind "log_probabilities"; of kind "logits" if logits were averaged, and for multi-label scores,
        as the log-odds of the mean sigmoid. A video that an input with a weight above 0 could not read stays NaN.
        Metadata that all inputs share is kept.

    Raises:
        ScoresError: unusable weights; ``logits`` with an input of another kind.
    """
    shares = _normalized(weights, len(inputs))
    kinds = [scores.kind for scores in inputs]
    if logits and set(kinds) != {"logits"}:
        raise ScoresError(f"Averaging logits needs inputs of kind 'logits', got {kinds}. Leave --logits out.")
    # An input of weight 0 must not count, not even by its NaN for unreadable videos.
    used = [(scores.logits, share) for scores, share in zip(inputs, shares, strict=True) if share > 0]
    # The NaN of unreadable videos is passed on; NumPy would warn.
    with np.errstate(invalid="ignore"):
        if logits:
            method = "logits"
            fused = np.sum([values.astype(np.float64) * share for values, share in used], axis=0)
        elif inputs[0].multi_label:
            method = "sigmoid"
            # log(p / (1 - p)) of the mean p. Both logarithms are taken before the mean, because 1 - p of a
            # confident model rounds to 0. The logarithm of sigmoid(x) is -log(1 + exp(-x)).
            positive, negative = (
                _log_mean([(-np.logaddexp(0, sign * values.astype(np.float64)), share) for values, share in used])
                for sign in (-1, 1)
            )
            fused = positive - negative
        else:
            method = "softmax"
            fused = _log_mean([(log_softmax(values), share) for values, share in used])
    first = inputs[0].facts
    # Two runs tested on one split give fused scores of that split; other differences stay in fused_from.
    shared = {
        key: value
        for key, value in first.items()
        if key not in _NETWORK_FACTS and all(key in other.facts and other.facts[key] == value for other in inputs)
    }
    # Each part's metadata is kept, so that costs and files of an ensemble can be reported.
    parts = [{"weight": share, **scores.facts} for scores, share in zip(inputs, shares, strict=True)]
    return replace(
        inputs[0],
        logits=fused.astype(np.float32),
        kind="log_probabilities" if method == "softmax" else "logits",
        facts={**shared, "fusion": method, "fused_from": parts},
    )


def _normalized(weights: Sequence[float] | None, num_inputs: int) -> list[float]:
    values = [1.0] * num_inputs if weights is None else [float(weight) for weight in weights]
    if len(values) != num_inputs:
        raise ScoresError(f"Expected {num_inputs} weights, one per file of scores, got {len(values)}.")
    if not all(np.isfinite(value) and value >= 0 for value in values) or sum(values) == 0:
        raise ScoresError(f"Expected weights of 0 or more, not all 0, got {values}.")
    return [value / sum(values) for value in values]


def _log_mean(parts: Sequence[tuple[NDArray[np.float64], float]]) -> NDArray[np.float64]:
    """Return the logarithm of the weighted mean, from logarithms."""
    mean: NDArray[np.float64] = np.logaddexp.reduce([values + np.log(share) for values, share in parts], axis=0)
    return mean


@dataclass(frozen=True)
class WeightSearch:
    """Weights that scored best on a part of the videos."""

    weights: tuple[float, ...]
    """One per input; they sum to 1."""
    searched: NDArray[np.bool_]
    """``(N,)`` bool: the videos searched on; report results only on the others."""
    score: float
    """Top-1, or mean average precision, on the videos searched on; a share of 1."""


def search_weights(inputs: Sequence[Scores], *, logits: bool = False, seed: int = 0) -> WeightSearch:
    """Search weights on half of the videos, drawn with ``seed`` and stratified by class.

    A grid search: multiples of 1/20 for two inputs, of 1/10 for three or four. The best top-1 (multi-label: mean
    average precision) wins; of equal ones the weights nearest to uniform. Raises `ScoresError` for other numbers of
    inputs, unlabeled videos, and too few videos to halve.
    """
    if len(inputs) not in _SEARCH_STEPS:
        raise ScoresError(f"Expected 2 to 4 files of scores to search weights, got {len(inputs)}. Pass --weights.")
    require_labels(inputs[0], "a search of weights")
    searched = stratified_half(inputs[0], seed=seed)
    if searched.all() or not searched.any():
        raise ScoresError(f"{len(searched)} videos are too few to halve class by class. Add videos or pass --weights.")
    # Computed once: the grid tries up to 286 combinations.
    part = inputs[0].take(searched)
    values = [
        scores.logits[searched].astype(np.float64) if logits else probabilities(scores.take(searched))
        for scores in inputs
    ]
    steps = _SEARCH_STEPS[len(inputs)]
    best: tuple[float, float, tuple[float, ...]] | None = None
    for counts in itertools.product(range(steps + 1), repeat=len(inputs)):
        if sum(counts) != steps:
            continue
        weights = tuple(count / steps for count in counts)
        # Without the inputs of weight 0, whose NaN times 0 would still be NaN.
        mean = np.sum([array * weight for array, weight in zip(values, weights, strict=True) if weight > 0], axis=0)
        trial = replace(part, logits=mean)
        if part.multi_label:
            score = float(np.mean(list(average_precisions(trial).values()) or [0.0]))
        else:
            score = float(top_k_hits(trial, 1).mean())
        candidate = (score, -float(np.var(weights)), weights)
        if best is None or candidate[:2] > best[:2]:
            best = candidate
    assert best is not None
    return WeightSearch(best[2], searched, best[0])


def stratified_half(scores: Scores, *, seed: int = 0) -> NDArray[np.bool_]:
    """Return ``(N,)`` bool: about half of the videos of each class; a clip and its reversed copy stay together.

    A multi-label video counts for the first of its labels.
    """
    # argmax of a bool row is the first label, or 0 without any.
    labels = scores.labels.argmax(axis=1) if scores.multi_label else scores.labels
    members: dict[str, list[int]] = {}
    for row, group in enumerate(scores.groups):
        members.setdefault(group, []).append(row)
    by_class: dict[int, list[str]] = {}
    for group in sorted(members):
        by_class.setdefault(int(labels[members[group][0]]), []).append(group)
    generator = np.random.default_rng(seed)
    half = np.zeros(len(labels), np.bool_)
    # Classes with an odd number of videos put the extra one into either half by turns. Always rounding
    # down would put all classes of a single video into the other half.
    round_up = False
    for label in sorted(by_class):
        groups = by_class[label]
        count = (len(groups) + round_up) // 2
        round_up ^= len(groups) % 2 == 1
        for index in generator.permutation(len(groups))[:count]:
            half[members[groups[index]]] = True
    return half


@dataclass(frozen=True)
class ModelCosts:
    """Costs of a model for one video; of fused scores those of all networks together. None if unknown."""

    frames: str | None
    """"8", of fused scores "8+8"."""
    parameters: int | None
    multiply_adds: int | None


def model_costs(facts: Mapping[str, Any]) -> ModelCosts:
    """Read the costs from the metadata of scores; networks of weight 0 cost nothing."""
    networks = _networks(facts)
    columns: list[list[Any]] = [
        [network.get(key) for network in networks] for key in ("num_frames", "parameters", "multiply_adds")
    ]
    # A total is unknown if one network's cost is.
    frames, parameters, multiply_adds = columns
    return ModelCosts(
        None if None in frames else "+".join(map(str, frames)),
        None if None in parameters else sum(parameters),
        None if None in multiply_adds else sum(multiply_adds),
    )


def _networks(facts: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the metadata of each network with a weight; fused scores may have been fused again."""
    if "fused_from" not in facts:
        return [facts]
    return [network for part in facts["fused_from"] if part["weight"] > 0 for network in _networks(part)]


@dataclass(frozen=True)
class FusionRow:
    """One line of the paper's Table 2: an input, or the fused scores."""

    name: str
    weight: float | None
    """None for the fused scores."""
    costs: ModelCosts
    summary: Summary

    def to_dict(self) -> dict[str, object]:
        """Return the fields for JSON, flat and without the accuracy by class."""
        metrics = self.summary.to_dict()
        del metrics["per_class"], metrics["num_videos"]
        return {"name": self.name, "weight": self.weight, **asdict(self.costs), **metrics}


@dataclass(frozen=True)
class FusionReport:
    """Accuracy of the inputs and of the fused scores, as shares of 1."""

    fusion: str
    """"softmax", "sigmoid" or "logits"."""
    num_videos: int
    num_unreadable: int
    inputs: list[FusionRow]
    fused: FusionRow
    best_single: str
    """Name of the input with the highest top-1, or mean average precision."""
    gain: float
    """Top-1 of the fused scores over that input."""
    gain_interval: Interval
    """95% interval of the paired difference."""
    map_gain: float | None
    """Gain in mean average precision; None unless the scores are multi-label."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields for JSON; without map_gain where it is None."""
        fields = vars(self) | {
            "inputs": [row.to_dict() for row in self.inputs],
            "fused": self.fused.to_dict(),
            "gain_interval": list(self.gain_interval),
        }
        return {key: value for key, value in fields.items() if value is not None}


def fusion_report(inputs: Sequence[Scores], names: Sequence[str], fused: Scores) -> FusionReport:
    """Compare fused scores with their inputs, of which ``names`` are the names."""
    rows = [
        FusionRow(name, part["weight"], model_costs(scores.facts), summarize(scores))
        for scores, name, part in zip(inputs, names, fused.facts["fused_from"], strict=True)
    ]
    fused_row = FusionRow("fused", None, model_costs(fused.facts), summarize(fused))
    # The fused scores must beat the best single model, not the average one.
    ranked_by = [row.summary.mean if fused.multi_label else row.summary.top1 for row in rows]
    best = ranked_by.index(max(ranked_by))
    # Paired: +1 where only the fused scores are right, -1 where only the best input is.
    changes = top_k_hits(fused, 1).astype(float) - top_k_hits(inputs[best], 1)
    return FusionReport(
        fusion=fused.facts["fusion"],
        num_videos=len(fused.video_ids),
        num_unreadable=int(fused.unreadable.sum()),
        inputs=rows,
        fused=fused_row,
        best_single=names[best],
        gain=float(changes.mean()),
        gain_interval=difference_interval(changes, groups=fused.groups),
        map_gain=fused_row.summary.mean - rows[best].summary.mean if fused.multi_label else None,
    )
