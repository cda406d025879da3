"""Define the error responses of the service: HTTP status, what was received, the limit, what to do."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

MEDIA_TYPE = "application/problem+json"


class _Kind(NamedTuple):
    """What problems of one code have in common; a limit or hint with values in it comes with the problem."""

    status: int
    limit: str = ""
    hint: str = ""
    retry_after: str = ""
    """Seconds, as the header Retry-After."""


_FORM = "Expected multipart/form-data with one file that is not empty, in the field 'video'."
_CURL = "For example: curl -F video=@clip.mp4 URL"
_SMALLER = "Send a shorter or smaller video; the model reads only a few small frames of it."
_CONVERT = "Check that it plays, or convert it, for example with ffmpeg."

# The codes are part of the API: programs branch on them.
KINDS = {
    # Uploads
    "not_a_form": _Kind(415, _FORM, _CURL),
    "bad_form": _Kind(422, _FORM, _CURL),
    "too_large": _Kind(413, hint=_SMALLER),
    "upload_too_slow": _Kind(408, hint="Send a smaller file, or use a faster connection."),
    # Videos
    "not_a_video": _Kind(
        415, "Expected a format that FFmpeg reads, such as MP4, WebM, AVI or MKV.", "Send a video file."
    ),
    "cannot_decode": _Kind(422, "At least one frame must decode.", _CONVERT),
    "decoder_crashed": _Kind(422, "Other requests are not affected.", _CONVERT),
    "decoder_killed": _Kind(
        503,
        "It was tried twice.",
        "Retry in a moment. The system ends processes when memory runs out.",
        retry_after="10",
    ),
    "decode_timeout": _Kind(504, hint=_SMALLER),
    "decode_memory": _Kind(422, hint="Scale it down, or convert it, for example with ffmpeg."),
    "too_long": _Kind(422, hint="Cut it, or send it in parts."),
    "too_many_pixels": _Kind(422, hint="Scale it down; the model reads small frames."),
    "too_many_model_pixels": _Kind(422, hint="Crop it: the longer side has too many pixels for the shorter one."),
    # Settings of a request
    "bad_setting": _Kind(422, "/openapi.json lists the allowed values."),
    "unknown_label": _Kind(422, "Expected one of the classes that /v1/model lists."),
    "no_heat_maps": _Kind(
        422,
        "Heat maps need a model on frames or their differences, served from its run folder.",
        "Use /v1/predict for labels only.",
    ),
    # The service
    "busy": _Kind(503, hint="Retry in a moment.", retry_after="2"),
    "stopping": _Kind(503, "Requests in progress are cancelled.", "Retry when it is back.", retry_after="10"),
    "predict_timeout": _Kind(504, hint="Retry when fewer requests run, or send a shorter video."),
    "bad_request": _Kind(400, "Expected a request of HTTP/1.1.", "Check the URL: the service itself speaks no TLS."),
    "no_key": _Kind(
        401,
        "Expected the header 'Authorization: Bearer KEY', or a browser's prompt with the key as password and any user.",
        "Ask the operator of the service for a key.",
    ),
    "bad_header": _Kind(400, "Expected a host name or address, with a port if it is not the usual one.", "Correct it."),
    "unknown_host": _Kind(421),
    "other_origin": _Kind(403),
    "http": _Kind(
        404, "/openapi.json lists the routes.", "Check the URL; behind a proxy with a path set --public-url."
    ),
    "cannot_store": _Kind(507, "This is a fault of the service.", "Retry later.", retry_after="60"),
    "internal": _Kind(500, "This is a bug or a lack of resources.", "See the log of the service."),
}


class Problem(Exception):  # noqa: N818  (a response, not an error in our code)
    """A request that the service refuses or cannot answer; limit, hint and status default to those of its code."""

    def __init__(self, code: str, received: str, *, limit: str = "", hint: str = "", status: int | None = None) -> None:
        # Decoding processes send problems to the service: pickle calls `Problem(*args)`, then restores the attributes.
        super().__init__(code, received)
        # An unknown code is a mistake of ours: KeyError.
        kind = KINDS[code]
        self.code, self.received = code, received
        self.limit, self.hint, self.status = limit or kind.limit, hint or kind.hint, status or kind.status
        self.headers = {"Retry-After": kind.retry_after} if kind.retry_after else {}

    def __str__(self) -> str:
        return " ".join(filter(None, (self.received, self.limit, self.hint)))

    def body(self) -> dict[str, Any]:
        """The JSON of the response, as `vsn.serve.schemas.Error` describes it: RFC 9457, with `error` as an extension."""
        fields = {"code": self.code, "message": str(self), "received": self.received}
        return {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self),
            "error": {**fields, "limit": self.limit, "hint": self.hint},
        }
