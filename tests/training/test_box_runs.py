"""Runs on frames and boxes: trained, tested, used on single videos, explained and started from the I3D."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.helpers.squares import write_square_classes
from vsn.config import ClipSpec, ConfigError, DataConfig, EvalConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.open import open_split
from vsn.inference.evaluate import evaluate_run, score_videos
from vsn.inference.predictor import Predictor
from vsn.report.illustrate import illustrated_report
from vsn.runs.checkpoint import load_model
from vsn.runs.run import open_run
from vsn.scores.metrics import softmax
from vsn.stream.plan import window_processor
from vsn.training.train import train


def recipe_of(root: Path, name: str = "gcn_resnet26_thin", *, num_boxes: int = 2, weights: str = "none") -> Recipe:
    return Recipe(
        model=ModelConfig(name=name, num_frames=5, num_boxes=num_boxes, weights=weights),
        clip=ClipSpec(short_side=32, crop_size=32),
        data=DataConfig(root=str(root), num_workers=0, test_split="val"),
        train=TrainConfig(epochs=1, batch_size=2, lr=0.01, lr_batch_size=0, device="cpu"),
        eval=EvalConfig(batch_size=2),
    )


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_square_classes(tmp_path_factory.mktemp("squares"))


def test_a_run_on_frames_and_boxes(squares: Path, tmp_path: Path, quiet: Console) -> None:
    run = train(recipe_of(squares), tmp_path / "run", console=quiet)
    again = train(recipe_of(squares), tmp_path / "again", console=quiet)
    assert all(
        torch.equal(a, b) for a, b in zip(*(load_model(r).state_dict().values() for r in (run, again)), strict=True)
    )
    assert evaluate_run(run.path, config=EvalConfig(protocol="center"), progress=False)["num_videos"] == 2
    dataset = open_split(run.recipe, "val", classes=run.classes)
    scores = score_videos(load_model(run), dataset, batch_size=2, progress=False)
    predictor = Predictor.from_run(run.path, device="cpu")
    for record, expected in zip(dataset.records, softmax(scores.logits), strict=True):
        prediction = predictor.predict(record.path)
        by_name = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        assert [by_name[name] for name in run.classes] == expected.tolist()
    page = illustrated_report([run.path], tmp_path / "report.html", title="t", num_videos=1)
    assert page.read_text("utf-8").count("<img") >= 2 * 5
    with pytest.raises(ConfigError, match=r"gcn_resnet26_thin.*boxes.*windows"):
        window_processor(run.recipe)


def test_it_goes_on_from_its_i3d_and_from_itself_with_another_number_of_boxes(
    squares: Path, tmp_path: Path, quiet: Console
) -> None:
    i3d = train(recipe_of(squares, "nl-i3d-fine_resnet26_thin"), tmp_path / "i3d", console=quiet)
    first = train(recipe_of(squares, weights=str(i3d.path)), tmp_path / "first", console=quiet)
    second = recipe_of(squares, num_boxes=3, weights=str(first.path))
    train(replace(second, train=replace(second.train, epochs=1, lr=1e-9)), tmp_path / "second", console=quiet)
    one, other = (load_model(open_run(tmp_path / name)).state_dict() for name in ("first", "second"))
    name = "backbone.graph.time.0.weights.1.weight"
    torch.testing.assert_close(one[name], other[name])
    with pytest.raises(ConfigError, match=r"run of 'gcn_resnet26_thin'.*do not fit"):
        train(recipe_of(squares, "i3d_resnet26_thin", weights=str(first.path)), tmp_path / "third", console=quiet)
