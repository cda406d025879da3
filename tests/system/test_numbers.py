import math

import pytest

from vsn.system.numbers import (
    counted,
    decimal,
    percent,
    percent_interval,
    percent_range,
    points,
    short_count,
    significant,
)


@pytest.mark.parametrize(
    ("hits", "videos", "text"),
    [
        (377, 400, "94.3%"),  # 94.25: Python's own format has 94.2%, a browser's 94.3%
        (29, 200, "14.5%"),
        (1, 3, "33.3%"),
        (1, 8, "12.5%"),
        (1, 16, "6.3%"),  # 6.25
        (3, 16, "18.8%"),  # 18.75
        (1999, 2000, "100.0%"),  # 99.95
        (0, 7, "0.0%"),
    ],
)
def test_halves_are_rounded_up(hits: int, videos: int, text: str):
    assert percent(hits / videos) == text


def test_every_share_of_two_counts_is_rounded_as_its_exact_value():
    for videos in range(1, 450):
        for hits in range(videos + 1):
            tenths = (2000 * hits + videos) // (2 * videos)  # of a percent, halves up, without floating point
            assert percent(hits / videos) == f"{tenths // 10}.{tenths % 10}%", (hits, videos)


def test_nothing_is_minus_zero():
    assert points(-0.0004) == points(0.0) == "+0.0"
    assert decimal(-0.04) == "0.0"
    assert (points(-0.0125), points(0.0125)) == ("-1.3", "+1.3")


def test_what_is_no_number_is_written_as_such():
    assert percent(None) == ""
    assert percent(math.nan) == "nan%"


def test_intervals():
    assert percent_interval((0.832, 1.0)) == "83.2% to 100.0%"
    assert percent_range((0.832, 1.0)) == "83.2-100.0%"


@pytest.mark.parametrize(
    ("value", "text"),
    [(888_292, "888K"), (23_880_000, "23.9M"), (2_390_000, "2.39M"), (999_499, "999K"), (999_500, "1.00M"), (0, "0")],
)
def test_counts_have_three_digits(value: float, text: str):
    assert short_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.1249, "0.125"),
        (9.996, "10.0"),
        (99.95, "100"),
        (383.4, "383"),
        (4518.4, "4518"),
        (-2.345, "-2.35"),
    ],
)
def test_three_digits(value: float, text: str):
    assert significant(value) == text


def test_plurals():
    assert [counted(n, noun) for n, noun in ((1, "video"), (2, "video"), (0, "class"), (1200, "class"))] == [
        "1 video", "2 videos", "0 classes", "1,200 classes",
    ]  # fmt: skip
