"""Load pretrained weights into a backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision.models as tv
from safetensors.torch import load_file
from torch import Tensor, nn

from vsn.config import FRAME_KINDS, ConfigError, ModelConfig
from vsn.models.backbones import TORCHVISION_BACKBONES, TORCHVISION_VIDEO, build_backbone, remove_classifier
from vsn.models.classifier import VideoClassifier
from vsn.models.peers.bn_inception import nested_names
from vsn.models.peers.eco import ONLY_IN_ECO
from vsn.models.run_weights import INFLATED_KINDS, RunWeights, check_run_weights, find_run_weights, has_same_features
from vsn.models.stem import fit_stem, widen_stem


@dataclass(frozen=True)
class LoadedWeights:
    """What a weight file gave: names loaded, and names that keep their random start."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]

    def describe_missing(self) -> str:
        """The parts at random start, each by the outermost name under which nothing was loaded: ``layer4``."""
        known = {prefix for name in self.loaded for prefix in _prefixes(name)}
        parts = {next((p for p in _prefixes(name) if p not in known), name) for name in self.missing}
        return ", ".join(sorted(parts))


def _prefixes(name: str) -> list[str]:
    """``a.b.c``: ``["a", "a.b", "a.b.c"]``."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def load_pretrained(backbone: nn.Module, name: str, weights: str) -> LoadedWeights:
    """Load pretrained weights into a backbone that still has its own classifier.

    Args:
        backbone: as `build_backbone` returns it; temporal operations may have been inserted.
        name: the backbone's name.
        weights: "none"; a torchvision weight name such as "IMAGENET1K_V2"; for timm "pretrained" or
            a timm tag; or a file (.safetensors, or .pth/.pt holding a state dict) in the backbone's
            own names. A file may hold a part of the backbone: what it lacks starts at random. Weights
            for RGB fit a widened stem too (`vsn.models.stem.fit_stem`).

    Raises:
        ConfigError: unknown weight name, a file that is absent or does not fit, or a download that
            failed (the message says what to do offline).
    """
    if weights == "none":
        return LoadedWeights((), tuple(backbone.state_dict()))
    path = Path(weights)
    if is_weight_file(path):
        return load_partial(backbone, current_names(read_weight_file(path)), str(path))
    if name.startswith("timm/"):
        return load_partial(backbone, _download_timm(name, weights), weights)
    state = fit_stem(backbone, current_names(download_torchvision(name, weights)))
    backbone.load_state_dict(state, strict=True)
    return LoadedWeights(tuple(backbone.state_dict()), ())


def is_weight_file(path: Path) -> bool:
    """Whether a name means a file of weights, by its ending."""
    return path.suffix in {".safetensors", ".pth", ".pt"}


def read_weight_file(path: Path) -> Mapping[str, Tensor]:
    """The state dict, names to tensors, that a file holds.

    Raises:
        ConfigError: no such file, one that is damaged, or one of something else.
    """
    if not path.is_file():
        raise ConfigError(f"model.weights names a file that is not there: {str(path)!r}.")
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu")
    except Exception as error:  # the readers raise a dozen types for a damaged file
        raise ConfigError(f"{path} cannot be read as weights: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path} holds no state dict (names to tensors).")
    return state


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in today's names: torchvision's DenseNet files still say ``norm.1`` for ``norm1``."""
    if any(name.startswith("backbone.") for name in state):  # a run of ours, whose head knows its own classes
        state = {n.removeprefix("backbone."): v for n, v in state.items() if n.startswith("backbone.")}
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {old.sub(r"\1\2", name): value for name, value in state.items()}


