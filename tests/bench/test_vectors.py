"""The bench of the reader: small, but every part of it runs."""

from pathlib import Path

import pytest

from sentray.bench import vectors
from sentray.bench.settings import BenchVectorsSettings
from sentray.bench.vectors import READERS, bench_vectors, write_file
from sentray.console import Console
from sentray.embeddings.read import read_vectors

SMALL = BenchVectorsSettings(rows=1_000, dimensions=5, words=70)


def test_measures_each_reader_and_compares_what_they_read(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench_vectors(SMALL, Console())
    assert figures["same_vectors"]
    rows = figures["1,000 rows of 5 numbers"]
    assert list(rows) == list(READERS)
    for row in rows.values():
        assert row["ratio"] == row["mb_per_s"] / rows[READERS[0]]["mb_per_s"] > 0
        assert row["memory_mb"] >= 0
    assert "the same vectors to the last bit" in capsys.readouterr().out


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
