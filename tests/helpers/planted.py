"""What the decoding processes of the tests do: read videos, hang, die or fail, as the file says."""

import os
import signal
import time
from pathlib import Path

from vsn.serve.decoding import Decoded, DecodeJob, decode_upload
from vsn.serve.problems import Problem

HANG, CRASH, FAIL = b"planted: hang", b"planted: crash", b"planted: fail"
KILLED, KILLED_ONCE = b"planted: killed from outside", b"planted: killed if there is no "
"""The second is followed by a path and a line break, and then the video; the file of that path is made first."""
FILL = b"planted: fill"
"""Takes 600 MB of memory."""
WAIT = b"planted: wait for "
"""Is followed by a path, or a path, a line break and a video, which is read as soon as that file is there."""


def planted_decode(job: DecodeJob) -> Decoded | Problem:
    with job.path.open("rb") as file:
        begins = file.read(500)
    if begins.startswith(HANG):
        time.sleep(3600)
    if begins.startswith(CRASH):
        os.kill(os.getpid(), signal.SIGSEGV)
    if begins.startswith(KILLED):
        os.kill(os.getpid(), signal.SIGKILL)
    if begins.startswith(KILLED_ONCE):
        marker = begins.removeprefix(KILLED_ONCE).partition(b"\n")[0]
        if not os.path.exists(marker):
            open(marker, "wb").close()
            os.kill(os.getpid(), signal.SIGKILL)
        drop_first_line(job.path)
    if begins.startswith(FILL):
        fill(600)
    if begins.startswith(FAIL):
        raise KeyError(str(job.path))
    if begins.startswith(WAIT):
        while not os.path.exists(begins.removeprefix(WAIT).partition(b"\n")[0]):
            time.sleep(0.05)
        drop_first_line(job.path)
    return decode_upload(job)


KEPT: list[bytes] = []


def drop_first_line(path: Path) -> None:
    """Leave what follows the instruction: a video, or nothing."""
    path.write_bytes(path.read_bytes().partition(b"\n")[2])


def fill(num_mb: int) -> None:
    """Take memory until stopped."""
    taken = [b"x" * 1_000_000 for _ in range(num_mb)]
    time.sleep(3600 if taken else 0)


def shout(job: str) -> str:
    if job == "hang":
        time.sleep(3600)
    if job == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "fill":
        fill(200)
    if job == "keep":
        KEPT.append(b"x" * 60_000_000)
    if job == "raise":
        raise KeyError("no such thing")
    return str(os.getpid()) if job == "pid" else job.upper()
