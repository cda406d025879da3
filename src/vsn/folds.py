"""Cross-validate: train one run per fold, and join the scores of the videos that each run did not train on.

The output folder is described in `vsn.runs.folds`. The same call continues where it stopped, in the middle of an epoch too.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from vsn.config import ConfigError, DataConfig, Recipe
from vsn.config.errors import quote_first
from vsn.config.recipes import recorded_recipe
from vsn.data.background import read_labeled
from vsn.data.groups import assign_folds, describe_class, describe_similar_groups, missing_classes
from vsn.data.open import open_datasets
from vsn.data.overlap import MAX_COMPARED, find_video_copies
from vsn.data.part import Part, overlapping_pairs
from vsn.data.readers import NoSplitError, read_records
from vsn.data.readers.entries import absolute_path, video_id
from vsn.data.records import REVERSED, RecordSet, VideoRecord
from vsn.data.video import stored_bytes
from vsn.data.video.packed_files import packed_place
from vsn.inference.evaluate import evaluate_split
from vsn.runs.folds import FOLDS_FILE, FOLDS_LIST, OUT_OF_FOLD, DividedBy, Fold, Folds, is_folds, load_folds
from vsn.runs.metadata import versions, write_run
from vsn.runs.results import EvalResult, list_results
from vsn.runs.run import RESUMABLE_SETTINGS, Run, RunError, check_new, flat_settings, is_finished, open_run
from vsn.scores.match import reorder_scores
from vsn.scores.scores import Scores, load_scores
from vsn.system.distributed import Distributed
from vsn.system.files import write_csv, write_json
from vsn.system.lock import lock_folder
from vsn.system.numbers import percent
from vsn.system.terminal import print_line
from vsn.training.job import check_job
from vsn.training.train import train_or_reuse


@dataclass(frozen=True)
class FoldSpec:
    """How videos are divided."""

    num_folds: int = 5
    by: DividedBy = "group"
    """group: the videos of a group are in one fold; video: each file on its own, with all its segments."""
    splits: tuple[str, ...] = ()
    """Splits whose videos are divided; empty: those for training and validation, or all where the data states none."""


@dataclass(frozen=True)
class _Division:
    """The videos of a data set with the fold of each."""

    records: tuple[VideoRecord, ...]
    class_names: tuple[tuple[str, ...], ...]
    """Of each video, as annotated; empty in task "arrow"."""
    folds: NDArray[np.int64]
    """``(N,)``, 0 to the number of folds - 1."""
    splits: tuple[str, ...]
    spec: FoldSpec
    notes: tuple[str, ...]
    """What the user should know about the data, one sentence each."""

    @property
    def videos_hash(self) -> str:
        """A hash of ids, classes, groups and folds, in any order."""
        rows = sorted(
            (record.video_id, *names, "#", record.group, str(fold))
            for record, names, fold in zip(self.records, self.class_names, self.folds.tolist(), strict=True)
        )
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def files_hash(self) -> str:
        """A hash of ids, sizes in bytes and times of segments: other videos or segments under the same names change it."""
        rows = sorted((r.video_id, stored_bytes(r.path), *([str(r.part)] if r.part else [])) for r in self.records)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @property
    def early_files_hash(self) -> str:
        """The same as early versions made it: without the times of segments and the sizes of packed videos."""
        sizes = {r.video_id: 0 if packed_place(r.path) else stored_bytes(r.path) for r in self.records}
        return hashlib.sha256(json.dumps(sorted(sizes.items())).encode()).hexdigest()

    def groups_of(self, fold: int) -> list[str]:
        """The groups that are held out in a fold; none where videos are divided one by one."""
        if self.spec.by == "video":
            return []
        return sorted({self.records[row].group for row in np.flatnonzero(self.folds == fold)})


def cross_validate(
    recipe: Recipe, spec: FoldSpec, out: Path, *, command: str = "", console: Console | None = None
) -> Folds:
    """Train and test the folds that are not done, then join their scores; return the content of `folds.json`.

    Under `torchrun` every process calls it; rank 0 writes and prints.

    Args:
        recipe: the settings that all folds share; `data.split_seed` draws the folds.
        spec: how the videos are divided.
        out: the folder.
        command: the command line, for the file.
        console: where to print; default standard error.

    Raises:
        ConfigError: data that cannot be divided so, or a recipe that cannot be trained here.
        RunError: the folder has folds of another recipe or of other videos.
        LockError: another process writes into the folder.
        VideoError, TrainingStopped: as `vsn.training.train.train`; what is done is kept.
    """
    distributed = Distributed(recipe.train.device)
    console = (console or Console(stderr=True)) if distributed.is_rank0 else Console(quiet=True)
    check_job(recipe, distributed)
    if recipe.train.early_stop:
        raise ConfigError(
            f"train.early_stop is {recipe.train.early_stop}: each fold would end where its held-out videos are predicted "
            "best, and their accuracy would be too high. Set it to 0."
        )
    division = divide(recipe.data, spec)
    for note in division.notes:
        print_line(console, note)
    with contextlib.ExitStack() as stack:
        if distributed.is_rank0:
            stack.enter_context(lock_folder(out))
        folds = distributed.broadcast_from_rank0(lambda: _open_folds(recipe, division, out, command))
        for number, fold in enumerate(folds["folds"]):
            run_recipe = _recipe_of(recipe, out / f"{fold['run']}.csv")
            result = distributed.broadcast_from_rank0(
                functools.partial(_tested, out / fold["run"], run_recipe)  # what an earlier call has tested
            )
            if result is None:
                print_line(console, _announce(folds, number, division))
                result = _train_and_test(run_recipe, out / fold["run"], distributed, console)
                print_line(console, f"{fold['run']}: top-1 {percent(result.top1)} on {result.num_videos} videos")
            fold["top1"], fold["seconds"] = result.top1, _seconds(out / fold["run"], result)
            if distributed.is_rank0:
                write_json(out / FOLDS_FILE, folds)
        if distributed.is_rank0:
            _join(recipe, folds, division, out)
    return folds


def plan(recipe: Recipe, spec: FoldSpec, out: Path, *, console: Console | None = None) -> list[Fold]:
    """Return the folds that `cross_validate` would train, with the figures of those that are done; nothing is written.

    What the user should know about the data is printed on ``console``, default standard error.
    """
    division = divide(recipe.data, spec)
    for note in division.notes:
        print_line(console or Console(stderr=True), note)
    return _open_folds(recipe, division, out, "", write=False)["folds"]


def divide(config: DataConfig, spec: FoldSpec) -> _Division:
    """Read the videos of a data set, and assign each to a fold.

    Raises:
        ConfigError: no groups, fewer groups than folds, a video in two groups or with two labels, or a class that a fold
            would have no training videos of.
    """
    sets, splits = _read_sets(config, spec.splits)
    records: dict[tuple[str, Part | None], tuple[VideoRecord, RecordSet]] = {}
    for part in sets:
        for record in part.videos:
            # A held-out part may be read twice, as validation and as test split.
            first, of_first = records.setdefault((absolute_path(record.path), record.part), (record, part))
            if first is not record:
                _check_twice(config, first, of_first.classes_of(first), record, part.classes_of(record))
    chosen = tuple(record for record, _ in records.values())
    names = tuple(part.classes_of(record) for record, part in records.values())
    if unlabeled := [r.video_id for r, n in zip(chosen, names, strict=True) if not n and config.task == "classify"]:
        raise ConfigError(
            f"{config.root}: {len(unlabeled)} of {len(chosen)} videos have no label, for example {unlabeled[0]!r}. "
            "Folds need labels: leave out the splits without."
        )
    if spec.by == "group" and (ungrouped := [record.video_id for record in chosen if not record.group]):
        raise ConfigError(
            f"{config.root}: {len(ungrouped)} of {len(chosen)} videos have no group, for example {ungrouped[0]!r}. Add a "
            "column group to the CSV list (data.source csv), or set data.group_pattern; --by video divides videos one by "
            "one, which measures accuracy on people and places that the model knows."
        )
    groups = _groups_to_divide(config, chosen, names, spec.by)
    # Few multi-label videos share all labels.
    classes = [() if config.task == "multilabel" else of_video for of_video in names]
    folds = assign_folds(classes, groups, spec.num_folds, seed=config.split_seed)
    for fold in range(spec.num_folds):
        if alone := missing_classes(classes, folds == fold):
            of_class = sorted({group for name, group in zip(classes, groups, strict=True) if name == alone[0]})
            raise ConfigError(
                f"{config.root}: without fold {fold + 1} there are no videos of {describe_class(alone[0])!r} to train on: "
                f"all are of {'the group' if len(of_class) == 1 else 'the groups'} {quote_first(of_class)}. Add videos of "
                "it by other groups, remove the class, or try another data.split_seed."
            )
    # A note about the whole list is in each set, with another example.
    of_readers = (note for part in sets for note in part.notes if note not in part.held_out_notes)
    notes = {note.partition(", for example ")[0]: note for note in of_readers}
    similar = [*describe_similar_groups(groups), *_shared_files(config, chosen, folds)] if spec.by == "group" else []
    return _Division(chosen, names, folds, splits, spec, (*notes.values(), *similar))


def _shared_files(config: DataConfig, records: Sequence[VideoRecord], folds: NDArray[np.int64]) -> list[str]:
    """Return a note on files whose segments are of several groups, in several folds.

    Raises `ConfigError` where such segments overlap, unless `config.allow_overlap`.
    """
    of_file: dict[str, list[int]] = {}
    for row, record in enumerate(records):
        of_file.setdefault(absolute_path(record.path), []).append(row)
    shared = [rows for rows in of_file.values() if len({folds[row] for row in rows}) > 1]
    for rows in () if config.allow_overlap else shared:
        for a, b in overlapping_pairs(rows, lambda row: records[row].part):
            if folds[a] != folds[b]:
                raise ConfigError(
                    f"{config.root}: {records[a].video_id!r} and {records[b].video_id!r} overlap, of the groups "
                    f"{records[a].group!r} and {records[b].group!r}: a fold could be tested on what it was trained on. "
                    "Correct their times or groups. data.allow_overlap = true permits it."
                )
    if not shared:
        return []
    names = sorted({records[row].group for row in shared[0]})
    return [
        f"Files with segments of several groups: {len(shared)}, for example {records[shared[0][0]].video_id!r} "
        f"({quote_first(names)}). Folds are tested on parts of recordings of which they train on others."
    ]


def _check_twice(
    config: DataConfig, first: VideoRecord, its_classes: Sequence[str], again: VideoRecord, classes: Sequence[str]
) -> None:
    """Raise `ConfigError` unless two records of one video, of two splits, have the same labels and group."""
    for what, a, b in (("labels", set(its_classes), set(classes)), ("groups", {first.group}, {again.group})):
        if a != b:
            both = " and ".join(
                quote_first(sorted(values)) + (f" ({record.place})" if record.place else "")
                for values, record in ((a, first), (b, again))
            )
            raise ConfigError(f"{config.root}: {first.video_id!r} has two {what}: {both}. Keep the right one.")


def _groups_to_divide(
    config: DataConfig, records: Sequence[VideoRecord], names: Sequence[Sequence[str]], by: DividedBy
) -> list[str]:
    """Return of each video what one fold gets whole: its group, or its file with the segments and copies of it.

    Raises `ConfigError` for copies of one video with two labels, or unless `config.allow_overlap` in two groups.
    """
    paths = dict.fromkeys(record.path for record in records)
    copies = find_video_copies(paths) if len(paths) <= MAX_COMPARED else []
    places = {record.path: row for row, record in reversed(list(enumerate(records)))}
    for group in copies:
        first, *others = (places[path] for path in group)
        a = records[first]
        for b, classes in ((records[row], names[row]) for row in others):
            both = f"{config.root}: {a.video_id!r} and {b.video_id!r} are the same video"
            if not (a.part or b.part) and set(names[first]) != set(classes):
                labels = f"{quote_first(names[first])} and {quote_first(classes)}"
                raise ConfigError(f"{both}, and have two labels: {labels}. Keep the one that is right.")
            if by == "group" and a.group != b.group and not config.allow_overlap:
                raise ConfigError(
                    f"{both}, of the groups {a.group!r} and {b.group!r}: a fold could be tested on what it was trained on. "
                    "Remove one, or give both the same group. data.allow_overlap = true permits it."
                )
    if by == "group":
        return [record.group for record in records]
    same = {absolute_path(path): absolute_path(group[0]) for group in copies for path in group}
    # Names relative to the root: the folds are the same wherever the data lies.
    root = Path(absolute_path(Path(config.root)))
    paths_to_divide = (absolute_path(record.path) for record in records)
    return [video_id(Path(same.get(path, path)), root) for path in paths_to_divide]


def _read_sets(config: DataConfig, names: Sequence[str]) -> tuple[list[RecordSet], tuple[str, ...]]:
    """Read the named splits whole, or those for training and validation."""
    sets: dict[str, RecordSet] = {}
    for name in dict.fromkeys(names or (config.train_split, config.val_split)):
        try:
            sets[name] = read_labeled(config, name)
        except NoSplitError:
            if names or name == config.train_split:
                raise
    # Of data without splits every part is held out of all, or the rest: here all of it is to be divided.
    if any(records.held_out_of is not None for records in sets.values()):
        for name in (config.train_split, config.val_split):
            if name not in sets:
                sets[name] = read_labeled(config, name)
    return list(sets.values()), tuple(sets)


# --- the folder ------------------------------------------------------------------------------------


def _open_folds(recipe: Recipe, division: _Division, out: Path, command: str, *, write: bool = True) -> Folds:
    """Return the content of `folds.json`; write it and the lists of a new folder."""
    folds: Folds = {
        "commands": [command] if command else [],
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "recipe": recipe.to_dict(),
        "by": division.spec.by,
        "splits": list(division.splits),
        "videos_hash": division.videos_hash,
        "files_hash": division.files_hash,
        "folds": [
            {
                "run": f"fold-{fold + 1}",
                "groups": division.groups_of(fold),
                "num_videos": int((division.folds == fold).sum()),
                "top1": None,
                "seconds": None,
            }
            for fold in range(division.spec.num_folds)
        ],
    }
    is_new = not is_folds(out)
    if not is_new:
        before = load_folds(out)
        if before.get("files_hash") == division.early_files_hash:
            before["files_hash"] = division.files_hash
        _check_same(before, folds, out)
        folds["folds"] = before["folds"]
        folds["commands"] = list(dict.fromkeys([*before["commands"], *folds["commands"]]))
    elif write:
        check_new(out)
    if write:
        try:
            _write_lists(recipe, division, out)
            write_json(out / FOLDS_FILE, folds)
        except BaseException:
            if is_new:  # or the same command would find a folder that is not empty
                for file in out.glob("fold*.csv"):
                    file.unlink()
            raise
    return folds


def _check_same(before: Folds, now: Folds, out: Path) -> None:
    """Raise `RunError` unless folds that were begun are those asked for now."""
    stored, asked = (flat_settings(recorded_recipe(each["recipe"], str(out / FOLDS_FILE))) for each in (before, now))
    changed = [key for key in stored if stored[key] != asked[key] and key not in RESUMABLE_SETTINGS]
    if changed:
        key = changed[0]
        raise RunError(
            f"{out} has folds of another recipe: {key} was {stored[key]!r} and is {asked[key]!r} now. Choose another folder "
            "with --out."
        )
    other = next((key for key in ("by", "splits") if before[key] != now[key]), "")
    if other or len(before["folds"]) != len(now["folds"]):
        was, asked_for = (each[other] if other else len(each["folds"]) for each in (before, now))  # type: ignore[literal-required]
        raise RunError(
            f"{out} has folds with {other or 'number'} {was!r}, not {asked_for!r}. Choose another folder with --out."
        )
    if before["videos_hash"] != now["videos_hash"]:
        raise RunError(
            f"{out} has folds of other videos, labels or groups: the data has changed since. Restore it, or choose another "
            "folder with --out."
        )
    if before.get("files_hash", now["files_hash"]) != now["files_hash"]:
        raise RunError(
            f"{out} has folds of other files or segments under the same names: sizes or times have changed since. Restore "
            "them, pass their folder with --data.root, or choose another folder with --out."
        )


def _write_lists(recipe: Recipe, division: _Division, out: Path) -> None:
    """Write the list of each fold, and `folds.csv` with all videos as split `OUT_OF_FOLD`; read them back."""
    root, has_groups = Path(recipe.data.root), division.spec.by == "group"
    for name in {name for names in division.class_names for name in names}:
        if "|" in name or name != name.strip():
            raise ConfigError(
                f"{root}: the class name {name!r} cannot be listed: CSV separates labels by '|', and strips spaces around a "
                "name. Rename the class."
            )
    has_parts = any(record.part for record in division.records)
    header = (
        "path",
        "label",
        "split",
        "id",
        *(("group",) if has_groups else ()),
        *(("start", "end") if has_parts else ()),
    )

    def write(file: Path, held_out: int | None) -> None:
        """Write a list, with the splits of a fold's run, or for None with one split."""
        rows = [
            (
                video_id(record.path, root) if record.path.is_relative_to(root) else absolute_path(record.path),
                "|".join(names),
                OUT_OF_FOLD if held_out is None else "val" if fold == held_out else "train",
                record.video_id,
                *((record.group,) if has_groups else ()),
                *((record.start, "" if record.end is None else record.end) if has_parts else ()),
                *((fold + 1,) if held_out is None else ()),
            )
            for record, names, fold in zip(division.records, division.class_names, division.folds.tolist(), strict=True)
        ]
        write_csv(file, [(*header, "#fold") if held_out is None else header, *rows])

    write(out / FOLDS_LIST, None)
    for number in range(division.spec.num_folds):
        write(out / f"fold-{number + 1}.csv", number)
    # The lists are what is trained on: anything that CSV does not give back would be another video or label.
    listed = read_records(_recipe_of(recipe, out / FOLDS_LIST, split=OUT_OF_FOLD).data, OUT_OF_FOLD)
    expected = zip((record.video_id for record in division.records), map(set, division.class_names), strict=True)
    if {r.video_id: set(listed.classes_of(r)) for r in listed.videos} != dict(expected):
        raise ConfigError(
            f"{out / FOLDS_LIST} reads back with other videos or labels than the data set. This is a bug; please report it "
            "with the annotation files."
        )


