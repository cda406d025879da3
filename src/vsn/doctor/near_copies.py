"""Find videos that show the same recording under other bytes: encoded again, resized, trimmed a little, or mirrored.

The signature of a video is a row of tiny gray pictures, evenly spaced in time. Two of them are compared in two ways, which
both must agree: what stays (the mean picture), and what moves (how the pictures differ from it, in their order). What
stays is alike in all videos of one room. What moves tells them apart, also where two videos show equal frames in another
order. Videos in which nothing moves show only what stays, and are never taken for copies.

Coarse signatures, which are kept of all videos, give suspects: one person who raises an arm, or another, looks the same on
them. Suspects are read again for fine signatures, which decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from vsn.data.video import VideoReader


@dataclass(frozen=True)
class Detail:
    """How much of a video a signature holds."""

    side: int
    """Pixels of a side of the pictures."""
    per_second: float
    """Pictures per second, within the next two."""
    fewest: int
    most: int
    short_side: int
    """Pixels of the shorter side at which frames are read for it."""


COARSE = Detail(side=8, per_second=10.0, fewest=12, most=64, short_side=32)
FINE = Detail(side=16, per_second=25.0, fewest=12, most=250, short_side=64)
MIN_MOTION = 0.5
"""Root mean square of what moves on a coarse signature, in gray levels of 255, below which compression moves as much."""
MIN_STAYS = 0.85
"""Least correlation of what stays."""
MIN_MOVES_COARSE, MIN_MOVES = 0.7, 0.9
"""Least correlation of what moves of suspects, and of copies; `benchmarks/near_copies.py` measures what they find."""
MIN_SHARED = 0.7
"""Least share of the longer video that its copy shows."""
OFFSETS_PER_PICTURE = 2
"""Offsets in time that are tried per picture of the shorter video."""
NUM_CANDIDATES, NUM_SUSPECTS = 20, 3
"""Videos that each one is compared with: those most alike in what stays and in where they move; then those most alike in
what moves are read again."""


@dataclass(frozen=True)
class Signature:
    """What of a video is compared."""

    pictures: NDArray[np.uint16]
    """``(K, side, side)`` gray, in 1/256 of a level of 255: where little moves, the means of pixels move by less than 1."""
    seconds: float
    """Duration; in frames where the rate is unknown."""
    is_timed: bool = True
    """Whether ``seconds`` are seconds."""

    @cached_property
    def stays(self) -> NDArray[np.float32]:
        """``(side, side)``: the mean picture, its mean 0, its length 1; all 0 where it is flat."""
        mean = self.pictures.mean(axis=0, dtype=np.float32) / 256
        mean -= mean.mean()
        length = np.linalg.norm(mean)
        return (mean / length if length > mean.shape[0] else np.zeros_like(mean)).astype(np.float32)

    @cached_property
    def moves(self) -> NDArray[np.float32]:
        """``(K, side, side)``: the pictures without the mean picture, in gray levels.

        Brightness and contrast, which cameras adjust on their own, move all parts at once: alike in many videos.
        """
        pictures = self.pictures.astype(np.float32) / 256
        pictures -= pictures.mean(axis=(1, 2), keepdims=True)
        pictures -= np.einsum("kij,ij->k", pictures, self.stays)[:, None, None] * self.stays
        return pictures - pictures.mean(axis=0)

    @property
    def motion(self) -> float:
        """Root mean square of `moves`, in gray levels."""
        return float(np.sqrt(np.mean(self.moves**2)))


@dataclass(frozen=True)
class Likeness:
    """How a video is like another, at the offset in time that makes them most alike."""

    mirrored: bool
    shared: float
    """Share of the longer video that both show."""
    stays: float
    """Correlation of what stays."""
    moves: float
    """Correlation of what moves, in its order."""
    offset: float = 0.0
    """Seconds at which the shorter video begins in the longer one."""


def sign_video(video: VideoReader, detail: Detail = COARSE) -> Signature:
    """Return the signature of a video that is open at ``detail.short_side``."""
    is_timed = video.frames_per_second > 0
    seconds = video.seconds if is_timed else float(video.num_frames)

    def choose(num_frames: int) -> NDArray[np.intp]:
        wanted = round(detail.per_second * seconds) if is_timed else num_frames
        number = min(max(wanted, detail.fewest), detail.most, num_frames)
        middles = (np.arange(number) + 0.5) / number
        if not is_timed:
            return (middles * num_frames).astype(np.intp)
        # The frame that is on the screen at each time.
        return np.searchsorted(video.times[:num_frames], middles * seconds, side="right") - 1

    return Signature(np.stack([_shrink(frame, detail.side) for frame in video.sample(choose)]), seconds, is_timed)


def _shrink(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint16]:
    """Return the mean gray of side x side equal parts of a frame ``(H, W, 3)`` of any shape, in 1/256 of a level."""
    gray = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    for _ in range(2):
        # Differences of the sums of all rows up to an edge; a row that an edge divides counts on both sides by its share.
        sums = np.concatenate([np.zeros_like(gray[:1]), gray.cumsum(axis=0, dtype=np.float64)])
        edges = np.linspace(0, len(gray), side + 1)
        low = np.minimum(edges.astype(int), len(gray) - 1)
        at_edges = sums[low] + (sums[low + 1] - sums[low]) * (edges - low)[:, None]
        gray = (np.diff(at_edges, axis=0) * (side / len(gray))).T.astype(np.float32)
    return np.asarray((gray * 256).round().clip(0, 65535), np.uint16)


def find_near_copies(
    first: Sequence[Signature],
    second: Sequence[Signature],
    look_closer: Callable[[int, int], Signature | None],
) -> list[tuple[int, int, Likeness]]:
    """Return, of each video of ``second`` that is a copy of one of ``first``, the index of that one, its own, and how.

    Args:
        first: coarse signatures.
        second: coarse signatures.
        look_closer: returns the fine signature of a video by its part, 0 or 1, and its index; None if it cannot be read.
    """
    found = []
    for suspects in _find_suspects(first, second):
        for i, j, likeness in suspects:
            a, b = look_closer(0, i), look_closer(1, j)
            if a is None or b is None:
                continue
            closer = compare(a, b, mirrored=likeness.mirrored, around=likeness.offset)
            if closer.stays >= MIN_STAYS and closer.moves >= MIN_MOVES:
                found.append((i, j, closer))
                break
    return found


def _find_suspects(
    first: Sequence[Signature], second: Sequence[Signature]
) -> Iterator[list[tuple[int, int, Likeness]]]:
    """Yield, for videos of ``second``, those of ``first`` that they may be copies of, most alike first."""
    moving = [[i for i, one in enumerate(part) if one.motion >= MIN_MOTION] for part in (first, second)]
    if not all(moving):
        return
    stay, spread = _coarse([first[i] for i in moving[0]])
    other_stay, other_spread = _coarse([second[i] for i in moving[1]])
    # (2, N, pixels): as they are, and mirrored.
    stay, spread = (np.stack([part, part[:, :, ::-1]]).reshape(2, len(part), -1) for part in (stay, spread))
    is_flat = ~stay[0].any(axis=1)
    for row, index in enumerate(moving[1]):
        # (2, N): how alike a video is to each of the first.
        stays, places = (part @ own[row].ravel() for part, own in ((stay, other_stay), (spread, other_spread)))
        if not other_stay[row].any():
            stays = np.broadcast_to(is_flat.astype(np.float32), stays.shape)
        alike = np.where(stays >= MIN_STAYS, places, -1.0).ravel()
        nearest = np.argsort(-alike, kind="stable")[:NUM_CANDIDATES]
        suspects = []
        for candidate in nearest[alike[nearest] > 0].tolist():
            mirrored, column = divmod(candidate, len(moving[0]))
            likeness = compare(first[moving[0][column]], second[index], mirrored=bool(mirrored))
            if likeness.moves >= MIN_MOVES_COARSE:
                suspects.append((moving[0][column], index, likeness))
        yield sorted(suspects, key=lambda suspect: -suspect[2].moves)[:NUM_SUSPECTS]


def _coarse(signatures: Sequence[Signature]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return two ``(N, side, side)``: what stays, and where much moves, each of length 1."""
    spreads = [one.moves.std(axis=0) for one in signatures]
    lengths = [np.linalg.norm(spread) for spread in spreads]
    return (
        np.stack([one.stays for one in signatures]),
        np.stack([spread / length for spread, length in zip(spreads, lengths, strict=True)]),
    )


