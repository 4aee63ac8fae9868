"""The page of a scoring job: what it shows, and that nothing in it does anything."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray import bundle
from sentray.bundle import Bundle, ModelSpec
from sentray.config import ScoreSettings
from sentray.corpus.rows import QUARANTINE_SCHEMA
from sentray.scoring import drift
from sentray.scoring.by import OTHERS
from sentray.scoring.drift import Reference
from sentray.scoring.output import OutputFolder
from sentray.scoring.report import page
from sentray.scoring.stats import Counts
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary

HOSTILE = "</bdi><script>alert(1)</script>\u202e\x1b[31m" + "x" * 5000
REFERENCE = Reference(
    lengths=[0] * 6 + [1000, 1000] + [0] * 17,
    known=[0] * 5 + [1800, 200],
    words=[12_000, 4000, 4000] + [20] * 198,
    scores=[100] * 20,
    labels={"neg": 1000, "pos": 990},
    rows=2000,
    scored_rows=2000,
    of={"reviews": "the 2,000 training rows"},
)
COUNTS = Counts(
    1003,
    1000,
    {"empty_text": 1, "invalid_utf8": 2},
    {"neg": 100, "pos": 890},
    [0] * 10 + [100] * 10,
    lengths=[0] * 6 + [520, 480] + [0] * 17,
    known_shares=[0] * 5 + [900, 100],
    commonest=[6000, 4000, 100] + [10] * 198,
    by={"a.csv": {"neg": 100, "pos": 400}, "": {"pos": 90}, OTHERS: {"pos": 400, "": 10}},
)


class Page(HTMLParser):
    """What a browser finds in a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.text += " " * (tag in ("td", "th", "span"))
        assert not any(name.startswith("on") or name in ("src", "action") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data if self.tags[-1:] not in (["style"], ["script"]) else ""

    @property
    def lines(self) -> str:
        return re.sub(r"\s+", " ", self.text)


@pytest.fixture
def show(tmp_path: Path) -> Any:
    def make_model(labels: tuple[str, ...]) -> Bundle:
        words = Vocabulary(["the", "plot"])
        spec = ModelSpec.of(words, architecture="a.v1", cleaning=preset("reviews")[0], labels=labels, max_length=5)
        return bundle.make(spec, words, {bundle.MODEL: b""})

    def make(
        counts: Counts = COUNTS,
        known: Reference | None = REFERENCE,
        labels: tuple[str, ...] = ("neg", "pos"),
        **given: Any,
    ) -> Page:
        rows = [
            {"file": "a.csv", "row": 7, "id": "1", "reason": "empty_text", "detail": None, "text": "the end of it"},
            *(
                {"file": HOSTILE, "row": row, "reason": "invalid_utf8", "detail": "2 bytes", "text": HOSTILE}
                for row in (1, 2)
            ),
        ]
        pq.write_table(pa.Table.from_pylist(rows, QUARANTINE_SCHEMA), tmp_path / "quarantine.parquet")
        settings = ScoreSettings(**{"bundle": "models/films", "input": "reviews/*.csv", "out": str(tmp_path)} | given)
        summary = {
            "sentray_version": "1.2.3",
            "engine": "folded",
            "run": "20260101T000000Z-abcdef",
            "rows_scored": counts.scored,
            "rows_quarantined": counts.bad,
            "coverage": 0.987 if counts.scored else None,
            "bytes": 1_500_000,
            "core_hours": 0.001,
            "core_hours_per_million": 1.0 if counts.rows else None,
            "peak_rss_mb": 200.0,
            "workers": 2,
            "start_seconds": 1.5,
            "seconds": 2.0,
            "rows_per_s": 501.5,
            "mb_per_s": 0.75,
            "drift": drift.compare(known, counts, labels),
        }
        return Page(page(OutputFolder(str(tmp_path)), summary, counts, make_model(labels), known, settings))

    return make


def test_shows_labels_scores_words_drift_quarantine_and_speed(show: Any) -> None:
    found = show()
    assert found.tags.count("svg") == 3
    for line in (
        "Scores of reviews/*.csv",
        "1,000 rows scored",
        "these reviews are not like those trained on: scores (PSI ",
        "neg 100 10.0 % 50.0 %",
        "unsure, without a label 10 1.0 % 0.5 %",
        "Over files",
        "a.csv 500 0.0 % 20.0 % 80.0 %",
        "(none) 90 0.0 % 0.0 % 100.0 % (others) 410 2.4 % 0.0 % 97.6 %",
        "labels much 0.",
        "Reviews: the 2,000 training rows.",
        "plot 0.83 % 16.69 %",
        "invalid_utf8 2 0.20 %",
        "empty_text in a.csv, row 7",
        "its reviews a second 502",
    ):
        assert line in found.lines, line


def test_what_others_wrote_does_nothing(show: Any) -> None:
    counts = replace(COUNTS, by={HOSTILE: {HOSTILE: 400, "pos": 600}}, labels={HOSTILE: 400, "pos": 600})
    labels = (HOSTILE[:900], "pos")
    found = show(counts, labels=labels, input=f"/data/{HOSTILE}", by=HOSTILE, bundle=HOSTILE)
    assert "script" not in found.tags
    assert "alert(1)" in found.text
    assert "\u202e" not in found.text
    assert "\x1b" not in found.text
    assert "x" * 2100 not in found.text


def test_days_have_a_picture(show: Any) -> None:
    days = {f"2026-{month:02}-{day:02}": {"neg": day, "pos": 30} for month in range(1, 13) for day in range(1, 29)}
    found = show(replace(COUNTS, by=days), by="date")
    assert found.tags.count("svg") == 4
    assert "Scored rows by week (its Monday) and label" in found.lines
    assert "Over the column date" in found.lines


def test_many_files_and_labels_are_bounded(show: Any) -> None:
    labels = tuple(f"label {number:04}" for number in range(30))
    files = {f"part-{number:04}.csv": dict.fromkeys(labels, 1) for number in range(200)}
    found = show(replace(COUNTS, by=files, labels=dict.fromkeys(labels, 1)), labels=labels)
    assert found.lines.count("part-0") == 60
    assert "(others)" in found.lines
    assert "other labels" in found.lines


@pytest.mark.parametrize(
    ("counts", "known", "said"),
    [
        (COUNTS, None, "the bundle was made by an earlier version"),
        (
            Counts(1003, 1000, COUNTS.quarantined, COUNTS.labels, COUNTS.histogram),
            REFERENCE,
            "an earlier version scored",
        ),
        (Counts(3, 0, COUNTS.quarantined), REFERENCE, "There is nothing to compare."),
        (Counts.none(), REFERENCE, "No row was set aside."),
    ],
)
def test_what_is_not_known_is_said(show: Any, counts: Counts, known: Reference | None, said: str) -> None:
    assert said in show(counts, known).lines


def test_no_text_is_shown_without_excerpts(show: Any) -> None:
    assert "the end of it" in show().text
    assert "the end of it" not in show(excerpts=False).text
