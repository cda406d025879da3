"""Non-local blocks against their equations."""

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.peers import make
from vsn.models.peers.i3d import i3d_body
from vsn.models.peers.non_local import Attention, NonLocal3d

THIN = "resnet26_thin"


def started(block: NonLocal3d) -> NonLocal3d:
    """With weights large enough that the block is not the identity."""
    torch.manual_seed(0)
    for parameter in block.parameters():
        nn.init.uniform_(parameter, -1, 1)
    return block.eval()


def by_loops(block: NonLocal3d, volume: Tensor) -> Tensor:
    """Equations (1), (4), (5) and (6), place by place."""
    theta = block.theta(volume)[0]
    if block.attention.pool == "before":
        pooled = nn.functional.max_pool3d(volume, (1, 2, 2))
        phi, g = block.phi(pooled)[0], block.g(pooled)[0]
    else:
        phi, g = (nn.functional.max_pool3d(conv(volume)[0], (1, 2, 2)) for conv in (block.phi, block.g))
    theta, phi, g = (part.flatten(1).T for part in (theta, phi, g))
    rows = []
    for one in theta:
        weights = torch.stack([one @ other for other in phi])
        if block.attention.scale:
            weights = weights / len(one) ** 0.5
        shares = weights.exp() / weights.exp().sum()
        weights = shares if block.attention.pairwise == "embedded-gaussian" else weights / len(phi)
        rows.append(sum(weight * value for weight, value in zip(weights, g, strict=True)))
    seen = torch.stack(rows).T.unflatten(1, volume.shape[2:])
    return volume + block.bn(block.out(seen[None]))


ATTENTIONS = [
    Attention(),
    Attention(scale=True),
    Attention(pool="after"),
    Attention("dot-product"),
    Attention("dot-product", pool="after"),
]


@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
@torch.no_grad()
def test_a_block_is_its_equations(attention: Attention) -> None:
    block = started(NonLocal3d(6, attention=attention))
    volume = torch.rand(1, 6, 3, 4, 5)
    torch.testing.assert_close(block(volume), by_loops(block, volume))


@pytest.mark.parametrize("attention", ATTENTIONS, ids=str)
def test_a_new_block_is_the_identity(attention: Attention) -> None:
    volume = torch.rand(2, 8, 2, 3, 3)
    assert torch.equal(NonLocal3d(8, attention=attention)(volume), volume)


def test_every_position_attends_to_all_frames_and_windows() -> None:
    block = started(NonLocal3d(4))
    volume = torch.rand(1, 4, 3, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(volume)[0, :, 0, 0, 0].sum(), volume)
    # Max pooling passes a gradient to at least one position of each 1x2x2 window.
    reached = gradient[0].abs().sum(dim=0)
    assert (nn.functional.max_pool3d(reached[None], (1, 2, 2)) > 0).all()


def test_places_of_one_pixel_are_not_pooled_away() -> None:
    assert started(NonLocal3d(4))(torch.rand(1, 4, 2, 1, 1)).shape == (1, 4, 2, 1, 1)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("resnet50", ["layer2.1", "layer2.3", "layer3.1", "layer3.3", "layer3.5"]),
        ("resnet101", ["layer2.1", "layer2.3", "layer3.6", "layer3.13", "layer3.20"]),
    ],
)
def test_five_blocks_stand_in_res3_and_res4(name: str, blocks: list[str]) -> None:
    with torch.device("meta"):
        body, plain = i3d_body("nl-i3d", name), i3d_body("i3d", name)
    places = [n for n, module in body.named_modules() if isinstance(module, NonLocal3d)]
    assert places == [f"{block}.non_local" for block in blocks]
    assert {n for n in body.state_dict() if "non_local" not in n} == set(plain.state_dict())


@torch.no_grad()
def test_a_network_with_new_blocks_computes_what_it_did_without() -> None:
    plain = i3d_body("i3d", THIN).eval()
    body = i3d_body("nl-i3d", THIN).eval()
    missing = body.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all("non_local" in name for name in missing)
    volume = torch.rand(1, 3, 8, 32, 32)
    assert torch.equal(body(volume), plain(volume))


def test_the_settings_are_handed_down() -> None:
    settings = {"pairwise": "dot-product", "non_local_pool": "after", "non_local_scale": True}
    for kind in ("nl-c2d", "nl-slowfast"):
        model = make(f"{kind}_{THIN}", num_frames=8, **settings)
        found = {m.attention for m in model.modules() if isinstance(m, NonLocal3d)}
        assert found == {Attention("dot-product", pool="after", scale=True)}
