"""Find how many videos per step fit into memory: `vsn train RECIPE --find-batch-size`."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace

import psutil
import torch

from vsn.config import Recipe
from vsn.data.background import read_labeled
from vsn.inference.forward import autocast
from vsn.models import VideoClassifier, build_model
from vsn.system.distributed import pick_device
from vsn.system.limits import available_bytes
from vsn.training.memory import checkpoint_activations, is_out_of_memory, to_channels_last
from vsn.training.optim import build_optimizer, freeze_parts

MAX_VIDEOS = 4096
CPU_MEMORY_SHARE = 0.85
"""Of the free memory; the rest is for the workers of the data loader."""


class TrialStep:
    """A training step on any number of blank clips, with the network and optimizer of a recipe."""

    def __init__(self, recipe: Recipe, num_classes: int, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        self.model: VideoClassifier = build_model(replace(recipe.model, num_classes=num_classes)).to(device)
        if recipe.train.channels_last:
            to_channels_last(self.model)
        self.model.train()
        freeze_parts(self.model, recipe.train)
        if recipe.train.checkpoint_activations:
            checkpoint_activations(self.model)
        self.optimizer = build_optimizer(self.model, recipe.train, fresh=())

    def __call__(self, num_videos: int) -> None:
        """Run a step; raises an out-of-memory error if it does not fit."""
        size, model = self.recipe.clip.crop_size, self.recipe.model
        shape = (num_videos, model.num_frames, model.clip_channels, size, size)
        clips = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        labels = torch.zeros(num_videos, dtype=torch.int64, device=self.device)
        with autocast(self.device, self.recipe.train.precision):
            logits = self.model(clips)
        self.optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(logits.float(), labels).backward()
        self.optimizer.step()


def find_batch_size(recipe: Recipe) -> str:
    """Measure how many videos of a recipe fit into memory at once; return a message that says what to set.

    Raises:
        ConfigError: the data cannot be read, or the device is not available.
    """
    device = pick_device(recipe.train.device)
    step = TrialStep(recipe, len(read_labeled(recipe.data, recipe.data.train_split).classes), device)
    max_videos = largest_batch(step, limit=MAX_VIDEOS) if device.type == "cuda" else _estimate_on_cpu(step)
    return describe_fit(max_videos, recipe, device)


def largest_batch(step: Callable[[int], None], *, limit: int) -> int:
    """Return the largest number of videos, up to ``limit``, for which ``step`` fits into memory; 0 if one does not."""
    fits, fails = 0, limit + 1
    while fits + 1 < fails:
        # Double until a step fails, then bisect: 1, 2, 4, 8 (fails), 6, 7.
        num_videos = min(limit, max(1, 2 * fits)) if fails > limit else (fits + fails) // 2
        try:
            step(num_videos)
            fits = num_videos
        except (RuntimeError, torch.OutOfMemoryError) as error:
            if not is_out_of_memory(error):
                raise
            fails = num_videos
        finally:
            # Fragments of this step in the cache would make the next one fail too early.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    return fits


def _estimate_on_cpu(step: Callable[[int], None]) -> int:
    """Extrapolate from the memory of two small steps: the system would kill a process that tries the limit."""
    step(2)
    before = _peak_bytes()
    step(8)  # large enough to exceed the peak of the first step
    bytes_per_video = max(1.0, (_peak_bytes() - before) / 6)
    free = available_bytes() * CPU_MEMORY_SHARE
    return min(MAX_VIDEOS, 8 + int(max(0.0, free) / bytes_per_video))


def _peak_bytes() -> int:
    """Return the peak memory of this process."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def describe_fit(max_videos: int, recipe: Recipe, device: torch.device) -> str:
    """Say whether the recipe fits when ``max_videos`` fit at once, and if not what to set."""
    config = recipe.train
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "the memory of this machine"
    if not max_videos:
        return f"Not even one video fits into {place}. Set train.checkpoint_activations, or a smaller clip.crop_size."
    text = f"{max_videos} videos fit into {place} at once" + (" (the limit)" if max_videos == MAX_VIDEOS else "") + ". "
    at_once = math.ceil(config.batch_size / config.accumulate)
    if at_once <= max_videos:
        return text + f"The recipe has {at_once} at once on one process, which fits."
    parts = math.ceil(config.batch_size / max_videos)
    return (
        text + f"The recipe has {at_once} at once on one process: set train.accumulate = {parts} (the same steps, in "
        f"parts of {math.ceil(config.batch_size / parts)}), start more processes, or set train.batch_size = {max_videos}."
    )
