"""Score windows that share frames: the part of a network before its first temporal operation runs once per frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsn.config import Protocol
from vsn.data.views import num_test_frames
from vsn.inference.forward import autocast, mean_of_views, view_scores
from vsn.inference.predict import Predictor
from vsn.models.classifier import FrameClassifier
from vsn.scores.scores import require_finite
from vsn.stream.collect import window_views
from vsn.stream.plan import check_windows
from vsn.stream.split import CannotSplitError, SplitBackbone, split_backbone

_Features = list[tuple[Tensor, ...]]
"""Features of a frame: for each of its crops the tensors that the second part of the network takes."""


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
        ConfigError: a run or protocol without windows (`check_windows`).
    """

    def __init__(self, predictor: Predictor, *, protocol: Protocol | None = None, reuse: bool = True) -> None:
        self._predictor, self._recipe = predictor, predictor.recipe
        self._protocol = check_windows(self._recipe, protocol)
        self.num_frames = num_test_frames(self._recipe.model, self._protocol)
        self.num_consecutive = self._recipe.model.num_consecutive
        self.num_frames_seen = self.num_frames_computed = 0
        self._features: dict[int, _Features] = {}
        self._split: SplitBackbone | None = None
        self.note = "Features are not reused, as set."
        if reuse:
            self._split, self.note = _split(predictor)
        self.first_temporal = None if self._split is None else self._split.first_temporal

    @torch.inference_mode()
    def score(self, numbers: Sequence[int], stacks: Sequence[np.ndarray]) -> NDArray[np.float32]:
        """Return the logits ``(num_classes,)`` of a window.

        Args:
            numbers: numbers of its T frames, ascending, repeated if frames are missing. Until `reset` a number means the
                same images. Features of frames before the first are dropped.
            stacks: images of each, uint8 ``(n, H, W, 3)``, RGB, of one size, shorter side `clip.short_side`; n is
                `num_consecutive`.
        """
        assert len(numbers) == len(stacks) == self.num_frames
        predictor, view = self._predictor, self._recipe.eval
        self.num_frames_seen += len(numbers)
        # Without a split: the forward of `vsn predict`.
        if self._split is None:
            self.num_frames_computed += len(numbers)
            clip = window_views(stacks, self._recipe, self._protocol)
            return view_scores(
                predictor.model, clip[None], predictor.precision, batch_size=view.batch_size, average=view.average
            )[0]
        # Windows only move forward, so features of earlier frames are not needed again.
        self._features = {number: kept for number, kept in self._features.items() if number >= numbers[0]}
        with autocast(predictor.device, predictor.precision):
            for number, stack in zip(numbers, stacks, strict=True):
                if number not in self._features:
                    self.num_frames_computed += 1
                    self._features[number] = self._frame_features(self._split, stack)
            # From frames of crops to crops of frames: a crop of the window has that crop of each frame.
            crops = zip(*(self._features[number] for number in numbers), strict=True)
            logits = torch.cat([self._clip_logits(self._split, frames) for frames in crops])
        scores: NDArray[np.float32] = mean_of_views(logits.float(), view.average).float().cpu().numpy()
        return require_finite(scores)

    def reset(self) -> None:
        """Drop all features: numbers may mean other images from now on."""
        self._features.clear()

    def _frame_features(self, split: SplitBackbone, stack: np.ndarray) -> _Features:
        # Crop by crop, each frame by itself: in a batch convolutions may round differently.
        crops = window_views([stack], self._recipe, self._protocol).to(self._predictor.device)
        return [split.frame_part(self._predictor.model.normalize(crop[None])[0]) for crop in crops]

    def _clip_logits(self, split: SplitBackbone, frames: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """Return logits ``(1, num_classes)`` of one crop of a window from the features of its frames."""
        model = self._predictor.model
        assert isinstance(model, FrameClassifier)
        joined = (torch.cat(values) for values in zip(*frames, strict=True))
        return model.scores_of(split.clip_part(*joined)[None])


def _split(predictor: Predictor) -> tuple[SplitBackbone | None, str]:
    model, config = predictor.model, predictor.recipe.model
    if not isinstance(model, FrameClassifier):
        return None, f"Features are not reused: {config.name} mixes the frames of a window from its first layer on."
    try:
        split = split_backbone(model.backbone, channels=config.stem_channels)
    except CannotSplitError as error:
        return None, f"Features of {config.name} are not reused: {error}."
    if not split.first_temporal:
        return split, "The whole network up to the classifier is computed once per frame: no temporal operation."
    return split, f"The layers before {split.first_temporal} are computed once per frame."
