"""Define every setting of a run as dataclasses that validate themselves.

A `Recipe` holds all settings of a run. It is read from TOML (`vsn.config.recipes`), changed on the command line and
written to the run folder, from which the model is rebuilt. This package does not import torch, so that `vsn --help`
answers at once.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from vsn.config.about import describe_model
from vsn.config.bench import BenchConfig
from vsn.config.convert import ClassOrder, ConvertConfig
from vsn.config.data import (
    BACKGROUND,
    AugmentConfig,
    ClipSpec,
    DataConfig,
    Decoder,
    FlipRule,
    FlowLayout,
    PreLabelFormat,
    SampledBy,
    Sampling,
    Source,
    Task,
)
from vsn.config.errors import ConfigError, require
from vsn.config.export import ExportConfig, ExportFormat, InputType
from vsn.config.flow import FlowMethod, StoredLayout, Tvl1Config
from vsn.config.model import (
    EXTRA_PLANES,
    MODELS,
    STAGES,
    ZERO_PATH,
    Block,
    ExtraInput,
    Modality,
    ModelConfig,
    NonLocalPool,
    Pairwise,
    Plane,
    split_name,
)
from vsn.config.serve import ServeConfig
from vsn.config.stream import LiveConfig, WindowConfig
from vsn.config.training import EvalConfig, FrameOrder, Protocol, Tracker, TrainConfig


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
        """Check the rules between tables; each table checks its own settings."""
        task, augment = self.data.task, self.augment
        # Several labels are independent sigmoids: neither softmax nor smoothing over classes applies.
        if task == "multilabel":
            smoothing = self.train.label_smoothing
            require(
                self.eval.average == "logits",
                "eval.average is 'softmax'; for data.task 'multilabel' it must be 'logits'.",
            )
            require(
                self.eval.protocol != "fcn-windows",
                "eval.protocol is 'fcn-windows', which averages probabilities of a softmax; for data.task 'multilabel' use "
                "'fcn'.",
            )
            require(smoothing == 0, f"train.label_smoothing is {smoothing}; for data.task 'multilabel' it must be 0.")
        if task == "arrow":
            require(
                not augment.mixup and not augment.cutmix,
                "augment.mixup and augment.cutmix would mix a clip with its reversed copy; turn both off for task 'arrow'.",
            )
        if self.model.modality == "flow":
            # Reversed in time, the stored field of frames (t, t + 1) would have to be that of (t + 1, t).
            require(
                task != "arrow",
                "data.task is 'arrow', but stored flow played backwards is not the reversed video's flow. Set "
                "model.modality to 'rgb' or 'rgbdiff'.",
            )
            require(
                not augment.color_jitter and not augment.rand_augment,
                "augment.color_jitter and augment.rand_augment change colors, which flow does not have; turn them off for "
                "model.modality 'flow' (random_erasing, mixup and cutmix are allowed).",
            )

        if self.model.extra_input:
            require(
                not (augment.rand_augment or augment.mixup or augment.cutmix),
                "augment.rand_augment, mixup and cutmix would move or blend frames without what belongs to their pixels; "
                f"turn them off for {self.model.name}, whose clips carry {self.model.extra_input} (color_jitter and "
                "random_erasing are allowed).",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts as TOML and JSON hold them, lists for tuples; `recipe_from_dict` reads them back."""
        # A round trip through JSON converts nested tuples to lists.
        return json.loads(json.dumps(dataclasses.asdict(self)))
