"""Insertion: what changes, what must not, and the proof that frames meet."""

import copy
import io
import pickle
from collections.abc import Callable, Sequence

import pytest
import torch
import torchvision.models as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vsn.config import STAGES, Block, ConfigError
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.blocks import residual_blocks
from vsn.models.insertion import Placement, insert_at, insert_temporal, mixing_matrix, plan_placement
from vsn.models.layers import ShiftConv2d, ShuffleBatchNorm2d, ShuffleConv2d
from vsn.ops import video_shuffle

THIN = "resnet26_thin"


def features(name: str = THIN) -> nn.Module:
    torch.manual_seed(0)
    backbone = build_backbone(name)
    remove_classifier(backbone)
    return backbone


def temporal_names(model: nn.Module) -> dict[str, list[str]]:
    """Names of the temporal modules, by kind."""
    names: dict[str, list[str]] = {"compact": [], "head": [], "tail": [], "shift": []}
    for name, module in model.named_modules():
        if isinstance(module, ShuffleConv2d):
            names["compact" if module.unshuffle else "head"].append(name)
        elif isinstance(module, ShuffleBatchNorm2d):
            names["tail"].append(name)
        elif isinstance(module, ShiftConv2d):
            names["shift"].append(name)
    return names


def kinds(model: nn.Module) -> list[tuple[str, type]]:
    return [(name, type(module)) for name, module in model.named_modules()]


# What stays


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("resnet18", "compact"),
        ("resnet50", "compact"),
        ("resnet101", "compact"),
        ("wide_resnet50_2", "compact"),
        ("densenet121", "compact"),
        ("resnet18", "headtail"),
        ("resnet50", "headtail"),
    ],
)
def test_names_and_tensors_of_the_weights_stay(name: str, block: Block) -> None:
    with torch.device("meta"):
        backbone = tv.get_model(name, weights=None)
    before = backbone.state_dict(keep_vars=True)
    assert insert_temporal(backbone, num_frames=8, block=block) is backbone
    after = backbone.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    assert [id(p) for p in backbone.parameters()] == [id(p) for p in before.values() if p.requires_grad]


def test_torchvision_weights_load_strictly_before_and_after() -> None:
    state = tv.resnet18().state_dict()
    backbone = insert_temporal(tv.resnet18(), num_frames=4)
    assert str(backbone.load_state_dict(state, strict=True)) == "<All keys matched successfully>"
    assert torch.equal(backbone.get_parameter("layer2.1.conv2.weight"), state["layer2.1.conv2.weight"])
    tv.resnet18().load_state_dict(backbone.state_dict(), strict=True)


def test_settings_and_hooks_of_a_layer_stay() -> None:
    backbone = features().eval()
    calls: list[str] = []
    conv = backbone.get_submodule("layer4.1.conv2")
    backbone.get_parameter("layer4.1.conv2.weight").requires_grad_(False)
    conv.register_forward_hook(lambda *_: calls.append("conv2"))
    insert_temporal(backbone, num_frames=2)
    backbone(torch.zeros(2, 3, 32, 32))
    new = backbone.get_submodule("layer4.1.conv2")
    assert isinstance(new, ShuffleConv2d)
    assert calls == ["conv2"]
    assert not new.weight.requires_grad
    assert not new.training
    assert "num_frames=2, unshuffle=True" in repr(new)
    assert "num_frames=2, shift_div=8" in repr(backbone.get_submodule("layer4.0.conv1"))


@pytest.mark.parametrize("block", ["compact", "headtail"])
def test_an_inserted_model_is_copied_pickled_and_saved(block: Block) -> None:
    backbone = insert_temporal(features(), num_frames=4, block=block).eval()
    frames = torch.rand(4, 3, 32, 32)
    expected = backbone(frames)
    saved = io.BytesIO()
    torch.save(backbone, saved)
    saved.seek(0)
    copies = [
        copy.deepcopy(backbone),
        pickle.loads(pickle.dumps(backbone)),
        torch.load(saved, weights_only=False),
    ]
    for other in copies:
        assert kinds(other) == kinds(backbone)
        assert torch.equal(other(frames), expected)
        assert other.get_parameter("conv1.weight") is not backbone.get_parameter("conv1.weight")


def test_one_frame_changes_nothing() -> None:
    backbone = tv.resnet18().eval()
    before = kinds(backbone)
    frames = torch.rand(3, 3, 32, 32)
    expected = backbone(frames)
    for block in ("compact", "headtail"):
        insert_temporal(backbone, num_frames=1, block=block)
        assert kinds(backbone) == before
        assert torch.equal(backbone(frames), expected)


