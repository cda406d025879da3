"""Add to a report what needs models or videos: costs, the best and worst videos, Grad-CAM heat maps."""

from __future__ import annotations

import contextlib
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
from vsn.report import ReportRun, read_runs, write_page
from vsn.report.videos import Example, Examples, choose_behind, choose_examples, label_judges
from vsn.runs.checkpoint import load_model
from vsn.runs.folds import is_folds
from vsn.runs.run import RunError, open_run
from vsn.scores.labels import find_label_issues
from vsn.scores.scores import ScoresError
from vsn.system.distributed import pick_device
from vsn.system.progress import progress_bar

NUM_VIDEOS = 4
"""Number of best videos, and of worst ones."""
NUM_BEHIND = 12
"""Number of frequent mistakes whose videos the page can show."""
MAX_FRAMES = 16
"""Frames of a strip; longer clips are subsampled evenly."""
MAX_SIDE = 176
"""Pixels of the longer side of a frame in the page."""


def illustrated_report(
    run_dirs: Sequence[Path],
    output: Path,
    *,
    title: str = "",
    split: str | None = None,
    root: str | Path | None = None,
    num_videos: int = NUM_VIDEOS,
    stage: str = "auto",
    device: str = "auto",
    command: Sequence[str] = (),
) -> Path:
    """Write the report with the costs of all runs, and the best and worst videos of the best one.

    Args:
        run_dirs: run folders.
        output: the page, written atomically.
        title: its heading; default the names of the runs.
        split: the split whose results are shown; default the one that most runs were tested on.
        root: where the data set is now; default the recipe's ``data.root``.
        num_videos: number of best videos, and of worst ones.
        stage: features of the heat maps, see `grad_cam`.
        device: where the heat maps are computed.
        command: the command that writes this page, shown at its end.

    Raises:
        ReportError, RunError, ResultError, ScoresError: runs that cannot be read or compared.
        ConfigError: no such stage, or no such device.
    """
    if num_videos < 1:
        raise ValueError(f"num_videos is {num_videos}; it must be 1 or more.")
    runs = read_runs(run_dirs, split)
    examples = best_and_worst(runs, root=root, num_videos=num_videos, stage=stage, device=device)
    return write_page(runs, output, title=title, costs=measure_costs(runs), examples=examples, command=command)


def measure_costs(runs: Sequence[ReportRun]) -> dict[str, tuple[int, int]]:
    """Return parameters and multiply-adds of one view of crop_size x crop_size pixels, by run name.

    A model that cannot be built, because a package is missing say, is left out.
    """
    costs = {}
    for run in runs:
        config = replace(run.recipe.model, num_classes=len(run.classes))
        try:
            with torch.device("meta"):  # shapes only, no memory
                parameters = count_parameters(build_model(config))
            costs[run.name] = parameters, count_multiply_adds(config, size=run.recipe.clip.crop_size)
        except ConfigError:
            continue
    return costs


