"""Start a model from the weights of a run: find them, check that they fit, describe what differs.

TSN, TSM and VSN of one backbone have the same weight names and shapes, so that each can start from any other. What differs
is what passes between the frames, which is logged. In a VSN a shuffled channel belongs to a frame, so that its weights do
not fit another T.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from vsn.config import MODELS, ConfigError, ModelConfig
from vsn.config.recipes import recipe_from_dict
from vsn.models.weights_file import read_weights

_ON_FRAMES = "a TSN, TSM, VSN, TRN or Attention Clusters"
"""Models of a 2D backbone on each frame."""


@dataclass(frozen=True)
class RunWeights:
    """The weights file of a run, and the settings of its model."""

    file: Path
    config: ModelConfig
    """As stored with the weights."""

    @cached_property
    def state(self) -> Mapping[str, Tensor]:
        """All weights of the model, read at first use.

        Raises:
            ConfigError: a damaged file.
        """
        try:
            return read_weights(self.file)
        except (OSError, SafetensorError, ValueError) as error:
            raise ConfigError(f"{self.file} cannot be read as weights: {error}") from error


def find_run_weights(weights: str) -> RunWeights | None:
    """Return the run that ``model.weights`` names by its folder or by a weights file of it; None if it names no run.

    A folder is a run if it has a recipe.toml; its last weights are taken. Others, such as best.safetensors, are named by
    their file.

    Raises:
        ConfigError: a run without weights yet, or a damaged file.
    """
    path = Path(weights)
    if weights != "none" and (path / "recipe.toml").is_file():
        path = path / "model.safetensors"
        if not path.is_file():
            raise ConfigError(
                f"model.weights names the folder {weights}, which has no {path.name}: it is a run without a finished epoch, "
                "or a folder of folds. Of folds name the run of one."
            )
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        # Reads the header only: weights are checked before the data, and loaded after it.
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {}).get("model", "null"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as weights: {error}") from error
    if not isinstance(stored, dict) or "name" not in stored:
        return None
    return RunWeights(path, recipe_from_dict({"model": stored}, where=str(path)).model)


def check_run_weights(run: RunWeights, config: ModelConfig) -> None:
    """Check that the weights of a run can start a model.

    Raises:
        ConfigError: another backbone, another network, or shuffled weights of another T.
    """
    old = run.config
    if old.backbone and config.backbone and old.backbone != config.backbone:
        raise ConfigError(
            f"model.weights names {run.file}, a run with the backbone {old.backbone!r}, but model.name is {config.name!r}, "
            f"with {config.backbone!r}. Set model.name to a model on {old.backbone!r}, or choose another run."
        )
    # Image weights can be inflated into a 3D network, but not the other way round.
    from_names, to_names = _weight_names(old), _weight_names(config)
    takes_frames = MODELS[config.kind].inflated
    # The convolutions of a GCN are those of an I3D.
    takes_i3d = to_names == "gcn" and from_names == "c2d"
    if from_names != to_names and not takes_i3d and not (from_names == "frames" and takes_frames):
        sources = {
            "frames": f"a run of {_ON_FRAMES}",
            "c2d": f"a run of {_ON_FRAMES}, C2D or I3D, on the same backbone",
            "gcn": f"a run of {_ON_FRAMES}, C2D, I3D or GCN, on the same backbone",
        }
        own = f"a run of {config.name!r}" + (f", or of {_ON_FRAMES}, on the same backbone" if takes_frames else "")
        raise ConfigError(
            f"model.weights names {run.file}, a run of {old.name!r}, whose weights do not fit {config.name!r}. It can start "
            f"from {sources.get(to_names, own)}, a file or 'none'."
        )
    both_shuffle = all("model.places" in _between_frames(model) for model in (old, config))
    if both_shuffle and old.num_frames != config.num_frames:
        # Channel c is of frame c // (C / T): with another T it would be read as another frame's.
        raise ConfigError(
            f"model.num_frames is {config.num_frames}, but {run.file} was trained with {old.num_frames}, and each of its "
            f"shuffled channels belongs to one of {old.num_frames} frames. Set model.num_frames to {old.num_frames}, or "
            "start from a TSN, a TSM or published weights."
        )


def has_same_features(run: RunWeights, config: ModelConfig) -> bool:
    """Whether the head of this model sees the features that the run's head saw, so that its rows can be reused.

    The relations of a TRN depend on its kind and its T, an attention cluster on its number of units; other models pass
    the backbone's features to the head.
    """
    return _between_backbone_and_head(run.config) == _between_backbone_and_head(config)


def _between_backbone_and_head(config: ModelConfig) -> tuple[str, int]:
    """Name what is there, and the number that its shape depends on; ("", 0) if the head sees the backbone's features."""
    sizes = {"trn": config.num_frames, "mtrn": config.num_frames, "cluster": config.clusters, "gcn": 0}
    return (config.kind, sizes[config.kind]) if config.kind in sizes else ("", 0)


