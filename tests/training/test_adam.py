import numpy as np

from sentray.training.adam import BETA_1, BETA_2, EPSILON, Adam, rate, schedule

WORDS, DIMENSIONS, STEPS = 30, 7, 60


def steps(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Words and gradients of some steps; word 29 never occurs and word 28 only in the first step."""
    generator = np.random.default_rng(seed)
    chosen = [np.sort(generator.choice(28, generator.integers(0, 9), replace=False)) for _ in range(STEPS)]
    chosen[0] = np.append(chosen[0], 28)
    return [
        (words.astype(np.int32), generator.normal(size=(len(words), DIMENSIONS)).astype(np.float32)) for words in chosen
    ]


def start() -> np.ndarray:
    return np.random.default_rng(9).normal(size=(WORDS, DIMENSIONS)).astype(np.float32)


def test_equals_adam_over_all_rows_at_every_step() -> None:
    table = Adam(start(), 0.01)
    weights = start().astype(np.float64)
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for number, (words, gradients) in enumerate(steps(0), start=1):
        np.testing.assert_allclose(table.rows(words), weights[words], atol=1e-5)
        table.apply(gradients, words)
        dense = np.zeros_like(weights)
        dense[words] = gradients
        first = BETA_1 * first + (1 - BETA_1) * dense
        second = BETA_2 * second + (1 - BETA_2) * dense**2
        weights -= rate(0.01, number) * first / (np.sqrt(second) + EPSILON)
    table.settle()
    np.testing.assert_allclose(table.weights, weights, atol=1e-5)
    assert (table.weights[29] == start()[29]).all()


def test_the_time_of_catching_up_changes_no_bit() -> None:
    lazy, eager = Adam(start(), 0.01), Adam(start(), 0.01)
    for words, gradients in steps(1):
        lazy.apply(gradients, words)
        eager.apply(gradients, words)
        eager.settle()
    lazy.settle()
    for one, other in ((lazy.weights, eager.weights), (lazy.first, eager.first), (lazy.second, eager.second)):
        assert one.tobytes() == other.tobytes()


def test_a_restored_table_goes_on_to_the_same_bits() -> None:
    whole, begun = Adam(start(), 0.01), Adam(start(), 0.01)
    for number, (words, gradients) in enumerate(steps(2)):
        whole.apply(gradients, words)
        begun.apply(gradients, words)
        if number == STEPS // 2:
            begun.settle()
            restored = Adam(np.zeros_like(start()), 0.01)
            restored.restore(begun.step, begun.weights, begun.first, begun.second)
            begun = restored
    whole.settle()
    begun.settle()
    assert whole.weights.tobytes() == begun.weights.tobytes()


def test_long_forgotten_momentum_becomes_nothing() -> None:
    table = Adam(start(), 0.01)
    word = np.array([5], np.int32)
    table.apply(np.ones((1, DIMENSIONS), np.float32), word)
    for _ in range(2000):
        table.apply(np.ones((1, DIMENSIONS), np.float32), np.array([6], np.int32))
    table.rows(word)
    assert not table.first[5].any()


def test_a_step_size_grows_and_falls() -> None:
    assert schedule(0.5, 100, 0, decay=False) == 0.5
    both = schedule(0.5, 10, 4, decay=True)
    assert callable(both)
    sizes = [both(step) for step in range(1, 11)]
    np.testing.assert_allclose(sizes[:5], [0.125, 0.25, 0.375, 0.5, 0.5])
    np.testing.assert_allclose(np.diff(sizes[4:]), -0.5 / 6)
    table = Adam(start(), both)
    for words, gradients in steps(0)[:1]:
        before = table.rows(words)
        table.apply(gradients, words)
        # Adam's first step is the step size, whatever the gradient.
        np.testing.assert_allclose(np.abs(table.rows(words) - before), 0.125, rtol=1e-3)
