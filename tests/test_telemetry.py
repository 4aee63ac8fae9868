"""What a run counts: names, labels and numbers; a real scrape is in test_jobs."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest

from sentray.scoring.stats import Counts
from sentray.telemetry import Telemetry

COUNTS = Counts(10, 7, {"empty_text": 2, "invalid_utf8": 1}, bytes=900, seconds=1.5)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], list[float]]:
    """What reaches Ray's metrics: numbers by name and label values."""
    # Ray reads this when it is imported, and later tests start a cluster.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    from ray.util import metrics

    found: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def record(self: Any, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == self.info["tag_keys"]
        found[self.info["name"], *tags.values()].append(value)

    monkeypatch.setattr(metrics.Metric, "_record", record)
    return found


def test_a_committed_shard_is_counted(recorded: dict[tuple[str, ...], list[float]]) -> None:
    telemetry = Telemetry("score", "run-1")
    telemetry.commit(COUNTS)
    telemetry.commit(replace(COUNTS, rows=0, scored=0, quarantined={}))
    telemetry.retry("straggler")
    own = ("score", "run-1")
    assert recorded == {
        ("sentray_rows_read", *own): [10],
        ("sentray_rows_scored", *own): [7],
        ("sentray_bytes_read", *own): [900, 900],
        ("sentray_rows_quarantined", *own, "empty_text"): [2],
        ("sentray_rows_quarantined", *own, "invalid_utf8"): [1],
        ("sentray_worker_seconds", *own): [1.5, 1.5],
        ("sentray_shard_seconds", *own): [1.5, 1.5],
        ("sentray_shard_retries", *own, "straggler"): [1],
    }


def test_drift_is_a_gauge_each(recorded: dict[tuple[str, ...], list[float]]) -> None:
    Telemetry("score", "run-3").drift({"scores": {"psi": 0.3, "differs": "much"}, "words": {"psi": 0.01}})
    own = ("score", "run-3")
    assert recorded == {("sentray_drift", *own, "scores"): [0.3], ("sentray_drift", *own, "words"): [0.01]}


def test_an_epoch_is_counted_and_its_speed_shown(recorded: dict[tuple[str, ...], list[float]]) -> None:
    telemetry = Telemetry("train", "run-2")
    telemetry.step({"rows": 64, "seconds": 0.5})
    telemetry.step({"rows": 128, "seconds": 0.5})
    telemetry.epoch({"rows_seen": 1800})
    own = ("train", "run-2")
    assert recorded == {
        ("sentray_rows_per_second", *own): [128, 256],
        ("sentray_epochs", *own): [1],
        ("sentray_rows_trained", *own): [1800],
    }
