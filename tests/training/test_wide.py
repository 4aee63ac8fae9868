"""The wide half: its gradients, and what it learns beside liblinear's coordinate descent."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sentray.models import OUTPUT, WIDE
from sentray.task import Task, hits, wanted
from sentray.text.cleaning import preset
from sentray.text.encoding import Encoder
from sentray.text.ngrams import Grams, GramSpec, make_table, word_grams
from sentray.text.vocabulary import Vocabulary, count_words
from sentray.training import wide
from sentray.training.allreduce import AllReduce
from sentray.training.batches import epoch_batches, laid_out
from sentray.training.calibration import log_loss
from sentray.training.wide import Wide, presences, ratios
from tests.training.test_allreduce import on_all

WORDS, CLASSES = 12, 3


def reviews_of(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Reviews and their classes; the words of each class have ids near each other."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, CLASSES, count).astype(np.int32)
    sizes = generator.integers(0, 9, count)
    return [
        ((generator.integers(0, 7, size) + 3 * target) % WORDS + 1).astype(np.int32)
        for target, size in zip(targets, sizes, strict=True)
    ], targets


def grams_of(reviews: list[np.ndarray]) -> Grams:
    spec = GramSpec()
    keys = dict.fromkeys(gram for review in reviews for gram in word_grams(review.tolist(), spec))
    return Grams(spec, make_table(np.array(list(keys), np.uint64)), None)


REVIEWS, TARGETS = reviews_of(60, 0)
GRAMS, ALL = grams_of(REVIEWS), np.arange(60)


def counts_of(classes: int, rows: np.ndarray = ALL, among: AllReduce | None = None) -> np.ndarray:
    return presences(
        GRAMS,
        lambda chosen: [REVIEWS[row] for row in chosen],
        rows,
        lambda chosen: hits("classification", TARGETS[chosen] % classes, classes),
        among or AllReduce(),
    )


def matrix(reviews: list[np.ndarray]) -> np.ndarray:
    """The values of the reviews' grams, float64 [reviews, gram rows]."""
    found = GRAMS.of(*laid_out(reviews))
    values = np.zeros((len(reviews), GRAMS.rows))
    values[np.repeat(np.arange(len(reviews)), np.diff(found.offsets)), found.rows] = found.values
    return values


def test_presences_are_counted_alike_by_any_number_of_workers() -> None:
    rows = np.arange(5, 50)
    by_class = [(matrix([REVIEWS[row] for row in rows if TARGETS[row] == k]) > 0).sum(0) for k in range(3)]
    every = np.column_stack([sum(by_class), *by_class])
    for world in (1, 3):
        for found in on_all(world, lambda among: counts_of(3, rows, among)):
            np.testing.assert_array_equal(found, every)


def test_ratios_are_those_of_naive_bayes() -> None:
    counts = np.array([[0, 0], [4, 1], [2, 2], [10, 5]], np.float32)
    yes, no = np.array([2, 3, 6]), np.array([4, 1, 6])
    of_bayes = np.log(yes / yes.sum()) - np.log(no / no.sum())
    np.testing.assert_allclose(ratios(counts)[:, 0], [0, *of_bayes], rtol=1e-6)
    two = ratios(np.hstack([counts, counts[:, 1:]]))
    assert two.shape == (4, 2)
    np.testing.assert_array_equal(two[:, 0], two[:, 1])


def test_ratios_of_numbers_are_those_of_naive_bayes_as_far_as_these_are_linear() -> None:
    """Of reviews that are nearly as often of the one class, 1, as of the other, -1."""
    reviews, second = np.array([0, 400, 1000]), np.array([0, 202, 499])
    mine = ratios(np.stack([reviews, 2 * second - reviews], 1).astype(np.float32), "regression")[1:, 0]
    theirs = np.log((second + 1) / (reviews - second + 1))[1:]
    np.testing.assert_allclose(mine, theirs, rtol=1e-3)


def objective(head: Wide, weights: np.ndarray, labels: np.ndarray, penalty: np.ndarray, task: Task) -> float:
    """The loss that `gradients` is the gradient of, of weights u [gram rows, outputs]."""
    logits = matrix(REVIEWS) @ (weights * head.constants()[0])
    losses = log_loss(logits, labels, task=task) * len(labels)
    return float(losses + (penalty * weights**2).sum() / 2)


@pytest.mark.parametrize(
    ("task", "classes"), [("classification", 2), ("classification", 3), ("multilabel", 3), ("regression", 0)]
)
def test_gradients_are_those_of_the_penalised_loss(task: Task, classes: int) -> None:
    flags = np.random.default_rng(3).integers(0, 2, (60, 3)).astype(np.uint8)
    given = {"classification": TARGETS % max(classes, 1), "multilabel": flags}.get(task, TARGETS - 0.5)
    labels = wanted(task, given, classes)
    of_rows = hits(task, given, classes)
    counts = presences(GRAMS, lambda some: [REVIEWS[row] for row in some], ALL, lambda some: of_rows[some], AllReduce())
    head = Wide(GRAMS, counts, 10, task)
    generator = np.random.default_rng(1)
    weights = generator.normal(0, 0.1, head.state()["weights"].shape)
    weights[0] = 0
    head.restore(head.state() | {"weights": weights})
    packed = head.pack(REVIEWS)
    found = head.gradients(packed, labels, np.ones(60, np.float32), 1)
    # Over all reviews, the penalty of every gram that occurs is whole.
    penalty = (counts[:, :1] > 0) / wide.C
    logits = matrix(REVIEWS) @ (weights * head.constants()[0])
    np.testing.assert_allclose(head.logits(packed), logits, rtol=1e-4, atol=1e-4)
    for number in generator.choice(len(found.rows), 5, replace=False):
        for output in range(weights.shape[1]):
            step = np.zeros_like(weights)
            step[found.rows[number], output] = 1e-5
            above, below = (objective(head, weights + by, labels, penalty, task) for by in (step, -step))
            rise = above - below
            assert found.values[number, output] == pytest.approx(rise / 2e-5, rel=1e-3, abs=1e-4)
    assert found.rows.tolist() == sorted(set(packed.rows.tolist()))


