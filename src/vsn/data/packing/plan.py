"""What a pack is to hold, fixed before the first video is read: videos, shards, labels, settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vsn.config import ConfigError, DataConfig
from vsn.data.packing.shards import ShardJob, SourceVideo
from vsn.data.readers import NoSplitError, read_records
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video.packed_files import SUFFIX

MARKER = "pack.json"
UNFINISHED = "pack.unfinished.json"
FORMAT = 1
"""Counts up when the same plan gives other files."""
_MOST_VIDEOS = 64
"""Videos of a shard, at most."""
_NUM_SHARDS = 32
"""Shards of a small set, so that the work divides: below `_MOST_VIDEOS` each, there are about so many."""


@dataclass(frozen=True)
class PackPlan:
    """A pack to be written."""

    config: DataConfig
    splits: dict[str, RecordSet]
    """Records by the name of the split, as it was asked for."""
    left_out: dict[str, str]
    """Splits that the data set does not have -> what its reader says."""
    jobs: tuple[ShardJob, ...]
    description: dict[str, Any]
    """Settings and source, as JSON; equal for packs that hold the same."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the whole data set; none when its labels are unused (task "arrow")."""
        return () if self.config.task == "arrow" else next(iter(self.splits.values())).classes

    def labels(self, record: VideoRecord) -> tuple[int, ...]:
        """Labels that the pack keeps of a record."""
        return () if self.config.task == "arrow" else record.labels


def make_plan(
    config: DataConfig, out: Path, *, splits: Sequence[str] | None, short_side: int, quality: int
) -> PackPlan:
    """Read the records and lay them out. Videos go to shards in the order of a hash of their ids, so
    that each shard holds some of every class and reading in any order is spread over all.

    Raises `ConfigError` for settings out of range and for what the reader cannot read.
    """
    if short_side < 8:
        raise ConfigError(f"short_side is {short_side}; it must be 8 pixels or more.")
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality is {quality}; the quality of JPEG frames is 1 to 100.")
    sets, left_out = _read_splits(config, splits)
    videos = _distinct_videos(sets)
    settings = {"short_side": short_side, "quality": quality}
    source = {
        "root": str(Path(config.root).resolve()),
        "reader": config.source,
        "task": config.task,
        "splits": {name: len(records.records) for name, records in sets.items()},
        "records": _hash([_facts(records) for records in sets.values()]),
    }
    lasting = {key: value for key, value in source.items() if key != "root"}  # a data set may move
    pack = _hash([FORMAT, settings, lasting])
    size = min(_MOST_VIDEOS, -(-len(videos) // _NUM_SHARDS))
    jobs = tuple(
        ShardJob(
            path=out / f"shard-{number:05d}{SUFFIX}",
            videos=tuple(videos[start : start + size]),
            short_side=short_side,
            quality=quality,
            frame_template=config.frame_template,
            decoder=config.decoder,
            pack=pack,
        )
        for number, start in enumerate(range(0, len(videos), size))
    )
    description = {"kind": "vsn pack", "format": FORMAT, "settings": settings, "source": source}
    return PackPlan(config, sets, left_out, jobs, description)


def packed_config(config: DataConfig, out: Path) -> DataConfig:
    """The settings that read the pack in `out` as `config` reads the source."""
    return replace(config, root=str(out), source="csv", annotations="videos.csv", videos="", frame_template="")


def check_folder(out: Path, description: dict[str, Any]) -> None:
    """Raise `ConfigError` unless out is absent, empty, or a pack of this source and these settings."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"{out} is a file; a pack needs a folder. Choose another name.")
    marker = next((out / name for name in (MARKER, UNFINISHED) if (out / name).is_file()), None)
    if marker is None:
        if any(out.iterdir()):
            raise ConfigError(f"{out} holds other files and no {MARKER}; choose a new or an empty folder.")
        return
    found = _flat({key: read_marker(marker).get(key) for key in description})
    changed = [
        "other videos, labels or classes"
        if key == "source.records"
        else f"{key} is {found.get(key)!r} there, {value!r} here"
        for key, value in _flat(description).items()
        if found.get(key) != value
    ]
    if changed or found.keys() != _flat(description).keys():
        raise ConfigError(
            f"{out} holds a pack of another source or with other settings ({'; '.join(changed) or 'other splits'}). "
            "Choose another folder, or delete it."
        )


def read_marker(path: Path) -> dict[str, Any]:
    """The description of a pack. Raises `ConfigError` when the file is absent or something else."""
    try:
        marker: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if marker["kind"] != "vsn pack":
            raise KeyError
    except FileNotFoundError:
        raise ConfigError(f"{path.parent}: no {MARKER}, so it is no pack, or one not finished; pack first.") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} does not describe a pack; choose another folder.") from None
    return marker


def _read_splits(config: DataConfig, splits: Sequence[str] | None) -> tuple[dict[str, RecordSet], dict[str, str]]:
    """Records of the splits asked for, or of those of the settings that the data set has."""
    sets: dict[str, RecordSet] = {}
    left_out: dict[str, str] = {}
    for split in dict.fromkeys(splits or (config.train_split, config.val_split, config.test_split)):
        try:
            sets[split] = read_records(config, split)
        except NoSplitError as error:
            if splits or split == config.train_split:
                raise
            left_out[split] = str(error)
    for records in sets.values():
        for name in records.classes:
            if "|" in name or name != name.strip():
                raise ConfigError(
                    f"{config.root}: the class name {name!r} cannot be kept in {config.source}: a packed "
                    'set separates labels by "|", and spaces around a name are lost. Rename the class.'
                )
    return sets, left_out


def _distinct_videos(sets: dict[str, RecordSet]) -> list[SourceVideo]:
    """Each video once, whatever splits and labels it has, in the order in which shards take them."""
    by_path: dict[Path, str] = {}
    by_id: dict[str, Path] = {}
    for records in sets.values():
        for record in records.records:
            if record.reverse:
                continue
            video_id = by_path.setdefault(record.path, record.video_id)
            other = by_id.setdefault(video_id, record.path)
            if other != record.path:
                raise ConfigError(f"{other} and {record.path} have the same id, {video_id!r}; ids tell videos apart.")
            if _not_utf8(video_id):
                raise ConfigError(f"{record.path!r}: the name is not UTF-8, which videos.csv is. Rename the video.")
    videos = [SourceVideo(path, video_id) for path, video_id in by_path.items()]
    return sorted(videos, key=lambda video: hashlib.sha256(video.video_id.encode()).digest())


def _facts(records: RecordSet) -> list[Any]:
    return [records.classes, [(record.video_id, record.labels) for record in records.records]]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _not_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
