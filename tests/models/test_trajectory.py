"""TrajectoryNet: a temporal convolution along paths, and what it is along straight ones."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError, ModelConfig
from vsn.models import VideoClassifier, create_model
from vsn.models.blocks import stage_blocks
from vsn.models.gradcam import grad_cam
from vsn.models.peers.trajectory import TrajectoryConv3d, halve_paths, skip_every_other

THIN = "trajectory_resnet18_thin"
STILL = 128


def random_volume(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolution(channels: int = 3) -> TrajectoryConv3d:
    torch.manual_seed(0)
    return TrajectoryConv3d(channels).double()


def paths_like(volume: Tensor, ahead: tuple[float, float], back: tuple[float, float]) -> Tensor:
    values = torch.tensor([*ahead, *back], dtype=volume.dtype).view(1, 4, 1, 1, 1)
    return values.expand(volume.shape[0], 4, *volume.shape[2:])


def test_along_straight_paths_it_is_the_3x1x1_convolution() -> None:
    conv, volume = convolution(), random_volume(2, 3, 5, 6, 7)
    straight = torch.nn.functional.conv3d(volume, conv.weight, conv.bias, padding=(1, 0, 0))
    torch.testing.assert_close(conv(volume, paths_like(volume, (0, 0), (0, 0))), straight)


def test_along_whole_pixels_it_takes_the_values_of_those_pixels() -> None:
    conv, volume = convolution(), random_volume(1, 3, 4, 6, 7)
    # Every point of every step has paths of its own, some of them out of the frame.
    paths = (2 * random_volume(1, 4, 4, 6, 7, seed=1)).round()
    output = conv(volume, paths)
    for t in range(4):
        expected = conv.bias.view(3, 1, 1).expand(3, 6, 7).clone()
        for y in range(6):
            for x in range(7):
                ahead, back = paths[0, :2, t, y, x].int().tolist(), paths[0, 2:, t, y, x].int().tolist()
                for tap, (tau, (right, down)) in enumerate([(-1, back), (0, (0, 0)), (1, ahead)]):
                    if 0 <= t + tau < 4 and 0 <= y + down < 6 and 0 <= x + right < 7:
                        expected[:, y, x] += conv.weight[:, :, tap, 0, 0] @ volume[0, :, t + tau, y + down, x + right]
        torch.testing.assert_close(output[0, :, t], expected)


def test_a_moving_pattern_gives_at_its_place_what_the_still_one_gives() -> None:
    conv, pattern = convolution(), random_volume(1, 3, 1, 5, 5)
    still, moving = torch.zeros(1, 3, 4, 5, 24).double(), torch.zeros(1, 3, 4, 5, 24).double()
    for t in range(4):
        still[:, :, t, :, 3:8], moving[:, :, t, :, 3 + 4 * t : 8 + 4 * t] = pattern[:, :, 0], pattern[:, :, 0]
    expected = conv(still, paths_like(still, (0, 0), (0, 0)))
    output = conv(moving, paths_like(moving, (4, 0), (-4, 0)))
    straight = conv(moving, paths_like(moving, (0, 0), (0, 0)))
    for t in range(4):
        place = slice(3 + 4 * t, 8 + 4 * t)
        torch.testing.assert_close(output[:, :, t, :, place], expected[:, :, t, :, 3:8])
    assert not torch.allclose(straight[:, :, 1, :, 7:12], expected[:, :, 1, :, 3:8])


def test_gradients_are_those_of_finite_differences() -> None:
    conv, volume = convolution(2), random_volume(1, 2, 3, 4, 4).requires_grad_()
    # Away from whole pixels, where bilinear interpolation has a kink.
    paths = (0.3 + 0.2 * random_volume(1, 4, 3, 4, 4, seed=1).tanh()).requires_grad_()
    assert torch.autograd.gradcheck(conv, (volume, paths))


@pytest.mark.parametrize("num_steps", [5, 6])
def test_where_steps_are_skipped_paths_go_on_from_where_they_end(num_steps: int) -> None:
    # Every step moves by its own number of pixels, ahead t + 1 and back t, so that sums tell which were chained.
    steps = torch.arange(num_steps, dtype=torch.float64).view(1, 1, -1, 1, 1).expand(1, 1, -1, 3, 40)
    paths = torch.cat([steps + 1, torch.zeros_like(steps), -steps, torch.zeros_like(steps)], dim=1)
    skipped = skip_every_other(paths)
    assert skipped.shape == (1, 4, 3, 3, 40)
    ahead, back = skipped[0, 0, :, 1, 20].tolist(), skipped[0, 2, :, 1, 20].tolist()
    assert ahead[:2] == [1 + 2, 3 + 4]
    assert back[1:] == [-(2 + 1), -(4 + 3)]


def test_the_second_path_is_read_at_the_end_of_the_first() -> None:
    paths = torch.zeros(1, 4, 3, 1, 8, dtype=torch.float64)
    paths[0, 0, 0], paths[0, 0, 1, 0, 5] = 2.0, 3.0  # at step 1, only what is at 5 moves on
    assert skip_every_other(paths)[0, 0, 0, 0].tolist() == [2, 2, 2, 5, 2, 2, 2, 2]


def test_paths_shrink_with_the_map() -> None:
    paths = torch.full((1, 4, 2, 5, 8), 8.0)
    assert torch.equal(halve_paths(paths), torch.full((1, 4, 2, 3, 4), 4.0))
    # At every other pixel, where a convolution of stride 2 looks.
    ramp = torch.arange(9.0).expand(1, 4, 2, 5, 9)
    assert halve_paths(ramp)[0, 0, 0, 1, 1:-1].tolist() == [1, 2, 3]


# The network


def still_clip(num_frames: int = 8, *, size: int = 40) -> Tensor:
    clip = make_clip(num_frames, size=size, channels=7)
    clip[:, :, 3:] = STILL
    return clip


def test_without_motion_it_is_the_separable_network() -> None:
    model, plain = make(THIN), make("separable_resnet18_thin")
    plain.load_state_dict(model.state_dict())
    clip = still_clip()
    with torch.inference_mode():
        torch.testing.assert_close(model(clip), plain(clip[:, :, :3]), rtol=1e-5, atol=1e-6)
        moving = clip.clone()
        moving[:, :, 3] = 200
        assert not torch.allclose(model(moving), model(clip), rtol=1e-3)


def test_bytes_of_paths_are_pixels_of_the_bound() -> None:
    model = make(THIN, path_bound=51.0)
    clip = still_clip()
    clip[:, :, 3], clip[:, :, 5] = 255, 1
    normalized = model.normalized(clip)
    torch.testing.assert_close(normalized[0, :, 3:, 0, 0], torch.tensor([50.8, 0.0, -50.8, 0.0]).expand(8, 4))
    # No motion is exactly 0, in bytes and in floats.
    assert not model.normalized(still_clip())[:, :, 3:].any()
    assert not make(THIN, modality="rgb").normalized(still_clip().float() / 255)[:, :, 3:].abs().max() > 1e-5


def gradients(model: VideoClassifier, clip: Tensor) -> list[str]:
    model(clip).logsumexp(dim=1).sum().backward()
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("size", [(8, 8), (33, 47), (64, 64)])
def test_it_takes_clips_of_any_size_and_learns(size: tuple[int, int]) -> None:
    model = make(THIN, num_frames=5)
    clip = torch.randint(0, 256, (1, 5, 7, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert model(clip).shape == (1, 5)
    assert gradients(model, clip) == []
    assert stage_blocks(model.backbone)["res5"] == ["layer4.0", "layer4.1"]
    assert grad_cam(model, clip).maps.shape[:2] == (1, 5)
    half = model.half()(clip)
    assert half.isfinite().all()


def test_what_it_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_frames is 4"):
        make(THIN, num_frames=4)
    with pytest.raises(ConfigError, match="modality is 'flow'"):
        make(THIN, modality="flow")
    with pytest.raises(ValueError, match=r"\(B, T, 7, H, W\)"):
        make(THIN)(make_clip())
    with pytest.raises(ConfigError, match="path_bound"):
        ModelConfig(name=THIN, path_bound=0.0)


def test_costs_are_those_of_a_separable_resnet18() -> None:
    # By hand: 3x3 and 3x1 convolutions, the latter with a bias, batch normalization after each, projections, the head.
    pairs = sum(9 * a * b + 3 * b * b + b + 4 * b for a, b in [(64, 64)] * 4 + [(64, 128), (128, 256), (256, 512)])
    pairs += sum(3 * (12 * b * b + 5 * b) for b in (128, 256, 512))
    projections = sum(a * b + 2 * b for a, b in [(64, 128), (128, 256), (256, 512)])
    by_hand = 3 * 49 * 64 + 2 * 64 + pairs + projections + 513 * 174
    for name in ("trajectory_resnet18", "separable_resnet18"):
        assert num_parameters(name, num_classes=174, num_frames=16) == by_hand
        assert giga_multiply_adds(name, num_classes=174, num_frames=16, size=224) == pytest.approx(13.6, rel=0.01)
    assert by_hand == pytest.approx(15.46e6, rel=1e-3)


def test_image_weights_fill_the_2d_part(tmp_path: Path) -> None:
    torch.manual_seed(0)
    flat = resnet18().state_dict()
    torch.save(flat, tmp_path / "image.pt")
    model = create_model("trajectory_resnet18", num_classes=3, weights=str(tmp_path / "image.pt"))
    weights = model.backbone.state_dict()
    assert {name for name in weights if name not in flat} == {name for name in weights if "_t." in name}
    for name, weight in flat.items():
        if not name.startswith("fc."):
            own = weights[name]
            assert torch.equal(own.squeeze(2) if own.ndim == 5 else own, weight)
