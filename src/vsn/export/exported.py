"""Exported models: opened with their runtime alone, and a `Predictor` over them that needs no run folder.

Nothing here builds a network: an ONNX file needs onnxruntime, an ``.xml`` openvino, a ``.pt2`` torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vsn.config import EvalConfig
from vsn.export.facts import SUFFIXES, ExportError, ExportFacts, need, read_facts
from vsn.inference.prediction import Prediction, check_top_k, list_inputs, most_probable, views_of_video
from vsn.scores.metrics import log_softmax

Run = Callable[[NDArray[Any]], NDArray[np.float32]]
RunPrecision = Literal["fp32", "bf16"]


def is_exported(path: str | Path) -> bool:
    """Whether a path has the name of an exported model: .onnx, .xml or .pt2; a folder has not, whatever its name."""
    return Path(path).suffix in SUFFIXES.values() and not Path(path).is_dir()


class ExportedModel:
    """An exported model, opened: clips in, logits out, as arrays.

    Attributes:
        facts: what the file says of itself.

    Example:
        model = ExportedModel.from_file("model.onnx")
        logits = model(clips)  # clips: uint8 (B, T, C, H, W); logits: float32 (B, num_classes)
    """

    def __init__(self, facts: ExportFacts, run: Run) -> None:
        self.facts = facts
        self._run = run

    @classmethod
    def from_file(cls, path: str | Path, *, num_threads: int = 0, precision: RunPrecision = "fp32") -> ExportedModel:
        """Open a file that `vsn export` wrote.

        Args:
            path: a .onnx, .xml or .pt2 file.
            num_threads: of ONNX Runtime and OpenVINO; 0: as many as they find right.
            precision: what OpenVINO computes in; "bf16" is faster where the CPU has it, and less exact.

        Raises:
            ExportError: no such file, not one of ours, or its runtime is not installed; bf16 where there is none.
        """
        facts = read_facts(path)
        if precision != "fp32" and facts.to != "openvino":
            raise ExportError(
                f"precision is {precision!r}; only OpenVINO computes an exported model in another than it was "
                f"exported in, and {path} is of format {facts.to!r}."
            )
        opened: dict[str, Callable[[], Run]] = {
            "onnx": lambda: open_onnx(path, num_threads),
            "openvino": lambda: open_openvino(path, num_threads, precision),
            "torch-export": lambda: _open_torch(path, compiled=False),
            "aoti": lambda: _open_torch(path, compiled=True),
        }
        return cls(facts, opened[facts.to]())

    def __call__(self, clips: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits, float32 ``(B, num_classes)``, of clips ``(B, T, C, H, W)``, uint8 or float32 in [0, 1].

        uint8 clips are divided by 255 for a model exported for float32.

        Raises:
            ExportError: another T, C, size or dtype than the file was exported for.
        """
        facts = self.facts
        self._check_shape(clips.shape)
        if facts.input == "float32" and clips.dtype == np.uint8:
            clips = clips.astype(np.float32) / np.float32(255)
        if clips.dtype != np.dtype(facts.input):
            raise ExportError(
                f"The clips are {clips.dtype}; this model was exported for {facts.input}"
                + (" in [0, 1] (uint8 works too)." if facts.input == "float32" else ".")
            )
        return self._run(np.ascontiguousarray(clips))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        facts = self.facts
        wanted = (facts.num_frames, facts.channels, facts.height, facts.width)
        if len(shape) == 5 and all(w in (None, s) for s, w in zip(shape[1:], wanted, strict=True)):
            return
        height, width = (side or "any" for side in wanted[2:])
        advice = ""
        if len(shape) == 5 and shape[1] != facts.num_frames:
            advice = f" It keeps to the {facts.num_frames} frames it was exported for: sample {facts.num_frames}."
        elif len(shape) == 5 and shape[2] == facts.channels:
            advice = " Crop or resize the clips, or export the run for any size: vsn export RUN --any-size."
        raise ExportError(
            f"Clips of shape {tuple(shape)} came; this model takes (B, {facts.num_frames}, {facts.channels}, {height}, "
            f"{width})." + advice
        )


