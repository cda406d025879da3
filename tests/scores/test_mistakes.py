import numpy as np

from tests.helpers.made_scores import scores_of, several
from vsn.scores.mistakes import worst_class


def one_hot(labels: list[int], num_classes: int = 3) -> list[list[float]]:
    return np.eye(num_classes)[labels].tolist()


def test_the_worst_class_and_what_it_is_taken_for():
    labels = [0] * 4 + [1] * 4 + [2] * 2
    predicted = [0, 0, 0, 1, 2, 2, 0, 1, 0, 0]  # class c is worse, and has two videos
    found = worst_class(scores_of(one_hot(predicted), labels, classes=["a", "b", "c"]))
    assert found is not None
    assert (found.name, found.num_videos, found.num_right, found.taken_for, found.num_taken) == ("b", 4, 1, "c", 2)
    assert str(found) == "Worst class: 'b', 1 of 4 videos right; 2 taken for 'c'."


def test_of_equal_classes_the_larger():
    labels, predicted = [0] * 4 + [1] * 8, [1, 1, 0, 0] + [0] * 4 + [1] * 4
    found = worst_class(scores_of(one_hot(predicted, 2), labels, classes=["a", "b"]))
    assert found is not None
    assert found.name == "b"


def test_where_there_is_none():
    labels = [0, 0, 0, 1, 1, 1]
    assert worst_class(scores_of(one_hot(labels, 2), labels)) is None  # all right
    assert worst_class(scores_of(one_hot(labels, 2), [-1] * 6)) is None
    assert worst_class(several([[1, 0]] * 3, [[0, 1]] * 3)) is None
    unreadable = [[float("nan")] * 2] * 3
    assert worst_class(scores_of(unreadable + one_hot([1] * 3, 2), labels)) is None  # taken for nothing
