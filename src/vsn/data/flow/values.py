"""Convert motions to the bytes that are stored and back; read, write and check `flow.json`, which describes them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from vsn.config import ConfigError, Recipe, SampledBy
from vsn.system.files import write_json

METADATA_FILE = "flow.json"
ZERO = 128
"""The byte of no motion: 127.5, rounded up."""


@dataclass(frozen=True)
class FlowMetadata:
    """What the bytes of stored flow mean. The defaults are the convention of TSN, used for flow without `flow.json`."""

    bound: float = 20.0
    """Motion, pixels, that byte 255 stands for; larger motions are clipped."""
    method: str = "tv-l1"
    """How the flow was computed."""
    zero: int = ZERO
    """The byte of no motion."""
    short_side: int | None = None
    """Shorter side, pixels, of the frames whose flow was computed; None: not known."""
    by: SampledBy | None = None
    """Whether its frames were at a constant rate, or as stored (`clip.by`); None: not known."""
    direction: Literal["forward", "backward"] = "forward"
    """forward: field i is the motion from frame i to i + 1; backward: from frame i + 1 to i."""

    def to_json(self) -> dict[str, object]:
        """Return what `flow.json` holds: the usual direction is left out."""
        # An extraction from before there was a direction can be continued.
        usual = {"direction"} if self.direction == "forward" else set()
        return {key: value for key, value in asdict(self).items() if key not in usual}


def expected_flow(recipe: Recipe) -> FlowMetadata:
    """Return how flow must be stored for a recipe's model."""
    model = recipe.model
    side = model.flow_short_side or recipe.clip.short_side
    return FlowMetadata(model.flow_bound, model.flow_method, short_side=side, by=recipe.clip.by)


def flow_to_bytes(flow: np.ndarray, bound: float) -> np.ndarray:
    """Convert motions in pixels, floating point, to bytes: `round(255 (v + bound) / (2 bound))`, halves up.

    Motions beyond `bound` are clipped. Raises `ValueError` for NaN, and for a bound that is not above 0.

    >>> flow_to_bytes(np.array([-25.0, -20.0, 0.0, 10.0, 20.0]), 20.0).tolist()
    [0, 0, 128, 191, 255]
    """
    if bound <= 0:
        raise ValueError(f"bound is {bound}; it must be above 0 pixels.")
    if np.isnan(flow).any():
        raise ValueError("The flow has NaN values, which cannot be stored.")
    shares = (np.clip(flow, -bound, bound).astype(np.float64) + bound) / (2 * bound)
    # Not np.round, which rounds halves to even: 127.5, no motion, must become 128 as in other code bases.
    return np.floor(255 * shares + 0.5).astype(np.uint8)


def bytes_to_flow(stored: np.ndarray, bound: float) -> np.ndarray:
    """Convert stored bytes to motions in pixels, float32, which differ from the original by up to `bound / 255`.

    >>> bytes_to_flow(np.array([0, 255], np.uint8), 20.0).tolist()
    [-20.0, 20.0]
    """
    return ((2.0 * stored.astype(np.float64) / 255 - 1.0) * bound).astype(np.float32)


def write_flow_metadata(folder: str | Path, metadata: FlowMetadata) -> None:
    """Write `flow.json` into the folder of a data set's flow."""
    write_json(Path(folder) / METADATA_FILE, {k: v for k, v in metadata.to_json().items() if v is not None})


def read_flow_metadata(folder: str | Path) -> FlowMetadata | None:
    """Read `flow.json` of a folder; None if there is none. Raises `ConfigError` for invalid content."""
    path = Path(folder) / METADATA_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        side = values.get("short_side")
        return FlowMetadata(
            bound=float(values["bound"]),
            method=str(values["method"]),
            zero=int(values["zero"]),
            short_side=None if side is None else int(side),
            by=values.get("by"),
            direction=values.get("direction", "forward"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is invalid ({type(error).__name__}: {error}). Expected an object such as "
            '{"bound": 20.0, "method": "tv-l1", "zero": 128}. Fix or remove the file.'
        ) from None


def check_flow_metadata(folder: str | Path, stored: FlowMetadata, expected: FlowMetadata) -> None:
    """Raise `ConfigError` unless flow is stored as the model expects it."""
    if differences := differing_metadata(stored, expected):
        raise ConfigError(
            f"{folder}: the flow is not stored as the model needs it: {'; '.join(differences)}. A model needs flow like "
            "that of its training: extract it again, or train with the settings of the flow."
        )


def differing_metadata(stored: FlowMetadata, expected: FlowMetadata) -> list[str]:
    """Describe each difference of stored flow from what the model expects; unknown values are not compared."""
    settings = {
        "bound": "model.flow_bound",
        "method": "model.flow_method",
        "short_side": "model.flow_short_side, or where that is 0 clip.short_side,",
        "by": "clip.by",
        "direction": "the flow to read",
    }
    pairs = ((key, setting, getattr(stored, key), getattr(expected, key)) for key, setting in settings.items())
    differences = [
        f"{key} is {there!r} there, {setting} is {here!r}"
        for key, setting, there, here in pairs
        if there != here and None not in (there, here)
    ]
    if stored.zero != ZERO:
        differences.append(f"{METADATA_FILE} has zero = {stored.zero}, and only {ZERO} is supported")
    return differences
