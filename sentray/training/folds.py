"""Which training rows are held out of which fit: `hold_out` deals them."""

import numpy as np
from numpy.typing import NDArray

from sentray.corpus.rows import Hashes

NEVER = 255
"""Stands for the fold of a row that no fit leaves out."""
SMALL, FOLDS = 5000, 5
"""With fewer rows each is held out once, by one of so many folds: a tenth of them would say little."""

Folds = NDArray[np.uint8]


def hold_out(keys: Hashes, given: NDArray[np.bool_], fraction: float, refit: bool = True) -> Folds:
    """The fold that holds each row out, or `NEVER`; uint8 [rows].

    Rows that are given as validation rows are the one fold. Else whole groups are dealt in the order of their keys: to
    five folds where there are few rows, or else about a fraction of the rows to one.

    Args:
        keys: Of the rows' groups, spread evenly, such as hashes of their texts; those of a group are equal. [rows]
        given: Which rows are given as validation rows.
        fraction: Share of the rows to hold out; 0 for none, whatever is given.
        refit: Whether the last fit sees the rows that were held out. Where it does not, there is but one fold.
    """
    rows = len(keys)
    folds = np.full(rows, NEVER, np.uint8)
    if not fraction:
        return folds
    if given.any():
        folds[given] = 0
        return folds
    # How much of the rows lies before a row's group.
    before = np.searchsorted(np.sort(keys), keys) / max(rows, 1)
    if rows < SMALL and refit:
        _, numbers = np.unique((before * FOLDS).astype(np.uint8), return_inverse=True)
        return numbers.astype(np.uint8)
    folds[before < fraction] = 0
    return folds
