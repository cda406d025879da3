"""Open an exported model with its runtime, and predict with it; no run folder and no network code are needed.

An ONNX file needs onnxruntime, an ``.xml`` openvino, a ``.pt2`` torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vsn.config import EvalConfig
from vsn.config.errors import one_line
from vsn.data.video import Part
from vsn.export.metadata import SUFFIXES, ExportError, ExportMetadata, import_package, read_metadata
from vsn.inference.inputs import list_inputs, views_of_video
from vsn.inference.prediction import Prediction, check_top_k
from vsn.scores.metrics import log_softmax
from vsn.scores.scores import require_finite

Run = Callable[[NDArray[Any]], NDArray[np.float32]]
RunPrecision = Literal["fp32", "bf16"]


def is_exported(path: str | Path) -> bool:
    """Return whether a path names an exported model: .onnx, .xml or .pt2, and not a folder."""
    return Path(path).suffix in SUFFIXES.values() and not Path(path).is_dir()


class ExportedModel:
    """An opened exported model: maps clips to logits, as arrays.

    Attributes:
        metadata: what the file records about its model.

    Example:
        model = ExportedModel.from_file("model.onnx")
        logits = model(clips)  # clips: uint8 (B, T, C, H, W); logits: float32 (B, num_classes)
    """

    def __init__(self, metadata: ExportMetadata, run: Run) -> None:
        self.metadata = metadata
        self._run = run

    @classmethod
    def from_file(cls, path: str | Path, *, num_threads: int = 0, precision: RunPrecision = "fp32") -> ExportedModel:
        """Open a file that `vsn export` wrote.

        Args:
            path: a .onnx, .xml or .pt2 file.
            num_threads: of ONNX Runtime and OpenVINO; 0: their default.
            precision: OpenVINO's precision of inference; "bf16" is faster if the CPU supports it, and less exact.

        Raises:
            ExportError: no such file, not one that `vsn export` wrote, its runtime is not installed, or the CPU has
                no bf16.
        """
        metadata = read_metadata(path)
        if precision != "fp32" and metadata.to != "openvino":
            raise ExportError(
                f"precision is {precision!r}, which only OpenVINO files support; {path} has format {metadata.to!r}."
            )
        match metadata.to:
            case "onnx":
                run = open_onnx(path, num_threads)
            case "openvino":
                run = open_openvino(path, num_threads, precision)
            case "torch-export" | "aoti":
                run = _open_torch(path, compiled=metadata.to == "aoti")
        return cls(metadata, run)

    def __call__(self, clips: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute logits, float32 ``(B, num_classes)``, of clips ``(B, T, C, H, W)``, uint8 or float32 in [0, 1].

        For a model exported for float32, uint8 clips are divided by 255.

        Raises:
            ExportError: T, C, size or dtype differ from those the file was exported for, or floats are outside [0, 1].
        """
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
        return self._run(np.ascontiguousarray(clips))


class ExportedPredictor:
    """Label video files with an exported file; `vsn.Predictor` does the same with a run folder.

    Frames are sampled, resized and cropped by the code that evaluates the run.

    Example:
        predictor = ExportedPredictor.from_file("model.onnx")
        print(predictor.predict("clip.mp4").labels[0])
    """

    def __init__(self, model: ExportedModel) -> None:
        self.model = model
        self.recipe = model.metadata.to_recipe()
        self.classes = model.metadata.classes
        self.weight_shares = {model.metadata.weights_hash: 1.0}

    @classmethod
    def from_file(
        cls, path: str | Path, *, num_threads: int = 0, precision: RunPrecision = "fp32"
    ) -> ExportedPredictor:
        """Open a file that `vsn export` wrote; see `ExportedModel.from_file`."""
        return cls(ExportedModel.from_file(path, num_threads=num_threads, precision=precision))

    def list_inputs(self, path: str | Path) -> list[Path]:
        """List the inputs of `predict` at a path: itself, or the videos (for a flow model the stored flow) in a folder.

        Raises `ConfigError` if the folder has none.
        """
        return list_inputs(self.recipe, path)

    def predict(
        self, path: str | Path, *, top_k: int = 5, protocol: EvalConfig | None = None, part: Part | None = None
    ) -> Prediction:
        """Predict the most probable classes of one video.

        Args:
            path: a video file or a folder of frames; for a flow model also stored flow.
            top_k: how many classes, 1 or more; at most all.
            protocol: the view; default the one the model was exported for.
            part: the seconds of the video to label; default all.

        Raises:
            VideoError: the file cannot be read as a video, or ends before the part.
            ConfigError: stored flow does not fit the model, or flow cannot be computed here.
            ExportError: clips of the protocol have another size or T than the model takes.
        """
        check_top_k(top_k)
        path, view = Path(path), protocol or self.recipe.eval
        clips = views_of_video(path, self.recipe, view, part=part).numpy()
        logits = video_logits(self.model, clips, average=view.average)
        return Prediction.from_logits(
            path, logits, self.classes, multi_label=self.recipe.data.task == "multilabel", top_k=top_k
        )


def video_logits(
    model: ExportedModel, clips: NDArray[np.uint8], *, average: Literal["logits", "softmax"]
) -> NDArray[np.float32]:
    """Compute scores ``(num_classes,)`` of a video from its clip ``(T, C, H, W)`` or views ``(views, T, C, H, W)``.

    Averages logits over the views, or probabilities, of which it returns the logarithm, like
    `vsn.inference.forward.view_scores`.
    """
    views = clips if clips.ndim == 5 else clips[None]
    # One view at a time, so that a video with many views needs no more memory.
    logits = require_finite(np.concatenate([model(view[None]) for view in views])).astype(np.float64)
    # In float64 until the end, as `view_scores` averages.
    if average == "softmax":
        return np.log(np.exp(log_softmax(logits)).mean(axis=0)).astype(np.float32)
    return logits.mean(axis=0).astype(np.float32)


def open_onnx(path: str | Path, num_threads: int) -> Run:
    """Open an ONNX file in ONNX Runtime on the CPU; 0 threads: its default."""
    ort = import_package("onnxruntime", "A .onnx file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3  # its warnings concern its optimizer; users cannot act on them
    session = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    return lambda clips: session.run(["logits"], {"clip": clips})[0]


def open_openvino(path: str | Path, num_threads: int, precision: RunPrecision) -> Run:
    """Open an OpenVINO or ONNX file in OpenVINO on the CPU; 0 threads: its default."""
    ov = import_package("openvino", "An OpenVINO .xml file")
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
    return lambda clips: np.array(request.infer([clips])[0], dtype=np.float32)


def _open_torch(path: str | Path, *, compiled: bool) -> Run:
    import torch

    try:
        if compiled:
            module: Any = torch._inductor.aoti_load_package(os.fspath(path))
        else:
            module = torch.export.load(os.fspath(path)).module()
    except Exception as error:  # torch raises several types for damaged files
        raise ExportError(f"{path} cannot be opened ({one_line(error)}).") from error

    def run(clips: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(torch.from_numpy(clips)).numpy()
        return logits

    return run
