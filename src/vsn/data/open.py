"""The data sets of a recipe: opened, checked, said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress, TaskID

from vsn.config import ConfigError, EvalConfig, FlowLayout, Recipe
from vsn.data.dataset import VideoDataset
from vsn.data.flow.find import with_flow
from vsn.data.flow.values import wanted_flow
from vsn.data.readers import NoSplitError, read_records
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video import VideoError
from vsn.data.video.frame_folders import describe_frames
from vsn.system.progress import progress_bar


def open_datasets(recipe: Recipe, console: Console) -> tuple[VideoDataset, VideoDataset]:
    """The training set and the validation set of a recipe, decoded into memory when it says so.

    Raises:
        ConfigError: the data cannot be read, or its classes differ between the splits.
        VideoError: a validation video cannot be read, and `eval.bad_videos` is "stop".
    """
    records = read_records(recipe.data, recipe.data.train_split)
    unlabeled = [record.video_id for record in records.records if not record.labels]
    if unlabeled:
        raise ConfigError(
            f"{recipe.data.root}: {len(unlabeled)} videos of split {recipe.data.train_split!r} have no label, for "
            f"example {unlabeled[0]!r}; training needs them. Only data.task = 'arrow' does without."
        )
    records, layout, said = _inputs(recipe, records)
    train_set = VideoDataset(
        records,
        clip=recipe.clip,
        num_frames=recipe.model.num_frames,
        train=True,
        flip=recipe.data.flip,
        seed=recipe.train.seed,
        cache=recipe.data.cache,
        augment=recipe.augment,
        frame_template=recipe.data.frame_template,
        decoder=recipe.data.decoder,
        modality=recipe.model.modality,
        flow_length=recipe.model.flow_length,
        flow_layout=layout,
    )
    forward = replace(recipe.eval, order="forward")
    val_set = test_dataset(recipe, recipe.data.val_split, forward, classes=train_set.classes)
    console.print(describe_data(recipe, records, val_set), highlight=False, soft_wrap=True)
    if said:
        console.print(said, highlight=False, soft_wrap=True)
    if recipe.data.cache == "memory":
        preload(train_set, "decoding", console)  # what is bad counts against the limit when it is asked for
        bad = preload(val_set, "decoding", console)
        if bad and recipe.eval.bad_videos == "stop":
            raise bad[0]
    return train_set, val_set


def _inputs(recipe: Recipe, records: RecordSet) -> tuple[RecordSet, FlowLayout, str]:
    """The records of what the model looks at, how that is laid out, and what to tell the user of it.

    For flow the stored flow takes the place of the videos; else the records are as they were.
    """
    if recipe.model.modality != "flow":
        return records, recipe.data.flow_layout, ""
    stored = with_flow(records, recipe.data, wanted_flow(recipe))
    return stored.records, stored.layout, stored.said


def describe_data(recipe: Recipe, train: RecordSet, val_set: VideoDataset) -> str:
    """A few lines: how many videos of how many classes, in which splits, what is missing, and how frame
    files are named."""
    counts = Counter(label for record in train.records for label in record.labels)
    few, many = min(counts.values()), max(counts.values())
    spread = f"{few} each" if few == many else f"{few} to {many} each"
    without = [name for label, name in enumerate(train.classes) if label not in counts]
    lines = [
        f"{len(train.records)} videos of {len(counts)} classes ({spread}) to train on, "
        f"{len(val_set)} of split {recipe.data.val_split!r} to validate on."
    ]
    if without:
        lines.append(f"{len(without)} classes have no training video: {_some(without)}.")
    if train.num_missing:
        lines.append(f"{train.num_missing} annotated training videos are not on disk and are left out.")
    if recipe.model.modality != "flow":  # whose files `with_flow` describes
        lines += _frame_files(train.records[0], recipe.data.frame_template)
    return "\n".join(lines)


def _frame_files(record: VideoRecord, template: str) -> list[str]:
    """What names the frame files of a video have, when it is a folder that can be read."""
    if not record.path.is_dir():
        return []
    try:
        files = describe_frames(record.path, template)
    except VideoError:  # counted or raised when its frames are asked for
        return []
    decided = "as data.frame_template says" if template else "as found there; data.frame_template says otherwise"
    return [f"Frame files are named {files.template} from {files.start} in {record.video_id!r}, {decided}."]


def preload(dataset: VideoDataset, what: str, console: Console) -> list[VideoError]:
    """Fill a data set's memory cache behind a progress bar; return what could not be read."""
    with progress_bar("videos", console=console) as bar:
        task = bar.add_task(what, total=len(dataset), note="")

        def advance(done: int, total: int, bar: Progress = bar, task: TaskID = task) -> None:
            bar.update(task, completed=done, total=total)

        return dataset.preload(progress=advance)


