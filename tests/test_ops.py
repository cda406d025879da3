"""The operations against loop-written references, their gradients, memory and graph behavior."""

import doctest
import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import vsn.ops
from vsn.models.layers import ShiftConv2d
from vsn.ops import sample_along, shifted_in_place, temporal_shift, video_shuffle, worth_shifting_in_place

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8)
FORMATS = (torch.contiguous_format, torch.channels_last)


def shuffle_reference(frames: Tensor, num_frames: int) -> Tensor:
    """Equation 1, element by element: out[i, t*eta + r] = in[t, i*eta + r]."""
    out = frames.clone()
    eta = frames.shape[1] // num_frames
    for first in range(0, len(frames), num_frames):
        for i in range(num_frames):
            for t in range(num_frames):
                for r in range(eta):
                    out[first + i, t * eta + r] = frames[first + t, i * eta + r]
    return out


def shift_reference(frames: Tensor, num_frames: int, shift_div: int) -> Tensor:
    """TSM's residual shift, channel by channel."""
    out = frames.clone()
    fold = frames.shape[1] // shift_div
    for first in range(0, len(frames), num_frames):
        for t in range(num_frames):
            for c in range(2 * fold):
                source = t + 1 if c < fold else t - 1
                inside = 0 <= source < num_frames
                out[first + t, c] = frames[first + source, c] if inside else 0
    return out


def make_frames(
    num_frames: int,
    channels: int,
    *,
    batch: int = 2,
    size: tuple[int, int] = (3, 2),
    dtype: torch.dtype = torch.float32,
    layout: torch.memory_format = torch.contiguous_format,
    seed: int = 0,
) -> Tensor:
    values = np.random.default_rng(seed).integers(1, 200, (batch * num_frames, channels, *size))
    return torch.from_numpy(values).to(dtype).contiguous(memory_format=layout)


