from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from vsn.config import Recipe
from vsn.training.advice import advise
from vsn.training.validate import describe_epoch


def lines(**columns: Sequence[float]) -> list[dict[str, float]]:
    """Metrics of epochs: a keyword is a column."""
    count = len(next(iter(columns.values())))
    usual = {"train_loss": 1.0, "train_top1": 0.5, "val_top1": 0.5, "data_wait": 0.0, "seconds": 10.0}
    rows = [usual | {name: values[i] for name, values in columns.items()} for i in range(count)]
    return [{"epoch": i + 1, **row} for i, row in enumerate(rows)]


def advice(metrics: Sequence[Mapping[str, float]], *, num_cpus: int = 2, is_packed: bool = False, **data: Any) -> str:
    recipe = Recipe()
    recipe = replace(
        recipe, data=replace(recipe.data, **data), train=replace(recipe.train, epochs=max(1, len(metrics)))
    )
    return advise(metrics, recipe, num_cpus=num_cpus, is_packed=is_packed)


def test_waiting_for_videos():
    waiting = lines(data_wait=[0.9, 0.9, 0.81, 0.81])
    text = advice(waiting, num_cpus=8, num_workers=2)
    assert "81%" in text  # of the second half: the first epochs fill caches
    assert "data.num_workers = 8" in text
    assert "vsn data pack" in text
    assert "num_workers" not in advice(waiting, num_cpus=2, num_workers=2)
    packed = advice(waiting, num_cpus=8, num_workers=2, is_packed=True)
    assert "num_workers" in packed
    assert "pack" not in packed
    assert advice(waiting, num_cpus=2, is_packed=True) == ""  # nothing is left to change
    assert advice(lines(data_wait=[0.9, 0.9, 0.2, 0.2])) == ""


def test_learned_by_heart():
    text = advice(lines(train_top1=[0.5, 0.99], val_top1=[0.6, 0.55]))
    assert "99.0%" in text
    assert "60.0%" in text  # the best validation
    assert "model.weights" in text
    recipe = Recipe()
    started = replace(recipe, model=replace(recipe.model, weights="IMAGENET1K_V2"))
    metrics = lines(train_top1=[0.99], val_top1=[0.6])
    assert "augment" in advise(metrics, started, num_cpus=2, is_packed=False)
    assert advice(lines(train_top1=[0.99], val_top1=[0.85])) == ""


def test_still_rising():
    rising = [0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.52, 0.55]
    assert "+5.0 points" in advice(lines(val_top1=rising, train_top1=rising))
    assert advice(lines(val_top1=[*rising[:6], 0.55, 0.54], train_top1=rising)) == ""
    assert advice(lines(val_top1=rising[:2], train_top1=rising[:2])) == ""  # too few validations to tell


def test_no_metrics_no_advice():
    assert advice([]) == ""


@pytest.mark.parametrize("epochs", [9, 100])
def test_the_line_of_an_epoch_fits_into_80_columns(epochs: int):
    line = {
        "epoch": epochs, "train_loss": 12.345, "train_top1": 1.0, "val_loss": 12.345, "val_top1": 1.0, "bad_videos": 0,
        "videos_per_second": 1234.5, "data_wait": 1.0, "lr": 0.00012, "seconds": 9999.0,
    }  # fmt: skip
    assert len(describe_epoch(line, epochs)) > 100
    narrow = describe_epoch(line, epochs, width=80)
    assert len(narrow) <= 80
    assert all(part in narrow for part in ("12.345", "100.0%", "waits 100%", "9999 s"))
    assert describe_epoch(line, epochs, width=160) == describe_epoch(line, epochs)
