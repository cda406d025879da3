"""The scripts in benchmarks/ that measure a GPU, the operations and a CPU: at tiny sizes, and what they make of failures."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.helpers.made_scores import random_scores
from vsn.bench.subjects import read_subjects
from vsn.config import BenchConfig, ModelConfig
from vsn.data.video import open_video
from vsn.scores.fuse import fuse_scores
from vsn.scores.metrics import summarize

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CPU = torch.device("cpu")


def script(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__(name)


# --- stream.py -------------------------------------------------------------------------------------


def test_what_streams_reuse_at_tiny_size(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    stream, tables = script(monkeypatch, "stream"), script(monkeypatch, "tables")
    out, order = tmp_path / "stream.json", ("shift and shuffle", "shuffle in res5", "none (TSN)")
    stream.main([
        str(out), "--models", "vsn_resnet14_tiny", "--size", "32", "--num-frames", "4", "--strides", "1",
        "--rounds", "3", "--placements", *order,
    ])  # fmt: skip
    facts = json.loads(out.read_text())
    assert facts["command"].startswith("python benchmarks/stream.py stream.json --models vsn_resnet14_tiny")
    # The later the first temporal operation, the more is kept; of TSN all but the classifier, for three of four frames.
    saved = [row["saved_multiply_adds"] for row in facts["rows"]]
    assert [row["placement"] for row in facts["rows"]] == list(order)
    assert saved == sorted(saved)
    assert 0.65 < saved[-1] < 0.75
    assert all(row["bit_equal_to_the_same_parts"] for row in facts["rows"])
    assert all(row["largest_difference_to_forward"] < 1e-4 for row in facts["rows"])
    assert tables.stream_table(facts["rows"]) in capsys.readouterr().out


# --- imports.py ------------------------------------------------------------------------------------


def test_starts_of_environments_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    imports = script(monkeypatch, "imports")
    monkeypatch.setattr(imports, "STARTS", {"python": ["-c", "pass"]})
    monkeypatch.setattr(imports, "DESCRIBE", "print('{\"extras\": []}')")
    out, python = tmp_path / "import.json", sys.executable
    monkeypatch.setattr(sys, "argv", ["", str(out), f"a={python}", f"b={python}", "--rounds", "3"])
    imports.main()
    facts = json.loads(out.read_text())
    assert facts["command"] == "python benchmarks/imports.py results/import.json a=PYTHON b=PYTHON --rounds 3"
    for one in facts["environments"].values():
        row = one["starts"]["python"]
        assert len(row["seconds"]) == len(row["cpu_seconds"]) == 3
        assert row["median"] == sorted(row["seconds"])[1]
    assert "vsn" in [row["module"] for row in imports.heaviest(python, 1000)]


# --- ops.py ----------------------------------------------------------------------------------------


def test_places_are_those_of_resnet50(monkeypatch: pytest.MonkeyPatch):
    ops = script(monkeypatch, "ops")
    found = ops.places_in(ModelConfig(name="vsn_resnet50", num_classes=2), 224)
    assert {place: count for place, count in found.items() if place.operation == "video_shuffle"} == {
        ops.Place("video_shuffle", shape): 1 for shape in ((64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7))
    }
    # 16 blocks, 4 of them shuffle blocks; a shift stands before conv1, so at the shape that enters the block.
    assert {place.shape: count for place, count in found.items() if place.operation == "temporal_shift"} == {
        (64, 56, 56): 1, (256, 56, 56): 2, (512, 28, 28): 3, (1024, 14, 14): 5, (2048, 7, 7): 1,
    }  # fmt: skip


def test_only_the_largest_place_of_each_operation_is_compiled(monkeypatch: pytest.MonkeyPatch):
    ops = script(monkeypatch, "ops")
    places = [ops.Place("video_shuffle", (4, 2, 2)), ops.Place("video_shuffle", (8, 2, 2))]
    cases = ops.list_cases(places, (1, 16), ("fp32", "bf16"), ("eager", "compile"))
    assert len([case for case in cases if case.mode == "eager"]) == 2 * 2 * 2 * 2 * 2
    assert {case.place for case in cases if case.mode == "compile"} == {places[1]}


@pytest.mark.parametrize("direction", ["forward", "forward and backward"])
def test_bytes_and_bandwidth_of_a_case_by_hand(monkeypatch: pytest.MonkeyPatch, direction: str):
    ops = script(monkeypatch, "ops")
    monkeypatch.setattr(ops, "time_rounds", lambda calls, *_, **__: {name: [0.5, 1.0, 2.0] for name in calls})
    case = ops.Case(ops.Place("temporal_shift", (16, 4, 4)), 2, "bf16", "channels-last", direction, "eager")
    row = ops.measure_case(case, 8, CPU, rounds=3, seconds=0, min_ms=1.0)
    moved = 2 * (2 * 8 * 16 * 4 * 4) * 2 * (2 if direction != "forward" else 1)
    assert row["shape"] == [16, 16, 4, 4]
    assert row["bytes_moved_at_least"] == moved
    assert row["microseconds"]["median"] == 500  # a median of 1 ms for the 2 calls that 0.5 ms let fit
    assert row["gigabytes_per_second"] == pytest.approx(moved / 500e-6 / 1e9)
    assert row["share_of_copy_bandwidth"]["ratio"] == 1


def test_every_case_of_the_operations_is_measured(monkeypatch: pytest.MonkeyPatch):
    ops = script(monkeypatch, "ops")
    rows = ops.measure_operations(
        device=CPU, batches=(1,), dtypes=("fp32",), modes=("eager",), seconds=60, backbone="resnet14_tiny", size=32,
        rounds=3,
    )  # fmt: skip
    places = ops.places_in(ModelConfig(name="vsn_resnet14_tiny", num_classes=2), 32)
    assert len(rows) == 2 * 2 * len(places)  # both formats, both directions
    assert sum(row["times_in_network"] for row in rows) == 4 * places.total()
    assert [row for row in rows if "error" in row] == []


def test_cases_without_time_say_so(monkeypatch: pytest.MonkeyPatch):
    ops = script(monkeypatch, "ops")
    rows = ops.measure_operations(device=CPU, seconds=0.0, backbone="resnet14_tiny", size=32)
    assert {row["error"] for row in rows} == {"no time left"}


def test_networks_differ_in_the_operations_alone(monkeypatch: pytest.MonkeyPatch):
    ops = script(monkeypatch, "ops")
    subjects = ops.networks("resnet50", size=224)
    assert [subject.label for subject in subjects] == ["TSN", "TSM", "VSN, shuffle only", "VSN"]
    placed = [sorted({place.operation for place in ops.places_in(subject.config, 64)}) for subject in subjects]
    assert placed == [[], ["temporal_shift"], ["video_shuffle"], ["temporal_shift", "video_shuffle"]]


# --- cpu_inference.py ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return script(patch, "cpu_inference").write_one_second(tmp_path_factory.mktemp("video") / "second.mp4")


def test_a_second_of_video_to_its_label(monkeypatch: pytest.MonkeyPatch, video: Path):
    cpu_inference = script(monkeypatch, "cpu_inference")
    info = open_video(video).metadata
    assert (info.num_frames, info.frames_per_second, info.height, info.width) == (30, 30, 480, 640)
    config = BenchConfig(dtypes=("fp32", "bf16"), size=32, num_frames=4, num_classes=3, device="cpu")
    [subject] = read_subjects(["vsn_resnet14_tiny"], config)
    rows = cpu_inference.measure(subject, video, config, Console(quiet=True), rounds=3, seconds=1)
    assert [row["variant"] for row in rows] == ["torch eager fp32 contiguous", "torch eager bf16 contiguous"]
    for row in rows:
        assert row["rounds"] == 3
        assert row["end_to_end_ms"]["median"] > row["network_ms"]["median"]
    assert rows[0]["speed_to_first"]["ratio"] == 1


def test_a_way_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, video: Path):
    cpu_inference = script(monkeypatch, "cpu_inference")

    def fails(*_: Any) -> None:
        raise RuntimeError("no such\nkernel")

    usual = cpu_inference.RUNTIMES["torch"]
    monkeypatch.setitem(
        cpu_inference.RUNTIMES,
        "torch",
        lambda model, config, clips, variant, device: (fails if variant.dtype == "bf16" else usual)(
            model, config, clips, variant, device
        ),
    )
    config = BenchConfig(dtypes=("fp32", "bf16"), size=32, num_frames=4, num_classes=3, device="cpu")
    [subject] = read_subjects(["vsn_resnet14_tiny"], config)
    good, bad = cpu_inference.measure(subject, video, config, Console(quiet=True), rounds=3, seconds=1)
    assert bad["error"] == "RuntimeError: no such kernel"
    assert good["rounds"] == 3


# --- gpu_suite.py ----------------------------------------------------------------------------------

STUB = """
import signal, sys, time
part, out = sys.argv[1], sys.argv[3]
if part == "tests":
    open(out, "w").write("{}")
