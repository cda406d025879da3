"""Find the boxes of a data set by a detector and store them: `vsn boxes extract`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vsn.config import ConfigError, Recipe, SampledBy
from vsn.data.boxes.detect import Detector, detector_of
from vsn.data.boxes.files import DETECTOR, METADATA_FILE, RANDOM, SUFFIX, Boxes, BoxMetadata, detector_id, write_boxes
from vsn.data.per_video import NamedVideo, Stored, VideoResult, one_thread, store_for_videos
from vsn.data.video import VideoError, VideoReader, at_constant_rate, open_video, part_reader
from vsn.system.terminal import shell_quote

_FRAMES_HELD = 32


@dataclass(frozen=True)
class BoxSettings:
    """How boxes are found; the same for all videos of a folder."""

    weights: str
    """A file, or "none"."""
    short_side: int
    num_boxes: int
    by: SampledBy = "time"
    """Whether frames are at a constant rate, or as stored (`clip.by`)."""

    @classmethod
    def of(cls, recipe: Recipe) -> BoxSettings:
        """Take the settings from a recipe's."""
        data, clip = recipe.data, recipe.clip
        return cls(data.detector, clip.short_side, recipe.model.num_boxes, clip.by)

    def metadata(self) -> BoxMetadata:
        """Return what `boxes.json` holds. Raises `ConfigError` if there are no such weights."""
        return BoxMetadata(DETECTOR, detector_id(self.weights), self.short_side, self.num_boxes, self.by)


@dataclass(frozen=True)
class BoxSummary(Stored):
    """What an extraction stored. `str()` gives a few lines for users."""

    settings: BoxSettings

    def __str__(self) -> str:
        lines = self.describe("boxes", "frames")
        if self.settings.weights == RANDOM:
            lines.append("The detector had random weights: its boxes show nothing. Set data.detector to a file.")
        detector = shell_quote(Path(self.settings.weights))
        lines.append(f"Train on them with --data.boxes {shell_quote(self.out.absolute())} --data.detector {detector}")
        return "\n".join(lines)


def extract_boxes(
    videos: Iterable[NamedVideo],
    out: str | Path,
    settings: BoxSettings,
    *,
    shard: tuple[int, int] = (0, 1),
    device: str = "cpu",
    num_workers: int | None = None,
    progress: bool = True,
) -> BoxSummary:
    """Store the boxes of videos in the folder `out`; existing ones are kept. Arguments and errors: `store_for_videos`.

    Raises:
        ConfigError: The detector's file is missing or of another network.
    """
    out, description = Path(out), settings.metadata().to_json()
    detector_of(settings.weights, num_boxes=settings.num_boxes, device=device)  # fail now, not in every process
    stored = store_for_videos(
        partial(_extract, out=out, settings=settings, device=device),
        videos,
        out,
        place=partial(_place, out=out),
        description=description,
        metadata_file=METADATA_FILE,
        thing="boxes",
        shard=shard,
        device=device,
        num_workers=num_workers,
        progress=progress,
    )
    return BoxSummary(**vars(stored), settings=settings)


def _place(video: NamedVideo, out: Path) -> Path:
    return out / f"{video.name}{SUFFIX}"


@one_thread()
def _extract(video: NamedVideo, *, out: Path, settings: BoxSettings, device: str) -> VideoResult:
    """Find and store the boxes of one video, in a worker process."""
    detector = detector_of(settings.weights, num_boxes=settings.num_boxes, device=device)
    try:
        whole = open_video(
            video.path, short_side=settings.short_side, frame_template=video.frame_template, decoder=video.decoder
        )
        with part_reader(whole, video.part) as stored:
            frames = at_constant_rate(stored) if settings.by == "time" else stored
            num_frames = write_boxes(_place(video, out), _detect(frames, detector))
    except ConfigError:  # a ValueError too, but of the settings: it concerns all videos
        raise
    except ValueError as error:
        reason = error.reason if isinstance(error, VideoError) else " ".join(str(error).split())
        return VideoResult(video, reason=reason)
    return VideoResult(video, num_frames)


def _detect(video: VideoReader, detector: Detector) -> Iterator[Boxes]:
    frames = iter(video)
    while held := list(itertools.islice(frames, _FRAMES_HELD)):
        yield from detector(np.stack(held))
