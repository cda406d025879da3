"""Validation while training: after an epoch, or within one; the best weights; what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from vsn.data.dataset import BadVideo
from vsn.inference.evaluate import score_videos
from vsn.runs.checkpoint import save_weights
from vsn.runs.run import append_metrics
from vsn.scores.metrics import average_precisions, top_k_hits
from vsn.training.job import Job
from vsn.training.losses import mean_loss
from vsn.training.optim import freeze_parts


def validate(job: Job) -> dict[str, float]:
    """Score the validation split, keep the weights when they are the best so far; return the figures.

    Raises:
        Stopped: somebody asked to stop meanwhile.
        VideoError: a video cannot be read, and `eval.bad_videos` is "stop".
    """
    recipe = job.run.recipe
    bad: list[BadVideo] = []
    scores = score_videos(
        job.tested_model,
        job.val_set,
        batch_size=recipe.eval.batch_size,
        num_workers=recipe.data.num_workers,
        precision=recipe.train.precision,
        average=recipe.eval.average,
        bad=bad if recipe.eval.bad_videos == "wrong" else None,
        distributed=job.distributed,
        stop=job.stop,
    )
    line = {"val_loss": mean_loss(scores), "val_top1": float(top_k_hits(scores, 1).mean())}
    if bad:
        line["val_bad_videos"] = len(bad)
    if scores.multi_label:
        line["val_map"] = float(np.mean(list(average_precisions(scores).values())))
    _keep_best(job, line)
    return line


def validate_when_due(job: Job) -> None:
    """Validate within an epoch, after every train.val_steps steps; write a line of its own."""
    every, steps = job.run.recipe.train.val_steps, job.steps_done
    if not every or steps % every or job.progress["validated"] >= steps:
        return
    if job.progress["step"] in (0, job.steps_per_epoch):  # the epoch's own validation comes
        return
    line = {"epoch": round(steps / job.steps_per_epoch, 4), "step": steps, "lr": job.lr} | validate(job)
    job.progress["validated"] = steps
    if job.distributed.is_rank0:
        append_metrics(job.run, line)
    job.trackers.log(line, steps)
    job.console.print(f"step {steps:>6}{'':<7}{_describe_validation(line)}", highlight=False, soft_wrap=True)
    job.model.train()
    freeze_parts(job.model, job.run.recipe.train)


def _keep_best(job: Job, line: dict[str, float]) -> None:
    """Save the weights as the best when they are: by mAP or top-1, then by the loss."""
    name = "val_map" if "val_map" in line else "val_top1"
    best = job.progress["best"]
    if best and (line[name], -line["val_loss"]) <= (best["value"], -best["val_loss"]):
        job.progress["stale"] += 1
        return
    job.progress["stale"] = 0
    job.progress["best"] = {
        "measure": name, "value": line[name], "val_loss": line["val_loss"], "step": job.steps_done,
        "epoch": round(job.steps_done / job.steps_per_epoch, 4),
    }  # fmt: skip
    if job.distributed.is_rank0:
        save_weights(job.run, job.tested_model, "best")


def describe_epoch(line: dict[str, Any], epochs: int) -> str:
    """One line on the terminal for one epoch."""
    text = f"epoch {line['epoch']:>3}/{epochs}  loss {line['train_loss']:.3f}  top-1 {line['train_top1']:6.1%}"
    text += _describe_validation(line)
    if line["bad_videos"]:
        text += f"  {line['bad_videos']} bad video{'s' if line['bad_videos'] > 1 else ''} skipped"
    speed = f"{line['videos_per_second']:.1f} videos/s  waiting {line['data_wait']:.0%}"
    return text + f"  {speed}  lr {line['lr']:.2g}  {line['seconds']:.0f} s"


def _describe_validation(line: dict[str, Any]) -> str:
    text = ""
    if "val_top1" in line:
        text += f"  val loss {line['val_loss']:.3f}  val top-1 {line['val_top1']:6.1%}"
    if "val_map" in line:
        text += f"  val mAP {line['val_map']:6.1%}"
    return text


def describe_end(job: Job) -> str:
    """A few lines when a run is finished: the best validation, the time, what to do next."""
    progress, config, path = job.progress, job.run.recipe.train, job.run.path
    best = progress["best"]
    measure = {"val_top1": "top-1", "val_map": "mAP"}[best["measure"]]
    epochs = "1 epoch" if progress["epoch"] == 1 else f"{progress['epoch']} epochs"
    lines = [
        f"{epochs}, {job.steps_done} steps in {progress['seconds'] / 60:.1f} minutes. "
        f"Best validation: {measure} {best['value']:.1%} after epoch {best['epoch']:g}."
    ]
    if job.out_of_patience and progress["epoch"] < config.epochs:
        lines.append(f"Stopped early: {config.early_stop} validations in a row were no better (train.early_stop).")
    lines.append(f"Last weights: {path / 'model.safetensors'}; best: {path / 'best.safetensors'}.")
    lines.append(f"Test it with: vsn eval {path}   (or vsn eval {path} --weights best)")
    return "\n".join(lines)
