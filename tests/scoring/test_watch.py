"""What a job says of its reviews beside those of training: in its summary, in its status, on its page."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray import bundle, cli
from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer
from sentray.scoring import report
from sentray.scoring.stats import Counts
from tests.conftest import WORDS

pytestmark = pytest.mark.usefixtures("ray_session", "a_shard_a_file")
Score = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def known_bundle(small_bundle: Bundle, make_reviews: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small bundle, as if it had been trained on reviews such as `reviews`."""
    texts, counts = make_reviews(2000, seed=1), Counts.none()
    counts.add_scores(Scorer(small_bundle).score(pa.array(texts)), small_bundle.labels)
    known = {"lengths": counts.lengths, "known": counts.known_shares, "words": counts.commonest}
    known |= {"scores": counts.histogram, "labels": counts.labels, "rows": 2000, "scored_rows": 2000}
    made = bundle.update(small_bundle, metrics={"reference": {**known, "of": {"reviews": "2,000 made-up ones"}}})
    return bundle.publish(made, str(tmp_path_factory.mktemp("known") / "bundle"))


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """Reviews with other words, of a few lengths, each with a day and one of them bad."""
    days = [datetime.datetime(2026, 1, 1 + row % 3, row % 24) for row in range(400)]
    texts: list[str | None] = [f"zebra {WORDS[row % 3]} " * 100 for row in range(400)]
    texts[7] = None
    pq.write_table(pa.table({"text": texts, "day": days}), tmp_path / "strange.parquet")
    return tmp_path / "strange.parquet"


def test_reviews_as_in_training_do_not_differ(score: Score, out: Path, reviews: Path, known_bundle, proved) -> None:
    summary = score(bundle=known_bundle.path, fail_on_drift=True)
    assert list(summary["drift"]) == ["scores", "labels", "lengths", "known", "words"]
    assert {figures["differs"] for figures in summary["drift"].values()} == {"no"}
    assert summary == json.loads((out / "summary.json").read_text())
    page = (out / "report.html").read_text()
    assert all(name in page for name in ("part0.parquet", "part3.parquet", "null_text"))
    # Neither the page nor what is counted is a fault.
    proved(out, reviews)


def test_others_do_and_end_the_job_as_asked_when_all_is_written(
    score: Score, out: Path, strange: Path, known_bundle, proved, console
) -> None:
    options = {"bundle": known_bundle.path, "input": strange, "by": "day", "partition_by": "label"}
    said = r"^these reviews are not like those trained on: .*lengths \(PSI .*; .*/out is finished all the same"
    with pytest.raises(SentrayError, match=said):
        score(**options, fail_on_drift=True)
    assert any(line.startswith("warning: these reviews are not like those trained on") for line in console.lines)
    summary = json.loads((out / "summary.json").read_text())
    assert {summary["drift"][name]["differs"] for name in ("lengths", "known", "words")} == {"much"}
    page = (out / "report.html").read_text()
    assert all(day in page for day in ("2026-01-01", "2026-01-02", "2026-01-03"))
    proved(out, strange)
    # The finished job is asked again, and not asked whether it drifts.
    with pytest.raises(SentrayError, match=said):
        score(**options, fail_on_drift=True)
    assert score(**options) == summary
    with pytest.raises(SentrayError, match="was made with another --by, or none"):
        score(**options | {"by": None})


@pytest.mark.usefixtures("light")
def test_the_command_line_ends_with_a_status(score: Score, out: Path, reviews: Path, known_bundle, capsys) -> None:
    # The scorer without a network counts characters for words.
    command = ["score", known_bundle.path, str(reviews), "--out", str(out), "--max-bad-rows", "0.05", "--workers", "1"]
    for options, status in (((), 0), (("--fail-on-drift",), 1), ((), 0)):
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, *options])
        assert (ended.value.code, "not like those" in capsys.readouterr().err) == (status, status == 1)


@pytest.mark.usefixtures("light")
def test_without_a_reference_nothing_is_compared(score: Score, out: Path, console) -> None:
    with pytest.raises(SentrayError, match="does not say; train again to have it, or leave out --fail-on-drift"):
        score(fail_on_drift=True)
    assert not out.exists()
    summary = score()
    assert summary["drift"] is None
    assert any(
        line.startswith("drift is not known: the bundle was made by an earlier version") for line in console.lines
    )
    assert "drift is not known" in (out / "report.html").read_text()


@pytest.mark.usefixtures("light")
def test_a_page_that_fails_fails_nothing(score: Score, out: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(report, "render", lambda *given, **more: 1 / 0)
    assert score()["rows"] == 304
    assert not (out / "report.html").exists()
    assert "warning: report.html is not written (ZeroDivisionError: division by zero)" in capsys.readouterr().err


@pytest.mark.usefixtures("light")
def test_a_column_to_count_by_is_there_and_of_single_values(score: Score, tmp_path: Path, reviews: Path) -> None:
    with pytest.raises(SentrayError, match=r"has no column 'date' .* --by"):
        score(by="date")
    pq.write_table(pa.table({"text": ["good"], "tags": [["a"]]}), tmp_path / "tags.parquet")
    with pytest.raises(
        SentrayError, match=r"^--by tags: the column holds list<.*>; choose one of dates, texts or whole"
    ):
        score(by="tags", input=tmp_path / "tags.parquet")
    assert score(by="stars", keep=("rating:stars",))["rows"] == 304