def describe_differences(run: RunWeights, config: ModelConfig) -> list[str]:
    """Describe, a line each, what the weights of a run meet in this model that they were not trained with."""
    old, new = _between_frames(run.config), _between_frames(config)
    kinds = run.config.kind, config.kind
    lines = []
    if kinds[0] != kinds[1]:
        lines.append(f"This {kinds[1].upper()} starts from a {kinds[0].upper()}: {_describe_kinds(*kinds)}.")
    else:
        # Within one kind, the settings of an operation are missing if it is off.
        for key, operation in (("model.places", "video shuffle"), ("model.shift_div", "temporal shift")):
            if (key in old) != (key in new):
                old[operation], new[operation] = ("on" if key in settings else "off" for settings in (old, new))
    if "model.shift_div" in old and "model.shift_div" in new:  # a shift of one frame spans another time
        old["model.num_frames"], new["model.num_frames"] = run.config.num_frames, config.num_frames
    old["model.modality"], new["model.modality"] = run.config.modality, config.modality
    changes = [f"{key} {old[key]} -> {new[key]}" for key in old if key in new and old[key] != new[key]]
    if changes:
        lines.append(f"Settings that differ from {run.file}: {'; '.join(changes)}. Training adapts the weights.")
    return lines


def _describe_kinds(old: str, new: str) -> str:
    if MODELS[new].backbones == "2d":
        return "same weights; only what passes between frames is new to them"
    old_base, new_base = old.removeprefix("nl-"), new.removeprefix("nl-")
    if old_base == new_base:
        return f"same weights; only the non-local blocks are {'new' if new.startswith('nl-') else 'removed'}"
    if new == "gcn":
        return "same convolutions; the graphs, and non-local blocks that were not there, are new to them"
    if {old_base, new_base} == {"i3d", "i3d-fine"}:
        return "same weights; only the strides are new to them"
    return "same weights, inflated along time where kernels are longer"


def _weight_names(config: ModelConfig) -> str:
    """Name the group of networks that share weight names."""
    if config.sees_frames:
        return "frames"
    # C2D and I3D, of the same convolutions; networks with layers of their own share names with no other kind.
    return "c2d" if MODELS[config.kind].module == "peers.i3d" else config.kind.removeprefix("nl-")


def _between_frames(config: ModelConfig) -> dict[str, object]:
    """Collect the settings of what passes between frames, which the weights do not show; none for a TSN or T = 1."""
    if config.any_num_frames or config.num_frames == 1:
        return {}
    # A setting that the kind ignores is left out, so that a change of it is not reported.
    keys: list[str] = []
    if config.kind == "vsn" and config.places:
        keys += ["places", "block"]
    if config.kind == "tsm" or (config.kind == "vsn" and config.shift):
        keys += ["shift_div", "shift_places", "shift_every"]
    if config.has_non_local:
        keys += ["pairwise", "non_local_pool", "non_local_scale"]
    if config.kind.endswith("slowfast"):
        keys.append("alpha")
    return {f"model.{key}": getattr(config, key) for key in keys}
