"""Costs, best and worst videos, and heat maps of real runs in a report."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.helpers.html_pages import Page
from tests.helpers.tiny_runs import tiny_recipe
from vsn.data.open import open_split
from vsn.inference.evaluate import evaluate_run
from vsn.models.gradcam import grad_cam, overlay
from vsn.models.measure import count_parameters
from vsn.report import read_runs
from vsn.report.illustrate import best_and_worst, illustrated_report, measure_costs, shrink
from vsn.runs.checkpoint import load_model
from vsn.runs.run import open_run
from vsn.training.train import train


@pytest.fixture(scope="module")
def tested_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and tested run; its data has no test split, so that it is tested on the held-out part."""
    path = shutil.copytree(finished_run, tmp_path_factory.mktemp("tested") / "vsn")
    evaluate_run(path, progress=False)
    return path


def test_the_page_shows_frames_and_their_heat(tested_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    assert illustrated_report([tested_run], output, title="t", num_videos=2) == output
    page = Page(output.read_text("utf-8"))
    examples = best_and_worst(read_runs([tested_run]), num_videos=2)
    assert 1 <= len(examples.examples) <= 3  # of three videos
    # Of videos that only the script shows there are frames, and no heat.
    assert page.tags.count("img") == sum(4 if one.kind == "behind" else 8 for one in examples.examples)
    assert "Parameters" in page.words


def test_a_run_on_differences_shows_the_frames_that_it_subtracts(
    tiny_data: Path, tmp_path: Path, quiet: Console
) -> None:
    recipe = tiny_recipe(tiny_data)
    recipe = replace(recipe, model=replace(recipe.model, modality="rgbdiff", flow_length=2))
    run = train(replace(recipe, train=replace(recipe.train, epochs=1)), tmp_path / "differences", console=quiet)
    evaluate_run(run.path, progress=False)
    runs = read_runs([run.path])
    dataset = open_split(recipe, runs[0].split, classes=runs[0].classes)
    clips = {record.video_id: dataset[index].clip for index, record in enumerate(dataset.records)}
    examples = best_and_worst(runs).examples
    assert {example.heat is None for example in examples if example.kind != "behind"} == {False}
    for example in examples:
        np.testing.assert_array_equal(example.frames, shrink(clips[example.video_id][:, :3]))


def test_frames_equal_the_dataset_and_heat_is_of_the_predicted_class(tested_run: Path) -> None:
    runs = read_runs([tested_run])
    found = best_and_worst(runs, num_videos=1, stage="res4")
    assert found.map_size == (3, 4)  # 36x54 pixels at a stride of 16
    run = open_run(tested_run)
    dataset = open_split(run.recipe, runs[0].split, classes=run.classes)
    model, scores = load_model(run), runs[0].scores
    assert scores is not None
    for example in found.examples:
        if example.kind == "behind":
            continue
        index = [record.video_id for record in dataset.records].index(example.video_id)
        clip = dataset[index].clip
        np.testing.assert_array_equal(example.frames, clip.permute(0, 2, 3, 1).numpy())
        predicted = int(scores.logits[scores.video_ids.tolist().index(example.video_id)].argmax())
        maps = grad_cam(model, clip[None], targets=[predicted], stage="res4").maps[0]
        np.testing.assert_array_equal(example.heat, overlay(example.frames, maps))


def test_classes_in_another_order_light_the_same_places(tested_run: Path) -> None:
    """A report may number the classes otherwise than a run does; heat goes by the class's name."""
    runs = read_runs([tested_run])
    (run,) = runs
    assert run.scores is not None
    scores = replace(
        run.scores,
        logits=run.scores.logits[:, ::-1].copy(),
        labels=len(run.classes) - 1 - run.scores.labels,
        classes=run.classes[::-1],
    )
    turned = replace(run, classes=run.classes[::-1], scores=scores)
    for one, other in zip(best_and_worst(runs).examples, best_and_worst([turned]).examples, strict=True):
        assert one.video_id == other.video_id
        np.testing.assert_array_equal(one.heat, other.heat)


def test_costs_are_measured_without_weights(tested_run: Path) -> None:
    costs = measure_costs(read_runs([tested_run]))
    parameters, multiply_adds = costs["vsn"]
    assert parameters == count_parameters(load_model(open_run(tested_run)))
    assert multiply_adds > 1_000_000


def test_missing_videos_and_weights_are_reported(tested_run: Path, tmp_path: Path) -> None:
    runs = read_runs([tested_run])
    gone = best_and_worst(runs, root=tmp_path / "moved")
    assert gone.examples == ()
    assert "there is no such folder" in gone.problem
    bare = shutil.copytree(tested_run, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    no_heat = best_and_worst(read_runs([bare]))
    assert "No heat maps" in no_heat.problem
    assert {example.heat is None for example in no_heat.examples} == {True}
    assert {example.frames is None for example in no_heat.examples} == {False}


def test_unreadable_video_is_reported(tested_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(tiny_data, tmp_path / "data")
    for path in data.rglob("*.mp4"):
        path.write_bytes(b"no video")
    found = best_and_worst(read_runs([tested_run]), root=data)
    assert found.examples
    for example in found.examples:
        assert example.frames is None
        assert example.problem.startswith("Cannot be read: ")


def test_long_clips_and_large_frames_are_reduced() -> None:
    assert shrink(torch.zeros(2, 3, 256, 352, dtype=torch.uint8)).shape == (2, 128, 176, 3)
    assert shrink(torch.zeros(2, 3, 20, 30, dtype=torch.uint8)).shape == (2, 20, 30, 3)


def test_refused_arguments(tested_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_videos is 0"):
        illustrated_report([tested_run], tmp_path / "x.html", title="t", num_videos=0)
    with pytest.raises(ValueError, match="stage is 'res9'"):
        illustrated_report([tested_run], tmp_path / "x.html", title="t", stage="res9")
    assert not (tmp_path / "x.html").exists()
