"""When a head of a network has trained enough, judged by the losses of rows that its fit did not see."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WORSE = 1.1
"""A loss on held-out rows that rises to so much of its least value is worth a warning."""


def has_ended(done: int, most: int, losses: Sequence[float] = (), patience: int = 0) -> bool:
    """Whether a head trains no further.

    Args:
        done: Epochs done.
        most: Epochs that it may train.
        losses: Its loss on held-out rows after each epoch done; none where the loss does not matter.
        patience: Epochs without a lower loss after which it ends.
    """
    return done >= most or (bool(losses) and done - best_epoch([losses], [1]) >= patience)


def best_epoch(losses: Sequence[Sequence[float]], rows: Sequence[int], fixed: int | None = None) -> int:
    """The epoch, from 1, after which the loss of all folds' rows together is least, among those that all folds reached.

    Args:
        losses: Of each fold, after each epoch done.
        rows: Held out by each fold.
        fixed: Epochs of a fixed schedule, which is taken to its end.
    """
    if fixed is not None:
        return fixed
    reached = min(map(len, losses))
    total = np.average([each[:reached] for each in losses], axis=0, weights=rows)
    # What is no number is worse than any.
    return int(np.argmin(np.where(np.isnan(total), np.inf, total))) + 1


def parted(records: Sequence[Mapping[str, Any]], patience: int) -> str | None:
    """A warning where training and held-out rows part in a fit: the loss falls of those and rises of these.

    Args:
        records: Of the fit's epochs.
        patience: Epochs that a head trains after its best one.
    """
    scored = [record for record in records if "held_out" in record]
    for head in scored[0]["held_out"] if scored else ():
        best = best_epoch([[record["held_out"][head] for record in scored]], [1])
        then, now = scored[best - 1], scored[min(best + patience, len(scored)) - 1]
        if now["held_out"][head] > WORSE * then["held_out"][head] and now["loss"] < then["loss"]:
            return (
                f"warning: training and held-out rows part after epoch {best}: the loss of training rows falls from "
                f"{then['loss']:.4f} to {now['loss']:.4f}, that of held-out rows rises from "
                f"{then['held_out'][head]:.4f} to {now['held_out'][head]:.4f}; more epochs would learn the training "
                "rows by heart"
            )
    return None
