"""Open a camera, a stream or a file, and give its frames on one clock, across lost connections.

`vsn.stream.reader` runs a source in a thread, paces files in real time, and drops frames when the model is too slow.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame

from vsn.config import LiveConfig
from vsn.data.video import VideoError, at_constant_rate, open_video
from vsn.data.video.constant_rate import even_interval
from vsn.data.video.container import (
    UNDECODABLE,
    content_errors,
    open_container,
    open_source,
    picture_start,
    shown_at,
    video_stream,
)
from vsn.data.video.frame_converter import FrameConverter
from vsn.data.video.packet_index import MAX_BACK_SECONDS, MAX_STEP_SECONDS, clock_may_restart
from vsn.data.video.reader import MAX_PIXELS

Kind = Literal["file", "camera", "url"]

_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp")
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("vfwcap", "{}")}
"""Platform: FFmpeg's input device, and the name of a camera by its number (DirectShow knows cameras by name only)."""
_PLAYLISTS = {"hls", "dash", "rtsp", "sdp"}
"""Formats whose size is that of a playlist or description: it does not mean that the source ends."""
_MAX_WAIT_SECONDS = 30.0
_LIVE_BACK_SECONDS = 1.0
"""A live source whose time stamps step further back has restarted its clock; less is a packet out of order."""
_END_SLACK_SECONDS = 0.5
USUAL_RATE = 25.0
"""Frames per second of a source that does not announce its rate."""


def kind_of(source: str | Path) -> Kind:
    """Return the kind of a source: a number is a camera, ``scheme://`` a URL, all else, and every `Path`, a file."""
    if isinstance(source, str) and re.fullmatch(r"\d+", source):
        return "camera"
    return "url" if isinstance(source, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source) else "file"


def shown_name(source: str | Path) -> str:
    """Return the name of a source for display: a URL without user, password and query."""
    match kind_of(source):
        case "camera":
            return f"camera {source}"
        case "file":
            return str(source)
    # Cameras have user and password in their URL, others a token in the query: neither belongs in a log.
    parts = urlsplit(str(source))
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


@dataclass(frozen=True)
class SourceFrame:
    """A decoded frame, not yet converted, with its time."""

    part: int
    """Number of breaks (lost connections, restarts of the clock, long pauses) before it; windows do not span breaks."""
    seconds: float
    """Start of its display, on the clock of the source."""
    end: float
    """End of its display."""
    stored: VideoFrame


