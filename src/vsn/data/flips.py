"""Find the label of a horizontally flipped clip: "turn left" becomes "turn right"."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from vsn.config import FlipRule

# Pairs of parts of words that a horizontal flip exchanges; "up" and "towards" stay what they are. Stems, so that
# "swipeleft", "leftwards" and "izquierdo" have them too.
_STEMS = """
    left right    links rechts    linke rechte    gauche droite    izquierd derech    esquerd direit
    kiri kanan    左 右    ひだり みぎ    왼 오른    좌회전 우회전    좌측 우측    влево вправо    налево направо
    ซ้าย ขวา    يسار يمين    顺时针 逆时针    順時針 逆時針    clockwise counterclockwise
"""
# Whole words: parts of other words have these letters too, such as "destroy" and "solve".
_WORDS = """
    lft rgt    sinistra destra    sinistro destro    vänster höger    vasen oikea    lewo prawo    lewa prawa    lewy prawy
    vlevo vpravo    levo pravo    sola sağa    sol sağ    stanga dreapta    левый правый    левая правая    левой правой
    trái phải    horario antihorario    horaire antihoraire    venstre høyre    बाएं दाएं
"""
_SAME_WORDS = {
    "højre": "høyre", "droit": "droite", "cw": "clockwise", "ccw": "counterclockwise", "acw": "counterclockwise",
}  # fmt: skip
# English words with these letters and without a side; "climbright" begins with none of them.
_NO_SIDE = re.compile(
    r"(?:b|f|w|up|out|down|al|copy|birth|forth|sp|(?:play|cart|ship|wheel)w)right|right(?:eous|ful)|leftovers?$|cleft|leftis"
)
# What may stand for left and right, where two names of classes differ in nothing else.
_ABBREVIATIONS = (
    "l r    lt rt    lh rh    lhs rhs    lf rf    li re    izq der    esq dir    sx dx    g d    ltr rtl    lr rl"
)
_JOINED = re.compile(
    r"(?P<first>[lr])(?:hand|arm|leg|foot|eye|ear|side|turn|swipe|wave|punch|kick|hook|jab|knee|thumb|finger|fist|elbow)s?"
    r"|(?:hand|arm|leg|foot|eye|ear|side|turn|swipe|wave|punch|kick|hook|jab|move|go|look|lean|point|slide)(?P<last>[lr])"
)


def has_side(name: str) -> bool:
    """Return whether a class name contains left, right, clockwise or counterclockwise, in one of several languages.

    >>> [has_side(name) for name in ("swipe_left", "TurnRight", "lefthand", "ccw", "links abbiegen", "leftovers")]
    [True, True, True, True, True, False]
    """
    words = _words(name)
    return _mirrored(words) != words


def unclear_pairs(classes: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of labels whose names differ only in what may stand for left and right: the user has to decide.

    >>> unclear_pairs(("turn_l", "wave", "turn_r", "rock", "lock", "lhand", "rhand"))
    [(0, 2), (5, 6)]
    """
    pairs = {(found[0], found[1]) for found in _unclear_groups(classes).values() if len(found) == 2}
    # "l to r" would be paired with "r to l" and with "l to l": a label has one opposite or none.
    counts = Counter(label for pair in pairs for label in pair)
    return sorted(pair for pair in pairs if counts[pair[0]] == counts[pair[1]] == 1)


