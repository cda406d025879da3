"""Compare an exported file with PyTorch: difference of the logits, latency, accuracy."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import ConfigError, Recipe
from vsn.data.open import label_array, open_split, split_to_test
from vsn.data.video import VideoError
from vsn.inference.exported import ExportedModel, video_logits
from vsn.inference.exported_metadata import ExportError, Precision
from vsn.inference.forward import view_scores
from vsn.models import VideoClassifier
from vsn.scores.metrics import Summary, summarize
from vsn.scores.scores import Scores
from vsn.system.progress import progress_bar

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2, "int8": 0.5}
"""The largest allowed difference of a logit from PyTorch's, relative to PyTorch's largest logit.
fp32 leaves room for rounding. int8 is approximate; `export_accuracy` measures its cost in accuracy."""

_TIMED_CALLS = 5


@dataclass(frozen=True)
class Check:
    """An exported model compared with PyTorch on the CPU, on three clips."""

    difference: dict[int, float]
    """By batch size, the largest difference of a logit relative to PyTorch's largest."""
    agreement: float
    """Share of the clips with the same predicted class."""
    latency_ms: dict[str, float]
    """Median of one clip, "pytorch" (eager) and "exported", measured in turns. Only their order means something, as the
    machine may be busy."""


@dataclass(frozen=True)
class Accuracy:
    """Results of a file and of its PyTorch model on the same views of the test split."""

    split: str
    protocol: str
    pytorch: Summary
    exported: Summary
    agreement: float
    """Share of the videos with the same predicted class."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {**vars(self), "pytorch": self.pytorch.to_dict(), "exported": self.exported.to_dict()}


def compare(reference: VideoClassifier, exported: ExportedModel, clips: NDArray[np.uint8]) -> Check:
    """Compare a file with the model it was exported from, clip by clip and all clips in one batch.

    The model is on the CPU in evaluation mode; clips are uint8 ``(N, T, C, H, W)``. Both are timed on the first clip.
    """
    with torch.inference_mode():
        expected = np.concatenate([reference(torch.from_numpy(clip[None])).numpy() for clip in clips])
    # One clip at a time and all at once: a file may work for the batch size it was traced with, and no other.
    single = np.concatenate([exported(clip[None]) for clip in clips])
    # Relative to the largest logit, because the head of a barely trained model has small ones.
    largest = float(np.abs(expected).max())
    difference = {
        batch: float(np.abs(logits - expected).max()) / largest
        for batch, logits in ((1, single), (len(clips), exported(clips)))
    }

    tensor, first = torch.from_numpy(clips[:1]), clips[:1]
    calls: dict[str, Callable[[], object]] = {"pytorch": lambda: reference(tensor), "exported": lambda: exported(first)}
    times_ms: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            call()  # set up kernels and caches
        # In turns, so that a busy phase of the machine affects both.
        for _ in range(_TIMED_CALLS):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                times_ms[name].append(1000 * (time.perf_counter() - start))
    return Check(
        difference=difference,
        agreement=float((single.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        latency_ms={name: statistics.median(values) for name, values in times_ms.items()},
    )


def require_close(check: Check, precision: Precision, path: Path) -> None:
    """Raise `ExportError` if a file differs from PyTorch by more than `TOLERANCES` allows."""
    # NaN compares as neither smaller nor larger, so it is put first, and refused below by `not ... <=`.
    batch, difference = max(check.difference.items(), key=lambda item: (math.isnan(item[1]), item[1]))
    allowed = TOLERANCES[precision]
    if not difference <= allowed:
        hint = (
            "Its ranges do not fit the clips: use more with --calibration-clips, or export without --int8."
            if precision == "int8"
            else "Export to another format, or with another version of torch or of the runtime."
        )
        raise ExportError(
            f"{path} was not written: its logits differ from PyTorch's by {difference:.2g} of the largest at batch size "
            f"{batch}; {precision} allows {allowed:g}. {hint}"
        )


def generated_clips(shape: tuple[int, ...], *, seed: int = 0) -> NDArray[np.uint8]:
    """Generate uint8 clips of shape ``(N, T, C, H, W)`` with moving colored patches, if there are no real ones."""
    generator = np.random.default_rng(seed)
    count, num_frames, channels, height, width = shape
    # Not plain noise, of which a network sees nearly the same everywhere.
    coarse = generator.integers(0, 256, (count, 1, channels, 8, 8), dtype=np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    patches = coarse[..., rows, :][..., columns]
    # Each frame shows the patches one eighth of the width further to the right.
    moved = [np.roll(patches, t * width // 8, axis=-1) for t in range(num_frames)]
    noise = generator.integers(0, 32, shape, dtype=np.uint8)
    return (np.concatenate(moved, axis=1) // 8 * 7 + noise).astype(np.uint8)


def real_clips(recipe: Recipe, classes: tuple[str, ...]) -> tuple[NDArray[np.uint8] | None, str]:
    """Return up to three clips of the test split, uint8 ``(N, T, C, H, W)``, cropped to a common size, and what they are.

    If the data set cannot be read, return None and the reason.
    """
    # An export must work on a machine without the data set, so this failure is no error.
    try:
        split = split_to_test(recipe)
        clips = split_clips(recipe, classes, split, 3)
    except (ConfigError, VideoError) as error:
        return None, f"the data set cannot be read: {error}"
    # Whole frames of several videos have several sizes; the file takes any, but one batch needs one.
    height, width = (min(clip.shape[axis] for clip in clips) for axis in (-2, -1))
    return np.stack([clip[..., :height, :width] for clip in clips]), f"{len(clips)} clips of split {split!r}"


def split_clips(
    recipe: Recipe, classes: tuple[str, ...], split: str, count: int, *, progress: bool = False
) -> list[NDArray[np.uint8]]:
    """Read clips, uint8 ``(T, C, H, W)``, of videos at equal distances in a split, as the protocol shows them.

    If the protocol has several views, video i gives view i modulo their number, so that all of them occur.

    Raises:
        ConfigError: the data set is not where the recipe says, or has classes unknown to the model.
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
    model: VideoClassifier, exported: ExportedModel, recipe: Recipe, classes: tuple[str, ...], *, progress: bool = True
) -> Accuracy:
    """Test a file and its PyTorch model on the same views of the test split.

    Raises:
        ConfigError, VideoError: the data set cannot be read.
    """
    # In the same process on the same clips, so that only the runtime differs.
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
    ids = np.array([record.video_id for record in dataset.records])
    pytorch_scores, exported_scores = (
        Scores(ids, np.stack(values), label_array(dataset), dataset.classes) for values in logits.values()
    )
    return Accuracy(
        split=split,
        protocol=recipe.eval.protocol,
        pytorch=summarize(pytorch_scores),
        exported=summarize(exported_scores),
        agreement=float((pytorch_scores.logits.argmax(axis=1) == exported_scores.logits.argmax(axis=1)).mean()),
    )
