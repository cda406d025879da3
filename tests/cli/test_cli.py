import json
import os
import re
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from tests.helpers.fake_runs import write_run
from tests.helpers.lookalikes import make_frame_folders
from tests.helpers.tiny_runs import tiny_recipe
from vsn import __version__, cli
from vsn.config import EvalConfig, Recipe
from vsn.config.recipes import dump_recipe, find_recipe, load_recipe
from vsn.data.open import open_split
from vsn.runs.run import open_run
from vsn.system.interrupt import Interrupted, StopRequest
from vsn.system.load import CpuLoad
from vsn.training.train import TrainingStopped

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vsn(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line; its exit status, output and errors. A message handed to SystemExit is an error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status, message = 0, ""
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            if isinstance(stop.code, str):
                status, message = 1, stop.code
            else:
                status = stop.code or 0
        out, err = capsys.readouterr()
        return status, out, err + message

    return run


def one_line(text: str) -> str:
    assert len(text.strip().splitlines()) == 1
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("command", ["--help", "predict --help"])
def test_help_in_a_narrow_terminal(command: str):
    """In a process of its own: without a bound it never ends."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_CPU, (20, 20))"
    code = f"{limit}; import sys; from vsn import cli; cli.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], env=os.environ | {"COLUMNS": "1"}, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    # Only the boxes are fitted to the width.
    assert {len(line) for line in done.stdout.splitlines() if line.startswith("│")} == {cli.MIN_COLUMNS}


def test_errors_of_the_operating_system_are_sentences(vsn: Run, tmp_path: Path):
    (tmp_path / "file").touch()
    status, _, err = vsn("demo", "--quick", "--out", tmp_path / "file" / "demo")
    assert status == 1
    assert "file/demo/videos cannot be used: Not a directory. A part of the path is a file" in one_line(err)
    assert "Errno" not in err


def test_models_on_timm_backbones(vsn: Run):
    pytest.importorskip("timm")
    assert vsn("models", "vsn_timm/resnet26d") == (0, "vsn_timm/resnet26d\n", "")
    assert "not listed; pass one name" in one_line(vsn("models", "vsn_timm/resnet*")[2])
    for name in ("vsn_timm/resnet26x", "van_timm/resnet26d", "vsn_timm/vit_tiny_patch16_224"):
        status, out, err = vsn("models", name)
        assert (status, out) == (1, "")
        assert "timm" in one_line(err)


def test_an_environment_without_utf_8(tmp_path: Path):
    """Names are escaped on the screen, and an error says how to read them."""
    run = write_run(tmp_path / "é" / "run", "tsn_resnet18", 0.5)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}

    def printed(*arguments: object) -> str:
        command = [sys.executable, "-m", "vsn", *map(str, arguments)]
        done = subprocess.run(command, env=os.environ | ascii_only, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    assert "tsn_resnet18" in printed("runs", run.parent)
    text = (run / "recipe.toml").read_text(encoding="utf-8")
    (run / "recipe.toml").write_text(text.replace('root = ""', f'root = "{tmp_path}/é"'), encoding="utf-8")
    assert "Set PYTHONUTF8=1" in one_line(printed("eval", run))


def commands(table: cli.Commands = cli.COMMANDS, group: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, entry in table.items():
        yield from commands(entry, (*group, name)) if isinstance(entry, Mapping) else [(*group, name)]


OPTIONS = {
    "train": ["RECIPE", "--out", "--init-from", "--resume", "vsn recipe show"],
    "train demo": ["--model.name", "--train.epochs", "--data.root", "--eval.protocol"],
    "ablate": [
        "--tables",
        "--grid",
        "--fuse",
        "--ensemble",
        "--seeds",
        "--backbones",
        "--dry-run",
        "--show",
        "--merge",
        "--json",
    ],
    "ablate demo": ["--model.name", "--train.epochs"],
    "eval": ["PATH", "--split", "--protocol", "--order", "--root", "--bad-videos", "--json"],
    "bench": ["--modes", "--runtimes", "--baseline", "--batches", "--json", "--plot", "Table 6"],
    "predict": ["PATH", "video files or folders", "--top-k", "--device", "--json", "--windows", "--truth", "--plot"],
    "stream": ["PATH", "STR", "--seconds", "--every", "--enter", "--calibration", "--fast", "--reconnects", "--video"],
    "export": ["PATH", "--to", "--out", "--int8", "--any-size", "--opset", "--check-accuracy", "--root", "--json"],
    "features": ["PATH", "--out", "--split", "--root", "--per-frame", "--protocol", "--bad-videos"],
    "convert": ["PATH", "--to", "--classes", "--class-order", "--num-frames", "--shift-div", "--json"],
    "fuse": ["--weights", "--search", "--logits", "--common", "--split", "--out", "--json"],
    "compare": ["PATH", "--common", "--all", "--json"],
    "submit": ["--for", "--labels", "--videos", "--answers", "--out"],
    "calibrate": ["--apply", "--precision", "--out", "--plot", "--json"],
    "hub push": ["PATH", "STR", "--license", "--private", "--weights"],
    "serve": ["PATH", "--host", "--port", "--weights", "--max-upload-mb", "--decode-seconds", "--max-requests"],
    "data pack": ["STR", "--out", "--short-side", "--quality", "--max-bad", "--verify"],
    "data doctor demo": ["--data.root", "--data.source"],
    "data synth": ["PATH", "--size", "--train-per-class", "--seed", "--workers"],
}


@pytest.mark.parametrize("line", sorted({" ".join(words) for words in commands()} | set(OPTIONS)))
def test_help(vsn: Run, line: str):
    status, out, err = vsn(*line.split(), "--help")
    assert (status, err) == (0, "")
    assert [word for word in OPTIONS.get(line, ["--help"]) if word not in out] == []


def test_help_lists_every_command(vsn: Run):
    out = vsn("--help")[1]
    for name in cli.COMMANDS:
        assert f" {name} " in out
    for group in ("data", "flow", "hub", "recipe"):
        page = vsn(group, "--help")[1]
        assert [name for name in cli.COMMANDS[group] if f" {name} " not in page] == []
    assert "vsn --version" in " ".join(out.split())


def test_no_arguments_show_the_help(vsn: Run):
    assert vsn() == vsn("--help")


def test_recipes(vsn: Run, tmp_path: Path):
    status, out, _ = vsn("recipe", "list")
    assert status == 0
    assert re.search(r"^  demo +The embedded data set", out, re.MULTILINE)
    status, out, _ = vsn("recipe", "show", "demo")
    assert status == 0
    header = find_recipe("demo").read_text().split("\n\n")[0]
    assert out.startswith(f"{header}\n\n[model]\n")
    (tmp_path / "r.toml").write_text(out)
    assert load_recipe(tmp_path / "r.toml") == load_recipe(find_recipe("demo"))
    assert vsn("recipe", "show", tmp_path / "r.toml")[1] == out


def test_models(vsn: Run):
    assert {"vsn_resnet50", "tsm_resnet50", "tsn_resnet14_tiny"} <= set(vsn("models")[1].split())


@pytest.fixture
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests run beside each other, which `vsn bench` would notice."""
    from vsn.bench import run as bench_run

    monkeypatch.setattr(bench_run.CpuMeter, "read", lambda self: None)


@pytest.mark.usefixtures("quiet_machine")
def test_bench(vsn: Run, tmp_path: Path):
    names = ("tsn_resnet14_tiny", "vsn_resnet14_tiny")
    options = ("--size", 32, "--batches", 3, "--batch-size", 0, "--device", "cpu", "--json", tmp_path / "costs.json")
    status, out, err = vsn("bench", *names, *options)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines() if "_tiny " in line][:2] == list(names)
    facts = json.loads((tmp_path / "costs.json").read_text())
    assert facts["command"].startswith("vsn bench tsn_resnet14_tiny vsn_resnet14_tiny --size 32")
    assert [row["latency"]["rounds"] for row in facts["rows"]] == [3, 3]


