"""Measure how long eight frames of a video file take to read, beside other readers, in one run.

    python benchmarks/decoding.py OUT.json --footage A.mp4 B.mp4 --work FOLDER [--rounds 9] [--only WORDS]

Each footage, a video of at least a few seconds, is encoded in the kinds of `KINDS` into the work folder, repeated to the
length wanted. Of every file the centers of eight segments are read: by this package with and without an index that an
earlier read left, by PyAV from the first frame on, and by TorchCodec (exact and approximate), decord and OpenCV where they
are installed. Rounds are interleaved, on one CPU and then on two. Other readers return frames at the stored size; the time
to resize them is not counted.

`decoded` counts the frames that this package decodes; `least`, for small H.264 files of 10 seconds, those that cannot be
left out one by one without changing the eight frames.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from common import describe_run
from vsn.data.sampling import segment_indices
from vsn.data.video import open_video
from vsn.data.video.container import open_container, video_stream
from vsn.data.video.packet_index import CACHE
from vsn.data.video.pyav_reader import PyAVReader
from vsn.system.files import write_json
from vsn.system.progress import progress_bar

NUM_FRAMES, SHORT_SIDE, RATE = 8, 256, 30


@dataclass(frozen=True)
class Kind:
    """How a file is encoded."""

    name: str
    suffix: str
    codec: str
    options: dict[str, str]
    seconds: float = 10
    size: tuple[int, int] = (256, 340)


def h264(key_interval: int) -> dict[str, str]:
    """Options of x264; 250 is its default distance between key frames."""
    return {"g": str(key_interval), "crf": "23"}


KINDS = (
    Kind("H.264, key frame every 250", ".mp4", "libx264", h264(250)),
    Kind("H.264, every 32", ".mp4", "libx264", h264(32)),
    Kind("H.264, every 12", ".mp4", "libx264", h264(12)),
    Kind("H.264, every 12, 1,000 frames", ".mp4", "libx264", h264(12), seconds=1000 / RATE),
    Kind("H.264, 60 s", ".mp4", "libx264", h264(250), seconds=60),
    Kind("H.264, 10 minutes", ".mp4", "libx264", h264(250), seconds=600),
    Kind("H.264, 1080p", ".mp4", "libx264", h264(250), size=(1080, 1920)),
    Kind("HEVC", ".mp4", "libx265", {"crf": "28", "x265-params": "log-level=none"}),
    Kind("VP9, 4 s", ".webm", "libvpx-vp9", {"crf": "32", "b": "0", "cpu-used": "4"}, seconds=4),
    Kind("AV1", ".mp4", "libsvtav1", {"crf": "35", "preset": "8"}),
)


# --- footage -----------------------------------------------------------------------------------------


def encode(footage: Path, kind: Kind, path: Path) -> None:
    """Encode footage as a kind, forward and backward in turns up to its length; a file that exists is kept."""
    if path.exists():
        return
    unfinished = path.with_name(f"unfinished-{path.name}")
    with open_video(footage, short_side=max(SHORT_SIDE, min(kind.size))) as video:
        images = list(islice(video, 60 * RATE))
    with av.open(str(unfinished), "w", options={}) as container:
        stream = container.add_stream(kind.codec, rate=RATE, options=kind.options)
        stream.height, stream.width, stream.pix_fmt = *kind.size, "yuv420p"
        # There and back: no cut at the seam.
        shown = islice(cycle([*images, *reversed(images)]), round(kind.seconds * RATE))
        for number, image in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(kind.size[1], kind.size[0], "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    unfinished.rename(path)


# --- readers -----------------------------------------------------------------------------------------

Read = Callable[[Path, list[int], int], object]
"""Read frames of a file at these indices with this many threads."""


def read_first_time(path: Path, indices: list[int], num_threads: int) -> object:
    """This package, which indexes the file in this call."""
    CACHE.clear()
    return read_again(path, indices, num_threads)


def read_again(path: Path, indices: list[int], num_threads: int) -> object:
    """This package, with the index of an earlier call."""
    with open_video(path, short_side=SHORT_SIDE, num_threads=num_threads) as video:
        return video.frames_at(indices)


def read_from_first(path: Path, indices: list[int], num_threads: int) -> object:
    """PyAV, decoding from the first frame to the last one wanted."""
    wanted, images = set(indices), []
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO" if num_threads > 1 else "SLICE"
        container.streams.video[0].codec_context.thread_count = num_threads
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                images.append(frame.to_ndarray(format="rgb24"))
            if number >= max(indices):
                return images
    return images


def read_torchcodec(path: Path, indices: list[int], num_threads: int, mode: str = "exact") -> object:
    """TorchCodec on the CPU."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=num_threads, seek_mode=mode, dimension_order="NHWC")
    return decoder.get_frames_at(indices).data


def read_approximately(path: Path, indices: list[int], num_threads: int) -> object:
    """TorchCodec, which takes the frame rate for constant and does not read the packets first."""
    return read_torchcodec(path, indices, num_threads, "approximate")


def read_decord(path: Path, indices: list[int], num_threads: int) -> object:
    """Decord."""
    import decord

    return decord.VideoReader(str(path), num_threads=num_threads).get_batch(indices).asnumpy()


