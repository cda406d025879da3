"""Cameras over RTSP, of a real server: frames, logins, and a server that dies, hangs and returns."""

import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.rtsp import RtspServer, rtsp_server
from vsn import cli
from vsn.config import LiveConfig
from vsn.data.video import VideoError
from vsn.stream.source import Source, SourceFrame

pytestmark = pytest.mark.needs("rtsp")
QUICK = LiveConfig(reconnect_wait=0.1, stall_seconds=1.0, reconnects=20)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    with rtsp_server() as server:
        yield server


def grays_of(source: Source, frames: list[SourceFrame]) -> set[int]:
    return {round(float(source.picture(frame, None).mean())) for frame in frames}


def test_frames_of_a_camera(server: RtspServer):
    source = Source(server.url(96), QUICK)
    assert (source.finite, source.frames_per_second) == (False, 20.0)
    frames = list(itertools.islice(source.frames(threading.Event()), 20))
    source.close()
    assert grays_of(source, frames) <= {95, 96, 97}
    assert frames[0].seconds == 0.0
    steps = [after.seconds - before.seconds for before, after in itertools.pairwise(frames)]
    assert sum(steps) / len(steps) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("failure", ["killed", "hanging"])
def test_a_server_that_fails_in_mid_stream_and_returns(server: RtspServer, failure: str):
    source = Source(server.url(64), QUICK)
    frames: list[SourceFrame] = []
    for frame in source.frames(threading.Event()):
        frames.append(frame)
        if len(frames) == 10:
            if failure == "killed":
                server.kill()
                threading.Timer(0.5, server.start).start()
            else:
                server.hang()
                threading.Timer(3 * QUICK.stall_seconds, server.wake).start()
        if (frame.part and len(frames) >= 20) or len(frames) == 200:
            break
    source.close()
    assert source.reconnected == 1
    assert grays_of(source, frames) <= {63, 64, 65}
    # One clock over both connections, and a break that no window spans.
    assert [frame.part for frame in frames] == sorted(frame.part for frame in frames)
    assert {frame.part for frame in frames} == {0, 1}
    assert all(before.seconds < after.seconds for before, after in itertools.pairwise(frames))


def test_a_server_that_does_not_return(server: RtspServer):
    source = Source(server.url(64), LiveConfig(reconnect_wait=0.0, reconnects=2))
    frames = source.frames(threading.Event())
    next(frames)
    server.kill()
    with pytest.raises(VideoError, match=r"connection was lost \(.*2 attempts in a row failed.*--reconnects"):
        list(frames)


def test_a_server_that_does_not_answer(server: RtspServer):
    server.hang()
    with pytest.raises(VideoError, match=r"no answer for 0\.5 seconds"):
        Source(server.url(64), LiveConfig(stall_seconds=0.5))


def test_logins():
    with rtsp_server(("me", "secret")) as server:
        source = Source(server.url(64, "me:secret"), QUICK)
        assert next(iter(source.frames(threading.Event()))).seconds == 0.0
        source.close()
        for login in ("", "me:guess"):
            with pytest.raises(VideoError, match="401 Unauthorized") as error:
                Source(server.url(64, login), QUICK)
            assert "guess" not in str(error.value)


def test_a_path_that_the_camera_does_not_have(server: RtspServer):
    with pytest.raises(VideoError, match="404 Not Found"):
        Source(server.url(1), QUICK)


def test_the_command_labels_a_camera_whose_server_restarts(
    server: RtspServer, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "labels.jsonl"

    def restart() -> None:
        server.kill()
        server.start()

    timer = threading.Timer(1.5, restart)
    timer.start()
    cli.main(
        ["stream", str(finished_run), server.url(64), "--seconds", "0.4", "--out", str(out), "--stop-after", "4",
         "--reconnect-wait", "0.1", "--reconnects", "20", "--device", "cpu"]
    )  # fmt: skip
    timer.join()
    windows = [json.loads(line) for line in out.read_text().splitlines()]
    assert windows[-1]["end"] > 3
    assert all(0.3 < window["end"] - window["start"] < 0.6 for window in windows)
    assert "reconnected 1 times" in capsys.readouterr().err
