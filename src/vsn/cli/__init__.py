"""The command `vsn`: each verb is a few lines over a public function, imported when it runs."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

import vsn
from vsn.cli.data import data_app, doctor_command, pack_command
from vsn.cli.flow import extract_command, flow_app
from vsn.cli.recipes import recipe_app
from vsn.cli.runs import runs
from vsn.cli.training import TrainCommand, train_command
from vsn.config import FrameOrder, Protocol
from vsn.recipes import find_recipe, load_recipe

DESCRIPTION = "Video Shuffle Networks: recognise what happens in a video at the price of a 2D CNN."

Paths = Annotated[list[Path], tyro.conf.Positional]

app = tyro.extras.SubcommandApp()


@app.command
def demo(out: Path | None = None, quick: bool = False, seed: int = 0) -> None:
    """See what the paper claims: TSN, TSM and VSN on videos that differ only in the order of frames.

    Makes the embedded data set, trains the three, prints one table and writes report.html.

    Args:
        out: folder of the data set, the runs and the report, default vsn-demo (vsn-demo-quick with --quick); an
            interrupted demo continues there.
        quick: eight of the classes, fewer videos and epochs: under 2 minutes.
        seed: of the data set and the training.
    """
    from vsn.engine.demo import run_demo

    out = out or Path("vsn-demo-quick" if quick else "vsn-demo")
    run_demo(out, load_recipe(find_recipe("demo")), quick=quick, seed=seed)


@app.command(name="train")
def train_help(command: TrainCommand) -> None:
    """Train a model from a recipe, or continue a run."""
    raise AssertionError("main hands `train` to train_command, which reads the recipe first")


@app.command(name="eval")
def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    split: str = "",
    protocol: Protocol | None = None,
    order: tuple[FrameOrder, ...] = ("forward",),
    root: Path | None = None,
    bad_videos: Literal["stop", "wrong"] | None = None,
    weights: Literal["last", "best"] = "last",
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Test a run: top-1 with its 95% interval, top-5, mean class accuracy; written into the run.

    With several orders, for example `--order forward shuffled still`, it tells how much of the
    accuracy rests on the order of the frames, for every class too.

    Args:
        run: a run folder.
        split: the split to test on; default the recipe's data.test_split, else its data.val_split.
        protocol: fcn (the whole frame) or center (one crop); default the recipe's.
        order: show the sampled frames forward, reversed, shuffled or still (one frame repeated).
        root: where the data set is now, if it moved; default the recipe's data.root.
        bad_videos: a video that cannot be read stops the test, or counts as wrong; default the recipe's.
        weights: the last of the run, or those of its best validation.
        json_output: print JSON.
    """
    from vsn.engine.checkpoint import open_run
    from vsn.engine.evaluate import evaluate_run

    if not order:
        raise ValueError("--order needs one or more of forward, reversed, shuffled, still.")
    recipe = open_run(run).recipe
    base = recipe.eval
    results = []
    for one in order:
        config = dataclasses.replace(
            base, order=one, protocol=protocol or base.protocol, bad_videos=bad_videos or base.bad_videos
        )
        results.append(evaluate_run(run, split=split or None, config=config, root=root, weights=weights))
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks
        return
    if json_output:
        print(json.dumps(results, indent=2))
    else:
        _print_results(run, results)
        if not split and results[0]["split"] != recipe.data.test_split:
            print(f"The data has no split {recipe.data.test_split!r}; this is {results[0]['split']!r}.")


def _print_results(run: Path, results: list[dict[str, Any]]) -> None:
    """Tables of the results of one run under several orders of the frames."""
    console = Console()
    last = "mean class" if "mean_class" in results[0] else "mAP"
    table = Table(
        title=f"{run}: {results[0]['num_videos']} videos of split {results[0]['split']}, protocol {results[0]['protocol']}"
    )
    for column in ("frames", "top-1", "95% interval", "top-5", last):
        table.add_column(column, justify="left" if column == "frames" else "right")
    for result in results:
        low, high = result["top1_interval"]
        table.add_row(
            result["order"],
            f"{result['top1']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{result['top5']:.1%}",
            f"{result.get('mean_class', result.get('mean_average_precision')):.1%}",
        )
    console.print(table)
    bad = results[0]["bad_videos"]
    if bad:
        console.print(
            f"{len(bad)} videos could not be read and count as wrong, for example {bad[0]['path']}: {bad[0]['reason']}",
            highlight=False,
            soft_wrap=True,
        )
    classes = Table(title="top-1 by class" if last == "mean class" else "average precision by class")
    classes.add_column("class")
    for result in results:
        classes.add_column(result["order"], justify="right")
    for name in results[0]["per_class"]:
        classes.add_row(name, *(f"{result['per_class'][name]:.0%}" for result in results))
    console.print(classes)


