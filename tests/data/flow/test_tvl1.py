"""TV-L1: against motions that are known, its equations written as loops, and OpenCV."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.motions import Affine, end_point_error, moved_pair, translation
from vsn.config import ConfigError, Tvl1Config
from vsn.data.flow import tvl1
from vsn.data.flow.compute import flow_method, to_gray
from vsn.data.flow.tvl1 import tvl1_flow
from vsn.data.video import open_video

MOTIONS: dict[str, tuple[Affine, float]] = {
    "still": (translation(0, 0), 0.001),
    "a whole pixel right": (translation(1, 0), 0.05),
    "down": (translation(0, 2), 0.05),
    "part of a pixel": (translation(-0.4, 0.3), 0.05),
    "far": (translation(6.5, -4), 0.1),
    "zoom": ((1.05, 0, 0, 0, 1.05, 0), 0.1),
    "turn": ((np.cos(0.05), -np.sin(0.05), 1, np.sin(0.05), np.cos(0.05), 0), 0.1),
    "shear": ((1, 0.06, 0, 0, 1, -1), 0.1),
}


def flow_of(first: np.ndarray, second: np.ndarray, config: Tvl1Config | None = None) -> np.ndarray:
    pairs = torch.from_numpy(np.stack([first, second]))[None]
    return tvl1_flow(pairs, config)[0].permute(1, 2, 0).numpy()


# --- known motions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MOTIONS)
def test_known_motions_are_found(name: str) -> None:
    """Mean end-point error, pixels, away from the border, where something leaves or enters the picture."""
    motion, most = MOTIONS[name]
    first, second, truth = moved_pair(motion)
    assert end_point_error(flow_of(first, second), truth, border=8) <= most


def test_two_motions_meet_at_an_edge() -> None:
    """The left half moves up and the right half down: TV keeps the edge, where an L2 norm would blur it."""
    up, down = (moved_pair(translation(0, shift), seed=seed) for shift, seed in ((-2, 1), (2, 2)))
    first, second = (np.concatenate([up[i][:, :40], down[i][:, 40:]], 1) for i in range(2))
    flow = flow_of(first, second)
    assert abs(flow[10:-10, 8:36, 1] + 2).mean() < 0.1
    assert abs(flow[10:-10, 44:-8, 1] - 2).mean() < 0.1


def test_first_axis_is_right_second_is_down() -> None:
    first, second, _ = moved_pair(translation(3, -1))
    flow = tvl1_flow(torch.from_numpy(np.stack([first, second]))[None])
    assert (flow.shape, flow.dtype, flow.is_inference()) == ((1, 2, 64, 80), torch.float32, False)
    assert flow.mean((0, 2, 3)).tolist() == pytest.approx([3, -1], abs=0.1)


def test_pairs_of_a_batch_do_not_touch() -> None:
    pairs = torch.from_numpy(np.stack([np.stack(moved_pair(MOTIONS[n][0])[:2]) for n in ("far", "zoom")]))
    both = tvl1_flow(pairs)
    torch.testing.assert_close(both[1:], tvl1_flow(pairs[1:]), atol=1e-3, rtol=0)
    assert torch.equal(both, tvl1_flow(pairs))


def test_float_frames_and_bytes_give_the_same() -> None:
    pairs = torch.from_numpy(np.stack(moved_pair(translation(1, 1))[:2]))[None]
    assert torch.equal(tvl1_flow(pairs), tvl1_flow(pairs.double()))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 2), (17, 33)])
def test_frames_of_any_size(size: tuple[int, int]) -> None:
    pairs = torch.randint(0, 256, (1, 2, *size), dtype=torch.uint8, generator=torch.manual_seed(0))
    flow = tvl1_flow(pairs)
    assert flow.shape == pairs.shape
    assert torch.isfinite(flow).all()


def test_a_plain_picture_has_no_motion() -> None:
    assert not tvl1_flow(torch.full((1, 2, 32, 32), 77, dtype=torch.uint8)).any()


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (torch.zeros(2, 8, 8), r"\(B, 2, H, W\).*\(2, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8), r"\(1, 3, 8, 8\)"),
        (torch.zeros(0, 2, 8, 8), r"\(0, 2, 8, 8\)"),
        (torch.zeros(1, 2, 8, 8, dtype=torch.int32), r"uint8.*torch\.int32"),
        (torch.full((1, 2, 8, 8), torch.nan), "NaN"),
    ],
)  # fmt: skip
def test_frames_that_are_none(pairs: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tvl1_flow(pairs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tau": 0.3}, r"tau.*0\.3.*0\.25"),
        ({"lambda_": 0.0}, r"lambda_.*0\.0"),
        ({"zfactor": 1.0}, r"zfactor.*1\.0"),
        ({"nwarps": 0}, r"nwarps.*0"),
    ],
)  # fmt: skip
def test_parameters_out_of_range(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Tvl1Config(**settings)


# --- the equations, as loops -----------------------------------------------------------------------


def planes(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.manual_seed(seed)) * scale


def test_threshold_is_equation_15() -> None:
    """v = u + lambda theta grad, u - lambda theta grad, or u - rho grad / |grad|^2, by where rho lies."""
    limit = 0.15 * 0.3
    flow, gradient = planes(1, 2, 5, 6, seed=0), planes(1, 2, 5, 6, seed=1, scale=2)
    rho_0 = planes(1, 1, 5, 6, seed=2, scale=0.5)  # rho(u) = rho_0 + <grad, u>
    expected, cases = flow.clone(), set()
    for y in range(5):
        for x in range(6):
            grad = gradient[0, :, y, x]
            rho, squared = rho_0[0, 0, y, x] + grad @ flow[0, :, y, x], grad @ grad
            if rho < -limit * squared:
                expected[0, :, y, x] += limit * grad
                cases.add("below")
            elif rho > limit * squared:
                expected[0, :, y, x] -= limit * grad
                cases.add("above")
            else:
                expected[0, :, y, x] -= rho * grad / squared
                cases.add("between")
    assert cases == {"below", "above", "between"}
    squared = gradient.square().sum(1, keepdim=True)
    tvl1._threshold(flow, rho_0 / squared, gradient / squared, gradient, tvl1._Work(flow), limit=limit)
    torch.testing.assert_close(flow, expected)


def test_divergence_is_of_backward_differences() -> None:
    """Of p with p = 0 outside: p_x(x, y) - p_x(x - 1, y) + p_y(x, y) - p_y(x, y - 1)."""
    height, width = 4, 5
    p_x, p_y = planes(2, height, width, seed=0), planes(2, height, width, seed=1)
    p_x[..., -1], p_y[:, -1] = 0, 0
    expected = torch.zeros(2, height, width)
    for c in range(2):
        for y in range(height):
            for x in range(width):
                expected[c, y, x] = p_x[c, y, x] - (p_x[c, y, x - 1] if x else 0)
                expected[c, y, x] += p_y[c, y, x] - (p_y[c, y - 1, x] if y else 0)
    flow = torch.zeros(1, 2, height, width)
    tvl1._add_divergence(flow, torch.nn.functional.pad(p_x, (1, 0))[None],
                         torch.nn.functional.pad(p_y, (0, 0, 1, 0))[None])  # fmt: skip
    torch.testing.assert_close(flow[0], expected)


def test_dual_step_is_equation_16() -> None:
    """p = (p + tau/theta grad u) / (1 + tau/theta |grad u|), forward differences, 0 past the border."""
    tau, theta, height, width = 0.25, 0.3, 4, 5
    flow = planes(1, 2, height, width, seed=0)
    p = planes(2, 2, height, width, seed=1, scale=0.3)
    p[0, :, :, -1], p[1, :, -1] = 0, 0
    expected = torch.zeros_like(p)
    for c in range(2):
        for y in range(height):
            for x in range(width):
                u = flow[0, c]
                right = u[y, x + 1] - u[y, x] if x + 1 < width else torch.tensor(0.0)
                down = u[y + 1, x] - u[y, x] if y + 1 < height else torch.tensor(0.0)
                for axis, difference in enumerate((right, down)):
                    expected[axis, c, y, x] = (p[axis, c, y, x] + tau / theta * difference) / (
                        1 + tau / theta * torch.hypot(right, down)
                    )
    dual_x = torch.nn.functional.pad(theta * p[0], (1, 0))[None]
    dual_y = torch.nn.functional.pad(theta * p[1], (0, 0, 1, 0))[None]
    tvl1._update_dual(flow, dual_x, dual_y, tvl1._Work(flow), tau=tau, theta=theta)
    torch.testing.assert_close(dual_x[0, ..., 1:] / theta, expected[0])
    torch.testing.assert_close(dual_y[0, :, 1:] / theta, expected[1])
    assert not dual_x[..., 0].any()
    assert not dual_y[..., 0, :].any()


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_median_is_that_of_nine(height: int, width: int, seed: int) -> None:
    image = planes(1, 2, height, width, seed=seed)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    expected = torch.empty_like(image)
    for c in range(2):
        for y in range(height):
            for x in range(width):
                expected[0, c, y, x] = padded[0, c, y : y + 3, x : x + 3].median()
    assert torch.equal(tvl1._median3(image), expected)


def test_warp_looks_where_the_flow_points() -> None:
    image = torch.arange(30.0).view(1, 1, 5, 6)
    warped, inside = tvl1._warp(image, torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 5, 6))
    torch.testing.assert_close(warped[..., :3, :5], image[..., 2:, 1:], atol=1e-4, rtol=0)
    assert inside[0, 0].tolist() == [[1, 1, 1, 1, 1, 0]] * 3 + [[0] * 6] * 2
    _, inside = tvl1._warp(image, torch.tensor([-2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 5, 6))
    assert inside[0, 0].tolist() == [[0] * 6] + [[0, 0, 1, 1, 1, 1]] * 4


def test_motions_grow_with_the_picture() -> None:
    resized = tvl1._resized_flow(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 4, 6), 8, 9)
    assert resized.shape == (1, 2, 8, 9)
    torch.testing.assert_close(resized.mean((0, 2, 3)), torch.tensor([1.5, 4.0]))


# --- OpenCV ----------------------------------------------------------------------------------------


def both(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("cv2.optflow", reason="OpenCV, the extra vsn-video[flow], is not installed")
    return flow_method("tvl1")(frames), flow_method("tvl1-opencv")(frames)


@pytest.mark.parametrize("name", ["part of a pixel", "far", "turn"])
def test_opencv_finds_the_same(name: str) -> None:
    """Within a tenth of a pixel of each other on average, and ours no further from the truth by more than 0.02."""
    first, second, truth = moved_pair(MOTIONS[name][0])
    ours, theirs = (flow[0] for flow in both(np.stack([first, second])))
    assert end_point_error(ours, theirs, border=8) <= 0.1
    errors = [end_point_error(flow, truth, border=8) for flow in (ours, theirs)]
    assert errors[0] <= errors[1] + 0.02


@pytest.mark.slow
def test_opencv_finds_the_same_in_real_videos(shared_data: Path) -> None:
    """Pairs of people who gesture, at 256 pixels: within 0.25 pixels on average, and 0.1 in most."""
    names = ("come/S1_1_1m_upper", "left/S3_2_4m_full", "stop/S5_1_1m_upper")
    differences = []
    for name in names:
        video = shared_data / "data" / "gestures" / f"{name}.mp4"
        for start in (20, 35):
            frames = open_video(video, short_side=256).frames_at([start, start + 1])
            ours, theirs = both(np.stack([to_gray(frame) for frame in frames]))
            differences.append(end_point_error(ours[0], theirs[0]))
    assert max(differences) <= 0.25
    assert np.median(differences) <= 0.1


@pytest.mark.parametrize("method", ["dis", "farneback"])
def test_other_methods_of_opencv_run(method: str) -> None:
    pytest.importorskip("cv2", reason="OpenCV, the extra vsn-video[flow], is not installed")
    first, second, truth = moved_pair(translation(2, 1))
    flow = flow_method(method)(np.stack([first, second]))[0]
    assert flow.dtype == np.float32
    assert end_point_error(flow, truth, border=16) <= 0.5


def test_methods_that_are_none() -> None:
    with pytest.raises(ConfigError, match=r"'raft'.*tvl1, tvl1-opencv, dis"):
        flow_method("raft")
    with pytest.raises(ConfigError, match=r"'dis'.*'cuda'"):
        flow_method("dis", "cuda")
    with pytest.raises(ConfigError, match="'tpu'"):
        flow_method("tvl1", "tpu")
