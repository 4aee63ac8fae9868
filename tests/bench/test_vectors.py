"""The bench of the reader: small, but every part of it runs."""

from pathlib import Path

import pytest

from sentray.bench import vectors
from sentray.bench.settings import BenchVectorsSettings
from sentray.bench.vectors import READERS, bench_vectors, write_file
from sentray.console import Console
from sentray.embeddings.read import read_vectors
from sentray.errors import SentrayError

SMALL = BenchVectorsSettings(rows=1_000, dimensions=5, words=70)


def test_measures_each_reader_and_compares_what_they_read(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench_vectors(SMALL, Console())
    assert figures["same_vectors"]
    for reader in READERS:
        assert figures[f"seconds_{reader}"] > 0
        assert figures[f"peak_mb_{reader}"] > figures[f"mb_{reader}"] > 0
        assert figures[f"faster_{reader}"] == figures["seconds_gensim"] / figures[f"seconds_{reader}"]
    shown = capsys.readouterr().out
    assert "1,000 rows of 5 numbers" in shown
    assert "the same vectors to the last bit" in shown


def test_the_file_is_the_same_for_a_seed_and_holds_the_words(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_file(tmp_path / name, tmp_path / f"{name}.words", SMALL)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    words = (tmp_path / "one.words").read_text().split()
    found, report = read_vectors(str(tmp_path / "one"), words)
    assert (report.rows, report.dimensions, report.declared, report.duplicates) == (1_000, 5, 1_000, 0)
    assert sorted(found.words) == sorted(words)
    assert len(words) == 70
    assert abs(found.rows.std() - vectors._SPREAD) < 0.1


def test_no_more_words_are_wanted_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"seconds": 1.0, "mb": 1.0, "peak_mb": 1.0, "sha256": ""}
    monkeypatch.setattr(vectors.processes, "run", lambda *_: measured)
    assert bench_vectors(SMALL.model_copy(update={"words": 5_000}), Console())["words"] == 1_000


def test_a_disk_that_is_too_small_is_reported() -> None:
    with pytest.raises(SentrayError, match="GB left; set TMPDIR"):
        bench_vectors(BenchVectorsSettings(rows=10**12), Console())
