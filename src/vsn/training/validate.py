"""Validate during training, keep the best weights, and format the lines that training prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vsn.data.dataset import BadVideo
from vsn.data.packing.pack import MARKER
from vsn.inference.evaluate import score_videos
from vsn.models.weights_file import NotFiniteError
from vsn.runs.checkpoint import save_weights
from vsn.runs.run import append_metrics, read_metrics
from vsn.scores.metrics import average_precisions, top_k_hits
from vsn.scores.scores import ScoresError
from vsn.system.limits import num_cpus
from vsn.system.numbers import counted, percent
from vsn.system.terminal import print_line, shell_quote
from vsn.training.advice import advise
from vsn.training.job import Job
from vsn.training.losses import mean_loss
from vsn.training.train_state import BestValidation


def validate(job: Job) -> dict[str, float]:
    """Evaluate the validation split, keep the weights if they are the best so far, and return the metrics.

    Raises:
        Stopped: a signal asked this or another process to stop.
        VideoError: a video cannot be read, and `eval.bad_videos` is "stop"; or none can be read.
        NotFiniteError: weights, scores or the loss are NaN or infinite.
    """
    job.check_finite()
    recipe = job.run.recipe
    bad: list[BadVideo] = []
    try:
        scores = score_videos(
            job.eval_model,
            job.val_set,
            batch_size=recipe.eval.batch_size,
            num_workers=recipe.data.num_workers,
            precision=recipe.train.precision,
            average=recipe.eval.average,
            bad=bad if recipe.eval.bad_videos == "wrong" else None,
            distributed=job.distributed,
            stop=job.stop,
        )
    except ScoresError:
        raise NotFiniteError("the scores of the validation are not finite") from None
    # Every rank has all scores, so that all agree on the best weights and on stopping early.
    metrics = {"val_loss": mean_loss(scores), "val_top1": float(top_k_hits(scores, 1).mean())}
    # Before the weights can become the best: NaN is neither smaller nor larger than another loss.
    if not math.isfinite(metrics["val_loss"]):
        raise NotFiniteError("the validation loss is not finite")
    if bad:
        metrics["val_bad_videos"] = len(bad)
    if scores.multi_label:
        metrics["val_map"] = float(np.mean(list(average_precisions(scores).values())))
    _keep_best(job, metrics)
    return metrics


def _keep_best(job: Job, metrics: Mapping[str, float]) -> None:
    """Save the weights as the best ones if their mAP or top-1 is higher, or equal with a lower loss."""
    measure = "val_map" if "val_map" in metrics else "val_top1"
    value, loss, best = metrics[measure], metrics["val_loss"], job.progress.best
    if best and (value, -loss) <= (best.value, -best.val_loss):
        job.progress.stale += 1
        return
    # Measured by the step, because validations within an epoch (train.val_steps) can be the best too.
    job.progress.stale = 0
    epoch = round(job.steps_done / job.steps_per_epoch, 4)
    job.progress.best = BestValidation(measure=measure, value=value, val_loss=loss, step=job.steps_done, epoch=epoch)
    job.check_folder()
    if job.distributed.is_rank0:
        save_weights(job.run, job.eval_model, "best")


def validate_when_due(job: Job) -> None:
    """Validate within an epoch, every train.val_steps steps, and write a metrics line for it."""
    every, steps = job.run.recipe.train.val_steps, job.steps_done
    # A resumed run asks again for the step it stopped at; `validated` says whether that validation finished.
    if not every or steps % every or job.progress.validated >= steps:
        return
    if job.progress.step in (0, job.steps_per_epoch):  # the validation of the epoch follows
        return
    line = {"epoch": round(steps / job.steps_per_epoch, 4), "step": steps, "lr": job.lr} | validate(job)
    job.progress.validated = steps
    job.check_folder()
    if job.distributed.is_rank0:
        append_metrics(job.run, line)
    job.log(line, steps)
    print_line(job.console, "  ".join([f"step {steps:>6}{'':<7}", *(whole for whole, _ in _validation_parts(line))]))
    job.train_mode()


def describe_epoch(line: Mapping[str, float], epochs: int, *, width: int | None = None) -> str:
    """Format the metrics of an epoch as one line; where it is wider than ``width``, with shorter words and fewer numbers."""
    # The whole form, and that of a narrow terminal; "" is left out there.
    parts = [
        (f"epoch {line['epoch']:>3}/{epochs}",) * 2,
        (f"loss {line['train_loss']:.3f}",) * 2,
        (f"top-1 {percent(line['train_top1']):>6}",) * 2,
        *_validation_parts(line),
    ]
    if line["bad_videos"]:
        bad = int(line["bad_videos"])
        parts.append((f"{counted(bad, 'bad video')} skipped", f"{bad} bad"))
    parts += [
        (f"{line['videos_per_second']:.1f} videos/s", ""),
        (f"waiting {percent(line['data_wait'], 0)}", f"waits {percent(line['data_wait'], 0)}"),
        (f"lr {line['lr']:.2g}", ""),
        (f"{line['seconds']:.0f} s",) * 2,
    ]
    whole, narrow = ("  ".join(filter(None, form)) for form in zip(*parts, strict=True))
    return whole if width is None or len(whole) <= width else narrow


def _validation_parts(line: Mapping[str, float]) -> list[tuple[str, str]]:
    parts = []
    if "val_top1" in line:
        top1 = f"{percent(line['val_top1']):>6}"
        parts += [(f"val loss {line['val_loss']:.3f}", f"val {line['val_loss']:.3f}"), (f"val top-1 {top1}", top1)]
    if "val_map" in line:
        parts.append((f"val mAP {percent(line['val_map']):>6}", f"mAP {percent(line['val_map']):>6}"))
    return parts


def describe_end(job: Job) -> list[str]:
    """Return the lines at the end of a run: time, best validation, advice, weights; last the command that tests them."""
    progress, config, path = job.progress, job.run.recipe.train, job.run.path
    best = progress.best
    assert best, "a run ends with a validation"
    measure = {"val_top1": "top-1", "val_map": "mAP"}[best.measure]
    epochs = "1 epoch" if progress.epoch == 1 else f"{progress.epoch} epochs"
    lines = [
        f"{epochs}, {job.steps_done} steps in {progress.seconds / 60:.1f} minutes. "
        f"Best validation: {measure} {percent(best.value)} after epoch {best.epoch:g}."
    ]
    if job.stops_early and progress.epoch < config.epochs:
        lines.append(f"Stopped early: no improvement in {config.early_stop} validations (train.early_stop).")
    is_packed = (Path(job.run.recipe.data.root) / MARKER).is_file()
    # Of several processes only the first writes, and prints, its metrics.
    metrics = read_metrics(path) if job.distributed.is_rank0 else []
    if advice := advise(metrics, job.run.recipe, num_cpus=num_cpus(), is_packed=is_packed):
        lines.append(f"Advice: {advice}")
    lines.append(f"Last weights: {path / 'model.safetensors'}; best: {path / 'best.safetensors'}.")
    lines.append(f"Test it with: vsn eval {shell_quote(path)}   (or vsn eval {shell_quote(path)} --weights best)")
    return lines
