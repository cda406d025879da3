"""The embedded data set: only order tells its classes apart, and equal specs give equal files."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from vsn.cli import main
from vsn.data.embedded.scenes import (
    CLASSES,
    GROUPS,
    LEVELS,
    Difficulty,
    class_order,
    draw_blinks,
    render_scene,
    scene_boxes,
    scene_motion,
)
from vsn.data.embedded.write import (
    MARKER,
    UNFINISHED,
    SynthSpec,
    render_video,
    write_dataset,
)
from vsn.data.video import open_video
from vsn.ops import sample_along

SHORT = SynthSpec(size=96, num_seconds=(1.5, 2.0), frames_per_second=(12, 16))
TINY = SynthSpec(
    size=96,
    num_seconds=(1.5, 2.0),
    frames_per_second=(12, 16),
    num_train_per_class=1,
    num_val_per_class=0,
    num_test_per_class=1,
)


def centers(num_frames: int, count: int = 8) -> list[int]:
    """Test sampling as the field does it: int(tick / 2 + tick * i)."""
    tick = num_frames / count
    return [int(tick / 2 + tick * i) for i in range(count)]


# What is drawn


def test_classes_of_the_levels() -> None:
    sizes = {level: [len(GROUPS[group]) for group in groups] for level, (groups, _) in LEVELS.items()}
    assert sizes == {"basic": [4, 2, 2, 2, 2, 2, 6], "hard": [4, 4, 4, 6]}
    assert sum(map(len, sizes.values())) == len(GROUPS)
    assert len(CLASSES) == len(set(CLASSES)) == 38
    assert "green, then blue, then red" in GROUPS["lamps"]
    assert "orange, then yellow, then yellow, then orange" in GROUPS["signals"]
    assert GROUPS["swarm"][1] == "dots go right, then left, then right"


@pytest.mark.parametrize("group", GROUPS)
def test_classes_of_a_group_are_made_of_the_same_frames(group: str) -> None:
    for seed in range(6):
        spec = SynthSpec(size=96) if seed == 0 else SHORT
        videos = [render_video(name, [7, seed], spec=spec, still_background=True) for name in GROUPS[group]]
        bags = [Counter(frame.tobytes() for frame in frames) for frames, _ in videos]
        assert all(bag == bags[0] for bag in bags)
        assert len({frames.tobytes() for frames, _ in videos}) == len(videos), "two classes show the same video"
        assert len({rate for _, rate in videos}) == 1


@pytest.mark.parametrize("num_frames", [24, 40, 56, 72, 88])
@pytest.mark.parametrize("name", CLASSES)
def test_sampling_does_not_tell_the_classes_of_a_group_apart(name: str, num_frames: int) -> None:
    """The frames at the 8 centers are the same bag for every class; for blinks, see the next test."""
    group = next(group for group, names in GROUPS.items() if name in names)
    blinks = draw_blinks(group, num_frames, np.random.default_rng(num_frames), shift=0.12)
    order = class_order(name, num_frames, blinks)
    assert sorted(order) == list(range(num_frames))
    if group not in {"blink", "lamps", "signals"}:
        assert sorted(order[centers(num_frames)]) == centers(num_frames)


@pytest.mark.parametrize("group", ["blink", "lamps"])
def test_centers_meet_each_blink_once_with_dark_between(group: str) -> None:
    num_slots = 2 if group == "blink" else 3
    starts = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        num_frames = int(rng.choice([24, 40, 56, 72, 88]))
        blinks = draw_blinks(group, num_frames, rng, shift=Difficulty().blink_shift)
        shown = np.full(num_frames, -1)
        for slot in range(num_slots):
            assert (shown[blinks.slot(slot)] == -1).all(), "slots overlap"
            shown[blinks.slot(slot)] = slot
        sampled = shown[centers(num_frames)]
        assert [value for value in sampled if value >= 0] == list(range(num_slots))
        starts.add(int(np.argmax(sampled >= 0)))
        for one, other in itertools.pairwise(sampled):
            assert one == other or -1 in (one, other), "neighboring sampled frames show two different blinks"
        assert sampled[0] == sampled[-1] == -1
        if group == "blink":
            assert blinks.starts[1] - blinks.starts[0] - blinks.length >= 3 * num_frames / 8
    assert starts == {1, 2}


def test_four_blinks_come_at_any_time() -> None:
    """At the centers each is met once, between dark ends; the times do not depend on the class."""
    seen: set[tuple[int, ...]] = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        num_frames = int(rng.choice([24, 40, 56, 72, 88]))
        blinks = draw_blinks("signals", num_frames, rng, shift=Difficulty().blink_shift)
        shown = np.full(num_frames, -1)
        for slot in range(4):
            assert (shown[blinks.slot(slot)] == -1).all(), "slots overlap"
            shown[blinks.slot(slot)] = slot
        sampled = shown[centers(num_frames)]
        assert [value for value in sampled if value >= 0] == [0, 1, 2, 3]
        assert sampled[0] == sampled[-1] == -1
        seen.add(tuple(np.flatnonzero(sampled >= 0)))
        lamps = ("orange", "orange", "yellow", "yellow")
        lit = np.array(centers(num_frames))[sampled >= 0]
        colors = [[lamps[shown[at]] for at in class_order(name, num_frames, blinks)[lit]] for name in GROUPS["signals"]]
        assert [", then ".join(one) for one in colors] == list(GROUPS["signals"])
    assert len(seen) == 15


@pytest.mark.parametrize("group", ["swarm", "whirl", "pointer"])
def test_motions_to_and_fro_go_as_their_class_says(group: str) -> None:
    """The base list goes forth in its first half, and each class starts where its name says."""
    num_frames = 40
    for name in GROUPS[group]:
        order = class_order(name, num_frames, draw_blinks(group, num_frames, np.random.default_rng(0), shift=0.1))
        share = 1 - np.abs(2 * (order + 0.5) / num_frames - 1)
        steps = np.sign(np.diff(share))
        ways = [way for way, _ in itertools.groupby(steps[steps != 0])]
        forth = GROUPS[group][0].split(", then ")[0].split()[-1]
        assert ways == [1 if part.split()[-1] == forth else -1 for part in name.split(", then ")], name


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("moving something from left to right", (0, 1)),
        ("moving something from right to left", (0, -1)),
        ("moving something down", (1, 1)),
        ("moving something up", (1, -1)),
    ],
)
def test_things_move_the_way_the_name_says(name: str, where: tuple[int, int]) -> None:
    axis, sign = where
    for seed in range(5):
        frames, _ = render_video(name, seed, spec=SHORT, still_background=True)
        background = np.median(frames, axis=0)
        middles = []
        for index in centers(len(frames))[1:-1]:
            changed = (np.abs(frames[index] - background) > 20).any(axis=2)
            middles.append(float(np.nonzero(changed)[1 - axis].mean()))
        assert (np.diff(middles) * sign > 0).all()


def test_approaching_grows_and_appearing_comes_last() -> None:
    for seed in range(5):
        frames, _ = render_video("something appears", seed, spec=SHORT, still_background=True)
        assert (frames[: int(0.4 * len(frames))] == frames[0]).all()
        assert (frames[int(0.6 * len(frames)) :] != frames[0]).any(axis=(1, 2, 3)).all()
        frames, _ = render_video("something approaching", seed, spec=SHORT, still_background=True)
        corner = frames[:, :1, :1]
        covered = [(np.abs(frame.astype(int) - corner[0]) > 60).any(axis=2).sum() for frame in frames[[0, -1]]]
        assert covered[1] > 4 * covered[0] > 0


@pytest.mark.parametrize("clockwise", [True, False])
def test_turning_goes_the_way_the_name_says(clockwise: bool) -> None:
    name = "turning something clockwise" if clockwise else "turning something counterclockwise"
    for seed in range(5):
        frames, _ = render_video(name, seed, spec=SHORT, still_background=True)
        background = np.median(frames, axis=0)
        angles = []
        for index in centers(len(frames)):
            down, across = np.nonzero((np.abs(frames[index] - background) > 25).any(axis=2))
            angles.append((across.mean(), down.mean()))
        points = np.array(angles) - np.mean(angles, axis=0)
        steps = np.diff(np.unwrap(np.arctan2(points[:, 1], points[:, 0])))
        # y points down, so growing angles are clockwise; a step stays far below half a turn.
        assert ((steps if clockwise else -steps) > 0.1).all()
        assert (np.abs(steps) < 2.0).all()


def test_unknown_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"juggling.*moving"):
        render_video("juggling", 0, spec=SHORT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 64}, r"size is 64.*96 to 128"),
        ({"size": 113}, r"size is 113.*even"),
        ({"num_val_per_class": -1}, "num_val_per_class is -1"),
        ({"seed": -3}, "seed is -3"),
        ({"num_seconds": (1.0, 1.2), "frames_per_second": (12, 15)}, r"num_seconds \(1\.0, 1\.2\)"),
        ({"num_seconds": (4, 2)}, r"num_seconds \(4\.0, 2\.0\)"),
    ],
)
def test_spec_says_what_it_refuses(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SynthSpec(**settings)


def test_lengths_keep_to_the_spec_and_to_odd_multiples_of_eight() -> None:
    lengths = SynthSpec().lengths()
    assert {num_frames for num_frames, _ in lengths} == {24, 40, 56, 72, 88}
    assert {rate for _, rate in lengths} == set(range(12, 26))
    assert all(1.5 <= num_frames / rate <= 4.0 for num_frames, rate in lengths)


# No classifier that ignores order beats chance; one that sees it does


def thumbnails(name: str, seed: list[int]) -> np.ndarray:
    """8 center frames, each the mean colors and saturations of 12 x 12 blocks: float (8, 8 * 8 * 4)."""
    frames, _ = render_video(name, seed, spec=SHORT)
    frames = frames[centers(len(frames))].astype(np.float64)
    frames = np.concatenate([frames, np.ptp(frames, axis=3, keepdims=True)], axis=3)
    return frames.reshape(8, 8, 12, 8, 12, 4).mean(axis=(2, 4)).reshape(8, -1)


def order_free(clip: np.ndarray) -> np.ndarray:
    return np.concatenate([clip.mean(0), clip.std(0), clip.min(0), clip.max(0)])


def ridge_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers of a ridge classifier, each fifth answered by the other four."""
    features = (features - features.mean(0)) / (features.std(0) + 1e-6)
    kernel = features @ features.T / features.shape[1]
    targets = np.eye(labels.max() + 1)[labels] - 1 / (labels.max() + 1)
    fold = np.arange(len(labels)) % 5
    right = 0
    for part in range(5):
        seen, asked = fold != part, fold == part
        weights = np.linalg.solve(kernel[np.ix_(seen, seen)] + 0.1 * np.eye(seen.sum()), targets[seen])
        right += int(((kernel[np.ix_(asked, seen)] @ weights).argmax(1) == labels[asked]).sum())
    return right / len(labels)