def test_bench_on_a_busy_machine_is_no_success(vsn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from vsn.bench import run as bench_run

    monkeypatch.setattr(bench_run.CpuMeter, "read", lambda self: CpuLoad(cores=2, others=2.0))
    options = ("--size", 32, "--batches", 3, "--batch-size", 0, "--device", "cpu", "--json", tmp_path / "costs.json")
    status, out, err = vsn("bench", "tsn_resnet14_tiny", *options)
    assert status == 1
    assert "other processes use 2.0 of 2 cores" in err.lower()  # before the measurement
    assert "NO RESULT" in out
    assert json.loads((tmp_path / "costs.json").read_text())["too_busy"] == ["latency"]
    assert vsn("bench", "tsn_resnet14_tiny", *options, "--max-busy", 1)[0] == 0


@pytest.mark.usefixtures("quiet_machine")
def test_bench_stopped_prints_and_writes_what_it_has(vsn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from vsn.bench import run as bench_run

    def stopped(calls: dict[str, object], *_: object, stop: StopRequest, **__: object) -> dict[str, list[float]]:
        stop.requested = True
        return {key: [7.25, 7.25] for key in calls}

    monkeypatch.setattr(bench_run, "time_rounds", stopped)
    options = ("--size", 32, "--device", "cpu", "--json", tmp_path / "costs.json")
    status, out, err = vsn("bench", "tsn_resnet14_tiny", *options)
    assert (status, err) == (130, "vsn: stopped\n")
    assert "7.2" in out
    assert "2 of 50 rounds" in out
    assert json.loads((tmp_path / "costs.json").read_text())["interrupted"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("[train]\nepoch = 3\n", "vsn: {path}: unknown setting 'train.epoch'; did you mean 'train.epochs'?"),
        ("[train]\nlr = 'x'\n", "vsn: {path}: train.lr is 'x'; it must be of type float."),
        ("[train\n", "vsn: {path} is not a TOML file"),
    ],
)
def test_bad_recipe(vsn: Run, tmp_path: Path, recipe: str, message: str):
    path = tmp_path / "r.toml"
    path.write_text(recipe)
    for arguments in (["train", path], ["recipe", "show", path]):
        status, out, err = vsn(*arguments)
        assert (status, out) == (1, "")
        assert one_line(err).startswith(message.format(path=path))


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("train demoo", "'demoo'.*'demo'"),
        ("train zzz", "'zzz'.*vsn recipe list"),
        ("train --resume none", "none is not a run folder"),
        ("train demo --resume none", "--resume.*recipe"),
        ("train --init-from none --resume none", "--resume.*--init-from"),
        ("train demo --init-from none", "--init-from"),
        ("train demo", "data.root is empty"),
        ("train demo --data.root none", "data.root is 'none'"),
        ("ablate", "recipe.*vsn ablate demo"),
        ("ablate demo", "--tables"),
        ("ablate demo --grid model.blok=x", "--grid model.blok=x: .*'model.blok'.*'model.block'"),
        ("ablate demo --fuse --tables 9", "--fuse.*--grid"),
        ("ablate demo --ensemble eco-en-lite --grid model.shift=true,false", "--ensemble.*--grid"),
        ("ablate demo --ensemble eco-en-lite", "'vsn_resnet26_thin'.*'eco_lite'"),
        ("ablate --merge a", "--merge needs --out"),
        ("ablate demo --show a.json", "--show.*recipe"),
        ("ablate --show a.json --train.epochs 3", "--show.*settings"),
        ("ablate --show a.json", "a.json"),
        ("bench", "vsn bench tsn_resnet50"),
        ("bench tsn_resnet18 --batches -3", "bench batches.*-3"),
        ("bench tsn_resnet18 --plot costs.png", "--plot.*vsn eval RUN"),
        ("bench no_such_model", "'no_such_model'"),
        ("eval none", "none is not a run folder"),
        ("eval .", "classes.json"),
        ("predict none a.mp4", "none is not a run folder"),
        ("predict none a.mp4 --top-k 0", "top_k|top-k"),
        ("predict none a.mp4 --every 2", "--every.*--windows"),
        ("predict none a.mp4 --windows --flow-run b", "--flow-run.*--windows"),
        ("predict a.onnx a.mp4 --flow-run b", "--flow-run.*a.onnx"),
        ("predict a.onnx a.mp4 --weights best", "--weights best.*a.onnx"),
        ("predict a.onnx a.mp4 --device cuda", "a.onnx does not exist"),
        ("predict none a.mp4 --precision bf16", "--precision bf16.*train.precision.*--to openvino"),
        ("predict none a.mp4 --windows --precision bf16", "--precision bf16"),
        ("predict none", "video files"),
        ("train", "--data.root clips.*recipe list"),
        ("folds", "--data.root clips.*recipe list"),
        ("train --init-from a", "--init-from.*recipe.*train finetune --init-from a"),
        ("stream none 0 --video a.avi", "--video is 'a.avi'.*mp4"),
        ("report none", "none is not a run folder"),
        ("report none --videos 0", "none is not a run folder"),
        ("report none --videos -1", "--videos is -1"),
        ("data synth set --size 97", "size is 97.*96 to 128"),
        ("data pack --model.modality flow", "model.modality is 'flow'"),
        ("flow extract", "--out"),
        ("flow extract --out flow --shard 3", "--shard is '3'.*0/4"),
        ("fuse a.npz b.npz --search --weights 1 1", "--search.*--weights"),
        ("fuse a.npz b.npz --out f.csv", "--out is 'f.csv'.*npz"),
        ("calibrate a.npz --plot c.png", "--plot is 'c.png'.*svg"),
        ("models x_*", "'x_\\*'"),
    ],
)
def test_errors_are_one_line(vsn: Run, tmp_path: Path, monkeypatch, line: str, pattern: str):
    monkeypatch.chdir(tmp_path)
    status, out, err = vsn(*line.split())
    assert (status, out) == (1, "")
    assert re.match(f"vsn: .*(?:{pattern})", one_line(err))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.epoch", "3"], "--train.epochs"),
        (["--train.epochs", "0"], "train.epochs"),
        (["--train.epochs", "x"], "--train.epochs"),
        (["--eval.protocol", "fcm"], "--eval.protocol"),
    ],
)
def test_mistyped_settings(vsn: Run, arguments: list[str], message: str):
    status, out, err = vsn("train", "demo", *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_train_eval_predict_report(vsn: Run, tiny_data: Path, tmp_path: Path, monkeypatch, gray_video: Path):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(dump_recipe(tiny_recipe(tiny_data, epochs=1)))
    status, out, err = vsn("train", "mine.toml", "--out", "run", "--train.epochs", "2", "--train.freeze", "conv1")
    assert (status, out) == (0, "")
    assert "epoch   2/2" in err
    assert err.endswith("Test it with: vsn eval run   (or vsn eval run --weights best)\n")
    assert "2 epochs, 6 steps in" in err
    assert "Best validation: top-1" in err
    assert load_recipe("run/recipe.toml").train.freeze == ("conv1",)

    status, out, err = vsn("eval", "run", "--order", "forward", "still")
    assert status == 0
    assert "3 validation videos (no test split), protocol fcn" in re.sub(r"\s+", " ", out)
    assert "swipe_right" in out
    status, out, err = vsn("eval", "run", "--split", "train", "--protocol", "center", "--json")
    (result,) = json.loads(out)
    assert (result["num_videos"], result["protocol"]) == (12, "center")

    shutil.copytree(tiny_data / "wave", "videos")
    Path("videos/2.mp4").write_text("no video")
    status, out, err = vsn("predict", "run", "videos", gray_video, "--top-k", "2")
    assert status == 1
    assert len(out.splitlines()) == 5
    assert re.fullmatch(r"videos/0\.mp4: \w+ \d+\.\d%, \w+ \d+\.\d%", out.splitlines()[0])
    assert one_line(err).startswith("videos/2.mp4: cannot be read: not a video that FFmpeg can read")

    status, out, err = vsn("predict", "run", "videos", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (status, err) == (1, "")
    assert [line["path"] for line in lines] == [f"videos/{i}.mp4" for i in range(5)]
    assert lines[2].keys() == {"path", "error"}
    assert sum(p["probability"] for p in lines[0]["predictions"]) == pytest.approx(1)
    whole = vsn("predict", "run", gray_video)[1]
    assert vsn("predict", "run", gray_video, "--start", "0", "--end", "9")[1] == whole
    assert vsn("predict", "run", gray_video, "--start", "2", "--end", "2.4")[1] != whole
    status, out, err = vsn("predict", "run", gray_video, "--start", "2.5")
    assert (status, out) == (1, "")
    assert one_line(err) == f"{gray_video}: cannot be read: it lasts 2.50 s; the part begins at 2.5 s.\n"
    for wrong, message in (
        (("--start", "-1"), "part of the video is -1 to its end seconds; the start must be 0 or more"),
        (("--start", "2", "--end", "1"), "part of the video is 2 to 1 seconds"),
        (("--windows", "--end", "1"), "--start and --end are for labels"),
    ):
        status, out, err = vsn("predict", "run", gray_video, *wrong)
        assert (status, out) == (1, "")
        assert message in one_line(err)

    assert vsn("eval", "run", "--split", "val")[0] == 0
    assert vsn("calibrate", "run", "--split", "val", "--out", "calibration.json")[0] == 0
    fitted = json.loads(Path("calibration.json").read_text())
    for threshold, marked in ((0.0, False), (1.01, True)):
        Path("limit.json").write_text(json.dumps({**fitted, "threshold": threshold}))
        assert (": unknown (" in vsn("predict", "run", gray_video, "--calibration", "limit.json")[1]) == marked
        out = vsn("predict", "run", gray_video, "--calibration", "limit.json", "--json", "--top-k", "1")[1]
        assert json.loads(out).get("unknown", False) == marked
        assert len(json.loads(out)["predictions"]) == 1
    Path("other.json").write_text(json.dumps(fitted | {"fitted_on": fitted["fitted_on"] | {"weights_hash": "0" * 64}}))
    for command in (
        ["predict", "run", gray_video],
        ["predict", "run", gray_video, "--windows"],
        ["stream", "run", gray_video],
    ):
        status, out, err = vsn(*command, "--calibration", "other.json")
        assert (status, out) == (1, "")
        assert "of other weights than those used here (00000000 1; here " in one_line(err)

    Path("empty").mkdir()
    status, _, err = vsn("predict", "run", "empty")
    assert status == 1
    assert one_line(err).startswith("vsn: empty: no videos were found")

    assert vsn("report", "run", "--out", "page.html")[1].strip() == "page.html"
    assert "vsn_resnet14_tiny" in Path("page.html").read_text()
    assert "data:image/jpeg" in Path("page.html").read_text()
    assert vsn("report", "run", "--out", "bare.html", "--videos", "0")[0] == 0
    assert "data:image/jpeg" not in Path("bare.html").read_text()

    status, _, err = vsn("train", "mine.toml", "--out", "run")
    assert status == 1
    assert re.match("vsn: run .*--resume", one_line(err))
    status, _, err = vsn("train", "--resume", "run")
    assert (status, err) == (0, "run has finished. Test it with: vsn eval run\n")
    status, _, err = vsn("train", "--resume", "run", "--train.epochs", "8")
    assert status == 1
    assert re.match("vsn: run has finished, .*--train.epochs.*--init-from run", one_line(err))

    shutil.copytree(tiny_data, "moved")
    tested = open_split(open_run("run").recipe, "test", view=EvalConfig(), classes=open_run("run").classes)
    Path("moved", tested.records[0].video_id).write_text("no video")
    status, _, err = vsn("eval", "run", "--root", "moved")
    assert status == 1
    assert one_line(err).startswith(f"vsn: moved/{tested.records[0].video_id}: not a video")
    status, out, _ = vsn("eval", "run", "--root", "moved", "--bad-videos", "wrong")
    assert status == 0
    assert "1 video could not be read, and counted as wrong; for example moved/" in out


def test_init_from_is_model_weights(vsn: Run, tiny_data: Path, tmp_path: Path):
    (tmp_path / "r.toml").write_text(dump_recipe(tiny_recipe(tiny_data, epochs=1)))
    first, second = tmp_path / "first", tmp_path / "second"
    assert vsn("train", tmp_path / "r.toml", "--out", first)[0] == 0
    status, _, err = vsn("train", tmp_path / "r.toml", "--out", second, "--init-from", first)
    assert status == 0
    assert re.search(r"3 .*classes", err)
    assert load_recipe(second / "recipe.toml").model.weights == str(first)
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for n, root in enumerate((tiny_data, data)):  # split otherwise; and another folder with videos of the same names
        again = ("--data.root", root, "--data.split-seed", "3", "--init-from", first, "--out", tmp_path / f"again-{n}")
        status, _, err = vsn("train", tmp_path / "r.toml", *again)
        assert status == 0
        assert ("The weights to start from" in err) == (root == tiny_data)
    for weights in (("--model.weights", "none"), ("--model.weights=none",)):
        status, _, err = vsn("train", tmp_path / "r.toml", "--init-from", first, *weights)
        assert status == 1
        assert re.match("vsn: .*--init-from.*--model.weights", one_line(err))
    status, _, err = vsn("train", tmp_path / "r.toml", "--init-from", first, "--model.num-frames", "2")
    assert status == 1
    assert one_line(err).startswith("vsn: model.num_frames is 2")


@pytest.mark.parametrize(
    ("device", "num_videos", "name", "model", "epochs", "said"),
    [
        ("cpu", 30, "differences-cpu", "vsn_resnet26_thin", 150, "150 epochs of them take about 4 minutes"),
        ("cpu", 432, "differences-cpu", "vsn_resnet26_thin", 41, "about 15 minutes"),
        ("cpu", 100_000, "differences-cpu", "vsn_resnet26_thin", 5, "about 417 minutes"),
        ("cuda", 432, "finetune", "vsn_resnet50", 25, "a GPU"),
    ],
)
def test_a_recipe_is_chosen_by_the_device_and_the_number_of_videos(
    vsn: Run, tmp_path: Path, monkeypatch, device: str, num_videos: int, name: str, model: str, epochs: int, said: str
):
    trained: list[tuple[Recipe, Path]] = []
    monkeypatch.setattr("vsn.training.train.train", lambda recipe, out: trained.append((recipe, out)))
    monkeypatch.setattr("vsn.system.distributed.pick_device", lambda wanted: torch.device(device))
    records = types.SimpleNamespace(records=range(num_videos), videos=range(num_videos))
    monkeypatch.setattr("vsn.training.choose.read_labeled", lambda data, split: records)
    status, _, err = vsn("train", "--data.root", tmp_path, "--train.lr", "0.5")
    assert status == 0
    assert one_line(err).startswith(f"Recipe {name}: ")
    assert f" {num_videos} training videos" in one_line(err)
    assert said in one_line(err)
    ((recipe, out),) = trained
    assert (recipe.model.name, recipe.train.epochs, recipe.train.lr) == (model, epochs, 0.5)
    assert recipe.train.val_every <= epochs
    assert out.name.startswith(f"{name}-{model}-")


def test_the_time_that_is_announced_is_that_of_the_settings_given(vsn: Run, tiny_data: Path, monkeypatch):
    monkeypatch.setattr("vsn.training.train.train", lambda recipe, out: None)
    monkeypatch.setattr("vsn.system.distributed.pick_device", lambda wanted: torch.device("cpu"))
    data = ("--data.root", tiny_data)
    for settings, said in (
        (("--train.epochs", "1000"), "12 training videos; 1000 epochs of them take about 10 minutes on one CPU core."),
        (("--data.task", "arrow"), "12 training videos; 150 epochs of them take about 3 minutes on one CPU core."),
        (("--model.name", "vsn_resnet50"), "12 training videos."),
        (("--clip.crop-size", "224", "--clip.short-side", "256"), "12 training videos."),
    ):
        status, _, err = vsn("train", *data, *settings)
        assert status == 0
        assert said in one_line(err)
    status, _, err = vsn("folds", *data, "--by", "video", "--folds", "3", "--dry-run")
    assert status == 0
    assert "12 training videos. " in one_line(err)


def test_ablate(vsn: Run, tiny_data: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(dump_recipe(tiny_recipe(tiny_data, epochs=2)))
    command = ("ablate", "mine.toml", "--grid", "model.block=compact", "--train.epochs", "1")
    status, out, err = vsn(*command, "--dry-run")
    assert (status, err) == (0, "")
    assert out == ("to do  recipe, seed 0\n0 of 1 runs done, 1 left: time unknown until a run has finished.\n")
    assert not Path("runs").exists()
    status, out, err = vsn(*command, "--shuffled")
    assert status == 0
    assert "[1/1] recipe, seed 0" in err
    assert out.startswith("Grid. Every combination of the settings.\nTop-1 in percent. Ours: ")
    assert "| model.block | ours | sd | runs | frames shuffled |" in out
    written = Path("runs/ablation-mine/ablation.json")
    assert vsn("ablate", "--show", written) == (0, out, "")
    facts = json.loads(vsn(*command, "--json")[1])
    assert facts == json.loads(written.read_text())
    lengths = (
        "ablate",
        "mine.toml",
        "--grid",
        "model.num_frames=2,4",
        "--train.epochs",
        "1",
        "--out",
        "lengths",
        "--fuse",
    )
    status, out, _ = vsn(*lengths)
    assert (status, "mean of softmax scores" in out) == (0, True)
    (fused,) = json.loads(vsn(*lengths, "--json")[1])["fused"]
    assert (fused["fused"]["frames"], Path(fused["file"]).is_file()) == ("2+4", True)
    assert facts["commands"][0] == "vsn " + " ".join([*command, "--shuffled"])
    assert (facts["recipe"]["train"]["epochs"], len(facts["runs"])) == (1, 1)
    (state,) = json.loads(vsn(*command, "--seeds", "1", "--dry-run", "--json")[1])
    assert (state["state"], state["seconds_left"]) == ("to do", facts["runs"][0]["seconds"])


def test_version(vsn: Run):
    assert vsn("--version") == (0, f"vsn {__version__}\n", "")


def test_a_torchvision_of_another_torch_is_named(vsn: Run, monkeypatch: pytest.MonkeyPatch):
    def list_models(pattern: str) -> list[str]:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("vsn.models.list_models", list_models)
    status, _, err = vsn("models")
    assert status == 1
    assert f"torch {version('torch')}, torchvision {version('torchvision')}" in err
    assert "pip install --force-reinstall torch torchvision" in err


def test_settings_without_effect_are_noted(vsn: Run, tmp_path: Path):
    settings = ("--model.name", "tsn_resnet14_tiny", "--model.shift-div", "4", "--data.root", tmp_path / "none")
    status, _, err = vsn("train", "demo", *settings)
    assert status == 1  # there is no such folder
    assert "Note: model.shift_div has no effect here" in err


def test_doctor(vsn: Run, tiny_data: Path, tmp_path: Path):
    size = ("--model.num-frames", "4", "--clip.short-side", "36", "--clip.crop-size", "32", "--workers", "1")
    healthy = make_frame_folders(tmp_path / "healthy").root
    status, out, _ = vsn("data", "doctor", "--data.root", healthy, *size, "--json")
    assert status == 0
    assert not [finding for finding in json.loads(out)["findings"] if finding["severity"] == "error"]
    sick = Path(shutil.copytree(tiny_data, tmp_path / "sick"))
    shutil.copy(next(sick.glob("wave/*.mp4")), sick / "swipe_left/copy.mp4")
    status, out, _ = vsn("data", "doctor", "--data.root", sick, *size)
    assert status == 1
    assert "ERROR" in out


def test_pack(vsn: Run, tiny_data: Path, tmp_path: Path):
    status, out, _ = vsn("data", "pack", "--out", tmp_path / "packed", "--data.root", tiny_data, "--workers", "1")
    assert status == 0
    assert "15 videos" in out
    (tmp_path / "r.toml").write_text(dump_recipe(tiny_recipe(tmp_path / "packed", epochs=1)))
    run = tmp_path / "run"
    assert vsn("train", tmp_path / "r.toml", "--out", run, "--data.source", "csv")[0] == 0
    assert vsn("eval", run)[0] == 0
    status, _, err = vsn("data", "pack", "--data.root", tiny_data)
    assert status == 1
    assert "vsn data pack needs --out" in err
    status, out, _ = vsn("data", "pack", "--verify", tmp_path / "packed", "--workers", "1")
    assert (status, out) == (0, f"{tmp_path / 'packed'}: all frames and the list are intact\n")
    shard = next((tmp_path / "packed").glob("*.vsnpack"))
    content = bytearray(shard.read_bytes())
    content[300] ^= 255
    shard.write_bytes(content)
    status, out, _ = vsn("data", "pack", "--verify", tmp_path / "packed", "--workers", "1")
    assert status == 1
    assert "1 errors" in out


def fail_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "vsn: stopped"),
        (Interrupted(signal.SIGTERM), 143, "vsn: stopped"),
        (RuntimeError("one\n\ttwo"), 1, "vsn: one two"),
        (TrainingStopped("stopped", exit_status=143), 143, "vsn: stopped"),
        (TrainingStopped("", exit_status=0), 0, ""),
        (ValueError(""), 1, ""),  # of a process other than rank 0, which has reported it
    ],
)
def test_errors_of_a_command(vsn: Run, monkeypatch, error: BaseException, status: int, message: str):
    monkeypatch.setattr(cli, "COMMANDS", {"fail": fail_with(error)})
    number, out, err = vsn("fail")
    assert (number, out, err.rstrip("\n")) == (status, "", message)