def _recipe_of(recipe: Recipe, file: Path, *, split: str = "") -> Recipe:
    """Return the recipe that reads a list of the folder; ``split``: the one that is tested."""
    data = replace(
        recipe.data,
        source="csv",
        annotations=str(file.absolute()),
        train_split="train",
        val_split="val",
        test_split=split or "test",
        group_pattern="",
        background=0.0,  # drawn when the videos were divided: the lists hold it
    )
    return replace(recipe, data=data)


# --- runs ------------------------------------------------------------------------------------------


def _tested(path: Path, recipe: Recipe) -> EvalResult | None:
    """Return the result of a fold that is trained and tested; None where something is left to do."""
    if not is_finished(path):
        return None
    results = list_results(path, split="val", protocol=recipe.eval.protocol, order="forward", weights="last")
    fitting = (r for r in results if r.average == recipe.eval.average and not r.is_stale and r.scores_file.is_file())
    return next(fitting, None)


def _train_and_test(recipe: Recipe, path: Path, distributed: Distributed, console: Console) -> EvalResult:
    if not distributed.broadcast_from_rank0(lambda: is_finished(path)):
        train_or_reuse(recipe, path, datasets=open_datasets(recipe, console), console=console, command="vsn folds")
        distributed.broadcast_from_rank0(lambda: None)  # a barrier: rank 0 writes the last files
    config = replace(recipe.eval, order="forward")
    return evaluate_split(path, split="val", config=config, root=recipe.data.root, progress=distributed.is_rank0)


