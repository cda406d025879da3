"""The export forms of temporal layers equal the operations of `vsn.ops`."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from vsn.export.form import ExportForm, shift_by_slices, shuffle_by_transpose
from vsn.models import VideoClassifier, create_model
from vsn.ops import temporal_shift, video_shuffle


@st.composite
def frames_and_t(draw: st.DrawFn, *, channels_from: int = 1) -> tuple[Tensor, int]:
    """1 to 3 clips of 2 to 9 frames, with all values different, so that every permutation shows."""
    num_frames = draw(st.integers(2, 9))
    channels = draw(st.integers(max(num_frames, channels_from), 21))
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shape = (draw(st.integers(1, 3)) * num_frames, channels, height, width)
    return torch.arange(1.0, 1 + torch.Size(shape).numel()).view(shape), num_frames


@given(frames_and_t())
def test_the_shuffle_is_that_of_ops(case: tuple[Tensor, int]) -> None:
    frames, num_frames = case
    assert torch.equal(shuffle_by_transpose(frames, num_frames), video_shuffle(frames, num_frames))


@given(case=frames_and_t(channels_from=8), shift_div=st.integers(2, 8))
def test_the_shift_is_that_of_ops(case: tuple[Tensor, int], shift_div: int) -> None:
    frames, num_frames = case
    expected = temporal_shift(frames, num_frames, shift_div)
    assert torch.equal(shift_by_slices(frames, num_frames, shift_div), expected)


def make(name: str = "vsn_resnet14_tiny", **settings) -> tuple[VideoClassifier, Tensor]:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, num_frames=4, **settings).eval()
    nn.init.normal_(model.head.weight)
    return model, torch.randint(0, 256, (2, 4, model.num_channels, 32, 32), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tsn_resnet14_tiny", {}),
        ("tsm_resnet14_tiny", {"shift_div": 4}),
        ("vsn_resnet26_thin", {}),
        ("vsn_resnet26_thin", {"block": "headtail"}),
        ("vsn_resnet14_tiny", {"modality": "flow", "flow_length": 2}),
        ("vsn_resnet14_tiny", {"modality": "rgbdiff", "flow_length": 2}),
    ],
)
def test_a_model_in_export_form_gives_the_models_logits(name: str, settings: dict) -> None:
    model, clip = make(name, **settings)
    expected = model(clip)
    torch.testing.assert_close(ExportForm(model)(clip), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ExportForm(model, uint8=False)(clip / 255), expected, rtol=1e-4, atol=1e-4)


def test_the_model_itself_stays_as_it_is() -> None:
    model, clip = make()
    model.train()
    before = copy.deepcopy(model.state_dict())
    ExportForm(model)
    assert model.training
    assert {type(m).__name__ for m in model.modules()} >= {"ShuffleConv2d"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.std.max() < 1
    torch.testing.assert_close(model.eval()(clip), make()[0](clip))
