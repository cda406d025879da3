"""Compute the optical flow of a data set and store it: `vsn flow extract`.

The folder holds `flow.json` (what the values mean, how they were made), the flow of each video under the video's name,
and `failed.csv` if videos failed. The flow of a video is written atomically, so an interrupted extraction continues,
and several machines can share a folder.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from vsn.config import ConfigError, DataConfig, Decoder, FlowMethod, SampledBy, StoredLayout, Tvl1Config
from vsn.config.errors import check_range
from vsn.data.background import read_labeled
from vsn.data.flow.compute import CPU_PIXELS, METHOD_NAMES, flow_method, iter_fields
from vsn.data.flow.stored import QUALITY, SUFFIX, write_flow_file, write_flow_folder
from vsn.data.flow.values import METADATA_FILE, FlowMetadata
from vsn.data.part import Part, VideoPart
from vsn.data.readers import NoSplitError
from vsn.data.records import VIDEO_EXTENSIONS, list_videos
from vsn.data.video import VideoError, at_constant_rate, open_video, part_reader
from vsn.system.files import check_output_folder, remove_temporary_files, write_csv, write_json
from vsn.system.interrupt import stop_requests
from vsn.system.lock import LOCK_FILE, lock_folder
from vsn.system.pool import check_num_workers, num_cpus, run_in_processes
from vsn.system.progress import progress_bar
from vsn.system.terminal import shell_quote

# A GPU computes many pairs at once. Some processes, which decode and encode, keep it busy.
_GPU_PIXELS, _GPU_WORKERS = 32 * 256 * 340, 4


@dataclass(frozen=True)
class FlowSettings:
    """How flow is computed and stored; the same for all videos of a folder."""

    method: FlowMethod = "tvl1"
    layout: StoredLayout = "file"
    short_side: int | None = 256
    """Shorter side, pixels, that frames are resized to before; None: not resized."""
    bound: float = FlowMetadata.bound
    """Motion, pixels, that byte 255 stands for."""
    by: SampledBy = "time"
    """Whether fields are those of frames at a constant rate, or of stored frames (`clip.by`)."""
    backward: bool = False
    """Compute the motion from each frame to the one before, not to the next."""

    def __post_init__(self) -> None:
        for key, allowed in (("method", FlowMethod), ("layout", StoredLayout), ("by", SampledBy)):
            value = getattr(self, key)
            if value not in get_args(allowed):
                raise ConfigError(f"{key} is {value!r}; choose from {', '.join(get_args(allowed))}.")
        check_range(self, "[8, inf)", "short_side")
        check_range(self, "(0, inf)", "bound")

    @property
    def metadata(self) -> FlowMetadata:
        """What readers need to know of the stored flow."""
        return FlowMetadata(
            self.bound,
            METHOD_NAMES[self.method],
            short_side=self.short_side,
            by=self.by,
            direction="backward" if self.backward else "forward",
        )

    def description(self) -> dict[str, Any]:
        """Return the content of `flow.json`: what readers need, and how the flow was made."""
        # Parameters are stored, so that flow of another version of the algorithm is not mixed in.
        extraction: dict[str, object] = {"method": self.method, "layout": self.layout, "quality": QUALITY}
        if self.method == "tvl1":
            extraction["parameters"] = asdict(Tvl1Config())
        return {**self.metadata.to_json(), "extraction": extraction}


@dataclass(frozen=True)
class FlowVideo:
    """A video, or a segment of one, whose flow is to be stored."""

    path: Path
    name: str
    """Name of its flow in the folder, with folders, without extension."""
    frame_template: str = ""
    decoder: Decoder = "pyav"
    part: Part | None = None
    """The segment, None for a whole video."""

    def flow_path(self, out: Path, layout: StoredLayout) -> Path:
        """Return where its flow is stored: a file or a folder."""
        return out / (self.name + SUFFIX if layout == "file" else self.name)


def videos_of_data_set(config: DataConfig, out: Path) -> list[FlowVideo]:
    """List every video of the train, val and test split once, except those in `out`.

    Raises `ConfigError` for a data set that cannot be read, or has none of these splits.
    """
    videos: dict[VideoPart, FlowVideo] = {}
    no_split: NoSplitError | None = None
    for split in dict.fromkeys((config.train_split, config.val_split, config.test_split)):
        try:
            records = read_labeled(config, split).records
        except NoSplitError as error:
            no_split = error
            continue
        for record in records:
            # Stored pictures of flow look like a folder of frames to a reader.
            if not record.reverse and not record.path.absolute().is_relative_to(out.absolute()):
                name = flow_name(record.video_id)
                video = FlowVideo(record.path, name, config.frame_template, config.decoder, record.part)
                videos.setdefault(record.shown, video)
    if not videos and no_split is not None:
        raise no_split
    return list(videos.values())


def videos_of_folder(folder: Path) -> list[FlowVideo]:
    """List the video files at any depth below a folder. Raises `ConfigError` when there are none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of videos.")
    return [FlowVideo(path, flow_name(path.relative_to(folder).as_posix())) for path in list_videos(folder)]


