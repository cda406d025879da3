"""Track the progress of a training run: the part of `state.pt` that is neither weights nor optimizer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class BestValidation:
    """The validation whose weights are in `best.safetensors`."""

    measure: str
    """`val_top1`, or `val_map` for multi-label data."""
    value: float
    val_loss: float
    step: int
    epoch: float


@dataclass
class TrainState:
    """How far a run has come. Field names are keys in `state.pt`: renaming one breaks resuming older runs."""

    epoch: int = 0
    """Finished epochs."""
    step: int = 0
    """Started steps of the current epoch."""
    loss_sum: float = 0.0
    """Sum of the losses of the videos of the current epoch; `hits` and `videos` count the same videos."""
    hits: float = 0.0
    videos: float = 0.0
    bad: dict[str, str] = field(default_factory=dict)
    """Path of each training video that could not be read, and the reason."""
    fresh: list[str] = field(default_factory=list)
    """Backbone parameters without pretrained weights; see `train.fresh_lr_mult`."""
    best: BestValidation | None = None
    stale: int = 0
    """Validations since the best one."""
    validated: int = 0
    """Step of the last validation within an epoch, counted over the whole run."""
    seconds: float = 0.0
    """Of the finished epochs."""
    epoch_seconds: float = 0.0
    """Of the steps of the current epoch, also before an interruption."""
    line: dict[str, float] | None = None
    """Metrics of the last finished epoch, as written to `metrics.jsonl`."""

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TrainState:
        """Rebuild the progress from what `state_dict` returned, also in older versions."""
        # Bad videos are found again: a file that was repaired since no longer counts.
        best = BestValidation(**state["best"]) if state["best"] else None
        return cls(**state | {"best": best, "bad": {}})

    def state_dict(self) -> dict[str, Any]:
        """Return plain values, which `torch.load(weights_only=True)` accepts."""
        return asdict(self)

    def averages(self) -> tuple[float, float]:
        """Return the mean loss and the top-1 accuracy of the epoch so far; NaN before the first video."""
        videos = self.videos or math.nan
        return self.loss_sum / videos, self.hits / videos

    def finish_epoch(self, line: dict[str, float]) -> None:
        """Count the current epoch as finished, with its metrics, and begin the next."""
        self.epoch, self.line = int(line["epoch"]), line
        self.seconds += line["seconds"]
        self.step, self.loss_sum, self.hits, self.videos, self.epoch_seconds = 0, 0.0, 0.0, 0.0, 0.0
