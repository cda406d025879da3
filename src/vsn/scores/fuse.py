"""Several models' scores made one: ensembles of networks, and two streams.

The paper (Table 2) averages the predictions of VSN-R50 and VSN-R101, and of the RGB and the flow stream,
one to one. Our reading of "averages the predictions": the mean of the softmax probabilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.scores.intervals import paired_interval
from vsn.scores.metrics import average_precisions, log_softmax, probabilities, require_labels, summarize, top_k_hits
from vsn.scores.scores import Scores, ScoresError

_STEPS = {2: 20, 3: 10, 4: 10}
"""Inputs -> into how many parts their weights are divided in a search."""
_OF_ONE_NETWORK = {"model", "num_frames", "parameters", "multiply_adds"}
"""Facts that would be wrong of fused scores, even where all inputs share them."""


def fuse_scores(inputs: Sequence[Scores], *, weights: Sequence[float] | None = None, logits: bool = False) -> Scores:
    """The weighted mean of several models' probabilities, or of their logits.

    Args:
        inputs: of the same videos and classes in the same order: `vsn.scores.match.match_scores`.
        weights: one an input, 0 or more, not all 0; default all 1. Only their ratio counts.
        logits: average the logits instead of the probabilities.

    Returns:
        Scores of kind "log_probabilities"; "logits" where logits were averaged, and for multi-label
        scores, where they are the log-odds of the mean sigmoid. A video that one of the models with a weight
        could not read stays NaN, and counts as wrong. Facts that all inputs share are kept.

    Raises:
        ScoresError: weights that cannot be used; logits to average where an input holds none.
    """
    shares = _shares(inputs, weights)
    kinds = [one.kind for one in inputs]
    if logits and set(kinds) != {"logits"}:
        raise ScoresError(f"The inputs hold {kinds}; to average logits all must hold logits. Leave --logits out.")
    used = [(one.logits, share) for one, share in zip(inputs, shares, strict=True) if share > 0]
    if logits:
        fused = np.sum([values.astype(np.float64) * share for values, share in used], axis=0)
    elif inputs[0].multi_label:
        # log(p / (1 - p)) of the mean p, both by logarithms: 1 - p of a sure model would be 0.
        positive, negative = (
            _log_mean([(_log_sigmoid(sign * values.astype(np.float64)), share) for values, share in used])
            for sign in (1, -1)
        )
        fused = positive - negative
    else:
        fused = _log_mean([(log_softmax(values), share) for values, share in used])
    method = "logits" if logits else "sigmoid" if inputs[0].multi_label else "softmax"
    keys = set.intersection(*(set(one.facts) for one in inputs)) - _OF_ONE_NETWORK
    shared = {
        key: value
        for key, value in inputs[0].facts.items()
        if key in keys and all(one.facts[key] == value for one in inputs)
    }
    parts = [{"weight": s, **one.facts} for one, s in zip(inputs, shares, strict=True)]
    return Scores(
        inputs[0].video_ids,
        fused.astype(np.float32),
        inputs[0].labels,
        inputs[0].classes,
        "log_probabilities" if method == "softmax" else "logits",
        {**shared, "fusion": method, "fused_from": parts},
    )


def _shares(inputs: Sequence[Scores], weights: Sequence[float] | None) -> list[float]:
    values = [1.0] * len(inputs) if weights is None else [float(weight) for weight in weights]
    if len(values) != len(inputs):
        raise ScoresError(f"There are {len(values)} weights for {len(inputs)} files of scores; give one each.")
    if not all(np.isfinite(value) and value >= 0 for value in values) or sum(values) == 0:
        raise ScoresError(f"The weights are {values}; they must be 0 or more, and not all 0.")
    return [value / sum(values) for value in values]


def _log_sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        logarithm: NDArray[np.float64] = -np.logaddexp(0, -values)
    return logarithm


def _log_mean(parts: Sequence[tuple[NDArray[np.float64], float]]) -> NDArray[np.float64]:
    """Logarithm of the weighted mean of what these are the logarithms of."""
    with np.errstate(invalid="ignore"):  # a video that could not be read is not a number, and stays so
        mean: NDArray[np.float64] = np.logaddexp.reduce([values + np.log(share) for values, share in parts], axis=0)
    return mean


@dataclass(frozen=True)
class WeightSearch:
    """Weights that did best on a part of the videos.

    Attributes:
        weights: one an input; they sum to 1.
        searched: ``(N,)`` bool: the videos the weights were searched on; report on the others alone.
        score: top-1 (multi-label: mean average precision) on those, a share of 1.
    """

    weights: tuple[float, ...]
    searched: NDArray[np.bool_]
    score: float


def search_weights(inputs: Sequence[Scores], *, logits: bool = False, seed: int = 0) -> WeightSearch:
    """Find weights on half of the videos, drawn with ``seed`` and stratified by class.

    A grid: steps of 1/20 for two inputs, of 1/10 for three or four. The best top-1 (multi-label: mean average
    precision) wins; among equals the weights nearest to equal ones.

    Raises:
        ScoresError: more than four inputs, unlabeled videos, too few videos to halve.
    """
    if len(inputs) not in _STEPS:
        raise ScoresError(f"Weights are searched for 2 to 4 files of scores; {len(inputs)} came. Use --weights.")
    require_labels(inputs[0], "searching weights")
    searched = stratified_half(inputs[0], seed=seed)
    if searched.all() or not searched.any():
        raise ScoresError(f"{len(searched)} videos cannot be halved class by class; search on more, or use --weights.")
    part = inputs[0].take(searched)
    values = [
        one.logits[searched].astype(np.float64) if logits else probabilities(one.take(searched)) for one in inputs
    ]
    steps = _STEPS[len(inputs)]
    best: tuple[float, float, tuple[float, ...]] | None = None
    for counts in itertools.product(range(steps + 1), repeat=len(inputs)):
        if sum(counts) != steps:
            continue
        weights = tuple(count / steps for count in counts)
        used = [(one, weight) for one, weight in zip(values, weights, strict=True) if weight > 0]
        mean = np.sum([one * weight for one, weight in used], axis=0)
        trial = Scores(part.video_ids, mean, part.labels, part.classes)
        score = _score(trial)
        uneven = float(np.var(weights))
        if best is None or (score, -uneven) > best[:2]:
            best = (score, -uneven, weights)
    assert best is not None
    return WeightSearch(best[2], searched, best[0])


def stratified_half(scores: Scores, *, seed: int = 0) -> NDArray[np.bool_]:
    """``(N,)`` bool: about half of the videos of each class; a clip and its reversed copy stay together.

    Multi-label videos go by the first of their labels. Of an odd number, the first half gets one more or
    one fewer by turns, so that classes with a single video do not all fall into one half.
    """
    labels = scores.labels.argmax(axis=1) if scores.multi_label else scores.labels
    members: dict[str, list[int]] = {}
    for row, group in enumerate(scores.groups):
        members.setdefault(group, []).append(row)
    by_class: dict[int, list[str]] = {}
    for group in sorted(members):
        by_class.setdefault(int(labels[members[group][0]]), []).append(group)
    generator = np.random.default_rng(seed)
    half = np.zeros(len(labels), np.bool_)
    more = False
    for label in sorted(by_class):
        groups = by_class[label]
        count = (len(groups) + more) // 2
        more ^= len(groups) % 2 == 1
        for index in generator.permutation(len(groups))[:count]:
            half[members[groups[index]]] = True
    return half


def _score(scores: Scores) -> float:
    if scores.multi_label:
        return float(np.mean(list(average_precisions(scores).values()) or [0.0]))
    return float(top_k_hits(scores, 1).mean())


def fusion_report(inputs: Sequence[Scores], names: Sequence[str], fused: Scores) -> dict[str, Any]:
    """What fusing gained, as shares of 1.

    Returns:
        "inputs" and "fused": name, weight, the columns of the paper's Table 2 ("frames" that are looked at,
        as in "8+8", "parameters", "multiply_adds" of a video; None where the scores do not say, and for the
        fused the sums), top-1 with its 95% interval, top-5, mean class (or mean average precision);
        "best_single", the input with the highest top-1 (multi-label: mean average precision) on these videos;
        "gain", top-1 of the fused over it, with "gain_interval", the paired bootstrap's; for
        multi-label scores "map_gain" too, without an interval.
    """
    parts = fused.facts["fused_from"]
    rows = [
        {"name": name, "weight": part["weight"], **model_costs(one.facts), **_headline(one)}
        for one, name, part in zip(inputs, names, parts, strict=True)
    ]
    key = "mean_average_precision" if fused.multi_label else "top1"
    best = max(range(len(rows)), key=lambda index: rows[index][key])
    changes = top_k_hits(fused, 1).astype(float) - top_k_hits(inputs[best], 1)
    report = {
        "fusion": fused.facts["fusion"],
        "num_videos": len(fused.video_ids),
        "num_unreadable": int(fused.unreadable.sum()),
        "inputs": rows,
        "fused": {"name": "fused", "weight": None, **model_costs(fused.facts), **_headline(fused)},
        "best_single": rows[best]["name"],
        "gain": float(changes.mean()),
        "gain_interval": list(paired_interval(changes, groups=fused.groups)),
    }
    if fused.multi_label:
        report["map_gain"] = report["fused"][key] - rows[best][key]
    return report


def model_costs(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What scores cost, by their facts; of fused scores, what all networks with a weight cost together.

    Returns:
        "frames" as text ("8", fused "8+8"), "parameters" and "multiply_adds" of a video; None where a file
        does not say.
    """
    if "fused_from" not in facts:
        frames = facts.get("num_frames")
        own = {key: facts.get(key) for key in ("parameters", "multiply_adds")}
        return {"frames": None if frames is None else str(frames), **own}
    parts = [model_costs(part) for part in facts["fused_from"] if part["weight"] > 0]
    known = {key: [part[key] for part in parts] for key in ("frames", "parameters", "multiply_adds")}
    return {
        "frames": None if None in known["frames"] else "+".join(known["frames"]),
        **{key: None if None in known[key] else sum(known[key]) for key in ("parameters", "multiply_adds")},
    }


def _headline(scores: Scores) -> dict[str, Any]:
    return {key: value for key, value in summarize(scores).to_dict().items() if key not in ("per_class", "num_videos")}
