"""The Python code in README and docs/ runs, and prints what its comments state; so do commands that need only scores."""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.docs_pages import ROOT, blocks, read
from tests.helpers.made_scores import random_scores, scores_of
from vsn import cli
from vsn.bench.rounds import MIN_ROUNDS
from vsn.bench.run import CPU_BATCHES, CPU_SECONDS, GPU_BATCHES
from vsn.config import ClipSpec, ModelConfig
from vsn.config.bench import PAPER_INPUTS
from vsn.export.check import TOLERANCES
from vsn.models import create_model
from vsn.runs.results import EvalResult
from vsn.scores.calibrate import calibrate
from vsn.scores.fuse import fuse_scores
from vsn.scores.metrics import predicted_classes, softmax

Names = dict[str, Any]
CLASSES = ("a", "b", "c", "d", "e", "f")
# Pages whose code tests of a package run, with the files it needs.
RUN_ELSEWHERE = {"api.md": "tests/inference/test_docs_api.py", "stream.md": "tests/stream/test_stream.py"}


def report_page() -> Names:
    model = create_model("vsn_resnet14_tiny", num_classes=5, num_frames=4).eval()
    clip = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
    return {"model": model, "clip": clip, "frames": clip[0].permute(0, 2, 3, 1).numpy()}


def evaluation_page() -> Names:
    """Make every run that the page names, with random scores of 300 videos."""
    commands = " ".join(re.findall(r"(?m)^vsn .*$", read("evaluation.md")))
    for number, name in enumerate(sorted(set(re.findall(r"(?:vsn-demo/)?runs/[\w-]+", commands)))):
        for split in ("val", "validation", "test"):
            scores = random_scores(number, num_videos=300, num_classes=6, strength=3, scale=2)
            scores = scores_of(scores.logits.tolist(), scores.labels.tolist(), classes=CLASSES)
            EvalResult.measure(scores, split=split, protocol="fcn", order="forward").save(Path(name), scores)
    made = random_scores(0, num_videos=300, num_classes=6, strength=3, scale=2)
    calibrate(made, precision=0.9).save("calibration.json")
    return {}


PREPARE: dict[str, Callable[[], Names]] = {
    "report.md": report_page,
    "evaluation.md": evaluation_page,
}
# Smaller sizes than the pages', by page.
SMALLER = {"vsn_resnet18": "vsn_resnet14_tiny", "(2, 8, 3, 224, 224)": "(2, 8, 3, 64, 64)"}
SMALLER_ON_PAGE = {
    "README.md": {"vsn_resnet50": "vsn_resnet18"},
    "export.md": {"(1, 8, 3, 224, 224)": "(1, 4, 3, 32, 32)"},
}


@pytest.mark.parametrize("page", sorted({block.page for block in blocks("python")} - set(RUN_ELSEWHERE)))
def test_python_runs(page: str, tmp_path: Path, monkeypatch, capsys, request: pytest.FixtureRequest, gray_video: Path):
    monkeypatch.chdir(tmp_path)
    shutil.copy(gray_video, "new.mp4")
    if page == "export.md":
        exported = request.getfixturevalue("exported_run")
        shutil.copytree(exported.path.parents[1], "runs/tsm")
    names = PREPARE.get(page, dict)()
    code = [block for block in blocks("python") if block.page == page and not block.not_run]
    capsys.readouterr()
    for block in code:
        text = block.text
        for full, small in (SMALLER_ON_PAGE.get(page, {}) | SMALLER).items():
            text = text.replace(full, small)
        exec(compile(text, str(block), "exec"), names)
    printed = " ".join(capsys.readouterr().out.split())
    for block in code:  # a comment after print(...) is its output, up to "..."
        for comment in re.findall(r"(?m)^(?:print\(.*\)  |)# (\[\[.*|torch\.Size.*|True)$", block.text):
            assert comment.partition(", ...")[0].rstrip("]") in printed, f"{block}: {comment}"


def test_pages_run_elsewhere_are_run_there():
    for page, test in RUN_ELSEWHERE.items():
        text = (ROOT / test).read_text(encoding="utf-8")
        assert page in text
        assert "exec(" in text


