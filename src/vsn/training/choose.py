"""Choose a recipe for a data set of the user's own, by the device and the number of videos."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from vsn.config import DataConfig, Recipe
from vsn.config.recipes import find_recipe, load_recipe
from vsn.data.background import read_labeled

VIDEOS_PER_MINUTE = 1_200
"""Training videos, counted each time they are shown, of `differences-cpu` on one CPU core: 360 for 60 epochs took 0.3 hours
(`results/two-streams-gestures-cpu.json`)."""
MINUTES = 15


@dataclass(frozen=True)
class Choice:
    """A recipe, and why it was chosen."""

    name: str
    recipe: Recipe
    reason: str
    num_shown: int
    """Training videos that an epoch shows; a clip and its reversed copy (task "arrow") count twice."""

    def expected_minutes(self, recipe: Recipe) -> int | None:
        """Return how long a CPU core trains the recipe with settings changed; None where that is not known."""
        is_known = (recipe.model, recipe.clip) == (self.recipe.model, self.recipe.clip)
        if self.name != "differences-cpu" or not is_known:
            return None
        return math.ceil(self.num_shown * recipe.train.epochs / VIDEOS_PER_MINUTE)


def choose_recipe(data: DataConfig, *, gpu: bool) -> Choice:
    """Choose `finetune` for a GPU; without one `differences-cpu`, with as many epochs as take `MINUTES`, from 5 to 150.

    Frame differences were right for 42% of 15 gestures by people never seen, RGB frames for 10%, on the same crops
    (`results/two-streams-gestures-cpu.json`). ImageNet weights at hand change nothing: an RGB network fine-tuned from them
    took as long and was right on fewer clips (`results/fights-rgb-cpu.json`). Opens no video.

    Raises:
        ConfigError: the data cannot be read.
    """
    records = read_labeled(data, data.train_split)
    num_shown, found = len(records.records), f"{len(records.videos)} training videos"
    if gpu:
        return Choice("finetune", load_recipe(find_recipe("finetune")), f"a GPU, and {found}", num_shown)
    recipe = load_recipe(find_recipe("differences-cpu"))
    epochs = min(max(MINUTES * VIDEOS_PER_MINUTE // num_shown, 5), 150)
    train = dataclasses.replace(recipe.train, epochs=epochs, val_every=max(1, epochs // 6))
    chosen = dataclasses.replace(recipe, train=train)
    return Choice("differences-cpu", chosen, f"no GPU, and {found}", num_shown)