# What a temporal layer computes


def test_compact_is_shuffle_convolution_shuffle() -> None:
    conv = nn.Conv2d(6, 9, 3, stride=2, padding=1)
    model = insert_at(nn.Sequential(copy.deepcopy(conv)), num_frames=3, shuffle=["0"])
    frames = torch.rand(6, 6, 5, 5)
    expected = video_shuffle(conv(video_shuffle(frames, 3)), 3)
    assert torch.equal(model(frames), expected)
    assert not torch.equal(model(frames), conv(frames))


def test_headtail_shows_shuffled_frames_to_all_that_lies_between() -> None:
    block = tv.resnet.BasicBlock(6, 6).eval()
    plain = copy.deepcopy(block)
    insert_at(block, num_frames=3, placement=Placement(headtail=(("conv1", "bn2"),)))
    frames = torch.rand(3, 6, 5, 5)
    branch = plain.bn2(plain.conv2(plain.relu(plain.bn1(plain.conv1(video_shuffle(frames, 3))))))
    assert torch.equal(block(frames), plain.relu(video_shuffle(branch, 3) + frames))


def test_shift_sits_before_the_first_convolution_of_the_branch_alone() -> None:
    block = tv.resnet.BasicBlock(8, 8).eval()
    plain = copy.deepcopy(block)
    insert_at(block, num_frames=2, shift=["conv1"], shift_div=4)
    frames = torch.rand(2, 8, 5, 5)
    moved = frames.clone()
    moved[0, :2], moved[1, :2] = frames[1, :2], 0
    moved[1, 2:4], moved[0, 2:4] = frames[0, 2:4], 0
    branch = plain.bn2(plain.conv2(plain.relu(plain.bn1(plain.conv1(moved)))))
    assert torch.equal(block(frames), plain.relu(branch + frames))


# Where things go

LAST_OF_R50 = ["layer1.2", "layer2.3", "layer3.5", "layer4.2"]
LAST_OF_R101 = ["layer1.2", "layer2.3", "layer3.22", "layer4.2"]


@pytest.mark.parametrize(
    ("name", "last", "num_blocks"), [("resnet50", LAST_OF_R50, 16), ("resnet101", LAST_OF_R101, 33)]
)
def test_table_1_four_compact_blocks_and_shift_in_the_rest(name: str, last: list[str], num_blocks: int) -> None:
    with torch.device("meta"):
        model = insert_temporal(tv.get_model(name, weights=None), num_frames=8)
    placed = temporal_names(model)
    blocks = [one.name for stage in residual_blocks(model).values() for one in stage]
    assert placed["compact"] == [f"{block}.conv2" for block in last]
    assert placed["shift"] == [f"{block}.conv1" for block in blocks if block not in last]
    assert len(placed["shift"]) == num_blocks - 4 == {"resnet50": 12, "resnet101": 29}[name]
    assert placed["head"] == placed["tail"] == []


@pytest.mark.parametrize(
    ("places", "compact"),
    [
        ((), []),
        (("res2",), ["layer1.2.conv2"]),
        (("res5", "res3"), ["layer2.3.conv2", "layer4.2.conv2"]),
        (STAGES, [f"{block}.conv2" for block in LAST_OF_R50]),
    ],
)
@pytest.mark.parametrize("shift", [True, False])
def test_places_choose_the_stages(places: Sequence[str], compact: list[str], shift: bool) -> None:
    with torch.device("meta"):
        plan = plan_placement(residual_blocks(tv.resnet50()), places=places, shift=shift)
    assert list(plan.shuffle) == compact
    assert len(plan.shift) == (16 - len(compact) if shift else 0)
    assert plan.headtail == ()


def test_shift_places_keep_early_stages_still() -> None:
    with torch.device("meta"):
        plan = plan_placement(residual_blocks(tv.resnet50()), places=(), shift_places=("res4", "res5"))
    assert {name.split(".")[0] for name in plan.shift} == {"layer3", "layer4"}
    assert len(plan.shift) == 6 + 3


def test_places_without_a_block_are_refused_where_there_is_no_other() -> None:
    with torch.device("meta"):
        stages = {**residual_blocks(tv.resnet18()), "res2": []}
    assert plan_placement(stages, places=("res2", "res5")).shuffle == ("layer4.1.conv2",)
    message = r"places is \['res2'\], .*\['res3', 'res4', 'res5'\]"
    with pytest.raises(ConfigError, match=message):
        plan_placement(stages, places=("res2",))


