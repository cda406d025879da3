"""Hold the features of many videos, and write and read them as a file. Arrays only, no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.system.files import atomic_write
from vsn.system.npz import read_npz
from vsn.system.terminal import shell_quote

FORMAT_VERSION = 1


class FeaturesError(ValueError):
    """Features that cannot be read or written; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Features:
    """The inputs of a run's classifier for a set of videos.

    Attributes:
        video_ids: ``(N,)`` str, unique: the path below the data's root, or a file as it was named.
        features: ``(N, D)`` float32, the mean over frames and views, or ``(N, T, D)`` per frame. NaN for a video that
            could not be read.
        labels: ``(N,)`` int64, indices into classes, -1 if unknown; of multi-label videos ``(N, num_classes)`` bool.
        classes: class names of the labels; of the data, which need not be those of the run.
        facts: how they were made: run, weights_hash, protocol, num_frames, per_frame; JSON values.
    """

    video_ids: NDArray[np.str_]
    features: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.bool_]
    classes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.video_ids)
        if self.features.ndim not in (2, 3) or len(self.features) != n or len(self.labels) != n:
            raise FeaturesError(
                f"Features of {n} videos have shape {self.features.shape} and labels {self.labels.shape}; expected "
                f"({n}, D) or ({n}, T, D), and labels ({n},) or ({n}, num_classes)."
            )

    def save(self, path: Path) -> None:
        """Write as .npz, atomically; `load_features` reads it."""
        with atomic_write(path) as temporary:
            np.savez(
                temporary,
                video_ids=self.video_ids,
                features=self.features,
                labels=self.labels,
                classes=np.array(self.classes, dtype=np.str_),
                facts=np.array(json.dumps(self.facts)),
                format_version=np.array(FORMAT_VERSION),
            )


def load_features(path: str | Path) -> Features:
    """Read features written by `vsn features` or `Features.save`.

    Raises:
        FeaturesError: no such file, damaged, not a file of features, or of another version of the format.
    """
    path = Path(path)
    keys = ("video_ids", "features", "labels", "classes", "facts", "format_version")
    arrays = read_npz(
        path, keys, kind="features", command=f"vsn features RUN --out {shell_quote(path)}", error_type=FeaturesError
    )
    if (version := int(arrays["format_version"])) != FORMAT_VERSION:
        raise FeaturesError(f"{path} has format version {version}; this vsn reads version {FORMAT_VERSION}.")
    return Features(
        arrays["video_ids"],
        arrays["features"],
        arrays["labels"],
        tuple(arrays["classes"].tolist()),
        json.loads(str(arrays["facts"])),
    )
