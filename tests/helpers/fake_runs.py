"""Run folders with made-up numbers that agree with each other, laid out as `vsn train` and `vsn eval` do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vsn.config import ModelConfig, Recipe
from vsn.config.recipes import dump_recipe
from vsn.runs.results import EvalResult
from vsn.scores.scores import Scores

CLASSES = (
    *(
        f"moving something {way}"
        for way in (
            "up",
            "down",
            "closer",
            "away",
            "in a circle",
            "and stopping",
            "from left to right",
            "from right to left",
        )
    ),
    *(
        f"{verb} something"
        for verb in (
            "opening",
            "closing",
            "folding",
            "unfolding",
            "covering",
            "uncovering",
            "picking up",
            "putting down",
            "turning on",
            "turning off",
            "pouring",
            "showing",
        )
    ),
)
MODELS = {"TSN": ("tsn_resnet18", 0.30), "TSM": ("tsm_resnet18", 0.62), "VSN": ("vsn_resnet18", 0.78)}


def fake_scores(labels: np.ndarray, num_classes: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """Logits that are right for about `share` of the videos; mistakes go to the class's neighbor in time."""
    scores = generator.normal(0, 1, (len(labels), num_classes)).astype(np.float32)
    predicted = np.where(generator.random(len(labels)) < share, labels, (labels ^ 1) % num_classes)
    scores[np.arange(len(labels)), predicted] += 5
    return scores


def write_eval(
    run_dir: Path,
    order: str,
    scores: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    *,
    protocol: str = "fcn",
    split: str = "test",
    weights: str = "last",
) -> None:
    """Scores and the figures of them, as `vsn eval` writes them; `labels` (N,) int, or (N, C) bool."""
    classes_of = labels if labels.ndim == 1 else labels.argmax(axis=1)
    ids = np.array([f"{classes[c]}/{i:04d}.mp4" for i, c in enumerate(classes_of)])
    saved = Scores(ids, scores.astype(np.float32), labels, tuple(classes))
    result = EvalResult.measure(saved, split=split, protocol=protocol, order=order, weights=weights, seconds=12.5)
    result.save(run_dir, saved)


def write_run(
    run_dir: Path,
    model: str,
    share: float,
    *,
    classes: Sequence[str] = CLASSES,
    epochs: int = 30,
    per_class: int = 20,
) -> Path:
    """A run folder whose numbers are made up and agree with each other."""
    run_dir.mkdir(parents=True)
    generator = np.random.default_rng([epochs, *model.encode()])
    recipe = Recipe(model=ModelConfig(name=model, num_classes=len(classes)))
    (run_dir / "recipe.toml").write_text(dump_recipe(recipe))
    (run_dir / "classes.json").write_text(json.dumps(list(classes)))
    (run_dir / "versions.json").write_text(json.dumps({"vsn": "0.1.0", "torch": "2.8.0", "python": "3.11"}))
    lines = []
    for epoch in range(1, epochs + 1):
        grown = 1 - np.exp(-epoch / 7)
        train, val = share * 1.15 * grown, share * grown + generator.normal(0, 0.012)
        line = {
            "epoch": epoch,
            "step": 25 * epoch,
            "lr": 0.01,
            "train_loss": 3.0 - 2.6 * train,
            "train_top1": min(train, 1.0),
            "seconds": 41.0,
            "videos_per_second": 38.2,
        }
        if epoch % 2 == 0:  # validated every second epoch
            line |= {"val_loss": 3.0 - 2.2 * val, "val_top1": float(np.clip(val, 0, 1))}
        lines.append(json.dumps(line))
    (run_dir / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    labels = np.repeat(np.arange(len(classes)), per_class)
    temporal = not model.startswith("tsn")
    for order, kept in (("forward", 1.0), ("reversed", 0.35), ("shuffled", 0.45), ("still", 0.4)):
        right = share * (kept if temporal or order == "still" else 1.0)
        write_eval(run_dir, order, fake_scores(labels, len(classes), right, generator), labels, classes)
    return run_dir


def write_runs(root: Path, classes: Sequence[str] = CLASSES) -> list[Path]:
    return [write_run(root / name, model, share, classes=classes) for name, (model, share) in MODELS.items()]


def write_strips(path: Path, classes: Sequence[str], chosen: Sequence[int], *, per_class: int = 20) -> Path:
    """Little films of a disc that moves over a shaded floor."""
    y, x = np.mgrid[0:84, 0:112]
    films = []
    for index in range(len(chosen)):
        frames = np.empty((8, 84, 112, 3), dtype=np.uint8)
        for t in range(8):
            frames[t] = np.stack([60 + x // 2, 80 + y, np.full_like(x, 110 + 12 * index)], axis=-1)
            frames[t][(x - 14 - 12 * t) ** 2 + (y - 42 - 3 * index) ** 2 < 120] = (240, 190, 60)
        films.append(frames)
    ids = [f"{classes[c]}/{c * per_class:04d}.mp4" for c in chosen]
    np.savez(path, frames=np.stack(films), video_ids=ids, labels=np.array(chosen))
    return path
