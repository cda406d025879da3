"""Hold everything the checks look at: splits, reports of videos and flow, copies, loading speed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vsn.config import Recipe
from vsn.data.part import VideoPart
from vsn.doctor.flow import DatasetFlow
from vsn.doctor.near_copies import Likeness
from vsn.doctor.splits import Place, Split
from vsn.doctor.videos import VideoReport


@dataclass(frozen=True)
class Loading:
    """Speed of the training loader: decoding, resizing, random crops, flips, batches."""

    clips_per_second: float
    num_clips: int
    """Clips it was measured on, without those of the start."""
    num_workers: int
    """Worker processes; 0: loaded in the calling process."""
    epoch_clips: int
    epoch_seconds: float
    """Time to load an epoch."""


@dataclass(frozen=True)
class Evidence:
    """Input of every check."""

    recipe: Recipe
    splits: tuple[Split, ...]
    reports: dict[VideoPart, VideoReport]
    """Of the videos inspected."""
    copies: tuple[tuple[Path, ...], ...] = ()
    """Groups of different files with the same content."""
    near_copies: tuple[tuple[VideoPart, VideoPart, Likeness], ...] = ()
    """Videos of two splits, the training split first, that show one recording under other bytes."""
    flow: DatasetFlow | None = None
    """None unless the model takes stored flow and there is some."""
    loading: Loading | None = None
    gpu_videos_per_second: float | None = None
    """Training speed of the GPU, as given by the user."""

    @cached_property
    def places(self) -> dict[VideoPart, list[Place]]:
        """Video or segment -> all its entries in the splits."""
        places: dict[VideoPart, list[Place]] = {}
        for split in self.splits:
            for record in split.videos:
                place = Place(split, record, split.records.classes_of(record))
                places.setdefault(record.shown, []).append(place)
        return places

    @cached_property
    def places_of_file(self) -> dict[Path, list[Place]]:
        """File -> all entries of it and of its segments."""
        places: dict[Path, list[Place]] = {}
        for shown, of_video in self.places.items():
            places.setdefault(shown.path, []).extend(of_video)
        return places

    @property
    def reads_frames(self) -> bool:
        """Whether a run reads the videos; one on flow reads only that."""
        return self.recipe.model.modality != "flow"

    @property
    def readable(self) -> list[VideoReport]:
        """Reports of the videos without a problem."""
        return [report for report in self.reports.values() if not report.problem]

    def split_of(self, role: str) -> Split | None:
        """Return the split that serves as "train", "val" or "test"."""
        return next((split for split in self.splits if role in split.roles), None)

    def name(self, video: VideoPart, detail: str = "") -> str:
        """Return `id (split): detail` of a video; with both splits if it is in two."""
        places = self.places[video]
        splits = dict.fromkeys(place.split.name for place in places)
        return f"{places[0].record.video_id} ({', '.join(splits)})" + (f": {detail}" if detail else "")

    def checked(self, split: Split) -> list[VideoReport]:
        """Return the reports of a split's videos, each once."""
        return [self.reports[video] for video in split.shown if video in self.reports]
