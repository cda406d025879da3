"""Packed sets that tests share."""

import shutil
from pathlib import Path

import pytest

from vsn.data.decode import write_video
from vsn.data.readers import read_records

from .packs import moving_texture, pack, packed_config


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
