import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from vsn.config import AugmentConfig, ConfigError
from vsn.data.transforms import augment_clip, mix_clips

EVERYTHING = AugmentConfig(color_jitter=0.4, rand_augment=2, random_erasing=1.0)


def clip_of(seed: int = 0, num_frames: int = 4) -> torch.Tensor:
    """The same picture in every frame, so that what differs between frames shows."""
    picture = torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return picture.expand(num_frames, -1, -1, -1).clone()


@pytest.mark.parametrize(
    "config",
    [
        AugmentConfig(color_jitter=0.4),
        AugmentConfig(rand_augment=2),
        AugmentConfig(random_erasing=1.0),
        EVERYTHING,
    ],
)
def test_one_draw_for_the_whole_clip(config: AugmentConfig) -> None:
    clip = clip_of()
    results = [augment_clip(clip, config, np.random.default_rng(seed)) for seed in range(6)]
    for result in results:
        assert result.dtype == torch.uint8
        assert result.shape == clip.shape
        assert all(torch.equal(frame, result[0]) for frame in result)
    assert any(not torch.equal(result, clip) for result in results)
    assert len({result.numpy().tobytes() for result in results}) > 1
    assert torch.equal(clip, clip_of())  # the input is not modified


def test_augmentation_depends_on_its_generator_alone() -> None:
    torch.manual_seed(0)
    first = augment_clip(clip_of(), EVERYTHING, np.random.default_rng(3))
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))  # torch's own generator went on as if nothing had happened
    assert torch.equal(first, augment_clip(clip_of(), EVERYTHING, np.random.default_rng(3)))


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_colors_are_jittered_by_the_share_and_hues_by_a_quarter_of_it(share: float) -> None:
    seed = int(np.random.default_rng(5).integers(2**63))
    found = augment_clip(clip_of(), AugmentConfig(color_jitter=share), np.random.default_rng(5))
    torch.manual_seed(seed)
    assert torch.equal(found, v2.ColorJitter(share, share, share, share / 4)(clip_of()))


def test_operations_are_as_many_and_as_strong_as_asked() -> None:
    def torchvision(seed: int, num: int, magnitude: int) -> torch.Tensor:
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**63)))
        return v2.RandAugment(num, magnitude)(clip_of())

    config = AugmentConfig(rand_augment=3, rand_augment_magnitude=25)
    found = [augment_clip(clip_of(), config, np.random.default_rng(seed)) for seed in range(6)]
    assert all(torch.equal(one, torchvision(seed, 3, 25)) for seed, one in enumerate(found))
    assert not all(torch.equal(one, torchvision(seed, 3, 9)) for seed, one in enumerate(found))


@pytest.mark.parametrize("blank", [0, 128])
def test_a_clip_that_is_always_erased_is_erased_every_time(blank: int) -> None:
    clip, config = clip_of() | 1, AugmentConfig(random_erasing=1.0)  # no black in it, and no 128
    for seed in range(12):
        erased = augment_clip(clip, config, np.random.default_rng(seed), blank=blank)
        changed = erased != clip
        assert changed.any()
        assert erased[changed].unique().tolist() == [blank]


def test_what_is_erased_is_black_without_a_word() -> None:
    clip = clip_of() | 1
    erased = augment_clip(clip, AugmentConfig(random_erasing=1.0), np.random.default_rng(0))
    assert erased[erased != clip].unique().tolist() == [0]


def test_nothing_to_augment() -> None:
    clip = clip_of()
    assert augment_clip(clip, AugmentConfig(), np.random.default_rng(0)) is clip


@pytest.mark.parametrize(
    "config", [AugmentConfig(mixup=0.4), AugmentConfig(cutmix=1.0), AugmentConfig(mixup=1, cutmix=1)]
)
@pytest.mark.parametrize("multi_label", [False, True])
def test_mixed_targets_follow_the_pixels(config: AugmentConfig, multi_label: bool) -> None:
    clips = torch.stack([torch.full((2, 3, 16, 16), 255 * i, dtype=torch.uint8) for i in (0, 1)])
    targets = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]) if multi_label else torch.tensor([2, 0])
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        mixed, wanted = mix_clips(clips, targets, 3, config)
        assert type(mixed) is torch.Tensor
        assert mixed.shape == clips.shape
        # Clip 0 is black and of class 2: its brightness is the share it has of clip 1, of class 0.
        share = float(mixed[0].mean())
        assert wanted[0].tolist() == pytest.approx([share, 0.0, 1 - share], abs=1e-5)
        assert torch.equal(mixed[0][0], mixed[0][1])
        seen.add(round(share, 3))
    assert len(seen) > 2


def test_clips_that_are_floats_are_mixed_as_they_are() -> None:
    clips = torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1])
    torch.manual_seed(0)
    mixed, wanted = mix_clips(clips, targets, 2, AugmentConfig(mixup=1.0))
    share = float(wanted[0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(mixed[0], share * clips[0] + (1 - share) * clips[1])


@pytest.mark.parametrize(
    ("config", "mixer"),
    [(AugmentConfig(mixup=0.3), v2.MixUp), (AugmentConfig(cutmix=0.3), v2.CutMix)],
    ids=["mixup", "cutmix"],
)
def test_shares_are_drawn_with_the_alpha_asked_for(config: AugmentConfig, mixer: type[v2.MixUp]) -> None:
    clips, targets = torch.rand(4, 2, 3, 16, 16), torch.tensor([0, 1, 1, 0])
    for seed in range(4):
        torch.manual_seed(seed)
        _, wanted = mix_clips(clips, targets, 2, config)
        torch.manual_seed(seed)
        torch.randint(1, (1,))  # which of the mixers
        assert torch.equal(wanted, mixer(alpha=0.3, num_classes=2)(tv_tensors.Video(clips), targets)[1])


def test_nothing_to_mix() -> None:
    clips, targets = torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    assert mix_clips(clips, targets, 2, AugmentConfig()) == (clips, targets)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"color_jitter": 1.5}, "augment.color_jitter is 1.5"),
        ({"random_erasing": -1.0}, "augment.random_erasing is -1.0"),
        ({"mixup": -0.1}, "augment.mixup is -0.1"),
        ({"cutmix": -0.1}, "augment.cutmix is -0.1"),
        ({"rand_augment": -1}, "augment.rand_augment is -1"),
        ({"rand_augment_magnitude": 31}, "augment.rand_augment_magnitude is 31"),
    ],
)
def test_refused_settings(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        AugmentConfig(**settings)
