"""`vsn eval`: test a run on a split."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from vsn.cli.options import Json, Root, RunProtocol, Weights
from vsn.config import FrameOrder, WindowConfig
from vsn.system.files import to_json
from vsn.system.terminal import print_note


def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    split: str = "",
    protocol: RunProtocol = None,
    average: Literal["logits", "softmax"] | None = None,
    order: tuple[FrameOrder, ...] = ("forward",),
    root: Root = None,
    bad_videos: Literal["stop", "wrong"] | None = None,
    weights: Weights = "last",
    json_output: Json = False,
    windows: bool = False,
    sliding: Annotated[WindowConfig, tyro.conf.arg(name="")] = WindowConfig(),  # noqa: B008  (frozen)
) -> None:
    """Test a run: top-1 with its 95% interval, top-5, mean class accuracy; saved in the run folder.

    With --windows the timelines of the split's long files are compared with their labeled segments: segment mAP, edit
    score, share of the time that is right; saved in RUN/timelines.

    With several orders, for example `--order forward shuffled still`, it also reports how much of the
    accuracy depends on the order of the frames, overall and by class.

    Args:
        run: a run folder.
        split: the split to test on; default the recipe's data.test_split, else its data.val_split.
        average: what is averaged over the views of a video, logits or probabilities; default the recipe's.
        order: show the sampled frames forward, reversed, shuffled or still (one frame repeated).
        bad_videos: a video that cannot be read stops the test, or counts as wrong; default the recipe's.
        windows: test timelines of whole files, not single clips.
        sliding: with --windows: length and stride of the windows, and when a label counts.
    """
    from vsn.cli.score_tables import print_results
    from vsn.inference.evaluate import evaluate_split, mirror_note
    from vsn.runs.run import open_run

    if windows:
        if (protocol, average, order, bad_videos) != (None, None, ("forward",), None):
            raise ValueError(
                "--protocol, --average, --order and --bad-videos are for single clips; leave them out, or --windows."
            )
        _evaluate_windows(run, split, sliding, root=root, weights=weights, json_output=json_output)
        return
    if sliding != WindowConfig():
        raise ValueError(
            "--seconds, --every, --smooth and the like are for timelines; add --windows, or leave them out."
        )
    if not order:
        raise ValueError("--order needs one or more of forward, reversed, shuffled, still.")
    opened = open_run(run)
    config = opened.recipe.eval
    config = dataclasses.replace(
        config,
        protocol=protocol or config.protocol,
        average=average or config.average,
        bad_videos=bad_videos or config.bad_videos,
    )
    # One evaluation per order, each saved in the run.
    results = [
        evaluate_split(
            run, split=split or None, config=dataclasses.replace(config, order=name), root=root, weights=weights
        )
        for name in order
    ]
    if os.environ.get("RANK", "0") != "0":  # under torchrun only rank 0 prints
        return
    if json_output:
        print(to_json([result.to_json() for result in results], indent=2))
        return
    print_results(run, results)
    console = Console()
    # Mirrored views swap classes such as "to the left" and "to the right".
    if note := mirror_note(opened.classes, config.protocol):
        print_note(console, note)
    # Without --split the validation split may have stood in for a missing test split.
    test_split, tested = opened.recipe.data.test_split, results[0].split
    if not split and tested != test_split:
        print_note(console, f"The data set has no split {test_split!r}; these are results on {tested!r}.")


def _evaluate_windows(
    run: Path,
    split: str,
    sliding: WindowConfig,
    *,
    root: str | Path | None,
    weights: Literal["last", "best"],
    json_output: bool,
) -> None:
    """Test the timelines of a split, print the measures and write them to RUN/timelines/SPLIT.json."""
    from vsn.data.open import split_to_test
    from vsn.inference.predictor import Predictor
    from vsn.stream.evaluate import evaluate_timelines
    from vsn.stream.stream import Stream
    from vsn.system.files import write_json
    from vsn.system.interrupt import stop_requests
    from vsn.system.progress import progress_bar

    predictor = Predictor.from_run(run, weights=weights)
    recipe = predictor.recipe
    data = dataclasses.replace(recipe.data, root=str(root or recipe.data.root))
    split = split or split_to_test(dataclasses.replace(recipe, data=data))
    with stop_requests() as stop, progress_bar("s") as bar:
        task = bar.add_task("seconds of video", total=None, note="")

        def start(stream: Stream) -> None:
            bar.update(task, completed=0, total=stream.announced_seconds, note=Path(stream.summary.source).name)

        result = evaluate_timelines(
            predictor,
            data,
            split,
            windows=sliding,
            stop=stop,
            on_start=start,
            on_seconds=lambda seconds: bar.update(task, completed=round(seconds)),
        )
    values = result.to_json() | {"weights": weights, "windows": dataclasses.asdict(sliding)}
    out = run / "timelines" / f"{split}.json"
    out.parent.mkdir(exist_ok=True)
    write_json(out, values)
    if json_output:
        print(to_json(values, indent=2))
        return
    seconds = sum(timeline.seconds - timeline.begins for timeline in result.timelines)
    print(
        f"{run}, split {split!r}: {len(result.timelines)} files, {seconds:.0f} seconds. {result.scores}\nSaved as {out}."
    )
    if result.num_skipped:
        print(f"{result.num_skipped} files have training segments too, and are left out.")
