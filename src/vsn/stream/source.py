"""Frames of a camera, a stream or a file, one after the other on one clock, across lost connections.

A source is a file, the number of a camera, or an address (RTSP, HTTP and the like). This module reads;
`vsn.stream.reader` runs it in a thread, keeps the time and drops what nobody has time for.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

from vsn.config import LiveConfig
from vsn.data.video import VideoError
from vsn.data.video.reader import MAX_PIXELS
from vsn.data.video.video_files import (
    UNDECODABLE,
    FrameConverter,
    content_errors,
    open_container,
    open_source,
    video_stream,
)

Kind = Literal["file", "camera", "url"]

_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "srt", "tcp")
_CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}"),
    "win32": ("dshow", "video={}"),
}
_LISTS = {"hls", "dash", "rtsp", "sdp"}
"""Formats whose size is that of a list or a description, and says nothing of an end."""
_LONGEST_WAIT = 30.0
_JUMP_SECONDS, _BACK_SECONDS = 10.0, 1.0
"""Time stamps of a live source that leap ahead or back by more have begun anew."""
_END_SLACK = 0.5
USUAL_RATE = 25.0


def kind_of(source: str) -> Kind:
    """What a source is: a number is a camera, ``scheme://`` an address, all else a file."""
    if re.fullmatch(r"\d+", source):
        return "camera"
    return "url" if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source) else "file"


def file_source(path: str | Path) -> str:
    """A file as a source, also where its name looks like a camera or an address."""
    return str(path) if kind_of(str(path)) == "file" else f"./{path}"


def shown_name(source: str) -> str:
    """The source as it may be printed: an address without user, password and query."""
    match kind_of(source):
        case "camera":
            return f"camera {source}"
        case "file":
            return source
    parts = urlsplit(source)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


@dataclass(frozen=True)
class SourceFrame:
    """A decoded frame, not yet converted, and when it is shown.

    Attributes:
        part: how often time stamps or the connection had begun anew before it.
        seconds: when it is shown, from the first frame on.
        end: when it is shown no more.
    """

    part: int
    seconds: float
    end: float
    stored: VideoFrame


