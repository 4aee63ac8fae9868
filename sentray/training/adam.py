"""`Adam` over arrays in memory, whose rows are brought up to date as they are needed; `TableAndDense` has two of them.

Adam moves every row at every step, by its momentum, whether the batch holds the word or not. Done at once for
25,767 words by TensorFlow's fused operation that took 8 to 14 ms a step, most of it waiting for memory, and two workers
waited for each other's memory traffic. Here a row's missed steps are made up for when its word comes again, while the
row is in the cache: the same operations on the same numbers in the same order, so the result is the same, at 3 to 5 ms.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray.text.simd import contracted
from sentray.training.gradients import Gradients

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
"""Adam as Keras sets it (Kingma and Ba 2015, section 2)."""

_ONE_LESS_BETA_1, _ONE_LESS_BETA_2 = np.float32(1 - BETA_1), np.float32(1 - BETA_2)
_EPSILON = np.float32(EPSILON)
# Moments below these count as 0: no weight can feel them, and the processor is slow at subnormal numbers.
_MIN_FIRST, _MIN_SECOND = np.float32(1e-30), np.float32(1e-36)

Floats = NDArray[np.float32]


Rate = float | Callable[[int], float]
"""A step size, or a function that gives that of each step, from 1."""


def schedule(size: float, steps: int, warmup: int, decay: bool) -> Rate:
    """A step size that grows over the first steps and, after them, falls to 0.

    Args:
        size: The largest.
        steps: Of the whole training.
        warmup: Steps over which it grows to the largest; 0 for none.
        decay: Whether it falls then, linearly.
    """
    if not warmup and not decay:
        return size

    def at(step: int) -> float:
        left = 1 - (step - 1 - warmup) / max(steps - warmup, 1) if decay else 1.0
        return size * max(min(step / max(warmup, 1), left, 1), 0)

    return at


def rate(learning_rate: Rate, step: int) -> np.float32:
    """Adam's step size at a step (from 1), the correction of both moments' bias included."""
    learning_rate = learning_rate(step) if callable(learning_rate) else learning_rate
    return np.float32(learning_rate * np.sqrt(1 - BETA_2**step) / (1 - BETA_1**step))


class Adam:
    """Weights float32 [rows, n] and their moments; some of the rows get a gradient at a step.

    Args:
        weights: First values; taken over, not copied.
        learning_rate: Adam's step size, or its schedule; None leaves the weights as they are.

    Attributes:
        step: Steps done.
        frozen: Whether the weights stay as they are.
    """

    def __init__(self, weights: Floats, learning_rate: Rate | None) -> None:
        self.weights, self.step, self.frozen = weights, 0, learning_rate is None
        self._learning_rate = learning_rate or 0.0
        if not self.frozen:
            self.first, self.second = np.zeros_like(weights), np.zeros_like(weights)
            self._updated = np.zeros(len(weights), np.int64)
            self._rates = np.zeros(1, np.float32)

    def rows(self, which: NDArray[np.int32]) -> Floats:
        """These rows as of now; float32 [len(which), n], a copy."""
        self._catch_up(which)
        return self.weights[which]

    def apply(self, gradients: Floats, which: NDArray[np.int32]) -> None:
        """Take a step.

        Args:
            gradients: float32 [len(which), n]; those of all other rows are 0.
            which: int32, rows, each once.
        """
        self._catch_up(which)
        self.step += 1
        if self.frozen:
            return
        if self.step == len(self._rates):
            steps = range(self.step, 2 * self.step)
            self._rates = np.append(self._rates, [rate(self._learning_rate, step) for step in steps])
        self._updated[which] = self.step
        _apply(self.weights, self.first, self.second, gradients, which, self._rates[self.step])

    def settle(self) -> None:
        """Bring every row up to date."""
        self._catch_up(np.arange(len(self.weights), dtype=np.int32))

    def state(self) -> dict[str, Floats]:
        """The weights and both moments as of now, by name; nothing where they are frozen: whoever goes on has them."""
        self.settle()
        return {} if self.frozen else {"weights": self.weights, "first": self.first, "second": self.second}

    def restore(self, step: int, *arrays: Floats) -> None:
        """Go back to an earlier state: the step, and the values of `state` in their order."""
        self.step = step
        if self.frozen:
            return
        self.weights[:], self.first[:], self.second[:] = arrays
        # Rows that never got a gradient have no moments yet.
        self._updated[:] = np.where(self.first.any(axis=1) | self.second.any(axis=1), step, 0)
        self._rates = np.array([0, *(rate(self._learning_rate, done + 1) for done in range(step))], np.float32)

    def _catch_up(self, which: NDArray[np.int32]) -> None:
        if not self.frozen:
            _catch_up(self.weights, self.first, self.second, which, self._updated, self._rates, self.step)


class TableAndDense:
    """Weights in training: a table, of which a step moves some rows, and all others laid side by side.

    Args:
        embedding: The table.
        dense: The others, as one row, which gets a gradient at every step.
        first: How many of them are the first layer's.

    Attributes:
        embedding: The table.
        dense: The others.
    """

    def __init__(self, embedding: Adam, dense: Adam, first: int) -> None:
        self.embedding, self.dense, self._first = embedding, dense, first

    def apply(self, gradients: Gradients) -> bool:
        """Take one step of Adam with the global batch's gradients.

        Returns:
            Whether the first layer behind the words' vectors got a gradient at all. It gets none once all units of a
            layer are dead.
        """
        self.embedding.apply(gradients.values, gradients.rows)
        self.dense.apply(gradients.dense[None], np.zeros(1, np.int32))
        return bool(gradients.dense[: self._first].any())

    def constants(self) -> list[NDArray[Any]]:
        """What training does not change: the vectors where they are frozen."""
        return [self.embedding.weights] if self.embedding.frozen else []

    def state(self) -> dict[str, NDArray[Any]]:
        """All that training changes, by name: weights and Adam's two moments, and the number of steps."""
        state: dict[str, NDArray[Any]] = {"step": np.array(self.embedding.step)}
        for name, part in self._adams.items():
            state |= {f"{name}_{kind}": values for kind, values in part.state().items()}
        return state

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go back to a state that `state` gave."""
        for name, part in self._adams.items():
            part.restore(int(state["step"]), *(state[f"{name}_{kind}"] for kind in part.state()))

    @property
    def _adams(self) -> dict[str, Adam]:
        return {"embedding": self.embedding, "dense": self.dense}


@contracted
def _move(w: Floats, m: Floats, v: Floats, g: Floats, size: np.float32) -> None:
    for i in range(len(w)):
        m_i = m[i] + (g[i] - m[i]) * _ONE_LESS_BETA_1
        v_i = v[i] + (g[i] * g[i] - v[i]) * _ONE_LESS_BETA_2
        m[i] = m_i if abs(m_i) > _MIN_FIRST else np.float32(0)
        v[i] = v_i if v_i > _MIN_SECOND else np.float32(0)
        w[i] -= size * m[i] / (np.sqrt(v[i]) + _EPSILON)


@contracted
def _apply(
    weights: Floats, first: Floats, second: Floats, gradients: Floats, which: NDArray[np.int32], size: np.float32
) -> None:
    for number in range(len(which)):
        row = which[number]
        _move(weights[row], first[row], second[row], gradients[number], size)


@contracted
def _catch_up(
    weights: Floats,
    first: Floats,
    second: Floats,
    which: NDArray[np.int32],
    updated: NDArray[np.int64],
    rates: Floats,
    step: int,
) -> None:
    nothing = np.zeros(weights.shape[1], np.float32)
    for row in which:
        # A row without any update has no momentum yet.
        if updated[row] == 0:
            continue
        for missed in range(updated[row] + 1, step + 1):
            _move(weights[row], first[row], second[row], nothing, rates[missed])
        updated[row] = step
