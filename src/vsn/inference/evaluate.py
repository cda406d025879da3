"""Testing: named protocols, every video counted exactly once, frames in or out of order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.config import EvalConfig, Protocol, Recipe
from vsn.data.dataset import BadVideo, VideoDataset
from vsn.data.flips import flipped_labels
from vsn.data.loader import Share, make_loader
from vsn.data.open import label_array, open_split, split_to_test
from vsn.data.video import VideoError
from vsn.data.views import PROTOCOLS
from vsn.inference.forward import Average, pick_test_device, view_scores
from vsn.models import VideoClassifier
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.runs.checkpoint import load_model
from vsn.runs.results import BadVideoEntry, EvalResult
from vsn.runs.run import Run, WeightsKind, open_run, weights_hash
from vsn.scores.scores import Scores
from vsn.system.distributed import Distributed
from vsn.system.interrupt import Stopped, StopRequest
from vsn.system.progress import progress_bar


def score_videos(
    model: VideoClassifier,
    dataset: VideoDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    precision: str = "fp32",
    average: Average = "logits",
    progress: bool = True,
    bad: list[BadVideo] | None = None,
    distributed: Distributed | None = None,
    stop: StopRequest | None = None,
) -> Scores:
    """Run a model over a data set; every video is scored exactly once.

    ``batch_size`` counts views; `view_scores` explains it and ``average``.

    Several processes take whole batches by turns, so that the batches, and with them the scores, are
    those of one process; each returns all scores. A video that cannot be read raises its error; nothing
    takes its place. Given a list ``bad``, it is appended there, and its scores are NaN, which every
    measure counts as wrong.

    Raises:
        VideoError: a video cannot be read.
        Stopped: ``stop`` came, here or in another process.
    """
    share = Share() if distributed is None else Share(distributed.rank, distributed.world_size)
    videos_at_once = max(1, batch_size // PROTOCOLS[dataset.protocol].num_views)
    found: list[BadVideo] = []
    loader = make_loader(
        dataset,
        batch_size=videos_at_once,
        num_workers=num_workers,
        shuffle=False,
        share=share,
        whole=True,
        bad=found,
    )
    model.eval()
    ours: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    stopped = False
    with progress_bar("videos", disable=not progress or share.process != 0) as bar:
        task = bar.add_task("evaluating", total=-(-len(dataset) // share.num_processes), note="")
        for batches in loader:
            stopped = stop is not None and stop.requested
            if stopped or (found and bad is None):
                break
            for batch in batches:
                scores = view_scores(model, batch.clips, precision, batch_size=batch_size, average=average)
                ours.append((batch.indices.numpy(), scores))
                bar.advance(task, len(batch.indices))
    mine = (ours, found, stopped)
    everyone = [mine] if distributed is None else distributed.all_gather(mine)
    if any(one[2] for one in everyone):
        raise Stopped
    all_bad = [video for one in everyone for video in one[1]]
    if bad is None and all_bad:
        raise VideoError(all_bad[0].path, all_bad[0].reason)
    if bad is not None:
        bad.extend(all_bad)
    scored = [batch for one in everyone for batch in one[0]]
    return _assemble(dataset, scored, [video.index for video in all_bad], model.head.out_features)


def _assemble(
    dataset: VideoDataset,
    scored: list[tuple[NDArray[np.int64], NDArray[np.float32]]],
    bad: list[int],
    num_classes: int,
) -> Scores:
    """Scores in the order of the data set; NaN for videos that could not be read."""
    logits = np.full((len(dataset), num_classes), np.nan, np.float32)
    num_scored = np.zeros(len(dataset), np.int64)
    for indices, values in scored:
        logits[indices] = values
        num_scored[indices] += 1
    num_scored[bad] += 1
    assert (num_scored == 1).all(), "a video was not scored, or twice"
    return Scores(
        np.array([record.video_id for record in dataset.records]),
        logits,
        label_array(dataset),
        dataset.classes,
    )


def _dataset_to_test(
    run: Run, split: str | None, config: EvalConfig, root: str | Path | None
) -> tuple[VideoDataset, str]:
    """The videos of a split, where the data is now, and the split's name. Raises `ConfigError`."""
    # A single pass reads eight frames a video; a cache of all of them would only cost.
    data = replace(run.recipe.data, cache="none", root=str(root or run.recipe.data.root))
    uncached = replace(run.recipe, data=data)
    split = split or split_to_test(uncached)
    dataset = open_split(uncached, split, view=config, classes=run.classes)
    return dataset, split