@app.command
def predict(
    run: Annotated[Path, tyro.conf.Positional],
    videos: Paths,
    flow_run: Path | None = None,
    flow_weight: float = 1.0,
    top_k: int = 5,
    device: str = "auto",
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Label video files, or all video files of a folder. A flow model computes the flow, or takes stored flow.

    A file that cannot be read gets one line that says why; the others go on, and the exit status is 1.

    Args:
        run: a run folder.
        videos: video files or folders of them.
        flow_run: a run on flow, whose probabilities are averaged with those of the run.
        flow_weight: weight of the flow run; that of the run is 1.
        top_k: how many labels to print.
        device: auto, cpu or cuda.
        json_output: print one JSON object a line, for other programs.
    """
    from vsn.data.decode import VideoError
    from vsn.engine.predict import Predictor, TwoStreamPredictor

    if not videos:
        raise ValueError("vsn predict needs video files, or folders of them, after the run folder.")
    first = Predictor.from_run(run, device=device)
    predictor: Predictor | TwoStreamPredictor = first
    if flow_run is not None:
        second = Predictor.from_run(flow_run, device=device)
        predictor = TwoStreamPredictor(first, second, flow_weight=flow_weight)
    files = [file for path in videos for file in predictor.list_inputs(path)]
    failed = False
    for file in files:
        try:
            prediction = predictor.predict(file, top_k=top_k)
        except VideoError as error:
            failed = True
            if json_output:
                print(json.dumps({"path": str(file), "error": error.reason}))
            else:
                print(f"{file}: cannot be read: {error.reason}", file=sys.stderr)
            continue
        if json_output:
            labels = [
                {"label": n, "probability": p}
                for n, p in zip(prediction.labels, prediction.probabilities, strict=True)
            ]
            print(json.dumps({"path": str(file), "predictions": labels}))
        else:
            pairs = zip(prediction.labels, prediction.probabilities, strict=True)
            print(f"{file}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in pairs))
    if failed:
        raise SystemExit(1)


@app.command
def report(
    runs: Paths, out: Path = Path("report.html"), title: str = "Video recognition report", split: str = "test"
) -> None:
    """Write one self-contained HTML page about one or several evaluated runs.

    Args:
        runs: run folders.
        out: the page to write.
        title: its heading.
        split: the split whose results are shown.
    """
    from vsn.report import write_report

    print(write_report(runs, out, title=title, split=split))


@app.command
def models() -> None:
    """Name the models that need no extra package."""
    from vsn.models import list_models

    print("\n".join(list_models()))


app.command(runs)
app.command(data_app, name="data", help="Write the embedded data set; pack and examine data sets.")
app.command(flow_app, name="flow", help="Compute, store and look at optical flow.")
app.command(recipe_app, name="recipe", help="List and print recipes.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Errors a user can mend are one line, without a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["--version"]:
            print(f"vsn {vsn.__version__}")
        elif arguments[:1] == ["train"]:
            train_command(arguments[1:])
        elif arguments[:2] == ["data", "pack"]:
            pack_command(arguments[2:])
        elif arguments[:2] == ["data", "doctor"]:
            doctor_command(arguments[2:])
        elif arguments[:2] == ["flow", "extract"]:
            extract_command(arguments[2:])
        else:
            app.cli(prog="vsn", description=DESCRIPTION, args=arguments or ["--help"])
    except BrokenPipeError:  # the reader of our output, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # what a shell reports of a program stopped so
    except KeyboardInterrupt:
        raise SystemExit("vsn: stopped") from None
    except (ValueError, OSError, RuntimeError) as error:
        if os.environ.get("VSN_TRACEBACK"):
            raise
        if not str(error):  # of several processes, the first has said it
            raise SystemExit(1) from None
        rank = os.environ.get("RANK", "0")
        who = "vsn" if rank == "0" else f"vsn (process {rank})"
        raise SystemExit(f"{who}: {' '.join(str(error).split())}") from None