def test_a_pair_around_a_projection_wants_one_in_every_place() -> None:
    with torch.device("meta"):
        stages = residual_blocks(tv.resnet18())
    with pytest.raises(ConfigError, match=r"^block is 'pointwise', .*layer4\.1"):
        plan_placement(stages, block="pointwise", places=("res5",))


def test_headtail_wraps_the_residual_branch() -> None:
    with torch.device("meta"):
        placed = temporal_names(insert_temporal(tv.resnet50(), num_frames=8, block="headtail"))
    assert placed["head"] == [f"{block}.conv1" for block in LAST_OF_R50]
    assert placed["tail"] == [f"{block}.bn3" for block in LAST_OF_R50]
    assert placed["compact"] == []
    assert len(placed["shift"]) == 12


def test_shift_every_second_block_starts_at_the_first_of_each_stage() -> None:
    with torch.device("meta"):
        placed = temporal_names(insert_temporal(tv.resnet50(), num_frames=8, places=(), shift_every=2))
    assert placed["shift"] == [
        f"layer{i + 1}.{j}.conv1" for i, depth in enumerate((3, 4, 6, 3)) for j in range(0, depth, 2)
    ]


def test_without_shift_the_other_blocks_stay_as_they_are() -> None:
    placed = temporal_names(insert_temporal(tv.resnet18(), num_frames=8, shift=False))
    assert placed["compact"] == [f"layer{i}.1.conv2" for i in (1, 2, 3, 4)]
    assert placed["shift"] == []


def test_basic_blocks_shuffle_around_their_second_convolution() -> None:
    placed = temporal_names(insert_temporal(tv.resnet18(), num_frames=8))
    assert placed["compact"] == [f"layer{i}.1.conv2" for i in (1, 2, 3, 4)]
    assert placed["shift"] == [f"layer{i}.0.conv1" for i in (1, 2, 3, 4)]


def test_dense_blocks_are_stages_and_their_layers_blocks() -> None:
    with torch.device("meta"):
        placed = temporal_names(insert_temporal(tv.densenet121(), num_frames=8))
    assert placed["compact"] == [
        f"features.denseblock{i}.denselayer{n}.conv2" for i, n in ((1, 6), (2, 12), (3, 24), (4, 16))
    ]
    assert len(placed["shift"]) == 6 + 12 + 24 + 16 - 4


# The proof

IDENTITY = torch.eye(4, dtype=torch.bool)
NEIGHBOURS = torch.ones(4, 4).tril(1).triu(-1).bool()
ALL = torch.ones(4, 4, dtype=torch.bool)


@pytest.mark.parametrize(
    ("insert", "expected"),
    [
        (lambda model: model, IDENTITY),
        (lambda model: insert_at(model, num_frames=4, shift=["layer2.0.conv1"]), NEIGHBOURS),
        (lambda model: insert_at(model, num_frames=4, shuffle=["layer1.1.conv2"]), ALL),
        (lambda model: insert_at(model, num_frames=4, shuffle=["layer4.1.conv2"]), ALL),
        (
            lambda model: insert_at(
                model, num_frames=4, placement=Placement(headtail=(("layer3.1.conv1", "layer3.1.bn3"),))
            ),
            ALL,
        ),
        (lambda model: insert_temporal(model, num_frames=4, places=(), shift_places=("res2",)), None),
        (lambda model: insert_temporal(model, num_frames=4), ALL),
        (lambda model: insert_temporal(model, num_frames=4, block="headtail", shift=False), ALL),
    ],
    ids=[
        "tsn", "one shift", "first compact", "last compact", "headtail", "two shifts", "vsn", "headtail vsn",
    ],
)  # fmt: skip
def test_which_frames_meet(insert: Callable[[nn.Module], nn.Module], expected: Tensor | None) -> None:
    if expected is None:  # two shifts reach two frames away
        expected = torch.ones(4, 4).tril(2).triu(-2).bool()
    assert torch.equal(mixing_matrix(insert(features()), num_frames=4, size=32), expected)


def test_seven_frames_meet_where_they_do_not_divide_the_channels() -> None:
    model = insert_at(features(), num_frames=7, shuffle=["layer1.1.conv2"])
    assert mixing_matrix(model, num_frames=7, size=32).all()


def test_mixing_matrix_leaves_the_model_alone() -> None:
    model = insert_temporal(features(), num_frames=4).train()
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    mixing_matrix(model, num_frames=4, size=32)
    assert model.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_mixing_matrix_sees_through_a_branch_that_starts_at_zero() -> None:
    model = insert_at(features(), num_frames=4, shuffle=["layer4.1.conv2"])
    scale = nn.init.zeros_(model.get_parameter("layer4.1.bn3.weight"))
    assert mixing_matrix(model, num_frames=4, size=32).all()
    assert not scale.any()


