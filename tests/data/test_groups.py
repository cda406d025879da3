"""Groups: what may not be on both sides of a split is not, and what cannot be divided is an error that says so."""

import csv
import doctest
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.laid_out import ids, lay, touch
from vsn.config import ConfigError, DataConfig
from vsn.data import groups as groups_module
from vsn.data.groups import assign_folds, hold_out_groups
from vsn.data.packing.pack import pack_dataset
from vsn.data.readers import read_records
from vsn.data.records import RecordSet

PEOPLE = [(f"{name}/p{person}_{take}.mp4", name, f"p{person}") for name in "ab" for person in range(5) for take in "xy"]


def groups(records: RecordSet) -> set[str]:
    return {record.group for record in records.records}


def people(root: Path, rows: list[tuple[str, str, str]] = PEOPLE, *, header: str = "path,label,group") -> DataConfig:
    lines = "\n".join(",".join(row) for row in rows)
    lay(root, {"clips.csv": f"{header}\n{lines}\n"}, *(row[0] for row in rows))
    return DataConfig(root=str(root), source="csv")


def test_examples() -> None:
    assert doctest.testmod(groups_module) == (0, 2)


# --- folds -----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvwxyz")), min_size=2, max_size=40),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_a_group_has_one_fold_and_no_fold_is_empty(videos: list[tuple[str, str]], num_folds: int, seed: int) -> None:
    classes, names = zip(*videos, strict=True)
    if len(set(names)) < num_folds:
        with pytest.raises(ConfigError, match=f"{num_folds} folds|leave groups out"):
            assign_folds(classes, names, num_folds, seed=seed)
        return
    folds = assign_folds(classes, names, num_folds, seed=seed)
    assert set(folds.tolist()) == set(range(num_folds))
    assert len(set(zip(names, folds.tolist(), strict=True))) == len(set(names))
    # The order of a list is that of a file: it changes nothing.
    order = np.random.default_rng(seed).permutation(len(videos))
    again = assign_folds([classes[i] for i in order], [names[i] for i in order], num_folds, seed=seed)
    assert again.tolist() == folds[order].tolist()


def test_folds_have_equal_shares_of_each_class() -> None:
    classes, names = zip(*((row[1], row[2]) for row in PEOPLE), strict=True)
    folds = assign_folds(classes, names, 5)
    assert set(Counter(zip(folds.tolist(), classes, strict=True)).values()) == {2}
    assert assign_folds(classes, names, 5, seed=1).tolist() != folds.tolist()


@pytest.mark.parametrize(("share", "num_held"), [(0.2, 1), (0.4, 2), (0.01, 1), (0.99, 4), (0.5, 2), (0.3, 2)])
def test_a_share_is_held_out_in_whole_groups(share: float, num_held: int) -> None:
    classes, names = zip(*((row[1], row[2]) for row in PEOPLE), strict=True)
    held = hold_out_groups(classes, names, share)
    sides = {name: {bool(h) for n, h in zip(names, held, strict=True) if n == name} for name in names}
    assert all(len(side) == 1 for side in sides.values())
    assert sum(side == {True} for side in sides.values()) in (num_held, num_held + (share == 0.5))


def test_a_class_of_one_group_is_trained_on() -> None:
    """Whichever seed begins with that group: it is passed over."""
    classes, names = ["a", "b", "a", "b", "c"], ["p", "p", "q", "q", "q"]
    for seed in range(4):
        assert names[int(np.flatnonzero(hold_out_groups(classes, names, 0.5, seed=seed))[0])] == "p"


def test_a_group_of_one_video_is_not_the_held_out_part() -> None:
    names = ["alone", *(person for person in "pqrs" for _ in range(8))]
    for seed in range(5):
        assert 7 <= hold_out_groups(["a", *("abcd" * 8)], names, 0.2, seed=seed).sum() <= 9


def test_without_a_fitting_part_the_nearest_is_held_out() -> None:
    names = ["p"] * 8 + ["q"] * 2
    for seed in range(4):
        assert hold_out_groups(list("ab" * 5), names, 0.45, seed=seed).sum() == 2


