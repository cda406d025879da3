"""Read data sets: annotation files in their official layout in, labeled records out.

Each data set has a function `(config, split) -> RecordSet` in its own file. Readers look at names: no
video is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vsn.config import ConfigError, DataConfig, Source
from vsn.data.readers.activitynet import read_activitynet
from vsn.data.readers.charades import read_charades
from vsn.data.readers.create_ml import read_create_ml
from vsn.data.readers.csv_file import read_csv
from vsn.data.readers.cvat import read_cvat
from vsn.data.readers.diving48 import read_diving48
from vsn.data.readers.folder import read_folder
from vsn.data.readers.hmdb51 import read_hmdb51
from vsn.data.readers.json_file import read_json_segments
from vsn.data.readers.kinetics import read_kinetics
from vsn.data.readers.label_studio import read_label_studio
from vsn.data.readers.lists import read_mmaction2_list, read_slowfast_list, read_tsn_list
from vsn.data.readers.moments import read_moments
from vsn.data.readers.something import read_jester, read_something_v1, read_something_v2
from vsn.data.readers.splits import NoSplitError
from vsn.data.readers.ucf101 import read_ucf101
from vsn.data.records import RecordSet
from vsn.system.terminal import shell_quote

__all__ = ["NoSplitError", "read_records"]

_READERS: dict[Source, Callable[[DataConfig, str], RecordSet]] = {
    "folder": read_folder,
    "synthetic": read_folder,
    "csv": read_csv,
    "something-v1": read_something_v1,
    "something-v2": read_something_v2,
    "jester": read_jester,
    "kinetics": read_kinetics,
    "moments": read_moments,
    "ucf101": read_ucf101,
    "hmdb51": read_hmdb51,
    "diving48": read_diving48,
    "tsn-list": read_tsn_list,
    "mmaction2-list": read_mmaction2_list,
    "slowfast-list": read_slowfast_list,
    "label-studio": read_label_studio,
    "cvat": read_cvat,
    "activitynet": read_activitynet,
    "charades": read_charades,
    "create-ml": read_create_ml,
    "json": read_json_segments,
}


def read_records(config: DataConfig, split: str) -> RecordSet:
    """Read the records of one split of the data set that `config` describes.

    Data without stated splits is split here: `val_fraction` of each class is both the validation and the
    test split, the rest the training split. Where only the validation split is absent, `val_fraction` of each class
    of the training split is that. Records of a split without labels have none; the training split must have them.
    A video that is listed several times is one record. `notes` state what was decided so.

    Raises:
        ConfigError: something is missing; names it. Only Kinetics and Moments in Time may lack videos,
            which are left out and counted in `num_missing`.
        NoSplitError: the data has no such split.
    """
    assert not config.background, "the background is drawn by vsn.data.background.read_labeled"
    if not config.root:
        raise ConfigError("data.root is empty; set it to the folder of the data set.")
    # Checked here for all readers: each would report its annotation file as missing.
    if not Path(config.root).is_dir():
        advice = f"; `vsn data synth {shell_quote(config.root)}` writes the embedded data set there" * (
            config.source == "synthetic"
        )
        is_relative = not Path(config.root).is_absolute()
        where = f" It is relative to the working directory, {Path.cwd()}." if is_relative else ""
        raise ConfigError(
            f"data.root is {config.root!r}, and there is no such folder{advice}.{where} Where the data has "
            "moved, pass its new place with --data.root, or --root of `vsn eval`."
        )
    if config.source not in _READERS:
        raise ConfigError(f"data.source is {config.source!r}; allowed are {', '.join(_READERS)}.")
    return _READERS[config.source](config, split)
