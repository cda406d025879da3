"""docs/evaluation.md: its commands are understood, its Python runs, its example is what the code does."""

import math
import re
import shlex
from pathlib import Path

import pytest

from tests.helpers.made_scores import random_scores, scores_of
from vsn import cli
from vsn.runs.results import EvalResult
from vsn.scores.calibrate import calibrate
from vsn.scores.fuse import fuse_scores
from vsn.scores.metrics import predicted_classes, softmax

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^vsn (?:fuse|compare|submit|calibrate) .*$", PAGE, re.M)
CLASSES = ("a", "b", "c", "d", "e", "f")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every run and file the page names, made of random scores of 300 videos."""
    monkeypatch.chdir(tmp_path)
    names = set(re.findall(r"(?:vsn-demo/)?runs/[\w-]+", "\n".join(COMMANDS)))
    for number, name in enumerate(sorted(names)):
        for split in ("val", "validation", "test"):
            made = random_scores(number, num_videos=300, num_classes=6, strength=3, scale=2)
            scores = scores_of(made.logits.tolist(), made.labels.tolist(), classes=CLASSES)
            result = EvalResult.measure(scores, split=split, protocol="fcn", order="forward")
            result.save(Path(name), scores)
    ids = [str(i) for i in range(300)]
    Path("labels.json").write_text("{" + ", ".join(f'"{c}": "{i}"' for i, c in enumerate(CLASSES)) + "}")
    Path("test.json").write_text("[" + ", ".join(f'{{"id": "{i}"}}' for i in ids) + "]")
    Path("something-something-v1-test.csv").write_text("\n".join(ids) + "\n")
    Path("test-answers.csv").write_text("".join(f"{i};{CLASSES[int(i) % 6]}\n" for i in ids))
    return tmp_path


def test_the_page_has_commands():
    assert len(COMMANDS) >= 14
    assert {command.split()[1] for command in COMMANDS} == {"fuse", "compare", "submit", "calibrate"}


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_run(runs: Path, command: str, capsys: pytest.CaptureFixture[str]):
    words = shlex.split(command.partition("#")[0].partition(">")[0])
    # The page speaks of runs with one split; here each has three, as commands that name one need.
    if words[1] in ("fuse", "compare") and "--split" not in words:
        words += ["--split", "test"]
    cli.main(words[1:])
    assert capsys.readouterr().out
    for option in ("--out", "--plot"):
        if option in words:
            assert Path(words[words.index(option) + 1]).is_file()


def test_its_python_runs(runs: Path):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    made = random_scores(0, num_videos=300, num_classes=6, strength=3, scale=2)
    calibrate(made, precision=0.9).save("calibration.json")
    names: dict = {}
    exec(compile(block, "docs/evaluation.md", "exec"), names)
    assert len(names["labels"]) == 300
    assert set(names["labels"]) <= {*CLASSES, "unknown"}


def test_its_example_of_table_2():
    assert all(figure in PAGE for figure in ("probability 0.6", "gives it 0.1", "0.35"))
    for shift in (0.0, 50.0):
        r50, r101 = (
            scores_of([[math.log(p) + add, math.log(1 - p) + add]], [0]) for p, add in ((0.6, 0.0), (0.1, shift))
        )
        fused = fuse_scores([r50, r101])
        assert softmax(fused.logits)[0, 0] == pytest.approx(0.35, rel=1e-5)
        assert predicted_classes(fused) == ["b"]
