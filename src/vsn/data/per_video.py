"""Compute something for every video of a data set and store it under the video's name: flow, boxes.

A result is written atomically, so that an interrupted command continues, and several machines can share a folder. A JSON
file describes how the results were made, and `failed.csv` lists the videos that failed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsn.config import ConfigError, DataConfig, Decoder
from vsn.data.background import read_labeled
from vsn.data.part import Part, VideoPart
from vsn.data.readers import NoSplitError
from vsn.data.records import VIDEO_EXTENSIONS, list_videos
from vsn.system.files import check_output_folder, remove_temporary_files, write_csv, write_json
from vsn.system.interrupt import stop_requests
from vsn.system.limits import num_cpus
from vsn.system.lock import LOCK_FILE, lock_folder
from vsn.system.pool import check_num_workers, run_in_processes
from vsn.system.progress import progress_bar

# A GPU computes many frames at once. Some processes, which decode and encode, keep it busy.
_GPU_WORKERS = 4


@dataclass(frozen=True)
class NamedVideo:
    """A video, or a segment of one, for which something is to be stored."""

    path: Path
    name: str
    """Name of its result in the folder, with folders, without extension."""
    frame_template: str = ""
    decoder: Decoder = "pyav"
    part: Part | None = None
    """The segment, None for a whole video."""


@dataclass(frozen=True)
class VideoResult:
    """The result for one video."""

    video: NamedVideo
    count: int = 0
    """What was stored: fields of flow, frames with boxes."""
    reason: str = ""
    """Why nothing was stored; empty when it was."""


@dataclass(frozen=True)
class Stored:
    """What a call stored for the videos of a folder, and how long it took."""

    out: Path
    num_videos: int
    num_kept: int
    """Videos whose result existed."""
    count: int
    """What this call computed, see `VideoResult.count`."""
    failed: tuple[VideoResult, ...]
    report: Path
    """The file that lists the failed videos."""
    seconds: float

    def describe(self, thing: str, counted: str) -> list[str]:
        """Return lines for users: `thing` is what is stored of a video, `counted` names the counts."""
        rate = f", {self.count / self.seconds:.1f} per second" if self.count else ""
        lines = [
            f"{self.out}: {thing} of {self.num_videos - len(self.failed)} of {self.num_videos} videos "
            f"({self.num_kept} existed); {self.count} {counted} computed in {self.seconds:.0f} s{rate}."
        ]
        if self.failed:
            lines.append(
                f"{len(self.failed)} failed, listed in {self.report}. Fix them and run the same command again."
            )
        return lines


def videos_of_data_set(config: DataConfig, out: Path) -> list[NamedVideo]:
    """List every video of the train, val and test split once, except those in `out`.

    Raises `ConfigError` for a data set that cannot be read, or has none of these splits.
    """
    videos: dict[VideoPart, NamedVideo] = {}
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
                name = stored_name(record.video_id)
                video = NamedVideo(record.path, name, config.frame_template, config.decoder, record.part)
                videos.setdefault(record.shown, video)
    if not videos and no_split is not None:
        raise no_split
    return list(videos.values())


def videos_of_folder(folder: Path) -> list[NamedVideo]:
    """List the video files at any depth below a folder. Raises `ConfigError` when there are none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of videos.")
    return [NamedVideo(path, stored_name(path.relative_to(folder).as_posix())) for path in list_videos(folder)]


def stored_name(video_id: str) -> str:
    """Return the name of a video's result: its id without the extension, and without parts that leave the folder.

    >>> stored_name("../videos/a/1.mp4")
    'videos/a/1'
    """
    stem, extension = os.path.splitext(video_id)
    parts = (stem if extension.lower() in VIDEO_EXTENSIONS else video_id).split("/")
    # "../videos/a/1" -> "videos/a/1": the result must not be written outside of its folder.
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    return "/".join(part for part in parts if part not in ("", "."))


def parse_shard(text: str) -> tuple[int, int]:
    """Parse "i/n", the i-th of n parts, counted from 0. Raises `ConfigError`.

    >>> parse_shard("0/4")
    (0, 4)
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise ConfigError(f"--shard is {text!r}; expected i/n, such as 0/4, the first of four parts.")
    return int(index), int(count)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread of PyTorch: on frames this small, threads wait for each other more than they help."""
    import torch

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def store_for_videos(
    work: Callable[[NamedVideo], VideoResult],
    videos: Iterable[NamedVideo],
    out: Path,
    *,
    place: Callable[[NamedVideo], Path],
    description: Mapping[str, Any],
    metadata_file: str,
    thing: str,
    shard: tuple[int, int] = (0, 1),
    device: str = "cpu",
    num_workers: int | None = None,
    progress: bool = True,
) -> Stored:
    """Call `work` for each video whose result does not exist, in processes; existing results are kept.

    Args:
        work: Stores the result of a video atomically; a function that processes can import.
        videos: See `videos_of_data_set` and `videos_of_folder`.
        out: New or empty folder, or one of a call with the same description.
        place: Where the result of a video is stored.
        description: The content of `metadata_file`: how results are made.
        metadata_file: Its name in `out`; written before the first video.
        thing: What is stored, as users call it.
        shard: `(i, n)` to do every n-th video from the i-th on, i from 0, where n machines share the work.
        device: What `work` computes on: cpu or cuda.
        num_workers: Processes; None for one per CPU, on a GPU at most 4; 0 or 1 for the calling process. A script keeps
            the call under `if __name__ == "__main__":`.
        progress: Show a progress bar.

    Returns:
        The summary. Videos that failed are in it and in `failed.csv`, and do not raise.

    Raises:
        ConfigError: Settings out of range, two videos of one name, or a folder that holds something else.
    """
    start = time.perf_counter()
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
                f"{first.path} and {second.path} would both store their {thing} as {first.name!r}: the name of a video "
                "without the extension. Rename one, or leave it out."
            )
    selected = all_videos[index::count]
    check_output_folder(out, description, names=(metadata_file,))
    # Before the first video: without it, the folder could not be continued or read.
    if not (out / metadata_file).is_file():
        write_json(out / metadata_file, description)
    todo = [video for video in selected if not place(video).exists()]
    results: list[VideoResult] = []
    # Machines that share the work have a shard each; two processes with one shard would delete each other's files.
    with lock_folder(out, name=LOCK_FILE if count == 1 else f"{LOCK_FILE}-{index}-of-{count}"):
        try:
            with stop_requests(raises=True) as stop, progress_bar("videos", disable=not progress) as bar:
                done = len(selected) - len(todo)
                task = bar.add_task(f"computing {thing}", total=len(selected), completed=done, note="")
                for _, result in run_in_processes(work, todo, num_workers=num_workers):
                    results.append(result)
                    num_failed = sum(bool(result.reason) for result in results)
                    bar.update(task, advance=1, note=f"{num_failed} failed" if num_failed else "")
                    stop.check()
        finally:
            remove_temporary_files(place(video) for video in todo)
    # Processes finish in any order; the report must not depend on it.
    failed = tuple(sorted((result for result in results if result.reason), key=lambda result: result.video.name))
    # One report per machine, or they would overwrite each other's.
    report = out / ("failed.csv" if count == 1 else f"failed-{index}-of-{count}.csv")
    if failed:
        write_csv(report, [("path", "reason"), *((result.video.path, result.reason) for result in failed)])
    else:
        report.unlink(missing_ok=True)
    return Stored(
        out=out,
        num_videos=len(selected),
        num_kept=len(selected) - len(todo),
        count=sum(result.count for result in results),
        failed=failed,
        report=report,
        seconds=time.perf_counter() - start,
    )
