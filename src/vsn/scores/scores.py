"""Scores of many videos: their file, top-k, means over classes. Arrays only, no network."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from vsn.scores.intervals import bootstrap_interval
from vsn.system.files import atomic_write, write_json

FORMAT_VERSION = 1
UNREADABLE = "(unreadable)"
"""What stands for the prediction of a video that could not be read."""

ScoreKind = Literal["logits", "log_probabilities"]


class ScoresError(ValueError):
    """Scores that cannot be used as asked; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Scores:
    """What a model said of a set of videos.

    Attributes:
        video_ids: ``(N,)`` str, unique; "#reversed" ends the id of a reversed copy.
        logits: ``(N, num_classes)`` float32, before softmax or sigmoid; NaN for a video that could not be
            read, which counts as wrong. Of kind "log_probabilities" their softmax is what was meant, too.
        labels: ``(N,)`` int64, indices into classes, -1 where no label is known; of multi-label videos
            ``(N, num_classes)`` bool.
        classes: names, in the order of the logits.
        kind: "logits" as a network gives them, or "log_probabilities" as fusing by softmax does.
        facts: how they came about: split, protocol, order, weights_hash and what else is known; JSON values.

    Raises:
        ValueError: shapes that do not fit each other, a video or class twice, labels outside the classes.
    """

    video_ids: NDArray[np.str_]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.bool_]
    classes: tuple[str, ...]
    kind: ScoreKind = "logits"
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, shape = len(self.video_ids), (len(self.video_ids), len(self.classes))
        if self.logits.shape != shape or self.labels.shape != (shape if self.multi_label else (n,)):
            raise ValueError(
                f"Scores of {n} videos and {len(self.classes)} classes have logits {self.logits.shape} and labels "
                f"{self.labels.dtype} {self.labels.shape}; expected logits {shape} and labels int64 {(n,)}, or bool {shape}."
            )
        if len(set(self.video_ids.tolist())) != n:
            raise ValueError("The same video appears twice in the scores; every video counts once.")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("The same class appears twice in the scores; every class has one column.")
        if not self.multi_label and n and (self.labels.min() < -1 or self.labels.max() >= shape[1]):
            raise ValueError(
                f"The labels run from {self.labels.min()} to {self.labels.max()}; allowed are 0 to {shape[1] - 1}, "
                "and -1 for a video without one."
            )

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.labels.dtype == np.bool_

    @property
    def groups(self) -> list[str]:
        """``(N,)`` names of what was filmed: a clip and its reversed copy share one."""
        return [video_id.removesuffix("#reversed") for video_id in self.video_ids.tolist()]

    @property
    def num_unlabeled(self) -> int:
        """Videos whose label is not known; of multi-label videos none counts as such."""
        return 0 if self.multi_label else int((self.labels == -1).sum())

    @property
    def unreadable(self) -> NDArray[np.bool_]:
        """``(N,)`` bool: videos that could not be read."""
        return np.asarray(np.isnan(self.logits).any(axis=1))

    def take(self, rows: NDArray[Any]) -> Scores:
        """The scores of some videos: ``rows`` are indices, or bool ``(N,)``."""
        return Scores(self.video_ids[rows], self.logits[rows], self.labels[rows], self.classes, self.kind, self.facts)

    def save(self, path: Path) -> None:
        """Write as .npz, whole or not at all; `load_scores` reads it back."""
        with atomic_write(path) as temporary:
            np.savez_compressed(
                temporary,
                video_ids=self.video_ids,
                scores=self.logits,
                labels=self.labels,
                classes=np.array(self.classes),
                format_version=np.array(FORMAT_VERSION),
                kind=np.array(self.kind),
                facts=np.array(json.dumps(self.facts)),
            )


