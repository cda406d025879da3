"""Train networks that read an extra input on a made task that only it decides, beside the same network without it.

    python benchmarks/extra_inputs.py results/extra-inputs-cpu.json [--seeds 0 1 2] [--steps 80]

Following: every clip shows as many bright discs as dark ones, which move further than their own size between the frames
that the networks keep. In the one class each disc keeps its brightness, in the other all discs change it again and again: no
frame tells the two apart, and no place does. Who follows a disc sees it.

Pairs: of four discs two are bright and two dark, and two have boxes: both bright ones, both dark ones, or one of each, which
are three classes. Their frames are drawn alike: only the boxes tell which pair counts, and none of its discs alone tells the
class.

Videos are drawn anew in every step, so that accuracy is that of unseen videos.

| network | clips |
|---|---|
| trajectory | with the true motion of every point |
| trajectory, paths of another video | with the true motion in another video of the batch |
| separable | frames alone: the same network, with 3x1x1 convolutions |
| gcn | with the boxes of the pair |
| gcn, boxes of another video | with the boxes of the pair in another video of the batch |
| i3d | frames alone: the same network, without graphs |
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common import describe_run
from vsn.config import ZERO_PATH, ModelConfig
from vsn.data.boxes.planes import draw_box
from vsn.models import VideoClassifier, build_model
from vsn.scores.intervals import share_interval
from vsn.system.files import write_json
from vsn.system.pool import run_in_processes

NUM_FRAMES, SIZE, BATCH, NUM_TESTED = 16, 64, 16, 256
NUM_DISCS, RADIUS, STEP_PIXELS = 6, 6.0, 12.0
FRAMES_PER_STEP = 2
"""The networks keep every other frame, so that a disc changes no faster."""
BOUND = 16.0
PAIR_FRAMES, NUM_BOXES, PAIR_RADIUS = 4, 2, 9.0
ROWS, COLUMNS = 2, 2
"""Cells of the frame, a disc in each."""


@dataclass(frozen=True)
class Case:
    """A network, its task, and whose extra input its clips carry: their own, another video's, or none."""

    model: str
    task: str
    carries: str


CASES = {
    "trajectory": Case("trajectory_resnet18_thin", "following", "own"),
    "trajectory, paths of another video": Case("trajectory_resnet18_thin", "following", "other"),
    "separable": Case("separable_resnet18_thin", "following", "none"),
    "gcn": Case("gcn_resnet26_thin", "pairs", "own"),
    "gcn, boxes of another video": Case("gcn_resnet26_thin", "pairs", "other"),
    "i3d": Case("nl-i3d-fine_resnet26_thin", "pairs", "none"),
}


