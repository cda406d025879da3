"""What is measured: models by name, and runs, each with its input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vsn.config import BenchConfig, ClipSpec, ConfigError, ModelConfig
from vsn.config.bench import paper_input
from vsn.data.views import PROTOCOLS
from vsn.models import build_model
from vsn.models.measure import count_multiply_adds
from vsn.runs.checkpoint import load_model
from vsn.runs.results import ResultError, list_results
from vsn.runs.run import Run, open_run

_INPUT = re.compile(r"(?P<name>.+)@(?P<frames>\d+)(?:x(?P<clips>\d+))?")


class BenchError(ValueError):
    """A measurement that cannot be made as asked; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to be measured, and what one video is to it."""

    label: str
    """As the tables call it: the model's name, or the run folder's."""
    config: ModelConfig
    num_clips: int
    """Clips of a video, which the model sees at once."""
    size: int
    """Height and width in pixels."""
    run: Run | None = None
    evaluations: tuple[dict[str, Any], ...] = ()
    """Of a run: what `vsn eval` found with frames in order: split, protocol, top1, multiply_adds, ..."""

    def build(self, seed: int) -> nn.Module:
        """The network in evaluation mode: the run's, or one with random weights."""
        if self.run is not None:
            return load_model(self.run)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(self.config).eval()

    def clips(self, num_videos: int, seed: int) -> torch.Tensor:
        """Random frames, uint8 `(num_videos * num_clips, T, C, size, size)`."""
        model = self.config
        shape = (
            num_videos * self.num_clips,
            model.num_frames,
            model.clip_channels,
            self.size,
            self.size,
        )
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def read_subjects(names: Sequence[str | Subject], config: BenchConfig) -> list[Subject]:
    """Subjects by model names and run folders; one that is a subject already stays as it is.

    Args:
        names: what `create_model` takes, or a run folder. ``NAME@T`` and ``NAME@TxCLIPS`` state frames a
            clip and clips a video of one model, such as ``i3d-fine_resnet50@32x2``.
        config: T, size and classes of those that do not state their own.

    Raises:
        BenchError: none is named, one twice, or one is neither a model nor a run.
        RunError: a run folder that cannot be read.
    """
    if not names:
        raise BenchError(
            "There is nothing to measure; name models or run folders: vsn bench tsn_resnet50 vsn_resnet50."
        )
    subjects = [_read_subject(name, config) if isinstance(name, str) else name for name in names]
    labels = [subject.label for subject in subjects]
    own = [subject.run.path.resolve() if subject.run else subject.label for subject in subjects]
    twice = [one for one in own if own.count(one) > 1]
    if twice:
        raise BenchError(f"{twice[0]} is named twice; name each once, or tell them apart by NAME@T.")
    return [  # runs in two places may share a name
        replace(subject, label=str(subject.run.path))
        if subject.run is not None and labels.count(subject.label) > 1
        else subject
        for subject in subjects
    ]


def pick_baseline(subjects: Sequence[Subject], asked: str) -> str:
    """The label that ratios are to: the one asked for, the first TSN, or the first.

    Raises:
        BenchError: the one asked for is not measured.
    """
    labels = [subject.label for subject in subjects]
    if asked:
        found = [s.label for s in subjects if asked in (s.label, s.run and str(s.run.path))]
        if not found:
            raise BenchError(f"The baseline {asked!r} is not measured; it can be one of {', '.join(labels)}.")
        return found[0]
    return next((s.label for s in subjects if s.config.name.startswith("tsn_")), labels[0])


def protocol_costs(subject: Subject) -> dict[str, int]:
    """Multiply-adds of a video under each protocol whose crops have a known size; of a run alone.

    `fcn` shows the whole frame, whose size depends on the video; it is here if the run was tested so.
    """
    if subject.run is None:
        return {}
    clip: ClipSpec = subject.run.recipe.clip
    found: dict[str, int] = {}
    for name, plan in PROTOCOLS.items():
        if plan.crops == "whole" or (plan.num_frames and not subject.config.any_num_frames):
            continue
        side = clip.short_side if plan.crops == "three" else clip.crop_size
        model = replace(subject.config, num_frames=plan.num_frames or subject.config.num_frames)
        found[name] = plan.num_views * count_multiply_adds(model, size=side)
    for test in subject.evaluations:
        if test.get("multiply_adds"):
            found[test["protocol"]] = test["multiply_adds"]
    return found


def _read_subject(name: str, config: BenchConfig) -> Subject:
    if Path(name).is_dir():
        return _read_run(Path(name), config)
    stated = _INPUT.fullmatch(name)
    model = stated["name"] if stated else name
    paper_frames, paper_clips = paper_input(model)
    frames = int(stated["frames"]) if stated else config.num_frames or paper_frames
    clips = int(stated["clips"] or 1) if stated else paper_clips
    if clips < 1:
        raise BenchError(f"{name!r} asks for {clips} clips a video; it must be 1 or more.")
    try:
        network = ModelConfig(name=model, num_classes=config.num_classes, num_frames=frames)
        with torch.device("meta"):
            build_model(network)  # an impossible one is refused before anything is measured
    except ConfigError as error:
        raise BenchError(f"{name!r} is no run folder, and no model: {error}") from error
    return Subject(label=name, config=network, num_clips=clips, size=config.size or ClipSpec.crop_size)


def _read_run(path: Path, config: BenchConfig) -> Subject:
    run = open_run(path)
    model = run.recipe.model
    if config.num_frames not in (0, model.num_frames):
        if not model.any_num_frames:
            raise BenchError(
                f"{path} keeps to clips of {model.num_frames} frames, which it was trained with; leave --num-frames "
                f"{config.num_frames} out, or measure {model.name} by its name."
            )
        model = replace(model, num_frames=config.num_frames)
    return Subject(
        label=path.resolve().name,
        config=model,
        num_clips=1,
        size=config.size or run.recipe.clip.crop_size,
        run=run,
        evaluations=tuple(_evaluations(run)),
    )


def _evaluations(run: Run) -> list[dict[str, Any]]:
    """Results of the run's last weights with frames in order, the recipe's split and protocol first."""
    kept = ("split", "protocol", "num_views", "multiply_adds", "top1", "top1_interval", "num_videos")
    try:
        results = list_results(run.path, order="forward", weights="last", recipe=run.recipe)
    except ResultError as error:
        raise BenchError(str(error)) from error
    return [{k: v for k, v in result.to_json().items() if k in kept} for result in results if result.is_measured]
