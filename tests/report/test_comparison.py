"""The page of `vsn compare --out`."""

from pathlib import Path

import pytest

from tests.helpers.fake_runs import CLASSES, write_runs
from tests.helpers.html_pages import Page
from vsn.cli import main
from vsn.report.render import points
from vsn.scores.compare import compare_scores
from vsn.scores.scores import load_scores
from vsn.system.numbers import percent


def test_the_best_is_compared_with_each_other_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dirs = write_runs(tmp_path / "runs")
    output = tmp_path / "page.html"
    main(["compare", *map(str, dirs), "--out", str(output)])
    assert str(output) in capsys.readouterr().err
    page = Page(output.read_text("utf-8"))
    assert ("h1", "TSN, TSM and VSN compared") in page.headings
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []
    scores = {path.name: load_scores(path / "eval" / "test-fcn-forward.npz") for path in dirs}
    for other in ("TSN", "TSM"):
        found = compare_scores(scores[other], scores["VSN"])
        assert points(found.top1.difference) in page.words
        assert percent(found.top1.a) in page.words
        won = [video["id"] for video in found.changed if video["side"] == "won"]
        assert set(won[:100]) <= set(page.words)
        most = found.classes[0]
        assert {most["class"], str(most["won"])} <= set(page.words)
    assert any(word.startswith("VSN has the best top-1 on 400 videos: ") for word in page.words)
    assert CLASSES[0] in page.words