def best_and_worst(
    runs: Sequence[ReportRun],
    *,
    root: str | Path | None = None,
    num_videos: int = NUM_VIDEOS,
    stage: str = "auto",
    device: str = "auto",
) -> Examples:
    """Find the videos that the best run by top-1 is most certain about, rightly and wrongly, as it saw them.

    If videos or weights are missing, the result says why.
    """
    tested = [run for run in runs if run.scores is not None]
    if not tested:
        return Examples()
    # One run only: the page would be too large with the videos of all.
    run = max(tested, key=lambda run: run.top1)
    assert run.scores is not None
    forward = run.results["forward"]
    tested_root = run.recipe.data.root if forward.is_own or forward.root is None else forward.root
    data = replace(run.recipe.data, cache="none", root=str(root or tested_root))
    # The run's own protocol if it has one view; several views would be several strips per video.
    view = EvalConfig(protocol="fcn" if run.protocol == "fcn" else "center")
    try:
        dataset = open_split(replace(run.recipe, data=data), run.split, view=view, classes=run.classes)
    except ConfigError as error:
        return Examples(problem=f"The videos of split {run.split} cannot be read: {error}")
    model, problem = _load_model(run, device)
    index_of = {record.video_id: index for index, record in enumerate(dataset.records)}
    examples: list[Example] = []
    map_size, shown_stage = (0, 0), ""
    chosen = choose_examples(run.scores, num_videos)
    shown = {row for rows in chosen.values() for row in rows}
    chosen["behind"] = [row for row in choose_behind(tested, NUM_BEHIND) if row not in shown]
    if any(run is judge for judge in label_judges(runs)):
        with contextlib.suppress(ScoresError):  # the page says why there are none
            chosen["label"] = [issue.row for issue in find_label_issues(run.scores)[: 2 * num_videos]]
    with progress_bar("videos") as bar:
        task = bar.add_task("best and worst videos", total=sum(map(len, chosen.values())), note="")
        for kind, rows in chosen.items():
            for row in rows:
                example = Example(video_id=str(run.scores.video_ids[row]), kind=kind, frames=None)
                predicted = int(run.scores.logits[row].argmax())
                try:
                    clip = _read_clip(dataset, index_of.get(example.video_id))
                except VideoError as error:
                    example = replace(example, problem=f"Cannot be read: {error.reason}")
                else:
                    # Rounded positions can repeat for short clips.
                    kept = np.unique(np.linspace(0, len(clip) - 1, min(len(clip), MAX_FRAMES)).round().astype(int))
                    frames, heat = shrink(clip[kept, :3]), None
                    if model is not None and kind != "behind":
                        clips = clip[None].to(model.mean.device)
                        found = grad_cam(model, clips, targets=[predicted], stage=stage)
                        maps, shown_stage = found.maps[0], found.stage
                        heat, map_size = overlay(frames, maps.cpu()[kept]), (maps.shape[1], maps.shape[2])
                    example = replace(example, frames=frames, heat=heat)
                examples.append(example)
                bar.advance(task)
    return Examples(run=run.name, stage=shown_stage, map_size=map_size, examples=tuple(examples), problem=problem)


def _load_model(run: ReportRun, device: str) -> tuple[VideoClassifier | None, str]:
    """The model that gave the scores, with its classes in the report's order; or None and the reason."""
    if is_folds(run.path):
        return None, "No heat maps: each fold has weights of its own. The report of one fold has them."
    try:
        stored = open_run(run.path)
        model = load_model(stored, run.weights)
    except (RunError, ConfigError) as error:
        return None, f"No heat maps, because the model cannot be loaded: {error}"
    # The report's class order may be another run's; then output i is not class i.
    columns = [stored.classes.index(name) for name in run.classes]
    with torch.no_grad():
        model.head.weight.copy_(model.head.weight[columns].clone())
        model.head.bias.copy_(model.head.bias[columns].clone())
    return model.to(pick_device(device)), ""


def _read_clip(dataset: VideoDataset, index: int | None) -> torch.Tensor:
    """uint8 ``(T, C, H, W)``, RGB in the first three channels. Raises `VideoError`."""
    if index is None:
        raise VideoError("", "the data set does not have this video any more")
    clip = dataset[index].clip
    # A model on differences is given the frames that it subtracts, the first of a segment in the first three channels.
    if clip.ndim != 4 or dataset.recipe.model.modality == "flow":
        raise VideoError("", "its frames are not RGB")
    return clip


def shrink(frames: torch.Tensor) -> np.ndarray:
    """uint8 ``(T, 3, H, W)`` to ``(T, h, w, 3)``, the longer side at most `MAX_SIDE`."""
    height, width = frames.shape[-2:]
    scale = MAX_SIDE / max(height, width)
    if scale < 1:
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        frames = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
    shown: np.ndarray = frames.permute(0, 2, 3, 1).contiguous().numpy()
    return shown
