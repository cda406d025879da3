"""Scan a video file for faults: truncated packets, changing frame sizes, sparse key frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import av

from vsn.data.video.container import content_errors, decode_packet, open_container, video_stream

_KEY_FRAMES_DECODED = 16


@dataclass(frozen=True)
class VideoScan:
    """What the container of a video file announces, and what its packets hold."""

    announced: int
    """Frames that the header announces; 0 unless the packets end before the duration it announces too.
    (Containers count frames that were dropped in recording, so the count proves little without the duration.)"""
    num_packets: int
    """Frames stored, whether or not they decode."""
    num_decoded: int
    """Frames that decode; 0 when only key frames were decoded."""
    key_interval: int
    """Largest distance between key frames, in frames."""
    sizes: tuple[tuple[int, int], ...]
    """Stored sizes, (height, width), in order of appearance; the header's when nothing was decoded."""


def scan_video(path: str | Path, *, decode_all: bool = False) -> VideoScan:
    """Scan a video file; decode its first key frames, or with `decode_all` every frame. Raises `VideoError`."""
    # A dict as an ordered set.
    sizes: dict[tuple[int, int], None] = {}
    keys: list[int] = []
    num_packets = num_decoded = num_sent = 0
    end_seconds = 0.0
    with content_errors(path), open_container(path) as container:
        stream = video_stream(path, container)
        announced, rate = stream.frames, float(stream.average_rate or 0)
        seconds = _announced_seconds(container, stream)
        try:
            for packet in container.demux(stream):
                if not packet.size and packet.dts is None:  # the end of the stream, not a dropped frame
                    continue
                if packet.is_keyframe:
                    keys.append(num_packets)
                num_packets += 1
                if packet.pts is not None and packet.time_base:
                    end = packet.pts + (packet.duration or 0)
                    end_seconds = max(end_seconds, float(end * packet.time_base))
                if packet.size and (decode_all or (packet.is_keyframe and num_sent < _KEY_FRAMES_DECODED)):
                    num_sent += 1
                    frames = decode_packet(stream, packet)
                    num_decoded += len(frames)
                    sizes |= dict.fromkeys((frame.height, frame.width) for frame in frames)
        except av.ExitError:  # reading stalls
            raise
        except av.FFmpegError:
            pass  # truncated: report what was read
        frames = decode_packet(stream, None)
        num_decoded += len(frames)
        sizes |= dict.fromkeys((frame.height, frame.width) for frame in frames)
        if not sizes:
            sizes[stream.codec_context.height, stream.codec_context.width] = None
    # Two frames of tolerance: the last frame may have no duration.
    if seconds and rate:
        is_truncated = end_seconds < seconds - 2 / rate
        announced = (announced or round(seconds * rate)) if is_truncated else 0
    intervals = [after - before for before, after in zip(keys, [*keys[1:], num_packets], strict=True)]
    return VideoScan(announced, num_packets, num_decoded if decode_all else 0, max(intervals, default=0), tuple(sizes))


def _announced_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds of video that the header announces; 0 when it announces none, or perhaps those of the sound."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    # The duration of a container is that of its longest stream, which may be the sound.
    if container.duration and len(container.streams) == 1:
        return container.duration / 1e6
    return 0.0