class Source:
    """An open source: a file, the number of a camera, or a URL; a `Path` is always a file.

    Attributes:
        name: for display.
        finite: whether it has an end, as files do.
        frames_per_second: as announced; 0.0 if it is not.
        begins: seconds on its clock at which the first frame is shown: 0.0, or later in a file whose sound begins earlier.
        announced_seconds: duration, as announced; None if it is not.
        reconnected: connections that were lost and restored.
        undecodable: packets that were skipped because they do not decode.
        seconds: end of the last frame that was given.

    Raises:
        VideoError: no such file or camera, or a URL that is refused or silent.
    """

    def __init__(self, source: str | Path, config: LiveConfig) -> None:
        self._source, self._config = source, config
        self.name, self.kind = shown_name(source), kind_of(source)
        self.reconnected = self.undecodable = 0
        self._container = self._open()
        try:
            with content_errors(self.name):
                stream = video_stream(self.name, self._container)
                rate = stream.average_rate or stream.guessed_rate
                self.frames_per_second = float(rate) if rate else 0.0
                started = shown_at(self._container, stream, stream.start_time)
                length = self._container.duration
                self.announced_seconds = length / 1e6 if length is not None else None
                # The size is None, or before PyAV 19 negative, if the server does not announce it.
                is_sized = (self._container.size or 0) > 0 and self._container.format.name not in _PLAYLISTS
            self.finite = self.kind == "file" or (self.kind == "url" and (length is not None or is_sized))
            # A URL is not opened twice for it.
            self.begins = picture_start(self._source) if self.kind == "file" else started if self.finite else 0.0
        except BaseException:
            self.close()
            raise
        # Whose time stamps may restart, and what is a restart.
        self._restarts = not self.finite or clock_may_restart(self._container)
        self._max_step, self._max_back = MAX_STEP_SECONDS, MAX_BACK_SECONDS if self.finite else _LIVE_BACK_SECONDS
        self._converters: dict[int | None, FrameConverter] = {}
        # Of the last frame: its part, and start and end of its display. Before the first one, when that starts.
        self._part, self._seconds, self._end = 0, -1.0, self.begins
        self.seconds = 0.0

    def uneven_interval(self) -> float:
        """Return the usual seconds between the frames of a file that are unevenly spaced in time, else 0.0.

        Reads the packets of the file. Raises `VideoError`.
        """
        if self.kind != "file":
            return 0.0
        with open_video(self._source) as video:
            even = at_constant_rate(video)
            # Evenly spaced frames are neighbors at any rate.
            is_even = even is video or even_interval(video) is not None
            return 0.0 if is_even else 1 / even.frames_per_second

    def close(self) -> None:
        """Close the source. A second call does nothing."""
        self._container.close()

    def picture(self, frame: SourceFrame, short_side: int | None) -> np.ndarray:
        """Convert a frame to RGB, uint8 `(H, W, 3)`, with its shorter side at `short_side` (None: not resized).

        If a source changes its size, frames are resized to that of the first. Raises `VideoError`.
        """
        with content_errors(self.name):
            if short_side not in self._converters:
                self._converters[short_side] = FrameConverter.of(self.name, frame.stored, short_side)
            return np.ascontiguousarray(self._converters[short_side].rgb(frame.stored))

    def frames(self, stop: threading.Event, *, longest_still: float = math.inf) -> Iterator[SourceFrame]:
        """Give every frame that decodes, until the end of a finite source, or until `stop` is set.

        A lost connection is restored after waits that double, with `reconnects` attempts in a row. A finite source
        continues after the last frame; frames of a live source start a new part. So do frames after a picture that was
        on display for more than `longest_still` seconds, which ends after these.

        Raises:
            VideoError: the connection could not be restored, or nothing decodes.
        """
        last: SourceFrame | None = None
        error: VideoError | None = None
        try:
            for frame in self._placed_frames(stop, longest_still):
                given: SourceFrame | None = frame
                # A frame of a file is on display until the next. That of a camera is given at once.
                if self.finite:
                    given, last = last, frame
                    given = given and replace(given, end=min(frame.seconds, given.seconds + longest_still))
                if given is not None:
                    self.seconds = given.end
                    yield given
        except VideoError as problem:
            error = problem
        if last is not None and not stop.is_set():
            self.seconds = last.end
            yield replace(last, end=min(last.end, last.seconds + longest_still))
        if error is not None:
            raise error

    def _placed_frames(self, stop: threading.Event, longest_still: float) -> Iterator[SourceFrame]:
        """Give every frame that decodes, as `frames` does; how long it is displayed is that of its packet."""
        num_attempts = 0
        while True:
            before = self._end
            lost = yield from self._connection(stop, longest_still)
            # `reconnects` counts attempts in a row: frames reset it.
            if self._end > before:
                num_attempts = 0
            if lost is None or stop.is_set():
                break
            # Servers may close the connection with the last byte: then nothing is lost.
            length = self.announced_seconds
            if self.finite and length is not None and self._end > length - _END_SLACK_SECONDS:
                break
            if self.finite and self._seconds < 0:
                raise VideoError(
                    self.name,
                    f"it opens, but no frame arrives ({lost}). A file with its index at the end, as most MP4 files have "
                    "it, needs a server that supports HTTP range requests.",
                )
            num_attempts = self._reconnect(lost, num_attempts, stop)
        if self._seconds < 0 and not stop.is_set():
            raise VideoError(self.name, "none of its frames decodes.")

    def _connection(self, stop: threading.Event, longest_still: float) -> Generator[SourceFrame, None, str | None]:
        """Give the frames of one connection; return why it was lost, None at the end."""
        # Seconds on our clock = time stamp - origin. A live connection continues where the last one ended.
        origin: float | None = None
        offset = self.begins if self.finite else self._end
        if self.reconnected and not self.finite:
            self._part += 1
        stream = video_stream(self.name, self._container)
        packets = self._container.demux(stream)
        lost: str | None = None if self.finite else "it ended"
        while not stop.is_set():
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                packet = None
                lost = None if self.kind == "file" else _reason(error, self._config)
            # To a decoder an empty packet is the end of the stream, and it would take no others.
            if packet is not None and not packet.size:
                continue
            decoded: list[VideoFrame] = []
            try:
                # None gives the frames that the decoder still holds.
                decoded = stream.decode(packet)
            except UNDECODABLE:
                # Damaged packets are common at the start of a stream and after losses; later ones decode again.
                self.undecodable += packet is not None
            for stored in decoded:
                # The last frames of a decoder come without the unit of their time stamps.
                unit = stored.time_base or stream.time_base
                stamp = None if stored.pts is None or unit is None else float(stored.pts * unit)
                usual = 1 / (self.frames_per_second or USUAL_RATE)
                duration = float((stored.duration or 0) * (unit or 0)) or usual
                if stream.codec_context.has_b_frames:  # the duration of a packet is a distance of decoding times
                    duration = min(duration, usual)
                if origin is None and stamp is not None:
                    origin = stamp - offset
                seconds = None if stamp is None or origin is None else stamp - origin
                frame = self._place(stored, seconds, duration, longest_still)
                if frame is None:
                    continue
                # The clock of the source restarted: from here on count from this frame.
                if stamp is not None and frame.part != self._part:
                    origin = stamp - frame.seconds
                self._part, self._seconds, self._end = frame.part, frame.seconds, frame.end
                yield frame
            if packet is None:
                return lost
        return None

    def _place(
        self, stored: VideoFrame, seconds: float | None, duration: float, longest_still: float
    ) -> SourceFrame | None:
        """Put a frame on the clock; None if it was given before the connection was lost."""
        part = self._part
        if seconds is None:
            seconds = self._end
        elif self.finite and self.reconnected and seconds + duration / 2 < self._end:
            # After a reconnection a file starts over. Half a frame of tolerance: time stamps are rounded.
            return None
        elif self._restarts and (seconds - self._end > self._max_step or seconds < self._seconds - self._max_back):
            part, seconds = part + 1, self._end
        # Time stamps that do not rise, as some AVI files have them.
        if seconds <= self._seconds:
            seconds = self._end
        if 0 <= self._seconds < seconds - longest_still:
            part = self._part + 1
        return SourceFrame(part, seconds, seconds + duration, stored)

    def _reconnect(self, lost: str, num_attempts: int, stop: threading.Event) -> int:
        """Open the source again; return the number of attempts in a row. Raises `VideoError` after the last."""
        self._container.close()
        while not stop.is_set():
            if num_attempts >= self._config.reconnects:
                tried = f"; {num_attempts} attempts in a row failed" if num_attempts else ""
                raise VideoError(self.name, f"the connection was lost ({lost}){tried} (--reconnects).")
            stop.wait(min(_MAX_WAIT_SECONDS, self._config.reconnect_wait * 2**num_attempts))
            num_attempts += 1
            if stop.is_set():
                break
            try:
                self._container = self._open()
            except VideoError as error:
                lost = error.reason.rstrip(".")
                continue
            self.reconnected += 1
            break
        return num_attempts

    def _open(self) -> InputContainer:
        match self.kind:
            case "file":
                with content_errors(self.name):
                    return open_container(Path(self._source))
            case "camera":
                return _open_camera(str(self._source), self._config)
            case "url":
                return _open_url(str(self._source), self._config)


