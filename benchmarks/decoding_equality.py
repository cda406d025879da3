"""Compare the frames that the decoders here read with FFmpeg's own, pixel by pixel.

    python benchmarks/decoding_equality.py OUT.json FOLDER ...
    python benchmarks/decoding_equality.py OUT.json --made WORK

Every video file in the folders is read by PyAV, and by TorchCodec if it is installed. FFmpeg's own frames are those of its
tool, if `ffmpeg` (5.1 or newer) is on the path, else of filters in PyAV, by the rules of the tool; those do not map high
dynamic range. `--made` generates short videos in every codec and pixel format that PyAV encodes, and compares them too.

A file's difference is the mean and the largest over all values of all frames, in gray levels of 255. Rows are those files
that differ in a value, in the number of frames or in their size, and those that only one side reads.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np

from common import describe_run
from decoding_videos import make_videos
from vsn.config import ConfigError, Decoder
from vsn.data.video import VideoError, open_video
from vsn.data.video.torchcodec_reader import device_of
from vsn.system.files import write_json
from vsn.system.progress import progress_bar

TONE_MAPPING = (
    "zscale=t=linear:npl=100:agamma=false,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0:peak=10,"
    "zscale=t=bt709:m=gbr:r=full,format=gbrp"
)
"""What the documentation states for high dynamic range."""
SUFFIXES = {
    ".3gp", ".apng", ".avi", ".flv", ".gif", ".h264", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".rm", ".ts",
    ".webm", ".webp", ".wmv",
}  # fmt: skip


# --- FFmpeg's own frames ---------------------------------------------------------------------------


def tool_frames(ffmpeg: str, path: Path, *, is_hdr: bool) -> Iterator[np.ndarray]:
    """Yield the frames that FFmpeg's tool writes, uint8 `(H, W, 3)`."""
    command = [ffmpeg, "-v", "error", "-nostdin", "-threads", "1", "-i", f"file:{path}", "-map", "0:V:0"]
    command += ["-vf", TONE_MAPPING] if is_hdr else []
    command += ["-fps_mode", "passthrough", "-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            while process.stdout.readline():  # P6; each frame states its size
                width, height = map(int, process.stdout.readline().split())
                process.stdout.readline()
                content = process.stdout.read(height * width * 3)
                if len(content) < height * width * 3:
                    return
                yield np.frombuffer(content, np.uint8).reshape(height, width, 3)
        finally:
            process.kill()


def filter_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of FFmpeg's filters in PyAV, turned, mirrored and resized by the rules of FFmpeg's tool."""
    size: tuple[int, int] | None = None
    with av.open(f"file:{path}") as container:
        for frame in container.decode(video=0):
            graph = av.filter.Graph()
            nodes = [
                graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
            ]
            nodes += [graph.add(*each) for each in rotating_filters(frame)]
            if size is not None:
                nodes.append(graph.add("scale", f"{size[1]}:{size[0]}"))
            graph.link_nodes(*nodes, graph.add("format", "rgb24"), graph.add("buffersink")).configure()
            graph.push(frame)
            image = graph.pull().to_ndarray()
            size = size or image.shape[:2]
            yield image


def rotating_filters(frame: av.VideoFrame) -> list[tuple[str, str]]:
    """Return what FFmpeg's tool inserts for a display matrix (`-autorotate`, fftools/ffmpeg_filter.c)."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return []
    matrix = struct.unpack("=9i", data)
    scales = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not all(scales):
        return []
    theta = math.degrees(math.atan2(matrix[1] / scales[1], matrix[0] / scales[0])) % 360
    if abs(theta - 90) < 1:
        return [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
    if abs(theta - 180) < 1:
        return [(name, "") for name, value in (("hflip", matrix[0]), ("vflip", matrix[4])) if value < 0]
    if abs(theta - 270) < 1:
        return [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
    if 1 < theta < 359:
        return [("rotate", f"{theta}*PI/180")]
    return [("vflip", "")] if matrix[4] < 0 else []


# --- comparison ------------------------------------------------------------------------------------


def installed_decoders() -> list[Decoder]:
    decoders: list[Decoder] = ["pyav"]
    with contextlib.suppress(ConfigError):
        device_of("torchcodec")
        decoders.append("torchcodec")
    return decoders


def compare(path: Path, decoder: Decoder, ffmpeg: str | None) -> dict[str, Any]:
    """Return the numbers of frames, the size, the orientation, and the mean and largest difference of one file."""
    row: dict[str, Any] = {}
    ours: Iterator[np.ndarray] = iter(())
    is_hdr = False
    try:
        with open_video(path, decoder=decoder) as video:
            info = video.metadata
        row |= {"size": [info.height, info.width], "rotation": info.rotation, "mirrored": info.mirrored}
        is_hdr, ours = info.tone_mapped, read_frames(path, decoder)
    except VideoError as error:
        row["error"] = error.reason
    theirs = tool_frames(ffmpeg, path, is_hdr=is_hdr) if ffmpeg else filter_frames(path)
    counts, total, largest, num_values = [0, 0], 0, 0, 0
    with contextlib.closing(theirs):
        pairs = itertools.zip_longest(ours, until_error(theirs))
        while (pair := next(pairs, None)) is not None:
            counts = [count + (image is not None) for count, image in zip(counts, pair, strict=True)]
            mine, its = pair
            if mine is None or its is None:
                continue
            if mine.shape != its.shape:
                return row | {"ffmpeg_size": list(its.shape[:2])}
            difference = np.abs(mine.astype(np.int16) - its)
            total, largest = total + int(difference.sum()), max(largest, int(difference.max()))
            num_values += difference.size
    row |= {"frames": counts[0], "ffmpeg_frames": counts[1]}
    return row | ({"mean": round(total / num_values, 3), "largest": largest} if num_values else {})


def read_frames(path: Path, decoder: Decoder) -> Iterator[np.ndarray]:
    with open_video(path, decoder=decoder) as video, contextlib.suppress(VideoError):
        yield from video


def until_error(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield frames until one fails: FFmpeg's tool stops there too."""
    with contextlib.suppress(av.FFmpegError, ValueError, IndexError):
        yield from frames


def verdict(row: dict[str, Any]) -> str:
    """Return whether a file is "equal" in every value, differs, or is read here or by FFmpeg only."""
    if "ffmpeg_size" in row:
        return "differs"
    mine, its = row["frames"], row["ffmpeg_frames"]
    if not (mine and its):
        return "only_here" if mine else "only_ffmpeg" if its else "equal"
    return "equal" if mine == its and not row["largest"] else "differs"


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Count the files of one folder and decoder by their verdict."""
    verdicts = [verdict(row) for row in rows]
    return {
        "files": len(rows),
        "frames": sum(min(row["frames"], row["ffmpeg_frames"]) for row in rows if "ffmpeg_size" not in row),
        **{name: verdicts.count(name) for name in ("equal", "differs", "only_here", "only_ffmpeg")},
        "largest_mean": max((row["mean"] for row in rows if "mean" in row), default=None),
    }


def video_files(folder: Path, limit: int, seed: int) -> list[Path]:
    """Return the video files below a folder, of more than `limit` a random choice, in the order of their names."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise SystemExit(f"{folder} holds no video files. Pass another folder.")
    return sorted(random.Random(seed).sample(paths, min(limit, len(paths))))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--made", type=Path, metavar="WORK", help="generate videos in this folder and compare them too")
    parser.add_argument("--limit", type=int, default=1000, help="files of each folder, not of the generated ones")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of files")
    options = parser.parse_args(arguments)
    if not options.folders and options.made is None:
        parser.error("pass folders of videos, or --made WORK.")
    ffmpeg = shutil.which("ffmpeg")
    tool = f"PyAV {av.__version__}, filters"
    if ffmpeg:
        stated = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=True).stdout
        tool = " ".join(stated.split()[:3])
    refused = make_videos(options.made) if options.made else []
    files = {folder: video_files(folder, options.limit, options.seed) for folder in options.folders}
    if options.made:
        files[options.made] = video_files(options.made, sys.maxsize, options.seed)
    decoders = installed_decoders()
    summary: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    with progress_bar("file") as bar:
        task = bar.add_task("comparing", total=len(decoders) * sum(map(len, files.values())), note="")
        for (folder, paths), decoder in itertools.product(files.items(), decoders):
            results = []
            for path in paths:
                bar.update(task, note=path.name)
                results.append({
                    "folder": folder.name, "file": str(path.relative_to(folder)), "decoder": decoder,
                    **compare(path, decoder, ffmpeg),
                })  # fmt: skip
                bar.advance(task)
            summary.append({"folder": folder.name, "decoder": decoder, **summarize(results)})
            rows += [row for row in results if verdict(row) != "equal"]
            print(summary[-1], flush=True)
    names = [*(folder.name for folder in options.folders), *(["--made", options.made.name] if options.made else [])]
    facts = describe_run(
        __file__, [options.out.name, *names, "--limit", str(options.limit), "--seed", str(options.seed)]
    )
    facts["versions"] |= {name: version(name) for name in decoders if name != "pyav"}
    facts |= {"ffmpeg": tool, "not_encoded": refused, "summary": summary, "rows": rows}
    write_json(options.out, facts)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("Stopped; nothing was written.")
