"""Save, load and list the results of `vsn eval` in a run folder, and compare them with its present weights and data.

Each evaluation writes two files, ``RUN/eval/<split>-<protocol>-<order>[-best][-<average>][@<data>]``: ``.json`` holds an
`EvalResult`, ``.npz`` the scores of every video (`vsn.scores.scores.Scores`). The average and the data are in the name
where they are not those of the run's recipe. No other module builds or parses these names.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypedDict, get_args

from vsn.config import FrameOrder, Recipe
from vsn.runs.folds import OUT_OF_FOLD, is_folds
from vsn.runs.run import WEIGHTS_FILES, Run, WeightsKind, is_number, open_run
from vsn.scores.facts import hash_videos
from vsn.scores.metrics import MeanName, summarize
from vsn.scores.scores import Scores, ScoresError
from vsn.system.files import file_sha256, write_json
from vsn.system.numbers import counted
from vsn.system.terminal import shell_quote

_FOLDER = "eval"
_NAME = re.compile(rf".+-({'|'.join(get_args(FrameOrder))})(-best)?(-logits|-softmax)?(@.+)?")
_FIELDS_IN_NPZ = frozenset({
    "split", "order", "model", "protocol", "num_frames", "num_views", "parameters", "multiply_adds", "average",
    "weights", "weights_hash", "root", "variant",
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
    root: str | None = None
    """Absolute path of the data set's folder."""
    videos_hash: str | None = None
    """Of the videos and their labels, see `vsn.scores.facts.hash_videos`."""
    variant: str = ""
    """End of the file name where average or data are not the recipe's: "-softmax", "@folder-1a2b3c"; see `variant_of`."""
    seconds: float | None = None
    videos_per_second: float | None = None
    num_videos: int = 0
    num_unlabeled: int = 0
    """Above 0 (the test split of a benchmark) nothing is measured."""
    num_validated: int | None = None
    """Videos among these that training validated on: weights, epochs and settings may be chosen by them."""
    num_trained: int | None = None
    """Videos among these that the run was trained on; None for none, and where that is unknown."""
    top1: float | None = None
    """Fraction in [0, 1], like all metrics; for multi-label videos a hit on any of their labels."""
    top1_interval: tuple[float, float] | None = None
    """95% interval over videos."""
    top5: float | None = None
    """None with five classes or fewer, too."""
    mean_average_precision: float | None = None
    """Of multi-label videos; others have `mean_class`."""
    mean_class: float | None = None
    per_class: dict[str, float] = field(default_factory=dict)
    """Accuracy of each class that has videos; for multi-label videos its average precision."""
    path: Path | None = None
    """The JSON file; None before it is saved. Not in the file."""

    @classmethod
    def measure(cls, scores: Scores, **described: Any) -> EvalResult:
        """Compute the measures and the videos of scores; ``described`` are the other fields.

        Where any label is unknown, only the videos are counted.
        """
        # Test splits of benchmarks have no labels: `vsn submit` needs the scores, and there is nothing to measure.
        described["videos_hash"] = hash_videos(scores)
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
        return run_dir / _FOLDER / f"{self.split}-{self.protocol}-{self.order}{best}{self.variant}.json"

    def to_json(self) -> dict[str, Any]:
        """Return what the JSON file holds: the fields that have a value."""
        values = {key: value for key, value in asdict(self).items() if key != "path" and value not in (None, "")}
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
    def is_of_validation(self) -> bool:
        """Whether training validated on all of the videos."""
        return bool(self.num_validated) and self.num_validated == self.num_videos

    @property
    def tested_videos(self) -> str:
        """What was tested, in words: "80 videos of split test", or "80 validation videos (no test split)".

        A split that training validated on chose the weights, so it is no test split, whatever its name.
        """
        if not self.is_of_validation:
            return f"{counted(self.num_videos, 'video')} of split {self.split}"
        which = {"test": " (no test split)", "val": ""}.get(self.split, f" (split {self.split})")
        return counted(self.num_videos, "validation video") + which

    @property
    def choice_note(self) -> str:
        """A sentence that says whether the accuracy was trained or chosen on the same videos; "" when not, or unknown."""
        if self.num_trained:
            return f"Trained on {self.num_trained} of these {self.num_videos} videos: the accuracy says little about others."
        if not self.num_validated:
            return ""
        which = "these videos" if self.is_of_validation else f"{self.num_validated} of these videos"
        return f"Chosen on {which}: training validated on them, so the accuracy may be too high for others."

    @property
    def is_measured(self) -> bool:
        """False where labels are unknown."""
        return self.top1 is not None

    @property
    def scores_file(self) -> Path:
        """The .npz file of a saved result."""
        assert self.path is not None, "the result is not saved"
        return self.path.with_suffix(".npz")

    @property
    def is_own(self) -> bool:
        """Whether data and average are those of the run's recipe."""
        return not self.variant

    @property
    def is_stale(self) -> bool:
        """Whether the run's weights have changed since (it was resumed, say); False where that is unknown."""
        assert self.path is not None, "the result is not saved"
        return weights_changed(self.path.parent.parent, self.weights, self.weights_hash)


