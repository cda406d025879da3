"""Save, load and list the results of `vsn eval` in a run folder. Does not import torch.

Each evaluation writes two files, ``RUN/eval/<split>-<protocol>-<order>[-best]``: ``.json`` holds an `EvalResult`,
``.npz`` the scores of every video (`vsn.scores.scores.Scores`). No other module builds or parses these names.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypedDict, get_args

from vsn.config import FrameOrder, Recipe
from vsn.runs.run import Run, WeightsKind, is_number, weights_file, weights_hash
from vsn.scores.metrics import MeanName, summarize
from vsn.scores.scores import Scores, ScoresError
from vsn.system.files import write_json

_FOLDER = "eval"
_ORDERS: tuple[str, ...] = get_args(FrameOrder)
_FIELDS_IN_NPZ = frozenset({
    "split", "order", "model", "protocol", "num_frames", "num_views", "parameters", "multiply_adds", "average",
    "weights", "weights_hash",
})  # fmt: skip
"""Fields that the .npz file repeats: what the scores are of. No times, so that equal scores give equal files."""


class ResultError(ValueError):
    """A result file that cannot be read; ``path`` names it, ``reason`` says what is wrong."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} cannot be read: {reason}. Delete it, or write it again with `vsn eval`.")
        self.path, self.reason = path, reason


class BadVideoEntry(TypedDict):
    """A video that could not be read; it counts as wrong."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """One evaluation of a run. The fields are the keys of the JSON file, in its order; None where unknown."""

    split: str
    order: str
    model: str | None = None
    protocol: str
    num_frames: int | None = None
    """Frames of a video over all clips."""
    num_views: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    """Of a video, all views together."""
    average: str | None = None
    """What is averaged over the views: logits or softmax."""
    bad_videos: tuple[BadVideoEntry, ...] | None = None
    weights: WeightsKind = "last"
    weights_hash: str | None = None
    """SHA-256 of the file of weights that was evaluated."""
    seconds: float | None = None
    videos_per_second: float | None = None
    num_videos: int = 0
    num_unlabeled: int = 0
    """Above 0 (the test split of a benchmark) nothing is measured."""
    top1: float | None = None
    """Fraction in [0, 1], like all metrics; for multi-label videos a hit on any of their labels."""
    top1_interval: tuple[float, float] | None = None
    """95% bootstrap interval over videos."""
    top5: float | None = None
    mean_average_precision: float | None = None
    """Of multi-label videos; others have `mean_class`."""
    mean_class: float | None = None
    per_class: dict[str, float] = field(default_factory=dict)
    """Accuracy of each class that has videos; for multi-label videos its average precision."""
    path: Path | None = None
    """The JSON file; None before it is saved. Not in the file."""

    @classmethod
    def measure(cls, scores: Scores, **described: Any) -> EvalResult:
        """Compute the measures of scores; ``described`` are the other fields.

        Where any label is unknown, only the videos are counted.
        """
        # Test splits of benchmarks have no labels: `vsn submit` needs the scores, and there is nothing to measure.
        if scores.num_unlabeled:
            return cls(**described, num_videos=len(scores.video_ids), num_unlabeled=scores.num_unlabeled)
        # A tuple, so that a result equals what `load` reads.
        measures = summarize(scores).to_dict()
        return cls(**described, **(measures | {"top1_interval": tuple(measures["top1_interval"])}))

    @classmethod
    def load(cls, path: Path) -> EvalResult:
        """Read a JSON file. Keys that this version does not know are ignored.

        Raises:
            ResultError: it is not JSON, or lacks split, protocol or order, or a measure is not a number.
        """
        try:
            # Checked here once, so that no reader has to guard against a damaged file.
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"it holds a {type(values).__name__}, not an object")
            if missing := [key for key in ("split", "protocol", "order") if key not in values]:
                raise ValueError(f"it lacks {', '.join(missing)}")
            for key in ("top1", "top5", "mean_class", "mean_average_precision"):
                if not (values.get(key) is None or is_number(values[key])):
                    raise ValueError(f"{key} is {values[key]!r}, not a number")
        except (OSError, ValueError) as error:
            raise ResultError(path, str(error)) from error
        # Files of a later version may have more keys. Those of an earlier one have fewer, hence the defaults; there only
        # the name of the file says which weights were tested.
        values.setdefault("weights", "best" if path.stem.endswith("-best") else "last")
        known = {f.name for f in fields(cls)} - {"path"}
        values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key in known}
        return cls(**values, path=path)

    def save(self, run_dir: Path, scores: Scores | None) -> EvalResult:
        """Write both files, or only the JSON where ``scores`` is None; return the result with its ``path``."""
        path, values = self.file_in(run_dir), self.to_json()
        if scores is not None:
            facts = {key: value for key, value in values.items() if key in _FIELDS_IN_NPZ}
            replace(scores, facts={**scores.facts, **facts}).save(path.with_suffix(".npz"))
        write_json(path, values)
        return replace(self, path=path)

    def file_in(self, run_dir: Path) -> Path:
        """Return the path of the JSON file in a run folder, existing or not."""
        best = "-best" if self.weights == "best" else ""
        return run_dir / _FOLDER / f"{self.split}-{self.protocol}-{self.order}{best}.json"

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON file holds: the fields that have a value."""
        values = {key: value for key, value in asdict(self).items() if key != "path" and value is not None}
        # JSON has lists; a caller may compare with what it reads from the file.
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
        if self.num_unlabeled:
            del values["per_class"]
        else:
            del values["num_unlabeled"]
        return values

    @property
    def mean_name(self) -> MeanName:
        """Name of the field that holds `mean`."""
        return "mean_class" if self.mean_average_precision is None else "mean_average_precision"

    @property
    def mean(self) -> float | None:
        """Mean over classes of top-1, or of average precision for multi-label videos."""
        return self.mean_class if self.mean_average_precision is None else self.mean_average_precision

    @property
    def is_measured(self) -> bool:
        """False where labels are unknown."""
        return self.top1 is not None

    @property
    def scores_file(self) -> Path:
        """The .npz file of a saved result."""
        assert self.path is not None, "the result is not saved"
        return self.path.with_suffix(".npz")

    def is_stale(self, run: Run) -> bool:
        """Return whether the run's weights have changed since (it was resumed, say); False where that is unknown."""
        if self.weights_hash is None:
            return False
        # Resuming and fine-tuning overwrite the weights and leave eval/ as it is.
        return not weights_file(run, self.weights).is_file() or weights_hash(run, self.weights) != self.weights_hash


