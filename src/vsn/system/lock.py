"""Lock an output folder for one writer. The system releases the lock when the process ends, however it ends."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LOCK_FILE = ".lock"
_POSITION = 1 << 30  # Windows forbids reading locked bytes, and the text at the start names the holder
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


class LockError(ValueError):
    """A folder that another process writes into, or that was renamed or deleted while this one did."""


_OWN: set[Path] = set()
"""Lock files that this process holds: opening and closing one of them would release its lock."""


class FolderLock:
    """The lock that this process holds on a folder."""

    def __init__(self, folder: Path, handle: int, name: str) -> None:
        self.folder, self._handle, self._path = folder, handle, folder / name

    @property
    def is_in_place(self) -> bool:
        """Whether the folder is still the one that was locked."""
        try:
            return os.path.samestat(os.fstat(self._handle), self._path.stat())
        except OSError:
            return False

    def check(self) -> None:
        """Raise `LockError` if the folder was renamed or deleted: writing would make a second one of its name."""
        if not self.is_in_place:
            raise LockError(
                f"The folder {self.folder} was renamed, moved or deleted while it was written. Nothing more is written "
                "there; what was saved before is where it is now. Move it back or go on from its new place."
            )


@contextlib.contextmanager
def lock_folder(folder: Path, *, name: str = LOCK_FILE) -> Iterator[FolderLock]:
    """Create a folder if it is missing, and hold it for this process; it is removed if it stays empty.

    A file system without locks, such as some network disks, is used without one.

    Args:
        folder: where output is about to be written.
        name: of the file that is locked, for several writers that may share the folder.

    Raises:
        LockError: another process holds it; the message names the process and its machine.
        OSError: the folder cannot be written.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    lock = FolderLock(folder, _open_locked(folder, name), name)
    own = (folder / name).resolve()
    _OWN.add(own)
    try:
        yield lock
    finally:
        _OWN.discard(own)
        # Deleted while it is locked, so that no other process can have it; a renamed folder keeps it, unlocked.
        if lock.is_in_place:
            with contextlib.suppress(OSError):
                (folder / name).unlink()
        os.close(lock._handle)
        with contextlib.suppress(OSError):
            for path in missing:
                path.rmdir()


def is_locked(folder: Path, *, without_locks: bool = False) -> bool:
    """Return whether a process holds a folder with `lock_folder`; it may end at any moment.

    ``without_locks`` is the answer for a file system that has no locks.
    """
    path = (folder / LOCK_FILE).resolve()
    if path in _OWN:
        return True
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return False
    try:
        _lock(handle, shared=True)
    except OSError as error:
        return error.errno in _HELD or without_locks
    else:
        return False
    finally:
        os.close(handle)  # releases it


def _open_locked(folder: Path, name: str) -> int:
    path = folder / name
    for attempt in itertools.count():
        folder.mkdir(parents=True, exist_ok=True)  # the last holder may have removed it
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            _lock(handle)
        except OSError as error:
            # "No locks available" and the like: a file system without them.
            if error.errno in _HELD:
                # `is_locked` of another process holds it for an instant.
                if attempt < 3:
                    os.close(handle)
                    time.sleep(0.02)
                    continue
                holder = _read_holder(handle)
                os.close(handle)
                raise LockError(
                    f"{folder} is being written by {holder}. Wait until it ends, stop it, or choose another folder."
                ) from None
        # The last holder may have deleted the file between our two calls: then this is a lock on nothing.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        os.close(handle)
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return handle


def _read_holder(handle: int) -> str:
    """Return what the holder of a lock wrote; it may have the lock already, and be about to write."""
    for _ in range(100):
        if holder := os.pread(handle, 200, 0) if hasattr(os, "pread") else os.read(handle, 200):
            return holder.decode(errors="replace")
        time.sleep(0.01)
    return "another process"


# Locks of a process (POSIX), not of an open file (`flock`): a worker that a killed process has forked does not keep them,
# and they work between machines on NFS.
if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int, *, shared: bool = False) -> None:
        os.lseek(handle, _POSITION, os.SEEK_SET)
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(handle, 0, os.SEEK_SET)  # where `_read_holder` reads
else:
    import fcntl

    def _lock(handle: int, *, shared: bool = False) -> None:
        # A shared lock needs no permission to write, and is refused too while the other holds the file.
        fcntl.lockf(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, _POSITION)
