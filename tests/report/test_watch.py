"""The report of runs that are trained now."""

import json
import threading
import time
from pathlib import Path

from tests.helpers.fake_runs import write_run
from tests.helpers.html_pages import Page
from vsn.report import watch_report, write_report
from vsn.system.lock import lock_folder

REFRESH = 'http-equiv="refresh"'


def test_the_page_is_written_until_the_training_ends(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.6, epochs=20)
    page = tmp_path / "x.html"
    watching = threading.Thread(target=watch_report, args=([run_dir], page), kwargs={"every": 0.05})
    with lock_folder(run_dir):
        watching.start()
        first = wait_for(page, "20 of 50 epochs done")
        assert REFRESH in first
        # 41 seconds an epoch; a few of them may have passed.
        assert "about 20 min left" in first
        metrics = run_dir / "metrics.jsonl"
        line = json.loads(metrics.read_text().splitlines()[-1]) | {"epoch": 21, "step": 525}
        metrics.write_text(metrics.read_text() + json.dumps(line) + "\n")
        wait_for(page, "21 of 50 epochs done")
        (run_dir / "summary.json").write_text("{}")
        watching.join(60)
    assert not watching.is_alive()
    last = page.read_text("utf-8")
    assert REFRESH not in last
    assert "in training" not in last


def wait_for(page: Path, text: str) -> str:
    for _ in range(1000):
        if page.is_file() and text in (source := page.read_text("utf-8")):
            return source
        time.sleep(0.05)
    raise AssertionError(f"{page} never says {text!r}")


def test_a_run_before_its_first_epoch_and_one_that_is_not_trained(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.6, epochs=1)
    (run_dir / "metrics.jsonl").unlink()
    with lock_folder(run_dir):
        words = Page(write_report([run_dir], tmp_path / "x.html").read_text("utf-8")).words
    assert "run is in training: the first of 50 epochs." in words
    watch_report([run_dir], tmp_path / "x.html")  # ends at once
    assert "in training" not in (tmp_path / "x.html").read_text("utf-8")
