"""The end of a scoring job in numbers that a user understands."""

import re
from typing import Any

import pytest

from sentray import tables
from sentray.console import Console

SUMMARY: dict[str, Any] = {
    "rows": 1000,
    "rows_scored": 990,
    "rows_quarantined": 10,
    "quarantined": {"null_text": 7, "crash": 3},
    "labels": {"neg": 330, "pos": 660},
    "score_histogram": [330] + [0] * 18 + [660],
    "words": 9000,
    "known_words": 8100,
    "spaced_words": 10_000,
    "rows_without_words": 2,
    "rows_without_known_words": 3,
    "coverage": 0.9,
    "training_coverage": 0.96,
    "rows_per_s": 20000.0,
    "mb_per_s": 78.5,
    "workers": 2,
    "start_seconds": 7.04,
    "core_hours": 0.5,
    "core_hours_per_million": 0.02,
}


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    def show(known: tuple[str, ...] = ("neg", "pos"), **changes: Any) -> list[str]:
        tables.scores(Console(), SUMMARY | changes, known)
        return capsys.readouterr().out.splitlines()

    return show


def test_shows_rows_labels_scores_and_speed(shown: Any) -> None:
    assert shown() == [
        "",
        "              rows",
        "rows         1,000  100.0%",
        "scored         990   99.0%",
        "  as neg       330   33.3%",
        "  as pos       660   66.7%",
        "quarantined     10    1.0%",
        "  null_text      7    0.7%",
        "  crash          3    0.3%",
        "",
        "probability of pos  rows",
        f"0.00 to 0.05         330  {'#' * 20}",
        *(f"{index / 20:.2f} to {(index + 1) / 20:.2f}           0" for index in range(1, 19)),
        f"0.95 to 1.00         660  {'#' * 40}",
        "",
        "the cleaning leaves 90.0% of the words and 2 of 990 reviews without any",
        "3 of 990 rows have no word that the bundle knows, and get the score of an empty text",
        "words known: 90.0%, of the training reviews' 96.0%",
        "20,000 reviews/s and 78.5 MB/s with 2 workers, after 7.0 s to start",
        "30 core-minutes, 1.2 core-minutes a million reviews",
    ]


@pytest.mark.parametrize(
    ("coverage", "trained", "warns"),
    [(0.9, 0.96, False), (0.7, 0.96, True), (0.7, None, False), (0.3, None, True), (None, 0.96, False)],
)
def test_warns_of_words_that_the_bundle_does_not_know(
    shown: Any, coverage: float | None, trained: float | None, warns: bool
) -> None:
    lines = shown(coverage=coverage, training_coverage=trained)
    assert any(line.startswith("warning: the bundle knows so few") for line in lines) is warns


def test_warns_of_words_that_cleaning_drops(shown: Any) -> None:
    lines = shown(words=1800, rows_without_words=150, rows_without_known_words=150)
    assert (
        "warning: the cleaning leaves 18.0% of the words and 150 of 990 reviews without any; a bundle trained with "
        "--cleaning unicode keeps them" in lines
    )


def test_shows_no_bin_that_the_best_of_several_probabilities_cannot_be_in(shown: Any) -> None:
    def bins(labels: tuple[str, ...], *filled: int) -> list[str]:
        histogram = [int(index in filled) for index in range(20)]
        lines = shown(labels, labels={}, score_histogram=histogram)
        return [line[:12] for line in lines if re.match(r"\d\.\d\d to ", line)]

    assert bins(("bad", "fine", "good"), 19)[:2] == ["0.30 to 0.35", "0.35 to 0.40"]
    assert len(bins(tuple("abcd"), 19)) == 15
    # A label of twenty has just that probability, or a rounding less.
    assert len(bins(tuple("abcdefghijklmnopqrst"), 0)) == 20


def test_nothing_scored(shown: Any) -> None:
    nothing = {"rows": 0, "rows_scored": 0, "rows_quarantined": 0, "quarantined": {}, "labels": {}, "rows_per_s": 0.0}
    nothing |= {"spaced_words": 0, "words": 0, "known_words": 0, "rows_without_words": 0, "rows_without_known_words": 0}
    empty = {"score_histogram": [0] * 20, "coverage": None, "core_hours_per_million": None}
    lines = shown(("bad", "fine", "good"), **nothing, **empty)
    assert "rows            0" in lines
    assert "  as fine       0" in lines
    assert "probability of the label  rows" in lines


def test_trials_are_shown_with_what_the_best_gained(capsys: pytest.CaptureFixture[str]) -> None:
    about = {"epochs": 4, "seconds": 7, "error": "", "rows": 100, "folds": 1}
    ended = {"status": "ended", "intervals": {"log_loss": [0.3, 0.5], "accuracy": [0.7, 0.9]}}
    best = about | ended | {"number": 3, "settings": {"batch_size": 16}, "loss": 0.4, "accuracy": 0.81}
    own = about | ended | {"number": 1, "settings": {}, "loss": 0.41, "accuracy": 0.8}
    stopped = best | {"number": 4, "status": "stopped", "intervals": {}, "loss": 0.39}
    failed = {"number": 2, "settings": {"batch_size": 64}, "status": "failed", "loss": None, "seconds": 0}
    tables.trials(Console(), {"best": 3, "of": "100 rows", "trials": [best, own, stopped, failed]})
    shown = [re.sub(" +", " ", line).strip() for line in capsys.readouterr().out.splitlines()]
    assert shown[1].startswith("3 0.4000 0.3000 to 0.5000 0.8100 0.7000 to 0.9000 4 7 batch_size 16")
    assert shown[2].endswith("this command's own settings")
    assert shown[3].startswith("4 0.3900 0.8100 4 7 stopped")
    assert shown[4] == "2 - - - 0 failed batch_size 64"
    assert shown[5] == (
        "best: trial 3, batch_size 16; held-out loss 0.4000 instead of 0.4100, accuracy 0.8100 instead of 0.8000"
    )
    # Where the command's own settings did not come to their end, there is nothing to compare with.
    tables.trials(Console(), {"best": 3, "of": "100 rows", "trials": [best, stopped]})
    assert "instead of" not in capsys.readouterr().out