def read_opencv(path: Path, indices: list[int], num_threads: int) -> object:
    """OpenCV, setting the position for each frame."""
    import cv2

    os.environ["OPENCV_FFMPEG_THREADS"] = str(num_threads)
    capture, images = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    for index in indices:
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        images.append(capture.read()[1])
    capture.release()
    if any(image is None for image in images):
        raise RuntimeError("a frame is missing")
    return images


READERS: dict[str, Read] = {
    "vsn, first read": read_first_time,
    "vsn": read_again,
    "PyAV from the first frame": read_from_first,
    "TorchCodec exact": read_torchcodec,
    "TorchCodec approximate": read_approximately,
    "decord": read_decord,
    "OpenCV": read_opencv,
}


# --- measurements ------------------------------------------------------------------------------------


def measure(path: Path, indices: list[int], num_threads: int, rounds: int) -> dict[str, Any]:
    """Return the median milliseconds of each reader, and the median of its ratio to TorchCodec in the same round."""
    torch.set_num_threads(num_threads)
    seconds: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for name, read in READERS.items():
        try:
            read(path, indices, num_threads)  # imports, and the file into memory
            seconds[name] = []
        except Exception as error:  # a reader that is not installed, or cannot read this kind
            failed[name] = next(iter(str(error).splitlines()), type(error).__name__)
    for _ in range(rounds):
        for name in seconds:
            start = time.perf_counter()
            READERS[name](path, indices, num_threads)
            seconds[name].append(time.perf_counter() - start)
    rivals = [name for name in seconds if not name.startswith("vsn")]
    return {
        "milliseconds": {name: round(1000 * statistics.median(times), 2) for name, times in seconds.items()},
        "ratios": {
            ours: {
                rival: round(statistics.median(a / b for a, b in zip(seconds[ours], seconds[rival], strict=True)), 3)
                for rival in rivals
            }
            for ours in ("vsn, first read", "vsn")
        },
        "failed": failed,
    }


def count_decoded(path: Path, indices: list[int]) -> int:
    """Return how many frames this package decodes for these."""
    with PyAVReader(path) as video:
        video.frames_at(indices)
        return video.num_decoded


def count_least(path: Path, indices: list[int]) -> int:
    """Return how many packets remain when those are left out, one after another, that do not change the frames."""
    with PyAVReader(path) as video:
        index = video.index
    places = index.positions[indices]
    starts = index.starts[np.searchsorted(index.starts, places, side="right") - 1]
    with open_container(path) as container:
        stream = video_stream(path, container)
        packets = [packet for packet in container.demux(stream) if packet.size]
        least = 0
        for start in np.unique(starts).tolist():
            wanted = places[starts == start].tolist()
            kept = list(range(start, max(wanted) + 1))
            expected = _decode(stream, packets, kept, index.pts[wanted].tolist())
            for place in reversed(kept[1:]):
                fewer = [other for other in kept if other != place]
                if place not in wanted and _decode(stream, packets, fewer, index.pts[wanted].tolist()) == expected:
                    kept = fewer
            least += len(kept)
    return least


def _decode(stream: av.VideoStream, packets: list[av.Packet], places: list[int], stamps: list[int]) -> list[bytes]:
    """Return the planes of the frames with these time stamps."""
    codec = stream.codec_context
    codec.flush_buffers()
    frames = [frame for place in places for frame in codec.decode(packets[place])] + codec.decode(None)
    return [b"".join(bytes(plane) for plane in frame.planes) for frame in frames if frame.pts in stamps]


def files(footages: list[Path], work: Path, only: str) -> Iterator[tuple[Kind, Path, Path]]:
    """Yield each kind, footage and file, encoded when it does not exist yet."""
    for kind in KINDS:
        if only in kind.name:
            for number, footage in enumerate(footages):
                yield (
                    kind,
                    footage,
                    work / f"{number}-{kind.name.lower().replace(', ', '-').replace(' ', '-')}{kind.suffix}",
                )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--footage", type=Path, nargs="+", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder of the encoded files")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="kinds whose name holds these words")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    cpus = sorted(os.sched_getaffinity(0))
    rows: list[dict[str, Any]] = []
    todo = list(files(arguments.footage, arguments.work, arguments.only))
    with progress_bar("files") as bar:
        task = bar.add_task("files", total=len(todo), note="")
        for kind, footage, path in todo:
            bar.update(task, note=f"{kind.name}: encoding")
            encode(footage, kind, path)
            bar.update(task, note=kind.name)
            with open_video(path) as video:
                indices = segment_indices(video.num_frames, NUM_FRAMES, None).tolist()
                row: dict[str, Any] = {"kind": kind.name, "footage": arguments.footage.index(footage)}
                row |= {"num_frames": video.num_frames, "obstacle": video.obstacle}
            row["decoded"] = count_decoded(path, indices)
            if kind.codec == "libx264" and kind.seconds == 10 and kind.size[0] == SHORT_SIDE:
                row["least"] = count_least(path, indices)
            for num_threads in range(1, min(len(cpus), 2) + 1):
                os.sched_setaffinity(0, cpus[:num_threads])
                row[f"{num_threads} CPU"] = measure(path, indices, num_threads, arguments.rounds)
            os.sched_setaffinity(0, cpus)
            rows.append(row)
            bar.advance(task)
            # After each file: a run that is stopped keeps what it measured.
            write_json(
                arguments.out, {**describe_run(__file__, sys.argv[1:]), "rounds": arguments.rounds, "rows": rows}
            )


if __name__ == "__main__":
    main()
