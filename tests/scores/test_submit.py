import json
import math
from pathlib import Path

import pytest

from tests.helpers.made_scores import random_scores, scores_of, several
from vsn.scores.scores import ScoresError
from vsn.scores.submit import (
    check_complete,
    mark,
    read_answers,
    read_indices,
    read_video_ids,
    server_ids,
    submission,
)

SIX = ["f", "e", "d", "c", "b", "a"]
ROWS = [[6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6], [0, 0, 9, 0, 0, 1]]
IDS = ["videos/107.webm", "videos/20.webm", "folder/3"]


def six(**options):
    return scores_of(ROWS, [-1, -1, -1], ids=IDS, classes=SIX, **options)


def test_something_v1_has_one_class_text_per_line():
    assert submission(six(), "something-v1") == "3;d\n20;a\n107;f\n"


def test_something_v2_has_five_official_indices_per_line():
    indices = {"a": 10, "b": 11, "c": 12, "d": 13, "e": 14, "f": 15}
    assert submission(six(), "something-v2", indices=indices) == (
        "3;13;10;15;14;12\n20;10;11;12;13;14\n107;15;14;13;12;11\n"
    )


def test_ids_have_no_folder_and_suffix():
    assert server_ids(six()) == ["107", "20", "3"]
    for ids in (["a/1.webm", "b/1.mp4"], ["1.mp4", "1.mp4#reversed"], ["1", "1#reversed"]):
        with pytest.raises(ScoresError, match="id '1'"):
            server_ids(scores_of([[1, 0]] * 2, [0, 0], ids=ids))


@pytest.mark.parametrize(
    ("scores", "server", "indices", "message"),
    [
        (several([[1, 0]], [[1, 0]]), "something-v1", None, "multi-label"),
        (
            scores_of([[math.nan] * 2], [0]),
            "something-v1",
            None,
            r"1 videos .*'0\.mp4'",
        ),
        (scores_of([[1, 0]], [0], classes=["a;b", "c"]), "something-v1", None, "'a;b'"),
        (six(), "something-v2", None, "--labels"),
        (six(), "something-v2", {"a": 1}, "5 of 6 classes.*'f'"),
        (scores_of([[1, 0]], [0]), "something-v2", {"a": 0, "b": 1}, "5 or more classes, got 2"),
    ],
)
def test_scores_a_server_would_reject(scores, server, indices, message: str):
    with pytest.raises(ScoresError, match=message):
        submission(scores, server, indices=indices)


def test_official_files(tmp_path: Path):
    (tmp_path / "labels.json").write_text(json.dumps({"Holding something": "0", "Moving": "12"}))
    assert read_indices(tmp_path / "labels.json") == {"Holding something": 0, "Moving": 12}
    (tmp_path / "test.csv").write_text("107\n20\n\n3\n")
    (tmp_path / "test.json").write_text(json.dumps([{"id": "107"}, {"id": 20}]))
    assert read_video_ids(tmp_path / "test.csv") == {"107", "20", "3"}
    assert read_video_ids(tmp_path / "test.json") == {"107", "20"}
    (tmp_path / "answers.csv").write_text("107;Holding something\n20;Moving\n")
    assert read_answers(tmp_path / "answers.csv") == {"107": "Holding something", "20": "Moving"}


@pytest.mark.parametrize(
    ("reader", "name", "content", "message"),
    [
        (read_indices, "l.json", "[1]", "not a label file"),
        (read_indices, "l.json", '{"a": "x"}', "not a label file"),
        (read_indices, "l.json", '{"a": "1", "b": "1"}', "same index"),
        (read_indices, "l.json", "{", "is not JSON"),
        (read_video_ids, "t.json", '{"id": 1}', "is not a split"),
        (read_video_ids, "t.csv", "1\n1\n", "2 lines with 1 different"),
        (read_video_ids, "t.csv", "", "0 lines"),
        (read_answers, "a.csv", "1;x\n2\n", r"line 2: .*'2'"),
        (read_answers, "a.csv", "1;x\n1;y\n", "line 2: .*'1;y'"),
        (read_answers, "a.csv", "\n", "has no answers"),
    ],
)
def test_invalid_files(tmp_path: Path, reader, name: str, content: str, message: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(ScoresError, match=message):
        reader(tmp_path / name)
    with pytest.raises(ScoresError, match="cannot be read"):
        reader(tmp_path / f"no-{name}")


def test_complete_split():
    check_complete(six(), {"107", "20", "3"})
    with pytest.raises(ScoresError, match=r"lack 1 videos.*'4'.* 4 videos.* got 3"):
        check_complete(six(), {"107", "20", "3", "4"})
    with pytest.raises(ScoresError, match=r"have.* 1 videos.*'3'"):
        check_complete(six(), {"107", "20"})


def test_mark_by_answers():
    marks = mark(six(), {"107": "f", "20": "b", "3": "d"})
    assert (marks.top1, marks.top5) == (pytest.approx(2 / 3), 1.0)
    low, high = marks.top1_interval
    assert low <= 2 / 3 <= high
    # 3's score of c ties with three others: five, of which the last is no better than any.
    assert mark(six(), {"107": "a", "20": "f", "3": "c"}).top5 == 0.0
    with pytest.raises(ScoresError, match=r"1 classes.*'g'"):
        mark(six(), {"107": "f", "20": "b", "3": "g"})
    with pytest.raises(ScoresError, match=r"have.* 2 videos"):
        mark(six(), {"107": "f"})


def test_one_line_per_video():
    text = submission(random_scores(1, num_videos=50, num_classes=10), "something-v1")
    assert [int(line.split(";")[0]) for line in text.splitlines()] == list(range(50))
