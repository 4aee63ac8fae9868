"""Two bundles on the same reviews: the test against values by hand, the gate, and the whole of it with real bundles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentray.bundle import Bundle
from sentray.cli import main
from sentray.compare import compare, judge, mcnemar, right_difference
from sentray.config import CompareSettings
from sentray.errors import SentrayError

MakeBundle = Callable[..., Bundle]
MakeReviews = Callable[..., list[str]]


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    # Twice 1 / 2**5, and twice (1 + 10 + 45) / 2**10.
    [(0, 0, 1), (1, 0, 1), (0, 5, 0.0625), (8, 2, 0.109375), (3, 3, 1)],
)
def test_mcnemar_is_a_binomial_test_of_the_rows_at_odds(only_a: int, only_b: int, p: float) -> None:
    first = np.repeat([True, False, True, False], [only_a, only_b, 7, 4])
    second = np.repeat([False, True, True, False], [only_a, only_b, 7, 4])
    found = mcnemar(first, second)
    assert found.pop("p_value") == pytest.approx(p)
    assert found == {"both_right": 7, "only_a_right": only_a, "only_b_right": only_b, "neither_right": 4}


@pytest.mark.parametrize(
    ("ends", "margin", "not_worse", "better"),
    [
        ([0.0, 0.0], 0.0, True, False),
        ([-0.005, 0.02], 0.01, True, False),
        ([-0.011, 0.02], 0.01, False, False),
        ([-0.02, -0.005], 0.05, True, False),
        ([0.001, 0.02], 0.0, True, True),
    ],
)
def test_not_worse_is_a_test_of_non_inferiority(
    ends: list[float], margin: float, not_worse: bool, better: bool
) -> None:
    difference = sum(ends) / 2
    assert judge(difference, ends, "none", margin)[0]
    assert judge(difference, ends, "not-worse", margin)[0] is not_worse
    assert judge(difference, ends, "better", margin)[0] is better


def test_few_rows_show_nothing_and_what_has_no_label_is_not_right() -> None:
    difference, ends = right_difference(0, 0, 10)
    assert difference == 0
    assert not judge(difference, ends, "not-worse", 0.01)[0]
    assert judge(*right_difference(0, 0, 1000), "not-worse", 0.01)[0]
    # A is right about 85 of 100 rows; B about 30 of the 32 that it has a label for.
    truth = np.ones(100, bool)
    test = mcnemar(truth & (np.arange(100) < 85), truth & (np.arange(100) < 30))
    passed, verdict = judge(*right_difference(test["only_a_right"], test["only_b_right"], 100), "better", 0)
    assert not passed
    assert "A is more often right" in verdict


def test_the_interval_of_right_rows_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        only_a, only_b, _ = chance.multinomial(100, [0.06, 0.10, 0.84])
        _, (low, high) = right_difference(only_a, only_b, 100)
        held += low <= 0.04 <= high
    assert 930 <= held <= 990


def _compare(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words])
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("ray_session")
def test_bundles_are_compared_on_the_same_rows(
    make_bundle: MakeBundle, make_reviews: MakeReviews, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = make_bundle().path, make_bundle(("pos", "neg"), seed=1).path
    texts = [f"<script>alert(1)</script> [red]good\x1b[2J {text}" for text in make_reviews(200)]
    lines = [json.dumps({"id": f"<b>{n}", "text": t, "label": ("neg", "pos")[n % 2]}) for n, t in enumerate(texts)]
    corpus, as_json, as_page = (tmp_path / name for name in ("reviews.jsonl", "found.json", "found.html"))
    corpus.write_text("\n".join(lines))
    assert _compare(one, other, str(corpus)) == 1
    assert "does not say what it was trained on: name the rows by --split" in capsys.readouterr().err
    rest = str(corpus), "--split", "all", "--json", str(as_json), "--html", str(as_page)

    assert _compare(one, other, *rest, "--require", "better") == 1
    shown = capsys.readouterr()
    assert "is not what --require better asks for" in shown.err
    found = json.loads(as_json.read_text())
    assert "\x1b" not in shown.out
    assert shown.out.splitlines()[-1] == found["verdict"]
    test = found["mcnemar"]
    assert sum(test[name] for name in test if name != "p_value") == found["rows"] == 200
    # Each bundle gives one label of two, so that of those who differ one is right.
    assert found["differing_rows"] == test["only_a_right"] + test["only_b_right"] > 0
    difference = (test["only_b_right"] - test["only_a_right"]) / 200
    assert found["differences"]["accuracy"] == pytest.approx(difference, abs=1e-9)
    assert found["b"]["accuracy"] - found["a"]["accuracy"] == pytest.approx(difference, abs=1e-9)
    assert all(row["text"] == texts[int(row["id"][3:])][:200] for row in found["differing"])
    assert all(row["a"]["label"] != row["b"]["label"] for row in found["differing"])
    gaps = [row["a"]["probability"] + row["b"]["probability"] for row in found["differing"]]
    assert gaps == sorted(gaps, reverse=True)
    html = as_page.read_text()
    assert "&lt;script&gt;alert" in html
    assert not {"<script", "<b>1"} & {html[at : at + 7] for at in range(len(html))}

    # So many rows show that a bundle is no worse than itself but for the margin, and no text need be kept.
    assert _compare(one, one, *rest, "--require", "not-worse", "--margin", "0", "--no-excerpts") == 1
    assert _compare(one, one, *rest, "--require", "not-worse", "--margin", "0.01", "--no-excerpts") == 0
    same = json.loads(as_json.read_text())
    assert (same["differing"], same["mcnemar"]["p_value"]) == ([], 1.0)
    assert set(same["differences"].values()) == {0.0}
    assert all(ends == [0.0, 0.0] for ends in same["intervals"].values())
    assert _compare(one, other, *rest, "--no-excerpts") == 0
    assert {row["text"] for row in json.loads(as_json.read_text())["differing"]} == {None}
    assert "alert" not in as_page.read_text()


def test_bundles_with_other_labels_are_not_compared(make_bundle: MakeBundle, console: Any) -> None:
    one, other = make_bundle().path, make_bundle(("bad", "fine", "good")).path
    with pytest.raises(SentrayError, match=r"has the labels neg, pos and .* bad, fine, good: only bundles"):
        compare(CompareSettings(bundle=one, other=other, corpus="synthetic:10"), console)
