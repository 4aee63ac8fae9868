"""What is asked of a review: outputs wanted, and the probabilities that they become."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sentray import task


@settings(deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(0, 1, width=32)))
def test_probabilities_of_steps_are_probabilities(found: np.ndarray) -> None:
    probabilities = task.probabilities("ordinal", found)
    assert probabilities.shape == (len(found), found.shape[1] + 1)
    assert (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("labels", [2, 3, 10])
def test_a_network_that_is_right_gives_the_labels_wanted(labels: int) -> None:
    steps = np.arange(labels, dtype=np.int32)
    found = task.probabilities("ordinal", task.wanted("ordinal", steps, labels))
    np.testing.assert_array_equal(found, np.eye(labels))
    flags = np.eye(labels, dtype=np.uint8)
    np.testing.assert_array_equal(task.probabilities("multilabel", task.wanted("multilabel", flags, labels)), flags)
    numbers = np.array([1.5, -2], np.float32)
    np.testing.assert_array_equal(task.wanted("regression", numbers, 0), [[1.5], [-2]])


def test_labels_as_one_string() -> None:
    assert [task.split(task.join(labels)) for labels in (["b", "a", "b"], [], ["a b"])] == [["a", "b"], [], ["a b"]]