def _unclear_groups(classes: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
    """Group labels whose names differ only in what may stand for left and right; the keys are their other words."""
    letters = {name.lower() for name in classes if len(name) == 1}
    labels: dict[tuple[str, ...], dict[int, str]] = {}
    for label, name in enumerate(classes):
        words = _words(name)
        # L and R among directions (U, D, F, B, ...), but not in an alphabet.
        if has_side(name) or (len(name) == 1 and not letters <= set("lrudfbnsewc")):
            continue
        kinds = {position: kind for position, word in enumerate(words) if (kind := _kind_of(word))}
        # Each alone, and all together: "l2r" and "r2l" differ in two.
        for chosen in (*([position] for position in kinds), *([list(kinds)] if len(kinds) > 1 else [])):
            key = tuple(f"<{kinds[i]}>" if i in chosen else word for i, word in enumerate(words))
            labels.setdefault(key, {})[label] = " ".join(words)
    return {key: list(found) for key, found in labels.items() if len(set(found.values())) > 1}


def _kind_of(word: str) -> str:
    """Return what two words have in common that may be two sides: "l/r" of "l" and "r", "hand" of "lhand" and "rhand"."""
    match = _JOINED.fullmatch(word)
    if match:
        return word[1:] if match["first"] else word[:-1]
    return _PAIR_OF_ABBREVIATION.get(word, "")


def describe_pairs(classes: Sequence[str], pairs: Sequence[tuple[int, int]]) -> str:
    """Return the question that unclear pairs raise."""
    first = " and ".join(repr(classes[label]) for label in pairs[0])
    others = f", and {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""
    return (
        f'{first}{others} may differ in left and right. If they do, set data.flip = "swap", which flips them and exchanges '
        'the labels; if they do not, set "random".'
    )


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

    random: all labels, unchanged; never: none; auto: those whose name has no side, and is in no unclear pair; swap:
    also those whose opposite is a class, and the unclear pairs, exchanged.
    """
    match rule:
        case "never":
            return {}
        case "random":
            return {label: label for label in range(len(classes))}
        case "auto" | "swap":
            exchanged = {label: other for pair in unclear_pairs(classes) for label, other in (pair, pair[::-1])}
            unclear = {label for labels in _unclear_groups(classes).values() for label in labels}
            plain = {i: i for i, name in enumerate(classes) if not has_side(name) and i not in unclear}
            return plain | exchanged | opposite_labels(classes) if rule == "swap" else plain
    raise ValueError(f"data.flip is {rule!r}; it must be auto, random, never or swap.")


def propose_flip_rule(classes: Sequence[str]) -> tuple[FlipRule, str]:
    """Return the flip rule that fits the class names, and the reason as one sentence.

    swap: every class with a side has its opposite; auto: some have none, or it is unclear; random: no class has a side.

    >>> propose_flip_rule(("turn left", "turn right"))[0]
    'swap'
    """
    # A swap is only right when every class with a side has its opposite among the classes.
    if pairs := unclear_pairs(classes):
        return "auto", describe_pairs(classes, pairs)
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
    """The words of a name in lower case and without accents, with the stems of sides as words of their own.

    "TurnLeft" and "turnleft" -> turn, left; "anti-clockwise" -> counterclockwise.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    joined = re.sub(r"(?:counter|anti)[\s_-]*clock(?:wise)?", "counterclockwise", _plain(spaced).replace("_", " "))
    words = (_SAME_WORDS.get(word, word) for word in re.findall(r"[^\W\d]+|\d+", joined))
    return tuple(part for word in words for part in ([word] if _NO_SIDE.match(word) else _STEM.split(word)) if part)


def _plain(text: str) -> str:
    """Lower case without accents: "Vänster" -> "vanster"."""
    decomposed = unicodedata.normalize("NFD", text.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


def _pairs(text: str) -> list[tuple[str, str]]:
    words = _plain(text).split()
    return list(zip(words[::2], words[1::2], strict=True))


_OPPOSITE_WORDS = {word: other for pair in _pairs(_STEMS + _WORDS) for word, other in (pair, pair[::-1])}
# The longest first: "counterclockwise" has "clockwise" in it.
_STEM = re.compile(f"({'|'.join(sorted({s for pair in _pairs(_STEMS) for s in pair}, key=len, reverse=True))})")
_PAIR_OF_ABBREVIATION = {word: "/".join(pair) for pair in _pairs(_ABBREVIATIONS) for word in pair}


def _mirrored(words: tuple[str, ...]) -> tuple[str, ...]:
    """The words with every side exchanged for its opposite."""
    # Except the adverb in "right out": "pulling it right out as you remove your hand".
    followers = (*words[1:], "")[: len(words)]
    return tuple(
        word if (word, following) == ("right", "out") else _OPPOSITE_WORDS.get(word, word)
        for word, following in zip(words, followers, strict=True)
    )
