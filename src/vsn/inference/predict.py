"""A video file in, labeled probabilities out, with the preprocessing of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.inference.forward import check_per_frame, pick_test_device, view_features, view_scores
from vsn.inference.prediction import Prediction, check_top_k, list_inputs, most_probable, views_of_video
from vsn.models import VideoClassifier
from vsn.runs.checkpoint import load_model
from vsn.runs.hub import local_run, pull
from vsn.runs.run import WeightsKind, open_run

__all__ = ["Prediction", "Predictor", "TwoStreamPredictor"]


class Predictor:
    """Labels for video files.

    Frames are sampled, resized and cropped as the run's evaluation does it: the same dataset code.

    Example:
        predictor = vsn.Predictor.from_run("runs/demo/vsn")
        print(predictor.predict("clip.mp4").labels[0])
    """

    def __init__(
        self, model: VideoClassifier, recipe: Recipe, classes: tuple[str, ...], *, device: str = "auto"
    ) -> None:
        self.device, self.precision = pick_test_device(recipe, device)
        self.model = model.eval().to(self.device)
        self.recipe = recipe
        self.classes = classes

    @classmethod
    def from_run(cls, path: str | Path, *, device: str = "auto", weights: WeightsKind = "last") -> Predictor:
        """Load a run folder, or ``hf://user/name``, its last or best weights.

        Raises `RunError` when it is none, or has none yet.
        """
        run = open_run(local_run(path))
        return cls(load_model(run, weights), run.recipe, run.classes, device=device)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        device: str = "auto",
    ) -> Predictor:
        """Load a repository of the Hugging Face hub, ``user/name``, or a folder; see `vsn.runs.hub.pull`."""
        folder = pull(name, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only)
        return cls.from_run(folder, device=device)

    def list_inputs(self, path: str | Path) -> list[Path]:
        """What `predict` takes of a path: itself, or all videos of a folder (for a flow model all flow, if any).

        Raises `ConfigError` for a folder without any.
        """
        return list_inputs(self.recipe, path)

    def predict(self, path: str | Path, *, top_k: int = 5, protocol: EvalConfig | None = None) -> Prediction:
        """The most probable classes of one video.

        Args:
            path: a video file or a folder of frames; for a flow model its stored flow too, a folder of
                pictures or a `.vsnflow` file. Of a video the flow is computed, as it was for training.
            top_k: how many classes, 1 or more; at most all.
            protocol: the view; default the run's.

        Raises:
            VideoError: the file cannot be read as a video; names it and says why.
            ConfigError: flow that is stored otherwise than the model wants it, or that cannot be computed here.
        """
        check_top_k(top_k)
        path, view = Path(path), protocol or self.recipe.eval
        clips = views_of_video(path, self.recipe, self.classes, view, device=str(self.device))[None]
        logits = view_scores(self.model, clips, self.precision, batch_size=view.batch_size, average=view.average)[0]
        return most_probable(path, logits, self.classes, recipe=self.recipe, top_k=top_k)

    def features(
        self, path: str | Path, *, per_frame: bool = False, protocol: EvalConfig | None = None
    ) -> NDArray[np.float32]:
        """What the classifier sees of one video: float32 ``(D,)``, or ``(T, D)`` frame by frame.

        Args:
            path: as for `predict`.
            per_frame: do not average over the frames; over the crops of a view it is the mean all the same.
            protocol: the view; default the run's.

        Raises:
            VideoError: the file cannot be read as a video; names it and says why.
            ConfigError: as for `predict`; or by frame, and the protocol shows several clips.
        """
        view = protocol or self.recipe.eval
        if per_frame:
            check_per_frame(view.protocol)
        clips = views_of_video(Path(path), self.recipe, self.classes, view, device=str(self.device))[None]
        return view_features(self.model, clips, self.precision, batch_size=view.batch_size, per_frame=per_frame)[0]


class TwoStreamPredictor:
    """The probabilities of an RGB run and of a flow run, averaged; the flow is computed on the fly.

    Example:
        predictor = TwoStreamPredictor(Predictor.from_run("rgb"), Predictor.from_run("flow"), flow_weight=1.0)
        print(predictor.predict("clip.mp4").labels[0])
    """

    def __init__(self, frames: Predictor, flow: Predictor, *, flow_weight: float) -> None:
        """`flow_weight` is the weight of the flow run; that of the other is 1.

        Raises `ConfigError` for a flow run that is none, other classes (they are matched by name, in any order),
        another task, and a weight that is not above 0.
        """
        if flow.recipe.model.modality != "flow" or frames.recipe.model.modality == "flow":
            raise ConfigError(
                f"two streams are a run on frames and a run on flow; model.modality is "
                f"{frames.recipe.model.modality!r} of the first and {flow.recipe.model.modality!r} of the flow run."
            )
        if differing := sorted(set(frames.classes) ^ set(flow.classes)):
            raise ConfigError(
                f"the run and the flow run know different classes: {len(differing)} are in one of them alone, for "
                f"example {differing[0]!r}. Train both on the same classes."
            )
        several = {one.recipe.data.task == "multilabel" for one in (frames, flow)}
        if len(several) > 1:
            raise ConfigError("one of the runs has several labels a video (data.task), the other one; take two alike.")
        if not flow_weight > 0:
            raise ConfigError(f"the weight of flow is {flow_weight}; it must be above 0 (1: as much as the other).")
        self.frames, self.flow, self.flow_weight = frames, flow, flow_weight

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the run on frames."""
        return self.frames.classes

    def list_inputs(self, path: str | Path) -> list[Path]:
        """What `predict` takes of a path: itself, or all videos of a folder; see `Predictor.list_inputs`."""
        return self.frames.list_inputs(path)

    def predict(self, path: str | Path, *, top_k: int = 5) -> Prediction:
        """The most probable classes of one video file or folder of frames; see `Predictor.predict`."""
        check_top_k(top_k)
        every = len(self.frames.classes)
        frames, flow = (one.predict(path, top_k=every) for one in (self.frames, self.flow))
        of_flow = dict(zip(flow.labels, flow.probabilities, strict=True))
        fused = {
            label: (probability + self.flow_weight * of_flow[label]) / (1 + self.flow_weight)
            for label, probability in zip(frames.labels, frames.probabilities, strict=True)
        }
        best = sorted(fused, key=lambda label: -fused[label])[:top_k]
        return Prediction(Path(path), tuple(best), tuple(fused[label] for label in best))