def evaluate_run(
    path: str | Path,
    *,
    split: str | None = None,
    config: EvalConfig | None = None,
    root: str | Path | None = None,
    device: str | None = None,
    num_workers: int | None = None,
    weights: WeightsKind = "last",
    progress: bool = True,
) -> dict[str, Any]:
    """Test a run on a split and write ``eval/<split>-<protocol>-<order>[-best].{json,npz}`` into it.

    Under `torchrun` every process calls it and takes a share of the videos; the first one writes.

    Args:
        path: the run folder.
        split: default the recipe's ``data.test_split``, or where the data has none ``data.val_split``.
        config: default the recipe's ``eval``.
        root: where the data set is now; default the recipe's ``data.root``.
        device: default the recipe's ``train.device``, or "auto" where that device is not here.
        num_workers: default the recipe's.
        weights: the last of the run, or those of its best validation.
        progress: draw a progress bar.

    Returns:
        What the JSON holds: protocol, its views and their multiply-adds, split, order, top-1 with its 95%
        interval, top-5, mean-class and per-class accuracy (shares of 1; for multi-label data mean average
        precision), the videos that could not be read and count as wrong, seconds.

    Raises:
        RunError, ConfigError, VideoError: what is wrong and what to do.
    """
    run = open_run(path)
    config = config or run.recipe.eval
    replace(run.recipe, eval=config)  # checks that they go together
    place, precision = pick_test_device(run.recipe, device)
    distributed = Distributed(str(place) if place.index is not None else place.type)
    model = load_model(run, weights).to(distributed.device)
    dataset, split = _dataset_to_test(run, split, config, root)
    bad: list[BadVideo] = []
    start = time.perf_counter()
    scores = score_videos(
        model,
        dataset,
        batch_size=config.batch_size,
        num_workers=run.recipe.data.num_workers if num_workers is None else num_workers,
        precision=precision,
        average=config.average,
        progress=progress,
        bad=bad if config.bad_videos == "wrong" else None,
        distributed=distributed,
    )
    if config.average == "softmax" and not scores.multi_label:
        scores = replace(scores, kind="log_probabilities")
    plan = PROTOCOLS[config.protocol]
    result = EvalResult.measure(
        scores,
        split=split,
        order=config.order,
        model=run.recipe.model.name,
        protocol=config.protocol,
        num_frames=(plan.num_frames or run.recipe.model.num_frames) * plan.num_clips,
        num_views=plan.num_views,
        parameters=count_parameters(model),
        multiply_adds=_multiply_adds(run.recipe, dataset),
        average=config.average,
        bad_videos=tuple(BadVideoEntry(path=str(video.path), reason=video.reason) for video in bad),
        weights=weights,
        weights_hash=weights_hash(run, weights),
        seconds=(seconds := time.perf_counter() - start),
        videos_per_second=len(dataset) / seconds,
    )
    # Only the first process writes; the others get its result.
    return distributed.broadcast_from_rank0(lambda: result.save(run.path, scores).to_json())


def mirror_note(classes: Sequence[str], protocol: Protocol) -> str:
    """A word of warning where a protocol shows mirror images of classes that have a left or a right."""
    plain = flipped_labels(classes, "auto")
    sided = [name for label, name in enumerate(classes) if label not in plain]
    if PROTOCOLS[protocol].crops != "ten" or not sided:
        return ""
    return (
        f"Half the views of {protocol!r} are mirror images, which look like another class to {len(sided)} of the "
        f"{len(classes)} classes, for example {sided[0]!r}; 3crop has none."
    )


def _multiply_adds(recipe: Recipe, dataset: VideoDataset) -> int | None:
    """Multiply-adds of all views of a video, the size of the first video that can be read taken for all."""
    for index in range(len(dataset)):
        try:
            clip = dataset[index].clip
        except VideoError:
            continue
        views, shape = (1, clip.shape) if clip.ndim == 4 else (clip.shape[0], clip.shape[1:])
        model = replace(recipe.model, num_frames=shape[0])
        return views * count_multiply_adds(model, size=(shape[2], shape[3]))
    return None
