"""An exported model beside PyTorch: how far apart their scores are, how fast they are, how often they are right."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import ConfigError, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.open import label_array, open_split, split_to_test
from vsn.data.video import VideoError
from vsn.export.exported import ExportedModel, video_logits
from vsn.export.facts import ExportError, Precision
from vsn.inference.forward import view_scores
from vsn.models import VideoClassifier
from vsn.scores.metrics import summarize
from vsn.scores.scores import Scores
from vsn.system.progress import progress_bar

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2, "int8": 0.5}
"""How far the logits of a file may be from PyTorch's, as a share of PyTorch's largest: 1 is as far as they are large.
fp32 is rounding; int8 is approximate, what it costs in accuracy says `export_accuracy`."""


@dataclass(frozen=True)
class Check:
    """An exported model compared with PyTorch on the CPU, on three clips.

    Attributes:
        difference: by batch size, the largest difference of a logit as a share of PyTorch's largest.
        agreement: share of the clips of which both say the same class.
        latency_ms: median milliseconds of one clip, "pytorch" (eager) and "exported", taken in turns; they
            tell on which side of each other the two are, not more, as the machine may be busy.
    """

    difference: dict[int, float]
    agreement: float
    latency_ms: dict[str, float]


def compare(reference: VideoClassifier, exported: ExportedModel, clips: NDArray[np.uint8], *, rounds: int = 5) -> Check:
    """Compare a file with the model it was exported from, clip by clip and all clips at once.

    Args:
        reference: the model, on the CPU, in evaluation mode.
        exported: the file, opened.
        clips: uint8 ``(N, T, C, H, W)``.
        rounds: how often each is timed on the first clip.
    """
    with torch.inference_mode():
        wanted = np.concatenate([reference(torch.from_numpy(clip[None])).numpy() for clip in clips])
    single = np.concatenate([exported(clip[None]) for clip in clips])
    largest = float(np.abs(wanted).max())
    # A share of the largest logit, because a head that was trained little has small ones.
    apart = {
        batch: float(np.abs(found - wanted).max()) / largest
        for batch, found in ((1, single), (len(clips), exported(clips)))
    }
    return Check(
        difference=apart,
        agreement=float((single.argmax(axis=1) == wanted.argmax(axis=1)).mean()),
        latency_ms=_latencies(reference, exported, clips[:1], rounds),
    )


def require_close(check: Check, precision: Precision, path: Path) -> None:
    """Raise `ExportError` when a file differs from PyTorch by more than `TOLERANCES` allows."""
    # A difference that is not a number is the largest there is.
    batch, apart = max(check.difference.items(), key=lambda item: (math.isnan(item[1]), item[1]))
    allowed = TOLERANCES[precision]
    if not apart <= allowed:
        raise ExportError(
            f"{path} is not written: its logits differ from PyTorch's by {apart:.2g} of the largest at batch {batch}, "
            f"and {precision} may differ by {allowed:g}. "
            + (
                "Its ranges fit the clips badly: give more with --calibration-clips, or export without --int8."
                if precision == "int8"
                else "Export to another format, or with another version of torch or of the runtime."
            )
        )


def _latencies(
    reference: VideoClassifier, exported: ExportedModel, clip: NDArray[np.uint8], rounds: int
) -> dict[str, float]:
    tensor = torch.from_numpy(clip)
    calls: dict[str, Callable[[], object]] = {
        "pytorch": lambda: reference(tensor),
        "exported": lambda: exported(clip),
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()  # sets up kernels and caches
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def generated_clips(shape: tuple[int, ...], *, seed: int = 0) -> NDArray[np.uint8]:
    """Clips uint8 of a shape ``(N, T, C, H, W)``: colored patches that move, for want of real ones."""
    generator = np.random.default_rng(seed)
    count, num_frames, channels, height, width = shape
    coarse = generator.integers(0, 256, (count, 1, channels, 8, 8), dtype=np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    patches = coarse[..., rows, :][..., columns]
    moved = [np.roll(patches, t * width // 8, axis=-1) for t in range(num_frames)]
    noise = generator.integers(0, 32, shape, dtype=np.uint8)
    return (np.concatenate(moved, axis=1) // 8 * 7 + noise).astype(np.uint8)


def real_clips(recipe: Recipe, classes: tuple[str, ...]) -> tuple[list[NDArray[np.uint8]], str]:
    """Up to three clips of the split that is tested, and what they are, in words.

    They are uint8 ``(T, C, H, W)``, of one size (the corners that all of them have). No clips, and why, where the
    data cannot be read.
    """
    try:
        split = split_to_test(recipe)
        clips = split_clips(recipe, classes, split, 3)
    except (ConfigError, VideoError) as error:
        return [], f"the data cannot be read: {error}"
    height, width = (min(clip.shape[axis] for clip in clips) for axis in (-2, -1))
    return [clip[..., :height, :width] for clip in clips], f"{len(clips)} clips of split {split!r}"


def split_clips(
    recipe: Recipe, classes: tuple[str, ...], split: str, count: int, *, progress: bool = False
) -> list[NDArray[np.uint8]]:
    """Clips of a split, uint8 ``(T, C, H, W)``, of videos at equal distances in it, as the protocol sees them.

    Of several views the i-th video gives the i-th, in turns, so that all of them occur.

    Raises:
        ConfigError: the data is not where the recipe says, or has classes unknown to the model.
        VideoError: a video cannot be read.
    """
    dataset = open_split(recipe, split, classes=classes)
    count = min(count, len(dataset))
    clips = []
    with progress_bar("videos", disable=not progress) as bar:
        task = bar.add_task("reading clips", total=count, note="")
        for number, index in enumerate(np.arange(count) * len(dataset) // count):
            clip = dataset[int(index)].clip.numpy()
            clips.append(clip if clip.ndim == 4 else clip[number % len(clip)])
            bar.advance(task)
    return clips


def export_accuracy(
    model: VideoClassifier,
    exported: ExportedModel,
    recipe: Recipe,
    classes: tuple[str, ...],
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """Test a file and the model it is of on the same views of the test split.

    Returns:
        "split", "protocol", and under "pytorch" and "exported" what `vsn.scores.metrics.summarize` measures;
        "agreement" is the share of videos of which both say the same class.

    Raises:
        ConfigError, VideoError: the data cannot be read.
    """
    split = split_to_test(recipe)
    dataset = open_split(recipe, split, classes=classes)
    average = recipe.eval.average
    logits: dict[str, list[NDArray[np.float32]]] = {"pytorch": [], "exported": []}
    with progress_bar("videos", disable=not progress) as bar:
        task = bar.add_task("testing both", total=len(dataset), note="")
        for index in range(len(dataset)):
            clip = dataset[index].clip
            logits["pytorch"].append(view_scores(model, clip[None], "fp32", batch_size=1, average=average)[0])
            logits["exported"].append(video_logits(exported, clip.numpy(), average=average))
            bar.advance(task)
    scores = {name: _scores(dataset, values) for name, values in logits.items()}
    said = [one.logits.argmax(axis=1) for one in scores.values()]
    return {
        "split": split,
        "protocol": recipe.eval.protocol,
        **{name: summarize(one).to_dict() for name, one in scores.items()},
        "agreement": float((said[0] == said[1]).mean()),
    }


def _scores(dataset: VideoDataset, logits: Sequence[NDArray[np.float32]]) -> Scores:
    ids = np.array([record.video_id for record in dataset.records])
    return Scores(ids, np.stack(logits), label_array(dataset), dataset.classes)
