"""The command `vsn`: each verb is a few lines over a public function, imported when it runs."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from vsn.config import EvalConfig, FrameOrder, Protocol, Recipe
from vsn.recipes import dump_recipe, load_recipe

DESCRIPTION = "Video Shuffle Networks: recognise what happens in a video at the price of a 2D CNN."

Paths = Annotated[list[Path], tyro.conf.Positional]

app = tyro.extras.SubcommandApp()
data_app = tyro.extras.SubcommandApp()
recipe_app = tyro.extras.SubcommandApp()


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """Train a model from a recipe, or continue a run.

    Any setting can be changed on the command line, for example `--data.root clips`,
    `--model.name tsm_resnet50`, `--train.epochs 10`. `vsn recipe show RECIPE` prints them all;
    `vsn train RECIPE --help` explains them.
    """

    recipe: Annotated[str, tyro.conf.Positional] = ""
    """A TOML file, or the name of a recipe that comes with vsn."""
    out: Path | None = None
    """The run folder to make; default runs/<recipe>-<model>-<time>."""
    resume: Path | None = None
    """Continue this run where it stopped, in the middle of an epoch too."""


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


def train_command(arguments: Sequence[str]) -> None:
    """Parse and run `vsn train`: first the recipe, then what changes it."""
    from vsn.engine.checkpoint import open_run
    from vsn.engine.train import train

    wants_help = any(a in ("-h", "--help") for a in arguments)
    named = [a for a in arguments if not a.startswith("-")]
    if wants_help and not named:
        tyro.cli(TrainCommand, args=["--help"], prog="vsn train")
    command, rest = tyro.cli(
        TrainCommand,
        args=[a for a in arguments if a not in ("-h", "--help")],
        prog="vsn train",
        return_unknown_args=True,
    )
    if command.resume:
        if command.recipe not in ("", "[]") or command.out or rest:
            raise ValueError(
                "--resume takes a run and continues it as it was; no recipe, --out or setting goes with it."
            )
        run = open_run(command.resume)
        train(run.recipe, run.path, resume=True)
        out = run.path
    else:
        if command.recipe in ("", "[]"):  # "[]" is what tyro makes of settings that come before the recipe
            raise ValueError(
                "vsn train needs a recipe, and settings follow it: vsn train demo --data.root videos. "
                "`vsn recipe list` names those there are."
            )
        default = load_recipe(find_recipe(command.recipe))
        recipe = tyro.cli(
            Recipe,
            default=default,
            args=[*rest, *(["--help"] if wants_help else [])],
            prog=f"vsn train {command.recipe}",
            description="Settings of this recipe; each can be changed here.",
        )
        stem = f"{Path(command.recipe).stem}-{recipe.model.name.replace('/', '-')}"
        out = command.out or Path("runs") / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
        train(recipe, out)
    Console(stderr=True).print(f"Trained. Test it with: vsn eval {out}", highlight=False, soft_wrap=True)


@app.command(name="eval")
def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    split: str = "",
    protocol: Protocol | None = None,
    order: tuple[FrameOrder, ...] = ("forward",),
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Test a run: top-1 with its 95% interval, top-5, mean class accuracy; written into the run.

    With several orders, for example `--order forward shuffled still`, it tells how much of the
    accuracy rests on the order of the frames, for every class too.

    Args:
        run: a run folder.
        split: the split to test on; default the recipe's data.test_split.
        protocol: fcn (the whole frame) or center (one crop); default the recipe's.
        order: show the sampled frames forward, reversed, shuffled or still (one frame repeated).
        json_output: print JSON.
    """
    from vsn.engine.checkpoint import open_run
    from vsn.engine.evaluate import evaluate_run

    if not order:
        raise ValueError("--order needs one or more of forward, reversed, shuffled, still.")
    base = open_run(run).recipe.eval
    results = []
    for one in order:
        config: EvalConfig = dataclasses.replace(base, order=one, protocol=protocol or base.protocol)
        results.append(evaluate_run(run, split=split or None, config=config))
    if json_output:
        print(json.dumps(results, indent=2))
        return
    console = Console()
    table = Table(
        title=f"{run}: {results[0]['num_videos']} videos of split {results[0]['split']}, protocol {results[0]['protocol']}"
    )
    for column in ("frames", "top-1", "95% interval", "top-5", "mean class"):
        table.add_column(column, justify="left" if column == "frames" else "right")
    for result in results:
        low, high = result["top1_interval"]
        table.add_row(
            result["order"],
            f"{result['top1']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{result['top5']:.1%}",
            f"{result['mean_class']:.1%}",
        )
    console.print(table)
    classes = Table(title="top-1 by class")
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
    top_k: int = 5,
    device: str = "auto",
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Label video files, or all video files of a folder.

    A file that cannot be read gets one line that says why; the others go on, and the exit status is 1.

    Args:
        run: a run folder.
        videos: video files or folders of them.
        top_k: how many labels to print.
        device: auto, cpu or cuda.
        json_output: print one JSON object a line, for other programs.
    """
    from vsn.data.decode import VideoError
    from vsn.data.records import list_videos
    from vsn.engine.predict import Predictor

    if not videos:
        raise ValueError("vsn predict needs video files, or folders of them, after the run folder.")
    predictor = Predictor.from_run(run, device=device)
    files = [file for path in videos for file in (list_videos(path) if path.is_dir() else [path])]
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


@data_app.command
def synth(
    root: Annotated[Path, tyro.conf.Positional],
    size: int = 112,
    train_per_class: int = 50,
    val_per_class: int = 10,
    test_per_class: int = 20,
    seed: int = 0,
    workers: int | None = None,
) -> None:
    """Write the embedded data set: real video files whose classes differ only in the order of frames.

    Args:
        root: folder to write; an interrupted set continues there.
        size: height and width, pixels, 96 to 128.
        train_per_class: training videos a class.
        val_per_class: validation videos a class.
        test_per_class: test videos a class.
        seed: the set depends on it alone, whatever the number of workers.
        workers: processes; default one a core.
    """
    from vsn.data.synthetic import SynthSpec, write_dataset

    spec = SynthSpec(
        size=size,
        num_train_per_class=train_per_class,
        num_val_per_class=val_per_class,
        num_test_per_class=test_per_class,
        seed=seed,
    )
    print(write_dataset(root, spec, num_workers=workers))


@recipe_app.command(name="list")
def recipe_list() -> None:
    """Name the recipes that come with vsn."""
    for path in sorted(recipe_folder().glob("*.toml")):
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        print(f"{path.stem:<24} {first}")


@recipe_app.command(name="show")
def recipe_show(recipe: Annotated[str, tyro.conf.Positional]) -> None:
    """Print a recipe complete, with every default.

    Args:
        recipe: a TOML file, or the name of a recipe that comes with vsn.
    """
    print(dump_recipe(load_recipe(find_recipe(recipe))), end="")


@app.command
def models() -> None:
    """Name the models that need no extra package."""
    from vsn.models import list_models

    print("\n".join(list_models()))


app.command(data_app, name="data", help="Write the embedded data set.")
app.command(recipe_app, name="recipe", help="List and print recipes.")


def recipe_folder() -> Path:
    """Where the recipes are: in the installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "recipes"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "recipes"


def find_recipe(name: str) -> Path:
    """The file of a recipe given as a path or as the name of one that comes with vsn."""
    path, own = Path(name), recipe_folder() / f"{name}.toml"
    if path.is_file():
        return path
    if not own.is_file():
        names = [recipe.stem for recipe in recipe_folder().glob("*.toml")]
        near = difflib.get_close_matches(path.stem, names, n=1)
        advice = (
            f"Did you mean {near[0]!r}?"
            if near
            else "`vsn recipe list` names the recipes that come with vsn."
        )
        raise ValueError(f"No recipe at {name!r}, a file or a name. {advice}")
    return own


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Errors a user can mend are one line, without a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["train"]:
            train_command(arguments[1:])
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
        raise SystemExit(f"vsn: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    main()