class Source:
    """A source that is open.

    Attributes:
        name: as it may be printed.
        kind: file, camera or url.
        finite: whether it has an end, as files have.
        frames_per_second: as announced; 0.0 when it is not.
        announced_seconds: its length, as announced; None when it is not.
        reconnected: connections that were lost and made again.
        undecodable: packets passed over because they do not decode.
    """

    def __init__(self, source: str, config: LiveConfig) -> None:
        """Open a file, a camera by its number, or an address.

        Raises:
            VideoError: no such file or camera, an address that is refused or silent; says what to look at.
        """
        self._source, self._config = source, config
        self.name, self.kind = shown_name(source), kind_of(source)
        self.reconnected = self.undecodable = 0
        self._container = self._open()
        with self._closing_on_error(), content_errors(self.name):
            stream = video_stream(self.name, self._container)
            rate = stream.average_rate or stream.guessed_rate
            self.frames_per_second = float(rate) if rate else 0.0
            length = self._container.duration
            self.announced_seconds = length / 1e6 if length is not None else None
            # None, or before PyAV 19 a negative number, of what has no size.
            sized = (self._container.size or 0) > 0 and self._container.format.name not in _LISTS
            self.finite = self.kind == "file" or (self.kind == "url" and (self.announced_seconds is not None or sized))
        self._converters: dict[int | None, FrameConverter] = {}
        self._part, self._seconds, self._end = 0, -1.0, 0.0

    def close(self) -> None:
        """Close it; again does no harm."""
        self._container.close()

    def picture(self, frame: SourceFrame, short_side: int | None) -> np.ndarray:
        """RGB, uint8 `(H, W, 3)`: of the size of the source's first frame, or its shorter side at `short_side`.

        A source that changes its size is resized to that of its first frame. Raises `VideoError`.
        """
        with content_errors(self.name):
            if short_side not in self._converters:
                self._converters[short_side] = FrameConverter.of(self.name, frame.stored, short_side)
            return np.ascontiguousarray(self._converters[short_side].rgb(frame.stored))

    def frames(self, stopped: Callable[[], bool], wait: Callable[[float], object]) -> Iterator[SourceFrame]:
        """Every frame that decodes, until the end of a finite source, or until `stopped()`.

        A connection that is lost is made again, `reconnects` times in a row at most, after waits (`wait`)
        that double. A finite source goes on behind what was seen; of a live one the frames that follow
        are of a new part.

        Raises:
            VideoError: the connection is lost for good, or nothing decodes.
        """
        tries = 0
        while True:
            before = self._end
            lost = yield from self._connection(stopped)
            if self._end > before:
                tries = 0
            if lost is None or stopped() or self._at_announced_end():
                break
            if self.finite and self._end == 0.0:
                raise VideoError(
                    self.name,
                    f"it can be opened, and no frame of it comes ({lost}). A file whose index is at its end, as most MP4 "
                    "files have it, needs a server that answers requests for parts (HTTP ranges).",
                )
            tries = self._reconnect(lost, tries, stopped, wait)
        if self._end == 0.0 and not stopped():
            raise VideoError(self.name, "none of its frames decodes.")

    def _connection(self, stopped: Callable[[], bool]) -> Generator[SourceFrame, None, str | None]:
        """The frames of one connection; returns why it was lost, None at the end."""
        first: float | None = None
        offset = 0.0 if self.finite else self._end
        if self.reconnected and not self.finite:
            self._part += 1
        stream = video_stream(self.name, self._container)
        lost: str | None = None if self.finite else "it ended"

        def packets() -> Iterator[Packet | None]:
            nonlocal lost
            try:
                for packet in self._container.demux(stream):
                    if packet.size:  # decoders take an empty packet for the end of the stream
                        yield packet
            except (av.FFmpegError, OSError) as error:
                lost = None if self.kind == "file" else _reason(error, self._config)
            yield None  # what the decoder still holds

        for packet in packets():
            if stopped():
                return None
            try:
                decoded = stream.decode(packet)
            except UNDECODABLE:
                self.undecodable += packet is not None
                continue
            for stored in decoded:
                # The last frames of a decoder come without the unit of their time stamps.
                unit = stored.time_base or stream.time_base
                shown = None if stored.pts is None or unit is None else float(stored.pts * unit)
                lasts = float((stored.duration or 0) * (unit or 0))
                if first is None and shown is not None:
                    first = shown - offset
                seconds = None if shown is None or first is None else shown - first
                frame = self._placed(stored, seconds, lasts or 1 / (self.frames_per_second or USUAL_RATE))
                if frame is None:
                    continue
                if shown is not None and frame.part != self._part:
                    first = shown - frame.seconds
                self._part, self._seconds, self._end = frame.part, frame.seconds, frame.end
                yield frame
        return lost

    def _placed(self, stored: VideoFrame, seconds: float | None, lasts: float) -> SourceFrame | None:
        """A frame on the clock; None for one that was seen before the connection was lost."""
        part = self._part
        if seconds is None:
            seconds = self._end
        elif self.finite:
            if self.reconnected and seconds + lasts / 2 < self._end:
                return None
        elif seconds - self._end > _JUMP_SECONDS or seconds < self._seconds - _BACK_SECONDS:
            part, seconds = part + 1, self._end
        if seconds <= self._seconds:  # time stamps that do not rise
            seconds = self._end
        return SourceFrame(part, seconds, seconds + lasts, stored)

    def _at_announced_end(self) -> bool:
        return self.finite and self.announced_seconds is not None and self._end > self.announced_seconds - _END_SLACK

    def _reconnect(self, lost: str, tries: int, stopped: Callable[[], bool], wait: Callable[[float], object]) -> int:
        """Open it again; returns how many tries in a row that took. Raises `VideoError` when it is lost for good."""
        self._container.close()
        while not stopped():
            if tries >= self._config.reconnects:
                tried = f"; {tries} tries in a row did not bring it back" if tries else ""
                raise VideoError(self.name, f"the connection was lost ({lost}){tried} (--reconnects).")
            wait(min(_LONGEST_WAIT, self._config.reconnect_wait * 2**tries))
            tries += 1
            if stopped():
                break
            try:
                self._container = self._open()
            except VideoError as error:
                lost = error.reason.rstrip(".")
                continue
            self.reconnected += 1
            break
        return tries

    @contextlib.contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._container.close()
            raise

    def _open(self) -> InputContainer:
        match self.kind:
            case "file":
                with content_errors(self.name):
                    return open_container(Path(self._source))
            case "camera":
                return _open_camera(int(self._source), self._config)
            case "url":
                return _open_url(self._source, self._config)


def _open_camera(number: int, config: LiveConfig) -> InputContainer:
    name = f"camera {number}"
    form, device = _CAMERAS.get(sys.platform, ("", ""))
    if not _reads(form):
        raise VideoError(name, f"this build of PyAV reads no cameras on {sys.platform}; give a file or an address.")
    place = device.format(number)
    if sys.platform == "linux" and not Path(place).exists():
        there = sorted(path.name.removeprefix("video") for path in Path("/dev").glob("video*"))
        found = f"there are {', '.join(there)}" if there else "there is none"
        raise VideoError(name, f"no such camera: {place} is not there ({found}).")
    try:
        return av.open(place, format=form, timeout=config.stall_seconds)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(name, f"cannot be opened: {_reason(error, config)}. Is another program using it?") from None


def _reads(form: str) -> bool:
    """Whether PyAV has an input device of that name; it lists none."""
    try:
        return bool(form) and av.ContainerFormat(form).is_input
    except ValueError:
        return False


def _open_url(source: str, config: LiveConfig) -> InputContainer:
    name, scheme = shown_name(source), source.partition("://")[0].lower()
    if scheme not in _SCHEMES:
        raise VideoError(name, f"addresses begin with one of {', '.join(_SCHEMES)}; for a file give its path.")
    options = {
        "protocol_whitelist": ",".join((*_SCHEMES, "httpproxy", "tls", "crypto", "srtp")),  # no local file
        "max_pixels": str(MAX_PIXELS),
    }
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # over UDP packets that are late are lost
    try:
        return open_source(source, options=options, timeout=config.stall_seconds)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(name, f"cannot be opened: {_reason(error, config)}.") from None


def _reason(error: Exception, config: LiveConfig) -> str:
    """What PyAV says of it, without the address, which may hold a password."""
    if isinstance(error, av.ExitError):
        return f"no data for {config.stall_seconds:g} seconds"
    said = getattr(error, "strerror", None) or type(error).__name__
    return str(said)
