import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from vsn.bench import run as bench_run
from vsn.bench.memory import cpu_peak_bytes, weight_bytes
from vsn.bench.plot import check_plot, draw, make_points, write_plot
from vsn.bench.results import BenchError, BenchResults, BenchRow, paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.bench.run import run_bench
from vsn.bench.runtimes import Variant, list_variants, prepare_exported, prepare_torch
from vsn.bench.subjects import pick_baseline, protocol_costs, read_subjects
from vsn.bench.tables import PAPER_TABLE_6, print_table
from vsn.config import BenchConfig, ConfigError
from vsn.config.bench import paper_input
from vsn.models import create_model
from vsn.models.measure import count_multiply_adds
from vsn.runs.results import EvalResult
from vsn.scores.intervals import median_interval
from vsn.system.interrupt import StopRequest
from vsn.system.load import CpuLoad
from vsn.system.numbers import short_count
from vsn.training.memory import to_channels_last

CPU = torch.device("cpu")
TINY = ("vsn_resnet14_tiny", "tsn_resnet14_tiny")
SMALL = BenchConfig(size=32, num_classes=5, num_frames=4, batches=3, warmup=1, batch_size=2, device="cpu")


def settings(**changed: Any) -> BenchConfig:
    return BenchConfig(**{**vars(SMALL), **changed})


@pytest.fixture(scope="module")
def results() -> BenchResults:
    found = run_bench(TINY, settings(dtypes=("fp32", "bf16")), command="vsn bench", progress=False)
    return replace(found, cpu_load={"latency": CpuLoad(cores=2, others=0.0), "throughput": None})  # as if it were alone


# --- rounds and ratios -----------------------------------------------------------------------------


def test_every_round_calls_each_once_in_an_order_of_its_own():
    seen: list[str] = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    found = time_rounds(calls, CPU, rounds=40, seed=1, progress=False)
    rounds = [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)]
    assert {name: len(values) for name, values in found.items()} == {"a": 40, "b": 40, "c": 40}
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) == 6  # all orders come
    seen.clear()
    time_rounds(calls, CPU, rounds=40, seed=1, progress=False)
    assert [tuple(seen[i : i + 3]) for i in range(0, len(seen), 3)] == rounds


def test_time_that_is_up_ends_after_three_rounds():
    assert len(time_rounds({"a": lambda: None}, CPU, rounds=99, seconds=1e-9, progress=False)["a"]) == 3


def test_a_round_that_was_stopped_is_left_out():
    stop, seen = StopRequest(), []

    def call() -> None:
        seen.append(None)
        stop.requested = len(seen) == 5

    found = time_rounds({"a": call, "b": call}, CPU, rounds=9, stop=stop, progress=False)
    assert len(seen) == 5
    assert [len(found["a"]), len(found["b"])] == [2, 2]


def test_spread_of_known_values():
    assert spread(range(1, 102)) == {"median": 51, "p10": 11, "p90": 91}


def test_a_machine_that_drifts_changes_times_and_no_ratio():
    drift = np.linspace(1, 5, 50)
    found = paired_ratio(list(2 * drift), list(drift))
    assert found["ratio"] == pytest.approx(2)
    assert found["interval"] == pytest.approx([2, 2])


def test_interval_of_a_ratio_is_that_of_the_median_of_ratios():
    generator = np.random.default_rng(5)
    base = generator.uniform(1, 2, 30)
    times = base * generator.lognormal(0.1, 0.2, 30)
    found = paired_ratio(list(times), list(base))
    assert found["interval"] == pytest.approx(median_interval((times / base).tolist()))
    assert found["interval"][0] < found["ratio"] < found["interval"][1]


def test_seven_rounds_are_enough_for_an_interval():
    """The percentile bootstrap of before had the true median in 88% of cases."""
    ratios = np.random.default_rng(0).normal(size=(1000, 7)) + 10
    inside = [low <= 10 <= high for low, high in (paired_ratio(list(row), [1.0] * 7)["interval"] for row in ratios)]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_both_ratios_agree_unless_the_machine_changed():
    # It became four times as fast after the second round, in which the first of two equal models was measured late.
    times, base = [400.0, 400.0, 100.0, 100.0, 100.0], [400.0, 400.0, 400.0, 100.0, 100.0]
    found = paired_ratio(times, base)
    assert (found["ratio"], found["ratio_of_medians"]) == (1, 0.25)


