"""One writer for a folder, until the process ends."""

import contextlib
import errno
import multiprocessing
import os
import socket
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from vsn.config import DataConfig
from vsn.data.embedded import write
from vsn.data.flow import extract
from vsn.data.packing import pack
from vsn.data.per_video import videos_of_folder
from vsn.system import lock as lock_module
from vsn.system.lock import LOCK_FILE, LockError, lock_folder

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, answer: Connection) -> None:
    try:
        with lock_folder(folder):
            answer.send(os.getpid())
            answer.recv()
    except LockError as error:
        answer.send(str(error))


def start_async(folder: Path) -> tuple[multiprocessing.process.BaseProcess, Connection]:
    """Start a process that holds the folder until it is told to end; it answers its number, or the error."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=hold, args=(folder, theirs), daemon=True)
    process.start()
    return process, ours


def start(folder: Path) -> tuple[multiprocessing.process.BaseProcess, Connection, int | str]:
    process, talk = start_async(folder)
    assert talk.poll(20)
    return process, talk, talk.recv()


def test_the_second_writer_is_told_who_is_the_first(tmp_path: Path):
    folder = tmp_path / "a" / "run"
    first, talk, pid = start(folder)
    message = f"run is being written by process {pid} on {socket.gethostname()}"
    with pytest.raises(LockError, match=message), lock_folder(folder):
        pass
    assert (folder / LOCK_FILE).exists()
    talk.send(None)
    first.join()
    assert not (tmp_path / "a").exists()  # nothing was written in it
    with lock_folder(folder):
        assert "being written" in start(folder)[2]
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_a_killed_writer_holds_nothing(tmp_path: Path):
    first, _, _ = start(tmp_path)
    first.kill()
    first.join()
    assert (tmp_path / LOCK_FILE).exists()
    with lock_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_a_killed_writer_holds_nothing(tmp_path: Path):
    """Workers of a loader are forked, and live some seconds longer."""
    with lock_folder(tmp_path):
        worker = FORK.Process(target=time.sleep, args=(30,), daemon=True)
        worker.start()
    second, _, answer = start(tmp_path)
    for process in (second, worker):  # neither outlives the test
        process.kill()
        process.join()
    assert isinstance(answer, int)


def test_a_folder_that_was_renamed_or_replaced(tmp_path: Path):
    folder = tmp_path / "run"
    with lock_folder(folder) as lock:
        lock.check()
        folder.rename(tmp_path / "renamed")
        with pytest.raises(LockError, match="run was renamed"):
            lock.check()
        with lock_folder(folder):  # another run under the old name
            with pytest.raises(LockError):
                lock.check()
            (folder / "theirs").touch()
    assert (folder / "theirs").exists()


def test_of_many_at_once_one_holds_it(tmp_path: Path):
    for _ in range(5):
        started = [start_async(tmp_path / "run") for _ in range(4)]
        answers = [talk.recv() for _, talk in started]
        holders = [answer for answer in answers if isinstance(answer, int)]
        assert len(holders) == 1
        assert all(str(holders[0]) in answer for answer in answers if isinstance(answer, str))
        for process, talk in started:
            with contextlib.suppress(BrokenPipeError):  # it was refused, and has ended
                talk.send(None)
            process.join()


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock_module, "_lock", none)
    with lock_folder(tmp_path) as lock:
        lock.check()


@pytest.mark.parametrize("command", ["extract", "extract a shard", "synth", "pack"])
def test_commands_that_write_a_folder_hold_it(
    command: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A second process with the same output is refused while the first works, and touches nothing."""
    out, options = tmp_path / "out", {"num_workers": 0, "progress": False}
    shard = {"shard": (1, 3)} if "shard" in command else {}
    videos = videos_of_folder(tiny_data)
    module, function, work = {
        "extract": (extract, "_extract", lambda: extract.extract_flow(videos, out, **shard, **options)),
        "synth": (write, "_write", lambda: write.write_dataset(out, **options)),
        "pack": (pack, "write_shard", lambda: pack.pack_dataset(DataConfig(root=str(tiny_data)), out, **options)),
    }[command.partition(" ")[0]]
    refused: list[str] = []

    def second(*_: object, **__: object) -> None:
        before = sorted(path.name for path in out.iterdir())
        ours, theirs = FORK.Pipe()

        def again() -> None:
            try:
                work()
            except LockError as error:
                theirs.send(str(error))

        process = FORK.Process(target=again, daemon=True)
        process.start()
        assert ours.poll(20)
        refused.append(ours.recv())
        process.join()
        assert sorted(path.name for path in out.iterdir()) == before
        raise KeyboardInterrupt

    monkeypatch.setattr(module, function, second)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert len(refused) == 1
    assert f"is being written by process {os.getpid()}" in refused[0]
    assert not list(out.glob(f"{LOCK_FILE}*"))