# Grouped convolutions


def forced(conv: nn.Conv2d, num_frames: int) -> ShuffleConv2d:
    """A shuffle pair around any convolution, past all checks."""
    new = ShuffleConv2d.__new__(ShuffleConv2d)
    new.__dict__.update(conv.__dict__)
    new.num_frames, new.unshuffle = num_frames, True
    return new


def test_resnext_is_refused_because_its_groups_are_the_frames() -> None:
    with torch.device("meta"):
        backbone = tv.resnext50_32x4d()
    before = kinds(backbone)
    message = r"^layer1\.2\.conv2 has 32 groups: with num_frames = 8 each group holds channels of one frame"
    with pytest.raises(ConfigError, match=message):
        insert_temporal(backbone, num_frames=8)
    assert kinds(backbone) == before
    # Without a shuffle around the 3x3 there is nothing to refuse: TSM, and headtail around the 1x1.
    insert_temporal(backbone, num_frames=8, places=())


def test_resnext_forced_mixes_nothing() -> None:
    torch.manual_seed(0)
    stage = tv.resnext50_32x4d().layer1
    model = nn.Sequential(nn.Conv2d(3, 64, 1), stage)
    for block in stage:
        block.conv2 = forced(block.conv2, 8)
    assert torch.equal(mixing_matrix(model, num_frames=8, size=4), torch.eye(8, dtype=torch.bool))


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_grouped_convolutions_are_refused_exactly_when_they_mix_nothing(data: st.DataObject) -> None:
    num_frames, groups = data.draw(st.integers(2, 5)), data.draw(st.integers(2, 12))
    widths = st.integers(-(-num_frames // groups), 4)
    inputs, outputs = groups * data.draw(widths), groups * data.draw(widths)
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, 1, groups=groups)
    probe = nn.Sequential(nn.Conv2d(3, inputs, 1), forced(conv, num_frames), nn.Tanh())
    mixes = mixing_matrix(probe, num_frames=num_frames, size=1)
    model = nn.Sequential(conv)
    if torch.equal(mixes | torch.eye(num_frames).bool(), torch.eye(num_frames).bool()):
        with pytest.raises(ConfigError, match="mixes nothing"):
            insert_at(model, num_frames=num_frames, shuffle=["0"])
    elif not mixes.fill_diagonal_(True).all():
        with pytest.warns(UserWarning, match="each sees a part of the frames"):
            insert_at(model, num_frames=num_frames, shuffle=["0"])
    else:
        insert_at(model, num_frames=num_frames, shuffle=["0"])


# Refusals


class OwnCnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Identity())
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)

    def forward(self, frames: Tensor) -> Tensor:
        return self.depthwise(self.body(self.stem(frames)))


def test_any_cnn_takes_operations_at_modules_named_by_hand() -> None:
    model = insert_at(OwnCnn(), num_frames=4, shuffle=["body.1"], shift=["depthwise"], shift_div=4)
    assert isinstance(model.get_submodule("body.1"), ShuffleConv2d)
    assert isinstance(model.depthwise, ShiftConv2d)
    assert mixing_matrix(model, num_frames=4, size=8).all()


def test_a_channel_for_each_part_is_enough_to_shift() -> None:
    model = insert_at(OwnCnn(), num_frames=4, shift=["body.1"], shift_div=8)
    assert isinstance(model.get_submodule("body.1"), ShiftConv2d)


