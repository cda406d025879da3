"""What tests share: the folder of trial data when there is one, and a few tiny videos."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings
from rich.console import Console

from tests.helpers.external import check_required, components_of, skip_without_components
from tests.helpers.packs import moving_texture, pack, packed_config
from tests.helpers.tiny_runs import tiny_recipe
from vsn.data.readers import read_records
from vsn.data.video import write_video
from vsn.system.allocator import keep_freed_memory
from vsn.training.train import train

if TYPE_CHECKING:
    from vsn.export.export import ExportReport

GRAY_STEP = 8
TINY_CLASSES = ("swipe_left", "swipe_right", "wave")


def pytest_configure() -> None:
    """Let Ctrl-C interrupt (in the background a shell has it ignored), and keep freed memory as the command does.

    Generated examples have no deadline: on a busy machine the 200 ms that hypothesis allows pass by themselves.
    """
    check_required()
    settings.register_profile("no deadline", deadline=None)
    settings.load_profile("no deadline")
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.default_int_handler)


_components: dict[str, set[str]] = {}  # test -> what it needs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip_without_components(items)
    _components.update({item.nodeid: components_of(item) for item in items})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests each component had, and how many of them were skipped."""
    counts: dict[str, Counter[str]] = {}  # component -> outcome -> number of tests
    for outcome in ("passed", "failed", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            for name in _components.get(report.nodeid, ()):
                counts.setdefault(name, Counter())[outcome] += 1
    if counts:
        terminalreporter.section("tests of components")
    for name, outcomes in sorted(counts.items()):
        terminalreporter.line(f"{name:<18}" + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))


def gray_frames(num_frames: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frame i is one gray, 8 * i: its number survives compression."""
    return [np.full((height, width, 3), GRAY_STEP * i, np.uint8) for i in range(num_frames)]


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
    """Reads frame numbers back from `gray_frames`, of an array or tensor with frames first."""

    def numbers(frames: object) -> list[int]:
        images = np.asarray(frames, dtype=np.float64)
        return np.rint(images.reshape(len(images), -1).mean(axis=1) / GRAY_STEP).astype(int).tolist()

    return numbers


@pytest.fixture(scope="session")
def gray_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames, 32x48 pixels, 12 a second; frame i is gray 8 * i."""
    path = tmp_path_factory.mktemp("gray") / "gray.mp4"
    write_video(path, gray_frames(30), frames_per_second=12)
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as class/video: 3 classes of 5 gray videos, 32x48 pixels; video i has 10 + i frames."""
    root = tmp_path_factory.mktemp("tiny")
    for name in TINY_CLASSES:
        for i in range(5):
            write_video(root / name / f"{i}.mp4", gray_frames(10 + i), frames_per_second=10)
            with (root / name / f"{i}.mp4").open("ab") as file:  # an empty box: the same pixels, but no copies
                file.write(b"\0\0\0\x18free" + name.encode().ljust(16))
    return root


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that equal means equal to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture
def log() -> Iterator[tuple[Console, Callable[[], str]]]:
    """A console, and what was printed on it."""
    console = Console(record=True, width=300, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    yield console, console.export_text
    console.file.close()


@pytest.fixture(scope="session")
def finished_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory, quiet: Console) -> Path:
    """A VSN trained for two epochs. Not to be changed: copy it."""
    return train(tiny_recipe(tiny_data), tmp_path_factory.mktemp("runs") / "vsn", console=quiet).path


@pytest.fixture(scope="session")
def exported_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> "ExportReport":
    """A copy of the finished run, exported to its export/model.onnx. Not to be changed."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from vsn.export.export import export_run

    run = Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("exported") / "vsn"))
    return export_run(run, check_accuracy=True, progress=False)


@pytest.fixture(scope="session")
def arrow_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 videos whose light moves left to right, each at a height of its own; test clips are exact mirrors in time."""
    root = tmp_path_factory.mktemp("arrow")
    for number in range(4):
        frames = np.full((12, 32, 32, 3), 40, np.uint8)
        for i, frame in enumerate(frames):
            frame[7 * number : 7 * number + 8, 2 * i : 2 * i + 8] = 230
        write_video(root / "train" / "moving" / f"{number}.mp4", frames, frames_per_second=12)
    return root


@pytest.fixture(scope="session")
def packed(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "set"
    pack(tiny_data, out)
    return out


@pytest.fixture
def copy(packed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed, tmp_path / "copy"))


@pytest.fixture(scope="session")
def textured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A video of 40 frames of 64x96 pixels, 12.5 a second, and the same packed as it is."""
    root = tmp_path_factory.mktemp("textured")
    for name in ("a", "b"):
        write_video(root / "set" / name / "0.mp4", moving_texture(40), frames_per_second=12.5, crf=12)
    pack(root / "set", root / "packed", splits=["train"], short_side=256, quality=95)
    read = read_records(packed_config(root / "packed"), "train")
    return root / "set/a/0.mp4", next(r.path for r in read.records if r.video_id == "a/0.mp4")
