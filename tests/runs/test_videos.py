"""The videos of a run, and how they have changed when it is resumed."""

from dataclasses import replace
from pathlib import Path

import pytest

from vsn.config import Recipe
from vsn.data.records import VideoRecord
from vsn.runs.run import Run, RunError
from vsn.runs.videos import Videos, count_trained, count_validated, list_videos_of_run, read_videos, record_videos

CLASSES = ("a", "b", "c")


def records(**labels: int | tuple[int, ...]) -> list[VideoRecord]:
    return [
        VideoRecord(Path(name), label if isinstance(label, tuple) else (label,), name) for name, label in labels.items()
    ]


TRAIN, VAL = records(x=0, y=1, z=2), records(v=0, w=1)


@pytest.mark.parametrize(
    ("train", "val", "said"),
    [
        (TRAIN, VAL, ""),
        (TRAIN[::-1], VAL, ""),  # the order of the records is that of the reader
        (TRAIN[1:], VAL, "training videos: 1 removed ('x'), none left of 'a'."),
        (TRAIN, VAL[:1], "validation videos: 1 removed ('w'), none left of 'b'."),
        ([*TRAIN, *records(n=0, m=1, o=2)], VAL, "training videos: 3 added ('n', 'm', ...)."),
        (records(x=0, y=2, z=2), VAL, "training videos: 1 with another label ('y'), none left of 'b'."),
        (records(x=0, y=(1, 2), z=2), VAL, "1 with another label ('y')"),
        ([*TRAIN[:2], VAL[0]], [TRAIN[2], VAL[1]],
         "training videos: 1 removed ('z'), 1 added ('v'), none left of 'c'; validation"),
    ],
)  # fmt: skip
def test_changes_are_described(tmp_path: Path, train: list[VideoRecord], val: list[VideoRecord], said: str) -> None:
    assert record_videos(tmp_path, list_videos_of_run(TRAIN, VAL, CLASSES)) == []
    lines = record_videos(tmp_path, list_videos_of_run(train, val, CLASSES))
    assert len(lines) == bool(said)
    assert said in "".join(lines)


def test_other_files_under_the_same_names_are_told(tmp_path: Path) -> None:
    """A folder of frames is told by the bytes of its frames, and a video in a packed file is on no disk."""
    for folder in ("run", "one/z", "two/z"):
        (tmp_path / folder).mkdir(parents=True)
    for folder, size in (("one", 3), ("two", 4)):
        (tmp_path / folder / "x").write_bytes(b"x" * size)
        (tmp_path / folder / "y").write_bytes(b"same")
        (tmp_path / folder / "z/1.jpg").write_bytes(b"z" * size)

    def listed(folder: str) -> Videos:
        return list_videos_of_run(
            [replace(record, path=tmp_path / folder / record.path) for record in TRAIN], VAL, CLASSES
        )

    assert record_videos(tmp_path / "run", listed("one")) == []
    assert record_videos(tmp_path / "run", listed("one")) == []
    (note,) = record_videos(tmp_path / "run", listed("two"))
    assert "has changed since this run began; other files under the same names: 2 ('x', 'z'). The run" in note


def test_of_many_videos_a_part_is_compared(tmp_path: Path) -> None:
    """The files are 1 byte large, and then 2."""
    many = [VideoRecord(tmp_path / "file", (0,), f"{index:05}") for index in range(2001)]
    for size in (1, 2):
        (tmp_path / "file").write_bytes(b"x" * size)
        notes = record_videos(tmp_path, list_videos_of_run(many, [], CLASSES))
    assert "other files under the same names: 667 of 667 compared ('00000', '00003', ...)" in notes[0]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    videos = list_videos_of_run(records(**{"a\udcff": 0}), VAL, CLASSES)
    record_videos(tmp_path, videos)
    assert read_videos(tmp_path) == {"before": {}, "times": {}, **videos}
    assert record_videos(tmp_path, videos) == []


def test_what_the_weights_of_the_start_were_trained_on_counts_too(tmp_path: Path) -> None:
    """Also by way of a run between: a was trained on x, y and z, b started from a, and c from b."""
    a, b, c = (tmp_path / name for name in "abc")
    for path in (a, b, c):
        path.mkdir()
    record_videos(a, list_videos_of_run(TRAIN, VAL, CLASSES))
    assert record_videos(b, list_videos_of_run(records(n=0), records(m=1), CLASSES), start=a) == []
    videos = list_videos_of_run(records(o=0), records(**{"x": 1, "x#reversed": 0, "n": 2, "v": 0}), CLASSES)
    (note,) = record_videos(c, videos, start=b)
    assert note.startswith(f"The weights to start from ({b}) were trained on 2 of the 3 validation videos ('n', 'x')")
    assert record_videos(c, videos) == []  # resumed
    run = Run(c, Recipe(), CLASSES)
    assert count_trained(run, ["o", "n", "x#reversed", "v", "m"]) == 3
    assert count_trained(run, ["v", "m"]) is None
    assert count_validated(run, "val", ["x", "n", "o"]) == 2


def test_a_run_that_recorded_none(tmp_path: Path) -> None:
    assert read_videos(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", '{"train": {}}', '{"train": {}, "val": 3}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "videos.json").write_text(text)
    with pytest.raises(RunError, match=r"videos.json cannot be read.*Delete it"):
        read_videos(tmp_path)
