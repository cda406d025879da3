"""Define the error of a setting and the checks that raise it."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SEEDS = f"[0, {2**63 - 1}]"
"""What PyTorch, NumPy and TOML take as a seed."""


class ConfigError(ValueError):
    """A setting that cannot be used. The message states the value, what is allowed and what to do."""


class ConfigTypeError(ConfigError, TypeError):
    """A setting of another type."""


def require(holds: bool, message: str) -> None:
    """Raise `ConfigError` unless a rule holds."""
    if not holds:
        raise ConfigError(message)


def quote_first(names: Sequence[str], limit: int = 3) -> str:
    """Quote the first names, for a message.

    >>> quote_first(["a", "b", "c", "d"])
    "'a', 'b', 'c', ..."
    """
    return ", ".join(map(repr, names[:limit])) + (", ..." if len(names) > limit else "")


def one_line(error: object) -> str:
    """Return the message of a library's error, which may have many lines, as one of at most 300 characters."""
    return " ".join(str(error).split())[:300]


def require_number(value: object, name: str, *, whole: bool = False) -> None:
    """Raise `ConfigTypeError` unless a value is a number, or a whole number; numbers of NumPy are, bool is not."""
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind):
        expected = "a whole number" if whole else "a number"
        raise ConfigTypeError(f"{name} is {value!r}, of type {type(value).__name__}; it must be {expected}.")


def check_range(config: DataclassInstance, interval: str, *names: str, table: str = "") -> None:
    """Check that numeric fields of a dataclass, or each item of a tuple, have their type and lie in an interval.

    NaN lies in none; None is not checked where the field may be None.

    Args:
        config: the dataclass.
        interval: in mathematical notation: "[0, 1)", "(0, inf)".
        names: of the fields.
        table: the prefix of the names in the message: "train." for "train.epochs is 0; it must be at least 1.".

    Raises:
        ConfigTypeError: no number, or none that is whole where the field is an int.
        ConfigError: a number outside the interval.
    """
    # As written in the class, such as "int | None".
    types = {field.name: str(field.type) for field in fields(config)}
    # NaN compares false with every bound, so that no other check is needed.
    low, high = map(float, interval[1:-1].split(","))
    allowed = f"in {interval}"
    if high == float("inf"):
        allowed = f"at least {low:g}" if interval[0] == "[" else f"above {low:g}"
    for name in names:
        value = getattr(config, name)
        is_list = isinstance(value, tuple)
        if value is None and "None" in types[name]:
            continue
        for item in value if is_list else (value,):
            require_number(item, f"{table}{name}", whole="int" in types[name])
            above = item >= low if interval[0] == "[" else item > low
            below = item <= high if interval[-1] == "]" else item < high
            finite = "a finite number " if item == high == float("inf") else ""
            shown, subject = (list(value), "each") if is_list else (value, "it")
            require(above and below, f"{table}{name} is {shown}; {subject} must be {finite}{allowed}.")
