"""TRN: relations against loops over tuples; nothing drawn in evaluation; counts by hand."""

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError
from vsn.models.peers.trn import MAX_TUPLES, FrameRelation, RelationClassifier

R50 = 25_557_032 - (2048 * 1000 + 1000)
PROJECTION = 256 * 2048 + 256


def loop_relation(relation: FrameRelation, features: Tensor, tuples: list[tuple[int, ...]]) -> Tensor:
    """The values of g, tuple by tuple, added."""
    total = torch.zeros(len(features), relation.fuse.out_features)
    for chosen in tuples:
        seen = torch.cat([features[:, frame] for frame in chosen], dim=1)
        total += torch.relu(relation.fuse(torch.relu(seen)))
    return total


@pytest.mark.parametrize("scale", [1, 2, 3, 5, 6])
def test_evaluation_is_the_average_of_what_training_draws(scale: int) -> None:
    torch.manual_seed(0)
    relation = FrameRelation(num_frames=6, scale=scale, hidden=7).eval()
    features = torch.randn(2, 6, 256)
    every = list(combinations(range(6), scale))
    assert [tuple(row) for row in relation.tuples.tolist()] == every
    expected = loop_relation(relation, features, every) / len(every) * min(3, len(every))
    torch.testing.assert_close(relation(features), expected)


def test_training_adds_three_different_random_tuples_in_order() -> None:
    torch.manual_seed(0)
    relation = FrameRelation(num_frames=6, scale=4, hidden=7).train()
    features = torch.randn(2, 6, 256)
    seen = set()
    for seed in range(40):
        torch.manual_seed(seed)
        drawn = [tuple(row) for row in relation._draw().tolist()]
        assert len(set(drawn)) == 3
        assert all(row == tuple(sorted(set(row))) for row in drawn)
        seen |= set(drawn)
        torch.manual_seed(seed)
        torch.testing.assert_close(relation(features), loop_relation(relation, features, drawn))
    assert seen == set(combinations(range(6), 4))


def test_of_many_tuples_a_spread_hundred_are_looked_at() -> None:
    relation = FrameRelation(num_frames=16, scale=8, hidden=1)
    rows = [tuple(row) for row in relation.tuples.tolist()]
    every = list(combinations(range(16), 8))
    assert rows == [every[i * len(every) // MAX_TUPLES] for i in range(MAX_TUPLES)]
    assert FrameRelation(num_frames=64, scale=32, hidden=1).tuples.shape == (100, 32)


@pytest.mark.parametrize(("name", "scales"), [("trn", [8]), ("mtrn", [2, 3, 4, 5, 6, 7, 8])])
def test_logits_are_the_sum_over_scales_of_a_linear_layer_on_the_relations(name: str, scales: list[int]) -> None:
    model = make(f"{name}_resnet14_tiny")
    assert isinstance(model, RelationClassifier)
    assert [relation.scale for relation in model.relations.values()] == scales
    clip = make_clip()
    features = model.projection(model.frame_features(clip))
    hidden = 512 if name == "trn" else 256
    expected = model.head.bias.expand(2, -1).clone()
    for i, relation in enumerate(model.relations.values()):
        expected += relation(features) @ model.head.weight[:, i * hidden : (i + 1) * hidden].T
    torch.testing.assert_close(model(clip), expected)


def test_evaluation_draws_nothing_and_training_does() -> None:
    model, clip = make("mtrn_resnet14_tiny", dropout=0.0), make_clip()
    state = torch.random.get_rng_state()
    first = model(clip)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(model(clip), first)
    for module in (model, *model.relations.values()):
        module.training = True  # batch normalization stays as in evaluation
    torch.manual_seed(1)
    assert not torch.allclose(model(clip), first)
    trained = model(clip)
    assert not torch.equal(model(clip), trained)
    torch.manual_seed(2)
    again = model(clip)
    torch.manual_seed(2)
    assert torch.equal(model(clip), again)


@pytest.mark.parametrize("name", ["trn", "mtrn"])
def test_order_matters_and_t_is_fixed(name: str) -> None:
    model, clip = make(f"{name}_resnet14_tiny"), make_clip()
    assert not torch.allclose(model(clip), model(clip.flip(1)), rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"T=8 .*got 7"):
        model(clip[:, :7])


def test_a_multi_scale_trn_needs_two_frames() -> None:
    with pytest.raises(ConfigError, match=r"num_frames is 1; mtrn_ .*2 frames"):
        make("mtrn_resnet14_tiny", num_frames=1)
    assert make("trn_resnet14_tiny", num_frames=1)(make_clip(1)).shape == (2, 5)


def test_parameters_by_hand() -> None:
    classes = 174
    trn = R50 + PROJECTION + 512 * (8 * 256 + 1) + classes * (512 + 1)
    relations = sum(256 * (scale * 256 + 1) for scale in range(2, 9))
    mtrn = R50 + PROJECTION + relations + classes * (7 * 256 + 1)
    assert num_parameters("trn_resnet50", num_classes=classes, num_frames=8) == trn == 25_170_926
    assert num_parameters("mtrn_resnet50", num_classes=classes, num_frames=8) == mtrn == 26_640_110


def test_relations_cost_next_to_nothing() -> None:
    """By hand: the projection of 8 frames, g on every tuple, h once; next to TSN's own classifier on 8 frames."""
    costs = {"num_classes": 174, "num_frames": 8, "size": 64}
    tsn = giga_multiply_adds("tsn_resnet50", **costs) * 1e9 - 8 * 2048 * 174
    tuples = sum(math.comb(8, scale) * scale * 256 * 256 for scale in range(2, 9))
    mtrn = giga_multiply_adds("mtrn_resnet50", **costs) * 1e9
    assert round(mtrn - tsn) == 8 * 2048 * 256 + tuples + 7 * 256 * 174
    trn = giga_multiply_adds("trn_resnet50", **costs) * 1e9
    assert round(trn - tsn) == 8 * 2048 * 256 + 8 * 256 * 512 + 512 * 174


def test_any_2d_backbone_will_do() -> None:
    model = make("trn_timm/mobilenetv3_small_050", num_frames=2)
    assert model(make_clip(2)).shape == (2, 5)
    assert isinstance(model.relations["2"].fuse, nn.Linear)
