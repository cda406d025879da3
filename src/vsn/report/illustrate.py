"""What a report shows that needs the networks or the videos: costs, the best and worst videos, heat maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vsn.config import ConfigError, EvalConfig
from vsn.data.dataset import VideoDataset
from vsn.data.open import open_split
from vsn.data.video import VideoError
from vsn.models import VideoClassifier, build_model
from vsn.models.gradcam import grad_cam, overlay
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.report import Run, read_runs, write_page
from vsn.report.videos import Example, Examples, Kind, choose_examples
from vsn.runs.checkpoint import load_model
from vsn.runs.run import RunError, open_run
from vsn.system.distributed import pick_device
from vsn.system.progress import progress_bar

NUM_VIDEOS = 4
"""Best videos shown, and as many worst."""
MAX_FRAMES = 16
"""Frames of a strip; of longer clips as many are shown, evenly spread."""
MAX_SIDE = 176
"""Pixels of the longer side of a frame in the page."""


def illustrated_report(
    run_dirs: Sequence[Path],
    output: Path,
    *,
    title: str,
    split: str | None = None,
    root: str | Path | None = None,
    num_videos: int = NUM_VIDEOS,
    stage: str = "res5",
    device: str = "auto",
) -> Path:
    """Write the report over some runs, with what they cost and the best and worst videos of the best run.

    Args:
        run_dirs: run folders.
        output: the page, written whole or not at all.
        title: its heading.
        split: whose results; default the one that most runs were tested on.
        root: where the data set is now; default the recipe's ``data.root``.
        num_videos: best videos, and as many worst ones.
        stage: features of the heat maps, see `grad_cam`.
        device: where the heat maps are computed.

    Raises:
        ReportError, ScoresError: runs that cannot be read or compared.
        ConfigError: no such stage, or no such device.
    """
    if num_videos < 1:
        raise ValueError(f"num_videos is {num_videos}; it must be 1 or more.")
    runs = read_runs(run_dirs, split)
    examples = best_and_worst(runs, root=root, num_videos=num_videos, stage=stage, device=device)
    return write_page(runs, output, title=title, costs=measure_costs(runs), examples=examples)


def measure_costs(runs: Sequence[Run]) -> dict[str, tuple[int, int]]:
    """Parameters, and multiply-adds of one view of crop_size x crop_size pixels, of each run by name.

    A model that cannot be built here, for want of a package say, is left out.
    """
    costs = {}
    for run in runs:
        try:
            config = replace(run.recipe.model, num_classes=len(run.classes))
            with torch.device("meta"):
                parameters = count_parameters(build_model(config))
            costs[run.name] = parameters, count_multiply_adds(config, size=run.recipe.clip.crop_size)
        except ConfigError:
            continue
    return costs


def best_and_worst(
    runs: Sequence[Run],
    *,
    root: str | Path | None = None,
    num_videos: int = NUM_VIDEOS,
    stage: str = "res5",
    device: str = "auto",
) -> Examples:
    """The videos that the best run by top-1 is most right and most wrong about, as it saw them.

    Without videos, or without weights, the result says why.
    """
    tested = [run for run in runs if run.scores is not None]
    if not tested:
        return Examples()
    run = max(tested, key=lambda one: one.top1)
    assert run.scores is not None
    chosen = choose_examples(run.scores, num_videos)
    try:
        dataset = _dataset(run, root)
    except ConfigError as error:
        return Examples(why_not=f"The videos of split {run.split} cannot be read: {error}")
    model, why_not = _model(run, device)
    place = {record.video_id: index for index, record in enumerate(dataset.records)}
    examples: list[Example] = []
    cells = (0, 0)
    with progress_bar("videos") as bar:
        task = bar.add_task("best and worst videos", total=sum(map(len, chosen.values())), note="")
        for kind, rows in chosen.items():
            for row in rows:
                video_id = str(run.scores.video_ids[row])
                said = int(run.scores.logits[row].argmax())
                example, size = _example(video_id, kind, dataset, place.get(video_id), model, said, stage)
                examples.append(example)
                cells = size or cells
                bar.advance(task)
    return Examples(run=run.name, stage=stage, cells=cells, examples=tuple(examples), why_not=why_not)


def _dataset(run: Run, root: str | Path | None) -> VideoDataset:
    """The split, one view a video: the run's where it has one, else a center crop."""
    data = replace(run.recipe.data, cache="none", root=str(root or run.recipe.data.root))
    config = EvalConfig(protocol="fcn" if run.protocol == "fcn" else "center")
    return open_split(replace(run.recipe, data=data), run.split, view=config, classes=run.classes)


def _model(run: Run, device: str) -> tuple[VideoClassifier | None, str]:
    """The network that gave the scores, its classes in the report's order, or why it is not there."""
    try:
        stored = open_run(run.path)
        model = load_model(stored, run.weights)
    except (RunError, ConfigError) as error:
        return None, f"No heat maps, for the network cannot be loaded: {error}"
    columns = [stored.classes.index(name) for name in run.classes]
    with torch.no_grad():
        model.head.weight.copy_(model.head.weight[columns].clone())
        model.head.bias.copy_(model.head.bias[columns].clone())
    return model.to(pick_device(device)), ""


def _example(
    video_id: str,
    kind: Kind,
    dataset: VideoDataset,
    index: int | None,
    model: VideoClassifier | None,
    said: int,
    stage: str,
) -> tuple[Example, tuple[int, int] | None]:
    """One video, and the size of its heat maps; what cannot be read is said, and nothing takes its place."""

    def without_frames(why_not: str) -> tuple[Example, None]:
        return Example(video_id=video_id, kind=kind, frames=None, why_not=why_not), None

    if index is None:
        return without_frames("The data set has no such video now.")
    try:
        clip = dataset[index].clip
    except VideoError as error:
        return without_frames(f"Cannot be read: {error}")
    if clip.ndim != 4 or clip.shape[1] != 3:
        return without_frames("Its frames are no RGB pictures.")
    kept = np.unique(np.linspace(0, len(clip) - 1, min(len(clip), MAX_FRAMES)).round().astype(int))
    frames = _shrunk(clip[torch.from_numpy(kept)])
    if model is None:
        return Example(video_id=video_id, kind=kind, frames=frames), None
    maps = grad_cam(model, clip[None].to(model.mean.device), targets=[said], stage=stage).maps[0].cpu()
    heat = overlay(frames, maps[torch.from_numpy(kept)])
    return Example(video_id=video_id, kind=kind, frames=frames, heat=heat), (maps.shape[1], maps.shape[2])


def _shrunk(frames: torch.Tensor) -> np.ndarray:
    """uint8 `(T, 3, H, W)` to `(T, h, w, 3)`, the longer side at most `MAX_SIDE`."""
    height, width = frames.shape[-2:]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        frames = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
    shown: np.ndarray = frames.permute(0, 2, 3, 1).contiguous().numpy()
    return shown
