"""The report in a browser: every state of it, in both color schemes, on a desk and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.external import chromium
from tests.helpers.fake_runs import write_eval, write_run, write_strips
from tests.helpers.looks import objections
from vsn.report import read_runs, write_page, write_report
from vsn.report.behind import VIDEOS_OF_A_CELL
from vsn.report.comparison import write_comparison
from vsn.report.differences import named_scores
from vsn.report.videos import Example, Examples, choose_examples

CLASSES = ("moving something from left to right", "moving something from right to left", "wave")


def compared(folder: Path) -> Path:
    """Two runs with strips, best and worst videos with heat maps, and one that could not be read."""
    models = {"TSN": ("tsn_resnet18", 0.4), "VSN": ("vsn_resnet18", 0.7)}
    dirs = [write_run(folder / "runs" / name, *model, classes=CLASSES, epochs=6) for name, model in models.items()]
    runs = read_runs(dirs)
    best = max(runs, key=lambda run: run.top1)
    assert best.scores is not None
    rows = choose_examples(best.scores, 1)
    frames = np.full((8, 60, 80, 3), 90, np.uint8)
    examples = [
        Example(video_id=str(best.scores.video_ids[row]), kind=kind, frames=frames, heat=frames)
        for kind, chosen in rows.items()
        for row in chosen
    ]
    unread = Example(
        video_id=str(best.scores.video_ids[1]), kind="worst", frames=None, problem="Cannot be read: cut off"
    )
    shown = Examples(run=best.name, stage="res4", map_size=(7, 7), examples=(*examples, unread))
    costs = {run.name: (888_292, 111_200_000) for run in runs}
    strips = write_strips(folder / "strips.npz", CLASSES, [0])
    return write_page(runs, folder / "x.html", title="Two runs", examples=shown, costs=costs, strips=strips)


def untested(folder: Path) -> Path:
    """One run that is trained, and one that is not even that."""
    dirs = [write_run(folder / name, "tsm_resnet18", 0.6, classes=CLASSES, epochs=3) for name in ("trained", "new")]
    for run_dir in dirs:
        shutil.rmtree(run_dir / "eval")
    (dirs[1] / "metrics.jsonl").unlink()
    return write_report(dirs, folder / "x.html", title="Untested runs")


def multi_label(folder: Path) -> Path:
    run_dir = write_run(folder / "run", "tsm_resnet18", 0.6, classes=CLASSES, epochs=3)
    shutil.rmtree(run_dir / "eval")
    labels = np.eye(3, dtype=bool)[np.arange(30) % 3] | np.eye(3, dtype=bool)[np.arange(30) // 10]
    write_eval(run_dir, "forward", 3.0 * labels + np.eye(3)[np.arange(30) % 3], labels, CLASSES)
    return write_report([run_dir], folder / "x.html", title="Several labels")


def many_classes(folder: Path) -> Path:
    """A matrix that a script draws."""
    classes = tuple(f"doing something with thing number {index}" for index in range(31))
    run_dir = write_run(folder / "run", "tsm_resnet18", 0.6, classes=classes, epochs=3, per_class=1)
    return write_report([run_dir], folder / "x.html", title="Many classes")


def comparison(folder: Path) -> Path:
    """The page of `vsn compare --out`."""
    runs = [
        write_run(folder / name, "tsm_resnet18", share, classes=CLASSES, epochs=1, per_class=5)
        for name, share in (("a", 0.4), ("b", 0.6), ("c", 0.8))
    ]
    return write_comparison(named_scores(read_runs(runs)), folder / "x.html", notes=["1 video is not in all."])


STATES: dict[str, Callable[[Path], Path]] = {
    "compared": compared,
    "untested": untested,
    "multi-label": multi_label,
    "many classes": many_classes,
    "comparison": comparison,
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.mark.needs("axe", "chromium")
@pytest.mark.parametrize("state", STATES)
def test_nothing_to_object_to(browser: Any, tmp_path: Path, state: str) -> None:
    page = browser.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(STATES[state](tmp_path).as_uri())
    wrong += objections(page, schemes=["light"], widths=[390])
    # Most is in closed boxes at first.
    page.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
    wrong += objections(page)
    page.close()
    assert wrong == []


@pytest.mark.needs("axe", "chromium")
def test_videos_behind_cells_pairs_and_classes(browser: Any, tmp_path: Path) -> None:
    """By keyboard: the same videos as in the scores, with their frames where the page has them."""
    page = browser.new_page()
    page.goto(compared(tmp_path).as_uri())
    _, run = read_runs([tmp_path / "runs" / name for name in ("TSN", "VSN")])
    counts = run.confusion
    true, wrong = np.unravel_index((counts - np.diag(counts.diagonal())).argmax(), counts.shape)
    cell = page.locator(f".matrix rect[data-open='1:{true}:{wrong}']")
    cell.focus()
    page.keyboard.press("Enter")
    assert page.inner_text("dialog h2").startswith(f"{CLASSES[true]} → {CLASSES[wrong]} in VSN")
    assert page.locator("dialog article").count() == counts[true, wrong]
    assert run.scores is not None
    rows = (run.scores.labels == true) & (run.scores.logits.argmax(axis=1) == wrong)
    shown = page.eval_on_selector_all("dialog h3 small", "all => all.map(one => one.textContent)")
    assert sorted(shown) == sorted(run.scores.video_ids[rows].tolist())
    assert objections(page, schemes=["dark"], widths=[390]) == []
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    # The arrow goes to the next cell that is not empty; it has the focus, and the rest is left out by the tabulator key.
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.open") != f"1:{true}:{wrong}"
    assert page.locator(".matrix").nth(1).locator("rect[tabindex='0']").count() == 1
    page.locator(".bar-name [data-open]").first.press(" ")
    worst = page.locator(".bar-name [data-open]").first.inner_text()
    listed = np.minimum(counts[CLASSES.index(worst)], VIDEOS_OF_A_CELL).sum()
    assert page.locator("dialog article").count() == listed
    assert page.locator("dialog h3").first.inner_text().startswith(worst)
    page.close()


@pytest.mark.needs("axe", "chromium")
def test_a_large_matrix_opens_the_marked_cell(browser: Any, tmp_path: Path) -> None:
    page = browser.new_page()
    page.goto(many_classes(tmp_path).as_uri())
    page.focus(".map-box")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.inner_text("dialog h2").startswith("doing something with thing number 0, right in run")
    page.close()