@st.composite
def frames_and_t(draw: st.DrawFn, *, channels_from: int = 1) -> tuple[Tensor, int]:
    num_frames = draw(st.integers(1, 9))
    frames = make_frames(
        num_frames,
        draw(st.integers(max(num_frames, channels_from), 21)),
        batch=draw(st.integers(1, 3)),
        size=(draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        dtype=draw(st.sampled_from(DTYPES)),
        layout=draw(st.sampled_from(FORMATS)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
    return frames, num_frames


def assert_same_kind(out: Tensor, frames: Tensor) -> None:
    assert out.shape == frames.shape
    assert out.dtype == frames.dtype
    for layout in FORMATS:
        if frames.is_contiguous(memory_format=layout):
            assert out.is_contiguous(memory_format=layout)


@given(frames_and_t())
def test_shuffle_is_equation_1(case: tuple[Tensor, int]) -> None:
    frames, num_frames = case
    before = frames.clone()
    out = video_shuffle(frames, num_frames)
    assert torch.equal(out, shuffle_reference(frames, num_frames))
    assert torch.equal(frames, before)
    assert_same_kind(out, frames)


@given(frames_and_t())
def test_shuffle_is_its_own_inverse(case: tuple[Tensor, int]) -> None:
    frames, num_frames = case
    assert torch.equal(video_shuffle(video_shuffle(frames, num_frames), num_frames), frames)


@given(frames_and_t(channels_from=8), st.integers(2, 8))
def test_shift_moves_two_parts_of_the_channels(case: tuple[Tensor, int], shift_div: int) -> None:
    frames, num_frames = case
    before = frames.clone()
    out = temporal_shift(frames, num_frames, shift_div)
    # With one frame nothing is shifted in: the reference would blank the channels.
    expected = frames if num_frames == 1 else shift_reference(frames, num_frames, shift_div)
    assert torch.equal(out, expected)
    assert torch.equal(frames, before)
    assert_same_kind(out, frames)


@given(frames_and_t(channels_from=8), st.integers(2, 8))
def test_within_the_context_frames_are_shifted_and_after_it_as_before(case: tuple[Tensor, int], shift_div: int) -> None:
    frames, num_frames = case
    before, expected = frames.clone(), temporal_shift(frames, num_frames, shift_div).clone()
    with suppress(KeyError), shifted_in_place(frames, num_frames, shift_div):
        assert torch.equal(frames, expected)
        raise KeyError("a layer that fails")
    assert torch.equal(frames, before)


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small frames are as large ones."""
    monkeypatch.setattr("vsn.ops._CACHED_BYTES", 0)


def shift_conv(channels: int = 16) -> ShiftConv2d:
    """A shifted 1x1 convolution of two frames that passes its input on."""
    conv = ShiftConv2d(channels, channels, 1, bias=False)
    conv.num_frames, conv.shift_div = 2, 4
    nn.init.dirac_(conv.weight)
    return conv


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layout", FORMATS)
def test_a_layer_without_gradients_gives_what_it_gives_with_them(
    mode: Callable[[], AbstractContextManager[None]], layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, frames = shift_conv(), make_frames(2, 16, layout=layout)
    expected, before = conv(frames), frames.clone()
    monkeypatch.setattr("vsn.models.layers.temporal_shift", None)  # not called
    with mode():
        assert torch.equal(conv(frames), expected)
    assert torch.equal(frames, before)


@pytest.mark.usefixtures("no_cache")
def test_a_gradient_survives_a_layer_without_gradients() -> None:
    """Autograd saves frames, and refuses those that were written to since."""
    weight, frames = torch.ones(16, requires_grad=True), make_frames(2, 16)
    product = frames * weight[:, None, None]
    with torch.no_grad():
        shift_conv()(frames)
        shift_conv()(product)
    product.sum().backward()
    assert torch.allclose(weight.grad, frames.sum((0, 2, 3)))


@pytest.mark.usefixtures("no_cache")
def test_what_cannot_be_written_to_is_copied() -> None:
    conv, one = shift_conv(), make_frames(2, 16, batch=1)[:1]
    expanded = one.expand(4, -1, -1, -1)
    with torch.inference_mode():
        made_there = make_frames(2, 16).clone()
    for frames in (expanded, made_there, make_frames(2, 32)[:, ::2]):
        before = frames.clone()
        with torch.no_grad():
            assert not worth_shifting_in_place(frames)
            assert torch.equal(conv(frames), shift_reference(frames, 2, 4))
        assert torch.equal(frames, before)
    assert not worth_shifting_in_place(make_frames(2, 16)), "where gradients are computed"


def test_only_frames_larger_than_a_cache_are_shifted_in_place() -> None:
    """A ResNet-50 has at most 26 MB in a layer for one video in float32, and 411 MB for 16."""
    with torch.no_grad():
        for videos, expected in ((1, False), (16, True)):
            frames = torch.empty(videos * 8, 56, 56, 256).permute(0, 3, 1, 2)
            assert worth_shifting_in_place(frames) is expected


def test_shuffle_of_four_frames_by_hand() -> None:
    # Frame t has channels 10*t + (0, 1, ...): eta = 2, and channel 8 stays.
    frames = (10 * torch.arange(4)[:, None] + torch.arange(9)).view(4, 9, 1, 1)
    assert video_shuffle(frames, 4).flatten(1).tolist() == [
        [0, 1, 10, 11, 20, 21, 30, 31, 8],
        [2, 3, 12, 13, 22, 23, 32, 33, 18],
        [4, 5, 14, 15, 24, 25, 34, 35, 28],
        [6, 7, 16, 17, 26, 27, 36, 37, 38],
    ]


def test_shift_of_three_frames_by_hand() -> None:
    frames = (10 * torch.arange(1, 4)[:, None] + torch.arange(5)).view(3, 5, 1, 1)
    assert temporal_shift(frames, 3, shift_div=4).flatten(1).tolist() == [
        [20, 0, 12, 13, 14],
        [30, 11, 22, 23, 24],
        [0, 21, 32, 33, 34],
    ]


def test_shift_takes_an_eighth_by_default() -> None:
    frames = make_frames(4, 16)
    assert torch.equal(temporal_shift(frames, 4), shift_reference(frames, 4, 8))


@pytest.mark.parametrize("layout", FORMATS)
def test_clips_of_one_batch_do_not_touch(layout: torch.memory_format) -> None:
    first, second = make_frames(4, 10, batch=1, seed=1), make_frames(4, 10, batch=1, seed=2)
    both = torch.cat((first, second)).contiguous(memory_format=layout)
    for operation in (video_shuffle, temporal_shift):
        parts = [operation(clip, 4) for clip in (first, second)]
        assert torch.equal(operation(both, 4), torch.cat(parts))


def test_one_frame_returns_the_input_itself() -> None:
    frames = make_frames(1, 8)
    assert video_shuffle(frames, 1) is frames
    assert temporal_shift(frames, 1) is frames


def test_an_empty_batch_stays_empty() -> None:
    frames = torch.empty(0, 8, 2, 2)
    assert video_shuffle(frames, 4).shape == (0, 8, 2, 2)
    assert temporal_shift(frames, 4).shape == (0, 8, 2, 2)


def test_a_view_of_strange_strides_is_taken() -> None:
    frames = make_frames(4, 20, size=(4, 6))[:, ::2, :, ::3]
    assert torch.equal(video_shuffle(frames, 4), shuffle_reference(frames, 4))
    assert torch.equal(temporal_shift(frames, 4, 3), shift_reference(frames, 4, 3))


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("channels", [6, 8])
def test_gradients_agree_with_finite_differences(channels: int, layout: torch.memory_format) -> None:
    frames = make_frames(3, channels, dtype=torch.float64, layout=layout).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: video_shuffle(x, 3), frames)
    assert torch.autograd.gradcheck(lambda x: temporal_shift(x, 3, 4), frames)


@pytest.mark.parametrize("channels", [8, 11])
def test_gradient_of_a_shuffle_is_the_shuffled_gradient(channels: int) -> None:
    frames, upstream = make_frames(4, channels).requires_grad_(), make_frames(4, channels, seed=1)
    video_shuffle(frames, 4).backward(upstream)
    assert frames.grad is not None
    assert torch.equal(frames.grad, video_shuffle(upstream, 4))


class Allocations(TorchDispatchMode):
    """Notes the bytes of every tensor an operation makes that is no view of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            flat = [item for arg in args for item in (arg if isinstance(arg, list | tuple) else [arg])]
            held = {item.untyped_storage().data_ptr() for item in flat if isinstance(item, Tensor)}
            if out.untyped_storage().data_ptr() not in held:
                self.num_bytes.append(out.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(("num_frames", "channels"), [(8, 64), (8, 67), (2, 3), (5, 64)])
def test_shuffle_copies_the_data_once(num_frames: int, channels: int, layout: torch.memory_format) -> None:
    frames = make_frames(num_frames, channels, size=(7, 5), layout=layout)
    with Allocations() as made:
        video_shuffle(frames, num_frames)
    assert made.num_bytes == [frames.nbytes]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(("num_frames", "channels"), [(8, 64), (8, 67), (2, 8), (5, 16)])
def test_shift_makes_one_tensor(num_frames: int, channels: int, layout: torch.memory_format) -> None:
    frames = make_frames(num_frames, channels, size=(7, 5), layout=layout)
    with Allocations() as made:
        temporal_shift(frames, num_frames)
    assert made.num_bytes == [frames.nbytes]


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("operation", [video_shuffle, temporal_shift])
# Groups of 4 channels are narrower than a vector register, those of 16 are not, and 83 leaves 3 over.
@pytest.mark.parametrize(("num_frames", "channels"), [(5, 20), (5, 80), (5, 83), (2, 19)])
def test_the_form_for_compilers_equals_the_eager_one(
    operation: Callable[[Tensor, int], Tensor],
    num_frames: int,
    channels: int,
    layout: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = make_frames(num_frames, channels, size=(3, 4), layout=layout).requires_grad_()
    eager = operation(frames, num_frames)
    weights = torch.randn(eager.shape)
    (gradient,) = torch.autograd.grad((eager * weights).sum(), frames)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    joined = operation(frames, num_frames)
    assert torch.equal(joined, eager)
    assert joined.is_contiguous(memory_format=layout)
    assert torch.equal(torch.autograd.grad((joined * weights).sum(), frames)[0], gradient)


@pytest.mark.parametrize(
    ("eta", "dtype", "layout", "compiling", "joins"),
    [
        (4, torch.float32, torch.channels_last, True, True),  # 16 bytes in a row
        (15, torch.float32, torch.channels_last, True, True),
        (16, torch.float32, torch.channels_last, True, False),  # a vector register of 64 bytes
        (8, torch.float64, torch.channels_last, True, False),
        (4, torch.float32, torch.contiguous_format, True, False),
        (4, torch.float32, torch.channels_last, False, False),
    ],
)
def test_groups_are_joined_where_a_compiler_would_copy_element_by_element(
    eta: int,
    dtype: torch.dtype,
    layout: torch.memory_format,
    compiling: bool,
    joins: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frames = make_frames(2, 2 * eta, dtype=dtype, layout=layout)
    joined: list[int] = []
    cat = torch.cat
    monkeypatch.setattr(torch, "cat", lambda parts, dim: joined.append(len(parts)) or cat(parts, dim=dim))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    assert torch.equal(video_shuffle(frames, 2), shuffle_reference(frames, 2))
    assert joined == ([2] if joins else [])


@pytest.mark.parametrize("place", ["compiler.is_compiling", "jit.is_tracing", ""])
def test_compilers_and_exporters_see_a_shift_that_writes_nothing_in_place(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = make_frames(3, 8)
    wanted = shift_reference(frames, 3, 4)
    seen: list[int] = []
    joining = vsn.ops._shift_functional
    monkeypatch.setattr("vsn.ops._shift_functional", lambda *given: seen.append(1) or joining(*given))
    if place:
        monkeypatch.setattr(f"torch.{place}", lambda: True)
    shifted = temporal_shift(frames, 3, 4)
    monkeypatch.undo()
    assert torch.equal(shifted, wanted)
    assert len(seen) == bool(place)


class Residual(nn.Module):
    """The end of a residual block and the begin of the next, with what goes between them."""

    def __init__(self, operation: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.norm, self.conv, self.operation = nn.BatchNorm2d(128), nn.Conv2d(128, 64, 1), operation

    def forward(self, branch: Tensor, identity: Tensor) -> tuple[Tensor, Tensor]:
        frames = torch.relu(self.norm(branch) + identity)
        return frames, self.conv(self.operation(frames, 4))


@pytest.mark.slow  # it needs a C++ compiler, and half a minute
@pytest.mark.parametrize("operation", [video_shuffle, temporal_shift])
def test_compiled_no_kernel_of_its_own_is_left(operation: Callable[[Tensor, int], Tensor]) -> None:
    from torch._inductor.utils import run_and_get_code

    def num_kernels(operation: Callable[[Tensor, int], Tensor]) -> int:
        torch._dynamo.reset()
        frames = make_frames(4, 128, size=(8, 8), layout=torch.channels_last)
        with torch.inference_mode():
            _, code = run_and_get_code(torch.compile(Residual(operation).eval()), frames, frames)
        calls = code[0].partition("def call(")[2]
        assert "extern_kernels.convolution(" in calls
        return calls.count("cpp_fused_")

    assert num_kernels(operation) == num_kernels(lambda frames, num_frames: frames)


class Both(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return video_shuffle(temporal_shift(frames, 4, 3), 4)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("channels", [8, 10])
def test_compiles_without_a_graph_break(channels: int, layout: torch.memory_format) -> None:
    torch._dynamo.reset()
    frames = make_frames(4, channels, layout=layout)
    compiled = torch.compile(Both(), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(frames), Both()(frames))
    assert_same_kind(compiled(frames), frames)


@pytest.mark.parametrize("channels", [8, 10])
def test_exports_for_any_number_of_clips(channels: int) -> None:
    clips = torch.export.Dim("clips", min=1, max=64)
    exported = torch.export.export(
        Both(), (make_frames(4, channels, batch=2),), dynamic_shapes={"frames": {0: 4 * clips}}
    ).module()
    frames = make_frames(4, channels, batch=5, seed=3)
    assert torch.equal(exported(frames), Both()(frames))


@pytest.mark.parametrize(
    ("shape", "num_frames", "message"),
    [
        (
            (2, 4, 8, 3, 3),
            4,
            r"\(2, 4, 8, 3, 3\).*clip.flatten\(0, 1\)",
        ),
        ((8, 8), 4, r"shape \(8, 8\)"),
        ((6, 8, 3, 3), 4, r"num_frames = 4 frames, got shape \(6, "),
        ((3, 8, 3, 3), 4, r"num_frames = 4 frames, got shape \(3, "),
        ((8, 8, 3, 3), 0, r"num_frames = 0"),
        ((8, 8, 3, 3), -2, r"num_frames = -2"),
    ],
)
def test_both_refuse_what_is_no_clip(shape: tuple[int, ...], num_frames: int, message: str) -> None:
    for operation in (video_shuffle, temporal_shift):
        with pytest.raises(ValueError, match=f"^{operation.__name__}: .*{message}"):
            operation(torch.zeros(shape), num_frames)


def test_shuffle_refuses_fewer_channels_than_frames() -> None:
    with pytest.raises(ValueError, match=r"C = 7 channels, fewer than num_frames = 8.*Use at most 7 frames"):
        video_shuffle(torch.zeros(8, 7, 2, 2), 8)


@pytest.mark.parametrize(
    ("channels", "shift_div", "message"),
    [
        (8, 1, "shift_div = 1"),
        (8, 0, "shift_div = 0"),
        (7, 8, "C = 7 channels, fewer than shift_div = 8.*Use a smaller shift_div"),
    ],
)
def test_shift_refuses_an_impossible_share(channels: int, shift_div: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        temporal_shift(torch.zeros(4, channels, 2, 2), 4, shift_div)


@pytest.mark.parametrize("name", ["vsn.ops", "vsn.models", "vsn.models.insertion"])
def test_docstring_examples_say_what_happens(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


# --- along motion ----------------------------------------------------------------------------------


def along_reference(frames: Tensor, motion: Tensor, outside: str) -> Tensor:
    """Bilinear between the four pixels around p + motion, one point at a time."""
    num, _, height, width = frames.shape
    out = torch.zeros_like(frames)
    for n in range(num):
        for y in range(height):
            for x in range(width):
                right, down = (float(value) for value in motion[n, :, y, x])
                at_x, at_y = x + right, y + down
                if outside == "border":
                    at_x, at_y = min(max(at_x, 0), width - 1), min(max(at_y, 0), height - 1)
                left, top = int(np.floor(at_x)), int(np.floor(at_y))
                for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                    share = (1 - abs(at_x - column)) * (1 - abs(at_y - row))
                    if 0 <= row < height and 0 <= column < width:
                        out[n, :, y, x] += share * frames[n, :, row, column]
    return out


@pytest.mark.parametrize("outside", ["zeros", "border"])
def test_values_along_a_motion(outside) -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    motion = 3 * torch.randn(2, 2, 4, 5, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(sample_along(frames, motion, outside=outside), along_reference(frames, motion, outside))
    still = sample_along(frames, torch.zeros_like(motion), outside=outside)
    torch.testing.assert_close(still, frames)


def test_half_precision_frames_are_sampled_at_exact_places() -> None:
    # 300 + 0.25 pixels is not a float16.
    frames = torch.arange(400).view(1, 1, 1, 400).to(torch.float16)
    motion = torch.zeros(1, 2, 1, 400, dtype=torch.float16)
    motion[:, 0] = 0.25
    sampled = sample_along(frames, motion)
    assert sampled.dtype == torch.float16
    assert float(sampled[0, 0, 0, 200]) == 200.25


def test_motion_of_other_frames_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 5\).*\(2, 2, 4, 4\)"):
        sample_along(torch.zeros(2, 3, 4, 5), torch.zeros(2, 2, 4, 4))
