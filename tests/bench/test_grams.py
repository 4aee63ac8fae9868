"""The bench of n-grams: small, but every part of it runs."""

from pathlib import Path

import numpy as np
import pytest

from sentray.bench.grams import bench_grams, write_ids
from sentray.bench.settings import BenchGramsSettings
from sentray.console import Console

SMALL = BenchGramsSettings(reviews=1_000, words=20, max_grams=2_000)


def test_counts_and_looks_up(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench_grams(SMALL, Console())
    driver, task = figures["counting"].values()
    assert driver["kept"] == 2_000 < driver["frequent"] < driver["distinct"] == task["distinct"]
    assert 0.5 < figures["looking up"]["one core"]["known_per_word"] < 4
    assert "ns_per_word" in capsys.readouterr().out


def test_neighbours_are_as_in_a_language(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_ids(tmp_path / name, SMALL)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    words = np.fromfile(tmp_path / "one", np.int32).reshape(1_000, 20)
    assert words.min() >= 1
    pairs = words[:, :-1].astype(np.int64) << 32 | words[:, 1:]
    shuffled = np.random.default_rng(0).permuted(words.ravel()).reshape(words.shape)
    by_chance = shuffled[:, :-1].astype(np.int64) << 32 | shuffled[:, 1:]
    assert len(np.unique(pairs)) < 0.95 * len(np.unique(by_chance))
