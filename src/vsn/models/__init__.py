"""The models: `build_model` makes one from its `ModelConfig`, `create_model` from a name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from vsn.config import (
    FRAME_KINDS,
    STAGES,
    VOLUME_BACKBONES,
    VOLUME_KINDS,
    Block,
    ConfigError,
    Modality,
    ModelConfig,
    Pairwise,
)
from vsn.models.backbones import build_backbone, list_backbones, normalization, remove_classifier
from vsn.models.classifier import FrameClassifier
from vsn.models.classifier import VideoClassifier as VideoClassifier
from vsn.models.insertion import insert_temporal
from vsn.models.peers.eco import build_eco, build_eco_lite
from vsn.models.peers.i3d import build_i3d
from vsn.models.peers.r2plus1d import build_r2plus1d
from vsn.models.peers.s3d import build_s3d, build_s3dg
from vsn.models.peers.slowfast import build_slowfast
from vsn.models.peers.trn import build_mtrn, build_trn
from vsn.models.stem import widen_stem
from vsn.models.weights import initialize as initialize


def build_tsn(config: ModelConfig) -> FrameClassifier:
    """TSN (Wang et al. 2016): frames seen one by one, scores averaged."""
    return _build(config, places=(), shift=False)


def build_tsm(config: ModelConfig) -> FrameClassifier:
    """TSM (Lin et al. 2018): a temporal shift in every residual block."""
    return _build(config, places=(), shift=True)


def build_vsn(config: ModelConfig) -> FrameClassifier:
    """VSN (Ma et al.): shuffle in the last block of each stage, shift in the others."""
    return _build(config, places=config.places, shift=config.shift)


MODELS: dict[str, Callable[[ModelConfig], VideoClassifier]] = {
    "tsn": build_tsn,
    "tsm": build_tsm,
    "vsn": build_vsn,
    "c2d": build_i3d,
    "i3d": build_i3d,
    "i3d-fine": build_i3d,
    "nl-c2d": build_i3d,
    "nl-i3d": build_i3d,
    "nl-i3d-fine": build_i3d,
    "slowfast": build_slowfast,
    "nl-slowfast": build_slowfast,
    "trn": build_trn,
    "mtrn": build_mtrn,
    "eco": build_eco,
    "eco_thin": build_eco,
    "eco_lite": build_eco_lite,
    "eco_lite_thin": build_eco_lite,
    "s3d": build_s3d,
    "s3dg": build_s3dg,
    "r2plus1d_18": build_r2plus1d,
    "r2plus1d_34": build_r2plus1d,
    "r2plus1d_34_thin": build_r2plus1d,
}
"""By kind (`vsn.config.split_name`)."""


def build_model(config: ModelConfig) -> VideoClassifier:
    """Build a model with random weights; `create_model` or a checkpoint fills them.

    Raises:
        ConfigError: no such backbone, or one whose convolutions cannot take the operations.
    """
    if config.num_classes < 1:
        raise ConfigError("model.num_classes is 0; a model needs at least one class.")
    return MODELS[config.kind](config)


def create_model(
    name: str,
    *,
    num_classes: int,
    num_frames: int = 8,
    weights: str = "none",
    dropout: float = 0.5,
    block: Block = "compact",
    places: Sequence[str] = STAGES,
    shift: bool = True,
    shift_places: Sequence[str] = STAGES,
    shift_div: int = 8,
    shift_every: int = 1,
    modality: Modality = "rgb",
    flow_length: int = ModelConfig.flow_length,
    pairwise: Pairwise = "embedded-gaussian",
    alpha: int = 8,
) -> VideoClassifier:
    """Create a video model by name.

    Args:
        name: one of `list_models`, such as ``vsn_resnet50``; timm's are ``vsn_timm/resnet26d``.
        num_classes: outputs of the classifier.
        num_frames: T, frames a clip; a TSM or VSN keeps it.
        weights: "none", a torchvision weight name such as "IMAGENET1K_V2", a file, or a run folder (of
            which all but the classifier is taken).
        dropout: drop probability before the classifier.
        block: "compact" or "headtail" (VSN; paper, Table 7), or "pointwise", ours: around the 1x1 convolution.
        places: stages whose last block shuffles (VSN; paper, Table 8).
        shift: temporal shift in the other blocks (VSN; paper, Table 9).
        shift_places: stages whose blocks may shift (TSM and VSN).
        shift_div: 1/shift_div of the channels shift each way.
        shift_every: shift every n-th block only.
        modality: "rgb", "flow" or "rgbdiff". Pretrained weights for RGB fit all three.
        flow_length: L, fields of flow or differences a segment.
        pairwise: "embedded-gaussian" or "dot-product" (networks with nl- in their name).
        alpha: fast frames for each slow one (SlowFast).

    Returns:
        A model that maps a clip ``(B, T, C, H, W)``, uint8 or float in [0, 1], to logits
        ``(B, num_classes)``. C is 3, for flow 2L (x1, y1, x2, y2, ...), for differences 3 (L + 1): the
        frames, which the model subtracts.

    Raises:
        ConfigError: (a ValueError) an impossible setting, backbone or weights.

    Example:
        >>> import torch
        >>> model = create_model("vsn_resnet18", num_classes=5, num_frames=4)
        >>> model(torch.zeros(2, 4, 3, 64, 64, dtype=torch.uint8)).shape
        torch.Size([2, 5])
    """
    config = ModelConfig(
        name=name,
        num_classes=num_classes,
        num_frames=num_frames,
        weights=weights,
        dropout=dropout,
        block=block,
        places=tuple(places),
        shift=shift,
        shift_places=tuple(shift_places),
        shift_div=shift_div,
        shift_every=shift_every,
        modality=modality,
        flow_length=flow_length,
        pairwise=pairwise,
        alpha=alpha,
    )
    model = build_model(config)
    if weights != "none":
        initialize(model, config)
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` takes; ``{tsn,tsm,vsn,trn,mtrn}_timm/<name>`` come on top.

    Args:
        pattern: with ``*`` and ``?`` as in a shell; names that fit it come back.

    Example:
        >>> list_models("vsn_resnet1??")
        ['vsn_resnet101', 'vsn_resnet152']
    """
    frames = [f"{kind}_{name}" for name in list_backbones() for kind in FRAME_KINDS if kind in MODELS]
    volumes = [f"{kind}_{name}" for name in VOLUME_BACKBONES for kind in VOLUME_KINDS if kind in MODELS]
    names = frames + volumes + [kind for kind in MODELS if kind not in FRAME_KINDS + VOLUME_KINDS]
    return fnmatch.filter(names, pattern)


def _build(config: ModelConfig, *, places: Sequence[str], shift: bool) -> FrameClassifier:
    backbone = build_backbone(config.backbone)
    widen_stem(backbone, config.stem_channels)
    if places or shift:
        insert_temporal(
            backbone,
            num_frames=config.num_frames,
            block=config.block,
            places=places,
            shift=shift,
            shift_places=config.shift_places,
            shift_div=config.shift_div,
            shift_every=config.shift_every,
        )
    return FrameClassifier(
        backbone,
        feature_dim=remove_classifier(backbone),
        num_classes=config.num_classes,
        num_frames=config.num_frames,
        any_num_frames=not (places or shift),
        dropout=config.dropout,
        normalization=normalization(backbone, config.modality),
        modality=config.modality,
        num_channels=config.clip_channels,
    )
