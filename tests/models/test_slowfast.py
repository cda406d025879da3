"""SlowFast: which frames each pathway sees, how they meet, what it costs."""

import pytest
import torch
from torch import nn

from vsn.config import ConfigError, ModelConfig
from vsn.models import build_model, create_model
from vsn.models.blocks import stage_blocks
from vsn.models.gradcam import grad_cam
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.models.peers.non_local import Attention, NonLocal3d
from vsn.models.peers.slowfast import Lateral, slowfast_body

THIN = "resnet26_thin"
STAGES = ("layer1", "layer2", "layer3", "layer4")


def shapes_in(module: nn.Module, names: tuple[str, ...], volume: torch.Tensor) -> dict[str, tuple[int, ...]]:
    """(C, T, H, W) that reach modules."""
    seen: dict[str, tuple[int, ...]] = {}
    for name in names:
        module.get_submodule(name).register_forward_pre_hook(
            lambda part, inputs, name=name: seen.__setitem__(name, tuple(inputs[0].shape[1:]))
        )
    module(volume)
    return seen


@pytest.mark.parametrize(("alpha", "slow"), [(8, 4), (4, 8)])
def test_the_sizes_of_table_1(alpha: int, slow: int) -> None:
    with torch.device("meta"):
        body = slowfast_body("resnet50", alpha=alpha).eval()
        volume = torch.empty(1, 3, 32, 224, 224)
    names = tuple(f"{path}.{stage}" for path in ("slow", "fast") for stage in STAGES)
    seen = shapes_in(body, names, volume)
    # The fast pathway's 8, 32, 64 and 128 channels come to the slow one's twofold.
    channels, sizes = (64 + 16, 256 + 64, 512 + 128, 1024 + 256), (56, 56, 28, 14)
    assert [seen[f"slow.{stage}"] for stage in STAGES] == [
        (c, slow, s, s) for c, s in zip(channels, sizes, strict=True)
    ]
    assert [seen[f"fast.{stage}"] for stage in STAGES] == [
        (c, 32, s, s) for c, s in zip((8, 32, 64, 128), sizes, strict=True)
    ]
    assert body(volume).shape == (1, 2048 + 256, 1, 1, 1)


def test_the_slow_pathway_takes_every_alphath_frame_from_the_first_on() -> None:
    body = slowfast_body(THIN, alpha=4)
    seen = []
    body.slow.conv1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0, 0, :, 0, 0]))
    frames = torch.arange(12.0)
    body(frames[None, None, :, None, None].expand(1, 3, -1, 32, 32))
    assert seen[0].tolist() == [0, 4, 8]


@torch.no_grad()
def test_a_lateral_convolution_sees_five_frames_around_each_slow_one() -> None:
    torch.manual_seed(0)
    lateral = Lateral(2, alpha=4).eval()
    fast = torch.rand(1, 2, 12, 1, 1)
    weight, padded = lateral.conv.weight[:, :, :, 0, 0], nn.functional.pad(fast[0, :, :, 0, 0], (2, 2))
    slow = [(weight * padded[:, 4 * i : 4 * i + 5]).sum(dim=(1, 2)) for i in range(3)]
    expected = nn.functional.relu(torch.stack(slow, dim=1) / (1 + lateral.bn.eps) ** 0.5)
    torch.testing.assert_close(lateral(fast)[0, :, :, 0, 0], expected)


def test_only_the_last_two_stages_of_the_slow_pathway_see_time() -> None:
    with torch.device("meta"):
        body = slowfast_body("resnet101", alpha=8)

    def long(path: str) -> dict[str, list[int]]:
        """Numbers of the blocks whose first convolution sees three frames."""
        stages = {stage: body.get_submodule(f"{path}.{stage}") for stage in STAGES}
        return {
            stage: [i for i, block in enumerate(blocks) if block.conv1.kernel_size[0] == 3]
            for stage, blocks in stages.items()
        }

    assert long("slow") == {"layer1": [], "layer2": [], "layer3": [*range(6)], "layer4": [0, 1, 2]}
    assert long("fast") == {
        "layer1": [0, 1, 2],
        "layer2": [0, 1, 2, 3],
        "layer3": [*range(6)],
        "layer4": [0, 1, 2],
    }
    assert body.slow.conv1.kernel_size == (1, 7, 7)
    assert body.fast.conv1.kernel_size == (5, 7, 7)


