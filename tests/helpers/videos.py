"""Read frames as data sets do: sample again when fewer frames decode than the file announces."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

from vsn.data.video import FewerFramesError, open_video


def read_sampled(path: str | Path, choose: Callable[[int], Sequence[int] | np.ndarray], **options) -> np.ndarray:
    """The frames at `choose(num_frames)`."""
    with open_video(path, **options) as video:
        try:
            return video.frames_at(choose(video.num_frames))
        except FewerFramesError:
            return video.frames_at(choose(video.num_frames))


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