def trained(classes: int, epochs: int) -> Wide:
    """A half trained in batches of 20."""
    head = Wide(GRAMS, counts_of(classes), 3 * epochs)
    generator = np.random.default_rng(0)
    for batch in (batch for _ in range(epochs) for batch in np.split(generator.permutation(60), 3)):
        packed = head.pack([REVIEWS[row] for row in batch])
        head.apply(head.gradients(packed, TARGETS[batch] % classes, np.ones(20, np.float32), 20))
    return head


def test_it_learns_and_goes_on_from_a_state() -> None:
    head, begun = trained(3, 8), Wide(GRAMS, counts_of(3), 24)
    begun.restore({name: values.copy() for name, values in head.state().items()})
    packed, weights = head.pack(REVIEWS), np.ones(60, np.float32)
    sure = [row for row, review in enumerate(REVIEWS) if len(review) > 3]
    assert (head.logits(packed).argmax(1) == TARGETS)[sure].mean() > 0.9
    for each in (head, begun):
        each.apply(each.gradients(packed, TARGETS, weights, 60))
    for name, values in head.state().items():
        np.testing.assert_array_equal(values, begun.state()[name])


@pytest.mark.parametrize("classes", [2, 3])
def test_its_layers_give_its_logits(classes: int) -> None:
    head = trained(classes, 3)
    layers: dict[str, Any] = head.layers()
    kernel, bias = layers[OUTPUT]
    logits = matrix(REVIEWS) @ layers[WIDE][0] @ kernel + bias
    np.testing.assert_allclose(head.logits(head.pack(REVIEWS)), logits, rtol=1e-4, atol=1e-5)
    assert not layers[WIDE][0][0].any()


def test_a_batch_without_reviews_gives_no_gradient() -> None:
    head = Wide(GRAMS, counts_of(2), 10)
    found = head.gradients(head.pack([]), np.empty(0, np.int32), np.empty(0, np.float32), 8)
    assert (found.loss, found.correct, found.values.shape, found.dense.tolist()) == (0.0, 0, (0, 1), [0.0])


def test_held_out_reviews_are_told_as_well_as_by_liblinear(shared: Path) -> None:
    """Coordinate descent over the same values (Hsieh et al. 2008) is the reference; MR, folds 0 and 5 held out."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the reference")
    sparse = pytest.importorskip("scipy.sparse")
    rows = pq.read_table(shared / "data/sentences/mr.parquet")
    rules, labels = preset("unicode")[0], np.array(rows["label"].to_pylist()) == "pos"
    words = Vocabulary.from_counts(count_words(rows["text"], rules))
    encoded = Encoder(rules, words).encode(rows["text"])
    reviews = np.split(encoded.ids, encoded.offsets[1:-1])
    spec = GramSpec(scale=5.0)
    seen = Counter(gram for review in reviews for gram in word_grams(review.tolist(), spec))
    grams = Grams(spec, make_table(np.array([gram for gram in seen if seen[gram] > 1], np.uint64)), words)
    held = np.isin(rows["fold"].to_numpy(), (0, 5))
    training, told = np.flatnonzero(~held), np.flatnonzero(held)
    targets = labels.astype(np.int32)
    counts = presences(
        grams,
        lambda chosen: [reviews[row] for row in chosen],
        training,
        lambda chosen: hits("classification", targets[chosen], 2),
        AllReduce(),
    )
    head = Wide(grams, counts, wide.EPOCHS * -(-len(training) // 32))
    for epoch in range(wide.EPOCHS):
        for batch in epoch_batches(len(training), 32, 0, epoch):
            of = training[batch]
            packed = head.pack([reviews[row] for row in of])
            head.apply(head.gradients(packed, targets[of], np.ones(len(of), np.float32), len(of)))

    def weighted(which: np.ndarray) -> Any:
        found = grams.of(*laid_out([reviews[row] for row in which]))
        values = found.values * head.constants()[0][found.rows, 0]
        return sparse.csr_matrix((values, found.rows, found.offsets), (len(which), grams.rows))

    reference = linear_model.LogisticRegression(C=wide.C, solver="liblinear", dual=True, max_iter=1000, tol=0.01)
    reference.fit(weighted(training), labels[training])
    theirs = reference.decision_function(weighted(told))
    mine = head.logits(head.pack([reviews[row] for row in told]))[:, 0]
    assert ((mine > 0) == labels[told]).mean() > ((theirs > 0) == labels[told]).mean() - 0.002
    assert np.corrcoef(mine, theirs)[0, 1] > 0.98