def test_ratios_need_the_same_rounds():
    with pytest.raises(ValueError, match="2 and 1"):
        paired_ratio([1.0, 2.0], [1.0])


# --- what is measured ------------------------------------------------------------------------------


def test_input_of_models_is_the_papers_unless_it_is_stated():
    config = BenchConfig()
    [tsn, stated, clips] = read_subjects(["tsn_resnet18", "tsn_resnet18@16", "vsn_resnet18@4x3"], config)
    assert [(s.config.num_frames, s.num_clips, s.size) for s in (tsn, stated, clips)] == [
        (8, 1, 224), (16, 1, 224), (4, 3, 224),
    ]  # fmt: skip
    assert clips.clips(2, seed=0).shape == (6, 4, 3, 224, 224)
    assert tsn.config.num_classes == 174


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "name models or run folders"),
        (["tsn_resnet18", "tsn_resnet18"], "tsn_resnet18 is named twice"),
        (["runs/none"], "'runs/none'"),
        (["tsn_nothing"], "'tsn_nothing'.*nothing"),
        (["tsn_resnet18@8x0"], "@8x0.*0 clips"),
    ],
)
def test_subjects_that_cannot_be(names: list[str], message: str):
    with pytest.raises(BenchError, match=message):
        read_subjects(names, BenchConfig())


def test_a_run_states_its_own_input(finished_run: Path):
    [run] = read_subjects([str(finished_run)], BenchConfig())
    assert (run.config.name, run.config.num_frames, run.size) == ("vsn_resnet14_tiny", 4, 32)
    assert run.config.num_classes == 3
    with pytest.raises(BenchError, match=r"T=4.*--num-frames 8"):
        read_subjects([str(finished_run)], BenchConfig(num_frames=8))


def test_runs_of_one_name_in_two_places_go_by_their_paths(finished_run: Path, tmp_path: Path):
    twin = shutil.copytree(finished_run, tmp_path / finished_run.name)
    found = read_subjects([str(finished_run), str(twin)], BenchConfig())
    assert [one.label for one in found] == [str(finished_run), str(twin)]
    with pytest.raises(BenchError, match="is named twice"):
        read_subjects([str(twin), str(twin)], BenchConfig())


def test_multiply_adds_of_protocols(finished_run: Path):
    [run] = read_subjects([str(finished_run)], BenchConfig())
    small, large = (count_multiply_adds(run.config, size=size) for size in (32, 36))
    assert protocol_costs(run) == {
        "center": small, "3crop": 3 * large, "3crop-2clip": 6 * large, "10crop": 10 * small,
        "dense-10clip-3crop": 30 * large,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "asked", "expected"),
    [
        (TINY, "", "tsn_resnet14_tiny"),
        (TINY, "vsn_resnet14_tiny", "vsn_resnet14_tiny"),
        (("vsn_resnet14_tiny", "tsm_resnet14_tiny"), "", "vsn_resnet14_tiny"),
    ],
)
def test_baseline(names: tuple[str, ...], asked: str, expected: str):
    assert pick_baseline(read_subjects(names, SMALL), asked) == expected


def test_a_baseline_that_is_not_measured():
    with pytest.raises(BenchError, match=r"'eco'.*vsn_resnet14_tiny"):
        pick_baseline(read_subjects(TINY, SMALL), "eco")


# --- variants --------------------------------------------------------------------------------------


def test_variants_are_all_combinations():
    config = BenchConfig(modes=("eager", "compile"), formats=("contiguous", "channels-last"), dtypes=("fp32", "bf16"))
    found = list_variants(config)
    assert len({str(one) for one in found}) == len(found) == 8
    assert str(found[0]) == "torch eager fp32 contiguous"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"modes": ()}, r"bench modes .*\[\]"),
        ({"dtypes": ("fp32", "fp32")}, "bench dtypes "),
        ({"runtimes": ("tensorrt",)}, "bench runtimes .*'onnxruntime', 'openvino'"),
        ({"batches": -1}, r"bench batches.*-1"),
        ({"warmup": 0}, r"bench warmup.*0"),
        ({"seconds": -2.0}, r"bench seconds.*-2"),
        ({"max_busy": 1.5}, r"bench max_busy.*1\.5"),
    ],
)
def test_settings_that_cannot_be(changed: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        BenchConfig(**changed)


@pytest.mark.parametrize("form", ["contiguous", "channels-last"])
@pytest.mark.parametrize("mode", ["eager", pytest.param("compile", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-6), ("bf16", 2e-3)])
def test_every_variant_computes_the_model(form: Any, mode: Any, dtype: Any, tolerance: float):
    torch.manual_seed(0)
    model = create_model("vsn_resnet14_tiny", num_classes=5, num_frames=4).eval()
    [subject] = read_subjects(TINY[:1], SMALL)
    clips = subject.clips(2, seed=0)
    variant = Variant(mode=mode, dtype=dtype, format=form)
    with torch.inference_mode():
        expected = model(clips)
    found = prepare_torch(model, subject.config, clips, variant, CPU)(clips)
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=0)
    assert next(model.parameters()).dtype == torch.float32  # the model itself stays as it was


