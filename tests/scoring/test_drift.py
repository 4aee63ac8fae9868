"""Drift in figures: against numbers by hand and SciPy's, and on samples of one population, which do not differ."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2

from sentray import bundle
from sentray.bundle import ModelSpec
from sentray.errors import SentrayError
from sentray.scoring import drift
from sentray.scoring.drift import Reference, compare, difference, jensen_shannon, psi, psi_by_chance
from sentray.scoring.stats import Counts
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary

SAMPLES = st.integers(2, 12).flatmap(
    lambda bins: st.tuples(*2 * [st.lists(st.integers(0, 10**6), min_size=bins, max_size=bins)])
)


def test_the_index_is_as_by_hand() -> None:
    # Half an observation a bin, spread as 300 and 100 of 400: 200.75 of 201 and 100.25 of 201.
    p, q = (100 + 0.75, 100 + 0.25), (200 + 0.75, 0 + 0.25)
    wanted = sum((a / 201 - b / 201) * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert psi([100, 100], [200, 0]) == pytest.approx(wanted)
    # Of many rows the half does not show: (0.8 - 0.5) ln(0.8 / 0.5) + (0.2 - 0.5) ln(0.2 / 0.5).
    assert psi([500_000, 500_000], [800_000, 200_000]) == pytest.approx(0.415888, abs=1e-4)
    assert psi([5, 0, 7], [50, 0, 70]) == pytest.approx(0)


@settings(max_examples=60)
@given(SAMPLES)
def test_figures_hold_for_any_two_samples(samples: tuple[list[int], list[int]]) -> None:
    expected, found = samples
    assume(any(expected) and any(found))
    assert psi(expected, found) == pytest.approx(psi(found, expected), abs=1e-12)
    assert -1e-12 <= psi(expected, found) < 40
    # SciPy's is the root of the divergence; of samples that are nearly alike it loses more digits.
    assert jensen_shannon(expected, found) == pytest.approx(jensenshannon(expected, found, 2) ** 2, abs=1e-9)
    bins = sum(a + b > 0 for a, b in zip(expected, found, strict=True))
    if bins > 1:
        quantile = chi2.ppf(1 - drift.BY_CHANCE, bins - 1)
        assert psi_by_chance(expected, found) == pytest.approx(quantile * (1 / sum(expected) + 1 / sum(found)))


SHAPES = {
    "two labels": [0.9, 0.1],
    "scores": [0.3, *[0.02] * 18, 0.34],
    "lengths": [1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.4, 0.3, 0.03, 0.005, 1e-3, 1e-4, 1e-5, 1e-6],
    "words": [3, *(1 / np.arange(5, 205))],
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 20, 100, 1000, 50_000])
@pytest.mark.parametrize("known", [100, 2000])
def test_samples_of_one_population_do_not_differ(shape: str, rows: int, known: int) -> None:
    generator = np.random.default_rng(0)
    shares = np.array(SHAPES[shape]) / np.sum(SHAPES[shape])
    tries = 200
    alarms = sum(
        difference(*(generator.multinomial(size, shares).tolist() for size in (known, rows)))["differs"] != "no"
        for _ in range(tries)
    )
    assert alarms <= 0.01 * tries


@pytest.mark.parametrize(("rows", "differs"), [(3, "no"), (100, "much"), (100_000, "much")])
def test_other_scores_are_seen_in_a_hundred_rows(rows: int, differs: str) -> None:
    shares = np.array(SHAPES["scores"])
    expected = (2000 * shares).tolist()
    found = np.random.default_rng(0).multinomial(rows, np.ones(20) / 20).tolist()
    assert difference([round(each) for each in expected], found)["differs"] == differs


def test_reviews_of_training_are_known_by_being_too_much_alike() -> None:
    generator = np.random.default_rng(0)
    shares = [0.02, 0.05, 0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.03]
    found_again = 0
    for _ in range(100):
        trained, others, more = (generator.multinomial(rows, shares) for rows in (1800, 2000, 200))
        assert drift.is_one(trained.tolist(), trained.tolist())
        found_again += drift.is_one(trained.tolist(), (trained + more).tolist())
        assert not drift.is_one(trained.tolist(), others.tolist())
    assert found_again > 80
    # So few may well be alike.
    assert not drift.is_one([5] * 9, [5] * 9)
    assert not drift.is_one([500] * 2, [500] * 2)
    known = Reference(**asdict(REFERENCE) | {"lengths": [80] * 25})
    found = compare(known, counts(lengths=[40] * 25, histogram=[500] + [0] * 18 + [500]), LABELS)
    assert found is not None
    assert {figures["differs"] for figures in found.values()} == {"seen"}
    assert (drift.sentence(found), drift.is_much(found)) == (drift.SEEN, False)


def counts(**changes: Any) -> Counts:
    """Of 1,000 rows that are as `REFERENCE` says."""
    values: dict[str, Any] = {
        "labels": {"neg": 500, "pos": 500},
        "histogram": [50] * 20,
        "lengths": [0] * 6 + [520, 480] + [0] * 17,
        "known_shares": [0] * 5 + [900, 100],
        "commonest": [6000] + [20] * 200,
    }
    return Counts(1000, 1000, {}, **values | changes)


REFERENCE = Reference(
    lengths=[0] * 6 + [1000, 1000] + [0] * 17,
    known=[0] * 5 + [1800, 200],
    words=[12_000] + [40] * 200,
    scores=[100] * 20,
    labels={"neg": 1000, "pos": 1000},
    rows=2000,
    scored_rows=2000,
    of={"reviews": "the training rows"},
)
LABELS = ("neg", "pos")


def test_each_thing_is_compared_by_itself() -> None:
    alike = compare(REFERENCE, counts(), LABELS)
    assert alike is not None
    assert list(alike) == list(drift.NAMES)
    assert {figures["differs"] for figures in alike.values()} == {"no"}
    assert (drift.sentence(alike), drift.is_much(alike)) == (None, False)

    changed = {
        "lengths": {"lengths": [0, 0, 1000] + [0] * 22},
        "known": {"known_shares": [100] * 5 + [400, 100]},
        "words": {"commonest": [6000] + [40] * 100 + [0] * 100},
        "scores": {"histogram": [0] * 10 + [100] * 10},
        "labels": {"labels": {"neg": 10, "pos": 990}},
    }
    for name, change in changed.items():
        found = compare(REFERENCE, counts(**change), LABELS)
        assert found is not None
        assert [each for each, figures in found.items() if figures["differs"] == "much"] == [name]
        assert drift.is_much(found)
    # Rows without a label are a label of their own.
    unsure = compare(REFERENCE, counts(labels={"neg": 250, "pos": 250}), LABELS)
    assert unsure is not None
    assert unsure["labels"]["differs"] == "much"


def test_what_differs_is_one_sentence() -> None:
    found = compare(REFERENCE, counts(labels={"neg": 10, "pos": 990}, histogram=[25, 75] * 10), LABELS)
    assert found is not None
    assert drift.sentence(found) == (
        f"these reviews are not like those trained on: labels (PSI {found['labels']['psi']:.2f}), somewhat also scores "
        f"(PSI {found['scores']['psi']:.2f})"
    )
    found = compare(REFERENCE, counts(histogram=[25, 75] * 10), LABELS)
    assert found is not None
    assert drift.sentence(found) == "these reviews differ somewhat from those trained on: scores (PSI 0.27)"


def test_what_is_not_known_is_left_out() -> None:
    hashed = Reference(**asdict(REFERENCE) | {"words": None, "scores": None, "labels": None})
    found = compare(hashed, counts(), LABELS)
    assert found is not None
    assert list(found) == ["lengths", "known"]
    assert compare(None, counts(), LABELS) is None
    assert compare(REFERENCE, Counts(10, 10, {}, {"neg": 10}), LABELS) is None
    assert compare(REFERENCE, Counts.none(), LABELS) == {}


def test_the_reference_is_read_from_the_bundle() -> None:
    words = Vocabulary(["good"])
    spec = ModelSpec.of(words, architecture="a.v1", cleaning=preset("reviews")[0], labels=LABELS, max_length=5)
    made = bundle.make(spec, words, {bundle.MODEL: b""})
    assert drift.reference_of(made) is None
    known = bundle.update(made, metrics={"reference": asdict(REFERENCE)})
    assert drift.reference_of(known) == REFERENCE
    for wrong in (7, {"rows": 1}, asdict(REFERENCE) | {"lengths": [-1]}):
        with pytest.raises(SentrayError, match=r"metrics.reference.*train again"):
            drift.reference_of(bundle.update(made, metrics={"reference": wrong}))
