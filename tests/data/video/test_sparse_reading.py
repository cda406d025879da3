"""Frames read with as little decoding as possible equal those decoded from the first frame on."""

from __future__ import annotations

import dataclasses
import os
import random
import re
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.helpers.videos import overwrite_packets, with_matrix
from vsn.data.video import (
    FewerFramesError,
    Part,
    PartReader,
    VideoError,
    open_video,
    packet_index,
    pyav_reader,
    write_video,
)
from vsn.data.video.container import open_container
from vsn.data.video.mp4_table import read_sample_table
from vsn.data.video.packet_index import (
    CACHE,
    FileKey,
    PacketIndex,
    PacketIndexCache,
    file_key,
    index_from_table,
    index_packets,
)
from vsn.data.video.pyav_reader import PyAVReader

NUM_FRAMES = 45


def moving(num_frames: int, height: int = 48, width: int = 80, seed: int = 0) -> list[np.ndarray]:
    """A textured picture that moves, so that every frame differs and refers to others."""
    noise = np.random.default_rng(seed).integers(0, 255, (height * 2, width * 2, 3), dtype=np.uint8)
    smooth = noise.reshape(height, 2, width, 2, 3).mean((1, 3)).astype(np.uint8)
    return [np.roll(smooth, (i, 2 * i), (0, 1)) for i in range(num_frames)]


def encode(
    path: Path,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    *,
    frames: list[np.ndarray] | None = None,
    pixels: str = "yuv420p",
    container_options: dict[str, str] | None = None,
    stamps: Callable[[int], int] = lambda i: i,
) -> Path:
    """Encode frames at 25 a second, frame i at `stamps(i)` of them."""
    frames = moving(NUM_FRAMES) if frames is None else frames
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], pixels
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamps(i), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def remux(source: Path, target: Path, change: Callable[[int, av.Packet], bool] = lambda i, packet: True) -> Path:
    """Copy the packets for which `change` returns true; it may change them."""
    with av.open(str(source)) as reading, av.open(str(target), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for i, packet in enumerate(packet for packet in reading.demux(video=0) if packet.size):
            if change(i, packet):
                packet.stream = stream
                writing.mux(packet)
    return target


def from_first(path: Path) -> np.ndarray:
    return open_video(path).all_frames()


def obstacle(path: Path) -> str:
    with PyAVReader(path) as video:
        return video.index.obstacle


@pytest.fixture(autouse=True)
def _no_index_of_other_tests() -> Iterator[None]:
    CACHE.clear()
    yield
    CACHE.clear()


# --- equality ----------------------------------------------------------------------------------------

KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": (".mp4", "libx264", {"g": "12", "bf": "3"}),
    "h264 in matroska": (".mkv", "libx264", {"g": "12", "bf": "3", "x264-params": "b-pyramid=normal:ref=4"}),
    "h264 of two frames": (".mp4", "libx264", {"g": "3", "bf": "2", "x264-params": "scenecut=0"}),
    "h264 of one frame": (".mov", "libx264", {"g": "1"}),
    "h264 of one key": (".mp4", "libx264", {"g": "250", "bf": "8"}),
    "h264 open": (".mp4", "libx264", {"g": "9", "bf": "3", "x264-params": "open-gop=1"}),
    "h264 refreshed": (".mkv", "libx264", {"g": "10", "bf": "0", "x264-params": "intra-refresh=1"}),
    "h264 interlaced": (".mp4", "libx264", {"g": "12", "bf": "2", "flags": "+ildct+ilme"}),
    "hevc": (".mp4", "libx265", {"x265-params": "keyint=12:bframes=3:open-gop=0:log-level=none"}),
    "hevc open": (".mkv", "libx265", {"x265-params": "keyint=12:bframes=3:open-gop=1:log-level=none"}),
    "hevc layers": (".mp4", "libx265", {"x265-params": "keyint=15:bframes=4:temporal-layers=3:log-level=none"}),
    "vp8": (".webm", "libvpx", {"g": "15", "auto-alt-ref": "1", "lag-in-frames": "12", "b": "100k"}),
    "vp9": (".webm", "libvpx-vp9", {"g": "15", "auto-alt-ref": "1", "lag-in-frames": "12", "cpu-used": "8"}),
    "av1": (".mp4", "libsvtav1", {"g": "15", "preset": "12"}),
    "motion jpeg": (".mkv", "mjpeg", {}),
    "mpeg4": (".mp4", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2": (".mkv", "mpeg2video", {"g": "12", "bf": "2"}),
    "avi": (".avi", "mpeg4", {"g": "12"}),
    "transport stream": (".ts", "libx264", {"g": "12", "bf": "3"}),
    "fragments": (".mp4", "libx264", {"g": "12", "bf": "3", "movflags": "frag_keyframe+empty_moov"}),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, np.ndarray]]:
    """Return a video of a kind and its frames, decoded from the first one on."""
    folder = tmp_path_factory.mktemp("kinds")
    made: dict[str, tuple[Path, np.ndarray]] = {}

    def video(kind: str) -> tuple[Path, np.ndarray]:
        if kind not in made:
            extension, codec, options = KINDS[kind]
            options = dict(options)
            container = {"movflags": options.pop("movflags")} if "movflags" in options else {}
            path = folder / (kind.replace(" ", "-") + extension)
            size = (64, 96) if codec == "libsvtav1" else (48, 80)
            encode(
                path, codec, options,
                frames=moving(NUM_FRAMES, *size), container_options=container,
                pixels="yuvj420p" if codec == "mjpeg" else "yuv420p",
            )  # fmt: skip
            made[kind] = path, from_first(path)
        return made[kind]

    return video


