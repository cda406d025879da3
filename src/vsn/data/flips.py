"""Find the label of a horizontally flipped clip: "turn left" becomes "turn right"."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vsn.config import FlipRule

# Pairs of words that a horizontal flip exchanges; "up" and "towards" stay what they are.
_OPPOSITE_WORDS = {
    "left": "right",
    "leftward": "rightward",
    "leftwards": "rightwards",
    "clockwise": "counterclockwise",
}
_OPPOSITE_WORDS |= {opposite: word for word, opposite in _OPPOSITE_WORDS.items()}


def has_side(name: str) -> bool:
    """Return whether a class name has left, right, clockwise or counterclockwise as a word.

    >>> [has_side(name) for name in ("swipe_left", "TurnRight", "left-to-right", "leftovers")]
    [True, True, True, False]
    """
    words = _words(name)
    return _mirrored(words) != words


def opposite_labels(classes: Sequence[str]) -> dict[int, int]:
    """Map labels to their labels after a flip, for classes that have a side and whose opposite is a class.

    Names are compared word by word; case and separators do not matter.

    >>> opposite_labels(("swipe left", "wave", "swipe right", "turn left"))
    {0: 2, 2: 0}
    """
    by_words: dict[tuple[str, ...], list[int]] = {}
    for label, name in enumerate(classes):
        by_words.setdefault(_words(name), []).append(label)
    opposites = {}
    for label, name in enumerate(classes):
        words = _words(name)
        mirrored = _mirrored(words)
        matches = by_words.get(mirrored, [])
        # "turn_left" and "Turn Left" as two classes have no unique opposite.
        is_unique = len(matches) == 1 and len(by_words[words]) == 1
        if mirrored != words and _mirrored(mirrored) == words and is_unique:
            opposites[label] = matches[0]
    return opposites


def flipped_labels(classes: Sequence[str], rule: FlipRule) -> dict[int, int]:
    """Map the labels that may be flipped to the labels of the flipped clips.

    random: all labels, unchanged; never: none; auto: those whose name has no side; swap: also those whose
    opposite is a class, exchanged.
    """
    match rule:
        case "never":
            return {}
        case "random":
            return {label: label for label in range(len(classes))}
        case "auto" | "swap":
            plain = {label: label for label, name in enumerate(classes) if not has_side(name)}
            return plain | opposite_labels(classes) if rule == "swap" else plain
    raise ValueError(f"data.flip is {rule!r}; it must be auto, random, never or swap.")


def propose_flip_rule(classes: Sequence[str]) -> tuple[FlipRule, str]:
    """Return the flip rule that fits the class names, and the reason as one sentence.

    swap: every class with a side has its opposite; auto: some have none; random: no class has a side.

    >>> propose_flip_rule(("turn left", "turn right"))[0]
    'swap'
    """
    # A swap is only right when every class with a side has its opposite among the classes.
    sided = [label for label, name in enumerate(classes) if has_side(name)]
    if not sided:
        return "random", "No class name says left, right, clockwise or counterclockwise."
    opposites = opposite_labels(classes)
    unpaired = [label for label in sided if label not in opposites]
    if unpaired:
        return "auto", (
            f"{len(unpaired)} of the {len(sided)} classes with a side have no opposite class, for example "
            f"{classes[unpaired[0]]!r}; flipped clips of these would have no label."
        )
    first = sided[0]
    return "swap", (
        f"Each of the {len(sided)} classes with a side has its opposite, for example "
        f"{classes[first]!r} and {classes[opposites[first]]!r}."
    )


def _words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case: "TurnLeft" -> turn, left; "anti-clockwise" -> counterclockwise."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    joined = re.sub(r"\b(?:counter|anti)[\s_-]*(?=clockwise)", "counter", spaced.lower().replace("_", " "))
    return tuple(re.findall(r"[^\W\d]+|\d+", joined))


def _mirrored(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words with every side exchanged for its opposite."""
    # Except the adverb in "right out": "pulling it right out as you remove your hand".
    followers = (*words[1:], "")[: len(words)]
    return tuple(
        word if (word, following) == ("right", "out") else _OPPOSITE_WORDS.get(word, word)
        for word, following in zip(words, followers, strict=True)
    )
