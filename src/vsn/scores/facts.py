"""Compare what scores are of: which weights, which videos, which protocol, order of frames and average over views.

The facts of scores (`vsn.scores.scores.Scores.facts`) state these; older files state fewer, and what is not stated is not
compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vsn.scores.scores import Scores

COMPARED = ("split", "protocol", "order", "weights", "average", "root")
"""What two models that are compared or fused usually have in common."""


def hash_videos(scores: Scores) -> str:
    """Return a SHA-256 of the videos and their labels by name, the same for any order of videos and classes."""
    rows = scores.labels if not scores.multi_label else [row.nonzero()[0] for row in scores.labels]
    # An unknown label, -1, has no name.
    names = ([scores.classes[label] for label in np.atleast_1d(row) if label >= 0] for row in rows)
    return hash_labels(dict(zip(map(str, scores.video_ids), names, strict=True)))


def hash_labels(classes_of: Mapping[str, Sequence[str]]) -> str:
    """Return the hash of `hash_videos` from the classes of each video by its id."""
    digest = hashlib.sha256()
    for video in sorted(classes_of):
        digest.update(repr((video, sorted(classes_of[video]))).encode())
    return digest.hexdigest()


def weight_shares(facts: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the hash of the weights that gave some scores, with its share: 1, or that in a fusion; None: not known.

    Example:
        {"weights_hash": "ab"} -> {"ab": 1.0}
        {"fused_from": [{"weight": 0.4, "weights_hash": "ab"}, {"weight": 0.6, "weights_hash": "cd"}]}
        -> {"ab": 0.4, "cd": 0.6}
    """
    if "fused_from" not in facts:
        return {facts["weights_hash"]: 1.0} if facts.get("weights_hash") else None
    shares: dict[str, float] = {}
    for part in facts["fused_from"]:
        below = weight_shares(part)
        if below is None:
            return None
        for name, share in below.items():
            shares[name] = shares.get(name, 0.0) + share * part["weight"]
    # A part of weight 0 has no effect.
    return {name: share for name, share in shares.items() if share}


def same_weights(first: Mapping[str, float] | None, second: Mapping[str, float] | None) -> bool:
    """Return whether two results of `weight_shares` agree; True where either is not known."""
    if first is None or second is None:
        return True
    return first.keys() == second.keys() and all(abs(first[name] - second[name]) < 1e-6 for name in first)


def different_facts(facts: Sequence[Mapping[str, Any]], keys: Sequence[str] = COMPARED) -> dict[str, list[str]]:
    """Return the facts that differ, with the value of each scores; facts that one of them does not state are left out."""
    values = {key: [str(each.get(key) or "") for each in facts] for key in keys}
    return {key: stated for key, stated in values.items() if all(stated) and len(set(stated)) > 1}
