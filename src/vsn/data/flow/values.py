"""The values of stored flow: pixels to bytes and back, and the file that says which convention holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vsn.config import ConfigError, Recipe
from vsn.system.files import write_json

FACTS = "flow.json"
ZERO = 128
"""The byte of no motion: 127.5, rounded up."""


@dataclass(frozen=True)
class FlowFacts:
    """What the bytes of stored flow mean. The defaults are the field's, for flow that says nothing."""

    bound: float = 20.0
    """Pixels of motion that byte 255 stands for; more is cut off."""
    method: str = "tv-l1"
    """How the flow was computed."""
    zero: int = ZERO
    """The byte of no motion."""
    short_side: int | None = None
    """Shorter side, pixels, of the frames whose flow was computed; None: not known."""


def wanted_flow(recipe: Recipe) -> FlowFacts:
    """How the flow that a recipe's model looks at is to be stored."""
    model = recipe.model
    side = model.flow_short_side or recipe.clip.short_side
    return FlowFacts(model.flow_bound, model.flow_method, short_side=side)


def flow_to_bytes(flow: np.ndarray, bound: float) -> np.ndarray:
    """Motions in pixels, floating point, as bytes: `round(255 (v + bound) / (2 bound))`, halves up.

    Motions beyond `bound` are cut off. Raises `ValueError` for a motion that is not a number, and for
    a bound that is not above 0.

    >>> flow_to_bytes(np.array([-25.0, -20.0, 0.0, 10.0, 20.0]), 20.0).tolist()
    [0, 0, 128, 191, 255]
    """
    if bound <= 0:
        raise ValueError(f"bound is {bound}; it must be above 0 pixels.")
    if np.isnan(flow).any():
        raise ValueError("the flow has motions that are not numbers; nothing can be stored for them.")
    shares = (np.clip(flow, -bound, bound).astype(np.float64) + bound) / (2 * bound)
    return np.floor(255 * shares + 0.5).astype(np.uint8)


def bytes_to_flow(stored: np.ndarray, bound: float) -> np.ndarray:
    """Stored bytes as motions in pixels, float32; within half a step, `bound / 255`, of what was stored.

    >>> bytes_to_flow(np.array([0, 255], np.uint8), 20.0).tolist()
    [-20.0, 20.0]
    """
    return ((2.0 * stored.astype(np.float64) / 255 - 1.0) * bound).astype(np.float32)


def write_flow_facts(folder: str | Path, facts: FlowFacts) -> None:
    """Write `flow.json` into the folder of a data set's flow."""
    write_json(Path(folder) / FACTS, {k: v for k, v in asdict(facts).items() if v is not None})


def read_flow_facts(folder: str | Path) -> FlowFacts | None:
    """What `flow.json` in a folder says; None without that file. Raises `ConfigError` for another content."""
    file = Path(folder) / FACTS
    if not file.is_file():
        return None
    try:
        stated = json.loads(file.read_text(encoding="utf-8"))
        side = stated.get("short_side")
        return FlowFacts(
            float(stated["bound"]),
            str(stated["method"]),
            int(stated["zero"]),
            None if side is None else int(side),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{file} does not say what the stored flow means ({type(error).__name__}: {error}); it holds an "
            'object such as {"bound": 20.0, "method": "tv-l1", "zero": 128}. Mend or remove it.'
        ) from None


def check_flow_facts(folder: str | Path, stored: FlowFacts, wanted: FlowFacts) -> None:
    """Raise `ConfigError` unless flow is stored as the model wants it."""
    if stored.zero != ZERO:
        raise ConfigError(f"{folder}: its {FACTS} says that {other_zero(stored)} Store the flow anew.")
    for key, setting, there, asked in differing_facts(stored, wanted):
        raise ConfigError(
            f"{folder}: the flow was stored with {key} {there!r}, and {setting} is {asked!r}. A model takes the "
            f"flow it was trained on: store it anew, or train a model with {setting.partition(',')[0]} = {there!r}."
        )


def other_zero(stored: FlowFacts) -> str:
    """Why flow with another byte for no motion is not read."""
    return f"byte {stored.zero} is no motion; {ZERO} is read alone."


def differing_facts(stored: FlowFacts, wanted: FlowFacts) -> list[tuple[str, str, object, object]]:
    """What a model wants otherwise: name, setting that says so, value stored, value wanted."""
    found: list[tuple[str, str, object, object]] = []
    for key, setting in (
        ("bound", "model.flow_bound"),
        ("method", "model.flow_method"),
        ("short_side", "model.flow_short_side, or where that is 0 clip.short_side,"),
    ):
        there, asked = getattr(stored, key), getattr(wanted, key)
        if there != asked and None not in (there, asked):
            found.append((key, setting, there, asked))
    return found