def load_scores(path: str | Path) -> Scores:
    """Read scores written by `Scores.save`.

    Raises:
        ScoresError: no such file, damaged, not ours, or of another version of the format.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    missing = sorted({"video_ids", "scores", "labels", "classes"} - arrays.keys())
    if missing:
        raise ScoresError(
            f"{path} holds {sorted(arrays)[:8]} and no {missing}; it is not a file of scores that `vsn eval` wrote."
        )
    if not {"format_version", "kind", "facts"} <= arrays.keys():
        raise ScoresError(
            f"{path} was written before files of scores said what they hold; write it again with `vsn eval`."
        )
    try:
        version, kind = int(arrays["format_version"]), str(arrays["kind"])
        facts = json.loads(str(arrays["facts"]))
        if version != FORMAT_VERSION:
            raise ScoresError(
                f"{path} has format version {version}; this vsn reads version {FORMAT_VERSION}. Use the vsn "
                "that wrote it, or write it again with `vsn eval`."
            )
        if kind not in ("logits", "log_probabilities") or not isinstance(facts, dict):
            raise ValueError(f"it holds {kind!r}, which is neither 'logits' nor 'log_probabilities'.")
        labels = arrays["labels"]
        return Scores(
            arrays["video_ids"].astype(str),
            arrays["scores"].astype(np.float32),
            labels if labels.dtype == np.bool_ else labels.astype(np.int64),
            tuple(arrays["classes"].astype(str).tolist()),
            kind,  # type: ignore[arg-type]
            facts,
        )
    except ScoresError:
        raise
    except (ValueError, TypeError, IndexError) as error:
        raise ScoresError(f"{path} is damaged: {error} Write it again with `vsn eval`.") from error


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if path.is_dir():
        raise ScoresError(f"{path} is a folder; name a file of scores, such as {path / 'eval' / 'NAME.npz'}.")
    try:
        # Opened here: np.load leaves the file open when it is no archive.
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, NpzFile):
                raise ValueError("it holds a single array")
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise ScoresError(f"{path}: there is no such file. `vsn eval RUN` writes RUN/eval/*.npz.") from error
    except (OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error) as error:
        raise ScoresError(
            f"{path} is damaged, or no file of scores ({error}); write it again with `vsn eval`."
        ) from error


def find_scores(
    path: str | Path,
    *,
    split: str | None = None,
    protocol: str | None = None,
    order: str = "forward",
    weights: str = "last",
) -> Path:
    """The file of scores that is meant by a file, or by a run folder where one answer is possible.

    Args:
        path: a file, returned as it is, or a run folder.
        split: of a run folder, the scores of this split only.
        protocol: of a run folder, the scores of this protocol only.
        order: of a run folder, the scores of this order of the frames.
        weights: of a run folder, the scores of its "last" weights, or of its "best".

    Raises:
        ScoresError: the run folder has no such scores, or several.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    wanted = {"split": split, "protocol": protocol, "order": order}
    stated = ", ".join(f"{key} {value!r}" for key, value in wanted.items() if value is not None)
    found, strange = [], []
    for file in sorted((path / "eval").glob("*.npz")):
        try:
            facts = load_scores(file).facts
        except ScoresError as error:
            strange.append(str(error))
            continue
        if facts.get("weights", "last") == weights and all(
            value is None or facts.get(key) == value for key, value in wanted.items()
        ):
            found.append(file)
    if not found:
        why = f" ({strange[0]})" if strange else ""
        usual = {"split": None, "protocol": None, "order": "forward", "weights": "last"}
        asked = {**wanted, "weights": weights}
        advice = f"vsn eval {path}" + "".join(f" --{k} {v}" for k, v in asked.items() if v != usual[k])
        raise ScoresError(f"{path} has no scores of {stated} in its folder eval{why}; write them with `{advice}`.")
    if len(found) > 1:
        raise ScoresError(
            f"{path} has several scores of {stated}: {', '.join(file.name for file in found)}. Say --split and "
            "--protocol, or name the file."
        )
    return found[0]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities over the last axis, computed in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    return weights / weights.sum(axis=-1, keepdims=True)


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithms of `softmax`, without underflow."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability of each class by itself, computed in float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def probabilities(scores: Scores) -> NDArray[np.float64]:
    """``(N, num_classes)``: by softmax, or for multi-label scores by sigmoid."""
    return sigmoid(scores.logits) if scores.multi_label else softmax(scores.logits)


def predicted_classes(scores: Scores) -> list[str]:
    """The name of the highest score of each video; `UNREADABLE` for a video that could not be read."""
    best = np.where(scores.unreadable, -1, scores.logits.argmax(axis=1))
    return [scores.classes[index] if index >= 0 else UNREADABLE for index in best]


