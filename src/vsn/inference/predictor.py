"""Predict labels and features of videos with a run or an exported file. Imports no torch; `from_run` does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe, WindowConfig
from vsn.config import Protocol as ProtocolName
from vsn.data.processor import Processor
from vsn.data.video import Part
from vsn.data.video.arrays import NAME
from vsn.data.views import PROTOCOLS
from vsn.inference.inputs import list_inputs, views_of_video
from vsn.inference.prediction import Prediction, check_top_k

if TYPE_CHECKING:
    from vsn.inference.exported import RunPrecision
    from vsn.runs.run import WeightsKind
    from vsn.scores.calibrate import Calibration
    from vsn.stream.push import PushStream

Average = Literal["logits", "softmax"]
Video = str | Path | NDArray[np.uint8] | Iterable[NDArray[np.uint8]]
"""A path, or the frames of a video, uint8 `(N, H, W, 3)`, RGB: an array, a tensor, or a list or iterator of frames."""


class FrameParts(Protocol):
    """A network in two parts, of which the first runs once per frame, however many windows share the frame."""

    first_temporal: str
    """Name of the module where the first part ends; "" if that is the classifier (TSN)."""

    def frame_features(self, crops: NDArray[np.uint8]) -> Any:
        """Compute what the second part takes of one frame, from its crops ``(num_crops, 1, C, h, w)``."""
        ...

    def scores(self, windows: Sequence[Sequence[Any]], average: Average) -> NDArray[np.float32]:
        """Return scores of windows, ``(num_windows, num_classes)``, from the features of the T frames of each."""
        ...


class Predictor(ABC):
    """Predict the labels of videos with a run or an exported file.

    Example:
        predictor = vsn.Predictor.from_run("runs/demo/vsn")  # or from_file("model.onnx"), which needs no PyTorch
        print(predictor.predict("clip.mp4").labels[0])
        print(predictor.predict(frames, fps=25).labels[0])  # frames: uint8 (N, H, W, 3), RGB

    Attributes:
        recipe: settings of the run.
        classes: names, in the order of the scores.
        weights_hash: SHA-256 of the weights; None if unknown.
        device: such as "cpu" or "cuda".
    """

    device: str
    training_seconds: float | None = None
    """Median length of training videos as an exported file records it; None: not recorded, or a run."""

    def __init__(self, recipe: Recipe, classes: tuple[str, ...], *, weights_hash: str | None) -> None:
        self.recipe = recipe
        self.classes = classes
        self.weights_hash = weights_hash

    @property
    def weight_shares(self) -> dict[str, float] | None:
        """What a calibration must have been fitted for (`vsn.scores.facts.weight_shares`); None if unknown."""
        return None if self.weights_hash is None else {self.weights_hash: 1.0}

    @staticmethod
    def from_run(path: str | Path, *, device: str = "auto", weights: WeightsKind = "last") -> Predictor:
        """Load the last or best weights of a run folder, or of ``hf://user/name``. Needs PyTorch.

        Raises:
            RunError: not a run, or it has no weights yet.
        """
        from vsn.inference.predict import RunPredictor

        return RunPredictor.of_run(path, device=device, weights=weights)

    @staticmethod
    def from_file(
        path: str | Path, *, num_threads: int = 0, precision: RunPrecision = "fp32", device: str = "cpu"
    ) -> Predictor:
        """Open a file that `vsn export` wrote; an ONNX, OpenVINO or LiteRT file needs no PyTorch.

        See `vsn.inference.exported.ExportedModel.from_file` for the arguments and errors.
        """
        from vsn.inference.exported import ExportedModel, ExportedPredictor

        model = ExportedModel.from_file(path, num_threads=num_threads, precision=precision, device=device)
        return ExportedPredictor(model, device=device)

    @staticmethod
    def from_pretrained(
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        device: str = "auto",
    ) -> Predictor:
        """Load a repository of the Hugging Face hub, ``user/name``, or a folder; see `vsn.runs.hub.pull`."""
        from vsn.runs.hub import pull

        folder = pull(name, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only)
        return Predictor.from_run(folder, device=device)

    @property
    def processor(self) -> Processor:
        """How a video becomes the clips that the model takes."""
        return Processor(self.recipe)

    def list_inputs(self, path: str | Path) -> list[Path]:
        """Return the videos that a path names: itself, or those of a folder. See `vsn.inference.inputs.list_inputs`."""
        return list_inputs(self.recipe, path)

    def predict(
        self,
        video: Video,
        *,
        fps: float | None = None,
        top_k: int = 5,
        protocol: EvalConfig | None = None,
        part: Part | None = None,
    ) -> Prediction:
        """Return the most probable classes of one video.

        Args:
            video: a video file or a folder of frames; for a flow model also its stored flow, a folder of pictures or a
                `.vsnflow` file. Without stored flow it is computed as for training. Or the frames themselves, uint8
                ``(N, H, W, 3)``, RGB: an array, a tensor, or a list or iterator of frames ``(H, W, 3)``. With the shorter
                side at `recipe.clip.short_side`, as `open_video` returns them, the prediction is that of the file.
            fps: frames per second of frames; only needed for `clip.sampling` "rate" and for `part`.
            top_k: number of classes, 1 or more; at most all.
            protocol: the views; default the run's.
            part: the seconds of the video to label; default all.

        Raises:
            VideoError: the file cannot be read as a video, or ends before the part.
            ConfigError: stored flow does not fit the model, or flow cannot be computed here; or `fps` is missing.
            ValueError: frames of another layout or type.
        """
        # Before a video is decoded.
        check_top_k(top_k)
        view = protocol or self.recipe.eval
        (logits,) = self.scores(self._views(video, view, fps=fps, part=part)[None], view)
        is_multi_label = self.recipe.data.task == "multilabel"
        path = Path(video) if isinstance(video, str | Path) else Path(NAME)
        return Prediction.from_logits(path, logits, self.classes, multi_label=is_multi_label, top_k=top_k)

    def features(
        self, video: Video, *, fps: float | None = None, per_frame: bool = False, protocol: EvalConfig | None = None
    ) -> NDArray[np.float32]:
        """Return the classifier's input for one video: float32 ``(D,)``, or ``(T, D)`` per frame.

        Args:
            video: as for `predict`.
            fps: as for `predict`.
            per_frame: average over the crops only, not over frames.
            protocol: the views; default the run's.

        Raises:
            VideoError: the file cannot be read as a video.
            ConfigError: as for `predict`; or ``per_frame`` with a protocol of several clips.
        """
        view = protocol or self.recipe.eval
        if per_frame:
            check_per_frame(view.protocol)
        (features,) = self.clip_features(self._views(video, view, fps=fps)[None], view, per_frame=per_frame)
        return features

    def stream(
        self,
        *,
        seconds: float | None = None,
        fps: float = 25.0,
        windows: WindowConfig | None = None,
        calibration: Calibration | None = None,
        protocol: ProtocolName | None = None,
    ) -> PushStream:
        """Label frames that are handed over one by one, by sliding windows: ``stream.push(frame, seconds)``.

        Args:
            seconds: length of a window; default that of `windows`.
            fps: about how many frames are pushed each second.
            windows: length and distance of windows, and when a label counts; see docs/stream.md.
            calibration: temperature and threshold, see `vsn.scores.calibrate.load_calibration`.
            protocol: which crops; default that of the run.

        Raises:
            ConfigError: a run on flow or with several labels, or a protocol with several clips.
        """
        # Built on top of predictors; imported here, so that `Predictor` is the one door for users.
        from vsn.stream.push import PushStream

        config = windows or WindowConfig()
        if seconds is not None:
            config = replace(config, seconds=seconds)
        return PushStream(self, fps=fps, windows=config, calibration=calibration, protocol=protocol)

    @abstractmethod
    def scores(self, clips: NDArray[np.uint8], view: EvalConfig) -> NDArray[np.float32]:
        """Return scores of videos, ``(B, num_classes)``, from clips ``(B, T, C, H, W)`` or ``(B, views, T, C, H, W)``.

        They are averaged over the views: logits, or the logarithm of mean probabilities (`eval.average`).

        Raises:
            ScoresError: a score is NaN or infinite.
        """

    @abstractmethod
    def clip_features(
        self, clips: NDArray[np.uint8], view: EvalConfig, *, per_frame: bool = False
    ) -> NDArray[np.float32]:
        """Return the classifier's input of clips as for `scores`: ``(B, D)``, or ``(B, T, D)`` per frame.

        Raises:
            ConfigError: ``per_frame``, and the model has no features of single frames.
        """

    @abstractmethod
    def frame_parts(self) -> tuple[FrameParts | None, str]:
        """Return the network in two parts, None if it has none; and what is computed once per frame, or why nothing is."""

    def _views(
        self, video: Video, view: EvalConfig, *, fps: float | None = None, part: Part | None = None
    ) -> NDArray[np.uint8]:
        if isinstance(video, str | Path):
            if fps is not None:
                raise ValueError(f"fps is {fps}; it is for frames in memory. A file has its own times: leave it out.")
            return views_of_video(Path(video), self.recipe, view, part=part, device=self.device)
        if part is not None and fps is None:
            raise ConfigError("A part is in seconds, so the rate of the frames is needed: pass fps=.")
        reader = Processor(self.recipe, view).reader(video, fps=fps)
        return views_of_video(reader, self.recipe, view, part=part)


def open_predictor(
    path: str | Path,
    *,
    weights: WeightsKind = "last",
    device: str = "auto",
    precision: RunPrecision = "fp32",
) -> Predictor:
    """Open what commands take: a run folder, ``hf://user/name``, or a file that `vsn export` wrote.

    Raises:
        ConfigError: an option that this kind of model does not have.
        RunError, ExportError: the path is neither, or cannot be used here.
    """
    from vsn.inference.exported_metadata import is_exported

    exported = is_exported(path)
    refused = [
        (
            exported and weights == "best",
            f"--weights best needs a run folder; {path} is an exported file, with one model.",
        ),
        (
            not exported and precision != "fp32",
            f"--precision {precision} is for an OpenVINO .xml file, and {path} is a run, which computes in its "
            "train.precision. Leave it out, or export the run: vsn export RUN --to openvino.",
        ),
    ]
    for condition, message in refused:
        if condition:
            raise ConfigError(message)
    if exported:
        return Predictor.from_file(path, precision=precision, device="cpu" if device == "auto" else device)
    return Predictor.from_run(path, device=device, weights=weights)


def reuse_note(first_temporal: str) -> str:
    """Describe what is computed once per frame, given the name of the module where that ends."""
    if not first_temporal:
        return "The whole network up to the classifier is computed once per frame: no temporal operation."
    return f"The layers before {first_temporal} are computed once per frame."


def check_per_frame(protocol: ProtocolName) -> None:
    """Raise `ConfigError` for a protocol with several clips: their frames differ, so no mean by frame exists."""
    if PROTOCOLS[protocol].clips != "one":
        allowed = ", ".join(name for name, plan in PROTOCOLS.items() if plan.clips == "one" and not plan.windows)
        raise ConfigError(
            f"per_frame needs a protocol with one clip, got {protocol!r}. Use one of {allowed}, or leave out per_frame."
        )
