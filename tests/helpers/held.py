"""Hold a folder in another process."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def held_elsewhere(folder: Path) -> Iterator[int]:
    """Another process writes into the folder; yields its number."""
    code = "import sys, vsn.system.lock as l\nwith l.lock_folder(l.Path(sys.argv[1])): print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield holder.pid
        holder.communicate(b"\n")
