"""A video file in, labelled probabilities out, with the preprocessing of evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.flow.compute import compute_fields, flow_method, method_of
from vsn.data.flow.find import flow_of_video, list_flow
from vsn.data.flow.values import FlowFacts
from vsn.data.frames import Choose
from vsn.data.records import RecordSet, VideoRecord, list_videos
from vsn.engine.checkpoint import WeightsKind, load_model, open_run
from vsn.engine.evaluate import pick_test_device, view_scores
from vsn.engine.scores import sigmoid, softmax
from vsn.engine.view_features import check_per_frame, view_features
from vsn.hub import local_run, pull
from vsn.models import VideoClassifier


@dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    Attributes:
        path: the video.
        labels: class names, most probable first.
        probabilities: their probabilities; all classes together sum to 1, but for a multi-label run.
    """

    path: Path
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


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
        """Load a repository of the Hugging Face hub, ``user/name``, or a folder; see `vsn.hub.pull`."""
        folder = pull(
            name, revision=revision, cache_dir=cache_dir, token=token, local_files_only=local_files_only
        )
        return cls.from_run(folder, device=device)

    def list_inputs(self, path: str | Path) -> list[Path]:
        """What `predict` takes of a path: itself, or all videos of a folder (for a flow model all flow, if any).

        Raises `ConfigError` for a folder without any.
        """
        path = Path(path)
        if not path.is_dir():
            return [path]
        return (list_flow(path) if self.recipe.model.modality == "flow" else []) or list_videos(path)

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
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be 1 or more.")
        path, view = Path(path), protocol or self.recipe.eval
        logits = view_scores(
            self.model,
            self._views(path, view),
            self.precision,
            batch_size=view.batch_size,
            average=view.average,
        )[0]
        # Of several labels each has a probability of its own.
        several = self.recipe.data.task == "multilabel"
        probabilities = sigmoid(logits) if several else softmax(logits)
        best = probabilities.argsort()[::-1][:top_k]
        return Prediction(
            path,
            tuple(self.classes[i] for i in best),
            tuple(float(probabilities[i]) for i in best),
        )

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
        clips = self._views(Path(path), view)
        return view_features(
            self.model, clips, self.precision, batch_size=view.batch_size, per_frame=per_frame
        )[0]

    def _views(self, path: Path, view: EvalConfig) -> torch.Tensor:
        """The clips of a video that a protocol looks at, ``(1, T, C, H, W)`` or ``(1, views, T, C, H, W)``."""
        model = self.recipe.model
        read_fields = None
        if model.modality == "flow" and not flow_of_video(
            path, FlowFacts(model.flow_bound, model.flow_method)
        ):
            read_fields = self._compute_fields
        record = VideoRecord(path=path, labels=(), video_id=path.name)
        dataset = VideoDataset(
            RecordSet((record,), self.classes),
            clip=self.recipe.clip,
            num_frames=self.recipe.model.num_frames,
            train=False,
            protocol=view.protocol,
            order=view.order,
            seed=view.seed,
            frame_template=self.recipe.data.frame_template,
            decoder=self.recipe.data.decoder,
            modality=model.modality,
            flow_length=model.flow_length,
            any_num_frames=model.any_num_frames,
            read_fields=read_fields,
        )
        return dataset[0].clip[None]

    def _compute_fields(self, path: Path, choose: Choose) -> np.ndarray:
        """Fields of a video without stored flow: those that are looked at, on this predictor's device."""
        recipe = self.recipe
        method = method_of(recipe.model.flow_method)
        return compute_fields(
            path,
            choose,
            flow_method(method, str(self.device) if method == "tvl1" else "cpu"),
            bound=recipe.model.flow_bound,
            short_side=recipe.clip.short_side,
            frame_template=recipe.data.frame_template,
            decoder=recipe.data.decoder,
        )


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
            raise ConfigError(
                "one of the runs has several labels a video (data.task), the other one; take two alike."
            )
        if not flow_weight > 0:
            raise ConfigError(
                f"the weight of flow is {flow_weight}; it must be above 0 (1: as much as the other)."
            )
        self.frames, self.flow, self.flow_weight = frames, flow, flow_weight

    def list_inputs(self, path: str | Path) -> list[Path]:
        """What `predict` takes of a path: itself, or all videos of a folder; see `Predictor.list_inputs`."""
        return self.frames.list_inputs(path)

    def predict(self, path: str | Path, *, top_k: int = 5) -> Prediction:
        """The most probable classes of one video file or folder of frames; see `Predictor.predict`."""
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be 1 or more.")
        every = len(self.frames.classes)
        frames, flow = (one.predict(path, top_k=every) for one in (self.frames, self.flow))
        of_flow = dict(zip(flow.labels, flow.probabilities, strict=True))
        fused = {
            label: (probability + self.flow_weight * of_flow[label]) / (1 + self.flow_weight)
            for label, probability in zip(frames.labels, frames.probabilities, strict=True)
        }
        best = sorted(fused, key=lambda label: -fused[label])[:top_k]
        return Prediction(Path(path), tuple(best), tuple(fused[label] for label in best))
