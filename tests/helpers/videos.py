"""Read videos in every way, and damage them."""

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vsn.data.video import open_video

READERS: dict[str, Callable[..., object]] = {
    "metadata": lambda path, **options: open_video(path, **options).metadata,
    "some": lambda path, **options: open_video(path, **options).frames_at([0]),
    "all": lambda path, **options: open_video(path, **options).all_frames(),
    "each": lambda path, **options: list(open_video(path, **options)),
}
"""Every way to read a video."""


def overwrite_packets(source: Path, target: Path, start: int = 0) -> Path:
    """A copy of a video file whose packets from `start` on are announced and do not decode."""
    with av.open(str(source)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(source.read_bytes())
    for position, size in places[start:]:
        content[position : position + size] = b"\xff" * size
    target.write_bytes(content)
    return target


def with_matrix(source: Path, target: Path, matrix: Sequence[float]) -> Path:
    """A copy of an MP4 or MOV whose track header carries this display matrix (a, b, c, d)."""
    content = bytearray(source.read_bytes())
    start = content.index(b"tkhd") + 44  # type, version and flags, 7 words and 4 half words
    a, b, c, d = (round(value * 65536) for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


def remuxed(source: Path, target: Path) -> Path:
    """A copy of a video file in the container of the target's suffix: the same packets."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    return target


def timed_video(
    path: Path,
    times: Sequence[float],
    *,
    values: Sequence[int] | None = None,
    unit: Fraction = Fraction(1, 1000),
    options: dict[str, str] | None = None,
    side: int = 32,
) -> Path:
    """Write gray pictures that are shown at these seconds; `values` are 5, 10, 15, ... by default."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "libvpx" if path.suffix == ".webm" else "libx264"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options or {})
        stream.height = stream.width = side
        stream.pix_fmt, stream.time_base = "yuv420p", unit
        stream.codec_context.time_base = unit
        for i, seconds in enumerate(times):
            value = 5 + 5 * i % 245 if values is None else values[i]
            frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), value, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(seconds / unit), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
