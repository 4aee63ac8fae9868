"""The metrics are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.metrics import area_under_curve, metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def predictions(rows: int, labels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities with ties, certain predictions and labels of unequal size."""
    random = np.random.default_rng(seed)
    truth = random.choice(labels, rows, p=np.arange(1, labels + 1) / np.arange(1, labels + 1).sum())
    raw = random.dirichlet(np.ones(labels), rows) + np.eye(labels)[truth] * 0.3
    probabilities = np.round(raw / raw.sum(axis=1, keepdims=True), 2)
    probabilities[:, -1] = 1 - probabilities[:, :-1].sum(axis=1)
    return truth, np.clip(probabilities, 0, 1).astype(np.float32)


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_metrics_are_those_of_scikit_learn(labels: int) -> None:
    truth, probabilities = predictions(700, labels, seed=labels)
    names = [f"label{number}" for number in range(labels)]
    found = metrics(truth, probabilities, names)

    predicted = probabilities.argmax(axis=1)
    every = list(range(labels))
    precision, recall, f1, support = sklearn_metrics.precision_recall_fscore_support(
        truth, predicted, labels=every, zero_division=0
    )
    assert found["rows"] == 700
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted), abs=1e-12)
    assert found["confusion_matrix"] == sklearn_metrics.confusion_matrix(truth, predicted, labels=every).tolist()
    for number, name in enumerate(names):
        assert found["classes"][name] == pytest.approx(
            {"precision": precision[number], "recall": recall[number], "f1": f1[number], "rows": support[number]}
        )
    assert found["f1"] == pytest.approx(f1.mean(), abs=1e-12)
    if labels == 2:
        area = sklearn_metrics.roc_auc_score(truth, probabilities[:, 1])
    else:
        area = sklearn_metrics.roc_auc_score(truth, probabilities.astype(float), multi_class="ovr", average="macro")
    assert found["roc_auc"] == pytest.approx(area, abs=1e-12)
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(truth, probabilities, labels=every), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])), min_size=1, max_size=40))
def test_auc_counts_pairs_with_ties_as_half(rows: list[tuple[bool, float]]) -> None:
    truth = np.array([positive for positive, _ in rows])
    scores = np.array([score for _, score in rows], np.float32)
    pairs = [(high > low) + (high == low) / 2 for high in scores[truth].tolist() for low in scores[~truth].tolist()]
    assert area_under_curve(truth, scores) == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_undefined_metrics_are_none_and_missing_labels_count_as_zero() -> None:
    found = metrics(np.array([1, 1]), np.array([[0.1, 0.9], [0.8, 0.2]], np.float32), ["neg", "pos"])
    assert found["roc_auc"] is None
    assert found["classes"]["neg"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "rows": 0}
    nothing = metrics(np.zeros(0, int), np.zeros((0, 2), np.float32), ["neg", "pos"])
    assert (nothing["rows"], nothing["accuracy"], nothing["log_loss"]) == (0, None, None)
