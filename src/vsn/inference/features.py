"""Features of many videos, of files or of a data set's split, into one file; what is done is kept when it stops."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe, Source
from vsn.data.dataset import BadVideo, VideoDataset
from vsn.data.loader import make_loader
from vsn.data.open import label_array, open_split
from vsn.data.video import VideoError
from vsn.data.views import PROTOCOLS
from vsn.inference.feature_files import Features, FeaturesError, load_features
from vsn.inference.forward import check_per_frame, view_features
from vsn.inference.predict import Predictor
from vsn.runs.hub import local_run
from vsn.runs.run import WeightsKind, open_run, weights_hash
from vsn.system.interrupt import StopRequest, stop_requests
from vsn.system.progress import progress_bar

BadFeatures = Literal["stop", "nan"]
SAVE_SECONDS = 60.0
"""What is done is saved beside the result as often as this."""

_Row = NDArray[np.float32]


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
    weights: WeightsKind = "last",
    device: str = "auto",
    num_workers: int | None = None,
    bad_videos: BadFeatures = "stop",
    progress: bool = True,
) -> Features:
    """Write the features of video files, or of a split of a data set, as .npz.

    Stopped, by Ctrl-C or by a video that cannot be read, it leaves what it has beside ``out``, as
    ``<name>.partial.npz``; the same call goes on from there.

    Args:
        run: a run folder, or ``hf://user/name``.
        out: the .npz file to write; it must not be there yet.
        videos: files, or folders of them; none: the split.
        split: default "train", or what the recipe trains on. Its classes need not be the run's.
        source: how the data set is read; default the recipe's ``data.source``.
        root: where the data set is; default the recipe's ``data.root``.
        per_frame: ``(N, T, D)`` instead of the mean over frames ``(N, D)``.
        config: protocol, order and batch size; default the recipe's ``eval``.
        weights: the last of the run, or those of its best validation.
        device: auto, cpu or cuda.
        num_workers: processes that read a split; default the recipe's.
        bad_videos: a video that cannot be read stops it, or gets a row of NaN.
        progress: draw a progress bar.

    Returns:
        What the file holds, in the order of the files or of the split.

    Raises:
        RunError, ConfigError, FeaturesError, VideoError: what is wrong and what to do.
        KeyboardInterrupt: it was asked to stop, and has saved what it has.
    """
    out = Path(out)
    _check_out(out)
    run = local_run(run)
    opened = open_run(run)
    view = config or opened.recipe.eval
    if per_frame:
        check_per_frame(view.protocol)
    if videos and (split or source or root):
        raise ConfigError("Name video files, or a data set with split, source and root; not both.")
    predictor = Predictor.from_run(run, device=device, weights=weights)
    facts: dict[str, Any] = {
        "model": opened.recipe.model.name,
        "num_frames": opened.recipe.model.num_frames,
        "weights": weights,
        "weights_hash": weights_hash(opened, weights),
        "protocol": view.protocol,
        "num_views": PROTOCOLS[view.protocol].num_views,
        "order": view.order,
        "per_frame": per_frame,
    }
    if videos:
        work: _Work = _Files(predictor, videos, view, per_frame)
    else:
        recipe = _recipe_of_data(opened.recipe, source, root)
        split = split or recipe.data.train_split
        workers = recipe.data.num_workers if num_workers is None else num_workers
        work = _Split(predictor, open_split(recipe, split, view=view), view, per_frame, workers)
        facts |= {"split": split, "source": recipe.data.source}
    return _extract(work, out, facts, bad_videos, progress)


def _check_out(out: Path) -> None:
    if out.suffix != ".npz":
        raise FeaturesError(f"The file of features is {out}; its name must end in .npz.")
    if out.exists():
        raise FeaturesError(f"{out} is there already. Choose another name with --out, or delete it.")


def _recipe_of_data(recipe: Recipe, source: Source | None, root: str | Path | None) -> Recipe:
    """The recipe with another data set, where one is named; what belonged to the old one's files goes."""
    data = replace(recipe.data, cache="none", root=str(root or recipe.data.root))
    if source is not None and source != data.source:
        data = replace(data, source=source, annotations="", videos="", flow="", frame_template="")
    return replace(recipe, data=data)


class _Work:
    """Videos to look at: their ids, labels and classes, and their features one after another."""

    video_ids: list[str]
    labels: NDArray[Any]
    classes: tuple[str, ...]

    def rows(self, wanted: list[int]) -> Iterator[tuple[int, _Row | BadVideo]]:
        """The features of the videos at these indices, or why one could not be read; in any order."""
        raise NotImplementedError


class _Files(_Work):
    """Files without labels, read here one by one: flow may have to be computed, on the device."""

    def __init__(self, predictor: Predictor, videos: Sequence[str | Path], view: EvalConfig, per_frame: bool) -> None:
        self.files = [file for path in videos for file in predictor.list_inputs(path)]
        self.video_ids = [file.as_posix() for file in self.files]
        self.labels = np.full(len(self.files), -1, np.int64)
        self.classes = ()
        self._predictor, self._view, self._per_frame = predictor, view, per_frame

    def rows(self, wanted: list[int]) -> Iterator[tuple[int, _Row | BadVideo]]:
        for index in wanted:
            try:
                found = self._predictor.features(self.files[index], per_frame=self._per_frame, protocol=self._view)
            except VideoError as error:
                yield index, BadVideo(index, error.path, error.reason)
            else:
                yield index, found


