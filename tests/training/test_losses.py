from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from vsn.config import TrainConfig
from vsn.data.records import VideoRecord
from vsn.scores.scores import Scores
from vsn.training.losses import Loss, build_loss, class_weights, mean_loss


def mean_of(loss: Loss, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return loss.total(logits, targets) / loss.weight(targets)


def records_of(*labels: tuple[int, ...]) -> list[VideoRecord]:
    return [VideoRecord(Path("a"), one, str(i)) for i, one in enumerate(labels)]


def test_class_weights_average_one_over_the_records():
    labels = [0] * 90 + [1] * 9 + [3]
    weights = class_weights(records_of(*((label,) for label in labels)), 4)
    assert weights[2] == 0
    assert weights[labels].mean() == pytest.approx(1.0)
    assert weights[3] / weights[0] == pytest.approx(90)


def test_rare_classes_weigh_more():
    logits, targets = torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1])
    records = records_of((0,), (0,), (0,), (1,))
    plain = mean_of(build_loss(TrainConfig(), records, 2, multi_label=False), logits, targets)
    weighted = mean_of(build_loss(TrainConfig(class_weights=True), records, 2, multi_label=False), logits, targets)
    each = functional.cross_entropy(logits, targets, reduction="none")
    assert plain == pytest.approx(each.mean().item())
    assert weighted == pytest.approx(((each[0] * 2 / 3 + each[1] * 2) / (2 / 3 + 2)).item())


def test_label_smoothing_and_soft_targets():
    loss = build_loss(TrainConfig(label_smoothing=0.3), records_of((0,)), 2, multi_label=False)
    logits = torch.tensor([[1.0, -1.0]])
    hard, soft = (mean_of(loss, logits, torch.tensor(t)) for t in ([0], [[0.85, 0.15]]))
    unsmoothed = build_loss(TrainConfig(), records_of((0,)), 2, multi_label=False)
    assert hard == pytest.approx(mean_of(unsmoothed, logits, torch.tensor([[0.85, 0.15]])).item())
    assert soft != hard


def test_several_labels_take_the_sigmoid():
    logits, targets = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[1.0, 0.0, 1.0]])
    loss = mean_of(build_loss(TrainConfig(), records_of((0, 2)), 3, multi_label=True), logits, targets)
    by_hand = -(torch.sigmoid(torch.tensor([1.0, 2.0, 0.5])).log()).mean()
    assert loss == pytest.approx(by_hand.item())


def test_mean_loss_leaves_out_what_could_not_be_read():
    logits = np.array([[1, 0], [np.nan, np.nan], [0, 3]], np.float32)
    scores = Scores(np.array(["a", "b", "c"]), logits, np.array([0, 1, 1]), ("x", "y"))
    kept = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    assert mean_loss(scores) == pytest.approx(functional.cross_entropy(kept, torch.tensor([0, 1])).item())
    several = Scores(scores.video_ids, logits, np.array([[1, 0], [1, 1], [0, 1]], dtype=bool), ("x", "y"))
    wanted = functional.binary_cross_entropy_with_logits(kept, torch.eye(2))
    assert mean_loss(several) == pytest.approx(wanted.item())
    nothing = Scores(scores.video_ids[1:2], logits[1:2], np.array([0]), ("x", "y"))
    assert np.isnan(mean_loss(nothing))
