import os
from pathlib import Path

import pytest

from vsn.system.files import atomic_write, write_json, write_text


def test_text_and_json(tmp_path: Path):
    write_text(tmp_path / "deep" / "a.txt", "grün\n")
    write_json(tmp_path / "deep" / "a.json", {"a": "ü"})
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "grün\n"
    assert (tmp_path / "deep" / "a.json").read_text(encoding="utf-8") == '{\n  "a": "ü"\n}\n'


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("x")])
@pytest.mark.parametrize("existed", [True, False])
def test_failure_leaves_what_was_there(tmp_path: Path, error: BaseException, existed: bool):
    path = tmp_path / "a.bin"
    if existed:
        path.write_bytes(b"former")

    def half_write() -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        half_write()
    assert [p.name for p in tmp_path.iterdir()] == (["a.bin"] if existed else [])
    assert not existed or path.read_bytes() == b"former"


def test_seen_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "a.npz"
    path.write_bytes(b"former")
    with atomic_write(path) as temporary:
        assert temporary.suffix == ".npz"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"former"
    assert path.read_bytes() == b"new"


def test_rights_are_those_of_any_new_file(tmp_path: Path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert os.stat(tmp_path / "ours").st_mode == os.stat(tmp_path / "plain").st_mode


def test_folder_that_cannot_be(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "below", "x")
