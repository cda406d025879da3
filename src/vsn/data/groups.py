"""Divide videos into folds by group, so that the videos of one person, place or recording are never on both sides.

Without groups every video is its own. scikit-learn's `StratifiedGroupKFold` does the dividing: folds of about equal size
in which each class has about its share.
"""

from __future__ import annotations

import hashlib
import unicodedata
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError
from vsn.config.errors import quote_first

_MAX_FOLDS = 20
"""Of a share that is held out: 30% are 6 of 20 folds, or 3 of 10."""


def assign_folds(
    classes: Sequence[Hashable], groups: Sequence[str], num_folds: int, *, seed: int = 0
) -> NDArray[np.int64]:
    """Return ``(N,)`` int64: the fold of each video, 0 to ``num_folds`` - 1; the order of the videos does not matter.

    Args:
        classes: ``(N,)``; of each video.
        groups: ``(N,)`` names; the videos of a group have one fold.
        num_folds: 2 or more.
        seed: of the order in which groups of one make-up are dealt.

    Raises:
        ConfigError: fewer groups than folds.
    """
    names = sorted(set(groups))
    if not 2 <= num_folds <= len(names):
        few = f"{len(names)} group{'s' if len(names) != 1 else ''} ({quote_first(names)})"
        raise ConfigError(
            f"The videos of {few} cannot be divided into {num_folds} folds: a fold needs a group of its own, and two folds "
            f"are the fewest. Ask for 2 to {len(names)} folds, or add groups."
            if len(names) > 1
            else f"All videos are of {few}, which cannot be divided. Label videos of other groups, or leave groups out."
        )
    from sklearn.model_selection import StratifiedGroupKFold  # half a second, which reading whole splits does not need

    # Ranked by a hash: scikit-learn's own shuffle depends on its version, and the order of a list on its file.
    rank = {name: place for place, name in enumerate(sorted(names, key=lambda name: _hash(seed, name)))}
    number = {name: place for place, name in enumerate(sorted(set(classes), key=repr))}
    labels = np.array([number[name] for name in classes])
    folds = np.empty(len(labels), np.int64)
    # scikit-learn refuses to stratify where no class has a video for each fold.
    if np.bincount(labels).max() < num_folds:
        labels = np.zeros_like(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some classes have fewer videos than there are folds
        parts = StratifiedGroupKFold(num_folds).split(labels, labels, groups=np.array([rank[name] for name in groups]))
        for fold, (_, held) in enumerate(parts):
            folds[held] = fold
    return folds


def hold_out_groups(
    classes: Sequence[Hashable], groups: Sequence[str], share: float, *, seed: int = 0
) -> NDArray[np.bool_]:
    """Return ``(N,)`` bool: about this share of the videos, in whole groups, that leaves every class videos to train on.

    A part of less than half of the share, or more than one and a half, is taken only where there is none nearer to it.

    Raises:
        ConfigError: one group only; or a class that every choice would take whole, such as one of a single group.
    """
    num_groups = len(set(groups))
    # 0.3 of 10 groups: 3 of 10 folds. At least one fold is held out, and one is left.
    part = Fraction(share).limit_denominator(min(_MAX_FOLDS, max(num_groups, 2)))
    if not 0 < part < 1:
        part = Fraction(1 if share < 0.5 else num_groups - 1, max(num_groups, 2))
    folds = assign_folds(classes, groups, part.denominator, seed=seed)
    # The seed says where to begin: groups that differ in size are dealt in one way only.
    turns = [
        np.isin((folds + seed + turn) % part.denominator, range(part.numerator)) for turn in range(part.denominator)
    ]
    possible = [held for held in turns if not missing_classes(classes, held)]
    fitting = [held for held in possible if abs(held.mean() - share) <= share / 2]
    if possible:
        return (fitting or sorted(possible, key=lambda held: abs(held.mean() - share)))[0]
    alone = missing_classes(classes, turns[-1])
    groups_of = sorted({group for name, group in zip(classes, groups, strict=True) if name == alone[0]})
    raise ConfigError(
        f"No held-out part of whole groups leaves every class videos to train on: {describe_class(alone[0])!r} has videos "
        f"of {len(groups_of)} of {num_groups} groups ({quote_first(groups_of)}). Add videos of it by other groups, remove "
        "the class, or state the splits."
    )


def missing_classes(classes: Sequence[Hashable], held: NDArray[np.bool_]) -> list[Hashable]:
    """Return the classes all of whose videos are held out, in the order of their first video."""
    trained = {name for name, is_held in zip(classes, held, strict=True) if not is_held}
    return [name for name in dict.fromkeys(classes) if name not in trained]


def describe_class(name: Hashable) -> str:
    """Return a class, or the classes of a multi-label video, as text.

    >>> describe_class(("wave", "clap")), describe_class("wave")
    ('wave|clap', 'wave')
    """
    return "|".join(map(str, name)) if isinstance(name, tuple) else str(name)


def groups_in_training(splits: Mapping[str, Iterable[str]], train: str) -> dict[str, list[str]]:
    """Return, of each group that is in the training split and in others, the names of the others.

    Args:
        splits: the groups of the videos of each split, by name; "" is none.
        train: name of the training split.
    """
    of_split = {name: set(groups) - {""} for name, groups in splits.items()}
    return {
        group: others
        for group in sorted(of_split[train])
        if (others := [name for name, groups in of_split.items() if name != train and group in groups])
    }


def describe_similar_groups(groups: Iterable[str]) -> list[str]:
    """Return a note about groups whose names differ only in spelling: one person, perhaps, on both sides.

    >>> describe_similar_groups(["S1", "s1", "S2"])
    ["Groups whose names differ only in spelling count as different: 's1', 'S1'."]
    """
    from vsn.data.readers.class_names import unify_spellings  # readers import this module

    alike: dict[str, list[str]] = {}
    for group, spelled in unify_spellings({*groups} - {""})[0].items():
        alike.setdefault(spelled, []).append(group)
    several = [sorted(names, key=str.swapcase) for names in alike.values() if len(names) > 1]
    if not several:
        return []
    # Unicode forms of one name look the same.
    looks_same = len({unicodedata.normalize("NFKC", name) for name in several[0]}) < len(several[0])
    first = ", ".join(map(ascii, several[0])) if looks_same else quote_first(several[0])
    more = f", and {len(several) - 1} more" if len(several) > 1 else ""
    return [f"Groups whose names differ only in spelling count as different: {first}{more}."]


def _hash(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}/{group}".encode(errors="surrogatepass")).digest()
