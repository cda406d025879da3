"""Load pretrained weights into a model: of torchvision or timm, from a file, or of a run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torchvision.models as tv
from safetensors import SafetensorError
from torch import Tensor, nn

from vsn.config import MODELS, ConfigError, ModelConfig
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.classifier import VideoClassifier
from vsn.models.run_weights import RunWeights, check_run_weights, find_run_weights, has_same_features
from vsn.models.stem import fit_stem
from vsn.models.weights_file import NotFiniteError, check_finite, clamp_variances, read_pickled, read_weights

# torchvision's names of classifiers, and that of ports of BN-Inception.
_CLASSIFIERS = ("fc.", "classifier.", "last_linear.")


@dataclass(frozen=True)
class LoadedWeights:
    """The names of the weights that were loaded, and of those that keep their random start."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    run: RunWeights | None = None
    """The run that the weights are of, if any."""

    def describe_missing(self) -> str:
        """List the parts at random start, each by its outermost name below which nothing was loaded: "layer4"."""
        known = {prefix for name in self.loaded for prefix in _prefixes(name)}
        parts = {next((prefix for prefix in _prefixes(name) if prefix not in known), name) for name in self.missing}
        return ", ".join(sorted(parts))


def _prefixes(name: str) -> list[str]:
    """``a.b.c``: ``["a", "a.b", "a.b.c"]``."""
    return list(itertools.accumulate(name.split("."), "{}.{}".format))


def initialize(model: VideoClassifier, config: ModelConfig) -> LoadedWeights:
    """Load the weights that ``config.weights`` names into all of a model but its head.

    Returns:
        Which weights were loaded, by their names without ``backbone.``.

    Raises:
        ConfigError: as `load_pretrained`; or a run of another model, or one whose weights are shuffled for another T.
    """
    run = find_run_weights(config.weights)
    # Check before loading: shuffled weights of another T would load without an error and be wrong.
    if run is not None:
        check_run_weights(run, config)
    if not config.sees_frames:
        return _initialize_body(model.backbone, config, run)
    # The weights include a classifier, which the backbone of the model no longer has: load them into a whole one.
    whole = build_backbone(config.backbone, in_channels=config.stem_channels)
    loaded = load_pretrained(whole, config.backbone, config.weights, run=run)
    remove_classifier(whole)
    model.backbone.load_state_dict(whole.state_dict(), strict=True)
    kept = whole.state_dict().keys()
    names = [name for name in loaded.loaded if name in kept]
    missing = [name for name in loaded.missing if name in kept]
    # Layers between backbone and head (TRN) fit only if they come from the same model.
    between = [name for name in model.state_dict() if not name.startswith(("backbone.", "head."))]
    if between and run is not None and has_same_features(run, config):
        model.load_state_dict({name: run.state[name] for name in between}, strict=False)
        names += between
    else:
        missing += between
    return LoadedWeights(tuple(names), tuple(missing), run)


def _initialize_body(body: nn.Module, config: ModelConfig, run: RunWeights | None) -> LoadedWeights:
    """Load weights into a 3D body: its own, or those of its 2D network, inflated."""
    if config.weights == "none":
        return LoadedWeights((), tuple(body.state_dict()))
    # Inflated networks take published image weights, others their own video weights.
    entry = MODELS[config.kind]
    name = config.backbone if entry.inflated else entry.image_network or config.name
    state = _read_weights(name, config.weights, run)
    state = {name: weight for name, weight in state.items() if not name.startswith(_CLASSIFIERS)}
    state = inflate(body, _converted(body, state))
    return _load_partial(body, state, config.weights, run)


def load_pretrained(backbone: nn.Module, name: str, weights: str, *, run: RunWeights | None = None) -> LoadedWeights:
    """Load pretrained weights into a backbone that still has its own classifier.

    Args:
        backbone: from `build_backbone`; temporal operations may have been inserted.
        name: the backbone's name.
        weights: "none"; a torchvision weight name such as "IMAGENET1K_V2"; for timm "pretrained" or a timm tag; or a file
            (.safetensors, or .pth/.pt with a state dict) with the backbone's weight names. A file may hold only a part of
            the backbone. Weights for RGB fit a widened stem too (`vsn.models.stem.fit_stem`).
        run: the run that `weights` names, if any.

    Raises:
        ConfigError: unknown weight name, a file that does not exist or does not fit, or a failed download (the message
            says what to do offline).
    """
    if weights == "none":
        return LoadedWeights((), tuple(backbone.state_dict()))
    return _load_partial(backbone, _converted(backbone, _read_weights(name, weights, run)), weights, run)