def test_traceback_on_request(vsn: Run, monkeypatch):
    monkeypatch.setattr(cli, "COMMANDS", {"fail": fail_with(RuntimeError("one"))})
    monkeypatch.setenv("VSN_TRACEBACK", "1")
    with pytest.raises(RuntimeError, match="one"):
        vsn("fail")


@pytest.mark.parametrize("module", ["vsn", "vsn.config", "vsn.cli", "vsn.data.readers"])
def test_importing_brings_no_torch(module: str):
    code = f"import sys, {module}; print([m for m in ('torch', 'torchvision', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("line", ["--help", "train --help", "train", "train demo --train.epochz 3", "ablate --help",
                                  "bench --help", "models --help"])  # fmt: skip
def test_help_and_what_is_mistyped_do_not_wait_for_torch(line: str):
    code = (
        "import atexit, sys; from vsn.cli import main;"
        "atexit.register(lambda: print('\\ntorch', 'torch' in sys.modules)); main(sys.argv[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("\ntorch False\n"), done.stderr


@pytest.mark.parametrize("option", ["--train.learning-rate", "--learning_rate=0.1", "--train.wd"])
def test_settings_under_the_names_of_other_programs(vsn: Run, option: str):
    status, _, err = vsn("train", "demo", option, "0.1")
    assert status == 1
    assert re.search(r"did you mean --train\.(lr|weight-decay)\?$", one_line(err))
