"""Files for the test servers of Something-Something.

Known of the formats: V1 takes one line a video, `id;class text`; V2 takes `id` and the indices of the five
most probable classes, in the numbering of the official labels.json. Our reading: no header; V2's six fields all
stand between semicolons, most probable first; an id is the number that names the video, without folder
and suffix; lines go by the number.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vsn.scores.intervals import bootstrap_interval
from vsn.scores.metrics import top_k_hits
from vsn.scores.scores import Scores, ScoresError

Server = Literal["something-v1", "something-v2"]
TOP_K = 5


def server_ids(scores: Scores) -> list[str]:
    """The ids a server knows the videos by: `videos/20bn/78687.webm` is `78687`.

    Raises:
        ScoresError: two videos of one id, such as a clip and its reversed copy.
    """
    ids = [video.rsplit("/", 1)[-1].partition("#")[0].partition(".")[0] for video in scores.video_ids.tolist()]
    twice = [one for one, count in Counter(ids).items() if count > 1]
    if twice:
        raise ScoresError(f"The scores have several videos of the id {twice[0]!r}; a server takes every video once.")
    return ids


def submission(scores: Scores, server: Server, *, indices: Mapping[str, int] | None = None) -> str:
    """The text of the file to hand in, a line a video.

    Args:
        scores: of every video of the test split; labels are not looked at.
        server: "something-v1" or "something-v2".
        indices: for V2, class name -> official index (`read_indices`).

    Raises:
        ScoresError: several labels a video, a video that could not be read, a class the server does not know.
    """
    if scores.multi_label:
        raise ScoresError("The scores are multi-label; the servers take one class a video.")
    if scores.unreadable.any():
        lost = scores.video_ids[scores.unreadable]
        raise ScoresError(
            f"{len(lost)} videos could not be read and have no scores, for example {str(lost[0])!r}; a server takes every "
            "video of the split. Mend them and run `vsn eval` again."
        )
    ids = server_ids(scores)
    if server == "something-v1":
        odd = [name for name in scores.classes if ";" in name or "\n" in name]
        if odd:
            raise ScoresError(f"The class {odd[0]!r} has a semicolon or line break, which separate the fields.")
        said = [scores.classes[index] for index in scores.logits.argmax(axis=1)]
    else:
        said = _five_indices(scores, indices)
    lines = sorted(zip(ids, said, strict=True), key=lambda line: (len(line[0]), line[0]))
    return "".join(f"{video};{text}\n" for video, text in lines)


def _five_indices(scores: Scores, indices: Mapping[str, int] | None) -> list[str]:
    if indices is None:
        raise ScoresError("something-v2 takes class indices; give the official labels.json with --labels.")
    unknown = [name for name in scores.classes if name not in indices]
    if unknown:
        raise ScoresError(
            f"{len(unknown)} of {len(scores.classes)} classes are not in the label file, for example {unknown[0]!r}. "
            "Give the labels.json of the data set the model was trained on."
        )
    if len(scores.classes) < TOP_K:
        raise ScoresError(f"The scores have {len(scores.classes)} classes; a line names {TOP_K}.")
    official = np.array([indices[name] for name in scores.classes])
    best = np.argsort(-scores.logits, axis=1, kind="stable")[:, :TOP_K]
    return [";".join(map(str, row)) for row in official[best].tolist()]


def read_indices(path: str | Path) -> dict[str, int]:
    """Class name -> index, from the official labels.json: `{"Approaching something with ...": "0", ...}`.

    Raises:
        ScoresError: not such a file, or an index twice.
    """
    value = _read_json(Path(path))
    if not isinstance(value, dict) or not all(str(index).isdecimal() for index in value.values()):
        raise ScoresError(f"{path} is not a label file: it should be a JSON object of class names and whole numbers.")
    found = {name.strip(): int(index) for name, index in value.items()}
    if len(set(found.values())) != len(value):
        raise ScoresError(f"{path} gives two classes the same index or name; every class has its own.")
    return found


def read_video_ids(path: str | Path) -> set[str]:
    """Ids of the official test split: a JSON list of `{"id": ...}` (V2), or a line a video (V1).

    Raises:
        ScoresError: not such a file, or an id twice.
    """
    path = Path(path)
    if path.suffix == ".json":
        value = _read_json(path)
        if not isinstance(value, list) or not all(isinstance(one, dict) and "id" in one for one in value):
            raise ScoresError(f"{path} is not a split: it should be a JSON list of objects with an id.")
        ids = [str(one["id"]) for one in value]
    else:
        ids = [line.partition(";")[0].strip() for line in _read_text(path).splitlines() if line.strip()]
    if not ids or len(set(ids)) != len(ids):
        raise ScoresError(f"{path} names {len(ids)} videos, {len(set(ids))} different; each should come once.")
    return set(ids)


def check_complete(scores: Scores, split: set[str]) -> None:
    """Raise `ScoresError` unless the scores are of exactly the videos of a split."""
    ids = set(server_ids(scores))
    for lost, what in ((split - ids, "lack"), (ids - split, "have, beyond the split,")):
        if lost:
            raise ScoresError(
                f"The scores {what} {len(lost)} videos, for example {min(lost)!r}; a server takes every video of the "
                f"split once. The split has {len(split)}, the scores {len(ids)}."
            )


def read_answers(path: str | Path) -> dict[str, str]:
    """Class text of each video id, from lines `id;text` such as the redistribution's test-answers.csv.

    Raises:
        ScoresError: a line without a semicolon, an id twice, an empty file.
    """
    path, found = Path(path), {}
    for number, line in enumerate(_read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        video, separator, text = (part.strip() for part in line.partition(";"))
        if not separator or not text or video in found:
            raise ScoresError(f"{path}, line {number}: {line!r}; a line is `id;class text`, every id once.")
        found[video] = text
    if not found:
        raise ScoresError(f"{path} has no answers; a line is `id;class text`.")
    return found


def mark(scores: Scores, answers: Mapping[str, str]) -> dict[str, Any]:
    """Top-1 (with its 95% interval) and top-5 by these answers; shares of 1. Videos go by `server_ids`.

    Raises:
        ScoresError: a video without an answer, an answer without a video, an unknown class.
    """
    check_complete(scores, set(answers))
    place = {name: index for index, name in enumerate(scores.classes)}
    unknown = sorted(set(answers.values()) - place.keys())
    if unknown:
        raise ScoresError(f"{len(unknown)} answers name classes the scores lack, for example {unknown[0]!r}.")
    labels = np.array([place[answers[video]] for video in server_ids(scores)], dtype=np.int64)
    labeled = Scores(scores.video_ids, scores.logits, labels, scores.classes, scores.kind, scores.facts)
    hits = top_k_hits(labeled, 1)
    return {
        "num_videos": len(hits),
        "top1": float(hits.mean()),
        "top1_interval": list(bootstrap_interval(hits)),
        "top5": float(top_k_hits(labeled, TOP_K).mean()),
    }


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ScoresError(f"{path} cannot be read as text in UTF-8: {error}.") from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ScoresError(f"{path} is not JSON: {error}.") from error
