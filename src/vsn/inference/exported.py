"""Open an exported model with its runtime, and predict with it; no run folder, network code or PyTorch is needed.

An ONNX file needs onnxruntime, an ``.xml`` openvino, a ``.tflite`` ai-edge-litert. A ``.pt2`` and a ``.pte`` need torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig
from vsn.config.errors import one_line
from vsn.data.views import PROTOCOLS
from vsn.inference.edge import open_executorch, open_litert
from vsn.inference.exported_metadata import (
    ExportError,
    ExportMetadata,
    frames_file,
    import_package,
    read_metadata,
)
from vsn.inference.predictor import Average, FrameParts, Predictor, reuse_note
from vsn.scores.metrics import log_softmax
from vsn.scores.scores import require_finite
from vsn.system.limits import thread_limit

Output = Literal["logits", "features"]
Run = Callable[[NDArray[Any], Output], NDArray[np.float32]]
"""Clips and the name of an output -> that output."""
RunPrecision = Literal["fp32", "bf16"]


class ExportedModel:
    """An opened exported model: maps clips to logits, as arrays.

    Attributes:
        metadata: what the file records about its model.
        parts: of a network in two files (`vsn export --split`), else None.

    Example:
        model = ExportedModel.from_file("model.onnx")
        logits = model(clips)  # clips: uint8 (B, T, C, H, W); logits: float32 (B, num_classes)
    """

    def __init__(self, metadata: ExportMetadata, run: Run, parts: OnnxParts | None = None) -> None:
        self.metadata = metadata
        self.parts = parts
        self._run = run

    @classmethod
    def from_file(
        cls, path: str | Path, *, num_threads: int = 0, precision: RunPrecision = "fp32", device: str = "cpu"
    ) -> ExportedModel:
        """Open a file that `vsn export` wrote.

        Args:
            path: the file.
            num_threads: of ONNX Runtime, OpenVINO and LiteRT; 0: their default, or what a quota of CPU time allows.
            precision: OpenVINO's precision of inference; "bf16" is faster if the CPU supports it, and less exact.
            device: where an ONNX file runs, a key of `PROVIDERS`; the other formats run on the CPU.

        Raises:
            ExportError: no such file, not one that `vsn export` wrote, its runtime is not installed, the device is not
                available, or the CPU has no bf16.
        """
        metadata = read_metadata(path)
        if precision != "fp32" and metadata.to != "openvino":
            raise ExportError(
                f"precision is {precision!r}, which only OpenVINO files support; {path} has format {metadata.to!r}."
            )
        if device != "cpu" and metadata.to != "onnx":
            raise ExportError(
                f"The device is {device!r}, which only ONNX files take; {path} has format {metadata.to!r}."
            )
        num_threads = num_threads or thread_limit()
        parts: OnnxParts | None = None
        run: Run
        match metadata.to:
            case "onnx" if metadata.first_temporal is not None:
                parts = OnnxParts.open(Path(path), metadata, num_threads, device)
                run = parts.run
            case "onnx":
                run = open_onnx(path, num_threads, device)
            case "openvino":
                run = open_openvino(path, num_threads, precision)
            case "torch-export" | "aoti":
                run = _open_torch(path, compiled=metadata.to == "aoti")
            case "executorch":
                run = _only_logits(open_executorch(path, num_threads))
            case "litert":
                run = _only_logits(open_litert(path, num_threads))
        return cls(metadata, _clip_by_clip(run) if metadata.folded else run, parts)

    def __call__(self, clips: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits, float32 ``(B, num_classes)``, of clips ``(B, T, C, H, W)``, uint8 or float32 in [0, 1].

        For a model exported for float32, uint8 clips are divided by 255.

        Raises:
            ExportError: T, C, size or dtype differ from those the file was exported for, or floats are outside [0, 1].
        """
        return self._compute(clips, "logits")

    def features(self, clips: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the input of the classifier: float32 ``(B, T, D)``, or ``(B, D)`` where the network merges the frames.

        Raises:
            ExportError: the file has no such output, or as for logits.
        """
        if "features" not in self.metadata.outputs:
            raise ExportError(
                f"The file has the output {', '.join(self.metadata.outputs)} and none for features, which ONNX and OpenVINO "
                "files of this version have. Export the run again: vsn export RUN."
            )
        return self._compute(clips, "features")

    def _compute(self, clips: NDArray[np.uint8] | NDArray[np.float32], output: Output) -> NDArray[np.float32]:
        metadata, dtype = self.metadata, self.metadata.input
        expected = (metadata.num_frames, metadata.channels, metadata.height, metadata.width)
        # The runtimes refuse other shapes too, with messages about nodes of the graph.
        if clips.ndim != 5 or any(e not in (None, s) for s, e in zip(clips.shape[1:], expected, strict=True)):
            hint = ""
            if clips.ndim == 5 and clips.shape[1] != metadata.num_frames:
                hint = f" Sample {metadata.num_frames} frames: the number is fixed at export."
            elif clips.ndim == 5 and clips.shape[2] == metadata.channels:
                hint = " Crop or resize the clips, or export the run for any size: vsn export RUN --any-size."
            axes = ", ".join(str(size or "any") for size in expected)
            raise ExportError(f"Expected clips of shape (B, {axes}), got {clips.shape}.{hint}")
        if dtype == "float32" and clips.dtype == np.uint8:
            clips = clips.astype(np.float32) / np.float32(255)
        if clips.dtype != np.dtype(dtype):
            allowed = "float32 in [0, 1], or uint8" if dtype == "float32" else "uint8"
            raise ExportError(f"Expected clips of dtype {allowed}, got {clips.dtype}.")
        # As `VideoClassifier.normalized` does; NaN is in no range.
        if dtype == "float32" and clips.size and not (clips.min() >= -1e-3 and clips.max() <= 1 + 1e-3):
            raise ExportError(
                f"Expected float clips in [0, 1], got values from {clips.min():.3g} to {clips.max():.3g}. Pass uint8, or "
                "divide by 255; the model normalizes by itself."
            )
        # A crop is a view into its frames; runtimes read contiguous memory.
        return self._run(np.ascontiguousarray(clips), output)


class ExportedPredictor(Predictor):
    """Predict with an exported file; see `Predictor.from_file`.

    Attributes:
        model: the opened file.
    """

    def __init__(self, model: ExportedModel, *, device: str = "cpu") -> None:
        super().__init__(model.metadata.to_recipe(), model.metadata.classes, weights_hash=model.metadata.weights_hash)
        self.model, self.device = model, device
        self.training_seconds = model.metadata.training_seconds

    def scores(self, clips: NDArray[np.uint8], view: EvalConfig) -> NDArray[np.float32]:
        """See `Predictor.scores`.

        Raises:
            ExportError: clips of the protocol have another size or T than the model takes.
        """
        if PROTOCOLS[view.protocol].windows:
            raise ConfigError(
                f"Protocol {view.protocol!r} scores windows of the last feature map, which an exported file does not have. "
                "Use 'fcn', or the run."
            )
        # One by one: a file may have been exported for a fixed batch size.
        return np.stack([video_logits(self.model, clip, average=view.average) for clip in clips])

    def clip_features(
        self, clips: NDArray[np.uint8], view: EvalConfig, *, per_frame: bool = False
    ) -> NDArray[np.float32]:
        """See `Predictor.clip_features`.

        Raises:
            ExportError: the file has no output for features, or as `scores`.
        """
        return np.stack([self._features(clip, per_frame=per_frame) for clip in clips])

    def _features(self, clip: NDArray[np.uint8], *, per_frame: bool) -> NDArray[np.float32]:
        views = clip if clip.ndim == 5 else clip[None]
        # (views, T, D); or (views, D) where the network itself merges the frames.
        features = require_finite(np.concatenate([self.model.features(view[None]) for view in views]))
        if per_frame and features.ndim != 3:
            raise ConfigError(
                f"{self.recipe.model.name} merges the frames before its features, so it has none per frame. Leave out "
                "per_frame."
            )
        return features.mean(axis=0 if per_frame or features.ndim == 2 else (0, 1), dtype=np.float64).astype(np.float32)

    def frame_parts(self) -> tuple[FrameParts | None, str]:
        """See `Predictor.frame_parts`."""
        if (parts := self.model.parts) is None:
            return (
                None,
                "Features are not reused: the file holds the network in one part (vsn export RUN --split: in two).",
            )
        return parts, reuse_note(parts.first_temporal)


def video_logits(model: ExportedModel, clips: NDArray[np.uint8], *, average: Average) -> NDArray[np.float32]:
    """Compute scores ``(num_classes,)`` of a video from its clip ``(T, C, H, W)`` or views ``(views, T, C, H, W)``.

    Averages logits over the views, or probabilities, of which it returns the logarithm, like
    `vsn.inference.forward.view_scores`.
    """
    views = clips if clips.ndim == 5 else clips[None]
    # One view at a time, so that a video with many views needs no more memory.
    return _mean_of_views(np.concatenate([model(view[None]) for view in views]), average)


def _mean_of_views(logits: NDArray[np.float32], average: Average) -> NDArray[np.float32]:
    logits = require_finite(logits).astype(np.float64)  # until the end, as `view_scores` averages
    if average == "softmax":
        return np.log(np.exp(log_softmax(logits)).mean(axis=0)).astype(np.float32)
    return logits.mean(axis=0).astype(np.float32)


class OnnxParts:
    """A network in two ONNX files, of which the first computes the features of single frames; see `FrameParts`."""

    def __init__(self, frames: Any, clip: Any, first_temporal: str) -> None:
        self.first_temporal = first_temporal
        self._frames, self._clip = frames, clip
        self._names = [value.name for value in clip.get_inputs()]

    @classmethod
    def open(cls, path: Path, metadata: ExportMetadata, num_threads: int, device: str) -> OnnxParts:
        """Open both files. Raises `ExportError` if the first is missing, or of another export."""
        first = frames_file(path)
        if not first.is_file():
            raise ExportError(f"{path} is the second part of a network; the first, {first.name}, must be beside it.")
        if read_metadata(first) != metadata:
            raise ExportError(f"{first} is not of the same export as {path}. Copy both files of one export.")
        frames, clip = (onnx_session(file, num_threads, device) for file in (first, path))
        return cls(frames, clip, metadata.first_temporal or "")

    def run(self, clips: NDArray[Any], output: Output) -> NDArray[np.float32]:
        """Compute an output of clips ``(B, T, C, H, W)``."""
        features = self._frames.run(None, {"frames": clips.reshape(-1, *clips.shape[2:])})
        return self._clip.run([output], dict(zip(self._names, features, strict=True)))[0]

    def frame_features(self, crops: NDArray[np.uint8]) -> list[list[NDArray[np.float32]]]:
        """See `FrameParts.frame_features`."""
        # Crop by crop, each frame by itself: in a batch convolutions may round differently.
        return [self._frames.run(None, {"frames": crop}) for crop in crops]

    def scores(
        self, windows: Sequence[Sequence[list[list[NDArray[np.float32]]]]], average: Average
    ) -> NDArray[np.float32]:
        """See `FrameParts.scores`."""
        return np.stack([self._window_scores(frames, average) for frames in windows])

    def _window_scores(
        self, frames: Sequence[list[list[NDArray[np.float32]]]], average: Average
    ) -> NDArray[np.float32]:
        logits = []
        # From frames of crops to crops of frames: a crop of the window has that crop of each frame.
        for crop in zip(*frames, strict=True):
            features = [np.concatenate(values) for values in zip(*crop, strict=True)]
            logits.append(self._clip.run(["logits"], dict(zip(self._names, features, strict=True)))[0])
        return _mean_of_views(np.concatenate(logits), average)


def _only_logits(run: Callable[[NDArray[Any]], NDArray[np.float32]]) -> Run:
    return lambda clips, output: run(clips)


def _clip_by_clip(run: Run) -> Run:
    """Return a function of clips ``(B, T, C, H, W)`` that calls `run` on the frames of each."""
    return lambda clips, output: np.concatenate([run(frames, output) for frames in clips])


PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
"""What ONNX Runtime calls the devices of `ExportedModel.from_file`."""
_PROVIDER_PACKAGES = {"cuda": "onnxruntime-gpu", "tensorrt": "onnxruntime-gpu", "openvino": "onnxruntime-openvino"}


def open_onnx(path: str | Path, num_threads: int, device: str = "cpu") -> Run:
    """Open an ONNX file in ONNX Runtime; see `onnx_session`."""
    session = onnx_session(path, num_threads, device)
    return lambda clips, output: session.run([output], {"clip": clips})[0]


def onnx_session(path: str | Path, num_threads: int, device: str = "cpu") -> Any:
    """Return a session of ONNX Runtime on a device, a key of `PROVIDERS`; 0 threads: its default.

    Raises:
        ExportError: a damaged file; or the device is not available, where ONNX Runtime would go on with the CPU.
    """
    ort = import_package("onnxruntime", "A .onnx file", extra="runtime")
    if device not in PROVIDERS:
        raise ExportError(f"The device is {device!r}; an ONNX file runs on one of {', '.join(PROVIDERS)}.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3  # its warnings concern its optimizer; users cannot act on them
    provider, usable = PROVIDERS[device], ort.get_available_providers()
    if provider in usable:
        # The CPU behind it, for operators that the device does not have.
        providers = list(dict.fromkeys([provider, PROVIDERS["cpu"]]))
        try:
            session = ort.InferenceSession(os.fspath(path), options, providers=providers)
        except Exception as error:  # its own types
            raise ExportError(f"{path} is damaged or not an exported model ({one_line(error)}).") from error
        # A provider that does not start, such as one without its driver, is left out, and only a log says so.
        if provider in (usable := session.get_providers()):
            return session
    raise ExportError(
        f"The device is {device!r}, but ONNX Runtime offers {', '.join(usable)} here. It needs the package "
        f"{_PROVIDER_PACKAGES[device]} in place of onnxruntime, and the device's libraries and driver."
    )


def open_openvino(path: str | Path, num_threads: int, precision: RunPrecision) -> Run:
    """Open an OpenVINO or ONNX file in OpenVINO on the CPU; 0 threads: its default."""
    ov = import_package("openvino", "An OpenVINO .xml file", extra="openvino")
    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        # OpenVINO would silently compute in fp32.
        raise ExportError("This CPU does not support bf16. Leave the precision out; fp32 works on every CPU.")
    # Always set: by default OpenVINO computes in bf16 on CPUs that support it, and the scores would differ.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    if num_threads:
        settings["INFERENCE_NUM_THREADS"] = num_threads
    try:
        request = core.compile_model(os.fspath(path), "CPU", settings).create_infer_request()
    except RuntimeError as error:  # the weights are missing or do not match
        raise ExportError(
            f"{path} cannot be opened ({one_line(error)}). Its weights are in "
            f"{Path(path).with_suffix('.bin').name}, which must be in the same folder."
        ) from error
    # A copy: the next clip overwrites the memory.
    return lambda clips, output: np.array(request.infer([clips])[output], dtype=np.float32)


def _open_torch(path: str | Path, *, compiled: bool) -> Run:
    import torch

    try:
        if compiled:
            module: Any = torch._inductor.aoti_load_package(os.fspath(path))
        else:
            module = torch.export.load(os.fspath(path)).module()
    except Exception as error:  # torch raises several types for damaged files
        raise ExportError(f"{path} cannot be opened ({one_line(error)}).") from error

    def run(clips: NDArray[Any], output: Output) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(torch.from_numpy(clips)).numpy()
        return logits

    return run