def compare(a: Signature, b: Signature, *, mirrored: bool = False, around: float | None = None) -> Likeness:
    """Return how two videos, one of them ``mirrored``, are alike at the best offset in time, perhaps ``around`` one.

    Every offset is tried that leaves MIN_SHARED of the longer video: the pictures of the shorter one at its times t are
    compared with those of the longer one at t + offset, interpolated. The shorter one may begin before it and end after it.
    """
    if a.seconds < b.seconds:
        a, b = b, a
    # Frames and seconds cannot be compared: then both are taken to show the same time.
    length = b.seconds if a.is_timed == b.is_timed else a.seconds
    step = length / len(b.moves) / OFFSETS_PER_PICTURE
    slack = int((1 - MIN_SHARED) * a.seconds / step)
    offsets = step * np.arange(-slack, slack + 1)
    if around is not None:
        # As far as the offsets of coarse signatures are apart.
        offsets = offsets[np.abs(offsets - around) <= length / COARSE.fewest]
    times = (np.arange(len(b.moves)) + 0.5) / len(b.moves) * length + offsets[:, None]
    inside = ((times >= 0) & (times < a.seconds)).astype(np.float32)
    shared = inside.mean(axis=1) * length / a.seconds
    is_enough = shared >= MIN_SHARED - 0.01
    inside, times, shared, offsets = (each[is_enough] for each in (inside, times, shared, offsets))
    if not len(shared):
        return Likeness(mirrored, 0.0, 0.0, 0.0)
    flip = -1 if mirrored else 1
    others, own = a.moves[:, :, ::flip].reshape(len(a.moves), -1), b.moves.reshape(len(b.moves), -1)
    place = np.clip(times / a.seconds * len(others) - 0.5, 0, len(others) - 1)
    low = np.minimum(place.astype(int), max(len(others) - 2, 0))
    weight = (place - low).astype(np.float32)[..., None]
    # (offsets, pictures, parts); weighted by whether a shows that time at all.
    seen = others[low] * (1 - weight) + others[np.minimum(low + 1, len(others) - 1)] * weight
    number = inside.sum(axis=1)[:, None]
    seen = (seen - (np.einsum("ok,okp->op", inside, seen) / number)[:, None]) * inside[..., None]
    mine = (own - (inside @ own / number)[:, None]) * inside[..., None]
    products = np.einsum("okp,okp->o", seen, mine)
    lengths = np.sqrt((seen**2).sum(axis=(1, 2)) * (mine**2).sum(axis=(1, 2)))
    moves = products / np.maximum(lengths, 1e-6)
    best = int(moves.argmax())
    # Two flat pictures are alike.
    is_flat = not (a.stays.any() or b.stays.any())
    stays = 1.0 if is_flat else float((a.stays[:, ::flip] * b.stays).sum())
    return Likeness(mirrored, float(shared[best]), stays, float(moves[best]), float(offsets[best]))
