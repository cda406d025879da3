import re
from pathlib import Path

import pytest

from tests.helpers.laid_out import touch
from vsn.config import ConfigError
from vsn.data.records import VIDEO_EXTENSIONS, VideoRecord, is_video, list_videos, walk_folders


@pytest.mark.parametrize(("labels", "label"), [((), -1), ((3,), 3), ((2, 5), 2)])
def test_the_only_label_or_the_first(labels: tuple[int, ...], label: int) -> None:
    assert VideoRecord(Path("x.mp4"), labels, "x").label == label


def test_list_videos_at_any_depth(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.MP4",
        "a.webm",
        "deep/er/c.avi",
        "deep/.hidden.mp4",
        ".cache/d.mp4",
        "notes.txt",
        "deep/e.jpg",
    )
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "deep/up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    found = [path.relative_to(tmp_path).as_posix() for path in list_videos(tmp_path)]
    assert found == ["a.webm", "b.MP4", "deep/er/c.avi"]


def test_list_videos_says_what_it_looked_for(tmp_path: Path) -> None:
    expected = f"{tmp_path}: no videos were found; expected files ending in .3gp .asf .avi"
    with pytest.raises(ConfigError, match=re.escape(expected)):
        list_videos(touch(tmp_path, "a.txt"))


def test_walk_lets_the_caller_stay_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.txt", "b/2.txt", "b/.git/3.txt", "0.txt")
    walked = []
    for folder, folders, files in walk_folders(tmp_path):
        walked.append((folder.relative_to(tmp_path).as_posix(), files))
        if "a" in folders:
            folders.remove("a")
    assert walked == [(".", ["0.txt"]), ("b", ["2.txt"])]


@pytest.mark.parametrize("extension", sorted(VIDEO_EXTENSIONS))
def test_is_video(tmp_path: Path, extension: str) -> None:
    names = (f"a{extension.upper()}", f".b{extension}", "c.txt")
    touch(tmp_path, *names)
    assert [is_video(tmp_path / name) for name in names] == [True, False, False]
