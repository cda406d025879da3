"""A tiny model, served on loopback by a real server, whose decoders hang and die where a file says so."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from tests.helpers.external import chromium
from tests.helpers.fake_runs import write_eval
from tests.helpers.planted import planted_decode
from tests.helpers.tiny_runs import tiny_recipe
from vsn.config import ServeConfig
from vsn.data.video import write_video
from vsn.models import build_model
from vsn.runs.checkpoint import save_weights
from vsn.runs.metadata import write_run
from vsn.runs.run import new_run
from vsn.serve.models import open_model
from vsn.serve.server import make_server
from vsn.serve.service import Service

KEY, OTHER = "k" * 24, "colon:and/slash+0123456789"
"""API keys of alice and bob."""
CLASSES = ("swipe left", "swipe right", "wave")
LIMITS = ServeConfig(
    port=0,
    top_k=2,
    max_upload_mb=1.0,
    max_seconds=12.0,
    max_pixels=640 * 480,
    decode_seconds=3.0,
    decode_memory_mb=400.0,
    max_requests=6,
    max_batch=4,
    batch_wait_ms=20.0,
    timeline_seconds=3.0,
    window_seconds=1.0,
    max_windows=4,
    shutdown_seconds=0.5,
)


def make_video(
    path: Path, *, num_frames: int = 12, size: tuple[int, int] = (32, 48), rate: float = 10.0, seed: int = 0
) -> Path:
    """A video of coarse noise, so that predictions differ."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (num_frames, size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    write_video(path, coarse.repeat(8, axis=1).repeat(8, axis=2), frames_per_second=rate)
    return path


@pytest.fixture(scope="session")
def served_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with random weights and a result of `vsn eval`."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    run = new_run(path, tiny_recipe(Path("nowhere")), CLASSES)
    write_run(run)
    torch.manual_seed(0)
    model = build_model(run.recipe.model)
    with torch.no_grad():
        model.head.weight.normal_(0, 0.3)  # the initial ones are too small to tell videos apart
    save_weights(run, model)
    labels = np.arange(30) % 3
    write_eval(path, "forward", np.eye(3)[labels] + 0.1, labels, CLASSES)
    return path


@dataclass(frozen=True)
class Live:
    """A running service."""

    url: str
    service: Service
    uploads: Path

    def client(self, **settings: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60, **settings)

    def metric(self, name: str, **labels: str) -> float:
        value = self.service.metrics.registry.get_sample_value(name, labels)
        return value or 0.0

    def files(self) -> list[Path]:
        return list(self.uploads.glob("*/upload-*"))


def wait_until(condition, what: str) -> None:
    """Look again and again, for no longer than a minute."""
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"after a minute still not: {what}")


class LiveServer:
    """`with LiveServer(service) as url`: uvicorn in a thread, on a free port of loopback."""

    def __init__(self, service: Service) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._server = make_server(service)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def __enter__(self) -> str:
        self._thread.start()
        wait_until(lambda: self._server.started, "the server has started")
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="session")
def live(served_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    uploads = tmp_path_factory.mktemp("uploads")
    service = Service(open_model(served_run, device="cpu"), LIMITS, decode=planted_decode, uploads=uploads)
    with LiveServer(service) as url:
        wait_until(lambda: not service.why_not_ready(), "a decoder is ready")
        yield Live(url, service, uploads)
    assert list(uploads.iterdir()) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, with a camera that shows a test picture."""
    with chromium("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream") as running:
        yield running


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of 32x48 pixels, 1.2 seconds."""
    return make_video(tmp_path_factory.mktemp("clips") / "clip.mp4")


def key_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "keys.txt"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture(scope="session")
def guarded(served_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service that needs a key, of alice or of bob."""
    folder = tmp_path_factory.mktemp("keys")
    config = replace(LIMITS, api_key_file=key_file(folder, f"# of the lab\n\nalice:{KEY}\n bob:{OTHER} \n"))
    (folder / "uploads").mkdir()
    model = open_model(served_run, device="cpu")
    service = Service(model, config, decode=planted_decode, uploads=folder / "uploads")
    with LiveServer(service) as url:
        wait_until(lambda: not service.why_not_ready(), "it is ready")
        yield Live(url, service, folder / "uploads")
