"""Match names of splits: "val" is "validation"."""

from __future__ import annotations

from collections.abc import Sequence

from vsn.config import ConfigError, DataConfig


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
    return name.lower() in {alias.lower() for alias in same_split(split)}


def canonical(name: str) -> str:
    """Return train, val or test for their aliases, else the name itself."""
    return next((names[0] for names in _ALIASES if name.lower() in names), name)


def find_split(config: DataConfig, split: str, present: Sequence[str]) -> str:
    """Return the name that a split has in the data; `NoSplitError` when it has none."""
    # The exact name, then its aliases, then any spelling: "val" finds "val" before "Validation".
    for name in (*(alias for alias in same_split(split) if alias in present), *present):
        if means(name, split):
            return name
    # Name the setting that holds the wrong name; suggest another split than the training split.
    settings = [name for name in ("train_split", "val_split", "test_split") if getattr(config, name) == split]
    others = [name for name in present if not means(name, config.train_split)] or list(present)
    advice = "Choose one of them."
    if settings:
        advice = f'Set data.{settings[0]} to one of them, for example "{others[0]}" (`vsn eval` takes --split).'
    raise NoSplitError(f"{config.root}: there is no split {split!r}; present: {', '.join(map(repr, present))}.", advice)