@pytest.mark.parametrize(
    "runtime",
    [
        pytest.param("onnxruntime", marks=pytest.mark.needs("onnxruntime")),
        pytest.param("openvino", marks=[pytest.mark.slow, pytest.mark.needs("openvino")]),
        pytest.param("executorch", marks=[pytest.mark.slow, pytest.mark.needs("executorch")]),
        pytest.param("litert", marks=[pytest.mark.slow, pytest.mark.needs("litert")]),
    ],
)
def test_exported_runtimes_compute_the_model(runtime: Any):
    pytest.importorskip("onnxscript")
    [subject] = read_subjects(TINY[:1], SMALL)
    model, clips = subject.build(0), subject.clips(2, seed=0)
    found = prepare_exported(model, subject.config, clips, Variant(runtime=runtime), CPU)(clips)
    with torch.inference_mode():
        torch.testing.assert_close(torch.from_numpy(found), model(clips), atol=1e-5, rtol=0)
    with pytest.raises(BenchError, match=f"{runtime}.*--device cpu"):
        prepare_exported(model, subject.config, clips, Variant(runtime=runtime), torch.device("cuda"))


def test_exported_runtimes_are_asked_for_what_they_can():
    config = BenchConfig(runtimes=("torch", "onnxruntime", "openvino"), dtypes=("fp32", "bf16", "int8"))
    assert [str(one) for one in list_variants(config)] == [
        "torch eager fp32 contiguous", "torch eager bf16 contiguous", "onnxruntime fp32", "onnxruntime int8",
        "openvino fp32", "openvino bf16", "openvino int8",
    ]  # fmt: skip
    with pytest.raises(BenchError, match=r"--dtypes is bf16; onnxruntime.*fp32, int8"):
        list_variants(BenchConfig(runtimes=("onnxruntime",), dtypes=("bf16",)))


def test_channels_last_of_2d_and_3d_weights():
    model = torch.nn.Sequential(torch.nn.Conv2d(4, 6, 3), torch.nn.Conv3d(4, 6, 3), torch.nn.Linear(4, 4))
    before = [parameter.clone() for parameter in model.parameters()]
    to_channels_last(model, volumes=True)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


# --- the measurement -------------------------------------------------------------------------------


def test_json(results: BenchResults):
    assert all(row.infer is None for row in results.rows)  # results keep no model in memory
    values = json.loads(json.dumps(results.to_json()))
    assert list(values) == [
        "command", "date", "versions", "device", "load_average", "cpu_load", "threads", "settings", "baseline",
        "interrupted", "rows", "too_busy",
    ]  # fmt: skip
    rows = values["rows"]
    assert list(rows[0]) == [
        "label", "model", "run", "num_frames", "num_clips", "size", "runtime", "dtype", "mode", "format", "parameters",
        "multiply_adds", "multiply_adds_of_video", "multiply_adds_of_protocols", "evaluations", "latency", "throughput",
        "peak_bytes", "errors",
    ]  # fmt: skip
    assert [(row["label"], row["dtype"]) for row in rows] == [
        (name, dtype) for name in TINY for dtype in ("fp32", "bf16")
    ]
    assert values["baseline"] == "tsn_resnet14_tiny"
    assert len({row["multiply_adds"] for row in rows}) == len({row["parameters"] for row in rows}) == 1
    for row in rows:
        assert row["errors"] == {}
        assert (row["latency"]["batch_size"], row["throughput"]["batch_size"]) == (1, 2)
        assert row["latency"]["rounds"] == row["throughput"]["rounds"] == 3
        assert row["latency"]["p10"] <= row["latency"]["median"] <= row["latency"]["p90"]
    assert rows[2]["latency"]["ratio"] == rows[2]["throughput"]["ratio"] == 1


