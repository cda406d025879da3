"""The hold-out of data that states no splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.entries import Entry
from vsn.data.readers.splits import NoSplitError, means


def hold_out(config: DataConfig, split: str, entries: Sequence[Entry]) -> list[Entry]:
    """The training part, or the part held out, of data that states no splits; each class apart.

    Videos with several labels count as one class: few share all of theirs.
    """
    training = means(split, config.train_split)
    if not training and not means(split, config.val_split) and not means(split, config.test_split):
        raise NoSplitError(
            f"{config.root}: the data states no splits, so {split!r} means nothing here.",
            f"Ask for {config.train_split!r}, {config.val_split!r} or {config.test_split!r}.",
        )
    by_class: dict[tuple[str, ...], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.video_id):
        by_class.setdefault(() if config.task == "multilabel" else entry.class_names, []).append(entry)
    chosen = []
    for name in sorted(by_class):
        members = by_class[name]
        num_held = min(len(members) - 1, max(1, int(len(members) * config.val_fraction + 0.5)))
        # Ranked by the video alone: one that joins or leaves the data moves at most one other.
        ranked = sorted(members, key=lambda entry: _rank(config.split_seed, entry.video_id))
        held = {entry.video_id for entry in ranked[:num_held]}
        chosen += [entry for entry in members if (entry.video_id in held) != training]
    if not chosen:
        raise ConfigError(f"{config.root}: every class has a single video, so none is left for {split!r}.")
    return chosen


def _rank(seed: int, video_id: str) -> bytes:
    return hashlib.sha256(f"{seed}/{video_id}".encode()).digest()
