"""What tests share: the folder of trial data when there is one, and a few tiny videos."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from vsn.allocator import keep_freed_memory
from vsn.data.decode import write_video

GREY_STEP = 8
TINY_CLASSES = ("swipe_left", "swipe_right", "wave")


def pytest_configure() -> None:
    """Let Ctrl-C interrupt (in the background a shell has it ignored), and keep freed memory as the command does.

    Generated examples have no deadline: on a busy machine the 200 ms that hypothesis allows pass by themselves.
    """
    settings.register_profile("no deadline", deadline=None)
    settings.load_profile("no deadline")
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.default_int_handler)


def grey_frames(num_frames: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frame i is one grey, 8 * i: its number survives compression."""
    return [np.full((height, width, 3), GREY_STEP * i, np.uint8) for i in range(num_frames)]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and papers beside the checkout; without it the test is skipped."""
    stated = os.environ.get("VSN_SHARED")
    folder = Path(stated) if stated else Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no trial data at {folder} (VSN_SHARED names another place)")
    return folder


@pytest.fixture(scope="session")
def frame_numbers() -> Callable[..., list[int]]:
    """Reads frame numbers back from `grey_frames`, of an array or tensor with frames first."""

    def numbers(frames: object) -> list[int]:
        images = np.asarray(frames, dtype=np.float64)
        return np.rint(images.reshape(len(images), -1).mean(axis=1) / GREY_STEP).astype(int).tolist()

    return numbers


@pytest.fixture(scope="session")
def grey_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames, 32x48 pixels, 12 a second; frame i is grey 8 * i."""
    path = tmp_path_factory.mktemp("grey") / "grey.mp4"
    write_video(path, grey_frames(30), frames_per_second=12)
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as class/video: 3 classes of 5 grey videos, 32x48 pixels; video i has 10 + i frames."""
    root = tmp_path_factory.mktemp("tiny")
    for name in TINY_CLASSES:
        for i in range(5):
            write_video(root / name / f"{i}.mp4", grey_frames(10 + i), frames_per_second=10)
    return root