def test_videos_a_second_and_ratios_by_hand(monkeypatch: pytest.MonkeyPatch):
    def made_up(calls: dict[str, Any], *_: Any, **__: Any) -> dict[str, list[float]]:
        return {key: [50.0, 100.0, 200.0] if key.startswith("vsn") else [25.0, 50.0, 50.0] for key in calls}

    monkeypatch.setattr(bench_run, "time_rounds", made_up)
    vsn, tsn = run_bench(TINY, SMALL, progress=False).rows
    assert vsn.latency.spread["median"] == 100
    assert vsn.latency.to_baseline["ratio"] == vsn.latency.to_baseline["ratio_of_medians"] == 2  # of 2, 2 and 4
    assert vsn.throughput.spread["median"] == 20  # 2 videos in 100 ms
    assert vsn.throughput.to_baseline["ratio"] == 0.5
    assert tsn.throughput.spread["median"] == 40


def test_clips_of_a_video_count_as_one_video(monkeypatch: pytest.MonkeyPatch):
    shapes: list[torch.Size] = []

    def prepare(model: Any, config: Any, clips: Any, variant: Any, device: Any) -> Callable[[Any], None]:
        return lambda clips: shapes.append(clips.shape)

    monkeypatch.setitem(bench_run.RUNTIMES, "torch", prepare)
    [row] = run_bench(["tsn_resnet14_tiny@4x2"], SMALL, progress=False).rows
    assert {shape[0] for shape in shapes} == {2, 4}  # 1 and 2 videos of 2 clips
    assert row.multiply_adds_of_video == 2 * row.multiply_adds


def test_one_that_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch):
    usual = bench_run.RUNTIMES["torch"]

    def prepare(model: Any, config: Any, clips: Any, variant: Variant, device: Any) -> Callable[[Any], object]:
        if config.name.startswith("vsn"):
            raise torch.OutOfMemoryError("CUDA out of memory\n  tried to allocate")
        return usual(model, config, clips, variant, device)

    monkeypatch.setitem(bench_run.RUNTIMES, "torch", prepare)
    console = Console(record=True, width=200, file=open(os.devnull, "w"))  # noqa: SIM115
    vsn, tsn = run_bench(TINY, SMALL, console=console, progress=False).rows
    console.file.close()
    assert vsn.errors == {"prepare": "OutOfMemoryError: CUDA out of memory tried to allocate"}
    assert vsn.latency is None
    assert tsn.latency.rounds == 3
    assert "vsn_resnet14_tiny, torch eager fp32 contiguous: prepare" in console.export_text()
    with pytest.raises(RuntimeError, match=r"vsn_resnet14_tiny.*OutOfMemoryError"):
        run_bench(TINY[:1], SMALL, console=Console(quiet=True), progress=False)


def test_ctrl_c_keeps_whole_rounds(monkeypatch: pytest.MonkeyPatch):
    num_calls = 0

    def prepare(model: Any, config: Any, clips: Any, variant: Any, device: Any) -> Callable[[Any], None]:
        def infer(clips: torch.Tensor) -> None:
            nonlocal num_calls
            num_calls += 1
            if num_calls == 2 + 5:  # after the warm-up of both
                os.kill(os.getpid(), signal.SIGINT)

        return infer

    monkeypatch.setitem(bench_run.RUNTIMES, "torch", prepare)
    found = run_bench(TINY, settings(batches=50), progress=False)
    assert found.interrupted
    assert [row.latency.rounds for row in found.rows] == [2, 2]
    assert [row.throughput for row in found.rows] == [None, None]


