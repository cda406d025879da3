import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.class_lists import JESTER, SOMETHING
from vsn.config import FlipRule
from vsn.data.flips import flipped_labels, has_side, opposite_labels, propose_flip_rule, unclear_pairs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("left", True),
        ("rightwards", True),
        ("leftward", True),
        ("the thing on the right", True),
        ("right, out of the door", False),
        ("pulling it right out as you remove your hand", False),
        ("pulling it out right", True),
        ("Pushing something from left to right", True),
        ("left-to-right", True),
        ("swipe_left", True),
        ("swipeLeft", True),
        ("TurnRIGHT", True),
        ("LEFTHand", True),
        ("turn left2", True),
        ("Turning Hand Clockwise", True),
        ("turning_hand_counterclockwise", True),
        ("CounterClockwise", True),
        ("leftover", False),
        ("eating leftovers", False),
        ("bright", False),
        ("upright", False),
        ("righteous", False),
        ("clock", False),
        ("up", False),
        ("", False),
        # Joined words, abbreviations, other languages.
        ("swipeleft", True),
        ("LEFTTURN", True),
        ("lefthand", True),
        ("turnright", True),
        ("handsleftward", True),
        ("spin_cw", True),
        ("CCW", True),
        ("spinACW", True),
        ("anticlockwise", True),
        ("anticlock", True),
        ("turn_counter_clock", True),
        ("rgt_hook", True),
        ("rechtsabbiegen", True),
        ("linker Haken", True),
        ("à_droite", True),
        ("pied droit", True),
        ("mano IZQUIERDA", True),
        ("manoderecha", True),
        ("mão esquerda", True),
        ("mano sinistra", True),
        ("Höger", True),
        ("sağ el", True),
        ("w lewo", True),
        ("налево", True),
        ("向右", True),
        ("左转", True),
        ("왼손", True),
        ("우회전", True),
        ("顺时针", True),
        # The same letters without a side.
        ("brightness", False),
        ("delft", False),
        ("copyright", False),
        ("playwright", False),
        ("destroy", False),
        ("solve", False),
        ("cleft", False),
        ("linking", False),
        ("clockwork", False),
        ("правило", False),
        ("turn_l", False),
        ("l", False),
    ],
)
def test_has_side(name: str, expected: bool) -> None:
    assert has_side(name) is expected


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("left", "right"), {0: 1, 1: 0}),
        (("left", "up"), {}),
        (("left to right", "right to left"), {0: 1, 1: 0}),
        (("Swiping Left", "wave", "Swiping Right", "Sliding Left"), {0: 2, 2: 0}),
        (("swipe_left", "swipe-right"), {0: 1, 1: 0}),
        (("turnLeft", "turnRight"), {0: 1, 1: 0}),
        (("Turning Hand Clockwise", "Turning Hand Counterclockwise"), {0: 1, 1: 0}),
        (("clockwise", "anti-clockwise"), {0: 1, 1: 0}),
        (("Left-hand turn, leftwards", "right hand TURN: rightwards"), {0: 1, 1: 0}),
        (("left, then right", "right, then left", "left, then left"), {0: 1, 1: 0}),
        (("pulled right out", "pulled left out"), {}),
        (("bright", "bleft"), {}),
        (("left", "Left", "right"), {}),  # which of the two would right become?
        ((), {}),
        (("swipeleft", "swiperight"), {0: 1, 1: 0}),
        (("swipeleft", "Swipe Right"), {0: 1, 1: 0}),
        (("cw", "counter-clockwise", "ccw2"), {0: 1, 1: 0}),
        (("mano izquierda", "mano derecha"), {0: 1, 1: 0}),
        (("linkshänder", "rechtshänder"), {0: 1, 1: 0}),
        (("左转", "右转"), {0: 1, 1: 0}),
        (("turn_l", "turn_r"), {}),  # only the user knows
    ],
)
def test_opposite_labels(classes: tuple[str, ...], expected: dict[int, int]) -> None:
    assert opposite_labels(classes) == expected


