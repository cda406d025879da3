"""Evaluate a run on a split: a named protocol, frames in or out of order, every video counted exactly once."""

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
from vsn.data.loader import Share
from vsn.data.open import label_array, open_split, split_to_test
from vsn.data.video import VideoError
from vsn.data.views import PROTOCOLS, window_share
from vsn.inference.forward import pick_test_device, view_loader, view_scores
from vsn.inference.predictor import Average
from vsn.models import VideoClassifier
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.runs.checkpoint import load_model
from vsn.runs.results import BadVideoEntry, EvalResult, variant_of
from vsn.runs.run import WeightsKind, open_run, weights_hash
from vsn.runs.videos import count_trained, count_validated
from vsn.scores.scores import Scores, ScoresError
from vsn.system.distributed import Distributed
from vsn.system.interrupt import Stopped, StopRequest, stop_requests
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

    Several processes take turns at whole batches, so batches and scores are those of one process. Each returns all scores.

    Args:
        model: on its device.
        dataset: with the views of a protocol.
        batch_size: views at once on a GPU.
        num_workers: worker processes that read videos.
        precision: "fp32", "bf16" or "fp16".
        average: what is averaged over views, see `view_scores`.
        progress: draw a progress bar.
        bad: a list to which unreadable videos are appended; their scores are NaN, which every measure counts as wrong.
            None: the first one raises. No other video takes its place in either case.
        distributed: the processes that share the work; every one must call this.
        stop: checked after each batch.

    Raises:
        VideoError: a video cannot be read, and ``bad`` is None; or none can be read.
        ScoresError: a score is NaN or infinite.
        Stopped: ``stop`` was requested, here or in another process.
    """
    # Without torchrun one process reads everything.
    share = Share() if distributed is None else Share(distributed.rank, distributed.world_size)
    local_bad: list[BadVideo] = []
    loader = view_loader(dataset, batch_size=batch_size, num_workers=num_workers, share=share, bad=local_bad, stop=stop)
    model.eval()
    local_scores: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    stopped, not_finite = False, ""
    with progress_bar("videos", disable=not progress or share.rank != 0) as bar:
        task = bar.add_task("evaluating", total=-(-len(dataset) // share.world_size), note="")
        for batches in loader:
            # Between batches, so that a stop waits for the network with one batch at most.
            stopped = stop is not None and stop.requested
            if stopped or (local_bad and bad is None):
                break
            try:
                for batch in batches:
                    scores = view_scores(
                        model,
                        batch.clips,
                        precision,
                        batch_size=batch_size,
                        average=average,
                        window_share=window_share(dataset.protocol, dataset.clip),
                    )
                    local_scores.append((batch.indices.numpy(), scores))
                    bar.advance(task, len(batch.indices))
            except ScoresError as error:
                not_finite = str(error)
                break
    # Gather before raising: a process that raised on its own would leave the others waiting in the all-gather.
    local = (local_scores, local_bad, stopped, not_finite)
    gathered = [local] if distributed is None else distributed.all_gather(local)
    if any(stopped for _, _, stopped, _ in gathered):
        raise Stopped
    if errors := [error for *_, error in gathered if error]:
        raise ScoresError(errors[0])
    all_bad = [video for _, bad_videos, _, _ in gathered for video in bad_videos]
    if bad is None and all_bad:
        raise VideoError(all_bad[0].path, all_bad[0].reason)
    if all_bad and len(all_bad) == len(dataset):
        raise VideoError(all_bad[0].path, f"{all_bad[0].reason} None of the {len(dataset)} videos can be read.")
    if bad is not None:
        bad.extend(all_bad)
    # NaN stays for videos that could not be read.
    logits = np.full((len(dataset), model.head.out_features), np.nan, np.float32)
    num_scored = np.zeros(len(dataset), np.int64)
    for scored, *_ in gathered:
        for indices, values in scored:
            logits[indices] = values
            num_scored[indices] += 1
    num_scored[[video.index for video in all_bad]] += 1
    # The promise of the docstring, checked at every evaluation: a repeated or lost video would change the accuracy.
    assert (num_scored == 1).all(), "a video was not scored, or twice"
    video_ids = np.array([record.video_id for record in dataset.records])
    groups = np.array([record.group for record in dataset.records])
    stated_groups = groups if (groups != "").all() else None
    return Scores(video_ids, logits, label_array(dataset), dataset.classes, stated_groups=stated_groups)


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
    """Evaluate a run on a split, and write the result and the scores into its folder (`vsn.runs.results`).

    Under `torchrun` every process calls it and takes a share of the videos; rank 0 writes.

    Args:
        path: the run folder.
        split: default the recipe's ``data.test_split``, or ``data.val_split`` if the data has no such split.
        config: default the recipe's ``eval``.
        root: where the data set is now, or another data set with the same classes, whose result gets a name of its own;
            default the recipe's ``data.root``.
        device: default the recipe's ``train.device``, or "auto" if this machine does not have it.
        num_workers: default the recipe's.
        weights: the last weights, or those of the best validation.
        progress: draw a progress bar.

    Returns:
        What the JSON holds; the keys are the fields of `vsn.runs.results.EvalResult`.

    Raises:
        RunError: no such run, or no weights yet.
        ConfigError: protocol, split, device or data do not fit.
        VideoError: a video cannot be read, and ``config.bad_videos`` is "stop"; or none can be read.
        ScoresError: a score is NaN or infinite.
    """
    return evaluate_split(
        path,
        split=split,
        config=config,
        root=root,
        device=device,
        num_workers=num_workers,
        weights=weights,
        progress=progress,
    ).to_json()


def evaluate_split(
    path: str | Path,
    *,
    split: str | None = None,
    config: EvalConfig | None = None,
    root: str | Path | None = None,
    device: str | None = None,
    num_workers: int | None = None,
    weights: WeightsKind = "last",
    progress: bool = True,
) -> EvalResult:
    """Do what `evaluate_run` does; return the result with the path of its files."""
    run = open_run(path)
    config = config or run.recipe.eval
    # A single pass reads each video once; a cache of all of them would only cost memory.
    data = replace(run.recipe.data, cache="none", root=str(root or run.recipe.data.root))
    recipe = replace(run.recipe, data=data, eval=config)  # checks that the settings fit each other
    # torchrun chooses the GPU of each process, unless one is named.
    test_device, precision = pick_test_device(run.recipe, device)
    distributed = Distributed(str(test_device) if test_device.index is not None else test_device.type)
    model = load_model(run, weights).to(distributed.device)
    # Now, because a training that goes on may replace the file during the evaluation.
    tested_hash = weights_hash(run, weights)
    split = split or split_to_test(recipe)
    dataset = open_split(recipe, split, view=config, classes=run.classes)
    bad: list[BadVideo] = []
    start = time.perf_counter()
    with stop_requests() as stop:
        try:
            scores = score_videos(
                model,
                dataset,
                batch_size=config.batch_size,
                num_workers=recipe.data.num_workers if num_workers is None else num_workers,
                precision=precision,
                average=config.average,
                progress=progress,
                bad=bad if config.bad_videos == "wrong" else None,
                distributed=distributed,
                stop=stop,
            )
        except Stopped:
            raise stop.error() from None
    # The files must say so: fusing and calibrating scores depends on it.
    is_windows = PROTOCOLS[config.protocol].windows
    if (config.average == "softmax" or is_windows) and not scores.multi_label:
        scores = replace(scores, kind="log_probabilities")
    plan = PROTOCOLS[config.protocol]
    result = EvalResult.measure(
        scores,
        split=split,
        order=config.order,
        model=recipe.model.name,
        protocol=config.protocol,
        num_frames=(plan.num_frames or recipe.model.num_frames) * plan.num_clips,
        num_views=plan.num_views,
        parameters=count_parameters(model),
        multiply_adds=_multiply_adds(recipe, dataset),
        average=config.average,
        bad_videos=tuple(BadVideoEntry(path=str(video.path), reason=video.reason) for video in bad),
        weights=weights,
        weights_hash=tested_hash,
        root=str(Path(data.root).absolute()),
        # Reading and scoring the videos; the files are not written yet.
        seconds=(seconds := time.perf_counter() - start),
        videos_per_second=len(dataset) / seconds,
    )

    def save() -> EvalResult:
        variant = variant_of(run, result)
        ids = scores.video_ids.tolist()
        # Another data set may have the same names.
        num_validated = 0 if "@" in variant else count_validated(run, split, ids)
        num_trained = None if "@" in variant else count_trained(run, ids)
        described = replace(result, variant=variant, num_validated=num_validated, num_trained=num_trained)
        return described.save(run.path, scores)

    return distributed.broadcast_from_rank0(save)


def mirror_note(classes: Sequence[str], protocol: Protocol) -> str:
    """Return a warning if a protocol shows mirror images and some classes distinguish left from right; else ""."""
    # "Swipe left" in a mirror is "swipe right"; classes without a side keep their label.
    keeps_label = flipped_labels(classes, "auto")
    sided = [name for label, name in enumerate(classes) if label not in keeps_label]
    if PROTOCOLS[protocol].crops != "ten" or not sided:
        return ""
    return (
        f"Half the views of {protocol!r} are mirror images, which show another class for {len(sided)} of the "
        f"{len(classes)} classes, for example {sided[0]!r}. Use 3crop, which has no mirror images."
    )


def _multiply_adds(recipe: Recipe, dataset: VideoDataset) -> int | None:
    """Multiply-adds of all views of a video, counted for the size of the first readable video."""
    # The first video may be one that cannot be read.
    for index in range(len(dataset)):
        try:
            clip = dataset[index].clip
        except VideoError:
            continue
        # (T, C, H, W), or (views, T, C, H, W)
        views, shape = (1, clip.shape) if clip.ndim == 4 else (clip.shape[0], clip.shape[1:])
        model = replace(recipe.model, num_frames=shape[0])
        return views * count_multiply_adds(model, size=(shape[2], shape[3]))
    return None
