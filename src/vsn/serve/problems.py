"""What is answered when a request cannot be: a status, and what came, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Mapping


class Problem(Exception):  # noqa: N818  (an answer, rather than an error of ours)
    """A request that cannot be answered as asked.

    Attributes:
        status: of HTTP.
        code: a word for programs, such as "too_large".
        came: what was received.
        allowed: what would have been taken.
        advice: what to do.
        headers: that go with the answer, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        code: str,
        *,
        came: str,
        allowed: str,
        advice: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{came} {allowed} {advice}")
        self.status = status
        self.code = code
        self.came = came
        self.allowed = allowed
        self.advice = advice
        self.headers = dict(headers or {})

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.status, self.code, self.came, self.allowed, self.advice, self.headers)

    def body(self) -> dict[str, dict[str, str]]:
        """The JSON of the answer."""
        return {
            "error": {
                "code": self.code,
                "message": str(self),
                "came": self.came,
                "allowed": self.allowed,
                "advice": self.advice,
            }
        }


def _rebuild(status: int, code: str, came: str, allowed: str, advice: str, headers: dict[str, str]) -> Problem:
    return Problem(status, code, came=came, allowed=allowed, advice=advice, headers=headers)


def megabytes(num_bytes: float) -> str:
    """A size for people, in units of 10^6 bytes.

    >>> megabytes(100_000_000)
    '100 MB'
    """
    return f"{num_bytes / 1e6:.3g} MB"


def too_large(came: str, max_bytes: int) -> Problem:
    """An upload beyond the limit."""
    return Problem(
        413,
        "too_large",
        came=came,
        allowed=f"A video may have {megabytes(max_bytes)}.",
        advice="Send a shorter or a smaller one; the model looks at a few small frames of it.",
    )


def no_form(came: str) -> Problem:
    """A body that is no upload."""
    return Problem(
        415,
        "not_a_form",
        came=came,
        allowed="This takes one file in the field 'video' of a form, multipart/form-data.",
        advice="For example: curl -F video=@clip.mp4 URL",
    )


def bad_form(came: str) -> Problem:
    """A form that is not the one asked for."""
    return Problem(
        422,
        "bad_form",
        came=came,
        allowed="This takes one file that is not empty, in the field 'video' of the form.",
        advice="For example: curl -F video=@clip.mp4 URL",
    )


def too_slow_upload(num_bytes: int, seconds: float) -> Problem:
    """An upload that does not come to its end."""
    return Problem(
        408,
        "upload_too_slow",
        came=f"After {seconds:g} s {megabytes(num_bytes)} had come.",
        allowed=f"An upload may take {seconds:g} s.",
        advice="Send a smaller file, or over a faster line.",
    )


def busy(max_requests: int) -> Problem:
    """As many requests as are taken at once."""
    return Problem(
        503,
        "busy",
        came="This is one request too many.",
        allowed=f"{max_requests} are taken at once.",
        advice="Send it again in a moment.",
        headers={"Retry-After": "2"},
    )


def stopping() -> Problem:
    """The service is about to end."""
    return Problem(
        503,
        "stopping",
        came="The service is being stopped.",
        allowed="What has not been answered by now is not.",
        advice="Send it again when it is back.",
        headers={"Retry-After": "10"},
    )


def not_a_video(reason: str) -> Problem:
    """A file that no decoder opens."""
    return Problem(
        415,
        "not_a_video",
        came=f"The file cannot be opened as a video: {reason}",
        allowed="Every container and codec that FFmpeg reads is taken, such as MP4, WebM, AVI or MKV.",
        advice="Send a video file.",
    )


def cannot_decode(reason: str) -> Problem:
    """A video that opens and gives no frames."""
    return Problem(
        422,
        "cannot_decode",
        came=f"The video cannot be decoded: {reason}",
        allowed="At least one frame has to decode.",
        advice="Check that it plays, or convert it, for example with ffmpeg.",
    )


def too_long(seconds: float, max_seconds: float) -> Problem:
    """A video that lasts too long."""
    return Problem(
        422,
        "too_long",
        came=f"The video lasts {seconds:.1f} s.",
        allowed=f"It may last {max_seconds:g} s.",
        advice="Cut it, or send it in parts.",
    )


def too_many_pixels(height: int, width: int, max_pixels: int) -> Problem:
    """Frames that are too large."""
    return Problem(
        422,
        "too_many_pixels",
        came=f"The frames have {width}x{height} = {width * height} pixels.",
        allowed=f"They may have {max_pixels}.",
        advice="Make them smaller: the model looks at small ones.",
    )


def decoder_lost(reason: str) -> Problem:
    """A file that ends the process that reads it."""
    return Problem(
        422,
        "decoder_crashed",
        came=f"Reading the video failed: {reason}.",
        allowed="Nobody else's request was harmed; this file is not read again.",
        advice="Check that it plays, or convert it, for example with ffmpeg.",
    )


def decoder_too_slow(seconds: float) -> Problem:
    """A file that takes too long to read."""
    return Problem(
        504,
        "decode_timeout",
        came=f"Reading the video was not done after {seconds:g} s, and was stopped.",
        allowed=f"It may take {seconds:g} s.",
        advice="Send a shorter or a smaller one.",
    )


def no_heat_maps(reason: str) -> Problem:
    """A model whose inside cannot be looked at."""
    return Problem(
        422,
        "no_heat_maps",
        came=f"Heat maps were asked for, and {reason}.",
        allowed="They are made of models on RGB frames, served from their run folder.",
        advice="Ask /v1/predict for the labels alone.",
    )


def unknown_label(label: str, near: str) -> Problem:
    """A class that the model does not know."""
    return Problem(
        422,
        "unknown_label",
        came=f"The label is {label!r}, which the model does not know.",
        allowed="It is one of the classes that /v1/model lists.",
        advice=f"Did you mean {near!r}?" if near else "Leave it out for the most probable one.",
    )