def list_results(
    run_dir: Path,
    *,
    split: str | None = None,
    protocol: str | None = None,
    order: str | None = None,
    weights: WeightsKind | None = None,
    recipe: Recipe | None = None,
    damaged: list[ResultError] | None = None,
) -> list[EvalResult]:
    """Return the results in a run folder, those with frames forward first.

    Args:
        run_dir: the run folder.
        split: only results of this split; likewise ``protocol``, ``order`` and ``weights``.
        recipe: of the results with the same order of frames, those of its own split and protocol come first.
        damaged: a list to which errors of damaged files are appended; None: the first one is raised.

    Raises:
        ResultError: a file is damaged, and ``damaged`` is None.
    """
    wanted = {"split": split, "protocol": protocol, "order": order, "weights": weights}
    results = []
    for file in sorted((run_dir / _FOLDER).glob("*.json")):
        # The folder may hold other JSON, such as the calibration that `vsn calibrate --out` wrote there.
        if file.stem.removesuffix("-best").rpartition("-")[2] not in _ORDERS:
            continue
        try:
            result = EvalResult.load(file)
        except ResultError as error:
            if damaged is None:
                raise
            damaged.append(error)
            continue
        # By the fields, not by the file name: a split may contain a hyphen.
        if all(value in (None, getattr(result, key)) for key, value in wanted.items()):
            results.append(result)
    # False sorts before True: the recipe's own results come first, and the order of file names breaks ties.
    own = (recipe.data.test_split, recipe.eval.protocol) if recipe else ("", "")
    return sorted(results, key=lambda r: (r.order != "forward", r.split != own[0], r.protocol != own[1]))


def find_scores(
    path: str | Path,
    *,
    split: str | None = None,
    protocol: str | None = None,
    order: str = "forward",
    weights: WeightsKind = "last",
) -> Path:
    """Return the scores file that a path means: itself, or the only one of a run folder that fits.

    Args:
        path: a file, returned unchanged, or a run folder.
        split: of a run folder, only scores of this split; likewise ``protocol``, ``order`` and ``weights``.

    Raises:
        ScoresError: the run folder has no such scores, or several.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    damaged: list[ResultError] = []
    results = list_results(path, split=split, protocol=protocol, order=order, weights=weights, damaged=damaged)
    # Published runs have results without scores.
    files = sorted(result.scores_file for result in results if result.scores_file.is_file())
    if len(files) == 1:
        return files[0]
    wanted = {"split": split, "protocol": protocol, "order": order}
    stated = ", ".join(f"{key} {value!r}" for key, value in wanted.items() if value is not None)
    if files:
        names = ", ".join(file.name for file in files)
        raise ScoresError(
            f"{path} has several scores of {stated}: {names}. Add --split and --protocol, or name the file."
        )
    # The command that would write these scores, without options that only repeat a default.
    usual = {"order": "forward", "weights": "last"}
    options = "".join(f" --{k} {v}" for k, v in {**wanted, "weights": weights}.items() if v != usual.get(k))
    reason = f" ({damaged[0]})" if damaged else ""
    raise ScoresError(f"{path} has no scores of {stated}{reason}; write them with `vsn eval {path}{options}`.")
