"""Generate videos of moving texture in every form that `loading.py` measures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vsn.config import DataConfig
from vsn.data.packing.pack import pack_dataset
from vsn.data.video import open_video, write_video
from vsn.data.video.jpeg import encode_jpeg
from vsn.system.files import write_json, write_text

HEIGHT, WIDTH, RATE = 256, 340, 25


def texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return colors with detail at every scale, float32 (height, width, 3), 0 to 255."""
    total = np.zeros((height, width, 3), np.float32)
    for size, strength in ((64, 60), (32, 40), (16, 24), (8, 12), (4, 5), (2, 2)):
        gray = rng.normal(0, strength, (height // size + 2, width // size + 2, 1))
        tint = rng.normal(0, strength / 4, (*gray.shape[:2], 3))
        octave = np.kron(gray + tint, np.ones((size, size, 1)))
        for axis in (0, 1):
            octave = (octave + np.roll(octave, size // 2, axis)) / 2
        total += octave[:height, :width].astype(np.float32)
    return (total + 128).clip(0, 255)


def moving_texture(rng: np.random.Generator, num_frames: int) -> Iterator[np.ndarray]:
    """Yield frames of a camera that sways over a texture, a square of another texture that crosses it, and noise."""
    ground, square = texture(rng, HEIGHT + 80, WIDTH + 80), texture(rng, 90, 90)
    noise = [rng.normal(0, 2, (HEIGHT, WIDTH, 1)).astype(np.float32) for _ in range(5)]
    phase, speed = rng.uniform(0, 6, 2), rng.uniform(0.01, 0.04, 2)
    for i in range(num_frames):
        top, left = (40 + 39 * np.sin(phase + i * speed)).astype(int)
        frame = ground[top : top + HEIGHT, left : left + WIDTH] + noise[i % len(noise)]
        place = int((WIDTH - 90) * (0.5 + 0.5 * np.sin(0.05 * i + phase[0])))
        frame[80:170, place : place + 90] = square
        yield frame.clip(0, 255).astype(np.uint8)


def make_videos(work: Path, *, num_videos: int, frames: tuple[int, int], seed: int) -> dict[str, Any]:
    """Write every form of the videos unless an earlier run did; return sizes and the cost of packing."""
    settings = {"num_videos": num_videos, "frames": list(frames), "seed": seed}
    facts_file = work / "videos.json"
    if facts_file.is_file():
        facts: dict[str, Any] = json.loads(facts_file.read_text())
        if {key: facts[key] for key in settings} == settings:
            return facts
        raise SystemExit(f"{work} holds videos of other settings. Pass another folder.")
    rows = []
    for number in range(num_videos):
        rng = np.random.default_rng([seed, number])
        images = list(moving_texture(rng, int(rng.integers(frames[0], frames[1] + 1))))
        for form, every in (("h264-12", 12), ("h264-250", 250)):
            write_video(work / form / f"{number:04d}.mp4", images, frames_per_second=RATE, keyframe_every=every)
        folder = work / "jpeg" / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        decoded = open_video(work / "h264-250" / f"{number:04d}.mp4").all_frames()
        for i, image in enumerate(decoded, 1):  # frames are usually extracted from compressed video
            (folder / f"{i:05d}.jpg").write_bytes(encode_jpeg(image, quality=90))
        rows.append((number, len(decoded)))
    for form, ending in (("h264-12", ".mp4"), ("h264-250", ".mp4"), ("jpeg", "")):
        lines = [f"{number:04d}{ending},{'ab'[number % 2]},train" for number, _ in rows]
        write_text(work / form / "videos.csv", "\n".join(["path,label,split", *lines]) + "\n")
    config = DataConfig(root=str(work / "h264-250"), source="csv")
    summary = pack_dataset(config, work / "packed", splits=["train"])
    sizes = {form: folder_bytes(work / form) for form in ("jpeg", "h264-12", "h264-250", "packed")}
    facts = {**settings, "num_frames": sum(count for _, count in rows), "bytes": sizes}
    facts["packing"] = {"seconds": round(summary.seconds, 1), "num_workers": len(os.sched_getaffinity(0))}
    write_json(facts_file, facts)
    return facts


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv")