@pytest.mark.parametrize(
    ("name", "num_frames", "alpha", "published"),
    [
        ("slowfast_resnet50", 32, 8, 36.1e9),
        ("slowfast_resnet50", 32, 4, 65.7e9),
        ("slowfast_resnet101", 32, 4, 106e9),
        ("slowfast_resnet101", 64, 4, 213e9),
    ],
)
def test_multiply_adds_are_the_published(name: str, num_frames: int, alpha: int, published: float) -> None:
    config = ModelConfig(name=name, num_classes=400, num_frames=num_frames, alpha=alpha)
    assert count_multiply_adds(config, size=256) == pytest.approx(published, rel=0.01)


def resnet50(width: int, extra: int, *, stem: int, long: tuple[bool, ...]) -> int:
    """Parameters of a pathway: `extra` times the stem's width comes on top of each stage's inputs, 4 times as much later."""
    total = 3 * width * 7 * 7 * stem + 2 * width
    for stage, (depth, inputs) in enumerate(zip((3, 4, 6, 3), (1, 4, 8, 16), strict=True)):
        planes, first = width << stage, inputs * (width + extra)
        frames = 3 if long[stage] else 1
        total += first * 4 * planes + 2 * 4 * planes  # the shortcut
        for block in range(depth):
            reaches = first if block == 0 else 4 * planes
            total += reaches * planes * frames + planes * planes * 9 + planes * 4 * planes
            total += 2 * (planes + planes + 4 * planes)
    return total


def test_parameters_are_those_counted_by_hand() -> None:
    slow = resnet50(64, 16, stem=1, long=(False, False, True, True))
    fast = resnet50(8, 0, stem=5, long=(True, True, True, True))
    lateral = sum(5 * c * 2 * c + 2 * 2 * c for c in (8, 32, 64, 128))
    with torch.device("meta"):
        model = build_model(ModelConfig(name="slowfast_resnet50", num_classes=400, num_frames=32))
    assert count_parameters(model) == slow + fast + lateral + (2048 + 256) * 400 + 400 == 34_480_216


@pytest.mark.parametrize(("name", "blocks"), [("resnet50", (1, 3, 5)), ("resnet101", (6, 13, 20)), (THIN, (1,))])
def test_non_local_blocks_stand_in_res4_of_the_slow_pathway(name: str, blocks: tuple[int, ...]) -> None:
    with torch.device("meta"):
        body = slowfast_body(name, alpha=8, non_local=True, attention=Attention("dot-product"))
    found = {n: m.attention.pairwise for n, m in body.named_modules() if isinstance(m, NonLocal3d)}
    assert found == {f"slow.layer3.{i}.non_local": "dot-product" for i in blocks}


@pytest.mark.parametrize("kind", ["slowfast", "nl-slowfast"])
def test_a_model_gives_scores_and_learns_in_both_pathways(kind: str) -> None:
    model = create_model(f"{kind}_{THIN}", num_classes=5, num_frames=8, alpha=4)
    nn.init.normal_(model.head.weight)
    model(torch.randint(0, 256, (2, 8, 3, 32, 32), dtype=torch.uint8)).square().sum().backward()
    for part in ("slow.conv1", "fast.conv1", "lateral.0.conv", "lateral.3.conv"):
        assert model.backbone.get_submodule(part).weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 12, "alpha": 8}, "num_frames is 12.*alpha.*8"),
        ({"num_frames": 8, "alpha": 0}, "model.alpha is 0"),
        ({"num_frames": 8, "modality": "flow"}, "model.modality is 'flow'.*'rgb'"),
        ({"num_frames": 8, "pairwise": "gaussian"}, "model.pairwise is 'gaussian'.*'dot-product'"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_model(ModelConfig(name=f"slowfast_{THIN}", num_classes=2, **settings))


def test_blocks_of_both_pathways_are_known_and_the_slow_ones_are_looked_through() -> None:
    model = create_model(f"slowfast_{THIN}", num_classes=5, num_frames=8, alpha=4).eval()
    nn.init.normal_(model.head.weight)
    assert stage_blocks(model.backbone)["res3"] == [
        "fast.layer2.0", "fast.layer2.1", "slow.layer2.0", "slow.layer2.1",
    ]  # fmt: skip
    clip = torch.randint(0, 256, (1, 8, 3, 64, 64), dtype=torch.uint8)
    maps = grad_cam(model, clip, stage="res3").maps
    assert maps.shape == (1, 8, 8, 8)
    assert torch.equal(maps[0, 0], maps[0, 3])  # of one slow frame


def test_a_volume_that_alpha_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"alpha=4 .*T=6"):
        slowfast_body(THIN, alpha=4)(torch.zeros(1, 3, 6, 32, 32))
