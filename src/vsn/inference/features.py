"""Extract the features of many videos, of files or of a data set's split, into one resumable file."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from vsn.config import ConfigError, EvalConfig, Protocol, Source
from vsn.data.video import VideoError
from vsn.data.views import PROTOCOLS
from vsn.inference.exported_metadata import is_exported
from vsn.inference.feature_files import Features, FeaturesError, load_features
from vsn.inference.inputs import describe_unread
from vsn.inference.predictor import Predictor, check_per_frame, open_predictor
from vsn.runs.run import WeightsKind
from vsn.system.interrupt import StopRequest, stop_requests
from vsn.system.progress import progress_bar
from vsn.system.terminal import print_note

if TYPE_CHECKING:
    from vsn.data.dataset import BadVideo, VideoDataset

BadFeatures = Literal["stop", "nan"]
SAVE_SECONDS = 60.0
"""Finished features are saved to the partial file this often."""

Row = NDArray[np.float32]


@dataclass(frozen=True)
class _Videos:
    """The videos to extract features of, in the order of the result."""

    video_ids: list[str]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    facts: dict[str, Any]
    """How the features are made. A partial file with other facts is refused."""
    extract: Callable[[list[int], StopRequest], Iterator[tuple[int, Row | VideoError]]]
    """Yields the features of the videos at some indices, or why one cannot be read, in any order; raises on a stop."""


def extract_features(
    run: str | Path,
    out: str | Path,
    *,
    videos: Sequence[str | Path] = (),
    split: str | None = None,
    source: Source | None = None,
    root: str | Path | None = None,
    per_frame: bool = False,
    config: EvalConfig | None = None,
    protocol: Protocol | None = None,
    weights: WeightsKind = "last",
    device: str = "auto",
    num_workers: int | None = None,
    bad_videos: BadFeatures = "stop",
    progress: bool = True,
) -> Features:
    """Write the features of video files, or of a split of a data set, as .npz.

    When it stops early, by Ctrl-C or an unreadable video, it saves finished features next to ``out``, as
    ``<name>.partial.npz``; the same call continues from there.

    Args:
        run: a run folder, ``hf://user/name``, or a file that `vsn export` wrote.
        out: the .npz file to write; it must not exist.
        videos: files, or folders of them; empty: the split.
        split: default the split that the recipe trains on. Its classes need not be the run's.
        source: how the data set is read; default the recipe's ``data.source``.
        root: where the data set is; default the recipe's ``data.root``.
        per_frame: ``(N, T, D)`` instead of the mean over frames ``(N, D)``.
        config: protocol, order and batch size; default the recipe's ``eval``.
        protocol: in place of that of ``config``.
        weights: the last weights, or those of the best validation.
        device: auto, cpu or cuda.
        num_workers: processes that read a split; default the recipe's.
        bad_videos: on a video that cannot be read, stop, or write a row of NaN.
        progress: draw a progress bar, and note what is left out of folders.

    Returns:
        What the file holds, in the order of the files or of the split.

    Raises:
        RunError: no such run, or no weights yet.
        ConfigError, FeaturesError: the arguments, the data or an earlier partial file do not fit.
        VideoError: a video cannot be read, and ``bad_videos`` is "stop".
        KeyboardInterrupt: stopped, after finished features were saved.
    """
    out = Path(out)
    if out.suffix != ".npz":
        raise FeaturesError(f"The file of features is {out}; its name must end in .npz.")
    # Hours of work may be in it.
    if out.exists():
        raise FeaturesError(f"{out} exists. Choose another name with --out, or delete it.")
    if videos and (split or source or root):
        raise ConfigError("Expected video files, or a data set with split, source and root; got both.")
    if not videos and is_exported(run):
        raise ConfigError(
            f"{run} is an exported file, which has no data set: name video files, or pass the run folder."
        )
    predictor = open_predictor(run, device=device, weights=weights)
    recipe = predictor.recipe
    view = config or recipe.eval
    view = replace(view, protocol=protocol or view.protocol)
    if per_frame:
        check_per_frame(view.protocol)
    # Everything that changes a feature.
    facts: dict[str, Any] = {
        "model": recipe.model.name,
        "num_frames": recipe.model.num_frames,
        "weights": weights,
        "weights_hash": predictor.weights_hash,
        "protocol": view.protocol,
        "num_views": PROTOCOLS[view.protocol].num_views,
        "order": view.order,
        "per_frame": per_frame,
    }
    if view.order == "shuffled":
        facts["seed"] = view.seed
    if videos:
        for note in filter(None, (describe_unread(recipe, path) for path in videos)):
            print_note(Console(stderr=True, quiet=not progress), note)
        files = [file for path in videos for file in predictor.list_inputs(path)]
        work = _of_files(files, predictor, view, facts)
    else:
        from vsn.data.open import open_split

        data = replace(recipe.data, cache="none", root=str(root or recipe.data.root))
        if source is not None and source != data.source:
            # These name files of the data set that the run was trained on.
            data = replace(data, source=source, annotations="", videos="", flow="", frame_template="")
        split = split or data.train_split
        facts |= {"split": split, "source": data.source}
        # The data's own classes: features are often extracted for another task.
        dataset = open_split(replace(recipe, data=data), split, view=view, classes=None)
        work = _of_split(dataset, predictor, view, facts, data.num_workers if num_workers is None else num_workers)
    return _extract(work, out, bad_videos, progress)


def _of_files(files: Sequence[Path], predictor: Predictor, view: EvalConfig, facts: dict[str, Any]) -> _Videos:
    """Files without labels, read one by one in this process: flow may have to be computed on the device."""

    def extract(indices: list[int], stop: StopRequest) -> Iterator[tuple[int, Row | VideoError]]:
        for index in indices:
            try:
                row: Row | VideoError = predictor.features(files[index], per_frame=facts["per_frame"], protocol=view)
            except VideoError as error:
                row = error
            yield index, row

    return _Videos([file.as_posix() for file in files], np.full(len(files), -1, np.int64), (), facts, extract)


def _of_split(
    dataset: VideoDataset, predictor: Predictor, view: EvalConfig, facts: dict[str, Any], num_workers: int
) -> _Videos:
    """A split of a data set, read by workers."""
    from vsn.data.open import label_array
    from vsn.inference.forward import view_loader

    def extract(indices: list[int], stop: StopRequest) -> Iterator[tuple[int, Row | VideoError]]:
        bad: list[BadVideo] = []
        loader = view_loader(
            dataset, batch_size=view.batch_size, num_workers=num_workers, indices=indices, bad=bad, stop=stop
        )
        for batches in loader:
            stop.check()  # the batch is empty
            for batch in batches:
                rows = predictor.clip_features(batch.clips.numpy(), view, per_frame=facts["per_frame"])
                yield from zip(batch.indices.tolist(), rows, strict=True)
            # After each batch, so that an unreadable video stops the extraction soon.
            yield from ((video.index, VideoError(video.path, video.reason)) for video in bad)
            bad.clear()

    video_ids = [record.video_id for record in dataset.records]
    return _Videos(video_ids, label_array(dataset), dataset.classes, facts, extract)


def _extract(work: _Videos, out: Path, bad_videos: BadFeatures, progress: bool) -> Features:
    """Extract the features that are missing; save regularly, when stopped, and at the end."""
    if repeated := [name for name, count in Counter(work.video_ids).items() if count > 1]:
        raise FeaturesError(f"{repeated[0]} is named more than once. Name each video once.")
    partial = out.with_name(f"{out.stem}.partial.npz")
    # index -> features; None: could not be read
    done = _resume(partial, work)
    missing = [i for i in range(len(work.video_ids)) if i not in done]
    saved = time.monotonic()
    with stop_requests() as stop, progress_bar("videos", disable=not progress) as bar:
        task = bar.add_task("extracting", total=len(work.video_ids), completed=len(done), note="")
        try:
            for index, row in work.extract(missing, stop):
                if isinstance(row, VideoError):
                    if bad_videos == "stop":
                        raise row
                    done[index] = None
                else:
                    done[index] = row
                bar.advance(task)
                stop.check()
                if time.monotonic() - saved > SAVE_SECONDS:
                    _save(partial, work, done)
                    saved = time.monotonic()
        except BaseException:  # KeyboardInterrupt too: hours of work must not be lost
            _save(partial, work, done)
            raise
    result = _save(out, work, done)
    if result is None:
        raise FeaturesError("None of the videos could be read; no file is written.")
    # Only after the result is on disk.
    partial.unlink(missing_ok=True)
    return result


def _resume(partial: Path, work: _Videos) -> dict[int, Row | None]:
    """Read the features of an earlier call by index, except unreadable videos, which are tried again.

    Raises:
        FeaturesError: that call had other settings.
    """
    if not partial.is_file():
        return {}
    earlier, facts = load_features(partial), work.facts
    if different := sorted(k for k in facts.keys() | earlier.facts.keys() if facts.get(k) != earlier.facts.get(k)):
        key = different[0]
        raise FeaturesError(
            f"{partial} was started with {key} {earlier.facts.get(key)!r}, now it is {facts.get(key)!r}. Use the earlier "
            "settings, choose another --out, or delete the file."
        )
    # By video id: files may have been added since, or their order changed.
    index_of = {name: i for i, name in enumerate(work.video_ids)}
    rows = zip(earlier.video_ids.tolist(), earlier.features, strict=True)
    return {index_of[name]: row for name, row in rows if name in index_of and not np.isnan(row).any()}


def _save(path: Path, work: _Videos, done: dict[int, Row | None]) -> Features | None:
    """Write finished features in the order of the videos; None if no video could be read."""
    readable = next((row for row in done.values() if row is not None), None)
    if readable is None:
        return None
    indices = sorted(done)
    rows = [done[i] for i in indices]
    features = Features(
        np.array([work.video_ids[i] for i in indices], dtype=np.str_),
        np.stack([np.full_like(readable, np.nan) if row is None else row for row in rows]),
        work.labels[indices],
        work.classes,
        work.facts,
    )
    features.save(path)
    return features
