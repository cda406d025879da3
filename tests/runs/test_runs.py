"""Run folders listed: what each says of itself, and the damaged ones with their reasons."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.fake_runs import write_run
from vsn import cli
from vsn.inference.evaluate import evaluate_run
from vsn.runs.listing import RunsError, list_runs, summarize_run
from vsn.system.lock import lock_folder


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A run whose state is told by its metrics and its state file."""
    run = Path(shutil.copytree(finished_run, tmp_path / "runs" / "run"))
    for name in ("summary.json", "state-before.pt"):
        (run / name).unlink()
    return run


def write_metrics(run: Path, *lines: object) -> None:
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_a_finished_run(run: Path, tiny_data: Path):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    result = evaluate_run(run, split="val", progress=False)
    newest = run / "eval" / "val-fcn-forward.json"
    os.utime(newest, (3e9, 3e9))
    found = summarize_run(run)
    assert (found.state, found.reason) == ("finished", "")
    assert (found.model, found.num_frames) == ("vsn_resnet14_tiny", 4)
    assert found.data == f"{tiny_data.name} (folder)"
    assert (found.epochs_done, found.epochs) == (2, 2)
    assert found.last_val_top1 == lines[-1]["val_top1"]
    (one,) = found.evaluations
    assert (one.split, one.protocol, one.order, one.top1) == ("val", "fcn", "forward", result["top1"])
    assert found.written == 3e9


def test_a_result_of_earlier_weights_is_marked(run: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "200")
    evaluate_run(run, progress=False)
    cli.main(["runs", str(run)])
    assert "outdated" not in capsys.readouterr().out
    shutil.copy(run / "best.safetensors", run / "model.safetensors")
    (run / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes() + b" ")
    cli.main(["runs", str(run)])
    assert "fcn validation (outdated)" in capsys.readouterr().out
    cli.main(["runs", str(run), "--json"])
    assert json.loads(capsys.readouterr().out)[0]["evaluations"][0]["is_stale"]


def test_best_and_last_over_epochs_and_validations_within_them(run: Path):
    write_metrics(
        run,
        {"epoch": 1, "step": 3, "train_loss": 1.0, "val_loss": 1.0, "val_top1": 0.25},
        {"epoch": 2, "step": 4, "val_loss": 0.5, "val_top1": 0.75},
        {"epoch": 2, "step": 5, "val_loss": 0.6, "val_top1": 0.75},
        {"epoch": 2, "step": 6, "train_loss": 0.5, "val_loss": 0.7, "val_top1": 0.5},
        {"epoch": 3, "step": 7, "val_loss": 0.6, "val_top1": float("nan")},
    )
    found = summarize_run(run)
    assert (found.epochs_done, found.best_val_top1, found.best_epoch, found.last_val_top1) == (
        2,
        0.75,
        2,
        0.5,
    )


def test_a_validation_within_an_epoch_has_a_fractional_epoch(run: Path):
    write_metrics(
        run,
        {"epoch": 1, "step": 3, "train_loss": 1.0, "val_top1": 0.25},
        {"epoch": 1.3333, "step": 4, "val_top1": 0.75},
        {"epoch": 2, "step": 6, "train_loss": 0.5, "val_top1": 0.5},
    )
    found = summarize_run(run)
    assert (found.state, found.reason, found.epochs_done, found.best_epoch) == ("finished", "", 2, 2)


def test_of_validations_with_the_same_top1_the_smaller_loss_is_the_best(run: Path):
    """As training keeps its best weights."""
    write_metrics(
        run,
        {"epoch": 1, "step": 3, "train_loss": 1.0, "val_loss": 0.5, "val_top1": 1.0},
        {"epoch": 2, "step": 6, "train_loss": 0.5, "val_loss": 0.1, "val_top1": 1.0},
        {"epoch": 3, "step": 9, "train_loss": 0.5, "val_loss": 0.2, "val_top1": 1.0},
        {"epoch": 4, "step": 12, "train_loss": 0.5, "val_top1": 1.0},
    )
    assert summarize_run(run).best_epoch == 2


def test_a_run_under_way_can_be_resumed(run: Path):
    write_metrics(run, {"epoch": 1, "step": 3, "train_loss": 1.0})
    found = summarize_run(run)
    assert (found.state, found.epochs_done, found.epochs) == ("can be resumed", 1, 2)
    assert found.last_val_top1 is found.best_val_top1 is found.best_epoch is None
    (run / "summary.json").write_text("{}")  # it stopped early, as it should
    assert summarize_run(run).state == "finished"