def test_order_free_features_do_not_beat_chance_and_ordered_ones_do() -> None:
    """Bounds: chance + 4 standard deviations of a binomial share, one-sided p about 3e-5 a group."""
    beaten, excess, variance = {}, 0.0, 0.0
    for group, names in GROUPS.items():
        labels = np.tile(np.arange(len(names)), 24 if len(names) == 2 else 12)
        clips = [thumbnails(names[label], [11, number]) for number, label in enumerate(labels)]
        chance = 1 / len(names)
        deviation = (chance * (1 - chance) / len(labels)) ** 0.5
        free = ridge_accuracy(np.stack([order_free(clip) for clip in clips]), labels)
        bound = chance + 4 * deviation
        assert free <= bound, f"{group}: order-free features reach {free:.2f}, the bound is {bound:.2f}"
        excess += (free - chance) * len(labels)
        variance += chance * (1 - chance) * len(labels)
        ordered = ridge_accuracy(np.stack([clip.ravel() for clip in clips]), labels)
        beaten[group] = ordered > bound
    assert excess <= 4 * variance**0.5, "over all groups, order-free features beat chance"
    assert {group for group, won in beaten.items() if won} >= {
        "horizontal",
        "vertical",
        "depth",
        "appear",
        "lamps",
    }


# The set on disk


