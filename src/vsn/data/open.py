"""Open and validate the data sets of a recipe."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.config.errors import quote_first
from vsn.data.background import read_labeled
from vsn.data.dataset import VideoDataset
from vsn.data.extra import open_extra
from vsn.data.flips import describe_pairs, unclear_pairs
from vsn.data.flow.find import with_flow
from vsn.data.flow.values import expected_flow
from vsn.data.overlap import check_splits
from vsn.data.processor import open_as_in
from vsn.data.readers import NoSplitError
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video import OutsideVideoError, VideoError, part_reader
from vsn.data.video.frame_folders import describe_frames
from vsn.system.interrupt import stop_requests
from vsn.system.progress import progress_bar
from vsn.system.terminal import print_line

MAX_FILES_CHECKED = 200
"""Files whose segments training compares with their length before it starts: that of one takes milliseconds."""


def open_datasets(recipe: Recipe, console: Console) -> tuple[VideoDataset, VideoDataset]:
    """Open the training and the validation set of a recipe; decode them into memory for `data.cache = "memory"`.

    Prints a few lines about the data.

    Raises:
        ConfigError: the data cannot be read, or its classes differ between the splits.
        VideoError: a validation video cannot be read, and `eval.bad_videos` is "stop".
    """
    # Readers refuse unlabeled videos of a split that means training; this one may be called "test".
    records = read_labeled(recipe.data, recipe.data.train_split)
    unlabeled = [record.video_id for record in records.records if not record.labels]
    if unlabeled and (not records.multi_label or len(unlabeled) == len(records.records)):
        raise ConfigError(
            f"{recipe.data.root}: {len(unlabeled)} videos of the training split {recipe.data.train_split!r} have no "
            f"label, for example {unlabeled[0]!r}. Only data.task = 'arrow' trains without labels."
        )
    val = relabel(read_labeled(recipe.data, recipe.data.val_split), records.classes)
    splits = [(recipe.data.train_split, records), (recipe.data.val_split, val)]
    # Training uses no test videos: a test split that cannot be read is an error of `vsn eval`. Without stated splits it is
    # the validation split.
    if recipe.data.test_split not in dict(splits) and records.held_out_of != "":
        with contextlib.suppress(ConfigError):
            splits.append((recipe.data.test_split, read_labeled(recipe.data, recipe.data.test_split)))
    # A note about the whole list is in both, with another example.
    notes = {note.partition(", for example ")[0]: note for note in (*val.notes, *records.notes)}.values()
    records, split_notes = check_splits(recipe.data, splits)
    if recipe.model.modality != "flow":  # the flow of a segment is stored on its own
        _check_times(recipe, [records, val])
    located, records, flow_note = _with_stored_flow(recipe, records)
    extra, extra_note = open_extra(recipe, records)
    train_set = VideoDataset(records, located, train=True, extra=extra)
    # Validation during training shows frames in order, also for a recipe that tests shuffled frames.
    val_set = _open_records(recipe, val, view=replace(recipe.eval, order="forward"))
    for note in filter(None, (*notes, *split_notes, _describe_data(recipe, records, val_set), flow_note, extra_note)):
        print_line(console, note)
    if recipe.data.cache == "memory":
        _preload(train_set, console)  # unreadable training videos count against data.bad_videos during training
        errors = _preload(val_set, console)
        if errors and recipe.eval.bad_videos == "stop":
            raise errors[0]
    return train_set, val_set


def open_split(
    recipe: Recipe, split: str, *, view: EvalConfig | None = None, classes: Sequence[str] | None = None
) -> VideoDataset:
    """Open a split for evaluation, as `view` (the recipe's by default) shows its videos.

    Labels index `classes`, those of the model, matched by name; None: the classes of the data.

    Raises:
        ConfigError: the data cannot be read, or has classes unknown to the model.
    """
    records = read_labeled(recipe.data, split)
    # The same class may have another label in this data: only its name identifies it.
    if classes is not None:
        records = relabel(records, classes)
    return _open_records(recipe, records, view=view)


def _open_records(recipe: Recipe, records: RecordSet, *, view: EvalConfig | None) -> VideoDataset:
    recipe, records, _ = _with_stored_flow(recipe, records)
    extra, _ = open_extra(recipe, records)
    return VideoDataset(records, recipe, train=False, view=view, extra=extra)


def _check_times(recipe: Recipe, record_sets: Sequence[RecordSet]) -> None:
    """Raise `ConfigError` for segments outside of their files: found now, not hours later as unreadable videos.

    Looks at the first and the last segment of up to `MAX_FILES_CHECKED` files; `vsn data doctor` looks at all.
    """
    of_file: dict[Path, list[VideoRecord]] = {}
    for record in (record for records in record_sets for record in records.videos if record.part):
        of_file.setdefault(record.path, []).append(record)
    outside = []
    for path, segments in list(of_file.items())[:MAX_FILES_CHECKED]:
        segments.sort(key=lambda one: one.end or one.start)
        try:
            with open_as_in(recipe, path) as video:
                for record in (segments[-1], segments[0]):
                    part_reader(video, record.part)
        except OutsideVideoError as error:
            outside.append(f"{record.video_id!r} ({record.place}): {error.reason}")
        except VideoError:  # counted when its clips are read
            continue
    if outside:
        raise ConfigError(
            f"{recipe.data.root}: {len(outside)} files have segments outside of them, for example {outside[0]} Correct "
            "start and end: they are seconds."
        )


def relabel(records: RecordSet, classes: Sequence[str]) -> RecordSet:
    """Return the records with labels that index a model's classes, matched by name.

    Raises `ConfigError` for other classes.
    """
    unknown = sorted(set(records.classes) - set(classes))
    if unknown:
        raise ConfigError(
            f"The model was not trained on {len(unknown)} of the data's {len(records.classes)} classes, for example "
            f"{unknown[0]!r}; it knows {quote_first(classes, 5)}. Rename the classes to those of the run's classes.json, "
            "leave them out, or train a model on this data (--init-from RUN starts from these weights)."
        )
    index = {name: i for i, name in enumerate(classes)}
    relabeled = [
        replace(record, labels=tuple(index[records.classes[label]] for label in record.labels))
        for record in records.records
    ]
    return replace(records, records=tuple(relabeled), classes=tuple(classes))


def label_array(dataset: VideoDataset) -> NDArray[np.int64] | NDArray[np.bool_]:
    """Return the true labels: int64 `(N,)`, -1 for none, or for multi-label records bool `(N, num_classes)`."""
    if not dataset.multi_label:
        return np.array([record.label for record in dataset.records], dtype=np.int64)
    # Multi-label: a row of 0 and 1 for each video.
    labels = np.zeros((len(dataset), len(dataset.classes)), dtype=np.bool_)
    for row, record in zip(labels, dataset.records, strict=True):
        row[list(record.labels)] = True
    return labels


def split_to_test(recipe: Recipe) -> str:
    """Return the name of the test split, or of the validation split of data that has no test split."""
    try:
        read_labeled(recipe.data, recipe.data.test_split)
    except NoSplitError as error:
        # The error about the test split is the useful one when neither split exists.
        try:
            read_labeled(recipe.data, recipe.data.val_split)
        except ConfigError:
            raise error from None
        return recipe.data.val_split
    return recipe.data.test_split


def _with_stored_flow(recipe: Recipe, records: RecordSet) -> tuple[Recipe, RecordSet, str]:
    """For a flow model: the recipe with the flow's layout, records of the flow files, and a note for the user."""
    if recipe.model.modality != "flow":
        return recipe, records, ""
    # The flow files take the place of the videos; labels and ids stay those of the videos.
    stored = with_flow(records, recipe.data, expected_flow(recipe))
    return replace(recipe, data=replace(recipe.data, flow_layout=stored.layout)), stored.records, stored.summary


def _describe_data(recipe: Recipe, train: RecordSet, val_set: VideoDataset) -> str:
    """Describe the data in a few lines: numbers of videos and classes, what is missing, names of frame files."""
    counts = Counter(label for record in train.records for label in record.labels)
    least, most = min(counts.values()), max(counts.values())
    spread = f"{least} each" if least == most else f"{least} to {most} each"
    # A class without training videos is never predicted: usually a wrong path or a truncated list.
    absent = [name for label, name in enumerate(train.classes) if label not in counts]
    lines = [
        f"{len(train.records)} training videos of {len(counts)} classes ({spread}), "
        f"{len(val_set)} validation videos (split {recipe.data.val_split!r})."
    ]
    if recipe.data.flip == "auto" and train.per_video == 1 and (pairs := unclear_pairs(train.classes)):
        lines.append(f"Not flipped: {describe_pairs(train.classes, pairs)}")
    if absent:
        lines.append(f"{len(absent)} classes have no training video: {quote_first(absent, 5)}.")
    if train.num_missing:
        lines.append(f"{train.num_missing} annotated training videos are not on disk and are left out.")
    # Of the first video: a wrong template reads no or the wrong frames of all. The note of `with_flow` names flow files.
    record, template = train.records[0], recipe.data.frame_template
    if recipe.model.modality != "flow" and record.path.is_dir():
        decided = "as data.frame_template states" if template else "as detected (data.frame_template)"
        with contextlib.suppress(VideoError):  # reported when its frames are read
            files = describe_frames(record.path, template)
            lines.append(
                f"Frame files are named {files.template} from {files.start} in {record.video_id!r}, {decided}."
            )
    return "\n".join(lines)


def _preload(dataset: VideoDataset, console: Console) -> list[VideoError]:
    """Fill a data set's memory cache behind a progress bar; return the errors of unreadable videos."""
    with stop_requests(raises=True) as stop, progress_bar("videos", console=console) as bar:
        task = bar.add_task("decoding", total=len(dataset), note="")

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            stop.check()

        return dataset.preload(progress=progress)
