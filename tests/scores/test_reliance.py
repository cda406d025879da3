import numpy as np
import pytest

from tests.helpers.made_scores import scores_of, shuffled_names, sides
from vsn.scores.intervals import loss_share_interval
from vsn.scores.reliance import temporal_reliance
from vsn.scores.scores import ScoresError


def right(num_right: int, num_videos: int = 40):
    """Two classes by turns; the first `num_right` videos are right."""
    return sides([int(i < num_right) for i in range(num_videos)], [i % 2 for i in range(num_videos)])


def test_by_hand():
    """36 of 40 forward, 24 shuffled, 30 still: of the 40 points above chance, 30 rest on order."""
    found = temporal_reliance({"still": right(30), "forward": right(36), "shuffled": right(24)})
    assert list(found.orders) == ["forward", "shuffled", "still"]
    assert [one.top1 for one in found.orders.values()] == pytest.approx([0.9, 0.6, 0.75])
    assert [one.loss for one in found.orders.values()] == pytest.approx([0, 0.3, 0.15])
    assert (found.num_videos, found.chance, found.judged_by) == (40, 0.5, "shuffled")
    assert found.share_on_order == pytest.approx(0.75)
    low, high = found.share_interval
    assert 0.35 < low < 0.75 < high < 1.2
    for one in found.orders.values():
        assert one.loss_interval[0] <= one.loss <= one.loss_interval[1]
    assert found.classes["a"]["shuffled"].top1 == pytest.approx(12 / 20)
    low, high = found.classes["b"]["forward"].interval
    assert 0.7 < low < 0.9 < high <= 1
    assert all(
        value in found.describe() for value in ("random order", "-30.0 points: 75%", "40.0 points above chance (50.0%)")
    )


def test_share_interval_is_that_of_the_hits():
    found = temporal_reliance({"forward": right(36), "shuffled": right(24)})
    expected = loss_share_interval(np.arange(40) < 36, np.arange(40) < 24, chance=0.5)
    assert found.share_interval == pytest.approx(expected)


def test_videos_are_matched_by_name():
    found = temporal_reliance({"forward": right(36), "reversed": shuffled_names(right(24), 1)})
    assert found.judged_by == "reversed"
    assert found.orders["reversed"].loss == pytest.approx(0.3)


def test_class_intervals_draw_reversed_copies_together():
    ids = [f"{i}{end}" for i in range(20) for end in ("", "#reversed")]
    hits = [int(i // 2 < 15) for i in range(40)]
    together = temporal_reliance({o: sides(hits, ids=ids) for o in ("forward", "still")})
    separate = temporal_reliance({o: sides(hits) for o in ("forward", "still")})
    widths = [np.ptp(one.classes["a"]["forward"].interval) for one in (together, separate)]
    assert widths[0] > 1.2 * widths[1]


@pytest.mark.parametrize(
    ("forward", "shuffled", "claim"),
    [
        (22, 22, "Top-1 of 55.0% is not significantly above chance (50.0%)"),
        (36, 36, "+0.0 points (95% interval -8.8 to +8.8): no significant dependence on order"),
        (36, 35, "-2.5 points (95% interval -12.9 to +6.5): no significant dependence on order"),
        (36, 24, "-30.0 points: 75% "),
        (30, 40, "+25.0 points (95% interval +14.0 to +40.2): a significant gain"),
    ],
)
def test_description_claims_only_significant_results(forward: int, shuffled: int, claim: str):
    found = temporal_reliance({"forward": right(forward), "shuffled": right(shuffled)})
    assert claim in found.describe()


@pytest.mark.parametrize("orders", [["forward"], ["shuffled", "still"], ["forward", "backward"]])
def test_invalid_orders(orders: list[str]):
    with pytest.raises(ScoresError, match=r"forward.*reversed, shuffled, still, got"):
        temporal_reliance({order: right(30) for order in orders})


def test_different_videos():
    other = scores_of([[1, 0]], [0], ids=["other"])
    with pytest.raises(ScoresError, match=r"shuffled lacks 40|forward lacks 1 "):
        temporal_reliance({"forward": right(30), "shuffled": other})
