"""Compare the splits of a data set before training: videos in two of them, copies, classes without training videos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from vsn.config import ConfigError, DataConfig
from vsn.config.errors import quote_first
from vsn.data.copies import find_copies
from vsn.data.groups import describe_similar_groups, groups_in_training
from vsn.data.part import Part, overlapping_pairs, shared_fraction
from vsn.data.readers.entries import MAX_SHARED, absolute_path
from vsn.data.records import VIDEO_EXTENSIONS, RecordSet, VideoRecord
from vsn.data.video import VideoError, open_video

MAX_COMPARED = 20_000
"""Videos up to which training looks for copies: one look at the size of each takes a network disk seconds. The doctor
looks for them in data sets of any size."""


@dataclass(frozen=True)
class _Place:
    """A video in a split."""

    role: int
    """0 to train, 1 to validate, 2 to test."""
    split: str
    record: VideoRecord
    class_names: tuple[str, ...]
    """Sorted; empty where the data states no labels."""

    def __str__(self) -> str:
        return repr(self.record.video_id) + (f" ({self.record.place})" if self.record.place else "")


_Pair = tuple[_Place, _Place]


def check_splits(config: DataConfig, splits: Sequence[tuple[str, RecordSet]]) -> tuple[RecordSet, list[str]]:
    """Return the training records without copies of other records, and notes for the user.

    Videos are the same when their paths are, or the bytes of their files; segments, when they overlap in one of these.
    Folders of frames and packed videos are compared by their paths, and so are the files of a data set of more than
    `MAX_COMPARED` videos.

    Args:
        config: settings of the data set.
        splits: names and records: those to train on, to validate on, and perhaps to test on.

    Raises:
        ConfigError: a video is in two splits and `config.allow_overlap` is off, or has two labels; or a class has videos
            in another split and none to train on.
    """
    train = splits[0][1]
    _check_classes(config, splits)
    by_role = [_places(role, name, records) for role, (name, records) in enumerate(splits)]
    same_file = [
        (a[path], b[path])
        for a, b in combinations(by_role, 2)
        # A held-out part may be the validation and the test split.
        if a is by_role[0] or _shown(a) != _shown(b)
        for path in a
        if path in b
    ]
    pairs_of_file = [_overlapping([*a, *b], lambda a, b: a.role != b.role) for a, b in same_file]
    same = [pair for pairs in pairs_of_file for pair in pairs]
    notes = [*_check_pairs(config, same, same), *_describe_groups(splits)]
    by_path: dict[str, list[_Place]] = {}
    for path, places in (item for of_role in by_role for item in of_role.items()):
        by_path.setdefault(path, []).extend(places)
    if len(by_path) > MAX_COMPARED:
        notes.append(
            f"Copies under other names are looked for in up to {MAX_COMPARED:,} videos; `vsn data doctor` looks in all."
        )
        return train, notes

    copies = find_video_copies(Path(path) for path in by_path)
    pairs = [
        pair
        for group in copies
        for pair in _overlapping(
            (place for path in group for place in by_path[str(path)]), lambda a, b: a.record.path != b.record.path
        )
    ]
    # No list says that a copy belongs into the held-out part or into the other: it is left out of training.
    is_held_out = train.held_out_of is not None
    in_held_out = [(a, b) for a, b in pairs if is_held_out and (a.role, b.role) == (0, 1)]
    across = [(a, b) for a, b in pairs if a.role != b.role and (a, b) not in in_held_out]
    notes += _check_pairs(config, pairs, across)
    dropped = {a.record.shown: a for a, _ in in_held_out}
    for a, b in pairs:
        if a.role == b.role == 0 and a.record.shown not in dropped:
            dropped.setdefault(b.record.shown, b)
    if dropped:
        first = next(iter(dropped.values()))
        notes.append(f"Left out of training as copies of other videos: {len(dropped)}, for example {first}.")
    elsewhere = [b for a, b in pairs if a.role == b.role != 0]
    if elsewhere:
        names = quote_first(list(dict.fromkeys(place.split for place in elsewhere)))
        notes.append(f"Copies in {names} that count too: {len(elsewhere)}, for example {elsewhere[0]}.")
    kept = tuple(record for record in train.records if record.shown not in dropped)
    return replace(train, records=kept), notes


def find_video_copies(paths: Iterable[Path]) -> list[tuple[Path, ...]]:
    """Return groups of two or more video files with the same bytes."""
    files = [path for path in paths if path.suffix.lower() in VIDEO_EXTENSIONS]
    # Failed downloads are alike too, such as one error page under many names; training counts them as unreadable.
    return [group for group in find_copies(files) if _is_video(group[0])]


def _is_video(path: Path) -> bool:
    try:
        open_video(path).close()
    except VideoError:
        return False
    return True


def _places(role: int, split: str, records: RecordSet) -> dict[str, list[_Place]]:
    """Map each file, by its absolute path, to its videos or segments in a split."""
    places: dict[str, list[_Place]] = {}
    for record in records.videos:
        place = _Place(role, split, record, tuple(sorted(records.classes_of(record))))
        places.setdefault(absolute_path(record.path), []).append(place)
    return places


def _shown(places: dict[str, list[_Place]]) -> set[tuple[str, Part | None]]:
    return {(path, place.record.part) for path, members in places.items() for place in members}


def _overlapping(places: Iterable[_Place], condition: Callable[[_Place, _Place], bool]) -> list[_Pair]:
    """Return the pairs of places of one content that show the same frames, the training video first."""
    pairs = overlapping_pairs(places, lambda place: place.record.part)
    ordered = ((a, b) if a.role <= b.role else (b, a) for a, b in pairs)
    return sorted((pair for pair in ordered if condition(*pair)), key=lambda pair: (pair[0].role, pair[1].role))


def _check_pairs(config: DataConfig, pairs: Sequence[_Pair], across: Sequence[_Pair]) -> list[str]:
    """Raise `ConfigError` for pairs of the same video with two labels, and for those `across` splits.

    Returns a note where `config.allow_overlap` permits these.
    """
    for a, b in pairs:
        is_same = shared_fraction(a.record.part, b.record.part) > MAX_SHARED
        if is_same and a.class_names and b.class_names and a.class_names != b.class_names:
            both = " and ".join(f"{place} is {quote_first(place.class_names)}" for place in (a, b))
            raise ConfigError(f"{config.root}: the same video has two labels: {both}. Keep the right one.")
    if not across:
        return []
    a, b = across[0]
    if any(place.record.part for pair in across for place in pair):
        number = f"{len(across)} pairs of segments overlap"
    else:
        number = "1 video is" if len(across) == 1 else f"{len(across)} videos are"
    message = f"{number} in two splits, for example {a} in {a.split!r}"
    message += f" and {b} in {b.split!r}" if str(a) != str(b) else f" and {b.split!r}"
    if config.allow_overlap:
        return [f"{message}; data.allow_overlap permits it."]
    raise ConfigError(
        f"{config.root}: {message}. Accuracy on videos that were trained on says nothing about others: keep each in one "
        "split. data.allow_overlap = true permits it."
    )


def _describe_groups(splits: Sequence[tuple[str, RecordSet]]) -> list[str]:
    of_split = {name: [record.group for record in records.videos] for name, records in splits}
    similar = describe_similar_groups(group for groups in of_split.values() for group in groups)
    shared = groups_in_training(of_split, splits[0][0])
    if not shared:
        return similar
    group, others = next(iter(shared.items()))
    number = "1 group is" if len(shared) == 1 else f"{len(shared)} groups are"
    return [
        *similar,
        f"{number} in {splits[0][0]!r} and in another split, for example {group!r} in {quote_first(others)}: the accuracy "
        "there says less about other groups.",
    ]


def _check_classes(config: DataConfig, splits: Sequence[tuple[str, RecordSet]]) -> None:
    """Raise `ConfigError` for classes with videos in another split than that to train on, which is the first."""
    (train_name, train), *others = splits
    trained = {name for record in train.videos for name in train.classes_of(record)}
    untrained: dict[str, _Place] = {}
    for role, (name, records) in enumerate(others, 1):
        for record in records.videos:
            for class_name in {*records.classes_of(record)} - trained:
                untrained.setdefault(class_name, _Place(role, name, record, ()))
    if untrained:
        place = untrained[min(untrained)]
        raise ConfigError(
            f"{config.root}: {quote_first(sorted(untrained))} cannot be learned without videos in {train_name!r}; in "
            f"{place.split!r} there is {place}. Move some of their videos to {train_name!r}, remove the others, or correct "
            "the labels."
        )