elif part == "operations":
    raise RuntimeError("no kernel for this card")
elif part == "table6":  # slow, but it listens
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        open(out, "w").write("{}")
else:  # hangs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        time.sleep(1)
"""


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """`gpu_suite` with parts that take no time, and seconds that are short."""
    found = script(monkeypatch, "gpu_suite")
    (tmp_path / "gpu_parts.py").write_text(STUB)
    monkeypatch.setattr(found, "__file__", str(tmp_path / "gpu_suite.py"))
    monkeypatch.setattr(found, "GRACE_SECONDS", 1.0)
    return found


def test_parts_that_fail_or_hang_are_recorded_and_the_rest_goes_on(
    suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(suite, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(suite, "PARTS", {"tests": 9.0, "operations": 9.0, "table6": 1.0, "networks": 1.0})
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["gpu_suite.py", "--out", str(out), "--minutes", "0.15"])
    with pytest.raises(SystemExit, match="failed: operations, networks"):
        suite.main()
    summary = json.loads((out / "summary.json").read_text())
    parts = summary["parts"]
    assert [part["ok"] for part in parts.values()] == [True, False, True, False]
    assert "no kernel for this card" in parts["operations"]["output"]
    assert "Traceback" in parts["operations"]["output"]
    assert parts["table6"]["stopped_by_time"]
    assert "killed after" in parts["networks"]["failed"]
    assert [part["file"] for part in parts.values()] == ["tests.json", None, "table6.json", None]
    assert {"command", "date", "system"} <= summary.keys()


def test_a_part_without_time_is_not_begun(suite: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(sys, "argv", ["gpu_suite.py", "--out", str(tmp_path), "--minutes", "0", "--parts", "flow"])
    with pytest.raises(SystemExit, match="failed: flow"):
        suite.main()
    [part] = json.loads((tmp_path / "summary.json").read_text())["parts"].values()
    assert part["failed"].startswith("no time left")


@pytest.mark.parametrize(
    ("gpu", "dtype", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989),
        ("NVIDIA H100 PCIe", "bf16", 756),
        ("NVIDIA A100-SXM4-80GB", "fp32", 156),  # in TF32
        ("Tesla P100-PCIE-16GB", "fp32", 9.3),
        ("Tesla P100-PCIE-16GB", "bf16", None),
        ("NVIDIA A10", "bf16", 125),
        ("Some other card", "bf16", None),
        (None, "bf16", None),
    ],
)
def test_peak_of_known_cards(monkeypatch: pytest.MonkeyPatch, gpu: str | None, dtype: str, tflops: float | None):
    parts = script(monkeypatch, "gpu_parts")
    found = parts.peak_flops(gpu, dtype)
    assert found == (None if tflops is None else pytest.approx(1e12 * tflops))


def test_each_part_has_a_share_of_the_time(monkeypatch: pytest.MonkeyPatch):
    assert list(script(monkeypatch, "gpu_suite").PARTS) == list(script(monkeypatch, "gpu_parts").PARTS)


def test_errors_of_rows_fail_a_part(monkeypatch: pytest.MonkeyPatch):
    errors_of = script(monkeypatch, "gpu_parts").errors_of
    rows = [{"model": "a", "errors": {"latency": "no kernel"}}, {"error": "no time left"}, {"error": "no memory"}]
    assert errors_of({"eager": {"rows": rows}, "compile": {"error": "no time was left"}}) == ["no kernel", "no memory"]
    assert errors_of({"rows": [{"errors": {}, "median": 1.0}], "failed": ["a test"]}) == []


def test_a_table_of_the_suite_at_tiny_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    parts = script(monkeypatch, "gpu_parts")
    # A clock that goes by how often it is asked, so that a busy machine has as much time as an idle one.
    clock = itertools.count()
    monkeypatch.setattr(parts, "time", SimpleNamespace(perf_counter=lambda: next(clock) / 20))
    saved: list[int] = []
    task = parts.Task(CPU, 2.0, True, tmp_path, lambda facts: saved.append(len(facts["rows"])))
    rows = parts.training_speed(task)["rows"]
    assert [row["model"][:3] for row in rows] == ["tsn", "tsm", "vsn"]
    assert [row.get("error") for row in rows] == [None] * 3
    assert saved == [1, 2, 3]  # after each, for fear of being ended
    # 3 passes, 2 operations a multiply-add.
    needed = 6 * parts.count_multiply_adds(ModelConfig(name=rows[0]["model"], num_classes=174), size=32)
    assert rows[0]["tflops"] == pytest.approx(rows[0]["videos_per_second"]["median"] * needed / 1e12)
    found = parts.flow(task)
    assert found["mean_pixels_apart"] == 0
    assert all(np.isfinite(row["fields_per_second"]["median"]) for row in found["rows"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_suite_at_tiny_size(tmp_path: Path):
    command = [sys.executable, str(BENCHMARKS / "gpu_suite.py"), "--out", str(tmp_path), "--minutes", "1", "--tiny"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=890)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    files = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in summary["parts"]}
    assert all(part["ok"] for part in summary["parts"].values())
    assert all({"date", "versions", "device"} <= facts.keys() for facts in files.values())
    assert files["tests"]["counts"]["passed"] > 10
    assert files["training"]["metrics"][0]["epoch"] == 1


# --- two_streams.py --------------------------------------------------------------------------------


def test_two_streams_in_the_layout_of_table_2(monkeypatch: pytest.MonkeyPatch):
    two_streams, tables = script(monkeypatch, "two_streams"), script(monkeypatch, "tables")
    costs = {"num_frames": 8, "parameters": 890_000, "multiply_adds": 101_000_000}
    inputs = [random_scores(seed, **costs) for seed in (1, 2)]
    found = dict(zip((Path("rgb"), Path("flow")), inputs, strict=True))
    monkeypatch.setattr(
        two_streams,
        "stream",
        lambda path: {
            "run": path.name,
            "recipe": {"train": {"seed": 3}, "model": {"modality": path.name, "flow_length": 5}},
        },
    )
    monkeypatch.setattr(two_streams, "load_scores", lambda path: found[path.parents[1]])
    pair = two_streams.fuse_streams("clips", [Path("rgb"), Path("flow")])
    rgb, flow, both = tables.streams_table([pair]).splitlines()[2:]
    fused = summarize(fuse_scores(inputs)).top1
    assert rgb.startswith(f"| clips, fcn, seed 3 | RGB | 8 | 0.89M | 0.101G | {summarize(inputs[0]).top1:.1%} | ")
    assert flow.startswith("| clips, fcn, seed 3 | flow, 5 fields | 8 | 0.89M | 0.101G | ")
    assert both.startswith(f"| clips, fcn, seed 3 | fused | 8+8 | 1.78M | 0.202G | {fused:.1%} | ")
    best = max(summarize(one).top1 for one in inputs)
    assert f"| {100 * (fused - best):+.1f} (" in both


# --- allocator.py ----------------------------------------------------------------------------------


def test_steps_with_freed_memory_kept_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    allocator = script(monkeypatch, "allocator")
    case = "train vsn_resnet26_thin"
    asked: list[bool] = []

    def apart(what: str, steps: int, kept: bool) -> dict[str, float]:
        assert (what, steps) == (case, 2)
        asked.append(kept)
        return {"seconds": 1.0 if kept else 2.0, "page_faults": 0 if kept else 9000}

    monkeypatch.setattr(allocator, "measure_in_process", apart)
    out = tmp_path / "a.json"
    monkeypatch.setattr(sys, "argv", ["allocator.py", str(out), "--rounds", "3", "--steps", "2", "--cases", case])
    allocator.main()
    (row,) = json.loads(out.read_text())["rows"]
    assert sorted(asked) == [False] * 3 + [True] * 3
    assert row["time_to_given_back"]["ratio"] == 0.5
    assert row["page_faults_a_step"] == {"given_back": 9000, "kept": 0}
    found = allocator.measure("train tsn_resnet26_thin", 1)
    assert found["seconds"] > 0