def weights_changed(run_dir: Path, weights: WeightsKind, tested_hash: str | None) -> bool:
    """Return whether the weights in a run folder are other than those tested; False where that is unknown."""
    # Resuming and fine-tuning overwrite the weights and leave eval/ as it is.
    file = run_dir / WEIGHTS_FILES[weights]
    return tested_hash is not None and file.is_file() and file_sha256(file) != tested_hash


def variant_of(run: Run, result: EvalResult) -> str:
    """Return the `EvalResult.variant` of a new result: what of its average and data is not as the run's recipe states."""
    assert result.root is not None, "stated by vsn.inference.evaluate"
    name = "" if result.average == run.recipe.eval.average else f"-{result.average}"
    root, own = Path(result.root).resolve(), Path(run.recipe.data.root)
    if root == own.resolve():
        return name
    # Where the recipe's folder does not exist, the data has moved to `root`, unless other videos were tested before, or
    # those of another folder that is still there.
    has_moved = all(
        tested.videos_hash in (None, result.videos_hash)
        and (tested.root is None or Path(tested.root).resolve() == root or not Path(tested.root).is_dir())
        for tested in list_results(run.path, split=result.split, damaged=[])
        if tested.is_own
    )
    if not own.is_dir() and has_moved:
        return name
    # Two folders may have one name.
    folder, path_hash = re.sub(r"[^\w.-]", "_", root.name), hashlib.sha256(str(root).encode(errors="surrogatepass"))
    return f"{name}@{folder[:40]}-{path_hash.hexdigest()[:6]}"


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
    """Return the results in a run folder, those with frames forward first, then those with the recipe's data and average.

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
        if not _NAME.fullmatch(file.stem):
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
    return sorted(results, key=lambda r: (r.order != "forward", not r.is_own, r.split != own[0], r.protocol != own[1]))


def choose_test(
    results: Sequence[Sequence[EvalResult]],
    recipes: Sequence[Recipe | None],
    *,
    split: str | None = None,
    protocol: str | None = None,
    order: str = "forward",
) -> tuple[str, str] | None:
    """Return the split and the protocol that most runs were tested on; None if there is none.

    Args:
        results: of each run.
        recipes: of each run, None where it has none. Where as many runs were tested on each, their own settings win.
        split: only this one; likewise ``protocol`` and ``order``.
    """
    tested = [
        {
            (r.split, r.protocol)
            for r in of_run
            if r.order == order and split in (None, r.split) and protocol in (None, r.protocol)
        }
        for of_run in results
    ]
    known = [recipe for recipe in recipes if recipe is not None]

    # More runs first, then the recipes' own settings; the names break ties, so that the choice is stable.
    def rank(key: tuple[str, str]) -> tuple[int, bool, bool, tuple[str, str]]:
        own_split = any(recipe.data.test_split == key[0] for recipe in known)
        own_protocol = any(recipe.eval.protocol == key[1] for recipe in known)
        return sum(key in keys for keys in tested), own_split, own_protocol, key

    return max(set().union(*tested), key=rank, default=None)


def short_names(files: Sequence[str | Path]) -> list[str]:
    """Name scores files for people: by the run folder where that is enough, else by its end with the file, else whole."""
    paths = [Path(file) for file in files]
    runs = [path.absolute().parent.parent.name if path.parent.name == _FOLDER else path.name for path in paths]
    ends = [f"{run}/{path.stem}" if path.parent.name == _FOLDER else run for run, path in zip(runs, paths, strict=True)]
    return next((names for names in (runs, ends) if len(set(names)) == len(names)), [str(path) for path in paths])


def find_scores(
    paths: Sequence[str | Path],
    *,
    split: str | None = None,
    protocol: str | None = None,
    order: str = "forward",
    weights: WeightsKind = "last",
) -> list[Path]:
    """Return the scores files that paths mean: a file itself, or the one of a run folder that fits.

    Args:
        paths: files, returned unchanged, or run folders. Of the folders the split and the protocol are taken that
            `choose_test` chooses, as a report does.
        split: of run folders, only scores of this split; likewise ``protocol``, ``order`` and ``weights``.

    Raises:
        ScoresError: a run folder has no such scores, only ones of weights that have changed since, or several.
        RunError: a damaged run folder.
    """
    folders = [Path(path) for path in paths if Path(path).is_dir()]
    damaged: dict[Path, list[ResultError]] = {folder: [] for folder in folders}
    recipes = {folder: open_run(folder).recipe if (folder / "recipe.toml").is_file() else None for folder in folders}
    # Published runs have results without scores.
    results = {
        folder: [
            result
            for result in list_results(folder, order=order, weights=weights, damaged=damaged[folder])
            if result.scores_file.is_file()
        ]
        for folder in folders
    }
    # Every video is held out there: no other split is to be told apart from it.
    if results and all(is_folds(folder) for folder in results):
        split = OUT_OF_FOLD
    tested = choose_test(list(results.values()), list(recipes.values()), split=split, protocol=protocol, order=order)
    split, protocol = tested or (split, protocol)
    # The options that would write these scores, without those that only repeat a default.
    wanted = {"split": split, "protocol": protocol, "order": order, "weights": weights}
    usual = {"order": "forward", "weights": "last", "split": None, "protocol": None}
    stated = ", ".join(f"{key} {value!r}" for key, value in wanted.items() if key == "order" or value != usual[key])
    options = "".join(f" --{key} {value}" for key, value in wanted.items() if value != usual[key])
    files = []
    for path in map(Path, paths):
        if path not in results:
            files.append(path)
            continue
        fitting = [r for r in results[path] if (r.split, r.protocol) == (split, protocol)]
        fresh = [result for result in fitting if not result.is_stale]
        # The recipe's own data and average, where they were tested.
        fresh = [result for result in fresh if result.is_own] or fresh
        if len(fresh) > 1:
            names = ", ".join(result.scores_file.name for result in fresh)
            raise ScoresError(f"{path} has several scores of {stated}: {names}. Name the file.")
        if not fresh:
            reasons = [str(error) for error in damaged[path]]
            reasons += [f"{r.scores_file.name} is of other weights: the run was trained on since" for r in fitting]
            reason = f" ({reasons[0]})" if reasons else ""
            if is_folds(path) and not results[path]:
                raise ScoresError(
                    f"{path} is a folder of folds that is not finished: run the same `vsn folds` command again."
                )
            if is_folds(path) or split == OUT_OF_FOLD:
                raise ScoresError(
                    f"{path} lacks scores of {stated}{reason}: compare folders of folds with each other, or name files of "
                    "scores."
                )
            raise ScoresError(
                f"{path} has no scores of {stated}{reason}; write them with `vsn eval {shell_quote(path)}{options}`."
            )
        files.append(fresh[0].scores_file)
    return files