def test_a_run_that_a_process_trains_now(run: Path, capsys: pytest.CaptureFixture[str]):
    write_metrics(run, {"epoch": 1, "step": 3, "train_loss": 1.0})
    (run / "state.pt").unlink()
    script = "import sys\nfrom vsn.system.lock import lock_folder\n"
    script += "with lock_folder(__import__('pathlib').Path(sys.argv[1])):\n    print(flush=True)\n    input()"
    command = [sys.executable, "-c", script, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert [summarize_run(run).state for _ in range(3)] == ["training now"] * 3
        process.communicate(b"\n")
    assert summarize_run(run).state == "damaged"  # nothing to resume from


def test_the_process_that_trains_may_list_its_run(run: Path):
    with lock_folder(run):
        assert summarize_run(run).state == "training now"
        other = "import sys; from pathlib import Path; from vsn.system.lock import is_locked; "
        other += "print(is_locked(Path(sys.argv[1])))"
        found = subprocess.run([sys.executable, "-c", other, str(run)], capture_output=True, text=True, check=True)
        assert found.stdout == "True\n"  # looking did not release it


def test_before_the_first_epoch(run: Path):
    for name in ("metrics.jsonl", "model.safetensors"):
        (run / name).unlink()
    assert (summarize_run(run).state, summarize_run(run).epochs_done) == ("can be resumed", 0)


def test_the_previous_state_is_enough_to_resume(run: Path):
    write_metrics(run, {"epoch": 1, "step": 3, "train_loss": 1.0})
    (run / "state.pt").rename(run / "state-before.pt")
    assert summarize_run(run).state == "can be resumed"


def test_the_first_evaluation_is_of_the_recipes_split_and_protocol(tmp_path: Path):
    run = write_run(tmp_path / "run", "vsn_resnet18", 0.7)
    shutil.copy(run / "eval" / "test-fcn-forward.json", run / "eval" / "a-center-forward.json")
    values = json.loads((run / "eval" / "a-center-forward.json").read_text())
    (run / "eval" / "a-center-forward.json").write_text(json.dumps(values | {"protocol": "center"}))
    found = summarize_run(run).evaluations
    assert (found[0].split, found[0].protocol, found[0].order) == ("test", "fcn", "forward")
    assert (found[1].protocol, len(found)) == ("center", 5)


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:size])


def unfinished(name: str, size: int | None) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        write_metrics(run, {"epoch": 1, "train_loss": 1.0})
        (run / name).unlink() if size is None else cut(name, size)(run)

    return damage


def bad_eval(run: Path) -> None:
    (run / "eval").mkdir()
    (run / "eval" / "test-fcn-forward.json").write_text('{"top1": 0.5}')


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda run: (run / "recipe.toml").unlink(), "it has no recipe.toml"),
        (lambda run: (run / "classes.json").unlink(), "it has no classes.json"),
        (lambda run: (run / "recipe.toml").write_text("[train]\nlr = -1"), "train.lr is -1.0"),
        (
            lambda run: (run / "metrics.jsonl").write_text('{"epoch": 1'),
            "metrics.jsonl, line 1, is '{\"epoch\": 1'; expected a JSON object",
        ),
        (lambda run: (run / "metrics.jsonl").write_bytes(b"\xff\xfe"), "metrics.jsonl cannot be read"),
        (lambda run: (run / "classes.json").write_bytes(b"\xff\xfe"), "codec can't decode"),
        (lambda run: (run / "metrics.jsonl").write_text("3\n"), "metrics.jsonl, line 1, is '3'"),
        (lambda run: (run / "metrics.jsonl").write_text('{"step": 1}\n'), "metrics.jsonl, line 1, is '{\"step\": 1}'"),
        (lambda run: (run / "metrics.jsonl").write_text('{"epoch": "1"}\n'), "metrics.jsonl, line 1, is '{\"epoch"),
        (lambda run: (run / "classes.json").write_text("3"), "classes.json holds 3"),
        (lambda run: (run / "classes.json").write_text('{"a": 0}'), "classes.json holds {'a': 0}"),
        (lambda run: (run / "classes.json").write_text('["a", "a"]'), "classes.json holds ['a', 'a']"),
        (lambda run: (run / "model.safetensors").unlink(), "model.safetensors is missing"),
        (cut("model.safetensors", 5000), "model.safetensors is damaged"),
        (
            unfinished("state.pt", None),
            "state.pt, needed to resume, is missing",
        ),
        (unfinished("state.pt", 1000), "state.pt, needed to resume, is damaged"),
        (bad_eval, "eval/test-fcn-forward.json cannot be read: it lacks split"),
    ],
)
def test_damaged_runs_are_listed_with_the_reason(run: Path, damage: Callable[[Path], object], reason: str):
    shutil.copytree(run, run.parent / "whole")
    damage(run)
    first, second = list_runs([run.parent])
    assert first.state == "damaged"
    assert reason in first.reason
    assert (second.state, second.reason) == ("finished", "")