def test_dataset(recipe: Recipe, split: str, config: EvalConfig, *, classes: Sequence[str] | None) -> VideoDataset:
    """A split seen as the protocol says, its frames in the order ``config.order``.

    Labels count in ``classes``, the model's, matched by name; with None in the data's own.

    Raises:
        ConfigError: the data cannot be read, has classes unknown to the model, or lists a video twice.
    """
    records = read_records(recipe.data, split)
    if classes is not None:
        records = match_classes(records, classes)
    counts = Counter(record.video_id for record in records.records)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise ConfigError(
            f"{recipe.data.root}: {len(twice)} videos of {split!r} are listed more than once, for example {twice[0]!r}; "
            "every video counts once, so list it once."
        )
    records, layout, _ = _inputs(recipe, records)
    return VideoDataset(
        records,
        clip=recipe.clip,
        num_frames=recipe.model.num_frames,
        train=False,
        protocol=config.protocol,
        order=config.order,
        seed=config.seed,
        cache=recipe.data.cache,
        frame_template=recipe.data.frame_template,
        decoder=recipe.data.decoder,
        modality=recipe.model.modality,
        flow_length=recipe.model.flow_length,
        flow_layout=layout,
        any_num_frames=recipe.model.any_num_frames,
    )


test_dataset.__test__ = False  # type: ignore[attr-defined]  # its name is no invitation to pytest


def match_classes(records: RecordSet, classes: Sequence[str]) -> RecordSet:
    """The records with labels counted in a model's classes, matched by name.

    Raises:
        ConfigError: the data has classes the model does not know.
    """
    unknown = sorted(set(records.classes) - set(classes))
    if unknown:
        raise ConfigError(
            f"The model was not trained on {len(unknown)} of the data's {len(records.classes)} classes, for example "
            f"{unknown[0]!r}; it knows {_some(list(classes))}. Classes are matched by name: name these as in the run's "
            "classes.json, leave them out, or train a model on this data (--init-from RUN starts it from these weights)."
        )
    index = {name: i for i, name in enumerate(classes)}
    renumbered: list[VideoRecord] = [
        replace(r, labels=tuple(index[records.classes[label]] for label in r.labels)) for r in records.records
    ]
    return replace(records, records=tuple(renumbered), classes=tuple(classes))


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")


def label_array(dataset: VideoDataset) -> NDArray[np.int64] | NDArray[np.bool_]:
    """The true labels: int64 ``(N,)``, -1 where there is none, or for multi-label records bool ``(N, num_classes)``."""
    if not dataset.multi_label:
        return np.array([record.labels[0] if record.labels else -1 for record in dataset.records], dtype=np.int64)
    labels = np.zeros((len(dataset), len(dataset.classes)), dtype=np.bool_)
    for row, record in zip(labels, dataset.records, strict=True):
        row[list(record.labels)] = True
    return labels


def split_to_test(recipe: Recipe) -> str:
    """The test split, or the validation split of data that has no test split."""
    try:
        read_records(recipe.data, recipe.data.test_split)
    except NoSplitError as error:
        try:
            read_records(recipe.data, recipe.data.val_split)
        except ConfigError:
            raise error from None
        return recipe.data.val_split
    return recipe.data.test_split
