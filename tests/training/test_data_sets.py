"""From every kind of data set, as people have it on disk, to a trained and tested run."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers import lookalikes
from tests.helpers.tiny_runs import tiny_recipe
from vsn.config import Recipe
from vsn.data.open import open_datasets
from vsn.data.packing.pack import pack_dataset
from vsn.data.readers import read_records
from vsn.inference.evaluate import evaluate_run
from vsn.training.train import train

# Frame folders by a class file, video files with links that rot, a CSV file, lists. `test_lookalikes` reads all sources.
FAST = ["make_something_v1", "make_kinetics", "make_csv", "make_tsn_list"]
SLOW = sorted(name for name in dir(lookalikes) if name.startswith("make_") and name not in FAST)


def recipe_for(root: Path, maker: str) -> Recipe:
    config = getattr(lookalikes, maker)(root)
    recipe = tiny_recipe(root, epochs=1)
    data = replace(config, num_workers=0, test_split=config.val_split)
    return replace(recipe, data=data)


@pytest.mark.parametrize("maker", [*FAST, *(pytest.param(maker, marks=pytest.mark.slow) for maker in SLOW)])
def test_an_epoch_from(maker: str, tmp_path: Path, quiet: Console) -> None:
    recipe = recipe_for(tmp_path, maker)
    run = train(recipe, tmp_path / "run", console=quiet)
    result = evaluate_run(run.path, progress=False)
    assert result["num_videos"] == 6
    assert len(run.classes) == 3
    assert result["bad_videos"] == []


@pytest.mark.parametrize("maker", ["make_something_v1", pytest.param("make_kinetics", marks=pytest.mark.slow)])
def test_packed_trains_on_the_same(maker: str, tmp_path: Path, quiet: Console) -> None:
    recipe = recipe_for(tmp_path / "data", maker)
    packed = tmp_path / "packed"
    pack_dataset(recipe.data, packed, num_workers=1, progress=False)
    original = train(recipe, tmp_path / "original", console=quiet)
    data = replace(recipe.data, root=str(packed), source="csv", annotations="", videos="")
    run = train(replace(recipe, data=data), tmp_path / "run", console=quiet)
    assert run.classes == original.classes
    first, second = (evaluate_run(each.path, progress=False) for each in (original, run))
    assert first["num_videos"] == second["num_videos"]


def printed_before_training(recipe: Recipe) -> str:
    console = Console(record=True, file=io.StringIO(), width=200)
    open_datasets(recipe, console)
    return console.export_text()


def test_training_prints_once_how_frame_files_are_named(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, "make_tsn_list")
    video = read_records(recipe.data, "train").records[0]
    names = sorted(path.name for path in video.path.iterdir())
    assert names[0] == "img_00001.jpg"
    printed = printed_before_training(recipe)
    line = f"Frame files are named img_{{:05d}}.jpg from 1 in {video.video_id!r}, as detected"
    assert printed.count(line) == 1
    stated = replace(recipe, data=replace(recipe.data, frame_template="img_{:05d}.jpg"))
    assert "as data.frame_template states." in printed_before_training(stated)
    (video.path / names[1]).unlink()  # a gap: reported when its frames are read
    assert "Frame files" not in printed_before_training(recipe)


def test_training_prints_no_frame_files_of_video_files(tmp_path: Path) -> None:
    assert "Frame files" not in printed_before_training(recipe_for(tmp_path, "make_kinetics"))
