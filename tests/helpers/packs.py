"""What the tests of packing share: videos that show their order, packs of them, and damage."""

import csv
import filecmp
from pathlib import Path

import numpy as np

from vsn.config import DataConfig
from vsn.data.packing.pack import pack_dataset
from vsn.data.readers import read_records

SIDE = 24


def moving_texture(num_frames: int, height: int = 64, width: int = 96, seed: int = 0) -> list[np.ndarray]:
    """A smooth pattern of one hue that drifts: neighboring frames differ, and JPEG does not lose it."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height // 16 + 4, width // 16 + 4, 1)) * (
        1,
        0.9,
        0.8,
    )
    big = np.kron(noise, np.ones((16, 16, 1)))
    for axis in (0, 1):
        big = np.mean([np.roll(big, shift, axis) for shift in range(-8, 9)], axis=0)
    return [big[i : i + height, i : i + width].astype(np.uint8) for i in range(num_frames)]


def pack(root: Path, out: Path, **options) -> str:
    """Pack class folders in this process, quietly; the summary as text."""
    options = {"short_side": SIDE, "num_workers": 0, "progress": False} | options
    return str(pack_dataset(DataConfig(root=str(root)), out, **options))


def packed_config(out: Path, **settings) -> DataConfig:
    return DataConfig(root=str(out), source="csv", **settings)


def facts(config: DataConfig, split: str) -> list[tuple[str, tuple[int, ...]]]:
    return [(record.video_id, record.labels) for record in read_records(config, split).records]


def same_folders(first: Path, second: Path) -> bool:
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    _, differing, errors = filecmp.cmpfiles(first, second, names, shallow=False)
    return not differing and not errors


def packed_paths(out: Path) -> list[Path]:
    with (out / "videos.csv").open(encoding="utf-8", newline="") as file:
        return sorted({out / row["path"] for row in csv.DictReader(file)})


def damage(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x55
    path.write_bytes(content)
