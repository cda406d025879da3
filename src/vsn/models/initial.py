"""What a model starts from: published weights, a file or a run, brought into its own names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from vsn.config import FRAME_KINDS, ModelConfig
from vsn.models.backbones import (
    LoadedWeights,
    build_backbone,
    current_names,
    download_torchvision,
    is_weight_file,
    load_partial,
    load_pretrained,
    read_weight_file,
    remove_classifier,
)
from vsn.models.bn_inception import nested_names
from vsn.models.classifier import VideoClassifier
from vsn.models.eco import ONLY_IN_ECO
from vsn.models.run_weights import (
    INFLATED_KINDS,
    RunWeights,
    check_run_weights,
    find_run_weights,
    has_same_features,
)
from vsn.models.stem import widen_stem


def initialise(model: VideoClassifier, config: ModelConfig) -> LoadedWeights:
    """Load the weights that ``config.weights`` names into all of the model but its head.

    2D weights of the same names fit the 3D ResNets: they are inflated (`inflate`).

    Returns:
        What was loaded and what was not; names within the backbone come without ``backbone.``.

    Raises:
        ConfigError: as `load_pretrained`; or a run of another model, or shuffled for another T.
    """
    source = find_run_weights(config.weights)
    if source is not None:
        check_run_weights(source, config)
    if config.kind not in FRAME_KINDS:
        return _initialise_body(model.backbone, config, source)
    loaded = _initialise_frames(model.backbone, config, source)
    between = _initialise_between(model, config, source)
    return LoadedWeights(loaded.loaded + between.loaded, loaded.missing + between.missing)


def inflate(body: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of 2D convolutions as those of the 3D ones of the same names (Carreira and Zisserman, 2017).

    A filter is repeated at each of the k steps in time and divided by k, so that the sum, what it says of a
    still clip, stays. Weights ``(O, I, 1, h, w)`` are inflated as ``(O, I, h, w)`` are; others come back as
    they are.
    """
    own = body.state_dict()
    return {name: _inflated(weight, own[name]) if name in own else weight for name, weight in state.items()}


def _inflated(weight: Tensor, like: Tensor) -> Tensor:
    if like.ndim == 5 and weight.ndim == 4:
        weight = weight.unsqueeze(2)
    length = like.shape[2] if like.ndim == 5 else 1
    if length > 1 and weight.ndim == 5 and weight.shape[2] == 1:
        weight = weight.expand(-1, -1, length, -1, -1) / length
    return weight


def _initialise_frames(backbone: nn.Module, config: ModelConfig, source: RunWeights | None) -> LoadedWeights:
    """Fill a 2D backbone, by way of one that still has its classifier."""
    whole = build_backbone(config.backbone)
    widen_stem(whole, config.stem_channels)
    weights = config.weights if source is None else str(source.file)
    loaded = load_pretrained(whole, config.backbone, weights)
    remove_classifier(whole)
    kept = set(whole.state_dict())
    backbone.load_state_dict(whole.state_dict(), strict=True)
    return LoadedWeights(
        tuple(n for n in loaded.loaded if n in kept), tuple(n for n in loaded.missing if n in kept)
    )


def _initialise_between(
    model: VideoClassifier, config: ModelConfig, source: RunWeights | None
) -> LoadedWeights:
    """Fill what a model has between backbone and head (TRN), from a run of the same model alone."""
    own = [name for name in model.state_dict() if not name.startswith(("backbone.", "head."))]
    if not own or source is None or not has_same_features(source, config):
        return LoadedWeights((), tuple(own))
    state = read_weight_file(source.file)
    model.load_state_dict({name: state[name] for name in own}, strict=False)
    return LoadedWeights(tuple(own), ())


def _initialise_body(body: nn.Module, config: ModelConfig, source: RunWeights | None) -> LoadedWeights:
    """Fill a 3D body from a file of its own or of its 2D network's names, a run, or published weights."""
    if config.weights == "none":
        return LoadedWeights((), tuple(body.state_dict()))
    file = source.file if source is not None else Path(config.weights)
    if is_weight_file(file):
        state, shown = nested_names(current_names(read_weight_file(file))), str(file)
    else:
        name = config.backbone if config.kind in INFLATED_KINDS else config.name
        state, shown = dict(download_torchvision(name, config.weights)), config.weights
    unneeded = _CLASSIFIERS + (ONLY_IN_ECO if config.kind.startswith("eco_lite") else ())
    needed = {name: value for name, value in state.items() if not name.startswith(unneeded)}
    return load_partial(body, inflate(body, needed), shown)


_CLASSIFIERS = ("fc.", "classifier.", "last_linear.")
"""How the names of classifiers begin: torchvision's, and that of ports of BN-Inception."""
