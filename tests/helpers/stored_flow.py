"""Stored flow for tests: in every layout that is read, and beside the look-alikes of `lookalikes.py`.

`lay_flow(make_something_v1(root), "id-xy")` writes the flow of every video as that data set has it and
returns the settings. The flow is exact: the bright square of a look-alike moves by whole pixels.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tests.helpers.lookalikes import draw_frames
from vsn.config import DataConfig
from vsn.data.flow.stored import write_flow_file
from vsn.data.flow.values import FlowMetadata, flow_to_bytes, write_flow_metadata
from vsn.data.readers import NoSplitError, read_records

Layout = Literal["xy", "id-xy", "rg", "file"]
LAYOUTS: tuple[Layout, ...] = ("xy", "id-xy", "rg", "file")
MOTIONS = ((4.0, 0.0), (-4.0, 0.0), (0.0, 4.0))
"""Pixels a frame, right and down, of the square in videos of label 0, 1 and 2."""


def exact_flow(label: int, number: int) -> list[np.ndarray]:
    """The flow of `draw_frames(label, number)`, float `(H, W, 2)`: the square moves, the rest is still."""
    frames = draw_frames(label, number)
    return [(former[..., :1] == 230) * np.array(MOTIONS[label]) for former in frames[:-1]]


def write_fields(
    folder: Path, name: str, fields: list[np.ndarray], layout: Layout, *, start: int = 1, suffix: str = ".jpg"
) -> Path:
    """Write fields, uint8 `(H, W, 2)`, as the flow of the video `name`; return its folder or file."""
    if layout == "file":
        write_flow_file(folder / f"{name}.vsnflow", fields, video_id=name, quality=100)
        return folder / f"{name}.vsnflow"
    number = f"{int(name):06d}" if layout == "id-xy" else ""
    place = folder / (number or name)
    place.mkdir(parents=True, exist_ok=True)
    options = {"quality": 100} if suffix == ".jpg" else {}
    for i, field in enumerate(fields, start):
        if layout == "rg":
            both = np.dstack([field, np.zeros_like(field[..., 0])])
            Image.fromarray(both).save(place / f"{i:06d}{suffix}", **options)
            continue
        for axis, values in zip("xy", np.moveaxis(field, 2, 0), strict=True):
            kind = f"{number}-{axis}" if layout == "id-xy" else f"flow_{axis}"
            Image.fromarray(values).save(place / f"{kind}_{i:05d}{suffix}", **options)
    return place


def lay_flow(config: DataConfig, layout: Layout = "xy", *, folder: str = "flow") -> DataConfig:
    """Store the flow of every video of a look-alike in `folder` below its root; the settings to read it."""
    root = Path(config.root)
    for split in (config.train_split, config.val_split, config.test_split):
        try:
            records = read_records(config, split).records
        except NoSplitError:
            continue
        for number, record in enumerate(records):
            name = record.video_id.rpartition("/")[2]
            stem = name if record.path.is_dir() else Path(name).stem
            fields = [flow_to_bytes(field, 20.0) for field in exact_flow(max(record.label, 0), number)]
            write_fields(root / folder, stem, fields, layout)
    if layout == "file":
        write_flow_metadata(root / folder, FlowMetadata())
    return replace(config, flow=folder)
