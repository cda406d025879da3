"""The command `vsn`: each verb is a few lines over a public function, imported when it runs."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

import vsn
from vsn.cli.ablate import AblateCommand, ablate_command
from vsn.cli.bench import BenchCommand, bench_command
from vsn.cli.convert import convert
from vsn.cli.data import data_app, doctor_command, pack_command
from vsn.cli.export import export
from vsn.cli.features import features
from vsn.cli.flow import extract_command, flow_app
from vsn.cli.hub import hub_app
from vsn.cli.predict import predict
from vsn.cli.recipes import recipe_app
from vsn.cli.runs import runs
from vsn.cli.scores import calibrate, compare, fuse, submit
from vsn.cli.serve import serve
from vsn.cli.stream import stream
from vsn.cli.training import TrainCommand, train_command
from vsn.config import FrameOrder, Protocol
from vsn.config.recipes import find_recipe, load_recipe
from vsn.system.allocator import keep_freed_memory

DESCRIPTION = (
    "Video Shuffle Networks: recognize what happens in a video at the price of a 2D CNN. "
    "`vsn COMMAND --help` explains a command, `vsn --version` says which version this is."
)

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
    from vsn.demo import run_demo

    out = out or Path("vsn-demo-quick" if quick else "vsn-demo")
    run_demo(out, load_recipe(find_recipe("demo")), quick=quick, seed=seed)


@app.command(name="train")
def train_help(command: TrainCommand) -> None:
    """Train a model from a recipe, or continue a run."""
    raise AssertionError("main hands `train` to train_command, which reads the recipe first")


@app.command(name="ablate")
def ablate_help(command: AblateCommand) -> None:
    """Train a grid of recipes, such as the paper's ablations; print one table."""
    raise AssertionError("main hands `ablate` to ablate_command, which reads the recipe first")


@app.command(name="bench")
def bench_help(command: BenchCommand) -> None:
    """Measure models side by side: parameters, multiply-adds, latency, throughput, memory."""
    raise AssertionError("main hands `bench` to bench_command, which keeps the command for the record")


@app.command(name="eval")
def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    split: str = "",
    protocol: Protocol | None = None,
    average: Literal["logits", "softmax"] | None = None,
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
        protocol: fcn (the whole frame, the paper's), center (one crop), or several views; default the recipe's.
        average: what is averaged over the views of a video, logits or probabilities; default the recipe's.
        order: show the sampled frames forward, reversed, shuffled or still (one frame repeated).
        root: where the data set is now, if it moved; default the recipe's data.root.
        bad_videos: a video that cannot be read stops the test, or counts as wrong; default the recipe's.
        weights: the last of the run, or those of its best validation.
        json_output: print JSON.
    """
    from vsn.cli.score_tables import print_results
    from vsn.inference.evaluate import evaluate_run, mirror_note
    from vsn.runs.run import open_run

    if not order:
        raise ValueError("--order needs one or more of forward, reversed, shuffled, still.")
    recipe = open_run(run).recipe
    base = recipe.eval
    results = []
    for one in order:
        config = dataclasses.replace(
            base,
            order=one,
            protocol=protocol or base.protocol,
            average=average or base.average,
            bad_videos=bad_videos or base.bad_videos,
        )
        results.append(evaluate_run(run, split=split or None, config=config, root=root, weights=weights))
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process speaks
        return
    if json_output:
        print(json.dumps(results, indent=2))
    else:
        print_results(run, results)
        note = mirror_note(open_run(run).classes, results[0]["protocol"])
        if note:
            print(note)
        if not split and results[0]["split"] != recipe.data.test_split:
            print(f"The data has no split {recipe.data.test_split!r}; this is {results[0]['split']!r}.")


app.command(predict)
app.command(export)
app.command(serve)
app.command(stream)
app.command(features)
app.command(convert)
app.command(fuse)
app.command(compare)
app.command(submit)
app.command(calibrate)


@app.command
def report(
    runs: Paths,
    out: Path = Path("report.html"),
    title: str = "Video recognition report",
    split: str = "",
    root: Path | None = None,
    videos: int = 4,
    stage: str = "res5",
    device: str = "auto",
) -> None:
    """Write one self-contained HTML page about one or several runs, as far as they are trained and tested.

    What is missing is named there, with the command that makes it.

    Args:
        runs: run folders.
        out: the page to write.
        title: its heading.
        split: the split whose results are shown; default the one that most runs were tested on.
        root: where the data set is now, if it moved; the videos shown come from there.
        videos: best videos to show, and as many worst; 0 opens no video and no network.
        stage: features that the heat maps beneath the videos are of: res2 to res5.
        device: auto, cpu or cuda, for the heat maps.
    """
    if videos < 0:
        raise ValueError(f"--videos is {videos}; it must be 0 or more.")
    if videos == 0:
        from vsn.report import write_report

        print(write_report(runs, out, title=title, split=split or None))
        return
    from vsn.report.illustrate import illustrated_report

    print(
        illustrated_report(
            runs,
            out,
            title=title,
            split=split or None,
            root=root,
            num_videos=videos,
            stage=stage,
            device=device,
        )
    )


@app.command
def models(pattern: Annotated[str, tyro.conf.Positional] = "*") -> None:
    """Name the models that need no extra package.

    Args:
        pattern: only names that fit it, such as 'vsn_*'.
    """
    from vsn.models import list_models

    found = list_models(pattern)
    if not found:
        raise ValueError(f"No model's name fits {pattern!r}; `vsn models` names them all.")
    print("\n".join(found))


app.command(runs)
app.command(data_app, name="data", help="Write the embedded data set; pack and examine data sets.")
app.command(flow_app, name="flow", help="Compute, store and look at optical flow.")
app.command(hub_app, name="hub", help="Put runs on the Hugging Face hub, and fetch them.")
app.command(recipe_app, name="recipe", help="List and print recipes.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Errors a user can mend are one line, without a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] and arguments[0] in ("train", "ablate", "bench", "demo", "eval"):
        keep_freed_memory()  # where it pays: see its module
    try:
        if arguments[:1] == ["--version"]:
            print(f"vsn {vsn.__version__}")
        elif arguments[:1] == ["train"]:
            train_command(arguments[1:])
        elif arguments[:1] == ["ablate"]:
            ablate_command(arguments[1:])
        elif arguments[:1] == ["bench"]:
            bench_command(arguments[1:])
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
