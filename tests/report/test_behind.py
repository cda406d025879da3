"""The videos that a page lists behind its cells."""

import numpy as np
import pytest

from vsn.report import behind
from vsn.report.behind import videos_behind
from vsn.report.differences import Named
from vsn.scores.scores import Scores


def made(predicted: list[int], labels: list[int], certain: list[float] | None = None, num_classes: int = 3) -> Scores:
    logits = np.eye(num_classes, dtype=np.float32)[predicted] * np.array(certain or [3.0] * len(labels))[:, None]
    ids = np.array([f"v{i}" for i in range(len(labels))])
    return Scores(ids, logits.astype(np.float32), np.array(labels), tuple("abcdefgh"[:num_classes]))


def test_cells_hold_their_number_and_their_videos() -> None:
    scores = made([0, 1, 1, 0, 2, 2], [0, 0, 0, 0, 1, 2], [3, 2, 4, 1, 3, 3])
    scores.logits[5] = np.nan
    found = videos_behind([Named("run", scores)])
    assert found is not None
    videos = [video[0] for video in found["videos"]]
    named = {cell: [numbers[0], *(videos[i] for i in numbers[1:])] for cell, numbers in found["cells"][0].items()}
    # Mistakes that are most certain first, right ones that are least certain; an unreadable video is in no cell.
    assert named == {"0:1": [2, "v2", "v1"], "0:0": [2, "v3", "v0"], "1:2": [1, "v4"]}
    index = videos.index("v4")
    assert found["videos"][index][1] == 1
    choices = found["videos"][index][2][0]
    assert choices[0] == 2
    assert sum(choices[1::2]) == pytest.approx(100.0, abs=0.2)
    assert videos_behind([]) is None
    assert videos_behind([Named("run", made([0, 1], [0, 1])), Named("o", made([0, 1], [1, 1]))])["runs"] == ["run", "o"]


def test_many_cells_have_few_videos_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "MAX_VIDEOS", 20)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 8, 400)
    predicted = np.where(generator.random(400) < 0.5, labels, (labels + 1) % 8)
    found = videos_behind([Named("run", made(predicted.tolist(), labels.tolist(), num_classes=8))])
    assert found is not None
    assert len(found["videos"]) <= 20
    mistakes = {
        cell: numbers for cell, numbers in found["cells"][0].items() if cell.split(":")[0] != cell.split(":")[1]
    }
    # Two of each of the eight, rather than twelve of one and none of most.
    assert [len(numbers) - 1 for numbers in mistakes.values()] == 8 * [2]
    assert sum(numbers[0] for numbers in found["cells"][0].values()) == 400
