"""Plan a pack before the first video is read: videos, shards, labels, settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

from vsn.config import ConfigError, DataConfig
from vsn.data.background import read_labeled
from vsn.data.packing.shards import ShardJob, SourceVideo
from vsn.data.part import VideoPart
from vsn.data.readers import NoSplitError
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video.packed_files import SUFFIX

FORMAT = 2
"""Incremented when the same plan gives other files."""
_MAX_VIDEOS = 64
"""Videos of a shard, at most."""
_MIN_SHARDS = 32
"""Shards that a small data set is divided into, so that several processes have work."""


class PackDescription(TypedDict):
    """What decides the content of a pack, as `pack.json` holds it."""

    kind: str
    format: int
    settings: dict[str, int]
    source: dict[str, Any]


@dataclass(frozen=True)
class PackPlan:
    """A pack to be written."""

    config: DataConfig
    splits: dict[str, RecordSet]
    """Records by split name."""
    missing_splits: dict[str, str]
    """Splits that the data set does not have -> the reader's error message."""
    jobs: tuple[ShardJob, ...]
    description: PackDescription
    """Settings and source; equal for packs that hold the same."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the whole data set; empty when its labels are unused (task "arrow")."""
        return () if self.config.task == "arrow" else next(iter(self.splits.values())).classes

    def labels(self, record: VideoRecord) -> tuple[int, ...]:
        """Return the labels of a record that the pack keeps."""
        return () if self.config.task == "arrow" else record.labels

    @property
    def packed_config(self) -> DataConfig:
        """The settings that read the pack as `config` reads the source."""
        root = str(self.jobs[0].path.parent)
        config = replace(self.config, root=root, source="csv", annotations="videos.csv", videos="", frame_template="")
        return replace(config, background=0.0)  # drawn already


def make_plan(
    config: DataConfig, out: Path, *, splits: Sequence[str] | None, short_side: int, quality: int
) -> PackPlan:
    """Read the records and assign their videos to shards.

    Raises `ConfigError` for settings out of range, and for records that cannot be read or packed.
    """
    if short_side < 8:
        raise ConfigError(f"short_side is {short_side}; it must be 8 pixels or more.")
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality is {quality}; JPEG quality must be between 1 and 100.")
    config, sets, missing_splits = _read_splits(config, splits)
    videos = _distinct_videos(sets)
    # What decides the bytes of the shards, and so whether existing ones can be kept.
    settings = {"short_side": short_side, "quality": quality}
    source = {
        "reader": config.source,
        "task": config.task,
        "splits": {name: len(records.records) for name, records in sets.items()},
        "records": _fingerprint(
            [
                [records.classes, [(record.video_id, record.labels) for record in records.records]]
                for records in sets.values()
            ]
        ),
    }
    # Without the root: a data set that was moved still has the same shards.
    pack = _fingerprint([FORMAT, settings, source])
    shard_size = min(_MAX_VIDEOS, -(-len(videos) // _MIN_SHARDS))
    # 100 videos: 32 shards of up to 4. 10,000 videos: 157 shards of 64.
    jobs = tuple(
        ShardJob(
            path=out / f"shard-{number:05d}{SUFFIX}",
            videos=tuple(videos[start : start + shard_size]),
            short_side=short_side,
            quality=quality,
            frame_template=config.frame_template,
            decoder=config.decoder,
            pack=pack,
        )
        for number, start in enumerate(range(0, len(videos), shard_size))
    )
    description: PackDescription = {
        "kind": "vsn pack",
        "format": FORMAT,
        "settings": settings,
        "source": {"root": str(Path(config.root).resolve()), **source},
    }
    return PackPlan(config, sets, missing_splits, jobs, description)


def _read_splits(
    config: DataConfig, splits: Sequence[str] | None
) -> tuple[DataConfig, dict[str, RecordSet], dict[str, str]]:
    """Read the named splits, or the train, val and test split of the settings as far as the data set has them.

    Returns also the settings that read these splits.
    """
    sets: dict[str, RecordSet] = {}
    missing: dict[str, str] = {}
    for split in dict.fromkeys(splits or (config.train_split, config.val_split, config.test_split)):
        try:
            sets[split] = read_labeled(config, split)
        except NoSplitError as error:
            # Missing test labels are common; a missing training split is a mistake.
            if splits or split == config.train_split:
                raise
            missing[split] = str(error)
            continue
        if split == config.train_split and sets[split].held_out_of:
            # The pack has the splits of its source: a run on it may hold out another share, or validate on the test split.
            config = replace(config, val_split=config.train_split)
            sets[split] = read_labeled(config, config.train_split)
    # Refuse now what videos.csv could not give back, before hours of packing.
    for records in sets.values():
        for name in records.classes:
            if "|" in name or name != name.strip():
                raise ConfigError(
                    f"{config.root}: the class name {name!r} cannot be stored: videos.csv separates labels by '|', and "
                    "strips spaces around a name. Rename the class."
                )
    return config, sets, missing


def _distinct_videos(sets: dict[str, RecordSet]) -> list[SourceVideo]:
    """Return each video once, even if several splits have it, in the order in which shards take them."""
    id_of: dict[VideoPart, str] = {}
    shown_of: dict[str, VideoPart] = {}
    for records in sets.values():
        for record in records.records:
            if record.reverse:  # the same video, played backwards (task "arrow")
                continue
            video_id = id_of.setdefault(record.shown, record.video_id)
            other = shown_of.setdefault(video_id, record.shown)
            if other != record.shown:
                raise ConfigError(f"{other} and {record.shown} have the same id, {video_id!r}. Rename one of them.")
            try:
                video_id.encode()
            except UnicodeEncodeError:
                raise ConfigError(
                    f"{record.path!r}: the name is not UTF-8, the encoding of videos.csv. Rename the video."
                ) from None
    videos = [SourceVideo(shown, video_id) for shown, video_id in id_of.items()]
    # Ordered by a hash, each shard has videos of many classes: even an unshuffled read mixes them.
    return sorted(videos, key=lambda video: hashlib.sha256(video.video_id.encode()).digest())


def _fingerprint(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
