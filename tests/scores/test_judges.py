"""Our measures against those of scikit-learn and SciPy, which nobody here wrote."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats
from sklearn import metrics as judge

from tests.helpers.made_scores import random_scores, several
from vsn.scores.calibrate import fit_temperature, negative_log_likelihood
from vsn.scores.compare import compare_scores
from vsn.scores.metrics import (
    average_precisions,
    per_class_accuracy,
    predicted_classes,
    probabilities,
    summarize,
    top_k_hits,
)

pytestmark = pytest.mark.needs("scikit-learn", "scipy")
SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(1, 4))
def test_top_k(seed: int, k: int):
    scores = random_scores(seed, num_classes=5)
    assert top_k_hits(scores, k).mean() == pytest.approx(judge.top_k_accuracy_score(scores.labels, scores.logits, k=k))


@given(SEEDS)
def test_classes(seed: int):
    scores = random_scores(seed)
    predicted = np.array([scores.classes.index(name) for name in predicted_classes(scores)])
    assert list(per_class_accuracy(scores).values()) == pytest.approx(
        judge.recall_score(scores.labels, predicted, average=None).tolist()
    )
    assert summarize(scores).mean == pytest.approx(judge.balanced_accuracy_score(scores.labels, predicted))


@given(SEEDS)
def test_average_precision(seed: int):
    generator = np.random.default_rng(seed)
    logits = generator.integers(0, 8, (40, 3)).astype(float)  # with ties
    labels = generator.random((40, 3)) < 0.4
    labels[0] = True
    found = average_precisions(several(logits.tolist(), labels.tolist()))
    expected = [judge.average_precision_score(labels[:, i], logits[:, i]) for i in range(3)]
    assert list(found.values()) == pytest.approx(expected)


@given(SEEDS)
def test_likelihood(seed: int):
    scores = random_scores(seed, scale=3.0)
    assert probabilities(scores) == pytest.approx(special.softmax(scores.logits.astype(np.float64), axis=1))
    assert negative_log_likelihood(scores) == pytest.approx(judge.log_loss(scores.labels, probabilities(scores)))


@pytest.mark.parametrize("seed", range(5))
def test_temperature(seed: int):
    scores = random_scores(seed, scale=3.0)

    def loss(log_temperature: float) -> float:
        table = special.softmax(scores.logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return judge.log_loss(scores.labels, table)

    best = optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(scores) == pytest.approx(np.exp(best.x), rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_two_models(seed: int):
    a, b = random_scores(seed), random_scores(seed + 100, strength=1.6)
    hits_a, hits_b = top_k_hits(a, 1), top_k_hits(b, 1)
    only_a, only_b = int((hits_a & ~hits_b).sum()), int((hits_b & ~hits_a).sum())
    assert compare_scores(a, b).mcnemar_p == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
