"""Names of splits: which mean the same, and which of them a data set has."""

from __future__ import annotations

from collections.abc import Sequence

from vsn.config import ConfigError, DataConfig


class NoSplitError(ConfigError):
    """The data set has no split of the name asked for.

    Attributes: `what` is so, and `advice`, what to do; the text is both.
    """

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(what, advice)
        self.what, self.advice = what, advice

    def __str__(self) -> str:
        return f"{self.what} {self.advice}"


_ALIASES = (("train", "training"), ("val", "valid", "validate", "validation"), ("test", "testing"))


def same_split(split: str) -> tuple[str, ...]:
    """Names that mean this split, itself first; all but itself in small letters.

    >>> same_split("Val")
    ('Val', 'val', 'valid', 'validate', 'validation')
    """
    aliases = next((names for names in _ALIASES if split.lower() in names), ())
    return split, *(name for name in aliases if name != split)


def means(name: str, split: str) -> bool:
    """Whether data that calls a split `name` has the one asked for as `split`; capitals do not count."""
    return name.lower() in {alias.lower() for alias in same_split(split)}


def canonical(name: str) -> str:
    """train, val or test for the names that mean these, else the name itself."""
    return next((names[0] for names in _ALIASES if name.lower() in names), name)


def find_split(config: DataConfig, split: str, present: Sequence[str]) -> str:
    """The name under which the data has the split; `NoSplitError` when it has none."""
    for name in same_split(split):
        if name in present:
            return name
    for name in present:
        if means(name, split):
            return name
    settings = [name for name in ("train_split", "val_split", "test_split") if getattr(config, name) == split]
    others = [name for name in present if not means(name, config.train_split)] or list(present)
    advice = "Ask for one of them."
    if settings:
        advice = f'Set data.{settings[0]} to one of them, for example "{others[0]}" (`vsn eval` takes --split).'
    raise NoSplitError(f"{config.root}: there is no split {split!r}; present: {', '.join(map(repr, present))}.", advice)
