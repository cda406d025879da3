from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.made_scores import random_scores, several
from vsn.scores.labels import find_label_issues
from vsn.scores.scores import Scores, ScoresError

pytestmark = pytest.mark.needs("cleanlab")


def mislabeled(num_wrong: int, **options: float) -> tuple[Scores, list[str]]:
    """A good model, and videos with the label of another class: their names."""
    scores = random_scores(0, num_videos=200, strength=8.0, **options)
    rows = np.random.default_rng(1).choice(200, num_wrong, replace=False)
    labels = scores.labels.copy()
    labels[rows] = (labels[rows] + 1) % 4
    return replace(scores, labels=labels), sorted(scores.video_ids[rows].tolist())


@pytest.mark.parametrize("num_wrong", [0, 1, 10])
def test_planted_labels_are_found(num_wrong: int) -> None:
    scores, planted = mislabeled(num_wrong)
    issues = find_label_issues(scores)
    assert sorted(issue.video_id for issue in issues) == planted
    truth = random_scores(0, num_videos=200, strength=8.0)
    for issue in issues:
        assert issue.given == scores.classes[scores.labels[issue.row]]
        assert issue.suggested == truth.classes[truth.labels[issue.row]]
        assert issue.probability < 0.05
    assert [issue.probability for issue in issues] == sorted(issue.probability for issue in issues)


def test_unreadable_videos_and_classes_without_videos_change_nothing() -> None:
    scores, planted = mislabeled(10)
    logits = np.concatenate([scores.logits, np.full((200, 1), -20, np.float32)], axis=1)
    bad = next(i for i, name in enumerate(scores.video_ids.tolist()) if name not in planted)
    logits[bad] = np.nan
    issues = find_label_issues(replace(scores, logits=logits, classes=(*scores.classes, "nothing")))
    assert sorted(issue.video_id for issue in issues) == planted
    assert all(scores.video_ids[issue.row] == issue.video_id for issue in issues)


def test_a_model_at_chance_lists_no_label_that_it_predicts() -> None:
    scores = random_scores(3, num_videos=300, strength=0.0)
    assert all(issue.given != issue.suggested for issue in find_label_issues(scores))


def test_scores_that_show_nothing_of_labels() -> None:
    with pytest.raises(ScoresError, match="one label per video"):
        find_label_issues(several([[1, 0], [0, 1]], [[1, 0], [1, 1]]))
    scores = random_scores(0)
    with pytest.raises(ScoresError, match="no label"):
        find_label_issues(replace(scores, labels=np.full_like(scores.labels, -1)))
    with pytest.raises(ScoresError, match="videos of 1 class"):
        find_label_issues(scores.take(scores.labels == 2))
