"""Predict labels and features of video files, with the preprocessing of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.data.video import Part
from vsn.data.views import window_share
from vsn.inference.forward import check_per_frame, pick_test_device, view_features, view_scores
from vsn.inference.inputs import list_inputs, views_of_video
from vsn.inference.prediction import Prediction, check_top_k
from vsn.models import VideoClassifier
from vsn.runs.checkpoint import load_model
from vsn.runs.hub import local_run, pull
from vsn.runs.run import WeightsKind, open_run, weights_hash


class Predictor:
    """Predict the labels of video files with one run.

    Example:
        predictor = vsn.Predictor.from_run("runs/demo/vsn")
        print(predictor.predict("clip.mp4").labels[0])
    """

    def __init__(
        self,
        model: VideoClassifier,
        recipe: Recipe,
        classes: tuple[str, ...],
        *,
        device: str = "auto",
        weights_hash: str | None = None,
    ) -> None:
        self.device, self.precision = pick_test_device(recipe, device)
        self.model = model.eval().to(self.device)
        self.recipe = recipe
        self.classes = classes
        # What a calibration must have been fitted for (`vsn.scores.facts.weight_shares`).
        self.weight_shares = None if weights_hash is None else {weights_hash: 1.0}

    @classmethod
    def from_run(cls, path: str | Path, *, device: str = "auto", weights: WeightsKind = "last") -> Predictor:
        """Load the last or best weights of a run folder, or of ``hf://user/name``.

        Raises:
            RunError: not a run, or it has no weights yet.
        """
        run = open_run(local_run(path))
        model = load_model(run, weights)
        return cls(model, run.recipe, run.classes, device=device, weights_hash=weights_hash(run, weights))

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
        """Return the videos that a path names: itself, or those of a folder. See `vsn.inference.inputs.list_inputs`."""
        return list_inputs(self.recipe, path)

    def predict(
        self, path: str | Path, *, top_k: int = 5, protocol: EvalConfig | None = None, part: Part | None = None
    ) -> Prediction:
        """Return the most probable classes of one video.

        Args:
            path: a video file or a folder of frames; for a flow model also its stored flow, a folder of pictures or a
                `.vsnflow` file. Without stored flow it is computed as for training.
            top_k: number of classes, 1 or more; at most all.
            protocol: the views; default the run's.
            part: the seconds of the video to label; default all.

        Raises:
            VideoError: the file cannot be read as a video, or ends before the part.
            ConfigError: stored flow does not fit the model, or flow cannot be computed here.
        """
        # Before a video is decoded.
        check_top_k(top_k)
        path, view = Path(path), protocol or self.recipe.eval
        clips = views_of_video(path, self.recipe, view, part=part, device=str(self.device))[None]
        logits = view_scores(
            self.model,
            clips,
            self.precision,
            batch_size=view.batch_size,
            average=view.average,
            window_share=window_share(view.protocol, self.recipe.clip),
        )[0]
        is_multi_label = self.recipe.data.task == "multilabel"
        return Prediction.from_logits(path, logits, self.classes, multi_label=is_multi_label, top_k=top_k)

    def features(
        self, path: str | Path, *, per_frame: bool = False, protocol: EvalConfig | None = None
    ) -> NDArray[np.float32]:
        """Return the classifier's input for one video: float32 ``(D,)``, or ``(T, D)`` per frame.

        Args:
            path: as for `predict`.
            per_frame: average over the crops only, not over frames.
            protocol: the views; default the run's.

        Raises:
            VideoError: the file cannot be read as a video.
            ConfigError: as for `predict`; or ``per_frame`` with a protocol of several clips.
        """
        view = protocol or self.recipe.eval
        if per_frame:
            check_per_frame(view.protocol)
        clips = views_of_video(Path(path), self.recipe, view, device=str(self.device))[None]
        return view_features(self.model, clips, self.precision, batch_size=view.batch_size, per_frame=per_frame)[0]


class TwoStreamPredictor:
    """Average the probabilities of an RGB run and of a flow run, whose flow is computed on the fly.

    Example:
        predictor = TwoStreamPredictor(Predictor.from_run("rgb"), Predictor.from_run("flow"), flow_weight=1.0)
        print(predictor.predict("clip.mp4").labels[0])
    """

    def __init__(self, frames: Predictor, flow: Predictor, *, flow_weight: float) -> None:
        """Check that two runs can be fused; ``flow_weight`` is relative to the frames' weight of 1.

        Raises:
            ConfigError: modalities, classes or tasks do not fit (classes are matched by name, in any order), or the
                weight is not above 0.
        """
        if flow.recipe.model.modality != "flow" or frames.recipe.model.modality == "flow":
            raise ConfigError(
                f"Two streams need a run on frames and a run on flow; model.modality is {frames.recipe.model.modality!r} "
                f"of the first and {flow.recipe.model.modality!r} of the flow run."
            )
        if different := sorted(set(frames.classes) ^ set(flow.classes)):
            raise ConfigError(
                f"The run and the flow run have different classes: {len(different)} differ, for example {different[0]!r}. "
                "Train both on the same classes."
            )
        # Probabilities of softmax and of sigmoid cannot be averaged.
        tasks = [predictor.recipe.data.task for predictor in (frames, flow)]
        if ("multilabel" in tasks) and tasks[0] != tasks[1]:
            raise ConfigError(
                f"data.task is {tasks[0]!r} of the run and {tasks[1]!r} of the flow run; both must be equal."
            )
        if not flow_weight > 0:
            raise ConfigError(f"The weight of flow is {flow_weight}; it must be above 0 (1: as much as the frames).")
        self.frames, self.flow, self.flow_weight = frames, flow, flow_weight
        self.recipe = frames.recipe
        self.weight_shares = None
        if frames.weight_shares is not None and flow.weight_shares is not None:
            parts = ((frames.weight_shares, 1.0), (flow.weight_shares, flow_weight))
            self.weight_shares = {name: weight / (1 + flow_weight) for shares, weight in parts for name in shares}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the run on frames."""
        return self.frames.classes

    def list_inputs(self, path: str | Path) -> list[Path]:
        """Return the videos that a path names; see `Predictor.list_inputs`."""
        return self.frames.list_inputs(path)

    def predict(self, path: str | Path, *, top_k: int = 5, part: Part | None = None) -> Prediction:
        """Return the most probable classes of one video file or folder of frames; see `Predictor.predict`."""
        check_top_k(top_k)
        # All classes, because the best fused class may be in neither stream's top k.
        frames, flow = (stream.predict(path, top_k=len(self.classes), part=part) for stream in (self.frames, self.flow))
        flow_probability = dict(zip(flow.labels, flow.probabilities, strict=True))
        fused = {
            label: (probability + self.flow_weight * flow_probability[label]) / (1 + self.flow_weight)
            for label, probability in zip(frames.labels, frames.probabilities, strict=True)
        }
        best = sorted(fused, key=lambda label: -fused[label])[:top_k]
        return Prediction(Path(path), tuple(best), tuple(fused[label] for label in best))
