"""`vsn eval`: test a run on a split."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vsn.cli.options import Json, Root, RunProtocol, Weights
from vsn.config import FrameOrder
from vsn.system.files import to_json


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
) -> None:
    """Test a run: top-1 with its 95% interval, top-5, mean class accuracy; saved in the run folder.

    With several orders, for example `--order forward shuffled still`, it also reports how much of the
    accuracy depends on the order of the frames, overall and by class.

    Args:
        run: a run folder.
        split: the split to test on; default the recipe's data.test_split, else its data.val_split.
        average: what is averaged over the views of a video, logits or probabilities; default the recipe's.
        order: show the sampled frames forward, reversed, shuffled or still (one frame repeated).
        bad_videos: a video that cannot be read stops the test, or counts as wrong; default the recipe's.
    """
    from vsn.cli.score_tables import print_results
    from vsn.inference.evaluate import evaluate_split, mirror_note
    from vsn.runs.run import open_run

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
    # Mirrored views swap classes such as "to the left" and "to the right".
    if note := mirror_note(opened.classes, config.protocol):
        print(note)
    # Without --split the validation split may have stood in for a missing test split.
    test_split, tested = opened.recipe.data.test_split, results[0].split
    if not split and tested != test_split:
        print(f"The data set has no split {test_split!r}; these are results on {tested!r}.")
