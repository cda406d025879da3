"""Declare the JSON of the responses, which OpenAPI describes with an example each."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field

# Examples of OpenAPI, as JSON to be copied from here into documentation.
_PREDICTION = """{
  "predictions": [{"label": "swiping left", "probability": 0.91}, {"label": "swiping right", "probability": 0.06}],
  "protocol": "fcn", "num_frames": 8,
  "video": {"num_bytes": 381044, "num_frames": 90, "frames_per_second": 30.0, "seconds": 3.0, "width": 640, "height": 480},
  "timing": {"upload_ms": 4.1, "decode_ms": 88.0, "predict_ms": 61.5, "total_ms": 153.9},
  "note": "", "frames": [], "timeline": null
}"""
_ERROR = """{"type": "about:blank", "title": "Unprocessable Entity", "status": 422,
"detail": "The video lasts 1204.0 s. The limit is 600 s. Cut it, or send it in parts.", "error": {
  "code": "too_long", "message": "The video lasts 1204.0 s. The limit is 600 s. Cut it, or send it in parts.",
  "received": "The video lasts 1204.0 s.", "limit": "The limit is 600 s.", "hint": "Cut it, or send it in parts."
}}"""


def _example(text: str) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [json.loads(text)]})


class LabelProbability(BaseModel):
    """A class and its probability."""

    label: str
    probability: float = Field(ge=0, le=1)


class VideoInfo(BaseModel):
    """The uploaded video, as decoded."""

    num_bytes: int
    num_frames: int = Field(description="counted; the header is not trusted")
    frames_per_second: float = Field(description="0 when unknown")
    seconds: float
    width: int
    height: int


class Timing(BaseModel):
    """Milliseconds, waiting included."""

    upload_ms: float
    decode_ms: float
    predict_ms: float
    total_ms: float


class TimelineWindow(BaseModel):
    """The label of one window of a long video."""

    start_seconds: float
    end_seconds: float
    label: str = Field(description='a class, or "unknown"')
    probability: float = Field(description="of the label, smoothed over time; for unknown that of the best class")
    predictions: list[LabelProbability] = Field(description="smoothed, most probable first")


class TimelineSegment(BaseModel):
    """An interval of a long video with one label; the time between segments is unknown."""

    start_seconds: float
    end_seconds: float
    label: str
    probability: float = Field(description="mean over its windows")


class Timeline(BaseModel):
    """A long video over time, as `vsn predict --windows` gives it with these window_seconds and every_seconds."""

    seconds: float = Field(description="duration that was decoded")
    parts: list[tuple[float, float]] = Field(
        description="start and end of each part, in seconds: windows do not span long pauses and restarts of the clock"
    )
    window_seconds: float
    every_seconds: float = Field(description="from one window to the next")
    segments: list[TimelineSegment]
    windows: list[TimelineWindow]


class Prediction(BaseModel):
    """The labels of a video."""

    model_config = _example(_PREDICTION)

    predictions: list[LabelProbability] = Field(description="most probable first, as `vsn predict` gives them")
    protocol: str = Field(description="test protocol: see docs/evaluation.md")
    num_frames: int = Field(description="frames of a clip, T")
    video: VideoInfo
    note: str = Field(default="", description="what limits the answer, such as a still picture; empty for most videos")
    timing: Timing
    frames: list[str] = Field(default=[], description="with frames=true: the sampled frames, JPEG as data: URLs")
    timeline: Timeline | None = Field(
        default=None, description="with timeline=true, for a long video and a model that supports windows"
    )


class HeatMaps(BaseModel):
    """Where in each frame the score of a class comes from (Grad-CAM)."""

    label: str
    probability: float
    frames: list[str] = Field(description="the sampled frames, JPEG as data: URLs")
    heat_maps: list[str] = Field(description="the same frames under their heat maps")


class ErrorDetail(BaseModel):
    """What is wrong, for people and for programs."""

    code: str
    message: str = Field(description="received, limit and hint in a row")
    received: str
    limit: str
    hint: str


class Error(BaseModel):
    """The response to a request that is refused or that failed, as RFC 9457 describes it."""

    model_config = _example(_ERROR)

    type: str = Field(description="always about:blank; error.code is for programs")
    title: str = Field(description="name of the status")
    status: int
    detail: str = Field(description="error.message")
    error: ErrorDetail


class Progress(BaseModel):
    """Progress of a prediction."""

    stage: str = Field(description="upload, decode, predict, or unknown: not begun, or answered already")
    done: int = Field(default=0, description="clips predicted")
    total: int = Field(default=0, description="clips to predict; 0: not known yet")


class Health(BaseModel):
    """Whether the service works, and if not, why."""

    status: str
    reason: str = ""


class Accuracy(BaseModel):
    """A result of `vsn eval`; measures are shares of 1."""

    split: str
    protocol: str
    order: str
    num_videos: int
    top1: float | None = None
    top1_interval: tuple[float, float] | None = Field(default=None, description="95% interval")
    top5: float | None = None
    mean_average_precision: float | None = Field(default=None, description="of multi-label models")


class Card(BaseModel):
    """The model, its measured accuracy, and the limits of the service."""

    name: str = Field(description="of the run")
    model: str
    classes: list[str]
    num_frames: int = Field(description="frames of a clip, T")
    modality: str
    task: str
    protocol: str
    num_views: int
    preprocessing: dict[str, str]
    accuracy: list[Accuracy] = Field(description="results of `vsn eval` with these weights")
    weights: str
    weights_sha256: str
    exported: str = Field(default="", description="format of an exported file; empty for a run folder")
    device: str
    vsn: str = Field(description="version of vsn")
    heat_maps: bool = Field(description="whether /v1/explain works")
    timelines: bool = Field(description="whether long videos get a timeline")
    limits: dict[str, float] = {}
