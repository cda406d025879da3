"""Generate short videos for `decoding_equality.py` in every codec, pixel format, color matrix and orientation."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame

# Codec: the container that it is found in.
CODECS = {
    "libx264": "mp4", "libx264rgb": "mkv", "libx265": "mp4", "libvpx": "webm", "libvpx-vp9": "webm", "libsvtav1": "mp4",
    "mpeg1video": "mpg", "mpeg2video": "ts", "mpeg4": "avi", "msmpeg4": "avi", "msmpeg4v2": "avi", "wmv1": "wmv",
    "wmv2": "wmv", "flv": "flv", "h261": "mkv", "h263": "avi", "h263p": "avi", "rv20": "rm", "snow": "avi", "mjpeg": "avi",
    "ljpeg": "avi", "prores_ks": "mov", "dnxhd": "mov", "cfhd": "mov", "qtrle": "mov", "png": "mov", "cinepak": "avi",
    "ffv1": "mkv", "huffyuv": "avi", "ffvhuff": "avi", "utvideo": "avi", "magicyuv": "avi", "msrle": "avi",
    "msvideo1": "avi", "zmbv": "avi", "v210": "mov", "gif": "gif", "apng": "apng", "libwebp_anim": "webp", "jpeg2000": "mov",
    "dvvideo": "avi",
}  # fmt: skip
SIZES = ((64, 96), (17, 35))
"""Height and width; odd sizes cut blocks of color in two."""
FIXED_SIZES = {
    "dvvideo": (576, 720), "dnxhd": (1080, 1920), "h261": (144, 176), "h263": (144, 176),
    "libx265": (64, 96), "libsvtav1": (64, 96),
}  # fmt: skip
"""Of encoders that take no others, or crash at 17x35."""
MATRICES = (1, 2, 4, 5, 6, 7, 9, 10)
"""Numbers in ITU-T H.273."""
ORIENTATIONS = {
    "upright": (1, 0, 0, 1), "hflip": (-1, 0, 0, 1), "vflip": (1, 0, 0, -1), "rotate180": (-1, 0, 0, -1),
    "rotate90": (0, 1, -1, 0), "rotate270": (0, -1, 1, 0), "transpose": (0, 1, 1, 0), "antitranspose": (0, -1, -1, 0),
}  # fmt: skip
NUM_FRAMES = 5


def moving_colors(height: int, width: int, num_frames: int = NUM_FRAMES) -> Iterator[np.ndarray]:
    """Yield frames, uint8 `(H, W, 3)`: smooth waves of color that drift, with no symmetry."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    for number in range(num_frames):
        waves = [np.sin(a * x + b * y + c + 0.3 * number) for a, b, c in ((9, 2, 0), (3, 8, 2), (7, -5, 4))]
        yield (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def write(path: Path, codec: str, pixel_format: str, size: tuple[int, int], **tags: int) -> None:
    """Write one video; `tags` are color properties of the codec. Raises PyAV's errors for what it does not encode."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            codec, rate=25, options={"strict": "experimental", "x265-params": "log-level=none"}
        )
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for image in moving_colors(*size):
            frame = VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format)
            for name, value in tags.items():
                setattr(frame, name, value)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def turned(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> None:
    """Copy an MP4 with this display matrix (a, b, c, d) in the header of its track."""
    content = bytearray(source.read_bytes())
    start = content.index(b"tkhd") + 44  # type, version and flags, 7 words and 4 half words
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)


def with_another_size(path: Path) -> None:
    """Write an H.264 stream whose frames change their size in the middle."""
    content = b""
    for size in ((64, 96), (96, 64), (48, 80)):
        part = path.with_suffix(".part.h264")
        write(part, "libx264", "yuv420p", size)
        content += part.read_bytes()
        part.unlink()
    path.write_bytes(content)


def make_videos(folder: Path) -> list[str]:
    """Write all videos that are not there yet; return what PyAV did not encode, each as "codec pixel_format HxW"."""
    folder.mkdir(parents=True, exist_ok=True)
    refused: list[str] = []

    def attempt(path: Path, codec: str, pixel_format: str, size: tuple[int, int], **tags: int) -> None:
        if path.exists():
            return
        try:
            write(path, codec, pixel_format, size, **tags)
        except (av.FFmpegError, ValueError, OverflowError):
            path.unlink(missing_ok=True)
            refused.append(f"{codec} {pixel_format} {size[0]}x{size[1]}")

    for codec, suffix in CODECS.items():
        for pixel_format in encoded_formats(codec):
            for height, width in (
                FIXED_SIZES.get(codec, size) for size in SIZES[: 1 if codec in FIXED_SIZES else None]
            ):
                path = folder / f"{codec}-{pixel_format}-{height}x{width}.{suffix}"
                attempt(path, codec, pixel_format, (height, width))
    for matrix in MATRICES:
        for color_range in (1, 2):
            for pixel_format in ("yuv420p", "yuv444p10le"):
                path = folder / f"matrix{matrix}-range{color_range}-{pixel_format}.mkv"
                attempt(path, "ffv1", pixel_format, (64, 96), colorspace=matrix, color_range=color_range)
    for name, transfer in (("pq", 16), ("hlg", 18)):
        tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": transfer}
        attempt(folder / f"{name}.mkv", "ffv1", "yuv444p10le", (64, 96), **tags)
    upright = folder / "libx264-yuv420p-64x96.mp4"
    for name, orientation in ORIENTATIONS.items():
        turned(upright, folder / f"{name}.mp4", orientation)
    with_another_size(folder / "sizes.h264")
    return refused


def encoded_formats(codec: str) -> list[str]:
    """Return the names of the pixel formats that a codec encodes; none where it is missing from this PyAV."""
    try:
        formats: Any = av.codec.Codec(codec, "w").video_formats
    except ValueError:
        return []
    return [each.name for each in formats or ()]
