"""The training loop, on one screen."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress, TaskID
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from vsn.config import Recipe
from vsn.data.dataset import VideoDataset, make_loader
from vsn.data.records import read_records
from vsn.engine.checkpoint import (
    Run,
    append_metrics,
    create_run,
    load_state,
    open_run,
    save_state,
    save_weights,
)
from vsn.engine.evaluate import autocast, pick_device, score_videos, test_dataset
from vsn.engine.optim import (
    base_lr,
    build_optimizer,
    check_partial_bn,
    freeze_parts,
    schedule_factor,
    set_lr,
)
from vsn.engine.scores import Scores, top_k_hits
from vsn.models import VideoClassifier, build_model, initialise
from vsn.progress import progress_bar


class TrainingStopped(RuntimeError):  # noqa: N818  (it stopped; it is not always an error)
    """Training ended before its last epoch; what was reached is saved."""


def train(
    recipe: Recipe,
    path: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    datasets: tuple[VideoDataset, VideoDataset] | None = None,
) -> Run:
    """Train a model and write its run folder.

    Args:
        recipe: all settings. When resuming it must be the run's own.
        path: the run folder; it must be new unless ``resume``.
        resume: continue where the run stopped, in the middle of an epoch too.
        console: where to report; default standard error.
        datasets: training and validation set, when several runs share one that is in memory.

    Returns:
        The run. Its folder holds weights after every epoch.

    Raises:
        ConfigError, RunError, VideoError: what is wrong and what to do.
        TrainingStopped: Ctrl-C (the state is saved) or a loss that is not finite.
    """
    console = console or Console(stderr=True)
    path = Path(path)
    config, device = recipe.train, pick_device(recipe.train.device)
    check_partial_bn(config, recipe.model.weights)
    train_set, val_set = datasets or open_datasets(recipe, console)
    run = open_run(path) if resume else create_run(path, recipe, train_set.classes)
    torch.manual_seed(config.seed)
    state = load_state(run) if resume else None
    model, optimizer, progress = _start(run, state, device, console)
    steps_per_epoch = math.ceil(len(train_set) / config.batch_size)
    network = torch.compile(model) if config.compile else model
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    writer = SummaryWriter(str(path / "tensorboard"))

    for epoch in range(progress["epoch"], config.epochs):
        model.train()
        freeze_parts(model, config)
        first = progress["step"]
        loader = make_loader(
            train_set,
            batch_size=config.batch_size,
            num_workers=recipe.data.num_workers,
            epoch=epoch,
            shuffle=True,
            seed=config.seed,
            start=first * config.batch_size,
        )
        started, seen = time.perf_counter(), 0
        try:
            with progress_bar("videos", console=console) as bar:
                note = f"epoch {epoch + 1}/{config.epochs}"
                task = bar.add_task(
                    "training", total=len(train_set), completed=first * config.batch_size, note=note
                )
                for step, (batch,) in enumerate(loader, start=first):
                    lr = base_lr(config) * schedule_factor(
                        epoch * steps_per_epoch + step, steps_per_epoch=steps_per_epoch, config=config
                    )
                    set_lr(optimizer, lr)
                    clips, labels = batch.clips.to(device, non_blocking=True), batch.labels.to(device)
                    with autocast(device, config.precision):
                        logits = network(clips)
                        loss = functional.cross_entropy(
                            logits.float(), labels, label_smoothing=config.label_smoothing
                        )
                    value = loss.item()
                    if not math.isfinite(value):
                        raise TrainingStopped(_not_finite(train_set, batch.indices, epoch, step, lr))
                    optimizer.zero_grad(set_to_none=True)
                    scaler.scale(loss).backward()
                    scaler.unscale_(optimizer)
                    if config.clip_grad_norm:
                        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_grad_norm)
                    scaler.step(optimizer)
                    scaler.update()
                    progress["step"], seen = step + 1, seen + len(labels)
                    progress["loss_sum"] += value * len(labels)
                    progress["hits"] += int((logits.argmax(dim=1) == labels).sum())
                    progress["videos"] += len(labels)
                    mean_loss, top1 = (
                        progress["loss_sum"] / progress["videos"],
                        progress["hits"] / progress["videos"],
                    )
                    note = f"epoch {epoch + 1}/{config.epochs}  loss {mean_loss:.3f}  top-1 {top1:.1%}  lr {lr:.2g}"
                    bar.update(task, advance=len(labels), note=note)
        except KeyboardInterrupt:
            _save(run, model, optimizer, progress)
            raise TrainingStopped(
                f"Stopped in epoch {epoch + 1} after {progress['step']} of {steps_per_epoch} steps; continue with: "
                f"vsn train --resume {path}"
            ) from None
        line = {
            "epoch": epoch + 1,
            "step": (epoch + 1) * steps_per_epoch,
            "lr": lr,
            "train_loss": mean_loss,
            "train_top1": top1,
            "videos_per_second": seen / (time.perf_counter() - started),
        }
        if (epoch + 1) % config.val_every == 0 or epoch + 1 == config.epochs:
            scores = score_videos(
                model,
                val_set,
                batch_size=recipe.eval.batch_size,
                num_workers=recipe.data.num_workers,
                precision=config.precision,
            )
            line |= {"val_loss": mean_cross_entropy(scores), "val_top1": float(top_k_hits(scores, 1).mean())}
        line["seconds"] = time.perf_counter() - started
        progress |= {"epoch": epoch + 1, "step": 0, "loss_sum": 0.0, "hits": 0, "videos": 0}
        _save(run, model, optimizer, progress)
        save_weights(run, model)
        append_metrics(run, line)
        for key in line.keys() - {"epoch", "step"}:
            writer.add_scalar(key, line[key], epoch + 1)
        console.print(describe_epoch(line, config.epochs), highlight=False)
    writer.close()
    return run


def open_datasets(recipe: Recipe, console: Console) -> tuple[VideoDataset, VideoDataset]:
    """The training set and the validation set of a recipe, decoded into memory when it says so."""
    train_set = VideoDataset(
        read_records(recipe.data, recipe.data.train_split),
        clip=recipe.clip,
        num_frames=recipe.model.num_frames,
        train=True,
        flip=recipe.data.flip,
        seed=recipe.train.seed,
        cache=recipe.data.cache,
    )
    forward = replace(recipe.eval, order="forward")
    val_set = test_dataset(recipe, recipe.data.val_split, forward, classes=train_set.classes)
    for dataset in (train_set, val_set) if recipe.data.cache == "memory" else ():
        with progress_bar("videos", console=console) as bar:
            task = bar.add_task("decoding", total=len(dataset), note="")

            def advance(done: int, total: int, bar: Progress = bar, task: TaskID = task) -> None:
                bar.update(task, completed=done, total=total)

            dataset.preload(progress=advance)
    return train_set, val_set


def mean_cross_entropy(scores: Scores) -> float:
    """Mean cross-entropy of scores against their labels, natural logarithm."""
    return float(functional.cross_entropy(torch.from_numpy(scores.logits), torch.from_numpy(scores.labels)))


def describe_epoch(line: dict[str, Any], epochs: int) -> str:
    """One line on the terminal for one epoch."""
    text = (
        f"epoch {line['epoch']:>3}/{epochs}  loss {line['train_loss']:.3f}  top-1 {line['train_top1']:6.1%}"
    )
    if "val_top1" in line:
        text += f"  val loss {line['val_loss']:.3f}  val top-1 {line['val_top1']:6.1%}"
    return text + f"  {line['videos_per_second']:.1f} videos/s  lr {line['lr']:.2g}  {line['seconds']:.0f} s"


def _start(
    run: Run, state: dict[str, Any] | None, device: torch.device, console: Console
) -> tuple[VideoClassifier, torch.optim.Optimizer, dict[str, Any]]:
    """Model, optimiser and progress: at the start of a run, or where it stopped."""
    recipe, config = run.recipe, run.recipe.train
    model = build_model(recipe.model)
    if state is None:
        weights = initialise(model, recipe.model)
        fresh = weights.missing if recipe.model.weights != "none" else ()
        if fresh:
            console.print(
                f"{recipe.model.weights} lacks {weights.describe_missing()}: those start at random."
            )
        if config.lr_batch_size not in (0, config.batch_size):
            console.print(
                f"Learning rate {base_lr(config):.3g}: {config.lr:g} is for {config.lr_batch_size} videos a step, "
                f"this run takes {config.batch_size}.",
                highlight=False,
            )
        progress: dict[str, Any] = {
            "epoch": 0,
            "step": 0,
            "loss_sum": 0.0,
            "hits": 0,
            "videos": 0,
            "fresh": list(fresh),
        }
    else:
        model.load_state_dict(state["model"])
        progress = state["progress"]
    model = model.to(device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    freeze_parts(model, config)
    optimizer = build_optimizer(model, config, fresh=progress["fresh"])
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
    return model, optimizer, progress


def _save(
    run: Run, model: VideoClassifier, optimizer: torch.optim.Optimizer, progress: dict[str, Any]
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": progress,
        "rng": torch.get_rng_state(),
    }
    save_state(run, state)


def _not_finite(dataset: VideoDataset, indices: torch.Tensor, epoch: int, step: int, lr: float) -> str:
    files = ", ".join(dataset.records[int(i)].video_id for i in indices)
    return (
        f"The loss is not finite in epoch {epoch + 1}, step {step + 1}, at learning rate {lr:.3g}. The weights of the "
        f"last whole epoch are kept. Try a lower train.lr or train.precision = 'fp32'. Videos of the batch: {files}."
    )