@pytest.mark.parametrize(
    ("classes", "pairs"),
    [
        (("turn_l", "wave", "turn_r"), [(0, 2)]),
        (("turnL", "turnR"), [(0, 1)]),
        (("lhand", "rhand", "turnl", "turnr"), [(0, 1), (2, 3)]),
        (("L", "R"), [(0, 1)]),
        (("u", "d", "l", "r"), [(2, 3)]),
        (tuple("abcdefghijklmnopqrstuvwxyz"), []),
        (("hook izq", "hook der", "main_g", "main_d"), [(0, 1), (2, 3)]),
        (("swipe l 2", "swipe r 2", "swipe r 3"), [(0, 1)]),
        (("slide l2r", "slide r2l", "wave ltr", "wave rtl"), [(0, 1), (2, 3)]),
        (("l to r", "r to l", "l to l"), []),  # a group of three
        (("hand l g", "hand r g"), [(0, 1)]),
        (("lock", "rock", "lace", "race", "load", "road"), []),
        (("turn_l", "turn_left", "turn_r"), [(0, 2)]),
        (("left l", "left r"), []),  # flipped by no rule but random
        (("turn_l", "turn-l", "turn_r"), []),  # which of the two would turn_r become?
        (("turn_l", "spin_r"), []),
        ((), []),
    ],
)
def test_unclear_pairs(classes: tuple[str, ...], pairs: list[tuple[int, int]]) -> None:
    assert unclear_pairs(classes) == pairs
    paired = {label for pair in pairs for label in pair}
    assert not paired & flipped_labels(classes, "auto").keys()
    swapped = flipped_labels(classes, "swap")
    assert all(swapped[a] == b and swapped[b] == a for a, b in pairs)
    if pairs:
        rule, why = propose_flip_rule(classes)
        assert rule == "auto"
        assert f"{classes[pairs[0][0]]!r} and {classes[pairs[0][1]]!r}" in why


def test_a_group_without_a_unique_pair_is_not_flipped() -> None:
    assert flipped_labels(("turn_l", "turn-l", "turn_r", "wave"), "auto") == {3: 3}
    assert flipped_labels(("turn_l", "turn-l", "turn_r", "wave"), "swap") == {3: 3}


@pytest.mark.parametrize(
    ("classes", "pairs", "one"),
    [
        (SOMETHING, ((86, 87), (93, 94), (166, 167)), "Turning the camera right while filming something"),
        (JESTER, ((11, 12), (16, 17), (21, 22)), "Turning Hand Counterclockwise"),
    ],
    ids=["something", "jester"],
)
def test_pairs_of_the_data_sets(classes: list[str], pairs: tuple[tuple[int, int], ...], one: str) -> None:
    assert (len(classes), classes) == (len(set(classes)), sorted(classes))
    opposites = opposite_labels(classes)
    assert opposites == {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    assert {label for label, name in enumerate(classes) if has_side(name)} == set(opposites)
    assert classes[pairs[-1][1]] == one
    assert propose_flip_rule(classes)[0] == "swap"
    rule = flipped_labels(classes, "swap")
    assert sorted(rule) == sorted(rule.values()) == list(range(len(classes)))
    assert set(flipped_labels(classes, "auto")) == set(range(len(classes))) - set(opposites)


@pytest.mark.parametrize(
    ("classes", "rule", "reason"),
    [
        (("wave", "clap"), "random", "No class name says left, right"),
        ((), "random", "No class name"),
        (("turn left", "turn right", "wave"), "swap",
         "Each of the 2 classes with a side has its opposite, for example 'turn left' and 'turn right'."),
        (("turn left", "turn right", "go left"), "auto",
         "1 of the 3 classes with a side have no opposite class, for example 'go left'"),
        (("left", "Left", "right"), "auto", "3 of the 3 classes"),
    ],
)  # fmt: skip
def test_proposed_rule(classes: tuple[str, ...], rule: FlipRule, reason: str) -> None:
    proposed, why = propose_flip_rule(classes)
    assert proposed == rule
    assert why.startswith(reason)
    assert why.endswith(".")


names = st.lists(
    st.sampled_from(["left", "right", "turn", "out", "clockwise", "ccw", "swipeleft", "l", "R", "lhand", "izquierda"]),
    max_size=4,
)


@example(["turn right out", "turn left out"])
@given(st.lists(names.map(" ".join), max_size=12))
def test_flips_undo_themselves(classes: list[str]) -> None:
    opposites = opposite_labels(classes)
    assert all(opposites[opposite] == label != opposite for label, opposite in opposites.items())
    for rule in ("auto", "swap", "random", "never"):
        flipped = flipped_labels(classes, rule)
        assert all(flipped[to] == label for label, to in flipped.items())
    rule, _ = propose_flip_rule(classes)
    assert (rule == "swap") == (len(flipped_labels(classes, "swap")) == len(classes) and bool(opposites))
