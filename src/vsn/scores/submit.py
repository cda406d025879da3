"""Write files for the test servers of Something-Something.

V1 takes one line per video, `id;class text`. V2 takes `id` and the indices of the five most probable classes, in the
numbering of the official labels.json. Our reading of the rest: no header; V2's six fields separated by semicolons,
most probable first; an id is the number in the video's name, without folder and suffix; lines sorted by number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vsn.scores.intervals import Interval, share_interval
from vsn.scores.metrics import top_k_hits
from vsn.scores.scores import Scores, ScoresError

Server = Literal["something-v1", "something-v2"]
TOP_K = 5


def server_ids(scores: Scores) -> list[str]:
    """Return the server's ids of the videos: `videos/20bn/78687.webm` is `78687`.

    Raises `ScoresError` for two videos with one id, such as a clip and its reversed copy.
    """
    ids = [video.rsplit("/", 1)[-1].partition("#")[0].partition(".")[0] for video in scores.video_ids.tolist()]
    if twice := [video for video, count in Counter(ids).items() if count > 1]:
        raise ScoresError(f"Several videos have the id {twice[0]!r}; a server takes each video once.")
    return ids


def submission(scores: Scores, server: Server, *, indices: Mapping[str, int] | None = None) -> str:
    """Return the text of the file to submit, one line per video.

    Args:
        scores: of every video of the test split; labels are ignored.
        server: "something-v1" or "something-v2".
        indices: for V2, class name -> official index (`read_indices`).

    Raises:
        ScoresError: multi-label scores, an unreadable video, a class unknown to the server.
    """
    if scores.multi_label:
        raise ScoresError("The servers take one class per video, but the scores are multi-label.")
    if scores.unreadable.any():
        unreadable = scores.video_ids[scores.unreadable]
        raise ScoresError(
            f"{len(unreadable)} videos could not be read and have no scores, for example {str(unreadable[0])!r}. A server "
            "takes every video of the split: fix them and run `vsn eval` again."
        )
    if server == "something-v1":
        if bad := [name for name in scores.classes if ";" in name or "\n" in name]:
            raise ScoresError(f"The class {bad[0]!r} has a semicolon or line break, which separate the fields.")
        fields = [scores.classes[index] for index in scores.logits.argmax(axis=1)]
    else:
        fields = _top_indices(scores, indices)
    # By length first, so that ids sort as numbers: 3, 20, 107.
    lines = sorted(zip(server_ids(scores), fields, strict=True), key=lambda line: (len(line[0]), line[0]))
    return "".join(f"{video};{text}\n" for video, text in lines)


def _top_indices(scores: Scores, indices: Mapping[str, int] | None) -> list[str]:
    if indices is None:
        raise ScoresError("something-v2 takes class indices. Pass the official labels.json with --labels.")
    if unknown := [name for name in scores.classes if name not in indices]:
        raise ScoresError(
            f"{len(unknown)} of {len(scores.classes)} classes are not in the label file, for example {unknown[0]!r}. "
            "Pass the labels.json of the data set that the model was trained on."
        )
    if len(scores.classes) < TOP_K:
        raise ScoresError(f"Expected {TOP_K} or more classes, got {len(scores.classes)}.")
    official = np.array([indices[name] for name in scores.classes])
    # Stable, so that ties are broken alike on every machine.
    best = np.argsort(-scores.logits, axis=1, kind="stable")[:, :TOP_K]
    return [";".join(map(str, row)) for row in official[best].tolist()]


def read_indices(path: str | Path) -> dict[str, int]:
    """Read class name -> index from the official labels.json: `{"Approaching something with ...": "0", ...}`.

    Raises `ScoresError` for another file, or a duplicate index.
    """
    value = _read_json(Path(path))
    if not isinstance(value, dict) or not all(str(index).isdecimal() for index in value.values()):
        raise ScoresError(f"{path} is not a label file: expected a JSON object of class names and whole numbers.")
    indices = {name.strip(): int(index) for name, index in value.items()}
    if len(set(indices.values())) != len(value):
        raise ScoresError(f"{path} has two classes with the same index or name.")
    return indices


def read_video_ids(path: str | Path) -> set[str]:
    """Read the ids of the official test split: a JSON list of `{"id": ...}` (V2), or one line per video (V1).

    Raises `ScoresError` for another file, or a duplicate id.
    """
    path = Path(path)
    if path.suffix == ".json":
        value = _read_json(path)
        if not isinstance(value, list) or not all(isinstance(entry, dict) and "id" in entry for entry in value):
            raise ScoresError(f"{path} is not a split: expected a JSON list of objects with an id.")
        ids = [str(entry["id"]) for entry in value]
    else:
        ids = [line.partition(";")[0].strip() for line in _read_text(path).splitlines() if line.strip()]
    if not ids or len(set(ids)) != len(ids):
        raise ScoresError(
            f"Expected each video once in {path}, got {len(ids)} lines with {len(set(ids))} different ids."
        )
    return set(ids)


def check_complete(scores: Scores, split: set[str]) -> None:
    """Raise `ScoresError` unless the scores are of exactly the videos of a split."""
    # Servers reject a file, and count the attempt, if a video is missing or unknown.
    ids = set(server_ids(scores))
    for different, problem in ((split - ids, "lack"), (ids - split, "have, outside the split,")):
        if different:
            raise ScoresError(
                f"The scores {problem} {len(different)} videos, for example {min(different)!r}. Expected the {len(split)} "
                f"videos of the split, each once, got {len(ids)}."
            )


def read_answers(path: str | Path) -> dict[str, str]:
    """Read the class text of each video id from lines `id;text`, such as the redistribution's test-answers.csv.

    Raises `ScoresError` for a line without a semicolon, a duplicate id, or an empty file.
    """
    path, answers = Path(path), {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        video, _, text = (part.strip() for part in line.partition(";"))
        if not text or video in answers:
            raise ScoresError(f"{path}, line {number}: expected `id;class text` with a new id, got {line!r}.")
        answers[video] = text
    if not answers:
        raise ScoresError(f"{path} has no answers; expected lines `id;class text`.")
    return answers


@dataclass(frozen=True)
class Marks:
    """Accuracy by a file of answers, as shares of 1."""

    top1: float
    top1_interval: Interval
    """95% interval."""
    top5: float


def mark(scores: Scores, answers: Mapping[str, str]) -> Marks:
    """Measure accuracy by these answers; videos are matched by `server_ids`.

    Raises `ScoresError` for a video without an answer, an answer without a video, or an unknown class.
    """
    check_complete(scores, set(answers))
    class_index = {name: index for index, name in enumerate(scores.classes)}
    if unknown := sorted(set(answers.values()) - class_index.keys()):
        raise ScoresError(f"{len(unknown)} classes of the answers are not in the scores, for example {unknown[0]!r}.")
    labels = np.array([class_index[answers[video]] for video in server_ids(scores)], dtype=np.int64)
    labeled = replace(scores, labels=labels)
    hits = top_k_hits(labeled, 1)
    return Marks(float(hits.mean()), share_interval(hits), float(top_k_hits(labeled, TOP_K).mean()))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ScoresError(f"{path} cannot be read as UTF-8 text: {error}.") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ScoresError(f"{path} is not JSON: {error}.") from error
