"""Live sources: the clock, lost connections, and a queue that does not grow."""

import contextlib
import http.server
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from vsn.config import ConfigError, LiveConfig
from vsn.data.video import VideoError, open_video, write_video
from vsn.stream.reader import LiveReader
from vsn.stream.source import Source, kind_of, shown_name

QUICK = LiveConfig(reconnect_wait=0.0, stall_seconds=5.0, reconnects=3)
RATE = 25
Serve = Callable[..., str]


def write_stream(
    path: Path, numbers: range, *, form: str = "mpegts", height: int = 32, width: int = 48, rate: int = RATE
) -> Path:
    """Frame i is one gray, 8 * i. Without frames that wait for later ones, so that a cut loses little."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("libx264", rate=rate, options={"g": "5", "bf": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number in numbers:
            image = np.full((height, width, 3), 8 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves answers in turn, each so many bytes of a body, with or without its length; then nothing any more."""
    servers: list[http.server.ThreadingHTTPServer] = []

    def start(*answers: tuple[bytes, int | None], length: bool) -> str:
        left = list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                if not left:
                    self.send_error(404)
                    return
                body, cut = left.pop(0)
                self.send_response(200)
                if length:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body[:cut])

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://user:secret@127.0.0.1:{server.server_port}/live?token=secret"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


class Waits(threading.Event):
    """A stop that never comes, and notes how long it was waited for."""

    def __init__(self, waits: list[float] | None) -> None:
        super().__init__()
        self.waits = waits if waits is not None else []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


def grays(source: Source, waits: list[float] | None = None) -> list[tuple[int, int, float]]:
    """Gray number, part and time of every frame."""
    found = []
    for frame in source.frames(Waits(waits)):
        picture = source.picture(frame, None)
        found.append((round(float(picture.mean()) / 8), frame.part, round(frame.seconds, 3)))
    return found


# --- names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "kind", "shown"),
    [
        ("0", "camera", "camera 0"),
        ("./0", "file", "./0"),
        ("clip.mp4", "file", "clip.mp4"),
        ("C:/clip.mp4", "file", "C:/clip.mp4"),
        ("rtsp://me:secret@host:554/a?key=1", "url", "rtsp://host:554/a"),
        ("http://host/a.ts", "url", "http://host/a.ts"),
    ],
)
def test_kind_and_name_of_a_source(source: str, kind: str, shown: str):
    assert (kind_of(source), shown_name(source)) == (kind, shown)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no/such.mp4", r"no/such\.mp4: no such file"),
        pytest.param(
            "9999",
            "camera 9999: /dev/video9999 does not exist",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="cameras have other names"),
        ),
        ("http://127.0.0.1:9/a", r"http://127\.0\.0\.1:9/a: cannot be opened: Connection refused"),
        ("rtsp://me:secret@127.0.0.1:9/a", r"^rtsp://127\.0\.0\.1:9/a: cannot be opened: Connection refused"),
        ("foo://host/a", r"http, https, rtsp"),
        ("file:///etc/hostname", r"path of a file"),
    ],
)
def test_errors_of_sources_that_do_not_open(source: str, message: str):
    with pytest.raises(VideoError, match=message):
        Source(source, QUICK)


def test_text_is_no_video(tmp_path: Path):
    path = tmp_path / "notes.mp4"
    path.write_text("not a video")
    with pytest.raises(VideoError, match="not a video that FFmpeg can read"):
        Source(str(path), QUICK)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_waiting": 0}, r"max_waiting.*0"),
        ({"reconnects": -1}, r"reconnects.*-1"),
        ({"stall_seconds": 0.0}, r"stall_seconds.*0"),
        ({"reconnect_wait": float("nan")}, r"reconnect_wait.*nan"),
        ({"stop_after": 0.0}, r"stop_after.*0"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        LiveConfig(**settings)


# --- files ------------------------------------------------------------------------------------------


def test_a_file_gives_the_frames_of_decoding_with_their_times(gray_video: Path):
    source = Source(str(gray_video), QUICK)
    assert (source.kind, source.finite, source.frames_per_second) == ("file", True, 12.0)
    assert source.announced_seconds == pytest.approx(2.5)
    frames = list(source.frames(threading.Event()))
    # The last ones come out of the decoder at the end, without the unit of their time stamps.
    assert [frame.seconds for frame in frames] == pytest.approx([i / 12 for i in range(30)])
    assert [frame.end for frame in frames] == pytest.approx([(i + 1) / 12 for i in range(30)])


def test_times_are_those_of_a_variable_rate(tmp_path: Path):
    pts = [0, 1, 2, 5, 6, 7, 12, 13, 17, 21]
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)  # with frames that wait for later ones
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for place in pts:
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 8 * place, np.uint8), format="rgb24")
            frame.pts, frame.time_base = place, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = grays(Source(str(tmp_path / "a.mp4"), QUICK))
    assert [number for number, *_ in found] == pts
    assert [seconds for *_, seconds in found] == pytest.approx([place / 10 for place in pts])