def require_labels(scores: Scores, what: str) -> None:
    """Raise `ScoresError` where a label is missing that ``what`` needs."""
    if len(scores.video_ids) == 0:
        raise ScoresError(f"The scores are of no video; {what} needs one or more.")
    if scores.num_unlabeled:
        raise ScoresError(
            f"{scores.num_unlabeled} of {len(scores.labels)} videos have no label, for example "
            f"{str(scores.video_ids[scores.labels == -1][0])!r}; {what} needs the labels of all."
        )


def top_k_hits(scores: Scores, k: int) -> NDArray[np.bool_]:
    """``(N,)`` bool: whether the label is among the k highest scores; ties count as wrong.

    Counting ties as wrong keeps a model that says the same of every class at zero. Of several labels,
    the one with the highest score counts; a video without any is wrong.

    Raises:
        ScoresError: a video has no known label.
    """
    require_labels(scores, "counting what is right")
    if scores.multi_label:
        own = np.where(scores.labels, scores.logits, -np.inf).max(axis=1)
    else:
        own = scores.logits[np.arange(len(scores.labels)), scores.labels]
    # "Not below" rather than "at least": a score that is not a number ties with everything, so it is wrong.
    not_below = (~(scores.logits < own[:, None])).sum(axis=1) - 1
    return not_below < k


def average_precisions(scores: Scores) -> dict[str, float]:
    """Average precision of each class that has videos, by name, over multi-label scores.

    The mean, over the videos that have the label, of the precision among those scored at least as high.
    Unreadable videos (NaN) rank last.
    """
    if not scores.multi_label:
        raise ValueError("Average precision is for multi-label scores; these have one label a video.")
    found = {}
    for index, name in enumerate(scores.classes):
        own = np.nan_to_num(scores.logits[:, index].astype(np.float64), nan=-np.inf)
        true = scores.labels[:, index]
        if not true.any():
            continue
        order = np.argsort(-own, kind="stable")
        ranked, values = true[order], own[order]
        hits = np.cumsum(ranked.astype(np.int64))
        # Videos that tie share the precision of their last: no order among them is a fact.
        last = np.searchsorted(-values, -values, side="right") - 1
        found[name] = float((hits[last] / (last + 1))[ranked].mean())
    return found


def per_class_accuracy(scores: Scores) -> dict[str, float]:
    """Top-1 accuracy of each class that has videos, by name; one label a video."""
    hits = top_k_hits(scores, 1)
    return {
        name: float(hits[scores.labels == index].mean())
        for index, name in enumerate(scores.classes)
        if (scores.labels == index).any()
    }


def summarize(scores: Scores) -> dict[str, Any]:
    """Top-1 with its interval, top-5, mean-class and per-class accuracy, as shares of 1.

    Of multi-label videos, top-1 is a hit on any of their labels, "per_class" holds average precisions,
    and "mean_average_precision" their mean.
    """
    hits = top_k_hits(scores, 1)
    by_class = average_precisions(scores) if scores.multi_label else per_class_accuracy(scores)
    if not by_class:
        raise ScoresError("No video has a label of any class; there is nothing to measure.")
    return {
        "num_videos": len(hits),
        "top1": float(hits.mean()),
        "top1_interval": list(bootstrap_interval(hits, groups=scores.groups)),
        "top5": float(top_k_hits(scores, 5).mean()),
        "mean_average_precision" if scores.multi_label else "mean_class": float(np.mean(list(by_class.values()))),
        "per_class": by_class,
    }


def save_evaluation(folder: Path, name: str, scores: Scores, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``name.npz`` and ``name.json`` into a folder; return what the JSON holds.

    The .npz states ``facts`` too (split, protocol, order, weights_hash, ...), but for the seconds it took
    and the list of bad videos, of which the scores are NaN. Where a label is not known (the test split of
    a benchmark) nothing is measured, and the JSON says how many: "num_unlabeled".
    """
    if scores.num_unlabeled:
        measured = {"num_videos": len(scores.video_ids), "num_unlabeled": scores.num_unlabeled}
    else:
        measured = summarize(scores)
    result = {**facts, **measured}
    kept = {key: value for key, value in facts.items() if key not in ("seconds", "videos_per_second", "bad_videos")}
    replace(scores, facts={**scores.facts, **kept}).save(folder / f"{name}.npz")
    write_json(folder / f"{name}.json", result)
    return result