def draw_following(label: int, generator: np.random.Generator) -> np.ndarray:
    """Draw one clip with the true paths of its points: uint8 `(T, 7, H, W)`; label 1: discs change their brightness."""
    angles = generator.uniform(0, 2 * np.pi, NUM_DISCS)
    velocity = STEP_PIXELS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    place = generator.uniform(RADIUS, SIZE - RADIUS, (NUM_DISCS, 2))
    bright = generator.permutation(np.arange(NUM_DISCS) < NUM_DISCS // 2)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    clip = np.full((NUM_FRAMES, 7, SIZE, SIZE), ZERO_PATH, np.uint8)
    clip[:, :3] = generator.normal(128, 8, (NUM_FRAMES, 1, SIZE, SIZE)).clip(0, 255)
    before = np.zeros((NUM_DISCS, 2))
    for t in range(NUM_FRAMES):
        # Off the borders, where a disc would leave the frame.
        following = place + velocity
        velocity = np.where((following < RADIUS) | (following > SIZE - RADIUS), -velocity, velocity)
        shown = bright ^ (bool(label) & (t // FRAMES_PER_STEP % 2 == 1))
        for disc in range(NUM_DISCS):
            inside = (columns - place[disc, 0]) ** 2 + (rows - place[disc, 1]) ** 2 <= RADIUS**2
            clip[t, :3, inside] = 208 if shown[disc] else 48
            motions = np.concatenate([velocity[disc], -before[disc]])
            clip[t, 3:, inside] = np.rint(motions / BOUND * 127.5 + ZERO_PATH)
        before, place = velocity, place + velocity
    clip[-1, 3:5] = clip[0, 5:] = ZERO_PATH
    return clip


def draw_pairs(label: int, generator: np.random.Generator) -> np.ndarray:
    """Draw one clip with the boxes of two discs, `label` of which are bright: uint8 `(T, 5, H, W)`."""
    cells = np.stack(np.meshgrid(np.arange(COLUMNS), np.arange(ROWS)), axis=-1).reshape(-1, 2)
    cell = np.array([SIZE / COLUMNS, SIZE / ROWS])
    place = (cells + 0.5) * cell + generator.uniform(-1, 1, (len(cells), 2)) * (cell / 2 - PAIR_RADIUS - 1)
    bright = generator.permutation(np.arange(len(cells)) < len(cells) // 2)
    bright_ones, dark_ones = (generator.permutation(np.flatnonzero(bright == value)) for value in (True, False))
    pair = generator.permutation([*bright_ones[:label], *dark_ones[: NUM_BOXES - label]])
    rows, columns = np.mgrid[:SIZE, :SIZE]
    clip = np.zeros((PAIR_FRAMES, 3 + NUM_BOXES, SIZE, SIZE), np.uint8)
    clip[:, :3] = generator.normal(128, 8, (PAIR_FRAMES, 1, SIZE, SIZE)).clip(0, 255)
    for disc, (x, y) in enumerate(place):
        clip[:, :3, (columns - x) ** 2 + (rows - y) ** 2 <= PAIR_RADIUS**2] = 208 if bright[disc] else 48
    for plane, disc in enumerate(pair):
        box = np.concatenate([place[disc] - PAIR_RADIUS, place[disc] + PAIR_RADIUS]) / SIZE
        clip[:, 3 + plane] = draw_box(box, (SIZE, SIZE))
    return clip


DRAW = {"following": draw_following, "pairs": draw_pairs}
NUM_CLASSES = {"following": 2, "pairs": 3}


def draw_batch(size: int, generator: np.random.Generator, case: Case) -> tuple[Tensor, Tensor]:
    """Draw clips of all classes and their labels."""
    labels = np.arange(size) % NUM_CLASSES[case.task]
    clips = torch.from_numpy(np.stack([DRAW[case.task](int(label), generator) for label in labels]))
    if case.carries == "none":
        clips = clips[:, :, :3]
    elif case.carries == "other":
        clips[:, :, 3:] = clips[:, :, 3:].roll(1, dims=0)
    return clips, torch.from_numpy(labels)


def build(case: Case) -> VideoClassifier:
    """Build the network of a case, for its clips."""
    num_frames = {"following": NUM_FRAMES, "pairs": PAIR_FRAMES}[case.task]
    config = ModelConfig(
        name=case.model,
        num_classes=NUM_CLASSES[case.task],
        num_frames=num_frames,
        dropout=0.0,
        path_bound=BOUND,
        num_boxes=NUM_BOXES,
    )
    return build_model(config)


def train(case: Case, *, seed: int, num_steps: int) -> tuple[VideoClassifier, list[float]]:
    """Train a network; return it and its loss at every step."""
    torch.manual_seed(seed)
    generator = np.random.default_rng([seed, 0])
    model = build(case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=num_steps)
    losses = []
    for _ in range(num_steps):
        clips, labels = draw_batch(BATCH, generator, case)
        loss = torch.nn.functional.cross_entropy(model(clips), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return model.eval(), losses


@torch.inference_mode()
def count_right(model: VideoClassifier, case: Case, *, num_videos: int) -> np.ndarray:
    """Return whether each of as many new videos, the same for every network, is labeled right: bool `(num_videos,)`."""
    generator = np.random.default_rng(10**6)
    right = []
    for _ in range(num_videos // BATCH):
        clips, labels = draw_batch(BATCH, generator, case)
        right.append((model(clips).argmax(dim=1) == labels).numpy())
    return np.concatenate(right)


@dataclass(frozen=True)
class Job:
    """A network to train and to test."""

    case: str
    seed: int
    num_steps: int
    num_tested: int

    @property
    def path(self) -> Path:
        """Its name in errors."""
        return Path(f"{self.case}, seed {self.seed}")


def measure(job: Job) -> dict[str, Any]:
    """Train and test a network, with one thread; return its row."""
    torch.set_num_threads(1)
    case = CASES[job.case]
    model, losses = train(case, seed=job.seed, num_steps=job.num_steps)
    right = count_right(model, case, num_videos=job.num_tested)
    return {
        "case": job.case,
        "task": case.task,
        "model": case.model,
        "seed": job.seed,
        "top1": float(right.mean()),
        "interval": list(share_interval(right)),
        "last_loss": float(np.mean(losses[-20:])),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--tested", type=int, default=NUM_TESTED)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--workers", type=int, default=2)
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv)
    jobs = [Job(case, seed, arguments.steps, arguments.tested) for case in arguments.cases for seed in arguments.seeds]
    rows: dict[Job, dict[str, Any]] = {}
    for job, row in run_in_processes(measure, jobs, num_workers=arguments.workers):
        rows[job] = row
        low, high = row["interval"]
        shares = f"top-1 {row['top1']:.1%} [{low:.1%}, {high:.1%}]"
        print(f"{job.case:36} seed {job.seed}  {shares}  loss {row['last_loss']:.3f}", flush=True)
    facts = {
        **describe_run(__file__, [arguments.output.name, *argv[1:]]),
        "num_steps": arguments.steps,
        "batch_size": BATCH,
        "num_tested": arguments.tested,
        "num_frames": {"following": NUM_FRAMES, "pairs": PAIR_FRAMES},
        "rows": [rows[job] for job in jobs],  # not in the order in which they finished
    }
    write_json(arguments.output, facts)


if __name__ == "__main__":
    main()