def test_commands_of_the_evaluation_page_run(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evaluation_page()
    ids = [str(i) for i in range(300)]
    Path("labels.json").write_text("{" + ", ".join(f'"{c}": "{i}"' for i, c in enumerate(CLASSES)) + "}")
    Path("test.json").write_text("[" + ", ".join(f'{{"id": "{i}"}}' for i in ids) + "]")
    Path("something-something-v1-test.csv").write_text("\n".join(ids) + "\n")
    Path("test-answers.csv").write_text("".join(f"{i};{CLASSES[int(i) % 6]}\n" for i in ids))
    lines = re.findall(r"(?m)^vsn (?:fuse|compare|submit|calibrate) .*$", read("evaluation.md"))
    assert {line.split()[1] for line in lines} == {"fuse", "compare", "submit", "calibrate"}
    for line in lines:
        words = shlex.split(line.partition("#")[0].partition(">")[0])
        # The runs of the page have scores of one split, those here of three.
        if words[1] in ("fuse", "compare") and "--split" not in words:
            words += ["--split", "test"]
        cli.main(words[1:])
        assert capsys.readouterr().out
        assert all(Path(words[words.index(key) + 1]).is_file() for key in ("--out", "--plot") if key in words)


def test_example_of_table_2_on_the_evaluation_page():
    assert re.search(r"0\.6\b.*0\.1\b.*0\.35", " ".join(read("evaluation.md").split()))
    for shift in (0.0, 50.0):  # softmax ignores a constant added to all logits
        r50, r101 = (
            scores_of([[math.log(p) + add, math.log(1 - p) + add]], [0]) for p, add in ((0.6, 0.0), (0.1, shift))
        )
        fused = fuse_scores([r50, r101])
        assert softmax(fused.logits)[0, 0] == pytest.approx(0.35, rel=1e-5)
        assert predicted_classes(fused) == ["b"]


def test_tolerances_of_the_export_page():
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|$", read("export.md"), re.M))
    assert {name: float(value) for name, value in rows.items()} == TOLERANCES


def test_numbers_of_the_bench_page_are_the_defaults():
    page = " ".join(read("bench.md").split())
    numbers = (GPU_BATCHES, CPU_BATCHES, ModelConfig.num_frames, PAPER_INPUTS["eco"][0], PAPER_INPUTS["i3d"][0])
    assert [number for number in numbers if not re.search(rf"\b{number}\b", page)] == []
    assert f"{ClipSpec.crop_size}x{ClipSpec.crop_size}" in page
    assert (CPU_SECONDS, MIN_ROUNDS, PAPER_INPUTS["i3d"][1]) == (120, 3, 2)  # in words there


TUTORIAL = ROOT / "docs" / "tutorial.py"


def run_tutorial(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TUTORIAL)],
        cwd=folder,
        env={**os.environ, "VSN_TUTORIAL": "tiny", "OMP_NUM_THREADS": "1"},  # as all tests
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tutorial_runs(tmp_path: Path):
    printed = run_tutorial(tmp_path)
    for part in ("torch.Size([1, 4])", "'model.safetensors'", "train (16, 256)", "test (12, 256)", "(8, 256)"):
        assert part in printed
    assert [path.name for path in tmp_path.iterdir()] == ["vsn-tutorial"]
    cells = TUTORIAL.read_text(encoding="utf-8").split("\n# %% [markdown]\n")[1:]
    for cell in cells:
        assert all(line.startswith("#") for line in cell.split("\n\n# %%")[0].strip().splitlines()), cell


@pytest.mark.slow
def test_tutorial_resumes(tmp_path: Path):
    first = run_tutorial(tmp_path)
    weights = (tmp_path / "vsn-tutorial" / "run" / "model.safetensors").read_bytes()
    assert run_tutorial(tmp_path).splitlines()[-2:] == first.splitlines()[-2:]
    assert (tmp_path / "vsn-tutorial" / "run" / "model.safetensors").read_bytes() == weights
