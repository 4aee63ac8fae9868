"""What reviews and their scores look like, in counts that add up: training keeps them, scoring compares its own.

Each function bins some reviews and gives int64 [bins]; the bins are part of every bundle and ledger, and never change.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray.decision import UNSURE
from sentray.task import Task

SCORE_BINS = 20
"""Equal ones from 0 to 1, of the probability of the second of two labels, or of the best of more; of numbers equal ones
from where training says to where."""
LENGTHS = (1, *(each << power for power in range(11) for each in (2, 3)), 4096)
"""Words of a review at which its bin begins; before the first is that of reviews without a word."""
KNOWN = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0)
"""The same of the share of its words that the vocabulary has; in the last one it has all."""
COMMONEST = 200
"""So many words, the first of the vocabulary, are counted each; in the first bin are all others that it has."""
EVERY = 16
"""Of so many known words one is counted. It costs little, and words of one review, which are alike, weigh less."""
RARE = 20
"""A word that occurs more often than this is taken for one that other reviews have too."""

Counts = NDArray[np.int64]
Ints = NDArray[np.integer[Any]]


def of_scores(
    probabilities: NDArray[np.floating[Any]], task: Task = "classification", span: tuple[float, float] | None = None
) -> Counts:
    """Reviews by a probability, given that of each label, [reviews, labels]; or by a number, [reviews, 1].

    Args:
        probabilities: Of the reviews.
        task: What is asked.
        span: Of a regression, where the bins begin and end; the outer ones hold what lies beyond. Without it none does.
    """
    if task == "regression":
        values = np.clip(probabilities[:, 0], *span) if span else probabilities[:0, 0]
        return np.histogram(values, SCORE_BINS, span or (0, 1))[0]
    two = task == "classification" and probabilities.shape[1] == 2
    binned = probabilities[:, 1] if two else probabilities.max(axis=1)
    return np.histogram(binned, SCORE_BINS, (0, 1))[0]


def span_of(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """Where the bins of a regression's numbers begin and end: it holds all but the outermost hundredths of these."""
    low, high = np.percentile(values, [1, 99]).tolist()
    return low, high if high > low else low + 1


def of_labels(decided: NDArray[Any], labels: int) -> Counts:
    """Reviews by the label they got, int64 [labels]; those that got none are in none of the bins.

    Args:
        decided: Position of each review's label, [reviews], or whether it got each label, [reviews, labels].
        labels: How many there are.
    """
    if decided.ndim == 2:
        return np.asarray(decided.sum(axis=0, dtype=np.int64))
    return np.bincount(decided[decided != UNSURE], minlength=labels)


def of_lengths(words: Ints) -> Counts:
    """Reviews by how many words each has."""
    return np.bincount(np.searchsorted(LENGTHS, words, "right"), minlength=len(LENGTHS) + 1)


def of_known(words: Ints, known: Ints) -> Counts:
    """Reviews by the share of their words that are known; of no word it is 0."""
    shares = known / np.maximum(words, 1)
    return np.bincount(np.searchsorted(KNOWN, shares, "right"), minlength=len(KNOWN) + 1)


def of_words(ids: Ints) -> Counts:
    """How often each of the commonest words is among the word ids of reviews, of which one in `EVERY` is looked at."""
    some = ids[::EVERY]
    found = np.bincount(some[some <= COMMONEST], minlength=COMMONEST + 1)
    found[0] = len(some) - found.sum()
    return found


def strange_to_others(ids: Ints, offsets: Ints, counts: Ints, least: int) -> Counts:
    """How many of each review's words a vocabulary of all other reviews would not have, int64 [reviews].

    A vocabulary has a rare word because of the very reviews that it was made of; but for these words they know as many
    as new reviews do.

    Args:
        ids: Ids of the reviews' words, one review after the other.
        offsets: Where each begins, and the end of the last; [reviews + 1].
        counts: How often each id occurs in all reviews, by id.
        least: Occurrences that bring a word into the vocabulary.
    """
    reviews, size = len(offsets) - 1, len(counts)
    rare = np.flatnonzero(counts[ids] < RARE + least)
    review_of = np.searchsorted(offsets, rare, "right") - 1
    words, here = np.unique(review_of * np.int64(size) + ids[rare], return_counts=True)
    review, word = np.divmod(words, size)
    strange = np.where(counts[word].astype(np.int64) - here < least, here, 0)
    return np.bincount(review, strange, reviews).astype(np.int64)
