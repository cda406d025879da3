"""What the container of a video file says and what its packets show, for checking data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from vsn.data.video.video_files import UNDECODABLE, content_errors, open_container, video_stream

_KEY_FRAMES_DECODED = 16


@dataclass(frozen=True)
class VideoFacts:
    """Counts of a video file."""

    announced: int
    """Frames that the header announces; 0 unless the packets end before the duration it announces too.
    (Containers count frames that were dropped in recording, so the count alone says little.)"""
    num_packets: int
    """Pictures stored, whether or not they decode."""
    num_decoded: int
    """Pictures that decode; 0 when only key frames were decoded."""
    key_interval: int
    """Largest distance between key frames, in pictures."""
    sizes: tuple[tuple[int, int], ...]
    """Stored sizes, (height, width), in the order met; the header's where nothing was decoded."""


def video_facts(path: str | Path, *, decode_all: bool = False) -> VideoFacts:
    """Look through a video file. Raises `VideoError`.

    Frame sizes are those of the first key frames; with `decode_all` those of every frame.
    """
    sizes: dict[tuple[int, int], None] = {}
    keys: list[int] = []
    num_packets = num_decoded = num_key_frames = 0
    end_seconds = 0.0
    with content_errors(path), open_container(path) as container:
        stream = video_stream(path, container)
        announced = stream.frames
        seconds, rate = _announced_seconds(container, stream), float(stream.average_rate or 0)
        try:
            for packet in container.demux(stream):
                if not packet.size and packet.dts is None:  # what ends every stream
                    continue
                if packet.is_keyframe:
                    keys.append(num_packets)
                num_packets += 1
                if packet.pts is not None and packet.time_base:
                    end = packet.pts + (packet.duration or 0)
                    end_seconds = max(end_seconds, float(end * packet.time_base))
                wanted = decode_all or (packet.is_keyframe and num_key_frames < _KEY_FRAMES_DECODED)
                if packet.size and wanted:
                    num_key_frames += 1
                    num_decoded += _note_sizes(stream, packet, sizes)
        except av.ExitError:  # reading stalls
            raise
        except av.FFmpegError:
            pass  # cut short; what was read counts
        num_decoded += _note_sizes(stream, None, sizes)
        if not sizes:
            sizes[stream.codec_context.height, stream.codec_context.width] = None
    if seconds and rate:
        is_cut = end_seconds < seconds - 2 / rate
        announced = (announced or round(seconds * rate)) if is_cut else 0
    intervals = [after - before for before, after in zip(keys, [*keys[1:], num_packets], strict=True)]
    return VideoFacts(announced, num_packets, num_decoded if decode_all else 0, max(intervals, default=0), tuple(sizes))


def _announced_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds of video that the header announces; 0 when it does not say, or when sound may be meant."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return container.duration / 1e6
    return 0.0


def _note_sizes(stream: av.VideoStream, packet: av.Packet | None, sizes: dict[tuple[int, int], None]) -> int:
    try:
        frames = stream.decode(packet)
    except UNDECODABLE:
        return 0
    for frame in frames:
        sizes.setdefault((frame.height, frame.width))
    return len(frames)
