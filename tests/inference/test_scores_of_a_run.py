"""Evaluate a trained run, then read, match, fuse and compare its scores."""

import shutil
from pathlib import Path

import numpy as np

from vsn.config import EvalConfig, FrameOrder
from vsn.inference.evaluate import evaluate_run
from vsn.runs.results import find_scores
from vsn.scores.fuse import fuse_scores
from vsn.scores.match import match_scores
from vsn.scores.metrics import softmax
from vsn.scores.reliance import temporal_reliance
from vsn.scores.scores import load_scores


def test_an_evaluated_run(finished_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    orders: tuple[FrameOrder, ...] = ("forward", "shuffled")
    results = {
        order: evaluate_run(run, split="train", config=EvalConfig(order=order), progress=False) for order in orders
    }
    evaluate_run(run, progress=False)
    assert find_scores([run]) == [run / "eval" / "test-fcn-forward.npz"]  # the recipe's own split
    scores = {order: load_scores(find_scores([run], split="train", order=order)[0]) for order in orders}
    for order, one in scores.items():
        assert {key: one.facts[key] for key in ("split", "protocol", "order")} == {
            "split": "train",
            "protocol": "fcn",
            "order": order,
        }
        assert "seconds" not in one.facts
    found = temporal_reliance(scores)
    assert [found.orders[order].top1 for order in orders] == [results[order]["top1"] for order in orders]
    assert list(found.orders["forward"].interval) == results["forward"]["top1_interval"]
    matched, _ = match_scores(list(scores.values()), orders)
    np.testing.assert_allclose(
        softmax(fuse_scores(matched).logits),
        (softmax(scores["forward"].logits) + softmax(scores["shuffled"].logits)) / 2,
        atol=1e-6,
    )
