"""The quickstart goes the whole way, on real reviews where they can be had and on made-up ones elsewhere."""

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sentray import nltk_data
from sentray.config import QuickstartSettings, ScoreSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.quickstart import EMBEDDED, REAL, _choose, _show_reviews, quickstart


@pytest.mark.parametrize(("found", "corpus"), [(Path("here"), REAL), (None, EMBEDDED)])
def test_real_reviews_are_taken_where_they_can_be_had(
    found: Path | None, corpus: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(nltk_data, "find", lambda resource: found)
    assert _choose(Console()) == corpus
    line = capsys.readouterr().out
    assert line.startswith(f"corpus: {corpus}")
    assert ("nltk.downloader movie_reviews" in line) == (found is None)
    assert line.count("\n") == 1


def test_a_uri_is_no_folder() -> None:
    with pytest.raises(SentrayError, match=r"^--out s3://bucket/x is no folder; name a folder"):
        quickstart(QuickstartSettings(out="s3://bucket/x"), Console())


def test_without_test_reviews_none_is_shown(
    ray_session: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "reviews.csv").write_text("text,label,split\ngood,pos,train\nbad,neg,train\n")
    _show_reviews(ScoreSettings(bundle="b", input=str(tmp_path / "reviews.csv"), out=str(tmp_path / "o")), Console())
    assert capsys.readouterr().out == ""


def test_it_shows_what_it_made_and_runs_again_without_doing_it_twice(
    ray_session: None, in_process: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process()
    out = tmp_path / "quickstart"
    settings = QuickstartSettings(out=str(out), corpus="synthetic:600?seed=3", epochs=2, workers=1)
    quickstart(settings, Console())
    shown = capsys.readouterr().out
    # Each with its interval.
    found = dict(
        re.findall(r"^(wide-deep|tutorial-cnn) +(0\.\d{4}) +0\.\d{4} to 1?0?\.\d{4} +0\.\d{4}$", shown, re.MULTILINE)
    )
    assert list(found) == ["wide-deep", "tutorial-cnn"]
    assert float(found["wide-deep"]) > 0.8
    assert "scored neg  scored pos" in shown
    assert "reviews/s" in shown
    (examples,) = re.findall(r"^review +is +scored +score +text\n((?:synthetic:.*\n)+)", shown, re.MULTILINE)
    assert examples.count("\n") == 2
    assert f"bundle          {out / 'bundle'}" in shown
    scores = pq.read_table(out / "scored" / "scores")
    assert scores.num_rows == 600
    assert (out / "bundle" / "model.keras").exists()

    quickstart(settings, Console())
    again = capsys.readouterr().out
    assert again.count("nothing to do") >= 3
    assert (
        again[again.index("4. Result") : again.index("all in")]
        == (shown[shown.index("4. Result") : shown.index("all in")])
    )