def flow_name(video_id: str) -> str:
    """Return the name of a video's flow: its id without the extension, and without parts that leave the folder.

    >>> flow_name("../videos/a/1.mp4")
    'videos/a/1'
    """
    stem, extension = os.path.splitext(video_id)
    parts = (stem if extension.lower() in VIDEO_EXTENSIONS else video_id).split("/")
    # "../videos/a/1" -> "videos/a/1": the flow must not be written outside of its folder.
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    return "/".join(part for part in parts if part not in ("", "."))


@dataclass(frozen=True)
class ExtractedVideo:
    """The result for one video."""

    video: FlowVideo
    num_fields: int = 0
    reason: str = ""
    """Why it has no flow; empty when it has."""


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction stored and how long it took. `str()` gives a few lines for users."""

    out: Path
    settings: FlowSettings
    num_videos: int
    num_kept: int
    """Videos whose flow existed."""
    num_fields: int
    """Fields that this call computed."""
    failed: tuple[ExtractedVideo, ...]
    report: Path
    """The file that lists the failed videos."""
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.num_fields / self.seconds:.1f} per second" if self.num_fields else ""
        lines = [
            f"{self.out}: flow of {self.num_videos - len(self.failed)} of {self.num_videos} videos "
            f"({self.num_kept} existed); {self.num_fields} fields computed in {self.seconds:.0f} s{rate}."
        ]
        if self.failed:
            lines.append(
                f"{len(self.failed)} failed, listed in {self.report}. Fix them and run the same command again."
            )
        metadata = self.settings.metadata
        method = "" if metadata.method == FlowMetadata.method else f" --model.flow-method {metadata.method}"
        bound = "" if metadata.bound == FlowMetadata.bound else f" --model.flow-bound {metadata.bound:g}"
        use = "--data.flow-backward" if self.settings.backward else "--model.modality flow --data.flow"
        lines.append(f"Train on it with {use} {shell_quote(self.out.absolute())}{method}{bound}")
        return "\n".join(lines)


def extract_flow(
    videos: Iterable[FlowVideo],
    out: str | Path,
    settings: FlowSettings | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    device: str = "cpu",
    num_workers: int | None = None,
    progress: bool = True,
) -> ExtractSummary:
    """Store the flow of videos in the folder `out`; existing flow is kept.

    Args:
        videos: See `videos_of_data_set` and `videos_of_folder`.
        out: New or empty folder, or one of an extraction with the same settings.
        settings: Default `FlowSettings()`.
        shard: `(i, n)` to do every n-th video from the i-th on, i from 0, where n machines share the work.
        device: What method "tvl1" computes on: cpu or cuda.
        num_workers: Processes; None for one per CPU, on a GPU at most 4; 0 or 1 for the calling process. A script keeps
            the call under `if __name__ == "__main__":`.
        progress: Show a progress bar.

    Returns:
        The summary. Videos that failed are in it and in `failed.csv`, and do not raise.

    Raises:
        ConfigError: Settings out of range, two videos of one name, or a folder that holds something else.
    """
    start, out, settings = time.perf_counter(), Path(out), settings or FlowSettings()
    flow_method(settings.method, device)  # fail now if it cannot run here
    index, count = shard
    if not 0 <= index < count:
        raise ConfigError(f"shard is {index}/{count}; it must be from 0/{count} to {count - 1}/{count}.")
    if num_workers is None and device != "cpu":
        num_workers = min(_GPU_WORKERS, num_cpus())
    num_workers = check_num_workers(num_workers)
    # By name, so that all machines that share the work see the same order.
    all_videos = sorted(videos, key=lambda video: video.name)
    for first, second in itertools.pairwise(all_videos):
        if first.name == second.name:
            raise ConfigError(
                f"{first.path} and {second.path} would both store their flow as {first.name!r}: the name of a video without "
                "the extension. Rename one, or leave it out."
            )
    selected = all_videos[index::count]
    check_output_folder(out, settings.description(), names=(METADATA_FILE,))
    # Before the first video: without it, the folder could not be continued or read.
    if not (out / METADATA_FILE).is_file():
        write_json(out / METADATA_FILE, settings.description())
    todo = [video for video in selected if not video.flow_path(out, settings.layout).exists()]
    results: list[ExtractedVideo] = []
    # Machines that share the work have a shard each; two processes with one shard would delete each other's files.
    with lock_folder(out, name=LOCK_FILE if count == 1 else f"{LOCK_FILE}-{index}-of-{count}"):
        try:
            with stop_requests(raises=True) as stop, progress_bar("videos", disable=not progress) as bar:
                task = bar.add_task("computing flow", total=len(selected), completed=len(selected) - len(todo), note="")
                extract = partial(_extract, out=out, settings=settings, device=device)
                for _, result in run_in_processes(extract, todo, num_workers=num_workers):
                    results.append(result)
                    num_failed = sum(bool(result.reason) for result in results)
                    bar.update(task, advance=1, note=f"{num_failed} failed" if num_failed else "")
                    stop.check()
        finally:
            remove_temporary_files(video.flow_path(out, settings.layout) for video in todo)
    # Processes finish in any order; the report must not depend on it.
    failed = tuple(sorted((result for result in results if result.reason), key=lambda result: result.video.name))
    # One report per machine, or they would overwrite each other's.
    report = out / ("failed.csv" if count == 1 else f"failed-{index}-of-{count}.csv")
    if failed:
        write_csv(report, [("path", "reason"), *((result.video.path, result.reason) for result in failed)])
    else:
        report.unlink(missing_ok=True)
    return ExtractSummary(
        out=out,
        settings=settings,
        num_videos=len(selected),
        num_kept=len(selected) - len(todo),
        num_fields=sum(result.num_fields for result in results),
        failed=failed,
        report=report,
        seconds=time.perf_counter() - start,
    )


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread of PyTorch: on frames this small, threads wait for each other more than they help."""
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@_one_thread()
def _extract(video: FlowVideo, *, out: Path, settings: FlowSettings, device: str) -> ExtractedVideo:
    """Compute and store the flow of one video, in a worker process."""
    path = video.flow_path(out, settings.layout)
    compute = flow_method(settings.method, device)
    pixels_at_once = CPU_PIXELS if device == "cpu" else _GPU_PIXELS
    try:
        whole = open_video(
            video.path, short_side=settings.short_side, frame_template=video.frame_template, decoder=video.decoder
        )
        with part_reader(whole, video.part) as stored:
            frames = at_constant_rate(stored) if settings.by == "time" else stored
            rate = frames.frames_per_second
            fields = iter_fields(
                video.path,
                frames,
                compute,
                bound=settings.bound,
                backward=settings.backward,
                pixels_at_once=pixels_at_once,
            )
            if settings.layout == "file":
                num_fields = write_flow_file(path, fields, video_id=video.name, frames_per_second=rate)
            else:
                num_fields = write_flow_folder(path, fields, layout=settings.layout)
    except ConfigError:  # a ValueError too, but of the settings: it concerns all videos
        raise
    except ValueError as error:
        reason = error.reason if isinstance(error, VideoError) else " ".join(str(error).split())
        return ExtractedVideo(video, reason=reason)
    return ExtractedVideo(video, num_fields)
