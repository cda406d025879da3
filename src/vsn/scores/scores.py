"""Hold the scores of many videos, and write and read them as a file. Arrays only, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vsn.system.files import atomic_write
from vsn.system.npz import read_npz

FORMAT_VERSION = 1

ScoreKind = Literal["logits", "log_probabilities"]
Float = TypeVar("Float", bound=np.floating)


class ScoresError(ValueError):
    """Scores, or a file of scores, that cannot be used."""


def require_finite(outputs: NDArray[Float]) -> NDArray[Float]:
    """Return the outputs of a network. Raises `ScoresError` if one is NaN or infinite."""
    # NaN in scores means a video that could not be read, so that such outputs would count as its failure.
    if not np.isfinite(outputs).all():
        raise ScoresError(
            "The outputs of the network are not finite (NaN or infinity): its training diverged, or its precision is too "
            "low. Use other weights (--weights best) or train.precision = 'fp32', or train with a lower train.lr."
        )
    return outputs


@dataclass(frozen=True)
class Scores:
    """Scores of a model for a set of videos.

    Attributes:
        video_ids: ``(N,)`` str, unique; the id of a reversed copy ends in "#reversed".
        logits: ``(N, num_classes)`` float32, before softmax or sigmoid; NaN for a video that could not be
            read, which counts as wrong.
        labels: ``(N,)`` int64, indices into classes, -1 for an unknown label; for multi-label videos
            ``(N, num_classes)`` bool.
        classes: names, in the order of the logits.
        kind: "logits" of a network, or "log_probabilities" of a softmax fusion. The softmax of either gives
            probabilities.
        facts: metadata as JSON values: split, protocol, order, weights_hash and so on.
        stated_groups: ``(N,)`` str; the group of each video, such as a person, or None where the data states none.

    Raises:
        ValueError: shapes that do not match, a duplicate video or class, labels out of range.
    """

    video_ids: NDArray[np.str_]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.bool_]
    classes: tuple[str, ...]
    kind: ScoreKind = "logits"
    facts: dict[str, Any] = field(default_factory=dict)
    stated_groups: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        n, shape = len(self.video_ids), (len(self.video_ids), len(self.classes))
        if self.logits.shape != shape or self.labels.shape != (shape if self.multi_label else (n,)):
            raise ValueError(
                f"Expected logits {shape} and labels int64 {(n,)} or bool {shape} for {n} videos and {shape[1]} classes, "
                f"got logits {self.logits.shape} and labels {self.labels.dtype} {self.labels.shape}."
            )
        if self.stated_groups is not None and self.stated_groups.shape != (n,):
            raise ValueError(f"Expected the groups of {n} videos, got an array of shape {self.stated_groups.shape}.")
        # Matching, fusing and submitting go by name, so names must be unique.
        if len(set(self.video_ids.tolist())) != n:
            raise ValueError("The scores hold a video more than once.")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("The scores hold a class more than once.")
        if not self.multi_label and n and (self.labels.min() < -1 or self.labels.max() >= shape[1]):
            raise ValueError(
                f"Expected labels of 0 to {shape[1] - 1}, or -1 for an unknown label, got {self.labels.min()} to "
                f"{self.labels.max()}."
            )

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.labels.dtype == np.bool_

    @property
    def groups(self) -> list[str]:
        """``(N,)`` names of what was drawn: the stated groups, or the source videos, which a clip and its copy share.

        Intervals count on the videos of one group being alike.
        """
        if self.stated_groups is not None:
            return list(self.stated_groups.tolist())
        return [video_id.removesuffix("#reversed") for video_id in self.video_ids.tolist()]

    @property
    def num_unlabeled(self) -> int:
        """Number of videos with an unknown label. Multi-label videos may have none; all are unknown if all have none."""
        if self.multi_label:
            return 0 if self.labels.any() else len(self.labels)
        return int((self.labels == -1).sum())

    @property
    def unreadable(self) -> NDArray[np.bool_]:
        """``(N,)`` bool: videos that could not be read."""
        return np.asarray(np.isnan(self.logits).any(axis=1))

    def members(self, class_index: int) -> NDArray[np.bool_]:
        """Return ``(N,)`` bool: videos with this label."""
        return np.asarray(self.labels[:, class_index] if self.multi_label else self.labels == class_index)

    def take(self, rows: NDArray[Any]) -> Scores:
        """Return the scores of some videos: ``rows`` are indices, or bool ``(N,)``."""
        return replace(
            self,
            video_ids=self.video_ids[rows],
            logits=self.logits[rows],
            labels=self.labels[rows],
            stated_groups=None if self.stated_groups is None else self.stated_groups[rows],
        )

    def save(self, path: Path) -> None:
        """Write as .npz, atomically; `load_scores` reads it."""
        arrays: dict[str, Any] = {
            "video_ids": self.video_ids,
            "scores": self.logits,
            "labels": self.labels,
            "classes": np.array(self.classes),
            "format_version": np.array(FORMAT_VERSION),
            "kind": np.array(self.kind),
            "facts": np.array(json.dumps(self.facts)),
        }
        if self.stated_groups is not None:
            arrays["groups"] = self.stated_groups
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **arrays)


def load_scores(path: str | Path) -> Scores:
    """Read scores written by `Scores.save`.

    Raises `ScoresError` for a file that is missing, damaged, or of another format.
    """
    path = Path(path)
    if path.is_dir():
        raise ScoresError(f"{path} is a folder. Pass a file of scores, such as {path / 'eval' / 'NAME.npz'}.")
    keys = ("video_ids", "scores", "labels", "classes")
    arrays = read_npz(path, keys, kind="scores", command="vsn eval", error_type=ScoresError)
    if not {"format_version", "kind", "facts"} <= arrays.keys():
        raise ScoresError(f"{path} is in an old format, without metadata. Run `vsn eval` again.")
    try:
        version, kind = int(arrays["format_version"]), str(arrays["kind"])
        if version != FORMAT_VERSION:
            raise ScoresError(
                f"Expected format version {FORMAT_VERSION} in {path}, got {version}. Read it with the vsn version that "
                "wrote it, or run `vsn eval` again."
            )
        facts = json.loads(str(arrays["facts"]))
        if kind not in ("logits", "log_probabilities") or not isinstance(facts, dict):
            raise ValueError(f"expected kind 'logits' or 'log_probabilities', got {kind!r}.")
        labels = arrays["labels"]
        return Scores(
            arrays["video_ids"].astype(str),
            arrays["scores"].astype(np.float32),
            labels if labels.dtype == np.bool_ else labels.astype(np.int64),
            tuple(arrays["classes"].astype(str).tolist()),
            kind,  # type: ignore[arg-type]
            facts,
            arrays["groups"].astype(str) if "groups" in arrays else None,
        )
    # ScoresError is a ValueError: pass on the message about the version.
    except ScoresError:
        raise
    except (ValueError, TypeError, IndexError) as error:
        raise ScoresError(f"{path} is damaged: {error} Run `vsn eval` again.") from error