def _seconds(path: Path, result: EvalResult) -> float:
    """Return the time that a fold took to train and to test."""
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return float(summary["seconds"]) + (result.seconds or 0.0)


def _announce(folds: Folds, number: int, division: _Division) -> str:
    fold, all_folds = folds["folds"][number], folds["folds"]
    held = f" ({quote_first(fold['groups'], 4)})" if fold["groups"] else ""
    line = (
        f"[{number + 1}/{len(all_folds)}] {fold['run']}: {len(division.records) - fold['num_videos']} videos to train on, "
        f"{fold['num_videos']} held out{held}"
    )
    timed = [each["seconds"] for each in all_folds if each["seconds"]]
    left = sum(each["seconds"] is None for each in all_folds)
    return f"{line}; about {left * mean(timed) / 60:.0f} minutes left" if timed else line


def _join(recipe: Recipe, folds: Folds, division: _Division, out: Path) -> EvalResult:
    """Write the scores of all folds as one result, every video once, and the files that make the folder a run's."""
    tested = [_tested(out / fold["run"], _recipe_of(recipe, out / f"{fold['run']}.csv")) for fold in folds["folds"]]
    results = [result for result in tested if result is not None]
    assert len(results) == len(tested), "all folds are tested before they are joined"
    classes = open_run(out / folds["folds"][0]["run"]).classes
    parts = [load_scores(result.scores_file) for result in results]
    parts = [reorder_scores(part, part.video_ids.tolist(), classes) for part in parts]
    groups = [part.stated_groups for part in parts]
    hashes = [result.weights_hash for result in results]
    scores = Scores(
        np.concatenate([part.video_ids for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.labels for part in parts]),
        classes,
        parts[0].kind,
        {"num_folds": len(parts), "by": folds["by"]},
        np.concatenate(groups) if all(each is not None for each in groups) else None,  # type: ignore[arg-type]
    )
    sources = {name.removesuffix(REVERSED) for name in scores.video_ids.tolist()}
    assert sources == {record.video_id for record in division.records}, "every video is held out once"
    # A run folder of the list of all videos, so that reports and comparisons find videos, classes and settings.
    joined = _recipe_of(recipe, out / FOLDS_LIST, split=OUT_OF_FOLD)
    joined = replace(joined, model=replace(joined.model, num_classes=len(classes)))
    write_run(Run(out, joined, classes))
    first = results[0]
    result = EvalResult.measure(
        scores,
        split=OUT_OF_FOLD,
        order="forward",
        model=first.model,
        protocol=first.protocol,
        num_frames=first.num_frames,
        num_views=first.num_views,
        parameters=first.parameters,
        multiply_adds=first.multiply_adds,
        average=first.average,
        bad_videos=tuple(bad for each in results for bad in each.bad_videos or ()),
        weights_hash=hashlib.sha256(" ".join(map(str, hashes)).encode()).hexdigest(),
        root=first.root,
        seconds=(seconds := sum(each.seconds or 0.0 for each in results)),
        videos_per_second=len(scores.video_ids) / seconds if seconds else None,
        # The last weights of runs that do not stop early: nothing was chosen by the held-out videos.
        num_validated=0,
        # Of weights to start from that have seen them.
        num_trained=sum(each.num_trained or 0 for each in results) or None,
    )
    return result.save(out, scores)


def out_of_fold(path: Path) -> EvalResult:
    """Return the joined result of a finished folder. Raises `RunError` where folds are left to do."""
    results = list_results(path, split=OUT_OF_FOLD, order="forward")
    if not results:
        raise RunError(f"{path} has no joined scores yet: run the same `vsn folds` command again to finish it.")
    return results[0]
