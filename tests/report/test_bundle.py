"""The page of a bundle: its sections, what it says where something is missing, and its model card."""

import json
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import yaml

from sentray import bundle, metrics
from sentray.report.bundle import card_of, page_of
from sentray.report.evidence import Evidence
from sentray.report.figures import wilson
from sentray.report.subject import Subject
from tests.report.conftest import rows

PICTURES = 9
"""Confusion, ROC, precision, calibration, histogram, lengths, slices, loss, accuracy."""


def plain(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL))


def with_slices(subject: Subject) -> Subject:
    found = subject.bundle.metrics["validation"] | {"corpus": "s3://b/new.csv", "why": "those that are given"}
    return replace(subject, metrics=found, slices={"a": (9, 10), "<b>": (1, 2), None: (5, 9)}, slice_column="shop")


def test_a_page_shows_all_that_is_known(subject: Subject) -> None:
    html = page_of(with_slices(subject)).html
    assert html.count("<figure>") == html.count('role="img"') == PICTURES
    assert len(re.findall(r'\sid="([^"]+)"', html)) == len(set(re.findall(r'\sid="([^"]+)"', html)))
    shown = plain(html)
    for said in ("rows of new.csv", "held-out rows", "the last fit, on 160 rows", "likely have a wrong label"):
        assert said in shown
    assert shown.index("&lt;b&gt; 2 0.5000") < shown.index("none 9 0.5556") < shown.index("a 10 0.9000")


def test_hostile_texts_are_shown_harmless(subject: Subject) -> None:
    html = page_of(subject).html
    assert "<script" not in html
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", html)
    assert 'onmouseover="' not in html
    assert "<img" not in html


def test_words_that_it_does_not_know_are_counted_in_its_mistakes(subject: Subject) -> None:
    assert "of the 100 rows whose label it denies most word times a 96 " in plain(page_of(subject).html)


def test_without_texts_no_text_is_shown(subject: Subject) -> None:
    assert subject.evidence is not None
    html = page_of(replace(subject, evidence=subject.evidence.without_texts())).html
    assert "Their texts are not kept" in html
    assert "a bad film" not in html


def test_an_earlier_bundle_gets_what_is_known_and_says_what_is_not(subject: Subject) -> None:
    known = plain(page_of(Subject(subject.bundle, "stars")).html)
    assert "No measured rows are kept beside this bundle" in known
    assert "sentray report" in known
    nothing = bundle.update(subject.bundle, metrics={})
    assert "nothing is known of how good this bundle is" in plain(page_of(Subject(nothing, "stars")).html)
    assert "was not measured" in card_of(Subject(nothing, "stars"))


def test_what_should_be_known_before_it_is_trusted_is_said(subject: Subject) -> None:
    truth = np.array([0] * 40 + [1] * 40)
    found = metrics.metrics(truth, np.tile(np.float32([0.9, 0.1]), (80, 1)), ("neg", "pos"))
    given = {"validation": found, "label_rows": {"neg": 1000, "pos": 50}}
    shown = plain(page_of(Subject(bundle.update(subject.bundle, metrics=given), "stars")).html)
    for said in ("only 80 rows are measured", "hardly better than to say", "off by 0.40", "Unbalanced: 1,000"):
        assert said in shown


def test_a_model_card_has_the_head_that_the_hub_reads(subject: Subject) -> None:
    card = card_of(replace(with_slices(subject), name='a "b": [c]'))
    _, head, body = card.split("---\n", 2)
    read = yaml.safe_load(head)
    assert read["pipeline_tag"] == "text-classification"
    model = read["model-index"][0]
    assert model["name"] == 'a "b": [c]'
    validation = subject.bundle.metrics["validation"]
    assert model["results"][0]["metrics"][0] == {"type": "accuracy", "value": round(validation["accuracy"], 4)}
    assert r"\[c\]" in body
    assert f"| accuracy | {validation['accuracy']:.4f} |" in body
    json.dumps(read)


def test_an_interval_of_a_share_stays_between_zero_and_one() -> None:
    assert wilson(8, 10) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 3)[1] == 0
    assert wilson(3, 3)[2] == 1


def test_a_million_rows_are_a_small_page_soon(subject: Subject) -> None:
    labels = ("neg", "pos")
    kept = Evidence(rows(1_000_000, texts=False), "test", 1_000_000)
    truth = kept.rows["truth"].to_numpy()
    found = metrics.metrics(truth, np.eye(2, dtype=np.float32)[truth], labels)
    started = time.process_time()
    page = page_of(replace(subject, evidence=kept, metrics=found | {"corpus": "many", "why": "all"}))
    assert time.process_time() - started < 10
    assert len(page.html.encode()) < 3_000_000
    assert "a sample of 20,000 of the 1,000,000 measured rows" in page.html
