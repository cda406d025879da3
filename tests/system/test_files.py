import contextlib
import math
import os
from pathlib import Path

import pytest

from vsn.config import ConfigError
from vsn.system import files
from vsn.system.files import (
    atomic_write,
    check_output_folder,
    remove_temporary_files,
    to_json,
    write_csv,
    write_json,
    write_text,
)


def test_text_and_json(tmp_path: Path):
    write_text(tmp_path / "deep" / "a.txt", "grün\n")
    write_json(tmp_path / "deep" / "a.json", {"a": "ü"})
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "grün\n"
    assert (tmp_path / "deep" / "a.json").read_text(encoding="utf-8") == '{\n  "a": "ü"\n}\n'


def test_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"out\.html"), atomic_write(tmp_path / "out.html"):
        raise OSError(28, "No space left on device")  # as a write raises it, without a name


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
@pytest.mark.parametrize("existed", [True, False])
def test_failure_leaves_what_was_there(tmp_path: Path, error: BaseException, existed: bool):
    path = tmp_path / "a.bin"
    if existed:
        path.write_bytes(b"previous")

    def half_write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        half_write()
    assert [p.name for p in tmp_path.iterdir()] == (["a.bin"] if existed else [])
    assert not existed or path.read_bytes() == b"previous"


def test_seen_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"previous")
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".npz"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"previous"
    assert path.read_bytes() == b"new"


def test_rights_are_those_of_any_new_file(tmp_path: Path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert os.stat(tmp_path / "ours").st_mode == os.stat(tmp_path / "plain").st_mode


def test_folder_that_cannot_be(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "below", "x")


# --- folders ---------------------------------------------------------------------------------------


def test_a_folder_is_complete_or_absent(tmp_path: Path):
    with atomic_write(tmp_path / "v.1", folder=True) as folder:
        (folder / "a.jpg").write_bytes(b"")
        assert not (tmp_path / "v.1").exists()
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["v.1", "v.1/a.jpg"]
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "v.1").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_temporary_files_of_killed_writers_are_removed_and_others_kept(tmp_path: Path):
    for name in (".1-abcd_123.vsnflow", ".v.1-abcd1234", ".2-abcd_123.vsnflow", ".hidden", "1.vsnflow"):
        (tmp_path / name).touch()
    (tmp_path / ".3-abcd1234").mkdir()
    (tmp_path / ".3-abcd1234" / "a.jpg").touch()
    remove_temporary_files([*(tmp_path / name for name in ("1.vsnflow", "v.1", "3")), tmp_path / "absent" / "4"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".2-abcd_123.vsnflow", ".hidden", "1.vsnflow"]


def test_csv(tmp_path: Path):
    write_csv(tmp_path / "a.csv", [("path", "reason"), (Path("ü.mp4"), 'no "frame", none')])
    assert (tmp_path / "a.csv").read_bytes().decode() == 'path,reason\nü.mp4,"no ""frame"", none"\n'


SETTINGS = {"format": 1, "size": {"short": 8, "crops": [1, 2]}}


@pytest.mark.parametrize(
    ("stored", "difference"),
    [
        (SETTINGS | {"versions": "ignored"}, None),
        ({"format": 1, "size": {"short": 9, "crops": [1, 2]}}, r"size\.short is 9 there, 8 here"),
        ({"format": 1, "size": {"short": 8}}, r"size\.crops is None there, \[1, 2\] here"),
        ({"size": SETTINGS["size"]}, r"format is None there, 1 here"),
        ({**SETTINGS, "size": {**SETTINGS["size"], "long": 3}}, r"size\.long is 3 there, None here"),
        ([1, 2], r"unfinished\.json"),
    ],
)
def test_output_continues_with_the_same_settings_only(tmp_path: Path, stored, difference: str | None):
    write_json(tmp_path / "unfinished.json", stored)
    names = ("finished.json", "unfinished.json")
    if difference is None:
        check_output_folder(tmp_path, SETTINGS, names=names)
        return
    with pytest.raises(ConfigError, match=difference):
        check_output_folder(tmp_path, SETTINGS, names=names)


def test_output_is_not_mixed_with_other_files(tmp_path: Path):
    check_output_folder(tmp_path, SETTINGS, names=("a.json",))
    check_output_folder(tmp_path / "absent", SETTINGS, names=("a.json",))
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"a\.json"):
        check_output_folder(tmp_path, SETTINGS, names=("a.json",))
    with pytest.raises(ConfigError, match=r"notes\.txt is a file"):
        check_output_folder(tmp_path / "notes.txt", SETTINGS, names=("a.json",))


@pytest.mark.parametrize(
    ("value", "name"),
    [(math.nan, "the value"), ({"a": [1, {"b": -math.inf}]}, r"a\[1\]\.b"), ([0.0, math.inf], r"\[1\]")],
)
def test_json_without_a_form_for_a_number_is_refused(tmp_path: Path, value: object, name: str):
    with pytest.raises(ValueError, match=rf"^{name} is (nan|-?inf)"):
        write_json(tmp_path / "x.json", value)
    assert list(tmp_path.iterdir()) == []


def test_json_is_what_other_programs_read():
    assert to_json({"é": (1, None)}) == '{"é": [1, null]}'


def test_a_folder_in_place_of_a_file(tmp_path: Path):
    with pytest.raises(ConfigError, match=f"{tmp_path} is a folder"):
        write_text(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("num_refused", "written"), [(2, True), (9, False)])
def test_a_file_that_another_program_has_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_refused: int, written: bool
):
    """As on Windows, where a virus scanner opens what was just written."""
    refusals = iter(range(num_refused))
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if next(refusals, None) is not None:
            raise PermissionError(13, "in use")
        return rename(self, target)

    monkeypatch.setattr(files, "_RENAME_WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setattr(Path, "replace", replace)
    with contextlib.nullcontext() if written else pytest.raises(PermissionError):
        write_text(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] * written
