"""Drift: how far scored reviews differ from those that the bundle was trained on, each of a few things by itself.

What training saw is the bundle's `metrics["reference"]`; what scoring sees it counts as it goes, in the same bins.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import FiniteFloat
from pydantic.dataclasses import dataclass

from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.scoring.stats import Counts, KnownBins, LengthsBins, Number, ScoresBins, WordsBins
from sentray.task import NO_LABEL

SOME, MUCH = 0.1, 0.25
"""Population stability indices from which two samples differ somewhat, and much: the usual ones (Siddiqi, "Credit Risk
Scorecards", 2006)."""
BY_CHANCE = 0.001
"""Of so many comparisons of two samples of the same reviews one is taken for a difference, or for one sample."""
MIN_BINS, MIN_PER_BIN = 5, 20
"""Two samples are found to be one only in so many bins, with so many observations for each: few may well be alike."""
SEEN = (
    "these reviews are for the most part those that the bundle was trained on: it scores them more surely than others, "
    "and no drift can be told"
)
NAMES = {
    "scores": "scores",
    "labels": "labels",
    "lengths": "lengths",
    "known": "words known",
    "words": "common words",
}
"""What is compared, and what it is called."""
UNKNOWN = "drift is not known: the bundle was made by an earlier version and does not say; train again to have it"
COUNTED_BEFORE = (
    "drift is not known: an earlier version scored a part of this output and did not count what it needs; score to "
    "another --out to have it"
)

Drift = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Reference:
    """What the training reviews and their scores look like: `metrics["reference"]` of a bundle.

    Attributes:
        lengths: Training reviews by their words; see `profile.of_lengths`.
        known: The same by the share of their words that is known; see `profile.of_known`.
        words: Their commonest words; see `profile.of_words`. None where words are hashed.
        scores: Held-out reviews by a probability, by a fit that did not see them; see `profile.of_scores`. None where
            none were held out.
        labels: The same by the label they got; those that got none are missing. Of several labels a review counts for
            each, and one without any for `NO_LABEL`.
        rows: How many training reviews there are.
        scored_rows: How many held-out reviews.
        of: Which rows these are, in words.
        span: Of a regression, where the bins of `scores` begin and end.
    """

    lengths: LengthsBins
    known: KnownBins
    words: WordsBins | None
    scores: ScoresBins | None
    labels: dict[str, Number] | None
    rows: Number
    scored_rows: Number
    of: dict[str, str]
    span: tuple[FiniteFloat, FiniteFloat] | None = None

    def __post_init__(self) -> None:
        if self.span is not None and not self.span[0] < self.span[1]:
            raise ValueError("its span ends before it begins")


def reference_of(model: Bundle) -> Reference | None:
    """What a bundle is compared by; None where an earlier version made it.

    Raises:
        SentrayError: It is damaged.
    """
    found = model.metrics.get("reference")
    try:
        return None if found is None else Reference(**found)
    except (ValueError, TypeError) as error:
        raise SentrayError(
            f"{model} says nothing readable of its training reviews (metrics.reference): train again"
        ) from error


def compare(reference: Reference | None, counts: Counts, labels: Sequence[str]) -> Drift | None:
    """What differs and how far, by name; see `difference`.

    Args:
        reference: Of the bundle, if it has one.
        counts: Of the scored rows.
        labels: The bundle's.

    Returns:
        None where there is nothing to compare with, or an earlier version counted some of the rows. What the bundle
        does not know is left out. Where the rows are those of training, `differs` is `seen`.
    """
    if reference is None or sum(counts.lengths) < counts.scored:
        return None
    samples: dict[str, tuple[Sequence[int] | None, Sequence[int]]] = {
        "scores": (reference.scores, counts.histogram),
        "labels": (
            None if reference.labels is None else labelled(reference.labels, reference.scored_rows, labels),
            labelled(counts.labels, counts.scored, labels),
        ),
        "lengths": (reference.lengths, counts.lengths),
        "known": (reference.known, counts.known_shares),
        "words": (reference.words, counts.commonest),
    }
    found = {
        name: difference(expected, found)
        for name, (expected, found) in samples.items()
        if expected is not None and any(expected) and any(found)
    }
    # Of the words each side counts other ones.
    if "lengths" in found and is_one(reference.lengths, counts.lengths):
        found = {name: figures | {"differs": "seen"} for name, figures in found.items()}
    return found


def is_one(expected: Sequence[int], found: Sequence[int]) -> bool:
    """Whether two samples are more alike than chance makes them, so that they have most of their reviews in common."""
    p, q = _used(expected, found)
    few = min(p.sum(), q.sum()) < MIN_PER_BIN * len(p)
    return len(p) >= MIN_BINS and not few and psi(expected, found) < _chance(p, q, 1 - BY_CHANCE)


def difference(expected: Sequence[int], found: Sequence[int]) -> dict[str, Any]:
    """How far two samples differ.

    Returns:
        `psi`, `jensen_shannon`, `by_chance`, the index that two samples of these sizes from the same reviews exceed
        once in `1 / BY_CHANCE` times, and `differs`: `no`, `somewhat` or `much`. The usual thresholds count from what
        chance can do, so that a hundred reviews do not differ by being few.
    """
    index, chance = psi(expected, found), psi_by_chance(expected, found)
    differs = "much" if index >= chance + MUCH else "somewhat" if index >= chance + SOME else "no"
    figures = {"psi": index, "jensen_shannon": jensen_shannon(expected, found), "by_chance": chance}
    return {**{name: round(figure, 6) for name, figure in figures.items()}, "differs": differs}


def psi(expected: Sequence[int], found: Sequence[int]) -> float:
    """Population stability index of two samples in bins: the sum of `(p - q) ln(p / q)`, the same either way round.

    It is Jeffreys' divergence (1946). An empty bin would make it infinite: each sample gets half an observation a bin,
    spread over the bins as both samples together are, so that a bin which is rare in both adds next to nothing.
    """
    return float(psi_parts(expected, found).sum())


def psi_parts(expected: Sequence[int], found: Sequence[int]) -> NDArray[np.float64]:
    """What each bin adds to `psi`."""
    p, q = np.array(expected, np.float64), np.array(found, np.float64)
    used = p + q > 0
    pooled = (p + q) / (p + q).sum()
    half = used.sum() / 2
    p, q = ((each + pooled * half) / (each.sum() + half) for each in (p, q))
    parts: NDArray[np.float64] = (p - q) * np.log(np.divide(p, q, out=np.ones_like(p), where=used))
    return parts


def psi_by_chance(expected: Sequence[int], found: Sequence[int]) -> float:
    """The index that two samples of one population exceed with the probability `BY_CHANCE`.

    The index times `n m / (n + m)` follows about the chi-squared distribution of one degree of freedom fewer than there
    are bins (Yurdakul, "Statistical Properties of Population Stability Index", 2018).
    """
    p, q = _used(expected, found)
    # One bin cannot differ.
    return _chance(p, q, BY_CHANCE) if len(p) > 1 else 0.0


def _chance(p: NDArray[np.float64], q: NDArray[np.float64], probability: float) -> float:
    """What the index of two samples of one population exceeds with a probability."""
    from scipy.special import chdtri

    return float(chdtri(len(p) - 1, probability)) * float(1 / p.sum() + 1 / q.sum())


def jensen_shannon(expected: Sequence[int], found: Sequence[int]) -> float:
    """Jensen-Shannon divergence of two samples in bins, in bits: from 0 to 1 (Lin 1991)."""
    from scipy.special import rel_entr

    p, q = (each / each.sum() for each in _used(expected, found))
    middle = (p + q) / 2
    return float((rel_entr(p, middle).sum() + rel_entr(q, middle).sum()) / 2 / np.log(2))


def sentence(drift: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What to tell the user of what `compare` found; None where nothing differs."""
    if any(found["differs"] == "seen" for found in drift.values()):
        return SEEN
    much, some = (
        ", ".join(f"{NAMES[name]} (PSI {drift[name]['psi']:.2f})" for name in NAMES if _is(drift, name, differs))
        for differs in ("much", "somewhat")
    )
    if not much and not some:
        return None
    line = f"are not like those trained on: {much}" if much else f"differ somewhat from those trained on: {some}"
    return f"these reviews {line}{f', somewhat also {some}' if much and some else ''}"


def is_much(drift: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether anything differs much."""
    return any(found["differs"] == "much" for found in drift.values())


def _is(drift: Mapping[str, Mapping[str, Any]], name: str, differs: str) -> bool:
    return name in drift and drift[name]["differs"] == differs


def labelled(rows: Mapping[str, int], total: int, labels: Sequence[str]) -> list[int]:
    """Rows of each label, and those without one; of several labels a row counts for each."""
    found = [rows.get(label, 0) for label in labels]
    return [*found, rows.get(NO_LABEL, max(0, total - sum(found)))]


def _used(expected: Sequence[int], found: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two samples without the bins that are empty in both."""
    p, q = (np.array(each, np.float64) for each in (expected, found))
    used = p + q > 0
    return p[used], q[used]