def test_classes_of_one_group_each_cannot_be_held_out() -> None:
    with pytest.raises(ConfigError, match=r"'[ab]' has videos of 1 of 2 groups \('[pq]'\)"):
        hold_out_groups(["a", "b"], ["p", "q"], 0.5)
    with pytest.raises(ConfigError, match=r"1 group \('p'\)"):
        hold_out_groups(["a", "b"], ["p", "p"], 0.5)


# --- readers ---------------------------------------------------------------------------------------


def test_a_column_holds_whole_people_out(tmp_path: Path) -> None:
    config = people(tmp_path)
    train, val = read_records(config, "train"), read_records(config, "val")
    assert len(groups(train)) == 4
    assert len(groups(val)) == 1
    assert not groups(train) & groups(val)
    assert sorted(ids(train) + ids(val)) == sorted(row[0] for row in PEOPLE)
    note = next(note for note in val.notes if "whole groups" in note)
    assert note in train.notes
    assert "1 of 5" in note
    assert "4 of 20 videos" in note


def test_a_pattern_finds_the_group_in_the_path(tmp_path: Path) -> None:
    root = touch(tmp_path, *(row[0] for row in PEOPLE))
    config = DataConfig(root=str(root), group_pattern=r"/(p\d)_")
    assert groups(read_records(config, "train")) | groups(read_records(config, "val")) == {f"p{i}" for i in range(5)}
    arrow = read_records(replace(config, task="arrow"), "val")
    assert len(groups(arrow)) == 1
    touch(root, "a/other.mp4")
    with pytest.raises(ConfigError, match=r"data\.group_pattern '/\(p.*no group in 1 of 21 videos.*'a/other\.mp4'"):
        read_records(config, "train")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(p", "no regular expression"), ("p[0-9]", "0 groups"), ("(p)([0-9])", "2 groups")],
)
def test_patterns_that_are_refused(pattern: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.group_pattern .*{message}"):
        DataConfig(group_pattern=pattern)


def test_a_pattern_that_matches_without_its_group(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/p1.mp4", "a/q1.mp4", "b/p2.mp4", "b/q2.mp4")
    with pytest.raises(ConfigError, match="no group in 2 of 4"):
        read_records(DataConfig(root=str(root), group_pattern=r"(p)|q"), "train")


def test_a_group_for_some_videos_only_is_refused(tmp_path: Path) -> None:
    config = people(tmp_path, [*PEOPLE, ("c.mp4", "a", "")])
    with pytest.raises(ConfigError, match="line 22: the group is empty"):
        read_records(config, "train")


def test_recordings_of_ucf101(tmp_path: Path) -> None:
    names = [f"{name}/v_{name}_g0{g}_c0{c}.avi" for name in ("A", "B") for g in range(1, 6) for c in (1, 2)]
    listed = "".join(f"{name} {1 + (name[0] == 'B')}\n" for name in names)
    lay(
        tmp_path,
        {"classInd.txt": "1 A\n2 B\n", "trainlist01.txt": listed, "testlist01.txt": "A/v_A_g09_c01.avi\n"},
        *(f"UCF-101/{name}" for name in [*names, "A/v_A_g09_c01.avi"]),
    )
    config = DataConfig(root=str(tmp_path), source="ucf101")
    train, val = read_records(config, "train"), read_records(config, "val")
    assert not groups(train) & groups(val)
    assert len(groups(val)) == 2
    assert groups(read_records(config, "test")) == {"v_A_g09"}


def test_a_packed_set_keeps_its_groups(tmp_path: Path, gray_video: Path) -> None:
    config = people(tmp_path / "data")
    for row in PEOPLE:
        (tmp_path / "data" / row[0]).write_bytes(gray_video.read_bytes())
    pack_dataset(config, tmp_path / "packed", short_side=16, num_workers=0, progress=False)
    with (tmp_path / "packed/videos.csv").open(newline="") as file:
        assert {row["id"]: row["group"] for row in csv.DictReader(file)} == {row[0]: row[2] for row in PEOPLE}
    packed = DataConfig(root=str(tmp_path / "packed"), source="csv")
    assert groups(read_records(packed, "val")) == groups(read_records(config, "val"))
