"""The models: `build_model` makes one from its `ModelConfig`, `create_model` from a name."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence

from vsn.config import STAGES, Block, ConfigError, Modality, ModelConfig
from vsn.models.backbones import (
    LoadedWeights,
    build_backbone,
    list_backbones,
    load_pretrained,
    normalisation,
    remove_classifier,
)
from vsn.models.classifier import VideoClassifier
from vsn.models.run_weights import check_run_weights, find_run_weights
from vsn.models.stem import widen_stem
from vsn.models.temporal import insert_temporal


def build_tsn(config: ModelConfig) -> VideoClassifier:
    """TSN (Wang et al. 2016): frames seen one by one, scores averaged."""
    return _build(config, places=(), shift=False)


def build_tsm(config: ModelConfig) -> VideoClassifier:
    """TSM (Lin et al. 2018): a temporal shift in every residual block."""
    return _build(config, places=(), shift=True)


def build_vsn(config: ModelConfig) -> VideoClassifier:
    """VSN (Ma et al.): shuffle in the last block of each stage, shift in the others."""
    return _build(config, places=config.places, shift=config.shift)


MODELS: dict[str, Callable[[ModelConfig], VideoClassifier]] = {
    "tsn": build_tsn,
    "tsm": build_tsm,
    "vsn": build_vsn,
}


def build_model(config: ModelConfig) -> VideoClassifier:
    """Build a model with random weights; `create_model` or a checkpoint fills them.

    Raises:
        ConfigError: no such backbone, or one whose convolutions cannot take the operations.
    """
    if config.num_classes < 1:
        raise ConfigError("model.num_classes is 0; a model needs at least one class.")
    return MODELS[config.name.partition("_")[0]](config)


def initialise(model: VideoClassifier, config: ModelConfig) -> LoadedWeights:
    """Load the weights that ``config.weights`` names into the model's backbone.

    Raises:
        ConfigError: as `load_pretrained`; or a run of another backbone, or shuffled for another T.
    """
    name = config.name.partition("_")[2]
    source = find_run_weights(config.weights)
    if source is not None:
        check_run_weights(source, config)
    whole = build_backbone(name)
    widen_stem(whole, config.stem_channels)
    loaded = load_pretrained(whole, name, config.weights if source is None else str(source.file))
    remove_classifier(whole)
    kept = set(whole.state_dict())
    model.backbone.load_state_dict(whole.state_dict(), strict=True)
    return LoadedWeights(
        tuple(n for n in loaded.loaded if n in kept), tuple(n for n in loaded.missing if n in kept)
    )


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
) -> VideoClassifier:
    """Create a video model by name.

    Args:
        name: ``{tsn,tsm,vsn}_{backbone}``, see `list_models`; timm's are ``vsn_timm/resnet26d``.
        num_classes: outputs of the classifier.
        num_frames: T, frames a clip; a TSM or VSN keeps it.
        weights: "none", a torchvision weight name such as "IMAGENET1K_V2", a file, or a run folder (of
            which the backbone is taken).
        dropout: drop probability before the classifier.
        block: "compact" or "headtail" (VSN; paper, Table 7).
        places: stages whose last block shuffles (VSN; paper, Table 8).
        shift: temporal shift in the other blocks (VSN; paper, Table 9).
        shift_places: stages whose blocks may shift (TSM and VSN).
        shift_div: 1/shift_div of the channels shift each way.
        shift_every: shift every n-th block only.
        modality: "rgb", "flow" or "rgbdiff". Pretrained weights for RGB fit all three.
        flow_length: L, fields of flow or differences a segment.

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
    )
    model = build_model(config)
    if weights != "none":
        initialise(model, config)
    return model


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` takes; ``{tsn,tsm,vsn}_timm/<name>`` come on top.

    Args:
        pattern: with ``*`` and ``?`` as in a shell; names that fit it come back.

    Example:
        >>> list_models("vsn_resnet1??")
        ['vsn_resnet101', 'vsn_resnet152']
    """
    names = [f"{prefix}_{backbone}" for backbone in list_backbones() for prefix in MODELS]
    return fnmatch.filter(names, pattern)


def _build(config: ModelConfig, *, places: Sequence[str], shift: bool) -> VideoClassifier:
    backbone = build_backbone(config.name.partition("_")[2])
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
    return VideoClassifier(
        backbone,
        feature_dim=remove_classifier(backbone),
        num_classes=config.num_classes,
        num_frames=config.num_frames,
        any_num_frames=not (places or shift),
        dropout=config.dropout,
        normalisation=normalisation(backbone, config.modality),
        modality=config.modality,
        num_channels=config.clip_channels,
    )
