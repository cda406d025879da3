"""A video file in, labelled probabilities out, with the preprocessing of evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vsn.config import EvalConfig, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.flow.find import flow_of_video, list_flow
from vsn.data.flow.values import FlowFacts
from vsn.data.records import RecordSet, VideoRecord, list_videos
from vsn.engine.checkpoint import load_model, open_run
from vsn.engine.evaluate import pick_test_device, view_scores
from vsn.engine.scores import sigmoid, softmax
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
    def from_run(cls, path: str | Path, *, device: str = "auto") -> Predictor:
        """Load a run folder. Raises `RunError` when it is none, or has no weights yet."""
        run = open_run(path)
        return cls(load_model(run), run.recipe, run.classes, device=device)

    def list_inputs(self, path: str | Path) -> list[Path]:
        """What `predict` takes of a path: itself, or all videos (for a flow model: all flow) of a folder.

        Raises `ConfigError` for a folder without any.
        """
        path = Path(path)
        if not path.is_dir():
            return [path]
        return list_flow(path) if self.recipe.model.modality == "flow" else list_videos(path)

    def predict(self, path: str | Path, *, top_k: int = 5, protocol: EvalConfig | None = None) -> Prediction:
        """The most probable classes of one video.

        Args:
            path: a video file or a folder of frames; for a flow model the stored flow of a video, a folder of
                pictures or a `.vsnflow` file.
            top_k: how many classes, 1 or more; at most all.
            protocol: the view; default the run's.

        Raises:
            VideoError: the file cannot be read as a video; names it and says why.
        """
        if top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be 1 or more.")
        path = Path(path)
        view = protocol or self.recipe.eval
        model, source = self.recipe.model, path
        if model.modality == "flow":
            source = flow_of_video(path, FlowFacts(model.flow_bound, model.flow_method))
        record = VideoRecord(path=source, labels=(), video_id=path.name)
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
        )
        clips, views_at_once = dataset[0].clip[None], view.batch_size
        logits = view_scores(
            self.model, clips, self.precision, batch_size=views_at_once, average=view.average
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