def test_images_are_those_of_evaluation(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", list(images), frames_per_second=10)
    source = Source(str(tmp_path / "a.mp4"), QUICK)
    found = [source.picture(frame, 36) for frame in source.frames(threading.Event())]
    assert (np.stack(found) == open_video(tmp_path / "a.mp4", short_side=36).all_frames()).all()


def test_frames_are_resized_to_the_first_size(tmp_path: Path):
    first = write_stream(tmp_path / "a.ts", range(10)).read_bytes()
    second = write_stream(tmp_path / "b.ts", range(10, 20), height=96, width=96).read_bytes()
    (tmp_path / "ab.ts").write_bytes(first + second)
    source = Source(str(tmp_path / "ab.ts"), QUICK)
    frames = list(source.frames(threading.Event()))
    assert {(frame.stored.height, frame.stored.width) for frame in frames} == {(32, 48), (96, 96)}
    assert {source.picture(frame, 36).shape for frame in frames} == {(36, 54, 3)}
    times = [frame.seconds for frame in frames]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(19 / RATE, abs=1 / RATE)


@pytest.mark.parametrize(
    "name",
    [
        "sample-in-issue-505.mp4",  # turned
        "fire2.mp4",  # turned, of variable rate
        "ref_10.avi",  # time stamps that do not rise
        "vp90-2-05-resize.mp4",  # changes its size
        "white_zombie_scrunch-part.mp4",  # cut off
        "mp4-init-nonkeyframe.mp4",  # packets that do not decode
    ],
)
def test_odd_videos_give_the_frames_of_evaluation(shared_data: Path, name: str):
    path = shared_data / "data" / "odd-videos" / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    source = Source(str(path), QUICK)
    images, times = [], []
    for frame in source.frames(threading.Event()):
        images.append(source.picture(frame, 32))
        times.append(frame.seconds)
    assert all(image.flags.c_contiguous for image in images)  # what a tensor is made of
    assert (np.stack(images) == open_video(path, short_side=32).all_frames()).all()
    assert times == sorted(set(times))


# --- addresses --------------------------------------------------------------------------------------


def test_a_served_file_ends_where_it_ends(serve: Serve, tmp_path: Path):
    body = write_stream(tmp_path / "a.ts", range(20)).read_bytes()
    source = Source(serve((body, None), length=True), QUICK)
    assert source.finite
    assert grays(source) == [(i, 0, round(i / RATE, 3)) for i in range(20)]
    assert source.reconnected == 0


def test_an_interrupted_file_continues_after_the_last_frame(serve: Serve, tmp_path: Path):
    body = write_stream(tmp_path / "a.ts", range(30)).read_bytes()
    half = len(body) // 2
    source = Source(serve((body, half), (body, half // 2), (body, None), length=True), QUICK)
    found = grays(source)
    assert [number for number, _, _ in found] == list(range(30))  # none twice, none left out
    assert [seconds for *_, seconds in found] == pytest.approx([i / RATE for i in range(30)], abs=0.002)
    assert source.reconnected == 2


def test_an_interrupted_live_stream_starts_a_new_part(serve: Serve, tmp_path: Path):
    first = write_stream(tmp_path / "a.ts", range(10)).read_bytes()
    second = write_stream(tmp_path / "b.ts", range(20, 30)).read_bytes()
    waits: list[float] = []
    source = Source(
        serve((first, None), (second, None), length=False),
        LiveConfig(reconnects=3, reconnect_wait=0.5, stall_seconds=5),
    )
    assert not source.finite
    found = []

    def read() -> None:
        for frame in source.frames(Waits(waits)):
            number = round(float(source.picture(frame, None).mean()) / 8)
            found.append((number, frame.part, frame.seconds))

    with pytest.raises(VideoError, match=r"lost .*; 3 attempts in a row") as caught:
        read()
    assert [(number, part) for number, part, _ in found] == [(i, 0) for i in range(10)] + [
        (i, 1) for i in range(20, 30)
    ]
    assert [seconds for *_, seconds in found] == pytest.approx([i / RATE for i in range(20)])  # one clock, no gap
    assert source.reconnected == 1
    assert waits == [0.5, 0.5, 1.0, 2.0]  # a frame arrived between the first two
    assert "secret" not in str(caught.value)


def test_an_mp4_needs_a_server_with_range_requests(serve: Serve, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 128, 128, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", list(noise), frames_per_second=20)  # more than FFmpeg reads ahead
    source = Source(serve(((tmp_path / "a.mp4").read_bytes(), None), length=True), QUICK)
    with pytest.raises(VideoError, match=r"HTTP range"):
        grays(source)


def test_without_reconnects_a_lost_connection_ends_the_stream(serve: Serve, tmp_path: Path):
    body = write_stream(tmp_path / "a.ts", range(20)).read_bytes()
    source = Source(serve((body, len(body) // 2), length=True), LiveConfig(reconnects=0))
    with pytest.raises(VideoError, match=r"the connection was lost \(Input/output error\) \(--reconnects\)"):
        grays(source)


def test_waits_between_attempts_are_capped(serve: Serve, tmp_path: Path):
    body = write_stream(tmp_path / "a.ts", range(5)).read_bytes()
    waits: list[float] = []
    source = Source(serve((body, None), length=False), LiveConfig(reconnects=4, reconnect_wait=10.0))
    with pytest.raises(VideoError, match="4 attempts in a row"):
        grays(source, waits)
    assert waits == [10.0, 20.0, 30.0, 30.0]


# --- the thread -------------------------------------------------------------------------------------


def read_everything(reader: LiveReader) -> list[int]:
    numbers: list[int] = []
    while (frames := reader.take(5.0)) is not None:
        numbers += [frame.number for frame in frames]
    return numbers


def test_a_file_read_fast_waits_for_its_reader(gray_video: Path):
    config = LiveConfig(fast=True, max_waiting=3)
    reader = LiveReader(Source(str(gray_video), config), config, short_side=32, wanted=lambda frame: True)
    time.sleep(0.3)
    assert len(reader._waiting) == 3
    assert read_everything(reader) == list(range(30))
    assert (reader.dropped, reader.num_frames) == (0, 30)


def test_a_file_in_real_time_drops_its_oldest_frames(gray_video: Path):
    config = LiveConfig(max_waiting=4)
    begin = time.perf_counter()
    reader = LiveReader(Source(str(gray_video), config), config, short_side=32, wanted=lambda frame: True)
    reader._thread.join(10)
    assert time.perf_counter() - begin > 29 / 12  # the last frame was due then
    assert read_everything(reader) == [26, 27, 28, 29]
    assert (reader.dropped, reader.num_frames) == (26, 30)


def test_only_wanted_frames_are_converted(gray_video: Path, monkeypatch: pytest.MonkeyPatch):
    config, converted = LiveConfig(fast=True), []
    source, picture = Source(str(gray_video), config), Source.picture
    monkeypatch.setattr(Source, "picture", lambda *a: converted.append(1) or picture(*a))
    reader = LiveReader(source, config, short_side=32, wanted=lambda frame: round(frame.end * 12) % 10 == 0)
    assert read_everything(reader) == [9, 19, 29]
    assert len(converted) == 3


def test_close_and_stop_after_end_the_thread(gray_video: Path):
    config = LiveConfig(stop_after=1.0)
    reader = LiveReader(Source(str(gray_video), config), config, short_side=32, wanted=lambda frame: True)
    assert read_everything(reader) == list(range(12))
    slow = LiveConfig()
    reader = LiveReader(Source(str(gray_video), slow), slow, short_side=32, wanted=lambda frame: True)
    reader.take(5.0)
    reader.close()
    assert not reader._thread.is_alive()
    assert reader.num_frames < 30


def test_errors_of_the_thread_are_raised_after_its_last_frames(serve: Serve, tmp_path: Path):
    body = write_stream(tmp_path / "a.ts", range(20)).read_bytes()
    config = LiveConfig(fast=True, reconnects=0)
    source = Source(serve((body, len(body) // 2), length=True), config)
    reader = LiveReader(source, config, short_side=32, wanted=lambda frame: True)
    taken = []

    def take() -> None:
        while True:
            taken.extend(reader.take(5.0) or [])

    with pytest.raises(VideoError, match="the connection was lost"):
        take()
    assert len(taken) > 5