def test_a_linear_layer_that_sees_channels_last_is_put_between_a_pair() -> None:
    linear = nn.Linear(6, 9)
    model = insert_at(nn.Sequential(copy.deepcopy(linear)), num_frames=3, shuffle=["0"])
    frames = torch.rand(6, 6, 5, 5)
    expected = video_shuffle(linear(video_shuffle(frames, 3).movedim(1, -1)).movedim(-1, 1), 3)
    torch.testing.assert_close(model(frames.movedim(1, -1)).movedim(-1, 1), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shuffle": ["body.7"]}, r"no module 'body\.7'; its Conv2d modules begin \['stem', 'body\.1', 'dep"),
        ({"shift": ["head"]}, "no module 'head'"),
        ({"shuffle": ["body.0"]}, "body.0 is a ReLU; only a plain Conv2d can become temporal"),
        ({"shift": ["body.2"]}, "body.2 is a Identity; only a plain Conv2d"),
        ({"shuffle": ["stem"]}, "stem has 3 input channels, fewer than num_frames = 4.*Use at most 3 frames"),
        ({"shift": ["stem"]}, "stem has 3 input channels, fewer than shift_div = 8"),
        ({"shuffle": ["depthwise"]}, "depthwise has 8 groups: .* mixes nothing"),
        ({"shuffle": ["body.1"], "shift": ["body.1"]}, "body.1 is named more than once"),
        ({"shuffle": ["body.1", "body.1"]}, "body.1 is named more than once"),
        ({"shuffle": ["body.1"], "shift": ["nowhere"]}, "no module 'nowhere'"),
        ({"shuffle": ["body.1"], "num_frames": 0}, "num_frames is 0"),
        ({"shift": ["body.1"], "shift_div": 1}, "shift_div is 1"),
        (
            {"placement": Placement(headtail=(("body.1", "body.2"),))},
            "body.1 ends in a Identity, not a plain batch",
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_why_and_leaves_the_model_as_it_was(settings: dict, message: str) -> None:
    model = OwnCnn()
    before = kinds(model)
    with pytest.raises(ConfigError, match=message):
        insert_at(model, **{"num_frames": 4, **settings})
    assert kinds(model) == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"places": ("res1",)}, r"places is \['res1'\]; choose from \['res2', 'res3', 'res4', 'res5'\]"),
        ({"shift_places": ("layer1",)}, r"shift_places is \['layer1'\]; choose from"),
        ({"block": "middle"}, "block is 'middle'.*'compact', 'headtail', 'pointwise'"),
        ({"shift_every": 0}, "shift_every is 0"),
        ({"num_frames": 17}, "layer1.1.conv2 has 16 input channels, fewer than num_frames = 17"),
        ({"num_frames": 65, "block": "headtail"}, r"headtail block at layer1\.1\.conv1 has 64 "),
        ({"shift_div": 17}, "layer1.0.conv1 has 16 input channels, fewer than shift_div = 17"),
    ],
)  # fmt: skip
def test_insert_temporal_refuses(settings: dict, message: str) -> None:
    backbone = features()
    before = kinds(backbone)
    with pytest.raises(ConfigError, match=message):
        insert_temporal(backbone, **{"num_frames": 4, **settings})
    assert kinds(backbone) == before


@pytest.mark.parametrize("block", ["compact", "headtail"])
def test_inserting_twice_is_refused(block: Block) -> None:
    backbone = insert_temporal(features(), num_frames=4, block=block)
    before = kinds(backbone)
    with pytest.raises(ConfigError, match=r"is a Shuffle"):
        insert_temporal(backbone, num_frames=4, block=block)
    assert kinds(backbone) == before


def test_a_dense_layer_has_no_tail_for_headtail() -> None:
    with torch.device("meta"):
        backbone = tv.densenet121()
    message = r"denselayer6\.conv1 ends in a Conv2d, not a plain batch normalization"
    with pytest.raises(ConfigError, match=message):
        insert_temporal(backbone, num_frames=8, block="headtail")


@pytest.mark.parametrize(("inputs", "outputs"), [(7, 9), (9, 7)])
def test_headtail_needs_a_channel_group_a_frame_at_both_ends(inputs: int, outputs: int) -> None:
    model = nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs))
    with pytest.raises(ConfigError, match=r"headtail block at 0 has 7 .*num_frames = 8"):
        insert_at(model, num_frames=8, placement=Placement(headtail=(("0", "1"),)))


def test_a_subclass_of_a_convolution_is_refused() -> None:
    class Standardised(nn.Conv2d):
        pass

    with pytest.raises(ConfigError, match="0 is a Standardised; only a plain Conv2d"):
        insert_at(nn.Sequential(Standardised(8, 8, 3)), num_frames=4, shuffle=["0"])


def test_blocks_of_a_subclass_count_and_foreign_blocks_are_refused() -> None:
    class WideBottleneck(tv.resnet.Bottleneck):
        pass

    network = tv.resnet50()
    network.layer2[3].__class__ = WideBottleneck
    assert [block.name for block in residual_blocks(network)["res3"]] == [f"layer2.{i}" for i in range(4)]
    network.layer2[3] = nn.Identity()
    # Without it another block would pass for the last one of its stage, the one that shuffles.
    with pytest.raises(ConfigError, match=r"layer2\.3.*Identity"):
        residual_blocks(network)


def test_an_unknown_architecture_is_told_to_name_its_modules() -> None:
    with pytest.raises(ConfigError, match=r"OwnCnn.*insert_at\(model"):
        insert_temporal(OwnCnn(), num_frames=4)
