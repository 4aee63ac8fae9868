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
        found = differences(truth, *models, labels=["neg", "pos"])
        low, high = found["intervals"]["accuracy"]
        held += low <= 0.04 <= high
    assert 52 <= held <= 60
    one, other = (metrics(truth, probabilities, ["neg", "pos"], predicted) for probabilities, predicted in models)
    for name in ("accuracy", "f1", "roc_auc", "log_loss", "brier", "ece"):
        assert found[name] == pytest.approx(other[name] - one[name], abs=1e-6)
    assert high - low < sum(
        ends[1] - ends[0] for ends in (one["intervals"]["accuracy"], other["intervals"]["accuracy"])
    )
    same = differences(truth, models[0], models[0], labels=["neg", "pos"])
    assert {value for ends in same.pop("intervals").values() for value in ends} == {0.0}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 60), st.integers(2, 4))
def test_those_of_several_labels_are_scikit_learn_s(seed: int, rows: int, labels: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 2, (rows, labels)).astype(np.uint8)
    probabilities = np.round((truth * 0.3 + random.random((rows, labels)) * 0.7), 1).astype(np.float32)
    predicted = probabilities > 0.5
    names = [f"label{number}" for number in range(labels)]
    found = metrics(truth, probabilities, names, predicted, "multilabel")
    assert found["exact_match"] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    assert found["hamming_loss"] == pytest.approx(sklearn_metrics.hamming_loss(truth, predicted))
    for average, prefix in (("micro", "micro_"), ("macro", "")):
        wanted = sklearn_metrics.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), wanted, strict=False):
            assert found[prefix + name] == pytest.approx(value)
    cells = truth.ravel(), probabilities.astype(float).ravel()
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(*cells, labels=[0, 1]), abs=1e-5)
    assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(*cells), abs=1e-6)
    assert found["cardinality"] == pytest.approx(truth.sum() / rows)
    defined = [at for at in range(labels) if 0 < truth[:, at].sum() < rows]
    for name, function in (
        ("roc_auc", sklearn_metrics.roc_auc_score),
        ("pr_auc", sklearn_metrics.average_precision_score),
    ):
        areas = {at: function(truth[:, at], probabilities[:, at]) for at in defined}
        assert found[name] == (pytest.approx(np.mean(list(areas.values()))) if areas else None)
        for at, label in enumerate(names):
            assert found["classes"][label][name] == (pytest.approx(areas[at]) if at in areas else None)
            assert found["classes"][label]["rows"] == truth[:, at].sum()


def test_the_calibration_of_several_labels_is_that_of_their_decisions() -> None:
    probabilities = np.array([[0.9, 0.2], [0.9, 0.6]], np.float32)
    found = metrics(np.array([[1, 0], [0, 1]]), probabilities, ["a", "b"], task="multilabel")
    assert found["ece"] == pytest.approx(np.mean([abs(0.9 - 0.5) * 2, 0.2, 0.4]) * 3 / 4)
    # One wrong of two at 0.9, right at 0.8, right at 0.6.
    curve = calibration_curve(np.array([[1, 0], [0, 1]]), probabilities)
    assert [(round(each["probability"], 4), each["right"], each["rows"]) for each in curve] == [
        (0.6, 1.0, 1),
        (0.8, 1.0, 1),
        (0.9, 0.5, 2),
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_those_of_steps_are_scikit_learn_s(rows: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(rows).T
    numbers = np.array([1, 2, 4, 5])
    probabilities = np.eye(4, dtype=np.float32)[predicted]
    found = metrics(truth, probabilities, [str(number) for number in numbers], predicted, "ordinal")
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    wanted = sklearn_metrics.mean_absolute_error(numbers[truth], numbers[predicted])
    assert found["mean_absolute_error"] == pytest.approx(wanted)
    if len({*truth, *predicted}) > 1:
        kappa = sklearn_metrics.cohen_kappa_score(truth, predicted, labels=range(4), weights="quadratic")
        assert found["quadratic_kappa"] == pytest.approx(kappa, abs=1e-9)
    else:
        assert found["quadratic_kappa"] is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 60), st.sampled_from([0.0, 1e6]))
def test_those_of_numbers_are_scikit_learn_s_and_scipy_s(seed: int, rows: int, far: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(seed)
    truth = (far + random.integers(0, 8, rows)).astype(np.float32)
    values = (truth + np.round(random.normal(size=rows))).astype(np.float32)
    found = metrics(truth, values[:, None], (), task="regression")
    pair = truth.astype(float), values.astype(float)
    assert found["mean_absolute_error"] == pytest.approx(sklearn_metrics.mean_absolute_error(*pair))
    assert found["rmse"] == pytest.approx(sklearn_metrics.mean_squared_error(*pair) ** 0.5)
    varied = len(set(truth.tolist())) > 1
    assert found["r2"] == (pytest.approx(sklearn_metrics.r2_score(*pair)) if varied else None)
    for name, function in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        both = varied and len(set(values.tolist())) > 1
        assert found[name] == (pytest.approx(function(*pair).statistic, abs=1e-9) if both else None)
    for name, (low, high) in found["intervals"].items():
        assert low <= high, name


def test_numbers_that_are_all_alike_have_no_correlation() -> None:
    truth = np.array([4.5, 1.0, 10.0] * 7, np.float32)
    found = metrics(truth, np.full((21, 1), -2.733, np.float32), (), task="regression")
    assert (found["pearson"], found["spearman"]) == (None, None)
    assert found["r2"] < 0


def test_an_interval_of_ranks_is_that_of_rows_drawn_anew() -> None:
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(1)
    truth = random.integers(0, 5, 300).astype(np.float32)
    values = truth + random.normal(size=300).astype(np.float32)
    draws = random.integers(0, 300, (300, 300))
    drawn = [stats.spearmanr(truth[some], values[some]).statistic for some in draws]
    found = metrics(truth, values[:, None], (), task="regression")
    assert found["intervals"]["spearman"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)


def test_differences_are_of_any_task() -> None:
    truth, near = np.array([1.0, 2.0, 4.0] * 40), np.array([1.5, 2.0, 4.0] * 40)
    found = differences(truth, (truth[:, None] + 1, truth + 1), (near[:, None], near), (), "regression")
    assert found["mean_absolute_error"] == pytest.approx(1 / 6 - 1)
    assert found["intervals"]["mean_absolute_error"][1] < 0
