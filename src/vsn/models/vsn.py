"""Build TSN, TSM and VSN: a 2D CNN on each frame, and what passes between the frames inside it.

| model | source | between frames |
|---|---|---|
| TSN | Wang et al. 2016 | nothing: scores are averaged |
| TSM | Lin et al. 2018 | a temporal shift in every residual block |
| VSN | Ma et al. | a shuffle in the last block of each stage, a shift in the others |
"""

from __future__ import annotations

from vsn.config import ModelConfig
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.classifier import FrameClassifier
from vsn.models.insertion import insert_temporal


def build(config: ModelConfig) -> FrameClassifier:
    """Build the TSN, TSM or VSN that ``config.name`` names."""
    backbone = build_backbone(config.backbone, in_channels=config.stem_channels)
    if config.kind != "tsn":
        insert_temporal(
            backbone,
            num_frames=config.num_frames,
            block=config.block,
            places=config.places if config.kind == "vsn" else (),
            shift=config.shift or config.kind == "tsm",
            shift_places=config.shift_places,
            shift_div=config.shift_div,
            shift_every=config.shift_every,
        )
    return FrameClassifier(backbone, config, feature_dim=remove_classifier(backbone))
