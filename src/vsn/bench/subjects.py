"""Resolve what is measured: models by name, and runs, each with its input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from vsn.bench.results import BenchError
from vsn.config import BenchConfig, ClipSpec, ConfigError, ModelConfig
from vsn.config.bench import paper_input
from vsn.data.views import PROTOCOLS
from vsn.models import build_model
from vsn.models.measure import count_multiply_adds
from vsn.runs.checkpoint import load_model
from vsn.runs.results import EvalResult, ResultError, list_results
from vsn.runs.run import Run, open_run

_INPUT = re.compile(r"(?P<name>.+)@(?P<frames>\d+)(?:x(?P<clips>\d+))?")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to measure, and its input."""

    label: str
    """Name in tables: the model's, or the run folder's."""
    config: ModelConfig
    num_clips: int
    """Clips per video; the model takes all of them in one batch."""
    size: int
    """Height and width in pixels."""
    run: Run | None = None
    evaluations: tuple[EvalResult, ...] = ()
    """Of a run: results of `vsn eval` with the frames in order."""

    def build(self, seed: int) -> nn.Module:
        """Build the network in evaluation mode, with the run's weights or with random ones."""
        if self.run is not None:
            return load_model(self.run)
        # The caller's random numbers are not affected.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(self.config).eval()

    def clips(self, num_videos: int, seed: int) -> torch.Tensor:
        """Generate random frames, uint8 `(num_videos * num_clips, T, C, size, size)`."""
        model = self.config
        shape = (num_videos * self.num_clips, model.num_frames, model.clip_channels, self.size, self.size)
        return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def read_subjects(names: Sequence[str | Subject], config: BenchConfig) -> list[Subject]:
    """Resolve model names and run folders to subjects.

    Args:
        names: model names as `create_model` takes them, run folders, or subjects. ``NAME@T`` and ``NAME@TxCLIPS``
            set frames per clip and clips per video of one model, such as ``i3d-fine_resnet50@32x2``.
        config: T, size and classes of models that do not set their own.

    Raises:
        BenchError: no name, one name twice, or one that is neither a model nor a run.
        RunError: a run folder cannot be read.
    """
    if not names:
        raise BenchError("Nothing to measure; name models or run folders: vsn bench tsn_resnet50 vsn_resnet50.")
    subjects = [_read_subject(name, config) if isinstance(name, str) else name for name in names]
    # The same run may be given by two paths.
    identities = [subject.run.path.resolve() if subject.run else subject.label for subject in subjects]
    if twice := [identity for identity in identities if identities.count(identity) > 1]:
        raise BenchError(f"{twice[0]} is named twice; name it once, or with different inputs NAME@T.")
    labels = [subject.label for subject in subjects]
    return [  # runs in different folders may have the same name
        replace(subject, label=str(subject.run.path))
        if subject.run is not None and labels.count(subject.label) > 1
        else subject
        for subject in subjects
    ]


def pick_baseline(subjects: Sequence[Subject], requested: str) -> str:
    """Return the label that ratios refer to: the requested one, else the first TSN, else the first.

    Raises:
        BenchError: the requested one is not measured.
    """
    if not requested:
        tsn = next((subject for subject in subjects if subject.config.name.startswith("tsn_")), subjects[0])
        return tsn.label
    for subject in subjects:
        if requested in (subject.label, subject.run and str(subject.run.path)):
            return subject.label
    labels = ", ".join(subject.label for subject in subjects)
    raise BenchError(f"--baseline is {requested!r}, which is not measured; choose from {labels}.")


def protocol_costs(subject: Subject) -> dict[str, int]:
    """Count the multiply-adds of a video under each protocol whose crops have a known size; only for a run.

    `fcn` shows whole frames, whose size depends on the video, so it is known only if the run was tested with it.
    """
    if subject.run is None:
        return {}
    clip: ClipSpec = subject.run.recipe.clip
    costs: dict[str, int] = {}
    for name, plan in PROTOCOLS.items():
        # Left out: sizes that are not known, and protocols whose T the model does not take.
        if plan.crops == "whole" or (plan.num_frames and not subject.config.any_num_frames):
            continue
        side = clip.short_side if plan.crops == "three" else clip.crop_size
        model = replace(subject.config, num_frames=plan.num_frames or subject.config.num_frames)
        costs[name] = plan.num_views * count_multiply_adds(model, size=side)
    return costs | {test.protocol: test.multiply_adds for test in subject.evaluations if test.multiply_adds}


def _read_subject(name: str, config: BenchConfig) -> Subject:
    if Path(name).is_dir():
        return _read_run(Path(name), config)
    # vsn_resnet50@16x3 is T=16 and 3 clips per video; without @, the settings, else the paper's input.
    stated = _INPUT.fullmatch(name)
    model = stated["name"] if stated else name
    paper_frames, paper_clips = paper_input(model)
    frames = int(stated["frames"]) if stated else config.num_frames or paper_frames
    clips = int(stated["clips"] or 1) if stated else paper_clips
    if clips < 1:
        raise BenchError(f"{name!r} has {clips} clips per video; expected 1 or more.")
    try:
        network = ModelConfig(name=model, num_classes=config.num_classes, num_frames=frames)
        with torch.device("meta"):  # free of cost; refuses impossible models before anything is measured
            build_model(network)
    except ConfigError as error:
        raise BenchError(f"{name!r} is neither a run folder nor a model: {error}") from error
    return Subject(label=name, config=network, num_clips=clips, size=config.size or ClipSpec.crop_size)


def _read_run(path: Path, config: BenchConfig) -> Subject:
    run = open_run(path)
    model = run.recipe.model
    # A temporal model works only with the T it was trained with; a TSN takes any.
    if config.num_frames not in (0, model.num_frames):
        if not model.any_num_frames:
            raise BenchError(
                f"{path} takes T={model.num_frames} frames (as trained), got --num-frames {config.num_frames}. Leave it "
                f"out, or measure {model.name} by name."
            )
        model = replace(model, num_frames=config.num_frames)
    try:
        results = list_results(run.path, order="forward", weights="last", recipe=run.recipe)
    except ResultError as error:
        raise BenchError(str(error)) from error
    return Subject(
        label=path.resolve().name,
        config=model,
        num_clips=1,
        size=config.size or run.recipe.clip.crop_size,
        run=run,
        evaluations=tuple(result for result in results if result.is_measured and result.is_own and not result.is_stale),
    )
