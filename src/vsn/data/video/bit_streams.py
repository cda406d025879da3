"""Find hidden frames, and packets where decoding may start, in the data of H.264, HEVC, VP8 and VP9."""

from __future__ import annotations

import re
from collections.abc import Iterator

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext


def is_hidden(codec: str, packet: Packet) -> bool:
    """Return whether a packet of VP8 or VP9 holds only a frame that is not shown."""
    if codec not in ("vp8", "vp9"):
        return False
    data = memoryview(packet)
    first = data[0]
    if codec == "vp8":  # RFC 6386, 9.1: bit 4 is show_frame
        return not first >> 4 & 1
    if data[-1] >> 5 == 0b110:  # a superframe, whose last frame is shown
        return False
    # VP9 bitstream specification, 6.2: marker (2 bits), profile (2; 3 adds a reserved bit), show_existing_frame,
    # frame_type, show_frame.
    shift = 1 if first >> 4 & 0b11 == 0b11 else 0
    shows_existing, shows = first >> (3 - shift) & 1, first >> (1 - shift) & 1
    return not (shows_existing or shows)


def is_access_point(codec: VideoCodecContext, data: bytes) -> bool:
    """Return whether a packet, by its data, that is marked as a key frame is one across which no later frame refers.

    Containers also mark recovery points of H.264, where decoding only begins to be right.
    """
    if codec.name == "h264":
        return 5 in (unit[0] & 31 for unit in _nal_units(codec, data, 4))  # an IDR picture
    if codec.name == "hevc":
        return any(16 <= unit[0] >> 1 & 63 <= 21 for unit in _nal_units(codec, data, 21))  # BLA, IDR or CRA
    return True


def ends_sequence(codec: VideoCodecContext, data: bytes, *, is_first: bool) -> bool:
    """Return whether a packet of HEVC ends a sequence at a place where decoders may drop frames.

    Such packets come from joining and cutting streams. Frames that are not shown yet are dropped at an IDR picture that
    says so (no_output_of_prior_pics_flag), and those that refer across a joint (BLA, or CRA after an end of sequence).
    """
    for unit in _nal_units(codec, data, 21):
        kind = unit[0] >> 1 & 63
        drops_earlier = kind in (19, 20) and len(unit) > 2 and unit[2] & 0x40  # IDR; ITU-T H.265, 7.3.6.1
        if kind in (36, 37) or (not is_first and (16 <= kind <= 18 or drops_earlier)):
            return True
    return False


def _nal_units(codec: VideoCodecContext, data: bytes, length_place: int) -> Iterator[bytes]:
    """Yield the first 3 bytes of each NAL unit; `length_place` is that of the unit's length in the codec's header."""
    header = codec.extradata or b""
    if header[:1] != b"\x01":  # Annex B: units begin with 0 0 1
        yield from (unit[:3] for unit in data.split(b"\0\0\1")[1:] if unit)
        return
    size = (header[length_place] & 3) + 1 if len(header) > length_place else 4
    start = 0
    while start + size < len(data):
        yield data[start + size : start + size + 3]
        start += size + int.from_bytes(data[start : start + size], "big")


def is_of_early_x264(codec: VideoCodecContext, first: bytes) -> bool:
    """Return whether the first bytes of the first packet name an encoder whose errors the decoder must correct.

    Only that packet names it, so that decoding cannot start elsewhere.
    """
    found = re.search(rb"x264 - core (\d+)", first) if codec.name == "h264" else None
    build = int(found[1]) if found else 1000
    return build < 34 or (build < 151 and "444" in (codec.pix_fmt or ""))


def can_skip_unreferenced(codec: VideoCodecContext) -> bool:
    """Return whether frames that the decoder takes for unreferenced are referred to by no frame."""
    if codec.name == "hevc":
        # "Sub-layer non-reference" pictures may be referred to from higher temporal layers: only with a single layer
        # does nothing refer to them. ISO 14496-15: byte 21 of the header holds the number of layers.
        header = codec.extradata or b""
        return header[:1] == b"\x01" and len(header) > 21 and header[21] >> 3 & 7 == 1
    return codec.name == "h264"
