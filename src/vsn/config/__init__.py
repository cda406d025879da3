"""Every setting of a run, as dataclasses that check themselves.

A default lives here once. A `Recipe` is the whole of a run: it is read from TOML (`vsn.config.recipes`),
changed on the command line, and written into the run folder, from which the model is rebuilt. This
package imports no torch, so that `vsn --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from vsn.config.bench import BenchConfig
from vsn.config.convert import ClassOrder, ConvertConfig
from vsn.config.data import (
    AugmentConfig,
    ClipSpec,
    DataConfig,
    Decoder,
    FlipRule,
    FlowLayout,
    Sampling,
    Source,
    Task,
)
from vsn.config.errors import ConfigError, require
from vsn.config.export import ExportConfig, ExportFormat, InputType
from vsn.config.flow import FlowMethod, StoredLayout, Tvl1Config
from vsn.config.model import (
    FRAME_KINDS,
    STAGES,
    VOLUME_BACKBONES,
    VOLUME_KINDS,
    WHOLE_KINDS,
    Block,
    Modality,
    ModelConfig,
    Pairwise,
    split_name,
)
from vsn.config.serve import ServeConfig
from vsn.config.stream import LiveConfig, WindowConfig
from vsn.config.training import EvalConfig, FrameOrder, Protocol, Tracker, TrainConfig

__all__ = [
    "FRAME_KINDS",
    "STAGES",
    "VOLUME_BACKBONES",
    "VOLUME_KINDS",
    "WHOLE_KINDS",
    "AugmentConfig",
    "BenchConfig",
    "Block",
    "ClassOrder",
    "ClipSpec",
    "ConfigError",
    "ConvertConfig",
    "DataConfig",
    "Decoder",
    "EvalConfig",
    "ExportConfig",
    "ExportFormat",
    "FlipRule",
    "FlowLayout",
    "FlowMethod",
    "FrameOrder",
    "InputType",
    "LiveConfig",
    "Modality",
    "ModelConfig",
    "Pairwise",
    "Protocol",
    "Recipe",
    "Sampling",
    "ServeConfig",
    "Source",
    "StoredLayout",
    "Task",
    "Tracker",
    "TrainConfig",
    "Tvl1Config",
    "WindowConfig",
    "split_name",
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    clip: ClipSpec = field(default_factory=ClipSpec)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        if self.data.task == "multilabel":
            require(
                self.eval.average == "logits",
                "eval.average is 'softmax'; several labels have no softmax: set it to 'logits' for data.task 'multilabel'.",
            )
            require(
                self.train.label_smoothing == 0,
                f"train.label_smoothing is {self.train.label_smoothing}; with data.task 'multilabel' it must be 0.",
            )
        require(
            not (self.data.task == "arrow" and (self.augment.mixup or self.augment.cutmix)),
            "augment.mixup and augment.cutmix would mix a clip with its reversed copy; turn them off for "
            "data.task 'arrow'.",
        )
        flow = self.model.modality == "flow"
        require(
            not (flow and self.data.task == "arrow"),
            "data.task is 'arrow': stored flow backwards is not the reversed video's flow; take rgb or rgbdiff.",
        )
        require(
            not flow or not (self.augment.color_jitter or self.augment.rand_augment),
            "augment.color_jitter and augment.rand_augment change colors, and flow has none; turn them off for "
            "model.modality 'flow' (random_erasing, mixup and cutmix may stay).",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, lists for tuples; `vsn.config.recipes.recipe_from_dict` reads it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
