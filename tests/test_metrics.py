"""The metrics are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import metrics as module
from sentray.metrics import calibration_curve, differences, metrics

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
        ends = found["classes"][name].pop("intervals")
        assert all(low <= found["classes"][name][of] <= high for of, (low, high) in ends.items())
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
    assert found["balanced_accuracy"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(truth, predicted))
    assert found["matthews"] == pytest.approx(sklearn_metrics.matthews_corrcoef(truth, predicted))
    assert found["kappa"] == pytest.approx(sklearn_metrics.cohen_kappa_score(truth, predicted))
    wanted = np.eye(labels)[truth]
    ranked = [1] if labels == 2 else every
    precisions = [sklearn_metrics.average_precision_score(wanted[:, at], probabilities[:, at]) for at in ranked]
    assert found["pr_auc"] == pytest.approx(np.mean(precisions))
    if labels == 2:
        assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(truth, probabilities[:, 1]))
    else:
        assert found["brier"] == pytest.approx(((probabilities - wanted) ** 2).sum(1).mean(), rel=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])), min_size=1, max_size=40))
def test_auc_counts_pairs_with_ties_as_half(rows: list[tuple[bool, float]]) -> None:
    truth = np.array([positive for positive, _ in rows])
    scores = np.array([score for _, score in rows], np.float32)
    pairs = [(high > low) + (high == low) / 2 for high in scores[truth].tolist() for low in scores[~truth].tolist()]
    found = metrics(truth.astype(int), np.stack([1 - scores, scores], axis=1), ["neg", "pos"])
    assert found["roc_auc"] == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)
    for name, (low, high) in found["intervals"].items():
        assert low <= high
        assert found[name] is not None


def test_undefined_metrics_are_none_and_missing_labels_count_as_zero() -> None:
    found = metrics(np.array([1, 1]), np.array([[0.1, 0.9], [0.8, 0.2]], np.float32), ["neg", "pos"])
    assert found["roc_auc"] is None
    neg = found["classes"]["neg"]
    assert [neg[name] for name in ("precision", "recall", "f1", "rows")] == [0, 0, 0, 0]
    nothing = metrics(np.zeros(0, int), np.zeros((0, 2), np.float32), ["neg", "pos"])
    assert (nothing["rows"], nothing["accuracy"], nothing["log_loss"]) == (0, None, None)
    assert nothing["intervals"] == {}


def test_rows_without_a_label_count_in_probabilities_alone() -> None:
    truth, probabilities = (
        np.array([0, 1, 1, 0]),
        np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]], np.float32),
    )
    found = metrics(truth, probabilities, ["neg", "pos"], np.array([0, 1, -1, -1]))
    assert (found["rows"], found["unsure_rows"], found["accuracy"]) == (4, 2, 1.0)
    assert found["confusion_matrix"] == [[1, 0], [0, 1]]
    assert found["log_loss"] == metrics(truth, probabilities, ["neg", "pos"])["log_loss"]


@pytest.mark.parametrize(("rows", "resampled"), [(400, 400), (20_000, 10_000)])
def test_an_interval_is_that_of_a_binomial_proportion(rows: int, resampled: int) -> None:
    truth, probabilities = predictions(rows, 2, seed=1)
    found = metrics(truth, probabilities, ["neg", "pos"])
    assert found["bootstrap"] == {"level": 0.95, "resamples": module.RESAMPLES, "rows": resampled}
    low, high = found["intervals"]["accuracy"]
    error = 1.96 * np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / rows)
    assert (high - low) / 2 == pytest.approx(error, rel=0.12)
    assert (high + low) / 2 == pytest.approx(found["accuracy"], abs=0.15 * error)
    assert found["intervals"]["roc_auc"][0] < found["roc_auc"] < found["intervals"]["roc_auc"][1]


def test_the_calibration_error_is_the_gap_between_sure_and_right() -> None:
    second = np.repeat([0.1, 0.4, 0.9], [100, 100, 200]).astype(np.float32)
    probabilities = np.stack([1 - second, second], axis=1)
    # The labels are 0, 0 and 1: right nine, eight and six times in ten.
    truth = np.concatenate([np.arange(100) % 10 == 0, np.arange(100) % 5 == 0, np.arange(200) % 10 < 6]).astype(int)
    found = metrics(truth, probabilities, ["neg", "pos"])
    assert found["ece"] == pytest.approx((300 * abs(0.9 - 0.7) + 100 * abs(0.6 - 0.8)) / 400)
    curve = calibration_curve(truth, probabilities)
    assert [(round(each["probability"], 4), each["right"], each["rows"]) for each in curve] == [
        (0.6, 0.8, 100),
        (0.9, 0.7, 300),
    ]


def test_intervals_of_differences_are_paired_and_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESAMPLES", 200)
    random, rows, held = np.random.default_rng(3), 400, 0
    for _ in range(60):
        truth = random.integers(0, 2, rows)
        # Both find the same rows hard, and the second is right on 4 of 100 more.
        hard = random.random(rows) < 0.3
        models = []
        for share in (0.6, 0.6 - 0.04 / 0.3):
            predicted = np.where(hard & (random.random(rows) < share), 1 - truth, truth)
            second = predicted * 0.5 + random.random(rows) * 0.25 + 0.1
            models.append((np.stack([1 - second, second], axis=1).astype(np.float32), predicted))
        found = differences(truth, *models, labels=2)
        low, high = found["intervals"]["accuracy"]
        held += low <= 0.04 <= high
    assert 52 <= held <= 60
    one, other = (metrics(truth, probabilities, ["neg", "pos"], predicted) for probabilities, predicted in models)
    for name in ("accuracy", "f1", "roc_auc", "log_loss", "brier", "ece"):
        assert found[name] == pytest.approx(other[name] - one[name], abs=1e-6)
    assert high - low < sum(
        ends[1] - ends[0] for ends in (one["intervals"]["accuracy"], other["intervals"]["accuracy"])
    )
    same = differences(truth, models[0], models[0], labels=2)
    assert {value for ends in same.pop("intervals").values() for value in ends} == {0.0}
