"""Small video files of several codecs, and ways to damage them, for `test_hostile_files.py`."""

import random
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

# name of the file, encoder, pixel format, options
SOURCES = (
    ("h264.mp4", "libx264", "yuv420p", {"g": "6", "bf": "2"}),
    ("h264.mkv", "libx264", "yuv420p", {"g": "12", "bf": "0"}),
    ("vp9.webm", "libvpx-vp9", "yuv420p", {"g": "8", "deadline": "realtime", "cpu-used": "8"}),
    ("mjpeg.avi", "mjpeg", "yuvj420p", {}),
    ("mpeg4.avi", "mpeg4", "yuv420p", {"g": "6"}),
    ("ffv1.mkv", "ffv1", "yuv444p", {}),
    ("mpeg2.ts", "mpeg2video", "yuv420p", {"g": "6"}),
    ("wmv2.wmv", "wmv2", "yuv420p", {}),
    ("hevc.mp4", "libx265", "yuv420p", {"x265-params": "log-level=none:pools=none:keyint=8"}),
)
EXTREMES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\xff\xff",
    b"\xff\xff\0\0",
)


def pictures(num_frames: int = 16, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """A square that moves over a pattern."""
    y, x = np.mgrid[:height, :width]
    pattern = np.stack([3 * x, 4 * y, x * y % 256], axis=2).astype(np.uint8)
    for i in range(num_frames):
        picture = pattern.copy()
        picture[10:26, 2 * i : 2 * i + 16] = 250
        yield picture


def write_sources(folder: Path) -> list[Path]:
    """A file of each of `SOURCES`, and a folder of JPEG frames. Encoders this FFmpeg lacks are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, codec, pixel_format, options in SOURCES:
        if codec not in av.codecs_available:
            continue
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=12, options=options)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
            stream.codec_context.thread_count = 1
            for picture in pictures():
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    (folder / "frames").mkdir()
    for i, picture in enumerate(pictures(8)):
        Image.fromarray(picture).save(folder / f"frames/{i:05d}.jpg", progressive=i % 2 == 0)
    return sorted(folder.iterdir())


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The bytes with one to three kinds of damage."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        match chance.choice(["bits", "bytes", "header", "extreme", "cut", "hole", "again", "swap"]):
            case "bits":
                for _ in range(chance.randint(1, 40)):
                    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            case "bytes":
                place = chance.randrange(len(damaged))
                damaged[place : place + 16] = chance.randbytes(len(damaged[place : place + 16]))
            case "header":
                for _ in range(chance.randint(1, 8)):
                    damaged[_near_an_end(damaged, chance)] = chance.randrange(256)
            case "extreme":
                place = _near_an_end(damaged, chance)
                value = chance.choice(EXTREMES)
                damaged[place : place + 4] = value[: len(damaged[place : place + 4])]
            case "cut":
                del damaged[chance.randint(1, len(damaged)) :]
            case "hole":
                start = chance.randrange(len(damaged))
                del damaged[start : start + chance.randint(1, 600)]
            case "again":
                start = chance.randrange(len(damaged))
                damaged[start:start] = damaged[start : start + chance.randint(1, 600)]
            case "swap":
                size = chance.randint(1, max(1, len(damaged) // 4))
                first, second = chance.randrange(len(damaged)), chance.randrange(len(damaged))
                damaged[first : first + size] = damaged[second : second + size]
        if not damaged:
            break
    return bytes(damaged)


def _near_an_end(content: bytearray, chance: random.Random) -> int:
    """A place in the header, or in the tail, where MP4 keeps its tables."""
    place = chance.randrange(min(len(content), 1200))
    return place if chance.random() < 0.6 else len(content) - 1 - place


def write_mutant(source: Path, target: Path, seed: str) -> Path:
    """A damaged copy of a file, or of a folder of frames of which one to three files are damaged."""
    chance = random.Random(seed)
    if source.is_file():
        target = target.with_suffix(source.suffix)
        target.write_bytes(mutated(source.read_bytes(), chance))
        return target
    target.mkdir()
    frames = sorted(source.iterdir())
    damaged = set(chance.sample(frames, chance.randint(1, 3)))
    for frame in frames:
        content = frame.read_bytes()
        (target / frame.name).write_bytes(mutated(content, chance) if frame in damaged else content)
    return target
