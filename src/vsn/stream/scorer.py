"""Scores of windows that share frames: what a network computes of one frame alone is computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsn.config import Protocol
from vsn.inference.forward import autocast, mean_of_views, view_scores
from vsn.inference.predict import Predictor
from vsn.models.classifier import FrameClassifier
from vsn.stream.frames import check_windows, window_num_frames, window_views
from vsn.stream.split import CannotSplitError, SplitBackbone, split_backbone

_Kept = list[tuple[Tensor, ...]]
"""What is kept of a frame: for each of its crops what the second part of the network needs of it."""


class WindowScorer:
    """Logits of windows, frame by frame up to the first temporal operation, and what that gave kept.

    A window's logits are the same to the last bit whether its frames were kept or computed for it, because
    either way each goes through that part of the network by itself. `Predictor.predict` computes it for the
    frames of a clip together, which may round otherwise.

    Attributes:
        num_frames: T.
        note: what is computed once a frame, or why nothing is.
        first_temporal: the module before which that ends, "" where there is none; None where nothing is kept.
        num_frames_seen: frames of all windows so far.
        num_frames_computed: how many of these were computed, and not kept.
    """

    def __init__(self, predictor: Predictor, *, protocol: Protocol | None = None, reuse: bool = True) -> None:
        """Take a predictor's model.

        Args:
            predictor: of a run on RGB frames or their differences, with one label a video.
            protocol: which crops; default the run's.
            reuse: keep what is computed of a frame.

        Raises:
            ConfigError: another run, or a protocol that looks at several clips of a video.
        """
        self._protocol = check_windows(predictor.recipe, protocol)
        self._predictor = predictor
        self.num_frames = window_num_frames(predictor.recipe, self._protocol)
        self.num_frames_seen = self.num_frames_computed = 0
        self._kept: dict[int, _Kept] = {}
        self._split: SplitBackbone | None = None
        self.note = "Every window is computed whole, as asked."
        if reuse:
            self._split, self.note = _split(predictor)
        self.first_temporal = None if self._split is None else self._split.first_temporal

    @property
    def short_side(self) -> int:
        """Shorter side, in pixels, that frames are wanted at."""
        return self._predictor.recipe.clip.short_side

    @property
    def num_consecutive(self) -> int:
        """Frames in a row that are seen of each of the T: 1, or L + 1 of differences."""
        return self._predictor.recipe.model.num_consecutive

    @torch.inference_mode()
    def score(self, numbers: Sequence[int], stacks: Sequence[np.ndarray]) -> NDArray[np.float32]:
        """Logits ``(num_classes,)`` of a window.

        Args:
            numbers: of its T frames, in order, with repeats where it is short of frames. A number stands for the same
                images in every window until `forget`. Frames before the first are forgotten.
            stacks: what is seen of each, uint8 ``(n, H, W, 3)``, RGB, all of one size, shorter side `short_side`: the
                frame alone, n = 1, or of differences with the L that follow it.
        """
        assert len(numbers) == len(stacks) == self.num_frames
        predictor = self._predictor
        self.num_frames_seen += len(numbers)
        if self._split is None:
            self.num_frames_computed += len(numbers)
            clip = self._crops(stacks)
            return view_scores(
                predictor.model,
                clip[None],
                predictor.precision,
                batch_size=predictor.recipe.eval.batch_size,
                average=predictor.recipe.eval.average,
            )[0]
        self._kept = {number: kept for number, kept in self._kept.items() if number >= numbers[0]}
        with autocast(predictor.device, predictor.precision):
            for number, stack in zip(numbers, stacks, strict=True):
                if number not in self._kept:
                    self.num_frames_computed += 1
                    self._kept[number] = self._first_part(stack)
            logits = torch.cat([self._second_part(view) for view in zip(*map(self._kept.get, numbers), strict=True)])
        found: NDArray[np.float32] = mean_of_views(logits.float(), predictor.recipe.eval.average).float().cpu().numpy()
        return found

    def forget(self) -> None:
        """Keep nothing: numbers may stand for other images from now on."""
        self._kept.clear()

    def _crops(self, stacks: Sequence[np.ndarray]) -> Tensor:
        """The crops of a window, or of some of its frames: uint8 ``(crops, T, C, h, w)``."""
        return window_views(stacks, self._predictor.recipe, self._protocol)

    def _first_part(self, stack: np.ndarray) -> _Kept:
        assert self._split is not None
        crops = self._crops([stack]).to(self._predictor.device)
        model = self._predictor.model
        return [self._split.frame_part(model.normalize(crop[None])[0]) for crop in crops]

    def _second_part(self, frames: Sequence[tuple[Tensor, ...]]) -> Tensor:
        """Logits ``(1, num_classes)`` of one crop of a window, from what is kept of its frames."""
        assert self._split is not None
        model = self._predictor.model
        assert isinstance(model, FrameClassifier)
        joined = (torch.cat(values) for values in zip(*frames, strict=True))
        return model.scores_of(self._split.clip_part(*joined)[None])


def _split(predictor: Predictor) -> tuple[SplitBackbone | None, str]:
    model = predictor.model
    if not isinstance(model, FrameClassifier):
        return None, (
            f"Nothing is reused: {predictor.recipe.model.name} sees a window's frames together from its first layer on."
        )
    try:
        split = split_backbone(model.backbone, channels=predictor.recipe.model.stem_channels)
    except CannotSplitError as error:
        return None, f"Nothing is reused: of {predictor.recipe.model.name}, {error}."
    if not split.first_temporal:
        return (
            split,
            "The whole network up to the classifier is computed once a frame: it has no temporal operation.",
        )
    return split, f"What stands before {split.first_temporal} is computed once a frame."