@pytest.mark.parametrize("kept", [True, False], ids=["packets in memory", "packets in the file"])
@pytest.mark.parametrize("kind", KINDS)
def test_any_frames_equal_those_decoded_from_the_first(videos, kind: str, kept: bool, monkeypatch) -> None:
    if not kept:
        monkeypatch.setattr(packet_index, "_KEPT_BYTES", 0)
    path, expected = videos(kind)
    assert len(expected) == NUM_FRAMES
    draws = random.Random(kind)
    check_random_reads(path, expected, draws, 12)


def test_interlaced_frames_are_counted(videos) -> None:
    """A packet may hold one field of two, such as in broadcasts, so that packets do not count frames."""
    path, expected = videos("h264 interlaced")
    with PyAVReader(path) as video:
        np.testing.assert_array_equal(video.frames_at([40]), expected[[40]])
        assert video.num_decoded > 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_index_sets(videos, kind: str, monkeypatch) -> None:
    path, expected = videos(kind)
    for number in range(10):
        monkeypatch.setattr(packet_index, "_KEPT_BYTES", 2**24 * (number % 2))
        CACHE.clear()
        check_random_reads(path, expected, random.Random(f"{kind} {number}"), 10)


def check_random_reads(path: Path, expected: np.ndarray, draws: random.Random, num_readers: int) -> None:
    """Each reader reads twice: nothing may be left over from the first time."""
    for _ in range(num_readers):
        with open_video(path) as video:
            for _ in range(2):
                wanted = [draws.randrange(len(expected)) for _ in range(draws.choice([1, 1, 2, 3, 8, 20]))]
                np.testing.assert_array_equal(video.frames_at(wanted), expected[wanted], err_msg=str(wanted))


@pytest.mark.parametrize("rotation", [(0, 1, -1, 0), (-1, 0, 0, -1)])
def test_turned_frames(tmp_path: Path, rotation: tuple[int, int, int, int]) -> None:
    path = with_matrix(encode(tmp_path / "plain.mp4", options={"g": "10"}), tmp_path / "turned.mp4", rotation)
    expected = from_first(path)
    np.testing.assert_array_equal(open_video(path).frames_at([44, 21, 3]), expected[[44, 21, 3]])


def test_odd_and_real_videos(shared_data: Path) -> None:
    folder = shared_data / "data/odd-videos"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    draws = random.Random(0)
    for path in sorted(folder.iterdir()):
        try:
            expected = open_video(path, short_side=32).all_frames()
        except VideoError:
            continue
        with open_video(path, short_side=32) as video:
            try:
                wanted = [draws.randrange(video.num_frames) for _ in range(8)]
                frames = video.frames_at(wanted)
            except FewerFramesError:
                wanted = [draws.randrange(video.num_frames) for _ in range(8)]
                frames = video.frames_at(wanted)
            np.testing.assert_array_equal(frames, expected[wanted], err_msg=str(path))


