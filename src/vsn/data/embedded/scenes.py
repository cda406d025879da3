"""Render the scenes of the embedded data set: groups of classes that differ only in frame order.

A group has a base list of N foreground states, one per frame; a class of the group is a permutation of that list.
Texture, camera shake, distractors and noise do not depend on the class, are stationary, and have the same distribution
when played backwards. So one frame shows the group and nothing of the class within it, and a network that averages single
frames is right for at most one class of each group: 7 of 20 at the level "basic", 4 of 18 at "hard".

N is 8 times an odd number. The centers of 8 equal segments are then exactly N/8 frames apart, and reversing a video, or
rolling it by half, maps them onto one another, so sampling adds no hint of the class:

    N = 24    centers 1 4 7 10 13 16 19 22    reversed (23 - i): 22 19 16 13 10 7 4 1

For the same reason a blink lasts exactly one segment and blinks start whole segments apart: the 8 centers meet each blink
once, in any order. The set is made for 8 frames per clip (16 work too).

A horizontal flip turns "left" into "right" and "clockwise" into "counterclockwise".
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vsn.config.errors import check_range
from vsn.data.embedded.sprites import (
    PATTERNS,
    SHAPES,
    Floats,
    Frames,
    Ints,
    Sprite,
    draw_motion,
    draw_sprite,
    sprite_boxes,
)

_COLOR_HUES = {"red": 0.0, "green": 0.35, "blue": 0.62}

_LAMP_HUES = {"orange": 0.08, "yellow": 0.13}
# Orders in which two lamps blink twice each.
_SIGNALS = tuple(dict.fromkeys(itertools.permutations([color for color in _LAMP_HUES for _ in range(2)])))


def _to_and_fro(subject: str, forth: str, back: str) -> tuple[str, str, str, str]:
    return (
        f"{subject} {forth}, then {back}",
        f"{subject} {forth}, then {back}, then {forth}",
        f"{subject} {back}, then {forth}",
        f"{subject} {back}, then {forth}, then {back}",
    )


GROUPS: dict[str, tuple[str, ...]] = {
    "horizontal": (
        "moving something from left to right",
        "moving something from right to left",
        "something leaving on the right and coming back from the left",
        "something leaving on the left and coming back from the right",
    ),
    "vertical": ("moving something up", "moving something down"),
    "depth": ("something approaching", "something moving away"),
    "appear": ("something appears", "something vanishes"),
    "turning": ("turning something clockwise", "turning something counterclockwise"),
    "blink": ("the bar blinks before the disc", "the disc blinks before the bar"),
    "lamps": tuple(", then ".join(colors) for colors in itertools.permutations(_COLOR_HUES)),
    "swarm": _to_and_fro("dots go", "right", "left"),
    "whirl": _to_and_fro("dots circle", "clockwise", "counterclockwise"),
    "pointer": _to_and_fro("a hand turns", "clockwise", "counterclockwise"),
    "signals": tuple(", then ".join(colors) for colors in _SIGNALS),
}
"""Group -> its classes, whose videos are made of the same frames; the first class shows the base list in order."""

CLASSES: tuple[str, ...] = tuple(name for names in GROUPS.values() for name in names)
"""All class names, in group order; also the folder names of the set."""

NUM_SEGMENTS = 8
_BLINKING = ("blink", "lamps", "signals")
_TO_AND_FRO = ("swarm", "whirl", "pointer")


@dataclass(frozen=True, kw_only=True)
class Difficulty:
    """How hard the scenes are to see. Lengths are fractions of the frame's side, gray values 0 to 255."""

    target_diameter: tuple[float, float] = (0.28, 0.40)
    background_contrast: float = 20.0
    """Largest deviation of the texture from its mean gray."""
    background_saturation: float = 0.3
    """Largest saturation of the texture; targets have 0.8 to 1."""
    pan_per_frame: float = 0.004
    """Standard deviation of the texture's speed on each axis."""
    shake: float = 0.007
    """Standard deviation of the camera's smooth shake on each axis."""
    max_distractors: int = 2
    distractor_diameter: float = 0.08
    noise: float = 2.0
    """Standard deviation of the sensor noise."""
    blink_shift: float = 0.12
    """Largest shift of the blinks against the segments, in segments. Up to 0.5, centers meet every blink; random frames
    of the segments, as in training, miss shift * (1 - shift) of them."""

    def __post_init__(self) -> None:
        check_range(self, "[0, inf)", *(field.name for field in fields(self)))