def _converted(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights to the names of a network whose published files have others."""
    convert = getattr(network, "convert_weights", None)
    return convert(state) if callable(convert) else state


def _read_weights(name: str, weights: str, run: RunWeights | None) -> dict[str, Tensor]:
    """Read the state dict of a run, of a file, or of the published weights of the network `name`."""
    if run is not None:
        state = run.state
    elif Path(weights).suffix in {".safetensors", ".pth", ".pt"}:
        state = _read_weight_file(Path(weights))
    elif name.startswith("timm/"):
        return _download_timm(name.removeprefix("timm/"), weights)
    else:
        state = download_torchvision(name, weights)
    if any(key.startswith("backbone.") for key in state):  # a model of ours, whose head is for its own classes
        state = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    # torchvision's DenseNet files still have the old names: ``norm.1`` for ``norm1``.
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {old.sub(r"\1\2", key): value for key, value in state.items()}


def _read_weight_file(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"model.weights names a file that does not exist: {str(path)!r}.")
    try:
        state: Any = read_weights(path) if path.suffix == ".safetensors" else read_pickled(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as weights: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path} holds no state dict (names to tensors).")
    state = clamp_variances(state)
    try:
        check_finite(state)
    except NotFiniteError as error:
        raise ConfigError(f"{path} cannot be used as weights: {error}") from error
    return state


def download_torchvision(name: str, weights: str) -> Mapping[str, Tensor]:
    """Return the state dict of published weights, from torchvision's cache or its server.

    Raises:
        ConfigError: no such weights, or a failed download; says what to do offline.
    """
    if name not in tv.list_models():
        raise ConfigError(f"model.weights is {weights!r}, but {name!r} has no published weights; use a file or 'none'.")
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
            "elsewhere and set model.weights to the file, or set it to 'none' to start at random."
        ) from error


def _download_timm(name: str, weights: str) -> dict[str, Tensor]:
    import timm

    tagged = name if weights == "pretrained" else f"{name}.{weights}"
    try:
        # With the number of classes of `build_backbone`, timm itself leaves out a classifier of, for example, 21,841.
        return timm.create_model(tagged, pretrained=True, num_classes=1000).state_dict()
    except Exception as error:  # timm and the hub raise many types, all meaning "no weights"
        raise ConfigError(
            f"The timm weights {tagged} could not be loaded ({error}). Without a network: set model.weights to a file of "
            "them, or to 'none' to start at random."
        ) from error


def inflate(body: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights of 2D convolutions to those of 3D ones with the same names (Carreira and Zisserman, 2017).

    A filter ``(O, I, h, w)`` or ``(O, I, 1, h, w)`` is repeated along time and divided by the kernel's length, so that its
    response to a still clip does not change. Other weights are returned unchanged.
    """
    targets = body.state_dict()
    inflated = {}
    for name, weight in state.items():
        target = targets.get(name)
        if target is not None and target.ndim == 5:
            weight = weight.unsqueeze(2) if weight.ndim == 4 else weight
            length = target.shape[2]
            if length > 1 and weight.ndim == 5 and weight.shape[2] == 1:
                weight = weight.expand(-1, -1, length, -1, -1) / length
        inflated[name] = weight
    return inflated


def _load_partial(
    network: nn.Module, state: Mapping[str, Tensor], weights: str, run: RunWeights | None
) -> LoadedWeights:
    """Load weights that may be only a part of a network's; those for RGB fit a widened stem."""
    # All is checked before anything is loaded: an error leaves the network unchanged.
    own, state = network.state_dict(), fit_stem(network, state)
    source = weights if run is None else run.file
    unknown = [name for name in state if name not in own]
    if unknown:
        raise ConfigError(
            f"{source}: {len(unknown)} of its {len(state)} names are not the backbone's, for example {unknown[0]!r}; the "
            f"backbone's are like {next(iter(own))!r}. The file must use the backbone's names."
        )
    for name, weight in state.items():
        if weight.shape != own[name].shape:
            raise ConfigError(
                f"{source}: {name!r} has shape {tuple(weight.shape)}, the backbone's has {tuple(own[name].shape)}."
            )
    if not state:
        raise ConfigError(f"{source}: the file holds no weights.")
    network.load_state_dict(state, strict=False)
    # Counters of batches are missing in old files and unused with a fixed momentum.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    return LoadedWeights(tuple(state), tuple(missing), run)