# --- what is decoded ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False], ids=["packets in memory", "packets in the file"])
def test_only_what_the_wanted_frames_need_is_decoded(tmp_path: Path, kept: bool, monkeypatch) -> None:
    if not kept:
        monkeypatch.setattr(packet_index, "_KEPT_BYTES", 0)
    params = {"x264-params": "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:b-pyramid=none"}
    path = encode(tmp_path / "video.mp4", options=params, frames=moving(96))
    # In the order of display, each group of 12: I B B B P B B B P B B P.
    for wanted, needed in (([60], 1), ([64], 2), ([68], 3), ([62], 3), ([62, 62, 68], 4), ([62, 12, 85], 7)):
        with PyAVReader(path) as video:
            video.frames_at(wanted)
            assert video.num_decoded == needed, wanted


def test_only_wanted_frames_are_converted(gray_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted, rgb = [], pyav_reader.FrameConverter.rgb
    monkeypatch.setattr(pyav_reader.FrameConverter, "rgb", lambda self, frame: converted.append(1) or rgb(self, frame))
    open_video(gray_video).frames_at([2, 7, 7])
    assert len(converted) == 2


@pytest.mark.parametrize("name", ["video.mp4", "video.mkv"])
def test_one_open_for_everything(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened, open_container = encode(tmp_path / name, options={"g": "10"}), [], pyav_reader.open_container
    monkeypatch.setattr(pyav_reader, "open_container", lambda path: opened.append(path) or open_container(path))
    with open_video(path) as video:
        assert video.metadata.height == 48
        video.frames_at([30])
        video.frames_at([3, 40])
    assert len(opened) == 1


# --- the cache of indices ----------------------------------------------------------------------------


def test_a_file_is_indexed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "video.mp4", options={"g": "10"})
    first = open_video(path).frames_at([5, 33])
    monkeypatch.setattr(pyav_reader, "index_packets", None)
    monkeypatch.setattr(pyav_reader, "index_from_table", None)
    with open_video(path) as video:
        np.testing.assert_array_equal(video.frames_at([5, 33]), first)


def test_a_changed_file_is_indexed_again(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4")
    assert open_video(path).num_frames == NUM_FRAMES
    encode(path, frames=moving(20))
    assert open_video(path).num_frames == 20


def test_a_file_replaced_while_open_stays_the_old_one(tmp_path: Path) -> None:
    path, other = encode(tmp_path / "video.mp4", options={"g": "5"}), encode(tmp_path / "x.mp4", frames=moving(8))
    expected = from_first(path)
    CACHE.clear()
    with open_video(path) as video:
        os.replace(other, path)
        np.testing.assert_array_equal(video.frames_at([30, 2]), expected[[30, 2]])
    assert open_video(path).num_frames == 8


def test_a_file_replaced_while_its_table_is_replaced_is_not_remembered(videos, tmp_path: Path, monkeypatch) -> None:
    """The index of the old file must not stand for the new one."""
    path = tmp_path / "video.mp4"
    path.write_bytes(videos("h264 open")[0].read_bytes())  # its table marks key frames that are none
    other, index_of = encode(tmp_path / "x.mp4", frames=moving(8)), pyav_reader.index_packets

    def replaced_meanwhile(path, container):
        index = index_of(path, container)
        os.replace(other, path)
        return index

    with PyAVReader(path) as video:
        monkeypatch.setattr(pyav_reader, "index_packets", replaced_meanwhile)
        video.frames_at([44])
        assert not video.index.from_table
    monkeypatch.undo()
    assert open_video(path).num_frames == 8


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4")
    with PyAVReader(path) as video:
        index = video.index
    keys = [FileKey(str(number), 0, 0, 0, 0) for number in range(1000)]
    cache = PacketIndexCache(10 * (index.num_bytes + 3000))
    for key in keys:
        cache.put(key, index)
    held = [number for number in range(1000) if cache.get(keys[number]) is not None]
    assert held == list(range(1000 - len(held), 1000))
    assert 5 <= len(held) <= 20
    assert len(cache.take_new()) == len(held)
    assert cache.take_new() == []
    assert file_key(tmp_path / "none.mp4") is None


# --- the table of MP4 and MOV ------------------------------------------------------------------------


def table_of(path: Path) -> PacketIndex | None:
    with open_container(path) as container:
        return index_from_table(path, container)


@pytest.mark.parametrize("kind", ["h264", "h264 of one frame", "h264 of one key", "hevc", "hevc layers", "av1"])
def test_the_table_says_what_the_packets_say(videos, kind: str) -> None:
    path, _ = videos(kind)
    with open_container(path) as container:
        packets, _ = index_packets(path, container)
    table = table_of(path)
    for field in dataclasses.fields(PacketIndex):
        if field.name != "from_table":
            np.testing.assert_array_equal(getattr(table, field.name), getattr(packets, field.name), err_msg=field.name)


def test_no_packet_is_read_to_open_a_plain_file(videos, monkeypatch: pytest.MonkeyPatch) -> None:
    path, expected = videos("h264")
    monkeypatch.setattr(pyav_reader, "index_packets", None)
    with open_video(path) as video:
        assert video.num_frames == NUM_FRAMES
        np.testing.assert_array_equal(video.frames_at([30, 3]), expected[[30, 3]])


def test_key_frames_that_the_table_marks_and_that_are_none(videos) -> None:
    """Frames refer across them: the packets tell it when decoding is to start there."""
    path, expected = videos("h264 open")
    assert len(table_of(path).starts) > 1
    with PyAVReader(path) as video:
        np.testing.assert_array_equal(video.frames_at([44, 40]), expected[[44, 40]])
        assert len(video.index.starts) == 1
        assert not video.index.from_table


def wrong_tables() -> dict[str, Callable[[bytes], bytes]]:
    """Ways to damage the table of a file."""

    def numbers(name: bytes, start: int, *values: int) -> Callable[[bytes], bytes]:
        def change(content: bytes) -> bytes:
            place = content.index(name) + 4 + start
            return content[:place] + struct.pack(f">{len(values)}I", *values) + content[place + 4 * len(values) :]

        return change

    return {
        "cut": lambda content: content[: len(content) * 2 // 3],
        "more samples": numbers(b"stsz", 8, 2**31),
        "fewer samples": numbers(b"stsz", 8, 3),
        "times of many": numbers(b"stts", 8, 2**32 - 1),
        "keys outside": numbers(b"stss", 8, 1000),
        "no keys": numbers(b"stss", 4, 0),
        "other offsets": numbers(b"ctts", 12, 7),
        "chunks outside": numbers(b"stco", 8, 2**31),
        "a box of no size": numbers(b"stbl", 0, 0),
        "a cut edit": numbers(b"elst", 12, 2048),
        "two formats": numbers(b"stsd", 4, 2),
    }


def unclear_tables() -> dict[str, Callable[[bytes], bytes]]:
    """Ways to make a table say something else than FFmpeg reads from it, or take gigabytes."""

    def numbers(name: bytes, start: int, *values: int, last: bool = False) -> Callable[[bytes], bytes]:
        def change(content: bytes) -> bytes:
            place = (content.rindex(name) if last else content.index(name)) + 4 + start
            return content[:place] + struct.pack(f">{len(values)}I", *values) + content[place + 4 * len(values) :]

        return change

    return {
        # The box "stsc" names the first chunk of each run of chunks.
        "a run of two billion chunks": numbers(b"stsc", 8, 2**31 + 1),
        "samples of another format": numbers(b"stsc", 16, 2),
        "no units of the movie": numbers(b"mvhd", 12, 0),
        "no units of the track": lambda content: numbers(b"mdhd", 12, 0)(content.replace(b"edts", b"free")),
        "fewer offsets than are there": numbers(b"ctts", 4, 5),
        "more keys than are there": numbers(b"stss", 4, 9),
        "keys in disorder": numbers(b"stss", 8, 1, 21, 11),
        "steps back": numbers(b"stts", 20, 2**32 - 512),
        "samples in another file": numbers(b"url ", 0, 0),
        "sound outside the file": numbers(b"stco", 8, 2**32 - 1, last=True),
        "an edit that cuts the frames after a pause": numbers(b"elst", 8, 3000),
    }


@pytest.mark.timeout(60)
@pytest.mark.parametrize("change", unclear_tables())
def test_tables_that_are_not_used(tmp_path: Path, change: str) -> None:
    with av.open(str(tmp_path / "plain.mp4"), "w") as container:
        pictures, sound = container.add_stream("libx264", rate=25, options={"g": "10"}), container.add_stream("aac")
        pictures.height, pictures.width, pictures.pix_fmt = 48, 80, "yuv420p"
        for i, image in enumerate(moving(NUM_FRAMES)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            # A pause of two seconds in the middle.
            frame.pts, frame.time_base = i + 50 * (i > 20), Fraction(1, 25)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 48000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    assert read_sample_table(tmp_path / "plain.mp4") is not None
    path = tmp_path / "changed.mp4"
    path.write_bytes(unclear_tables()[change]((tmp_path / "plain.mp4").read_bytes()))
    assert read_sample_table(path) is None


@pytest.mark.parametrize("damage", wrong_tables())
def test_tables_that_are_wrong(tmp_path: Path, damage: str) -> None:
    """Whatever the table says, frames are those that decoding from the first gives."""
    source = encode(
        tmp_path / "source.mp4", options={"g": "10", "bf": "2"}, container_options={"movflags": "faststart"}
    )
    path = tmp_path / "damaged.mp4"
    path.write_bytes(wrong_tables()[damage](source.read_bytes()))
    try:
        expected = from_first(path)
    except VideoError as error:
        with pytest.raises(VideoError, match=re.escape(error.reason[:20])):
            open_video(path).sample(lambda num_frames: [num_frames - 1])
        return
    CACHE.clear()
    with open_video(path) as video:
        frames = video.sample(lambda num_frames: [num_frames - 1, num_frames // 2])
        count = video.num_frames
    np.testing.assert_array_equal(frames, expected[[count - 1, count // 2]])


def test_an_early_x264_is_read_from_its_first_frame(tmp_path: Path) -> None:
    """Before build 151 it wrote 4:4:4 in a way that decoders know from the first packet only."""
    source = encode(tmp_path / "source.mp4", options={"g": "10"}, pixels="yuv444p")
    assert obstacle(source) == ""
    path = tmp_path / "early.mp4"
    path.write_bytes(re.sub(rb"x264 - core \d+", b"x264 - core 142", source.read_bytes()))
    assert obstacle(path).startswith("an early version of x264 wrote it")


# --- files that are read from the first frame on -----------------------------------------------------


def test_kinds_that_are_not_trusted(videos) -> None:
    reasons = {kind: obstacle(videos(kind)[0]) for kind in KINDS}
    assert {kind: reason for kind, reason in reasons.items() if reason} == {
        "mpeg4": "a packet of its codec (mpeg4) may hold any number of frames",
        "mpeg2": "a packet of its codec (mpeg2video) may hold any number of frames",
        "avi": "the container (avi) does not seek exactly",
        "transport stream": "the container (mpegts) does not seek exactly",
    }


def test_time_stamps_that_repeat(tmp_path: Path) -> None:
    source = encode(tmp_path / "source.mkv", options={"g": "10", "bf": "0"})

    def repeat(i: int, packet: av.Packet) -> bool:
        if i == 20:
            packet.pts = packet.dts = packet.pts - 40
        return True

    path = remux(source, tmp_path / "repeated.mkv", repeat)
    assert obstacle(path) == "time stamps repeat"
    np.testing.assert_array_equal(open_video(path).frames_at([30, 20]), from_first(path)[[30, 20]])


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_time_stamps_of_decoding(tmp_path: Path, container: str) -> None:
    """Some tools number packets in the order of the file although frames are shown in another."""
    source = encode(tmp_path / f"source.{container}", options={"g": "10", "bf": "3"})

    def renumber(i: int, packet: av.Packet) -> bool:
        packet.pts = packet.dts = int(i / (25 * packet.time_base))
        return True

    path = remux(source, tmp_path / f"renumbered.{container}", renumber)
    assert obstacle(path) == "time stamps are those of decoding, not of display"
    expected = from_first(path)
    np.testing.assert_array_equal(open_video(path).frames_at([33, 22]), expected[[33, 22]])


def test_a_first_packet_that_is_no_key_frame(tmp_path: Path) -> None:
    source = encode(tmp_path / "source.mp4", options={"g": "10", "bf": "0"})
    path = remux(source, tmp_path / "headless.mp4", lambda i, packet: i >= 4)
    assert obstacle(path) == "it does not begin with a key frame"


def test_a_first_packet_that_is_marked_as_a_key_frame_and_is_none(tmp_path: Path) -> None:
    """The frames before the first true key frame do not decode: frames are counted after it."""
    source = encode(tmp_path / "source.mp4", options={"g": "10", "bf": "0", "sc_threshold": "0"})

    def mark(i: int, packet: av.Packet) -> bool:
        packet.is_keyframe = packet.is_keyframe or i == 4
        _earlier(packet, 4)
        return i >= 4

    path = remux(source, tmp_path / "headless.mp4", mark)
    assert read_sample_table(path).keys.tolist() == [0, 6, 16, 26, 36]
    expected = from_first(path)
    assert len(expected) == 35
    np.testing.assert_array_equal(open_video(path).frames_at([18]), expected[[18]])


@pytest.mark.parametrize("container", ["mp4", "mkv"])
@pytest.mark.parametrize(
    "joint", ["drops what is not shown yet", "end of sequence", "end after a frame", "broken link"]
)
def test_frames_that_are_dropped_at_a_joint(tmp_path: Path, joint: str, container: str) -> None:
    """Decoders show fewer frames of HEVC than there are packets; frames after a joint are counted without those."""
    is_open = joint != "drops what is not shown yet"
    parameters = f"log-level=none:keyint=10:min-keyint=10:scenecut=0:b-adapt=0:bframes=3:open-gop={int(is_open)}"
    source = encode(tmp_path / "source.mp4", "libx265", {"x265-params": parameters})

    def joined(i: int, data: bytes) -> bytes:
        changed, start = bytearray(), 0
        while start < len(data):
            end = start + 4 + int.from_bytes(data[start : start + 4], "big")
            unit = bytearray(data[start:end])
            if i and 16 <= unit[4] >> 1 <= 21:
                if joint == "drops what is not shown yet":
                    unit[6] |= 0x40
                elif joint == "broken link":
                    unit[4] = 16 << 1
                elif joint == "end of sequence":
                    changed += b"\0\0\0\2\x48\1"
            changed += unit
            start = end
        if joint == "end after a frame" and i in frames_before_keys:
            changed += b"\0\0\0\2\x48\1"
        return bytes(changed)

    path = tmp_path / f"joined.{container}"
    with av.open(str(source)) as original, av.open(str(path), "w") as copy:
        stream = copy.add_stream_from_template(original.streams.video[0])
        packets = [packet for packet in original.demux(video=0) if packet.size]
        frames_before_keys = {i - 1 for i, packet in enumerate(packets) if packet.is_keyframe}
        for i, packet in enumerate(packets):
            new = av.Packet(joined(i, bytes(packet)))
            new.pts, new.dts, new.time_base, new.stream = packet.pts, packet.dts, packet.time_base, stream
            new.is_keyframe = packet.is_keyframe
            copy.mux(new)
    expected = from_first(path)
    assert len(expected) < NUM_FRAMES
    np.testing.assert_array_equal(open_video(path).frames_at([32]), expected[[32]])


def test_a_table_of_contents_that_points_elsewhere(tmp_path: Path) -> None:
    """Every search of the container ends at the last cluster: frames are counted from the first one, not from there."""
    path = encode(
        tmp_path / "video.mkv", options={"g": "5", "bf": "0"}, container_options={"cluster_time_limit": "150"}
    )
    expected = from_first(path)
    content = bytearray(path.read_bytes())
    cues = content.rindex(b"\x1c\x53\xbb\x6b")
    # Element F1, of two bytes, is the position of a cluster.
    places = [cues + match.end() for match in re.finditer(rb"\xf1\x82", content[cues:])]
    for place in places:
        content[place : place + 2] = content[places[-1] : places[-1] + 2]
    path.write_bytes(content)
    np.testing.assert_array_equal(from_first(path), expected)
    for index in (7, 3, 22):
        with PyAVReader(path) as video:  # reads the file: its packets are not in memory
            np.testing.assert_array_equal(video.frames_at([index]), expected[[index]])


def test_a_packet_that_does_not_decode(tmp_path: Path) -> None:
    """Frames are counted then, as from the first one: the number that decodes is known only at the end."""
    source = encode(tmp_path / "source.mp4", options={"g": "1"})
    path = overwrite_packets(source, tmp_path / "damaged.mp4", start=30)
    with open_video(path) as video:
        np.testing.assert_array_equal(video.frames_at([20, 4]), from_first(source)[[20, 4]])
        with pytest.raises(FewerFramesError, match=r"45 frames.* 30 "):
            video.frames_at([3, 40])
        assert video.num_frames == 30


def test_a_size_that_changes(tmp_path: Path) -> None:
    """Frames of all sizes are resized to the first frame's, wherever decoding begins."""
    parts = [
        encode(tmp_path / f"{i}.ts", options={"g": "10", "bf": "0"}, frames=moving(20, *size))
        for i, size in enumerate([(48, 80), (64, 96)])
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))

    def continue_time(i: int, packet: av.Packet) -> bool:
        packet.pts = packet.dts = i * 3600
        return True

    path = remux(joined, tmp_path / "joined.mkv", continue_time)
    assert obstacle(path) == ""
    expected = from_first(path)
    for wanted in ([5, 35], [35], [30, 39, 20], [12]):
        frames = open_video(path).sample(lambda n, wanted=wanted: [min(i, n - 1) for i in wanted])
        np.testing.assert_array_equal(frames, expected[np.minimum(wanted, len(expected) - 1)])


def test_a_file_that_was_cut_without_encoding(tmp_path: Path) -> None:
    """An edit list hides the frames before the cut."""
    source = encode(tmp_path / "source.mp4", options={"g": "15", "bf": "2"})
    path = remux(source, tmp_path / "cut.mp4", lambda i, packet: _earlier(packet, 7))
    expected = from_first(path)
    for wanted in ([0], [20, 30], [len(expected) - 1]):
        np.testing.assert_array_equal(open_video(path).frames_at(wanted), expected[wanted])


def _earlier(packet: av.Packet, num_frames: int) -> bool:
    shift = num_frames * int(1 / (25 * packet.time_base))
    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
    return True


def test_many_key_frames_and_one_in_an_hour(tmp_path: Path) -> None:
    many = encode(tmp_path / "many.mkv", "mjpeg", frames=[np.full((16, 16, 3), i % 250, np.uint8) for i in range(3000)],
                  pixels="yuvj420p")  # fmt: skip
    with open_video(many) as video:
        assert len(video.index.starts) == 3000
        assert abs(int(video.frames_at([2999]).mean()) - 249) <= 3
    black = [np.zeros((16, 16, 3), np.uint8)] * 2999
    one = encode(tmp_path / "one.mkv", options={"g": "100000", "bf": "0", "x264-params": "scenecut=0"},
                 frames=[*black, np.full((16, 16, 3), 200, np.uint8)])  # fmt: skip
    with open_video(one) as video:
        assert len(video.index.starts) == 1
        assert abs(int(video.frames_at([2999]).mean()) - 200) <= 3


def test_written_videos_are_seekable(tmp_path: Path) -> None:
    write_video(tmp_path / "ours.mp4", moving(30), frames_per_second=10)
    # The encoder announces frames that change places, and makes none of a picture that stays.
    write_video(tmp_path / "still.mp4", moving(1) * 30, frames_per_second=10)
    assert obstacle(tmp_path / "still.mp4") == ""
    assert obstacle(tmp_path / "ours.mp4") == ""


# --- time --------------------------------------------------------------------------------------------


def test_times_are_those_of_the_time_stamps(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mkv", options={"g": "10", "bf": "2"}, stamps=lambda i: 7 + (i if i < 20 else 5 * i))
    expected = np.array([i if i < 20 else 5 * i for i in range(NUM_FRAMES)]) / 25
    with open_video(path) as video:
        np.testing.assert_allclose(video.times, expected, atol=1e-3)


def test_times_without_time_stamps_follow_the_rate(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.avi", "mpeg4", {"bf": "2"})
    with open_video(path) as video:
        np.testing.assert_allclose(video.times, np.arange(NUM_FRAMES) / 25)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, range(45)),
        (0.4, 0.8, range(10, 20)),
        (0.41, 0.81, range(11, 21)),  # frame 10 begins at 0.40, frame 20 at 0.80
        (0.41, 0.42, range(10, 11)),  # no frame begins there: the one on the screen
        (1.79, 99, range(44, 45)),
    ],
)
def test_a_part_in_seconds(tmp_path: Path, start: float, end: float | None, expected: range) -> None:
    path = encode(tmp_path / "video.mp4", options={"g": "5"})
    whole = from_first(path)
    with open_video(path) as video:
        assert video.indices_between(start, end) == expected
        np.testing.assert_array_equal(video.frames_at(expected), whole[expected.start : expected.stop])


def test_a_part_of_a_long_file_costs_what_the_part_costs(tmp_path: Path) -> None:
    path = encode(tmp_path / "video.mp4", options={"g": "10"}, frames=moving(300))
    with PyAVReader(path) as video:
        video.frames_at(video.indices_between(8.0, 8.4))
        assert video.num_decoded <= 12


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 2), (3, 1), (float("nan"), 1)])
def test_parts_that_cannot_be(gray_video: Path, start: float, end: float) -> None:
    with (
        open_video(gray_video) as video,
        pytest.raises(ValueError, match="the start must be 0 or more"),
    ):
        video.indices_between(start, end)


def test_a_part_is_a_video_of_its_own(tmp_path: Path) -> None:
    whole = encode(tmp_path / "whole.mkv", "mjpeg", pixels="yuvj420p")
    cut = remux(whole, tmp_path / "cut.mkv", lambda i, packet: 10 <= i < 30)
    with PartReader(open_video(whole, short_side=40), Part(0.4, 1.2)) as part, open_video(cut, short_side=40) as video:
        assert (part.num_frames, part.frames_per_second) == (video.num_frames, video.frames_per_second)
        assert part.metadata == video.metadata
        np.testing.assert_allclose(part.times, video.times, atol=1e-9)
        np.testing.assert_array_equal(part.frames_at([19, 0, 7]), video.frames_at([19, 0, 7]))
        np.testing.assert_array_equal(part.all_frames(), video.all_frames())
        with pytest.raises(ValueError, match=r"0 to 19"):
            part.frames_at([20])


def test_a_part_of_which_fewer_frames_decode(tmp_path: Path) -> None:
    source = encode(tmp_path / "source.mp4", options={"g": "1"})
    path = overwrite_packets(source, tmp_path / "damaged.mp4", start=30)
    with PartReader(open_video(path), Part(0.8, 1.6)) as part:
        frames = part.sample(lambda num_frames: [0, num_frames - 1])
        assert part.num_frames == 10
        np.testing.assert_array_equal(frames, from_first(source)[[20, 29]])


@pytest.mark.parametrize("num_threads", [2, 5])
def test_any_number_of_threads_gives_the_same_frames(tmp_path: Path, num_threads: int, monkeypatch) -> None:
    monkeypatch.setattr(pyav_reader, "_LARGE_PIXELS", 0)
    path = encode(tmp_path / "video.mp4", options={"g": "12", "bf": "3"})
    expected = from_first(path)
    draws = random.Random(0)
    for _ in range(10):
        wanted = [draws.randrange(NUM_FRAMES) for _ in range(5)]
        with open_video(path, num_threads=num_threads) as video:
            assert video._file.stream.codec_context.thread_count == num_threads
            np.testing.assert_array_equal(video.frames_at(wanted), expected[wanted])
            assert not video._must_count


def test_a_part_after_the_end(gray_video: Path) -> None:
    with open_video(gray_video) as video, pytest.raises(VideoError, match=r"lasts 2.50 s; the part begins at 2.5 s"):
        video.indices_between(2.5)