def test_runs_are_found_two_levels_down_and_once(finished_run: Path, tmp_path: Path):
    names = ["a", "b/c", "b/d", "b/deeper/too", ".hidden", "a/within"]
    for name in names:
        shutil.copytree(finished_run, tmp_path / name, dirs_exist_ok=True)
    (tmp_path / "empty").mkdir()

    def found(*folders: Path) -> list[str]:
        return [str(run.path.relative_to(tmp_path)) for run in list_runs(folders)]

    assert found(tmp_path) == ["a", "b/c", "b/d"]
    assert found(tmp_path / "b") == ["b/c", "b/d", "b/deeper/too"]
    assert found(tmp_path / "b" / "c", tmp_path) == ["b/c", "a", "b/d"]
    assert found(tmp_path / "empty") == []
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    assert found(tmp_path) == ["a", "b/c", "b/d"]


def test_path_that_is_not_a_folder(tmp_path: Path):
    with pytest.raises(RunsError, match=r"none is not a folder"):
        list_runs([tmp_path / "none"])


# The command


def test_the_table(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(run.parents[1])
    monkeypatch.setenv("COLUMNS", "160")
    write_metrics(
        run,
        {"epoch": 1, "step": 3, "train_loss": 1.0, "val_top1": 0.625},
        {"epoch": 2, "step": 6, "train_loss": 1.0, "val_top1": 0.5},
    )
    bad_eval(run)
    (run / "eval" / "test-fcn-forward.json").write_text(
        '{"split": "val", "protocol": "fcn", "order": "forward", "top1": 0.875}'
    )
    shutil.copytree(run, "runs/torn")
    Path("runs/torn/recipe.toml").unlink()
    cli.main(["runs"])
    head, whole, torn, reason = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "model", "data", "T", "epochs", "val", "best", "test", "written", "state"]
    assert whole.startswith("runs/run")
    assert " 2/2 50.0% 62.5% @1 87.5% fcn val " in whole
    assert whole.rstrip().endswith("finished")
    assert torn.rstrip().endswith("damaged")
    assert reason == "runs/torn: it has no recipe.toml"


@pytest.mark.parametrize("width", [80, 120])
def test_names_are_whole_in_a_narrow_terminal(
    run: Path, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(run.parents[1])
    monkeypatch.setenv("COLUMNS", str(width))
    name = "runs/a-long-name-of-a-run-with-all-settings"
    shutil.copytree(run, name)
    result = {"split": "test", "protocol": "center", "order": "forward", "top1": 0.9425, "num_videos": 3}
    (Path(name) / "eval").mkdir(exist_ok=True)
    (Path(name) / "eval" / "test-center-forward.json").write_text(json.dumps(result | {"num_validated": 3}))
    cli.main(["runs"])
    head, long, short = (line.split() for line in capsys.readouterr().out.splitlines())
    assert (long[0], short[0]) == (name, "runs/run")
    assert head[-2:] == ["test", "state"]
    assert long[-4:] == ["94.3%", "center", "validation", "finished"]


def test_names_too_long_for_any_terminal_are_printed_above(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(run.parents[1])
    monkeypatch.setenv("COLUMNS", "80")
    shutil.copytree(run, name := "runs/" + 90 * "x")
    cli.main(["runs"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["1: runs/run", f"2: {name}"]
    assert lines[2].split()[0] == "run"
    assert [line.split()[0] for line in lines[3:]] == ["1", "2"]
    assert max(map(len, lines[2:])) <= 80


def test_json(run: Path, capsys: pytest.CaptureFixture[str]):
    cli.main(["runs", str(run.parent), "--json"])
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["path"], found["state"], found["epochs_done"]) == (str(run), "finished", 2)
    assert found["evaluations"] == []


def test_no_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cli.main(["runs", str(tmp_path)])
    assert capsys.readouterr().out.startswith(f"No runs in {tmp_path}")
    with pytest.raises(SystemExit, match="is not a folder"):
        cli.main(["runs", str(tmp_path / "none")])