LEVELS: dict[str, tuple[tuple[str, ...], Difficulty]] = {
    "basic": (("horizontal", "vertical", "depth", "appear", "turning", "blink", "lamps"), Difficulty()),
    "hard": (
        (*_TO_AND_FRO, "signals"),
        Difficulty(
            target_diameter=(0.24, 0.34),
            background_contrast=28.0,
            max_distractors=3,
            distractor_diameter=0.07,
            noise=6.0,
        ),
    ),
}
"""Level -> its groups, and how hard they are to see.

At "hard", objects go to and fro: the order of two or three motions tells the class. Dots move as one in a random layout, by
less than their distances. Four blinks of two similar lamps come at random times."""


@dataclass(frozen=True)
class Blinks:
    """When objects blink, in frames: slot k is [starts[k], starts[k] + length)."""

    starts: tuple[int, ...]
    length: int

    def slot(self, index: int) -> slice:
        """Return the frames of slot `index`."""
        return slice(self.starts[index], self.starts[index] + self.length)


def group_of(class_name: str) -> str:
    """Return the group of a class. Raises `ValueError` for a name that is not in `CLASSES`."""
    for group, members in GROUPS.items():
        if class_name in members:
            return group
    raise ValueError(f"Unknown class {class_name!r}; choose from {', '.join(map(repr, CLASSES))}.")


