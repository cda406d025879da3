"""How many videos a step fit into memory: `vsn train RECIPE --find-batch-size`."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import psutil
import torch

from vsn.config import Recipe
from vsn.data.readers import read_records
from vsn.inference.forward import autocast
from vsn.models import VideoClassifier, build_model
from vsn.system.distributed import pick_device
from vsn.training.memory import checkpoint_activations, largest_batch, to_channels_last
from vsn.training.optim import build_optimizer, freeze_parts

MOST = 4096
"""No step is tried with more videos than this."""
SHARE = 0.85
"""Of what is free on the CPU; the rest is for the loaders."""


class TrialStep:
    """Training steps of any number of random clips, with a recipe's network and optimizer."""

    def __init__(self, recipe: Recipe, num_classes: int, device: torch.device) -> None:
        self.recipe, self.device, self.num_classes = recipe, device, num_classes
        model = build_model(_with_classes(recipe, num_classes).model).to(device)
        if recipe.train.channels_last:
            to_channels_last(model)
        model.train()
        freeze_parts(model, recipe.train)
        if recipe.train.checkpoint_activations:
            checkpoint_activations(model)
        self.model: VideoClassifier = model
        self.optimizer = build_optimizer(model, recipe.train, fresh=())

    def __call__(self, num_videos: int) -> None:
        """One step; raises what PyTorch raises when memory runs out."""
        size, model = self.recipe.clip.crop_size, self.recipe.model
        shape = (num_videos, model.num_frames, model.clip_channels, size, size)
        clips = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        with autocast(self.device, self.recipe.train.precision):
            logits = self.model(clips)
        self.optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(
            logits.float(), torch.zeros(num_videos, dtype=torch.int64, device=self.device)
        ).backward()
        self.optimizer.step()


def find_batch_size(recipe: Recipe) -> str:
    """Find how many videos of a recipe fit into memory at once; return what to set, as a sentence or two.

    On a GPU steps are tried until one does not fit. On the CPU, where the system would end the process,
    the peaks of small steps tell what a video costs.

    Raises:
        ConfigError: the data cannot be read, or no such device.
    """
    device = pick_device(recipe.train.device)
    step = TrialStep(recipe, len(read_records(recipe.data, recipe.data.train_split).classes), device)
    fits = largest_batch(step, most=MOST) if device.type == "cuda" else _fits_on_cpu(step)
    return describe_fit(fits, recipe, device)


def describe_fit(fits: int, recipe: Recipe, device: torch.device) -> str:
    """What the largest number of videos means for a recipe."""
    config = recipe.train
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine's memory"
    if not fits:
        return f"Not even one video fits into {place}. Set train.checkpoint_activations, or a smaller clip.crop_size."
    said = f"{fits} videos fit into {place} at once" + (" (no more were tried)" if fits == MOST else "") + ". "
    part = math.ceil(config.batch_size / config.accumulate)
    if part <= fits:
        return said + f"The recipe takes {part} at once on one process, so it fits as it is."
    parts = math.ceil(config.batch_size / fits)
    return (
        said + f"The recipe takes {part} at once on one process: set train.accumulate = {parts} (the same steps, in "
        f"parts of {math.ceil(config.batch_size / parts)}), start more processes, or set train.batch_size = {fits}."
    )


def _fits_on_cpu(step: TrialStep) -> int:
    step(2)
    few = _peak_bytes()
    step(8)  # enough for the peak of two to be passed
    each = max(1.0, (_peak_bytes() - few) / 6)
    free = psutil.virtual_memory().available * SHARE
    return min(MOST, 8 + int(max(0.0, free) / each))


def _peak_bytes() -> int:
    """The most memory this process ever held."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _with_classes(recipe: Recipe, num_classes: int) -> Recipe:
    return replace(recipe, model=replace(recipe.model, num_classes=num_classes))
