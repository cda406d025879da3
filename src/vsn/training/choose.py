"""Choose a recipe for a data set of the user's own, by the device and the number of videos."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vsn.config import DataConfig, Recipe
from vsn.config.recipes import find_recipe, load_recipe
from vsn.data.background import read_labeled

VIDEOS_IN_15_MINUTES = 21_600
"""Training videos, counted each time they are shown, that `differences-cpu` was measured to need on one old CPU core in
18 minutes (`results/two-streams-gestures-cpu.json`); two cores take less."""


@dataclass(frozen=True)
class Choice:
    """A recipe, and why it was chosen."""

    name: str
    recipe: Recipe
    reason: str


def choose_recipe(data: DataConfig, *, gpu: bool) -> Choice:
    """Choose `finetune` for a GPU; without one `differences-cpu`, with as many epochs as take about 15 minutes.

    Without a GPU, frame differences from scratch were right for 42% of 15 gestures, and RGB frames from ImageNet weights
    for 7 to 16% (`results/two-streams-gestures-cpu.json`, `results/gestures-15-cpu.json`). Opens no video.

    Raises:
        ConfigError: the data cannot be read.
    """
    num_videos = len(read_labeled(data, data.train_split).records)
    if gpu:
        return Choice("finetune", load_recipe(find_recipe("finetune")), f"a GPU, and {num_videos} training videos")
    recipe = load_recipe(find_recipe("differences-cpu"))
    epochs = min(max(round(VIDEOS_IN_15_MINUTES / num_videos), 5), 150)
    train = dataclasses.replace(recipe.train, epochs=epochs, val_every=max(1, epochs // 6))
    reason = f"no GPU, and {num_videos} training videos, shown {epochs} times in about 15 minutes on two CPU cores"
    return Choice("differences-cpu", dataclasses.replace(recipe, train=train), reason)