def load_partial(backbone: nn.Module, state: Mapping[str, Tensor], source: str) -> LoadedWeights:
    """Load weights, in the network's own names, that may be a part of it; a stem for RGB fits a widened one.

    Raises:
        ConfigError: names that are not the network's, other shapes, or nothing at all; says it of `source`.
    """
    own, state = backbone.state_dict(), fit_stem(backbone, state)
    unknown = [name for name in state if name not in own]
    if unknown:
        raise ConfigError(
            f"{source}: {len(unknown)} of its {len(state)} names are not the backbone's, for example {unknown[0]!r}; "
            f"the backbone's look like {next(iter(own))!r}. The file must use the backbone's own names."
        )
    wrong = [name for name in state if state[name].shape != own[name].shape]
    if wrong:
        raise ConfigError(
            f"{source}: {wrong[0]!r} has shape {tuple(state[wrong[0]].shape)}, the backbone's {tuple(own[wrong[0]].shape)}."
        )
    if not state:
        raise ConfigError(f"{source}: the file holds no weights.")
    backbone.load_state_dict(state, strict=False)
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    return LoadedWeights(tuple(state), tuple(missing))


def download_torchvision(name: str, weights: str) -> Mapping[str, Tensor]:
    """The state dict of published weights, from torchvision's cache or its server.

    Raises:
        ConfigError: no such weights, or a download that failed; says what to do offline.
    """
    if name not in TORCHVISION_BACKBONES + TORCHVISION_VIDEO:
        raise ConfigError(
            f"model.weights is {weights!r}, but there are no published weights for {name!r}; use a file or 'none'."
        )
    choices = tv.get_model_weights(name)
    if weights not in choices.__members__:
        raise ConfigError(
            f"model.weights is {weights!r}; for {name} torchvision has {', '.join(choices.__members__)}. "
            "A file must end in .safetensors, .pth or .pt; a run folder has a recipe.toml."
        )
    entry = choices[weights]
    try:
        return entry.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"The weights {weights} of {name} could not be downloaded ({error}). Without a network: fetch {entry.url} "
            f"elsewhere and set model.weights to the file, or set it to 'none' to start at random."
        ) from error


def _download_timm(name: str, weights: str) -> Mapping[str, Tensor]:
    import timm

    architecture = name.removeprefix("timm/")
    tagged = architecture if weights == "pretrained" else f"{architecture}.{weights}"
    try:
        # The class count of build_timm: another classifier, of 21,841 classes say, is left out by timm itself.
        return timm.create_model(tagged, pretrained=True, num_classes=1000).state_dict()
    except Exception as error:  # timm and the hub raise many types, all meaning "no weights"
        raise ConfigError(
            f"The timm weights {tagged} could not be had ({error}). Without a network: set model.weights to a "
            "file of them, or to 'none' to start at random."
        ) from error


def initialize(model: VideoClassifier, config: ModelConfig) -> LoadedWeights:
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
        return _initialize_body(model.backbone, config, source)
    loaded = _initialize_frames(model.backbone, config, source)
    between = _initialize_between(model, config, source)
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


def _initialize_frames(backbone: nn.Module, config: ModelConfig, source: RunWeights | None) -> LoadedWeights:
    """Fill a 2D backbone, by way of one that still has its classifier."""
    whole = build_backbone(config.backbone)
    widen_stem(whole, config.stem_channels)
    weights = config.weights if source is None else str(source.file)
    loaded = load_pretrained(whole, config.backbone, weights)
    remove_classifier(whole)
    kept = set(whole.state_dict())
    backbone.load_state_dict(whole.state_dict(), strict=True)
    return LoadedWeights(tuple(n for n in loaded.loaded if n in kept), tuple(n for n in loaded.missing if n in kept))


def _initialize_between(model: VideoClassifier, config: ModelConfig, source: RunWeights | None) -> LoadedWeights:
    """Fill what a model has between backbone and head (TRN), from a run of the same model alone."""
    own = [name for name in model.state_dict() if not name.startswith(("backbone.", "head."))]
    if not own or source is None or not has_same_features(source, config):
        return LoadedWeights((), tuple(own))
    state = read_weight_file(source.file)
    model.load_state_dict({name: state[name] for name in own}, strict=False)
    return LoadedWeights(tuple(own), ())


def _initialize_body(body: nn.Module, config: ModelConfig, source: RunWeights | None) -> LoadedWeights:
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
