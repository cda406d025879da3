"""Find labels to look at: videos whose label contradicts a model that has not seen them, by confident learning."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from vsn.config.distribution import install_command
from vsn.scores.metrics import probabilities, require_labels
from vsn.scores.scores import Scores, ScoresError


class LabelIssue(NamedTuple):
    """A video whose label may be wrong."""

    row: int
    """In the scores."""
    video_id: str
    given: str
    suggested: str
    """The most probable class."""
    probability: float
    """Of the given label."""


def find_label_issues(scores: Scores) -> list[LabelIssue]:
    """Return the videos whose label is likely wrong, the least probable label first.

    By cleanlab (Northcutt et al., "Confident Learning", 2021): classes differ in how sure a model is of them, and a video is
    listed where its label is less probable than is usual in its class, and another class more probable than is usual in
    that one. A model that is right by chance only lists few or many videos that say nothing.

    Args:
        scores: of videos that the model was not trained on, such as those of `vsn folds`; one label per video. Videos that
            could not be read are left out.

    Raises:
        ScoresError: cleanlab is not installed; several labels per video, unknown labels, or fewer than two classes.
    """
    require_labels(scores, "a search for wrong labels")
    if scores.multi_label:
        raise ScoresError("A search for wrong labels takes one label per video; these scores have several.")
    try:
        from cleanlab.filter import find_label_issues as find
    except ImportError as error:
        raise ScoresError(f"Labels to look at are found by cleanlab: {install_command('labels')}.") from error
    rows = np.flatnonzero(~scores.unreadable)
    part = scores.take(rows)
    # Only classes that have videos: of others no usual probability is known.
    present = np.unique(part.labels)
    if len(present) < 2:
        raise ScoresError(f"The scores have videos of {len(present)} class; a search for wrong labels needs two.")
    table = probabilities(part)
    shares = table[:, present] / table[:, present].sum(axis=1, keepdims=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # some classes have few videos
        found = find(
            np.searchsorted(present, part.labels), shares, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    best = table.argmax(axis=1)
    return [
        LabelIssue(
            int(rows[index]),
            str(part.video_ids[index]),
            part.classes[part.labels[index]],
            part.classes[best[index]],
            float(table[index, part.labels[index]]),
        )
        for index in found.tolist()
    ]