def digests(root: Path) -> dict[str, str]:
    files = sorted(root.rglob("*.mp4"))
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("set"), TINY, num_workers=1, progress=False)


def test_layout_and_description(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [MARKER, "test", "train"]
    assert sorted(path.name for path in (written / "train").iterdir()) == sorted(SynthSpec().classes)
    description = json.loads((written / MARKER).read_text(encoding="utf-8"))
    assert description["spec_hash"] == TINY.fingerprint()
    assert description["spec"]["seed"] == 0
    assert description["num_videos"] == {"train": 20, "val": 0, "test": 20}
    assert description["classes"] == list(SynthSpec().classes)
    info = open_video(written / "test" / "red, then green, then blue" / "0000.mp4").metadata
    assert (info.height, info.width) == (96, 96)
    assert (info.num_frames, round(info.frames_per_second)) in TINY.lengths()


def test_splits_share_no_video(written: Path) -> None:
    found = digests(written)
    assert len(found) == 40
    assert len(set(found.values())) == 40


def test_number_of_workers_does_not_change_a_byte(written: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", TINY, num_workers=2, progress=False)
    assert digests(other) == digests(written)


def test_seed_and_spec_change_the_videos() -> None:
    assert TINY.fingerprint() == SynthSpec(**{**vars(TINY), "num_seconds": (1.5, 2)}).fingerprint()
    others = [{"seed": 1}, {"num_test_per_class": 2}, {"difficulty": Difficulty(noise=3.0)}]
    assert len({SynthSpec(**{**vars(TINY), **other}).fingerprint() for other in others} | {TINY.fingerprint()}) == 4
    one, other = (render_video(CLASSES[0], [seed, 0, 0, 0], spec=TINY)[0] for seed in (0, 1))
    assert one.shape != other.shape or (one != other).any()


def test_a_set_is_completed_and_nothing_else_is_touched(written: Path) -> None:
    before = digests(written)
    times = {file: file.stat().st_mtime_ns for file in written.rglob("*.mp4")}
    lost = written / "train" / "something appears" / "0000.mp4"
    lost.unlink()
    (written / MARKER).rename(written / UNFINISHED)
    write_dataset(written, TINY, num_workers=1, progress=False)
    assert digests(written) == before
    assert {file for file in times if file.stat().st_mtime_ns != times[file]} == {lost}
    assert (written / MARKER).is_file()
    assert not (written / UNFINISHED).exists()


def test_a_complete_set_is_left_alone(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vsn.data.embedded.write.write_video", lambda *_, **__: pytest.fail("wrote again"))
    assert write_dataset(written, TINY, num_workers=0) == written


def test_another_spec_is_refused(written: Path) -> None:
    with pytest.raises(ValueError, match=r"spec\.num_train_per_class is 1 there, 50 here;"):
        write_dataset(written, SHORT)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"num_workers.*-1"):
        write_dataset(tmp_path, TINY, num_workers=-1)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"no dataset\.json"):
        write_dataset(tmp_path, TINY)
    with pytest.raises(ValueError, match=r"thesis\.tex"):
        write_dataset(tmp_path / "thesis.tex", TINY)
    (tmp_path / MARKER).write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"dataset\.json"):
        write_dataset(tmp_path, TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARKER, "thesis.tex"]