def test_threads_and_cudnn_are_as_before(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def made_up(calls: dict[str, Any], *_: Any, **__: Any) -> dict[str, list[float]]:
        seen.append(torch.get_num_threads())
        return {key: [1.0] for key in calls}

    monkeypatch.setattr(bench_run, "time_rounds", made_up)
    before = torch.get_num_threads()
    run_bench(TINY[:1], settings(threads=before + 1), progress=False)
    assert seen == [before + 1, before + 1]
    assert torch.get_num_threads() == before


def test_random_weights_and_clips_come_from_the_seed():
    [subject] = read_subjects(TINY[:1], SMALL)
    state = torch.get_rng_state()
    first, again, other = (subject.build(seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(subject.clips(1, 1), subject.clips(1, 1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the system tells no peak")
def test_peak_memory_on_a_cpu():
    config = settings(size=64, threads=1)
    [subject] = read_subjects(TINY[:1], config)
    peak = cpu_peak_bytes(subject, config, Variant(mode="eager", format="contiguous"), 64)
    # 64 clips of 4 frames are 12.6 MB of fp32 after normalization; a frame in bytes stays, and is not counted.
    weights = weight_bytes(subject.build(0))
    assert weights + 2 * 12.5e6 < peak < weights + 20 * 12.6e6


# --- tables and plots ------------------------------------------------------------------------------


def printed(results: BenchResults, width: int) -> str:
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=width, file=nowhere, force_terminal=True)
        print_table(results, console)
        return console.export_text()


def with_subject(row: BenchRow, **changed: Any) -> BenchRow:
    return replace(row, subject=replace(row.subject, **changed))


def test_table_has_the_papers_figures_beside_ours(results: BenchResults):
    def as_in_paper(row: BenchRow, size: int) -> BenchRow:
        name = row.subject.config.name.replace("resnet14_tiny", "resnet50")
        return with_subject(row, config=replace(row.subject.config, name=name, num_frames=8), size=size)

    rows = [as_in_paper(row, 224) for row in results.rows]
    latency = replace(
        rows[0].latency,
        spread={"median": 12.34, "p10": 11.11, "p90": 15.55},
        to_baseline={"ratio": 1.07, "interval": [1.05, 1.08], "ratio_of_medians": 1.06},
    )
    rows[0] = replace(rows[0], latency=latency, throughput=None, errors={"throughput": "OutOfMemoryError"})
    text = printed(replace(results, rows=rows), 80)
    assert max(map(len, text.splitlines())) <= 80
    sizes, latencies, throughputs, *_ = (
        line.split()[1:] for line in text.splitlines() if line.startswith("vsn_resnet14_tiny ")
    )
    assert sizes == ["8x224", short_count(rows[0].parameters), short_count(rows[0].multiply_adds)]
    assert latencies == ["12.3", "11.1-15.6", "1.07", "1.05-1.08", "1.06", "16.5"]
    assert throughputs == ["failed", "79.5"]
    assert "P100" in text
    assert "latency of one video, torch eager bf16 contiguous" in text
    assert "P100" not in printed(results, 160)  # none of the paper's models
    other_size = [as_in_paper(row, 112) for row in results.rows]
    assert "P100" not in printed(replace(results, rows=other_size), 160)


def test_a_stopped_measurement_says_how_far_it_came(results: BenchResults):
    assert "3 of 3 rounds" in printed(replace(results, interrupted=True), 100)


@pytest.mark.parametrize("width", [80, 120])
def test_no_word_or_number_breaks(results: BenchResults, width: int):
    row = with_subject(results.rows[0], config=replace(results.rows[0].subject.config, name="i3d-fine_resnet50"))
    slow = {"median": 4518.0, "p10": 4402.0, "p90": 4610.0}
    ratio = {"ratio": 11.93, "interval": [11.58, 12.15], "ratio_of_medians": 11.8}
    row = replace(row, latency=replace(row.latency, spread=slow, to_baseline=ratio), peak_bytes={"latency": 9 * 10**9})
    row = with_subject(row, label="i3d-fine_resnet50@32x2")
    text = printed(replace(results, rows=[row, *results.rows[1:]]), width)
    assert max(map(len, text.splitlines())) <= width
    line = next(line for line in text.splitlines() if "4518" in line)
    assert line.split() == ["i3d-fine_resnet50@32x2", "4518", "4402-4610", "11.93", "11.58-12.15", "11.80", "8583M"]


def test_table_says_when_its_numbers_are_weak(results: BenchResults):
    row = results.rows[0]
    ratio = {"ratio": 1.02, "interval": [0.85, 1.15], "ratio_of_medians": 0.92}
    row = replace(row, latency=replace(row.latency, rounds=20, to_baseline=ratio))
    weak = printed(replace(results, rows=[row]), 200)
    assert "1.02 by rounds but 0.92 by medians" in weak
    assert "6 or more" in weak  # of the throughput, 3 rounds
    strong = replace(row.latency, to_baseline=ratio | {"ratio_of_medians": 1.0})
    text = printed(replace(results, rows=[replace(row, latency=strong, throughput=None)]), 200)
    assert "by medians:" in text  # the legend
    assert "but" not in text
    assert "6 or more" not in text


def test_a_busy_machine_gives_no_result(results: BenchResults):
    busy = {"latency": CpuLoad(cores=2, others=1.0), "throughput": None}
    found = replace(results, cpu_load=busy, threads=2)
    assert found.too_busy == {"latency": 0.5}
    assert found.to_json()["too_busy"] == ["latency"]
    assert "NO RESULT" in printed(found, 80)
    assert "other processes used 1.0 of 2 cores" in printed(found, 200)
    accepted = replace(found, settings=replace(found.settings, max_busy=0.5))
    assert accepted.too_busy == {}
    assert "NO RESULT" not in printed(accepted, 80)
    assert replace(found, threads=1).too_busy == {}  # the other core was free


def test_paper_figures_are_those_of_the_paper():
    assert PAPER_TABLE_6["vsn_resnet50"] == (16.5, 79.5, 44.5)
    assert len(PAPER_TABLE_6) == 7
    assert paper_input("i3d-fine_resnet50") == (32, 2)
    assert paper_input("eco") == (16, 1)
    assert paper_input("vsn_resnet101") == paper_input("tsm_timm/resnet50d") == (8, 1)


@pytest.mark.parametrize(
    ("count", "text"), [(999, "999"), (24_300_000, "24.3M"), (33e9, "33.0G"), (306e9, "306G"), (1.2e12, "1.20T")]
)
def test_short_counts(count: float, text: str):
    assert short_count(count) == text


@pytest.fixture
def tested(results: BenchResults) -> BenchResults:
    """Seven runs that nearly coincide, so that their labels would, and one far away."""
    rows = []
    for number in range(8):
        top1 = 0.5 + number / 500 if number < 7 else 0.1
        test = EvalResult(split="test", protocol="fcn", order="forward", top1=top1, multiply_adds=33_000_000_000)
        row = with_subject(results.rows[0], label=f"a-run-of-number-{number}", evaluations=(test,))
        median = 10 + number / 50 if number < 7 else 30.0
        rows.append(replace(row, latency=replace(row.latency, spread=row.latency.spread | {"median": median})))
    return replace(results, rows=rows)


def test_labels_of_the_plot_do_not_overlap(tested: BenchResults):
    from matplotlib.text import Text

    figure = draw(make_points(tested, "latency"), "latency")
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    texts = figure.axes[0].texts
    assert sorted(text.get_text() for text in texts) == [f"a-run-of-number-{i}" for i in range(8)]
    boxes = [Text.get_window_extent(text, renderer) for text in texts]  # without the lines that lead there
    assert not [(i, j) for i in range(8) for j in range(i) if boxes[i].overlaps(boxes[j])]
    frame = figure.axes[0].get_window_extent(renderer)
    assert all(frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) for box in boxes)


def test_costs_and_accuracies_of_the_plot(tested: BenchResults):
    assert [point.cost for point in make_points(tested, "multiply-adds")] == [33.0] * 8
    third = make_points(tested, "latency")[2]
    assert (third.cost, third.top1, third.evaluation) == (10.04, pytest.approx(50.4), "test, fcn")


@pytest.mark.parametrize("name", ["plot.png", "plot.svg"])
def test_plot_is_written(tested: BenchResults, tmp_path: Path, name: str):
    head = write_plot(tested, tmp_path / name).read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if name.endswith("png") else b"<?xml" in head
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_plots_that_cannot_be(tmp_path: Path, results: BenchResults, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BenchError, match=r"'plot.jpg'.*\.png.*\.svg"):
        check_plot(Path("plot.jpg"), TINY)
    with pytest.raises(BenchError, match="vsn eval RUN"):
        check_plot(Path("plot.png"), TINY)
    with pytest.raises(BenchError, match="vsn eval RUN"):
        write_plot(results, tmp_path / "plot.png")
    monkeypatch.setattr("vsn.bench.plot.find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r"pip install .vsn-video\[plot\]"):
        check_plot(Path("plot.png"), TINY)
