"""Decoded frames to RGB: equal to FFmpeg's filter `scale` for every pixel format, matrix and range; HDR mapped."""

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from tests.helpers.external import program
from tests.helpers.videos import READERS
from vsn.data.video import VideoError, open_video
from vsn.data.video.frame_converter import FrameConverter
from vsn.data.video.orientation import filtered

MATRICES = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020"}
"""Number in ITU-T H.273, and the name for FFmpeg's filter `scale`."""
PQ, HLG = 16, 18
# 10 bits, limited range, BT.2020: Y, Cb, Cr; then R, G, B of `TONE_MAPPING` in FFmpeg 5.1.
HDR_COLORS = {
    PQ: {
        (64, 512, 512): (0, 0, 0),
        (200, 512, 512): (26, 26, 26),
        (448, 512, 512): (123, 123, 123),  # 50 cd/m2
        (573, 512, 512): (193, 193, 193),  # 203 cd/m2, white of graphics
        (722, 512, 512): (255, 255, 255),  # 1000 cd/m2
        (940, 512, 512): (255, 255, 255),
        (450, 440, 600): (216, 49, 29),
        (450, 600, 450): (0, 111, 217),
        (500, 420, 520): (162, 157, 0),
        (400, 560, 560): (151, 63, 149),
    },
    HLG: {
        (64, 512, 512): (0, 0, 0),
        (200, 512, 512): (40, 40, 40),
        (448, 512, 512): (111, 111, 111),
        (722, 512, 512): (193, 193, 193),
        (940, 512, 512): (255, 255, 255),
        (450, 440, 600): (156, 90, 69),
        (450, 600, 450): (50, 113, 151),
        (500, 420, 520): (129, 126, 74),
        (400, 560, 560): (123, 83, 119),
    },
}
TONE_MAPPING = (
    "zscale=t=linear:npl=100:agamma=false,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0:peak=10,"
    "zscale=t=bt709:m=gbr:r=full,format=gbrp"
)


def picture(height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    """Patches of 8x8 pixels in random colors."""
    colors = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.kron(colors, np.ones((8, 8, 1), np.uint8))[:height, :width]


def stored(pixel_format: str, height: int = 64, width: int = 96, seed: int = 0) -> VideoFrame:
    return VideoFrame.from_ndarray(picture(height, width, seed), format="rgb24").reformat(format=pixel_format)


def hdr_frame(transfer: int) -> VideoFrame:
    """Patches of 16x16 pixels in the `HDR_COLORS`."""
    colors = list(HDR_COLORS[transfer])
    frame = VideoFrame(16 * len(colors), 16, "yuv444p10le")
    for channel, plane in enumerate(frame.planes):
        content = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        content[:, : plane.width] = np.repeat([color[channel] for color in colors], 16)
        plane.update(content.tobytes())
    frame.color_range, frame.colorspace, frame.color_primaries, frame.color_trc = 1, 9, 9, transfer
    return frame


def write_frame(path: Path, frame: VideoFrame, **tags: int) -> Path:
    """A lossless video of one frame with these color properties."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            setattr(frame, name, value)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_hdr(path: Path, transfer: int) -> None:
    write_frame(path, hdr_frame(transfer), color_range=1, colorspace=9, color_primaries=9, color_trc=transfer)


def ours(frame: VideoFrame, short_side: int | None) -> np.ndarray:
    return FrameConverter.of("made.mkv", frame, short_side).rgb(frame)


def ffmpegs(frame: VideoFrame, height: int, width: int, options: str = "") -> np.ndarray:
    """The frame after FFmpeg's filter `scale`: bicubic at its own size, as by default, and bilinear at others."""
    flags = "bicubic" if (frame.height, frame.width) == (height, width) else "bilinear"
    scaled = filtered(frame, ("scale", f"{width}:{height}:flags={flags}{options}"), ("format", "rgb24"))
    return scaled.to_ndarray()


@pytest.mark.parametrize("short_side", [None, 24])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (35, 17)])
@pytest.mark.parametrize(
    "pixel_format",
    [
        *("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv410p", "yuv411p", "yuv440p", "nv12"),
        *("yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p16le", "p010le", "gray", "gray10le", "gray16le"),
        *("yuva420p", "yuva444p10le", "rgb24", "bgra", "gbrp", "gbrp10le", "rgb48le", "rgba64be", "ya8", "ya16be"),
        *("rgb8", "rgb565le", "monob"),
    ],
)
def test_pixel_formats(pixel_format: str, height: int, width: int, short_side: int | None) -> None:
    frame = stored(pixel_format, height, width)
    converted = ours(frame, short_side)
    assert converted.dtype == np.uint8
    assert np.array_equal(converted, ffmpegs(frame, *converted.shape[:2]))
    assert np.abs(converted.astype(int) - 128).mean() > 20  # not one gray


