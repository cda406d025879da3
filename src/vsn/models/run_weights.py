"""A run as the start of another model: its weights file, and whether they mean the same there.

TSN, TSM and VSN of one backbone have the same names and shapes, so that any of them can start any other;
what differs is what happens between frames, which is said. A shuffled channel means a frame, so that
shuffled weights do not go over to another T.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vsn.config import FRAME_KINDS, ConfigError, ModelConfig, split_name

INFLATED_KINDS = ("c2d", "i3d", "i3d-fine", "nl-c2d", "nl-i3d", "nl-i3d-fine")
"""3D ResNets with the names of the 2D one, whose weights they take inflated."""


@dataclass(frozen=True)
class RunWeights:
    """The weights of a run, and the model they are of."""

    file: Path
    config: Mapping[str, Any]
    """The settings of its `ModelConfig`, as they were stored with the weights."""

    @property
    def backbone(self) -> str:
        """The backbone's name."""
        return split_name(str(self.config["name"]))[1]

    @property
    def kind(self) -> str:
        """What the model is, without its backbone: "vsn", "s3d"."""
        return split_name(str(self.config["name"]))[0]


def find_run_weights(weights: str) -> RunWeights | None:
    """The run whose folder, or whose weights file, ``model.weights`` names; None when it names none.

    A folder is a run when it has a recipe.toml; its last weights are taken. Another weights file of it,
    such as best.safetensors, can be named itself.

    Raises:
        ConfigError: a run without weights yet, or a file that is damaged.
    """
    path = Path(weights)
    if weights != "none" and (path / "recipe.toml").is_file():
        path = path / "model.safetensors"
        if not path.is_file():
            raise ConfigError(
                f"model.weights names the run {weights}, which has no {path.name} yet: its training has not finished "
                "an epoch."
            )
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            stored = json.loads((file.metadata() or {}).get("model", "null"))
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as weights: {error}") from error
    return RunWeights(path, stored) if isinstance(stored, dict) and "name" in stored else None


def check_run_weights(source: RunWeights, config: ModelConfig) -> None:
    """Refuse what cannot start this model.

    Raises:
        ConfigError: another backbone, another network, or shuffled weights of another T.
    """
    if source.backbone and config.backbone and source.backbone != config.backbone:
        raise ConfigError(
            f"model.weights names a run of the backbone {source.backbone!r} ({source.file}), and model.name is "
            f"{config.name!r}, of the backbone {config.backbone!r}. Weights go over between TSN, TSM, VSN and TRN of one "
            f"backbone; set model.name to one of {source.backbone!r}, or take another run."
        )
    there, here = _names_of(source.kind), _names_of(config.kind)
    if there != here and (there, here) != ("frames", "inflated"):
        raise ConfigError(
            f"model.weights names a run of {source.config['name']!r} ({source.file}), whose weights do not fit "
            f"{config.name!r}. That starts from {_STARTS.get(here, f'a run of {config.name!r}')}, a file or 'none'."
        )
    former = source.config.get("num_frames")
    shuffled = [settings for settings in (source.config, asdict(config)) if "places" in _temporal(settings)]
    if len(shuffled) == 2 and former != config.num_frames:
        raise ConfigError(
            f"model.num_frames is {config.num_frames}, and {source.file} was trained with {former}. Its shuffled channels "
            f"mean frames: channel c is of frame c // (C / {former}), and would be misread. Set model.num_frames to "
            f"{former}, or start from a TSN, a TSM or published weights."
        )


def has_same_features(source: RunWeights, config: ModelConfig) -> bool:
    """Whether what a run's classifier sees is what this model's will see: else its rows mean nothing here.

    The relations of a TRN and what they give are of its kind and its T; the others hand over the backbone's
    features.
    """
    return not {source.kind, config.kind} & {"trn", "mtrn"} or (
        source.kind == config.kind and source.config.get("num_frames") == config.num_frames
    )


def describe_differences(source: RunWeights, config: ModelConfig) -> list[str]:
    """What the weights of a run will find otherwise in this model, a plain line each."""
    there, here = _temporal(source.config), _temporal(asdict(config))
    before, now = source.kind.upper(), config.kind.upper()
    lines = []
    if before != now:
        how = _what_is_new(source.kind, config.kind)
        lines.append(f"This {now} starts from a {before}: the weights have the same names and shapes, {how}.")
    differing = [
        f"model.{key} was {_shown(there[key])} and is {_shown(here[key])}"
        for key in there
        if key in here and there[key] != here[key]
    ]
    for key, what in (("places", "shuffle"), ("shift_div", "temporal shift")):
        if (key in there) != (key in here) and before == now:
            differing.append(f"it had {'a' if key in there else 'no'} {what}, which is {_now(key in here)}")
    former = source.config.get("num_frames")
    if "shift_div" in there and "shift_div" in here and former != config.num_frames:
        differing.append(
            f"model.num_frames was {former} and is {config.num_frames}, so that a shift reaches over another time"
        )
    modality = source.config.get("modality", "rgb"), asdict(config).get("modality", "rgb")
    if modality[0] != modality[1]:
        differing.append(f"model.modality was {modality[0]} and is {modality[1]}")
    if differing:
        lines.append(f"Other than in {source.file}: {'; '.join(differing)}. The weights get used to it in training.")
    return lines


_STARTS = {
    "frames": "a TSN, TSM, VSN or TRN",
    "inflated": f"a TSN, TSM, VSN or TRN, or a {', '.join(INFLATED_KINDS)}, of the same backbone",
}


def _what_is_new(before: str, now: str) -> str:
    """The end of a sentence on weights of one kind in a model of another that takes them."""
    if now in FRAME_KINDS:
        return "and only what passes between frames is new to them"
    former, present = before.removeprefix("nl-"), now.removeprefix("nl-")
    if former == present:
        return f"and only the non-local blocks are {_now(now.startswith('nl-'))}"
    if {former, present} == {"i3d", "i3d-fine"}:
        return "and only the strides are new to them"
    return "but for the steps in time, over which they are spread evenly"


def _names_of(kind: str) -> str:
    """The networks that share the names of their weights."""
    if kind in FRAME_KINDS:
        return "frames"
    return "inflated" if kind in INFLATED_KINDS else kind.removeprefix("nl-")


def _temporal(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that say what passes between frames and is not in weights: none for a TSN, or a clip of one frame."""
    kind = split_name(str(config["name"]))[0]
    if kind == "tsn" or config.get("num_frames") == 1:
        return {}
    keys: list[str] = []
    if kind == "vsn" and config.get("places"):
        keys += ["places", "block"]
    if kind == "tsm" or (kind == "vsn" and config.get("shift")):
        keys += ["shift_div", "shift_places", "shift_every"]
    if kind.startswith("nl-"):
        keys.append("pairwise")
    if kind.endswith("slowfast"):
        keys.append("alpha")
    plain = {key: config[key] for key in keys if key in config}
    return {key: list(value) if isinstance(value, list | tuple) else value for key, value in plain.items()}


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)


def _now(there: bool) -> str:
    return "new" if there else "gone"
