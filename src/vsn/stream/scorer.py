"""Score windows that share frames: the part of a network before its first temporal operation runs once per frame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.config import Protocol
from vsn.inference.predictor import Predictor
from vsn.stream.collect import window_views
from vsn.stream.plan import window_processor


class WindowScorer:
    """Compute logits of windows, reusing the features of frames that were in an earlier window.

    Logits are bit-equal with and without earlier windows: each frame passes the first part of the network by itself
    either way. `Predictor.predict` computes that part for all frames of a clip at once, which may round differently.

    Attributes:
        num_frames: T.
        num_consecutive: consecutive frames at each of the T instants: 1, or L + 1 for frame differences.
        note: what is computed once per frame, or why nothing is; for display.
        first_temporal: name of the module where reuse ends, "" if it never does (TSN); None without reuse.
        num_frames_seen: frames of all windows.
        num_frames_computed: how many of these were computed, not reused.

    Raises:
        ConfigError: a run or protocol without windows (`window_processor`).
    """

    def __init__(self, predictor: Predictor, *, protocol: Protocol | None = None, reuse: bool = True) -> None:
        self._predictor = predictor
        self._processor = window_processor(predictor.recipe, protocol)
        self.num_frames = self._processor.num_frames
        self.num_consecutive = predictor.recipe.model.num_consecutive
        self.num_frames_seen = self.num_frames_computed = 0
        self._features: dict[int, Any] = {}
        self._parts, self.note = predictor.frame_parts() if reuse else (None, "Features are not reused, as set.")
        self.first_temporal = None if self._parts is None else self._parts.first_temporal

    def score(self, numbers: Sequence[int], stacks: Sequence[np.ndarray]) -> NDArray[np.float32]:
        """Return the logits ``(num_classes,)`` of a window.

        Args:
            numbers: numbers of its T frames, ascending, repeated if frames are missing. Until `reset` a number means the
                same images. Features of frames before the first are dropped.
            stacks: images of each, uint8 ``(n, H, W, 3)``, RGB, of one size, shorter side `clip.short_side`; n is
                `num_consecutive`.
        """
        return score_windows([(self, numbers, stacks)])[0]

    def _inputs(self, numbers: Sequence[int], stacks: Sequence[np.ndarray]) -> Any:
        """Return what the network takes of a window: its clip, or the features of its frames."""
        assert len(numbers) == len(stacks) == self.num_frames
        self.num_frames_seen += len(numbers)
        if self._parts is None:
            self.num_frames_computed += len(numbers)
            return window_views(stacks, self._processor)
        # Windows only move forward, so features of earlier frames are not needed again.
        self._features = {number: kept for number, kept in self._features.items() if number >= numbers[0]}
        for number, stack in zip(numbers, stacks, strict=True):
            if number not in self._features:
                self.num_frames_computed += 1
                self._features[number] = self._parts.frame_features(window_views([stack], self._processor))
        return [self._features[number] for number in numbers]

    def _scores(self, inputs: Sequence[Any]) -> NDArray[np.float32]:
        """Return the logits of windows of one size, ``(num_windows, num_classes)``."""
        view = self._processor.recipe.eval
        if self._parts is None:
            return self._predictor.scores(np.stack(inputs), view)  # the forward of `vsn predict`
        return self._parts.scores(inputs, view.average)

    def reset(self) -> None:
        """Drop all features: numbers may mean other images from now on."""
        self._features.clear()


def score_windows(
    windows: Sequence[tuple[WindowScorer, Sequence[int], Sequence[np.ndarray]]],
) -> list[NDArray[np.float32]]:
    """Score windows of several sources of one predictor together; numbers and stacks are those of `WindowScorer.score`.

    Windows of equal size are a batch, which a GPU computes at once. On a CPU each is computed by itself, so that its scores
    are equal to the last bit whatever the other sources show.
    """
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (_, _, stacks) in enumerate(windows):
        by_size[stacks[0].shape].append(index)
    logits: dict[int, NDArray[np.float32]] = {}
    for indices in by_size.values():
        inputs = [scorer._inputs(numbers, stacks) for scorer, numbers, stacks in (windows[i] for i in indices)]
        logits |= dict(zip(indices, windows[indices[0]][0]._scores(inputs), strict=True))
    return [logits[index] for index in range(len(windows))]