@pytest.mark.parametrize("short_side", [None, 24])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv420p10le"])
@pytest.mark.parametrize(("color_range", "name"), [(0, "limited"), (1, "limited"), (2, "full")])
@pytest.mark.parametrize("matrix", MATRICES)
def test_matrices_and_ranges(
    pixel_format: str, matrix: int, color_range: int, name: str, short_side: int | None
) -> None:
    frame = stored(pixel_format)
    plain = stored(pixel_format)
    frame.colorspace, frame.color_range = matrix, color_range
    converted = ours(frame, short_side)
    stated = f":in_color_matrix={MATRICES[matrix]}:in_range={name}"
    assert np.array_equal(converted, ffmpegs(plain, *converted.shape[:2], stated))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize(
    ("matrix", "read_as"),
    [(2, "smpte170m"), (3, "smpte170m"), (10, "bt2020"), (18, "smpte170m"), (255, "smpte170m")],
)
def test_matrices_that_say_nothing(pixel_format: str, matrix: int, read_as: str) -> None:
    # Unspecified and reserved numbers are BT.601 at every size, as in FFmpeg; constant luminance is nearly BT.2020.
    frame, plain = stored(pixel_format, 720, 1280), stored(pixel_format, 720, 1280)
    frame.colorspace = matrix
    assert np.array_equal(ours(frame, None), ffmpegs(plain, 720, 1280, f":in_color_matrix={read_as}"))


@pytest.mark.parametrize("matrix", [8, 12, 14])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_matrices_that_ffmpeg_does_not_convert(tmp_path: Path, matrix: int, read) -> None:
    path = write_frame(tmp_path / "made.mkv", stored("yuv444p"), colorspace=matrix)
    with pytest.raises(VideoError, match=rf"matrix {matrix} of .*zscale"):
        read(path)


@pytest.mark.parametrize("short_side", [None, 24])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv422p10le"])
def test_interlaced_frames_are_resized_whole(pixel_format: str, short_side: int | None) -> None:
    frame = filtered(stored(pixel_format), ("setfield", "mode=tff"))
    assert frame.interlaced_frame
    assert np.array_equal(ours(frame, short_side), ours(stored(pixel_format), short_side))


def test_a_frame_of_another_size_or_format() -> None:
    converter = FrameConverter.of("made.mkv", stored("yuv420p"), 24)
    for frame in (stored("yuv444p", 48, 40), stored("gray10le"), hdr_frame(PQ), stored("yuv420p")):
        assert converter.rgb(frame).shape == (24, 36, 3)
    assert np.array_equal(converter.rgb(stored("yuv420p")), ours(stored("yuv420p"), 24))


# --- high dynamic range --------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", HDR_COLORS)
@pytest.mark.parametrize("read", [key for key in READERS if key != "metadata"])
def test_hdr_is_mapped_as_ffmpeg_maps_it(tmp_path: Path, transfer: int, read: str) -> None:
    write_hdr(tmp_path / "hdr.mkv", transfer)
    assert open_video(tmp_path / "hdr.mkv").metadata.tone_mapped
    frame = np.asarray(READERS[read](tmp_path / "hdr.mkv"))[0]
    assert frame.dtype == np.uint8
    middles = frame[8, 8::16].astype(int)
    assert np.abs(middles - list(HDR_COLORS[transfer].values())).max() <= 1


@pytest.mark.needs("ffmpeg")
@pytest.mark.parametrize("transfer", HDR_COLORS)
def test_hdr_is_mapped_as_by_the_tool(tmp_path: Path, transfer: int) -> None:
    ffmpeg = program("ffmpeg")
    command = [ffmpeg, "-v", "error", "-i", str(tmp_path / "hdr.mkv"), "-vf", TONE_MAPPING]
    if "zscale" not in subprocess.run([ffmpeg, "-filters"], capture_output=True, text=True).stdout:
        pytest.skip("no ffmpeg with the filter zscale")
    write_hdr(tmp_path / "hdr.mkv", transfer)
    made = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    frame = open_video(tmp_path / "hdr.mkv").frames_at([0])[0]
    theirs = np.frombuffer(made.stdout, np.uint8).reshape(frame.shape)
    assert np.abs(frame.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("transfer", [1, 2, 6, 13, 14])
def test_other_transfers_keep_their_values(transfer: int) -> None:
    frame = stored("yuv420p10le")
    frame.color_trc = transfer
    assert np.array_equal(ours(frame, None), ours(stored("yuv420p10le"), None))