def class_order(class_name: str, num_frames: int, blinks: Blinks) -> Ints:
    """Return which base state each frame of a class shows: an int64 permutation of 0..num_frames-1.

    In the groups with blinks, the slots of `blinks` change places.
    """
    group = group_of(class_name)
    index = GROUPS[group].index(class_name)
    base = np.arange(num_frames)
    if group in _TO_AND_FRO:
        # Forth in the first half and back in the second: a quarter later, the motion starts in the middle of its way.
        return np.roll(base, -(index * num_frames // 4))
    if group in _BLINKING:
        if group == "signals":
            left = {color: [2 * lamp + 1, 2 * lamp] for lamp, color in enumerate(_LAMP_HUES)}
            turns = tuple(left[color].pop() for color in _SIGNALS[index])
        else:
            # Class number i shows the i-th permutation of the slots; the dark frames between stay.
            turns = list(itertools.permutations(range(len(blinks.starts))))[index]
        order = base.copy()
        for turn, shown in enumerate(turns):
            order[blinks.slot(turn)] = base[blinks.slot(shown)]
        return order
    # "Leaving on the right and coming back from the left" is "left to right", started in the middle.
    rolled = np.roll(base, -(num_frames // 2))
    return (base, base[::-1], rolled, rolled[::-1])[index].copy()


def draw_blinks(group: str, num_frames: int, rng: np.random.Generator, *, shift: float) -> Blinks:
    """Draw slots of one segment each: two with three dark segments between them, three with one, or any four of six.

    At least one segment before the first slot and after the last is dark, so that every blink looks alike between
    neighboring sampled frames: something lights up, something goes dark.
    """
    segment = num_frames // NUM_SEGMENTS
    first, late = int(rng.integers(1, 3)), round(float(rng.uniform(-shift, shift)) * segment)
    if group == "signals":
        segments = 1 + np.sort(rng.permutation(NUM_SEGMENTS - 2)[:4])
    else:
        segments = first + (4 * np.arange(2) if group == "blink" else 2 * np.arange(3))
    return Blinks(tuple((segments * segment + late).tolist()), segment)


def render_scene(
    class_name: str,
    rng: np.random.Generator,
    *,
    size: int,
    num_frames: int,
    difficulty: Difficulty | None = None,
    still_background: bool = False,
) -> Frames:
    """Render one video of a class: `(num_frames, size, size, 3)`, uint8 RGB.

    With equal generators, the classes of a group get the same base list. `still_background` stops the texture and leaves
    out shake, distractors and noise: the classes of a group are then made of exactly the same frames.
    """
    scene = _compose(class_name, rng, size, num_frames, difficulty or Difficulty(), still_background=still_background)
    frames = _pan(scene.texture, size, scene.windows)
    for sprite in (*scene.distractors, *scene.targets):
        draw_sprite(frames, sprite, scene.shake)
    if not still_background:
        _add_noise(frames, rng, scene.noise)
    return frames


def scene_boxes(
    class_name: str, rng: np.random.Generator, *, size: int, num_frames: int, difficulty: Difficulty | None = None
) -> Floats:
    """Return the boxes of the objects that `render_scene` shows with an equal generator, the targets first.

    Left, top, right and bottom in pixels, `(num_objects, num_frames, 4)`; NaN where an object is not seen.
    """
    scene = _compose(class_name, rng, size, num_frames, difficulty or Difficulty(), still_background=False)
    return np.stack(
        [sprite_boxes(sprite, scene.shake, (size, size)) for sprite in (*scene.targets, *scene.distractors)]
    )


def scene_motion(
    class_name: str,
    rng: np.random.Generator,
    *,
    size: int,
    num_frames: int,
    difficulty: Difficulty | None = None,
    backward: bool = False,
) -> Floats:
    """Return how far each point of the frames that `render_scene` shows with an equal generator moves to the next frame.

    x and y in pixels, float32 `(num_frames - 1, size, size, 2)`. Field i is of the points of frame i and their way to frame
    i + 1, `backward` of those of frame i + 1 and their way to frame i. An object that is out of sight there moves as the
    background.
    """
    scene = _compose(class_name, rng, size, num_frames, difficulty or Difficulty(), still_background=False)
    start, end = (slice(1, None), slice(None, -1)) if backward else (slice(None, -1), slice(1, None))
    # The texture is counted in half pixels; the window goes one way, and what it shows the other.
    background = (scene.windows[start] - scene.windows[end]) / 2
    motion = np.broadcast_to(background[:, None, None], (num_frames - 1, size, size, 2)).astype(np.float32)
    for sprite in (*scene.distractors, *scene.targets):
        draw_motion(motion, sprite, scene.shake, backward=backward)
    return motion


@dataclass(frozen=True)
class _Scene:
    texture: _Texture
    windows: Floats
    """(N, 2): place of the frame on the texture, which is counted in half pixels."""
    shake: Floats
    """(N, 2): pixels."""
    targets: list[Sprite]
    distractors: list[Sprite]
    noise: float


def _compose(
    class_name: str,
    rng: np.random.Generator,
    size: int,
    num_frames: int,
    difficulty: Difficulty,
    *,
    still_background: bool,
) -> _Scene:
    """Draw what a video shows, before pixels."""
    group = group_of(class_name)
    # Nothing drawn from the generator depends on the class, only on the group. Keep the order of draws: every change of
    # it gives other videos, and then `_FORMAT` in write.py has to be incremented.
    blinks = draw_blinks(group, num_frames, rng, shift=difficulty.blink_shift)
    sprites = _BASES[group](rng, _Stage(size, num_frames, difficulty, blinks))
    order = class_order(class_name, num_frames, blinks)
    targets = [sprite.reordered(order) for sprite in sprites]
    texture = _texture(rng, size, difficulty)
    start = rng.uniform(0, texture.period, 2)
    if still_background:
        still = np.zeros((num_frames, 2), np.float32)
        return _Scene(texture, np.tile(start, (num_frames, 1)), still, targets, [], 0.0)
    shake = _shake(rng, num_frames, difficulty.shake * size)
    # Twice, because the texture is counted in half pixels.
    speed = 2 * size * difficulty.pan_per_frame * rng.standard_normal(2)
    windows = start + speed * np.arange(num_frames)[:, None] + 2 * shake
    return _Scene(texture, windows, shake, targets, _distractors(rng, size, num_frames, difficulty), difficulty.noise)


# Base lists: one function per group


@dataclass(frozen=True)
class _Stage:
    size: int
    num_frames: int
    difficulty: Difficulty
    blinks: Blinks

    @property
    def share(self) -> Floats:
        """(N,): the time of the middle of each frame, as a fraction of the video, in (0, 1)."""
        return ((np.arange(self.num_frames) + 0.5) / self.num_frames).astype(np.float32)

    def in_slot(self, turn: int) -> NDArray[np.bool_]:
        """Return which frames belong to slot `turn`, bool `(N,)`."""
        visible = np.zeros(self.num_frames, bool)
        visible[self.blinks.slot(turn)] = True
        return visible


def _sweep(rng: np.random.Generator, stage: _Stage, *, axis: int, sign: int) -> list[Sprite]:
    """An object that crosses the frame from outside to outside, with a slight sway across."""
    radius = _target_radius(rng, stage)
    share = stage.share
    # Not quite constant speed: 15% slower or faster in the middle. Start and end stay the same.
    share = share + float(rng.uniform(-0.15, 0.15)) * np.sin(2 * np.pi * share) / (2 * np.pi)
    along = sign * (share - 0.5) * (stage.size + 2 * radius) + stage.size / 2
    sway = float(rng.uniform(0, 0.04)) * np.sin(2 * np.pi * (share * rng.uniform(0.5, 1.5) + rng.uniform()))
    across = stage.size * (rng.uniform(0.3, 0.7) + sway)
    place = np.stack([along, across] if axis == 0 else [across, along], axis=1)
    return [_target(rng, stage, place=place, radius=radius)]


def _depth(rng: np.random.Generator, stage: _Stage) -> list[Sprite]:
    """An object that is three times as large at the end as at the beginning."""
    # Exponential growth: the same ratio between any two frames that are equally far apart.
    largest = 1.35 * _target_radius(rng, stage)
    place = _drift(rng, stage, low=0.4, high=0.6)
    return [_target(rng, stage, place=place, radius=largest * 3 ** (stage.share - 1))]


def _appear(rng: np.random.Generator, stage: _Stage) -> list[Sprite]:
    """An object that appears near the middle of the video."""
    visible = stage.share > rng.uniform(0.4, 0.6)
    place = _drift(rng, stage, low=0.3, high=0.7)
    return [_target(rng, stage, place=place, radius=_target_radius(rng, stage), visible=visible)]


def _turning(rng: np.random.Generator, stage: _Stage) -> list[Sprite]:
    """A pointer that turns clockwise by 0.45 to 0.65 of a turn, from any angle."""
    # Less than a turn over 8 sampled frames: the direction stays unambiguous.
    angle = 2 * np.pi * (rng.uniform() + stage.share * rng.uniform(0.45, 0.65))
    shape = str(rng.choice(["hand", "arrow"]))
    place = _drift(rng, stage, low=0.4, high=0.6)
    radius = 2.0 * _target_radius(rng, stage)
    return [_target(rng, stage, place=place, radius=radius, shape=shape, pattern="tip", angle=angle)]


def _blink(rng: np.random.Generator, stage: _Stage) -> list[Sprite]:
    """A bar, yellow to orange, in the first slot, and a disc, blue to violet, in the second."""
    sprites = []
    for turn, shape in enumerate(("bar", "disc")):
        radius = (2.2 if shape == "bar" else 1.2) * _target_radius(rng, stage)
        hue = rng.uniform(0.05, 0.17) if shape == "bar" else rng.uniform(0.55, 0.8)
        colors = np.stack([_rgb(hue, rng.uniform(0.8, 1), rng.uniform(0.9, 1))] * 2)
        place = np.tile(stage.size * rng.uniform(0.35, 0.65, 2), (stage.num_frames, 1))
        target = _target(rng, stage, place=place, radius=radius, shape=shape, pattern="plain", colors=colors)
        sprites.append(replace(target, visible=stage.in_slot(turn)))
    return sprites


def _lamps(rng: np.random.Generator, stage: _Stage, *, hues: Sequence[float], spread: float = 0.03) -> list[Sprite]:
    """A lamp that lights up in one color per slot: of `hues`, give or take `spread`."""
    place = np.tile(stage.size * rng.uniform(0.3, 0.7, 2), (stage.num_frames, 1))
    radius = 1.1 * _target_radius(rng, stage)
    gray = np.full((2, 3), rng.uniform(25, 45))
    dark = _target(rng, stage, place=place, radius=radius, shape="disc", pattern="plain", colors=gray)
    sprites = [dark]
    for turn, hue in enumerate(hues):
        bright = _rgb(hue + rng.uniform(-spread, spread), rng.uniform(0.85, 1), rng.uniform(0.9, 1))
        colors = np.stack([bright, 0.3 * bright + 0.7 * 255]).astype(np.float32)
        visible = stage.in_slot(turn)
        sprites.append(replace(dark, pattern="glow", colors=colors, radius=0.9 * dark.radius, visible=visible))
    return sprites


def _to_and_fro_share(stage: _Stage) -> Floats:
    """Return the share of the way, `(N,)`: from 0 to 1 in the first half of the video, and back."""
    return 1 - np.abs(2 * stage.share - 1)


def _dots(
    rng: np.random.Generator, stage: _Stage, move: Callable[[NDArray[np.complex128], Floats], NDArray]
) -> list[Sprite]:
    """Two by two to six by six dots all over the frame, in a random layout; the more, the smaller, and the less they move.

    `move` maps a place `(1,)`, as complex pixels from the middle of the frame, and how far dots have gone `(N,)`, pixels, to
    the place in each frame `(N,)`. What leaves the frame comes in again on the other side, so that the mean place of the
    dots says nothing of where they go.
    """
    # Larger than the frame and a dot on each side: they change sides out of sight.
    period = 1.25 * stage.size
    count = int(rng.integers(2, 7))
    spacing = period / count
    radius = float(spacing * rng.uniform(0.12, 0.17))
    colors = np.stack([_rgb(rng.uniform(), rng.uniform(0.8, 1), rng.uniform(0.9, 1))] * 2)
    start = rng.uniform(0, period, 2)
    # In four sampled frames; no two dots are nearer than half the spacing, so that which went where stays clear.
    gone = spacing * rng.uniform(0.2, 0.8) * (_to_and_fro_share(stage) - 0.5)
    sprites = []
    for cell in itertools.product(range(count), repeat=2):
        # Jittered, not drawn at will.
        across, down = start + spacing * (np.array(cell) + rng.uniform(-0.25, 0.25, 2))
        way = _wrapped(move(_wrapped(np.array([across + 1j * down]), period), gone), period)
        place = stage.size / 2 + np.stack([way.real, way.imag], axis=1)
        sprites.append(_target(rng, stage, place=place, radius=radius, shape="disc", pattern="plain", colors=colors))
    return sprites


def _wrapped(places: NDArray[np.complex128], period: float) -> NDArray[np.complex128]:
    """Return places with both coordinates in [-period / 2, period / 2)."""
    half = period / 2
    return ((places.real + half) % period - half) + 1j * ((places.imag + half) % period - half)


def _swarm(rng: np.random.Generator, stage: _Stage) -> list[Sprite]:
    """Dots that go right together, and back."""
    return _dots(rng, stage, lambda start, gone: start + gone)


def _whirl(rng: np.random.Generator, stage: _Stage) -> list[Sprite]:
    """Dots that circle about the middle together, clockwise and back."""
    return _dots(rng, stage, lambda start, gone: start * np.exp(1j * gone / (0.35 * stage.size)))


def _pointer(rng: np.random.Generator, stage: _Stage) -> list[Sprite]:
    """A hand that turns clockwise by 0.04 to 0.3 of a turn, from any angle, and back."""
    angle = 2 * np.pi * (rng.uniform() + rng.uniform(0.04, 0.3) * _to_and_fro_share(stage))
    place = np.tile(stage.size * rng.uniform(0.35, 0.65, 2), (stage.num_frames, 1))
    radius = 1.5 * _target_radius(rng, stage)
    return [_target(rng, stage, place=place, radius=radius, shape="hand", pattern="tip", angle=angle)]


_BASES: dict[str, Callable[[np.random.Generator, _Stage], list[Sprite]]] = {
    "horizontal": partial(_sweep, axis=0, sign=1),
    "vertical": partial(_sweep, axis=1, sign=-1),
    "depth": _depth,
    "appear": _appear,
    "turning": _turning,
    "blink": _blink,
    "lamps": partial(_lamps, hues=tuple(_COLOR_HUES.values())),
    "swarm": _swarm,
    "whirl": _whirl,
    "pointer": _pointer,
    "signals": partial(_lamps, hues=tuple(hue for hue in _LAMP_HUES.values() for _ in range(2)), spread=0.02),
}


def _target_radius(rng: np.random.Generator, stage: _Stage) -> float:
    return float(stage.size * rng.uniform(*stage.difficulty.target_diameter) / 2)


def _drift(rng: np.random.Generator, stage: _Stage, *, low: float, high: float) -> Floats:
    """Draw a slow straight path, pixels `(N, 2)`, whose middle is between the fractions low and high of the frame."""
    middle, way = rng.uniform(low, high, 2), rng.uniform(-0.06, 0.06, 2)
    return (stage.size * (middle + (stage.share[:, None] - 0.5) * way)).astype(np.float32)


def _target(
    rng: np.random.Generator,
    stage: _Stage,
    *,
    place: NDArray[np.floating],
    radius: float | NDArray[np.floating],
    shape: str | None = None,
    pattern: str | None = None,
    colors: NDArray[np.floating] | None = None,
    angle: NDArray[np.floating] | None = None,
    visible: NDArray[np.bool_] | None = None,
) -> Sprite:
    """Make a sprite in bright colors; what is not given is drawn at random."""
    count = stage.num_frames
    body = _rgb(rng.uniform(), rng.uniform(0.8, 1), rng.uniform(0.9, 1))
    accents = (np.full(3, 245.0), 0.4 * body, body[[1, 2, 0]])
    looks = np.stack([body, accents[int(rng.integers(len(accents)))]])
    # Drawn even if not used, so that later draws do not depend on which arguments are given.
    some_shape, some_pattern = str(rng.choice(SHAPES)), str(rng.choice(PATTERNS))
    still = np.full(count, rng.uniform(0, 2 * np.pi))
    turned = still if angle is None else angle
    return Sprite(
        shape=shape or some_shape,
        pattern=pattern or some_pattern,
        colors=(looks if colors is None else colors).astype(np.float32),
        place=place.astype(np.float32),
        radius=np.broadcast_to(np.asarray(radius, np.float32), (count,)),
        heading=np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float32),
        visible=np.ones(count, bool) if visible is None else visible,
    )


def _rgb(hue: float, saturation: float, value: float) -> NDArray[np.float64]:
    return 255.0 * np.asarray(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


# Background, shake, distractors and noise: the same for every class


@dataclass(frozen=True)
class _Texture:
    """A picture at twice the resolution of the frames, periodic in both directions with `period` pixels."""

    period: int
    halves: list[list[Frames]]
    """halves[y][x] has every other row from y on and every other column from x on: a window at half-pixel precision is a
    slice of one of the four."""


def _texture(rng: np.random.Generator, size: int, difficulty: Difficulty) -> _Texture:
    """Draw smooth noise or a sum of waves, in one dull color and its neighbors."""
    period = 3 * size
    if rng.random() < 0.5:
        relief = 0.65 * _value_noise(rng, period, 7) + 0.35 * _value_noise(rng, period, 17)
    else:
        # Four plane waves with whole numbers of periods, so that the texture wraps around.
        table = np.sin(2 * np.pi * np.arange(period) / period).astype(np.float32)
        steps = np.arange(period)
        relief = np.zeros((period, period), np.float32)
        for across, down in rng.integers(-7, 8, (4, 2)):
            relief += 0.25 * table[(across * steps + down * steps[:, None] + rng.integers(period)) % period]
    mean = _rgb(rng.uniform(), rng.uniform(0, difficulty.background_saturation), rng.uniform(0.3, 0.6))
    swing = difficulty.background_contrast * rng.uniform(0.6, 1.0, 3)
    palette = np.clip(mean + np.linspace(-1, 1, 256)[:, None] * swing, 0, 255).astype(np.uint8)
    # Padded by two frames: a window that starts anywhere in the period needs no wrapping.
    levels = np.pad((127.5 * (relief + 1)).astype(np.uint8), (0, 2 * size), mode="wrap")
    return _Texture(period, [[palette.take(levels[y::2, x::2], axis=0) for x in (0, 1)] for y in (0, 1)])


def _value_noise(rng: np.random.Generator, period: int, cells: int) -> Floats:
    """Value noise `(period, period)` in [-1, 1]: random heights on a periodic grid, interpolated smoothly."""
    heights = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    position = np.arange(period) * (cells / period)
    left = position.astype(np.int64)
    right = (left + 1) % cells
    part = (position - left).astype(np.float32)
    part = part * part * (3 - 2 * part)  # smoothstep: no visible grid lines
    rows = heights[left] * (1 - part[:, None]) + heights[right] * part[:, None]
    return rows[:, left] * (1 - part) + rows[:, right] * part


def _pan(texture: _Texture, size: int, corners: NDArray[np.floating]) -> Frames:
    """Cut windows out of the texture; corners `(N, 2)` are x, y in half pixels and wrap around."""
    frames = np.empty((len(corners), size, size, 3), np.uint8)
    for frame, (x, y) in zip(frames, np.rint(corners).astype(np.int64) % texture.period, strict=True):
        frame[:] = texture.halves[y % 2][x % 2][y // 2 : y // 2 + size, x // 2 : x // 2 + size]
    return frames


def _shake(rng: np.random.Generator, num_frames: int, deviation: float) -> Floats:
    """Draw the camera shake, pixels `(N, 2)`: white noise through a symmetric window, which has no direction of time."""
    window = np.array([1.0, 2.0, 3.0, 2.0, 1.0])
    window /= np.linalg.norm(window)
    white = deviation * rng.standard_normal((2, num_frames + len(window) - 1))
    return np.stack([np.convolve(row, window, mode="valid") for row in white], axis=1).astype(np.float32)


def _distractors(rng: np.random.Generator, size: int, count: int, difficulty: Difficulty) -> list[Sprite]:
    """Draw small dull objects that drift straight and come in again on the other side."""
    radius = difficulty.distractor_diameter * size / 2
    sprites = []
    for _ in range(int(rng.integers(difficulty.max_distractors + 1))):
        start, speed = rng.uniform(0, size + 4 * radius, 2), 0.012 * size * rng.standard_normal(2)
        place = (start + speed * np.arange(count)[:, None]) % (size + 4 * radius) - 2 * radius
        dull = _rgb(rng.uniform(), rng.uniform(0.2, 0.45), rng.uniform(0.3, 0.8))
        angle = np.full(count, rng.uniform(0, 2 * np.pi))
        sprites.append(
            Sprite(
                shape=str(rng.choice(SHAPES)),
                pattern="plain",
                colors=np.stack([dull, dull]).astype(np.float32),
                place=place.astype(np.float32),
                radius=np.full(count, radius, np.float32),
                heading=np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32),
                visible=np.ones(count, bool),
            )
        )
    return sprites


def _add_noise(frames: Frames, rng: np.random.Generator, deviation: float) -> None:
    """Add sensor noise in place: each frame gets another window of one field of noise, far faster than new noise."""
    size, spare = frames.shape[1], 32
    field = deviation * rng.standard_normal((size + spare, size + spare, 3), np.float32)
    field = np.rint(field).astype(np.int16)
    for frame, (x, y) in zip(frames, rng.integers(0, spare + 1, (len(frames), 2)), strict=True):
        np.clip(frame + field[y : y + size, x : x + size], 0, 255, out=frame, casting="unsafe")