SCRIPT = """
from vsn.data.embedded.write import SynthSpec, write_dataset
if __name__ == "__main__":
    write_dataset({root!r}, SynthSpec(size=96), num_workers=2, progress=False)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process group")
def test_ctrl_c_leaves_whole_files_and_no_process(tmp_path: Path) -> None:
    root, script = tmp_path / "set", tmp_path / "write.py"
    script.write_text(SCRIPT.format(root=str(root)), encoding="utf-8")
    with subprocess.Popen([sys.executable, script], start_new_session=True, stderr=subprocess.PIPE) as process:
        try:
            give_up = time.monotonic() + 60
            while len(list(root.rglob("[!.]*.mp4"))) < 4:  # without temporary files
                assert process.poll() is None, "the script ended early"
                assert time.monotonic() < give_up, "no video came"
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
            # Ends when the last process that has the error stream has ended.
            _, errors = process.communicate(timeout=30)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert errors.strip().endswith(b"Interrupted")
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".json"]
    assert 4 <= len(files) < 400
    for path in files:
        assert path.suffix == ".mp4"
        assert open_video(path).num_frames % 8 == 0
    assert (root / UNFINISHED).is_file()
    assert not (root / MARKER).exists()


@pytest.mark.parametrize("backward", [False, True])
def test_the_true_motion_leads_from_each_frame_to_the_other(backward) -> None:
    for name in (*GROUPS["horizontal"][:1], *GROUPS["depth"][:1], *GROUPS["turning"][:1]):
        options = {"size": 112, "num_frames": 24, "difficulty": Difficulty(noise=0.0)}
        frames = torch.from_numpy(render_scene(name, np.random.default_rng(5), **options)).permute(0, 3, 1, 2).float()
        motion = scene_motion(name, np.random.default_rng(5), backward=backward, **options)
        motion = torch.from_numpy(motion).permute(0, 3, 1, 2)
        start, end = (frames[1:], frames[:-1]) if backward else (frames[:-1], frames[1:])
        # Every point is found in the other frame where it moved to; the texture is shown in steps of half a pixel.
        error, still = (
            (other - start).abs().mean(dim=1) for other in (sample_along(end, motion, outside="border"), end)
        )
        target = start.amax(dim=1) - start.amin(dim=1) > 120
        assert target.sum() > 1000
        assert error[target].mean() < 0.5 * still[target].mean(), name
        assert error[~target].mean() < 0.8 * still[~target].mean(), name


@pytest.mark.parametrize("group", ["swarm", "whirl"])
def test_dots_change_sides_out_of_sight_and_their_mean_place_tells_nothing(group: str) -> None:
    """No dot jumps within the frame; over many videos the mean place of the dots in sight stays where it is."""
    options = {"size": 112, "num_frames": 24, "difficulty": Difficulty(pan_per_frame=0.0, shake=0.0, max_distractors=0)}
    drifts, steps = [], []
    for seed in range(60):
        boxes = scene_boxes(GROUPS[group][0], np.random.default_rng(seed), **options)
        middles = (boxes[..., :2] + boxes[..., 2:]) / 2
        moved = np.diff(middles, axis=1)
        assert np.nanmax(np.abs(moved)) < 0.1 * 112
        # From the middle of the way forth to its end: far enough to see, and dots only come and go.
        drifts.append(np.nanmean(middles[:, 11], axis=0)[0] - np.nanmean(middles[:, 0], axis=0)[0])
        steps.append(np.nanmean(np.linalg.norm(moved[:, :11], axis=-1)) * 11)
    assert np.mean(steps) > 0.1 * 112
    assert abs(np.mean(drifts)) < 0.2 * np.mean(steps)


def test_the_hard_level_is_written_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts = ["--train-per-class", "1", "--val-per-class", "0", "--test-per-class", "0"]
    main(["data", "synth", str(tmp_path / "hard"), "--level", "hard", *counts, "--workers", "1"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "hard")
    names = {name for group in LEVELS["hard"][0] for name in GROUPS[group]}
    assert {path.name for path in (tmp_path / "hard" / "train").iterdir()} == names
    with pytest.raises(SystemExit, match=r"spec\.groups"):
        main(["data", "synth", str(tmp_path / "hard"), *counts])
