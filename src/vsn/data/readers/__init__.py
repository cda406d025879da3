"""Readers of data sets: annotation files as people have them on disk in, labeled records out.

One function a data set, `(config, split) -> RecordSet`; `read_records` takes the one that
`config.source` names. Readers look at names: no video is opened.
"""

from __future__ import annotations

from pathlib import Path

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.csv_file import read_csv
from vsn.data.readers.diving48 import read_diving48
from vsn.data.readers.folder import read_folder
from vsn.data.readers.hmdb51 import read_hmdb51
from vsn.data.readers.kinetics import read_kinetics
from vsn.data.readers.lists import read_mmaction2_list, read_slowfast_list, read_tsn_list
from vsn.data.readers.moments import read_moments
from vsn.data.readers.something import read_jester, read_something_v1, read_something_v2
from vsn.data.readers.splits import NoSplitError
from vsn.data.readers.ucf101 import read_ucf101
from vsn.data.records import RecordSet

__all__ = ["NoSplitError", "read_records"]


def read_records(config: DataConfig, split: str) -> RecordSet:
    """The videos of one split of the data set that `config` describes.

    Without stated splits, the training split is what a hold-out of `val_fraction` of each class
    leaves, and the validation and the test split are both the part held out. A split whose labels
    are unknown gives records without labels, unless it is the one that is trained on.

    Raises `ConfigError` for whatever is missing, naming it; `NoSplitError` when it is the split. Only
    Kinetics and Moments in Time may lack videos: these are left out and counted in `num_missing`.
    """
    if not config.root:
        raise ConfigError("data.root is empty; set it to the folder of the data set.")
    if not Path(config.root).is_dir():
        synthetic = config.source == "synthetic"
        advice = f"; `vsn data synth {config.root}` writes the embedded data set there" if synthetic else ""
        relative = not Path(config.root).is_absolute()
        where = f" It counts from where the command runs, {Path.cwd()}." if relative else ""
        raise ConfigError(f"data.root is {config.root!r}, and there is no such folder{advice}.{where}")
    match config.source:
        case "folder" | "synthetic":
            return read_folder(config, split)
        case "csv":
            return read_csv(config, split)
        case "something-v1":
            return read_something_v1(config, split)
        case "something-v2":
            return read_something_v2(config, split)
        case "jester":
            return read_jester(config, split)
        case "kinetics":
            return read_kinetics(config, split)
        case "moments":
            return read_moments(config, split)
        case "ucf101":
            return read_ucf101(config, split)
        case "hmdb51":
            return read_hmdb51(config, split)
        case "diving48":
            return read_diving48(config, split)
        case "tsn-list":
            return read_tsn_list(config, split)
        case "mmaction2-list":
            return read_mmaction2_list(config, split)
        case "slowfast-list":
            return read_slowfast_list(config, split)
    raise ConfigError(f"data.source is {config.source!r}; see `vsn.config.Source` for the names there are.")