class _Split(_Work):
    """A split of a data set, read by workers."""

    def __init__(
        self, predictor: Predictor, dataset: VideoDataset, view: EvalConfig, per_frame: bool, num_workers: int
    ) -> None:
        self.dataset, self.classes = dataset, dataset.classes
        self.video_ids = [record.video_id for record in dataset.records]
        self.labels = label_array(dataset)
        self._predictor, self._view, self._per_frame = predictor, view, per_frame
        self._num_workers = num_workers

    def rows(self, wanted: list[int]) -> Iterator[tuple[int, _Row | BadVideo]]:
        every = self.dataset.records
        self.dataset.records = tuple(every[i] for i in wanted)
        try:
            yield from ((wanted[index], row) for index, row in self._rows())
        finally:
            self.dataset.records = every

    def _rows(self) -> Iterator[tuple[int, _Row | BadVideo]]:
        bad: list[BadVideo] = []
        videos_at_once = max(1, self._view.batch_size // PROTOCOLS[self._view.protocol].num_views)
        loader = make_loader(
            self.dataset,
            batch_size=videos_at_once,
            num_workers=self._num_workers,
            shuffle=False,
            whole=True,
            bad=bad,
        )
        for batches in loader:
            for batch in batches:
                rows = view_features(
                    self._predictor.model,
                    batch.clips,
                    self._predictor.precision,
                    batch_size=self._view.batch_size,
                    per_frame=self._per_frame,
                )
                yield from zip(batch.indices.tolist(), rows, strict=True)
            yield from ((video.index, video) for video in bad)
            bad.clear()


def _extract(work: _Work, out: Path, facts: dict[str, Any], bad_videos: BadFeatures, progress: bool) -> Features:
    """Go through the videos that are not done yet; save now and then, at a stop, and at the end."""
    twice = [name for name, count in Counter(work.video_ids).items() if count > 1]
    if twice:
        raise FeaturesError(f"{twice[0]} is named more than once; every video counts once, so name it once.")
    partial = out.with_name(f"{out.stem}.partial.npz")
    done = _resume(partial, work, facts)
    wanted = [i for i in range(len(work.video_ids)) if i not in done]
    saved = time.monotonic()
    with stop_requests() as stop, progress_bar("videos", disable=not progress) as bar:
        task = bar.add_task("extracting", total=len(work.video_ids), completed=len(done), note="")
        try:
            for index, row in work.rows(wanted):
                if isinstance(row, BadVideo):
                    if bad_videos == "stop":
                        raise VideoError(row.path, row.reason)
                    done[index] = None
                else:
                    done[index] = row
                bar.advance(task)
                _check_stop(stop)
                if time.monotonic() - saved > SAVE_SECONDS:
                    _save(partial, work, done, facts)
                    saved = time.monotonic()
        except BaseException:
            _save(partial, work, done, facts)
            raise
    result = _save(out, work, done, facts)
    if result is None:
        raise FeaturesError("None of the videos could be read; nothing is written.")
    partial.unlink(missing_ok=True)
    return result


def _check_stop(stop: StopRequest) -> None:
    if stop.requested:
        raise KeyboardInterrupt


def _resume(partial: Path, work: _Work, facts: dict[str, Any]) -> dict[int, _Row | None]:
    """What an earlier call left: features by index, without the videos that could not be read.

    Raises `FeaturesError` when that call had other settings.
    """
    if not partial.is_file():
        return {}
    former = load_features(partial)
    differing = [key for key in facts.keys() | former.facts.keys() if facts.get(key) != former.facts.get(key)]
    if differing:
        key = sorted(differing)[0]
        raise FeaturesError(
            f"{partial} was begun with another {key}: {former.facts.get(key)!r}, now {facts.get(key)!r}. Go on with "
            "what it was begun with, choose another --out, or delete it."
        )
    index = {name: i for i, name in enumerate(work.video_ids)}
    rows = zip(former.video_ids.tolist(), former.features, strict=True)
    return {index[name]: row for name, row in rows if name in index and not np.isnan(row).any()}


def _save(path: Path, work: _Work, done: dict[int, _Row | None], facts: dict[str, Any]) -> Features | None:
    """Write what is done, in the order of the videos; nothing where no video could be read."""
    some = next((row for row in done.values() if row is not None), None)
    if some is None:
        return None
    rows = sorted(done)
    blank = np.full_like(some, np.nan)
    read = [done[i] for i in rows]
    features = Features(
        np.array([work.video_ids[i] for i in rows], dtype=np.str_),
        np.stack([blank if row is None else row for row in read]),
        work.labels[rows],
        work.classes,
        facts,
    )
    features.save(path)
    return features
