"""Read videos in every way, and damage them."""

from collections.abc import Callable
from pathlib import Path

import av

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
