"""`LossWatch`: notices within some hundred steps that a network does not learn."""

import math

SPAN = 200
"""Steps whose mean loss is looked at."""
_DIVERGED = 1.5
_STANDS_STILL = 0.995


class LossWatch:
    """Looks at the loss of every step, the first steps' above all.

    Args:
        chance: Mean loss of a network that knows the labels' shares and nothing else (their entropy).
    """

    def __init__(self, chance: float) -> None:
        self._chance, self._sum, self._steps, self._started = chance, 0.0, 0, False

    def add(self, loss: float) -> str | None:
        """Take a step's mean loss.

        Returns:
            What is wrong, at the end of 200 steps: the loss is no number or far above chance, or it has not got below
            chance yet. A loss that got below and moves no more is done, not stuck.
        """
        self._sum, self._steps = self._sum + loss, self._steps + 1
        if self._steps % SPAN and math.isfinite(loss):
            return None
        mean, self._sum = self._sum / ((self._steps - 1) % SPAN + 1), 0.0
        about = f"its loss over {SPAN} steps is {mean:.3f}, that of guessing {self._chance:.3f}"
        if not mean <= _DIVERGED * self._chance:
            return f"it diverges at step {self._steps:,}: {about}"
        self._started |= mean < _STANDS_STILL * self._chance
        return None if self._started else f"it has not begun to learn after {self._steps:,} steps: {about}"
