"""Files that state the classes of a data set and their order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from vsn.config import ConfigError
from vsn.data.readers.files import read_json, read_lines


def read_class_names(file: Path) -> tuple[str, ...]:
    """The class names a file states, at their labels.

    Text: a name a line, in the order of the labels; or `1 name` on every line, numbered from 0 or 1
    (UCF101); or `name,0` (Moments in Time). JSON: an object {name: label}, labels as numbers or text
    (Something-Something V2, SlowFast), or a list of names, or of lists of parts of a name (Diving48).

    Raises `ConfigError` for a name that comes twice and for labels that leave a gap.
    """
    names = _from_json(file) if file.suffix.lower() == ".json" else _from_text(file)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{file}: the class {name!r} comes twice; every class has one label.")
        seen.add(name)
    return tuple(names)


def _from_text(file: Path) -> list[str]:
    lines = [line for _, line in read_lines(file)]
    numbered = [re.fullmatch(r"(\d+)\s+(.*\S)", line) for line in lines]
    if all(numbered):
        pairs = [(match[2], int(match[1])) for match in numbered if match]
        first = min(label for _, label in pairs)
        return _ordered(file, ((name, label - (first == 1)) for name, label in pairs))
    trailing = [re.fullmatch(r"(.*\S)\s*,\s*(\d+)", line) for line in lines]
    if all(trailing):
        return _ordered(file, ((match[1], int(match[2])) for match in trailing if match))
    return lines


def _from_json(file: Path) -> list[str]:
    value = read_json(file)
    if isinstance(value, list):
        return [" ".join(map(str, name)) if isinstance(name, list) else str(name) for name in value]
    for name, label in value.items():
        if not str(label).isdecimal():
            raise ConfigError(f"{file}: the label of {name!r} is {label!r}; it should be a whole number.")
    return _ordered(file, ((name.strip('"'), int(label)) for name, label in value.items()))


def _ordered(file: Path, pairs: Iterable[tuple[str, int]]) -> list[str]:
    ordered = sorted(pairs, key=lambda pair: pair[1])
    for place, (name, label) in enumerate(ordered):
        if label != place:
            raise ConfigError(f"{file}: the labels should be 0 to {len(ordered) - 1}, each once; {name!r} has {label}.")
    return [name for name, _ in ordered]
