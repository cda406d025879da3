"""Read the files that list the classes of a data set."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from vsn.config import ConfigError
from vsn.config.errors import quote_first
from vsn.data.readers.entries import Entry
from vsn.data.readers.files import read_json, read_lines


class ClassList:
    """The class names of a data set, in the order of their labels, and the file that states them."""

    def __init__(self, names: Sequence[str], file: Path) -> None:
        self.names = tuple(names)
        self.file = file
        self._labels = {name: label for label, name in enumerate(self.names)}

    def label_of(self, name: str) -> int:
        """Return the label of a class. Raises `ValueError` for an unknown name, with the nearest one."""
        # The annotations and the class list are often of two versions of a data set.
        if name not in self._labels:
            near = difflib.get_close_matches(name, self._labels, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"unknown class {name!r}, not in {self.file.name}{hint}")
        return self._labels[name]

    def name_of(self, label: object) -> str:
        """Return the name of a class. Raises `ValueError` for what is no label."""
        if not isinstance(label, int) or not 0 <= label < len(self.names):
            raise ValueError(f"the label is {label!r}; the classes of {self.file.name} are 0 to {len(self.names) - 1}.")
        return self.names[label]


def unify_spellings(names: Iterable[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Map names of classes to one spelling for those that differ only in form; and a note.

    Forms are case, spaces, hyphens and underscores between letters, Unicode forms, and those of a whole number.

    >>> unify_spellings(["Wave", "turnleft", "wave", "turn left"])[0]
    {'Wave': 'wave', 'wave': 'wave', 'turn left': 'turn left', 'turnleft': 'turn left'}
    >>> unify_spellings(["1", "1.0", "02"])[0]
    {'02': '02', '1': '1', '1.0': '1'}
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(_plain(name), []).append(name)
    # With its spaces, and in lower case: the same choice in every split, whichever spellings it has.
    spelled = {
        name: plain
        if plain.isdecimal() and len(group) > 1
        else max(group, key=lambda name: (name.isprintable(), len(name.split()), name))
        for plain, group in groups.items()
        for name in group
    }
    several = [group for group in groups.values() if len(group) > 1]
    if not several:
        return spelled, ()
    named = "; ".join(f"{quote_first(group)} as {spelled[group[0]]!r}" for group in several[:3])
    more = "; ..." if len(several) > 3 else ""
    return spelled, (
        f"Classes that differ only in case, spaces, hyphens or the form of a number are read as one: {named}{more}.",
    )


def _plain(name: str) -> str:
    """Return what the spellings of one class have in common."""
    plain = unicodedata.normalize("NFC", name).casefold()
    # Without characters that take no space, such as those that web pages put between letters.
    visible = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    # Spreadsheets and data frames write 1.0 for 1 in a column that has an empty cell.
    if number := re.fullmatch(r"\s*0*(\d+)(?:\.0+)?\s*", visible, re.ASCII):
        return number[1]
    joined = re.sub(r"(?<=[^\W\d_])[\s_-]+(?=[^\W\d_])", "", visible)
    # "1 2" is not 12.
    spaced = re.sub(r"(?<=\d)[\s_]+(?=\d)", "\0", joined)
    return "".join(spaced.split()).replace("\0", " ")


def unify_classes(
    entries: Iterable[Entry], names: Iterable[str] = ()
) -> tuple[list[Entry], list[str], tuple[str, ...]]:
    """Spell the classes of entries as `unify_spellings` does; return the entries, all classes, sorted, and the note.

    The classes are those of the entries, and `names`.
    """
    entries = list(entries)
    spelled, notes = unify_spellings([*names, *(name for entry in entries for name in entry.class_names)])
    # A dict drops a class that a multi-label video has in two spellings.
    unified = [
        entry._replace(class_names=tuple(dict.fromkeys(spelled[name] for name in entry.class_names)))
        for entry in entries
    ]
    return unified, sorted(set(spelled.values())), notes


def read_class_list(file: Path) -> ClassList:
    """Read class names in the order of their labels.

    Text: a name a line; or `1 name` on every line, numbered from 0 or 1 (UCF101); or `name,0` (Moments in
    Time). JSON: an object {name: label}, labels as numbers or text (Something-Something V2, SlowFast), or a
    list of names, or of lists of parts of a name (Diving48).

    Raises `ConfigError` for a repeated name and for labels that leave a gap.
    """
    names = _from_json(file) if file.suffix.lower() == ".json" else _from_text(file)
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError(f"{file}: the class {name!r} is listed twice; list each class once.")
        seen.add(name)
    return ClassList(names, file)


def _from_text(file: Path) -> list[str]:
    lines = [line for _, line in read_lines(file)]
    # The form counts only when every line has it: "2 wave" may be the name of a class.
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
    # Diving48: ["Back", "15som", "05Twis", "FREE"] is one class.
    value = read_json(file)
    if isinstance(value, list):
        return [" ".join(map(str, name)) if isinstance(name, list) else str(name) for name in value]
    for name, label in value.items():
        if not str(label).isdecimal():
            raise ConfigError(f"{file}: the label of {name!r} is {label!r}; it must be a whole number.")
    # SlowFast's Kinetics file quotes names twice: "\"abseiling\"".
    return _ordered(file, ((name.strip('"'), int(label)) for name, label in value.items()))


def _ordered(file: Path, pairs: Iterable[tuple[str, int]]) -> list[str]:
    ordered = sorted(pairs, key=lambda pair: pair[1])
    for expected, (name, label) in enumerate(ordered):
        if label != expected:
            raise ConfigError(f"{file}: labels must be 0 to {len(ordered) - 1}, each once; {name!r} has {label}.")
    return [name for name, _ in ordered]
