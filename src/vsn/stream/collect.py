"""Collect the frames of each window as they arrive, and crop them as the model takes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vsn.data.processor import Processor
from vsn.stream.grid import GridWalk, WindowGrid
from vsn.stream.reader import LiveFrame

Stack = tuple[LiveFrame, ...]
"""The consecutive frames of an instant: one, or L + 1 for frame differences."""


@dataclass
class _OpenStack:
    """An incomplete stack."""

    steps: list[int]
    start: float
    """Seconds at which its first frame is on display."""
    frames: list[LiveFrame] = field(default_factory=list)


class WindowCollector:
    """Take frames in order and return the windows that they complete. No window spans a break of the source.

    The `num_consecutive` frames of an instant are neighbors in the source. Where frames are unevenly spaced in time, they
    are those on display at equal distances (`WindowGrid.frame_interval`), as in evaluation. If one of them was dropped,
    the instant starts over with the next frame.
    """

    def __init__(self, grid: WindowGrid, num_consecutive: int = 1) -> None:
        self._grid, self._walk, self._num_consecutive = grid, GridWalk(grid), num_consecutive
        self._stacks: dict[int, Stack] = {}
        """Complete stacks by step."""
        self._open: list[_OpenStack] = []
        """Oldest first: those of close instants overlap."""
        self._next_number = 0
        self._part = 0

    def feed(self, frame: LiveFrame) -> list[tuple[int, list[Stack]]]:
        """Return number and stacks of each window that is complete with the next frame."""
        steps = self._walk.take(frame)
        # After a break neither open stacks nor earlier instants may join what follows.
        if frame.part != self._part:
            self._part = frame.part
            self._stacks.clear()
            self._open.clear()
        # Frames were dropped in between: differences across the hole would show motion that is not there. Restart the
        # stacks of those instants with this frame.
        if frame.number != self._next_number:
            steps = [step for stack in self._open for step in stack.steps] + steps
            self._open.clear()
        self._next_number = frame.number + 1
        interval = self._grid.frame_interval
        if interval:
            # Each instant has its own distances from the frame's begin and end.
            self._open += [_OpenStack([step], max(self._grid.instant(step), frame.seconds)) for step in steps]
        elif steps:
            self._open.append(_OpenStack(steps, frame.seconds))
        # Without the full-size picture: windows of a long stream would keep many of them in memory.
        small = replace(frame, picture=None)
        for stack in self._open:
            num_shown = 1
            if interval:  # how many of its frames begin before the end of this one, less those it has
                num_shown = math.ceil((frame.end - stack.start) / interval - 1e-3) - len(stack.frames)
            num_missing = self._num_consecutive - len(stack.frames)
            stack.frames += [small] * min(num_shown, num_missing)
        complete: list[tuple[int, list[Stack]]] = []
        while self._open and len(self._open[0].frames) == self._num_consecutive:
            stack = self._open.pop(0)
            complete += self._complete(stack.steps, tuple(stack.frames))
        return complete

    def _complete(self, steps: list[int], stack: Stack) -> Iterator[tuple[int, list[Stack]]]:
        for step in steps:
            self._stacks[step] = stack
            window = self._grid.window_of(step)
            if window is None:
                continue
            window_steps = self._grid.steps_of(window)
            # Its first steps are missing if it started before a break.
            if window_steps[0] not in self._stacks:
                continue
            yield window, [self._stacks[step] for step in window_steps]
            # Later windows start later: they need no step before this one's first.
            self._stacks = {step: kept for step, kept in self._stacks.items() if step >= window_steps[0]}


def images_of(stack: Stack) -> np.ndarray:
    """Return the images of a stack: uint8 ``(n, H, W, 3)``."""
    return np.stack([frame.image for frame in stack])


def window_views(stacks: Sequence[np.ndarray], processor: Processor) -> NDArray[np.uint8]:
    """Crop a window as the model takes it: uint8 ``(crops, T, C, h, w)``.

    Stacks are the images of the T instants, uint8 ``(n, H, W, 3)``: n is 1, or L + 1 for frame differences.
    """
    return processor.crops([np.concatenate(stacks).transpose(0, 3, 1, 2)], num_frames=len(stacks))
