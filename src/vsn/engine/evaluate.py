"""Testing: named protocols, every video counted exactly once, frames in or out of order."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.data.dataset import VideoDataset, make_loader
from vsn.data.records import RecordSet, VideoRecord, read_records
from vsn.engine.checkpoint import load_model, open_run
from vsn.engine.scores import Scores, save_evaluation
from vsn.models import VideoClassifier
from vsn.progress import progress_bar


def pick_device(name: str) -> torch.device:
    """The device called ``name``; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"The device is {name!r}, which cannot be used here ({str(error).splitlines()[0]}); use 'auto' or 'cpu'."
        ) from error
    return device


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision on a device; "fp32" is none.

    Raises:
        ConfigError: fp16 without CUDA.
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("train.precision 'fp16' needs a CUDA device; use 'bf16' or 'fp32' here.")
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


def pick_test_device(recipe: Recipe, name: str | None) -> tuple[torch.device, str]:
    """Device and precision to test a run with: ``name``, or what it was trained on where that is here."""
    if name is None:
        try:
            device = pick_device(recipe.train.device)
        except ConfigError:
            device = pick_device("auto")
    else:
        device = pick_device(name)
    precision = recipe.train.precision
    return device, "fp32" if precision == "fp16" and device.type != "cuda" else precision


def test_dataset(recipe: Recipe, split: str, config: EvalConfig, *, classes: Sequence[str]) -> VideoDataset:
    """A split seen as the protocol says, its frames in the order ``config.order``.

    Labels count in ``classes``, the model's, matched by name.

    Raises:
        ConfigError: the data cannot be read, has classes unknown to the model, or lists a video twice.
    """
    records = match_classes(read_records(recipe.data, split), classes)
    counts = Counter(record.video_id for record in records.records)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ConfigError(
            f"{recipe.data.root}: {len(twice)} videos of {split!r} are listed more than once, for example {twice[0]!r}; "
            "every video counts once, so list it once."
        )
    return VideoDataset(
        records,
        clip=recipe.clip,
        num_frames=recipe.model.num_frames,
        train=False,
        protocol=config.protocol,
        order=config.order,
        seed=config.seed,
        cache=recipe.data.cache,
    )


test_dataset.__test__ = False  # type: ignore[attr-defined]  # its name is no invitation to pytest


def match_classes(records: RecordSet, classes: Sequence[str]) -> RecordSet:
    """The records with labels counted in a model's classes, matched by name.

    Raises:
        ConfigError: the data has classes the model does not know.
    """
    unknown = sorted(set(records.classes) - set(classes))
    if unknown:
        raise ConfigError(
            f"The model was not trained on {len(unknown)} of the data's {len(records.classes)} classes, for example "
            f"{unknown[0]!r}; it knows {', '.join(map(repr, list(classes)[:5]))} ..."
        )
    index = {name: i for i, name in enumerate(classes)}
    renumbered: list[VideoRecord] = [
        replace(r, labels=tuple(index[records.classes[label]] for label in r.labels)) for r in records.records
    ]
    return replace(records, records=tuple(renumbered), classes=tuple(classes))


@torch.inference_mode()
def score_videos(
    model: VideoClassifier,
    dataset: VideoDataset,
    *,
    batch_size: int,
    num_workers: int = 0,
    precision: str = "fp32",
    progress: bool = True,
) -> Scores:
    """Run a model over a data set; every video is scored exactly once.

    Raises:
        VideoError: a video cannot be read; nothing takes its place.
    """
    model.eval()
    device = next(model.parameters()).device
    logits = torch.zeros(len(dataset), model.head.out_features)
    num_scored = torch.zeros(len(dataset), dtype=torch.int64)
    loader = make_loader(dataset, batch_size=batch_size, num_workers=num_workers, shuffle=False)
    with progress_bar("videos", disable=not progress) as bar, autocast(device, precision):
        task = bar.add_task("evaluating", total=len(dataset), note="")
        for batches in loader:
            for batch in batches:
                clips = batch.clips.to(device, non_blocking=True)
                logits[batch.indices] = model(clips).float().cpu()
                num_scored[batch.indices] += 1
                bar.advance(task, len(batch.indices))
    assert (num_scored == 1).all(), "a video was not scored, or twice"
    return Scores(
        np.array([record.video_id for record in dataset.records]),
        logits.numpy(),
        np.array([record.label for record in dataset.records], dtype=np.int64),
        dataset.classes,
    )


def evaluate_run(
    path: str | Path,
    *,
    split: str | None = None,
    config: EvalConfig | None = None,
    device: str | None = None,
    num_workers: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Test a run on a split and write ``eval/<split>-<protocol>-<order>.{json,npz}`` into it.

    Args:
        path: the run folder.
        split: default the recipe's ``data.test_split``.
        config: default the recipe's ``eval``.
        device: default the recipe's ``train.device``, or "auto" where that device is not here.
        num_workers: default the recipe's.
        progress: draw a progress bar.

    Returns:
        What the JSON holds: protocol, split, order, top-1 with its 95% interval, top-5, mean-class
        and per-class accuracy (shares of 1), seconds.

    Raises:
        RunError, ConfigError, VideoError: what is wrong and what to do.
    """
    run = open_run(path)
    config = config or run.recipe.eval
    split = split or run.recipe.data.test_split
    place, precision = pick_test_device(run.recipe, device)
    model = load_model(run).to(place)
    # A single pass reads eight frames a video; a cache of all of them would only cost.
    uncached = replace(run.recipe, data=replace(run.recipe.data, cache="none"))
    dataset = test_dataset(uncached, split, config, classes=run.classes)
    start = time.perf_counter()
    scores = score_videos(
        model,
        dataset,
        batch_size=config.batch_size,
        num_workers=run.recipe.data.num_workers if num_workers is None else num_workers,
        precision=precision,
        progress=progress,
    )
    facts = {
        "split": split,
        "protocol": config.protocol,
        "order": config.order,
        "seconds": time.perf_counter() - start,
    }
    return save_evaluation(run.path / "eval", f"{split}-{config.protocol}-{config.order}", scores, facts)
