"""benchmarks/soak.py: a short run against the real service, and what it takes for a failure."""

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak  # type: ignore[import-not-found]

    return soak


def run(soak: ModuleType, served_run: Path, out: Path, *options: str) -> dict[str, Any]:
    soak.main([
        "--run", str(served_run), "--out", str(out), "--requests", "8", "--video-seconds", "1", *options,
    ])  # fmt: skip
    return json.loads(out.read_text())


@pytest.mark.slow  # half a minute: the service starts twice
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_seconds_of_load_with_a_killed_decoder_and_a_restart(soak: ModuleType, served_run: Path, tmp_path: Path):
    # Two starts of the command take most of the time.
    facts = run(soak, served_run, tmp_path / "soak.json", "--minutes", "0.05", "--kills", "1")
    assert facts["failures"] == []
    assert [part["are_equal"] for part in facts["counts"]] == [True, True]
    assert facts["answers"]["good"]["200"] > 10
    assert facts["decoders_killed"] == 1
    assert str(tmp_path) not in facts["command"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_a_minute_of_load(soak: ModuleType, served_run: Path, tmp_path: Path):
    facts = run(soak, served_run, tmp_path / "soak.json", "--minutes", "1", "--kills", "6")
    assert facts["failures"] == []
    assert facts["decoders_killed"] >= 5
    # Every kind of request was made.
    assert set(facts["answers"]) == {"good", *soak.BAD}
    assert facts["answers"]["stalled"]["408 upload_too_slow"]
    assert facts["answers"]["leaves early"]["left"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
def test_memory_of_small_videos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serve_memory  # type: ignore[import-not-found]

    out = tmp_path / "memory.json"
    serve_memory.main([
        "--out", str(out), "--model", "vsn_resnet14_tiny", "--short-side", "64", "--requests", "4", "--max-pixels", "100000",
    ])  # fmt: skip
    facts = json.loads(out.read_text())
    assert facts["at_once"]["answers"] == {"200": 4}
    clip_mb = 3 * facts["config"]["num_model_pixels"] / 1e6
    assert facts["bound"]["clips_mb"] == pytest.approx((5 * 33 + 2 + 16) * clip_mb)
    assert facts["holds"]


def state(soak: ModuleType) -> Any:
    alone = {"good 1": soak.Answer(200, "", "[1]"), "wide": soak.Answer(422, "too_many_model_pixels")}
    return soak.Soak(None, {}, alone)


@pytest.mark.parametrize(
    ("kind", "name", "answer", "is_right"),
    [
        ("good", "good 1", (200, "", "[1]"), True),
        ("good", "good 1", (200, "", "[2]"), False),
        ("good", "good 1", (503, "busy"), True),
        ("good", "good 1", (503, "internal"), False),
        ("good", "good 1", (422, "too_many_model_pixels"), False),
        ("good", "good 1", (500, "internal"), False),
        ("good", "good 1", None, False),
        ("wide", "wide", (422, "too_many_model_pixels"), True),
        ("wide", "wide", (200, "", "[1]"), False),
        ("slow", "good 1", (408, "upload_too_slow"), False),
        ("stalled", "good 1", (408, "upload_too_slow"), True),
    ],
)
def test_answers_are_those_of_a_lone_request(soak: ModuleType, kind: str, name: str, answer: Any, is_right: bool):
    running = state(soak)
    running.record(kind, name, answer and soak.Answer(*answer), was_stopping=False)
    assert (running.wrong == []) == is_right


def test_no_answer_is_right_only_while_the_service_stops(soak: ModuleType):
    running = state(soak)
    running.record("good", "good 1", None, was_stopping=True)
    assert running.wrong == []


@pytest.mark.parametrize(
    ("clients", "left", "service", "are_equal"),
    [
        ({200: 5, 503: 2}, 0, "5 200, 2 503", True),
        ({200: 5}, 2, "5 200, 2 499", True),
        ({200: 5}, 2, "6 200, 1 499", True),  # it was answered when it left
        ({200: 5}, 2, "5 200, 1 499", False),
        ({200: 5}, 0, "4 200, 1 500", False),
        ({200: 5}, 1, "4 200, 2 499", False),
        ({200: 5}, 0, "6 200", False),
        ({}, 0, "none", True),
    ],
)
def test_counts_of_service_and_clients_are_compared(
    soak: ModuleType, clients: dict[int, int], left: int, service: str, are_equal: bool
):
    counts = soak.Counts(soak.Counter(clients), left=left)
    assert soak.compare(counts, f"vsn: stopped; answers to uploads: {service}\n")["are_equal"] == are_equal


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_wrong": 1},
        {"counts": [{"are_equal": True}, {"are_equal": False}]},
        {"latency_ms": {}},
        {"files_left_after_load": 1},
        {"files_left_at_end": ["upload-x"]},
        {"exit_status": [-15, 0]},
        {"tracebacks": 1},
        {"memory": [{"seconds": 300.0, "growth": 0.2}]},
    ],
)
def test_each_requirement_can_fail(soak: ModuleType, wrong: dict[str, Any]):
    right: dict[str, Any] = {
        "num_wrong": 0,
        "wrong": [],
        "counts": [{"are_equal": True}] * 2,
        "latency_ms": {"p50": 1.0},
        "files_left_after_load": 0,
        "files_left_at_end": [],
        "exit_status": [0, 0],
        "tracebacks": 0,
        "memory": [{"seconds": 300.0, "growth": 0.01}, {"seconds": 20.0, "growth": 0.9}],
    }
    assert soak.failures(right) == []
    assert len(soak.failures({**right, **wrong})) == 1


@pytest.mark.parametrize("option", [("--minutes", "61"), ("--minutes", "0"), ("--requests", "300"), ("--kills", "0")])
def test_a_run_is_bounded(soak: ModuleType, tmp_path: Path, option: tuple[str, str]):
    with pytest.raises(SystemExit):
        soak.main(["--out", str(tmp_path / "soak.json"), *option])