class ExportedPredictor:
    """Labels for video files from an exported file alone; `vsn.Predictor` is the same over a run folder.

    Frames are sampled, resized and cropped as the run's evaluation does it: the same code.

    Example:
        predictor = ExportedPredictor.from_file("model.onnx")
        print(predictor.predict("clip.mp4").labels[0])
    """

    def __init__(self, model: ExportedModel) -> None:
        self.model = model
        self.recipe = model.facts.to_recipe()
        self.classes = model.facts.classes

    @classmethod
    def from_file(
        cls, path: str | Path, *, num_threads: int = 0, precision: RunPrecision = "fp32"
    ) -> ExportedPredictor:
        """Open a file that `vsn export` wrote; see `ExportedModel.from_file`."""
        return cls(ExportedModel.from_file(path, num_threads=num_threads, precision=precision))

    def list_inputs(self, path: str | Path) -> list[Path]:
        """What `predict` takes of a path: itself, or all videos of a folder (for a flow model all flow, if any).

        Raises `ConfigError` for a folder without any.
        """
        return list_inputs(self.recipe, path)

    def predict(self, path: str | Path, *, top_k: int = 5, protocol: EvalConfig | None = None) -> Prediction:
        """The most probable classes of one video.

        Args:
            path: a video file or a folder of frames; for a flow model its stored flow too.
            top_k: how many classes, 1 or more; at most all.
            protocol: the view; default the one the model was exported for.

        Raises:
            VideoError: the file cannot be read as a video; names it and says why.
            ConfigError: flow that is stored otherwise than the model wants it, or that cannot be computed here.
            ExportError: the protocol shows clips of another size or T than the model takes.
        """
        check_top_k(top_k)
        path, view = Path(path), protocol or self.recipe.eval
        clips = views_of_video(path, self.recipe, self.classes, view).numpy()
        logits = video_logits(self.model, clips, average=view.average)
        return most_probable(path, logits, self.classes, recipe=self.recipe, top_k=top_k)


def video_logits(
    model: ExportedModel, clips: NDArray[np.uint8], *, average: Literal["logits", "softmax"]
) -> NDArray[np.float32]:
    """Scores ``(num_classes,)`` of a video from its clip ``(T, C, H, W)`` or views ``(views, T, C, H, W)``.

    One view at a time. Over the views logits are averaged, or probabilities, whose logarithm then
    stands for a logit, as `vsn.inference.forward.view_scores` does it.
    """
    views = clips if clips.ndim == 5 else clips[None]
    logits = np.concatenate([model(view[None]) for view in views]).astype(np.float64)
    if average == "softmax":
        return np.log(np.exp(log_softmax(logits)).mean(axis=0)).astype(np.float32)
    return logits.mean(axis=0).astype(np.float32)


def open_onnx(path: str | Path, num_threads: int) -> Run:
    """An ONNX file in ONNX Runtime on the CPU; 0 threads: as many as it finds right."""
    ort = need("onnxruntime", "A .onnx file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3  # warnings are of its optimizer, nothing a user can mend
    session = ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(clips: NDArray[Any]) -> NDArray[np.float32]:
        (logits,) = session.run(["logits"], {"clip": clips})
        found: NDArray[np.float32] = logits
        return found

    return run


def open_openvino(path: str | Path, num_threads: int, precision: RunPrecision) -> Run:
    """An OpenVINO or ONNX file in OpenVINO on the CPU; 0 threads: as many as it finds right."""
    ov = need("openvino", "An OpenVINO .xml file")
    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        # OpenVINO would compute fp32 and say nothing.
        raise ExportError("This processor computes no bf16. Leave the precision out: fp32 works everywhere.")
    # Stated, because OpenVINO takes bf16 by itself where the CPU has it, and the scores would differ.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    if num_threads:
        settings["INFERENCE_NUM_THREADS"] = num_threads
    try:
        request = core.compile_model(os.fspath(path), "CPU", settings).create_infer_request()
    except RuntimeError as error:  # weights that are missing or do not fit
        raise ExportError(
            f"{path} does not open ({' '.join(str(error).split())[:300]}). Its weights are in "
            f"{Path(path).with_suffix('.bin').name}, which must lie beside it."
        ) from error

    def run(clips: NDArray[Any]) -> NDArray[np.float32]:
        return np.array(request.infer([clips])[0], dtype=np.float32)

    return run


def _open_torch(path: str | Path, *, compiled: bool) -> Run:
    import torch

    try:
        if compiled:
            module: Any = torch._inductor.aoti_load_package(os.fspath(path))
        else:
            module = torch.export.load(os.fspath(path)).module()
    except Exception as error:  # torch raises several types for damage
        raise ExportError(f"{path} does not open ({' '.join(str(error).split())[:300]}).") from error

    def run(clips: NDArray[Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(torch.from_numpy(clips)).numpy()
        return found

    return run