def _open_camera(number: str, config: LiveConfig) -> InputContainer:
    name = f"camera {number}"
    device_format, template = _CAMERAS.get(sys.platform, ("", ""))
    # PyAV has no list of input devices, so ask for one by name.
    try:
        is_supported = bool(device_format) and av.ContainerFormat(device_format).is_input
    except ValueError:
        is_supported = False
    if not is_supported:
        raise VideoError(name, f"this build of PyAV has no camera support on {sys.platform}; use a file or a URL.")
    device = template.format(int(number))
    if sys.platform == "linux" and not Path(device).exists():
        available = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
        raise VideoError(name, f"{device} does not exist (available: {', '.join(available) or 'none'}).")
    try:
        return av.open(device, format=device_format, timeout=config.stall_seconds)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(name, f"cannot be opened: {_reason(error, config)}. Is another program using it?") from None


def _open_url(source: str, config: LiveConfig) -> InputContainer:
    name, scheme = shown_name(source), source.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise VideoError(name, f"expected a URL with one of the schemes {', '.join(_SCHEMES)}, or the path of a file.")
    options = {
        # Without "file": a playlist from the network must not open local files.
        "protocol_whitelist": ",".join((*_SCHEMES, "httpproxy", "tls", "crypto", "srtp")),
        "max_pixels": str(MAX_PIXELS),
    }
    # Over UDP, FFmpeg's default, late packets are lost and pictures break up.
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    started = time.monotonic()
    try:
        return open_source(source, options=options, timeout=config.stall_seconds)
    except (av.FFmpegError, OSError, ValueError) as error:
        # Where its own timeout interrupts it, FFmpeg calls the answer of some protocols invalid.
        is_silent = time.monotonic() - started >= config.stall_seconds
        reason = f"no answer for {config.stall_seconds:g} seconds" if is_silent else _reason(error, config)
        raise VideoError(name, f"cannot be opened: {reason}.") from None


def _reason(error: Exception, config: LiveConfig) -> str:
    """Return PyAV's reason without the URL, which may contain a password."""
    if isinstance(error, av.ExitError):
        return f"no data for {config.stall_seconds:g} seconds"
    return str(getattr(error, "strerror", None) or type(error).__name__)
