"""Choose a split of a data set: match its name, "val" being "validation", or hold a part of another out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vsn.config import ConfigError, DataConfig
from vsn.config.errors import quote_first


class NoSplitError(ConfigError):
    """The data set has no split of this name.

    Attributes: `reason` and `advice`; the text is both.
    """

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason, advice)
        self.reason, self.advice = reason, advice

    def __str__(self) -> str:
        return f"{self.reason} {self.advice}"


_ALIASES = (("train", "training"), ("val", "valid", "validate", "validation"), ("test", "testing"))


def same_split(split: str) -> tuple[str, ...]:
    """Return the names of this split: itself first, then its aliases in lower case.

    >>> same_split("Val")
    ('Val', 'val', 'valid', 'validate', 'validation')
    """
    aliases = next((names for names in _ALIASES if split.lower() in names), ())
    return split, *(name for name in aliases if name != split)


def means(name: str, split: str) -> bool:
    """Return whether `name` is a name of `split`, in upper or lower case."""
    return canonical(name.lower()) == canonical(split.lower())


def canonical(name: str) -> str:
    """Return train, val or test for their aliases, else the name itself."""
    return next((names[0] for names in _ALIASES if name.lower() in names), name)


def is_split_name(name: str) -> bool:
    """Return whether a name is that of a split, or an alias of one."""
    return any(name.lower() in names for names in _ALIASES)


class SplitChoice(NamedTuple):
    """Where the videos of a split are."""

    names: tuple[str, ...]
    """Splits of the data that hold them: several where the data spells one in several ways."""
    held_out: bool = False
    """Whether the training and the validation videos are parts of these."""
    notes: tuple[str, ...] = ()
    """What the user should know about the choice, one sentence each."""


def choose_split(config: DataConfig, split: str, present: Iterable[str]) -> SplitChoice:
    """Choose a split of data whose splits are `present`; `NoSplitError` when there is none of this name.

    Data with a training and no validation split has a part of the training videos held out: validating on the test
    split would choose the weights by it.

    >>> choose_split(DataConfig(), "val", ["train", "validation", "test"]).names
    ('validation',)
    >>> choose_split(DataConfig(), "val", ["train", "test"])[:2]
    (('train',), True)
    """
    present = list(dict.fromkeys(present))
    in_training = [name for name in present if means(name, config.train_split)]
    held_out = (
        bool(in_training)
        and canonical(config.val_split) == "val"
        and not any(means(name, config.val_split) for name in present)
    )
    if held_out and (means(split, config.train_split) or means(split, config.val_split)):
        note = (
            f"There is no split {config.val_split!r}: {config.val_fraction:.0%} of each class of {in_training[0]!r} are "
            "held out for validation (data.val_fraction)."
        )
        return SplitChoice(tuple(in_training), True, (*_describe_spellings(in_training), note))
    names = tuple(name for name in present if means(name, split))
    if names:
        return SplitChoice(names, notes=_describe_spellings(names))
    reason = f"{config.root}: there is no split {split!r}; present: {', '.join(map(repr, present))}."
    raise NoSplitError(reason, _advise(config, split, present, held_out=held_out))


def no_splits(config: DataConfig, split: str) -> SplitChoice:
    """Choose a split of data that states none: the held-out part is the validation and the test split.

    Raises `NoSplitError` for another split.
    """
    names = (config.train_split, config.val_split, config.test_split)
    if not any(means(split, name) for name in names):
        raise NoSplitError(
            f"{config.root}: the data states no splits, so there is no split {split!r}.",
            f"Choose {', '.join(map(repr, names[:2]))} or {names[2]!r}.",
        )
    note = (
        f"The data states no splits: {config.val_fraction:.0%} of each class are held out for validation and testing "
        "(data.val_fraction)."
    )
    return SplitChoice((), True, (note,))


def is_used(config: DataConfig, name: str) -> bool:
    """Return whether a split of the data is the training, validation or test split."""
    return any(means(name, split) for split in (config.train_split, config.val_split, config.test_split))


def near_split(config: DataConfig, name: str) -> str | None:
    """Return the name of a split that a name nearly is, and was meant to be: its videos would be left out."""
    # "train2" is a split of its own.
    if is_used(config, name) or is_split_name(name) or not name.isalpha():
        return None
    aliases = [alias for names in _ALIASES for alias in names]
    swapped = [alias for alias in aliases if sorted(alias) == sorted(name.lower())]  # "tets"
    near = [*swapped, *difflib.get_close_matches(name.lower(), aliases, n=1, cutoff=0.8)]
    return canonical(near[0]) if near else None


def _describe_spellings(names: Sequence[str]) -> tuple[str, ...]:
    return (f"The splits {quote_first(names)} are read as one.",) if len(names) > 1 else ()


def _advise(config: DataConfig, split: str, present: Sequence[str], *, held_out: bool) -> str:
    """Return what to do about a missing split: never to train or to validate on the test split."""
    usual = (config.train_split, config.val_split, config.test_split)
    unlike = {"train_split": ("val", "test"), "val_split": ("train", "test"), "test_split": ("train",)}
    setting = next((key for key, name in zip(unlike, usual, strict=True) if name == split), "")
    if not setting:
        return "Choose one of them."
    others = [name for name in present if canonical(name) not in unlike[setting]]
    others = [name for name in others if setting == "train_split" or not means(name, config.train_split)]
    if others:
        return f'Set data.{setting} to one of them, for example "{others[0]}" (`vsn eval` takes --split).'
    if setting == "train_split":
        return "There is nothing to train on: mark videos as this split, or state no splits, and a part is held out."
    if setting == "val_split":
        return 'Leave data.val_split at "val", and a part of the training videos is held out.'
    return f"`vsn eval` takes --split {config.val_split}, the part that is held out." if held_out else "Add one."
