"""What a run counts for whoever watches the cluster: Ray shows it at the Prometheus endpoint of the driver's node.

All names begin with `ray_sentray_`; every series has the labels `verb` and `run`, besides Ray's own.

    rows_read_total, rows_scored_total, bytes_read_total    of committed shards
    rows_quarantined_total{reason}                          of committed shards
    shard_seconds                                           histogram: a worker's time for a committed shard
    worker_seconds_total                                    the same time added up, exact
    shard_retries_total{reason}                             a shard is worked on once more: process_died, node_lost,
                                                            cancelled, out_of_memory, straggler, killing_rows
    epochs_total, rows_trained_total                        of finished epochs
    rows_per_second                                         gauge: training, in the present epoch
    drift{what}                                             gauge: population stability index of the scored rows beside
                                                            the bundle's: scores, labels, lengths, known, words

Everything is counted by the driver, when a shard is first committed or an epoch is finished, so that nothing counts
twice; retries alone are counted as they begin. A run has one process that counts, and Ray labels each process's series
(`WorkerId`), so that the label `run` makes no more of them. Ray sends what was counted every 10 s and when the driver
ends; with a driver that is killed the last seconds are lost. Counters of an ended run stay until its node ends; gauges
go after 20 s. Ray rebuilds a histogram's sum from the middles of its buckets, hence `worker_seconds_total`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentray.scoring.stats import Counts

SHARD_SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000]
"""Upper bounds of the histogram's buckets."""


class Telemetry:
    """Metrics of one run, each made when it first counts, since Ray must be connected to by then.

    Args:
        verb: What runs.
        run: Its id.
    """

    def __init__(self, verb: str, run: str) -> None:
        self._tags = {"verb": verb, "run": run}
        self._metrics: dict[str, Any] = {}

    def commit(self, counts: "Counts") -> None:
        """Count a shard that was committed, given the counts of its record."""
        self._count("rows_read", "Rows read, of committed shards", counts.rows)
        self._count("rows_scored", "Rows scored, of committed shards", counts.scored)
        self._count("bytes_read", "Size of what was read, as stored, of committed shards", counts.bytes)
        for reason, rows in counts.quarantined.items():
            self._count("rows_quarantined", "Rows set aside, of committed shards", rows, reason=reason)
        self._count("worker_seconds", "Time of workers on committed shards", counts.seconds)
        about = "Time of a worker on a committed shard"
        self._metric("Histogram", "shard_seconds", about, boundaries=SHARD_SECONDS).observe(counts.seconds, self._tags)

    def retry(self, reason: str) -> None:
        """Count a shard that is worked on once more."""
        self._count("shard_retries", "Shards worked on once more", 1, reason=reason)

    def drift(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Show how far the scored reviews are from those trained on, given what `drift.compare` found."""
        about = "Population stability index of the scored reviews beside those trained on"
        for what, figures in found.items():
            tags = {"what": what}
            self._metric("Gauge", "drift", about, tags).set(figures["psi"], self._tags | tags)

    def step(self, report: Mapping[str, Any]) -> None:
        """Show how fast training is, given the report of a step (`Replica.epoch`)."""
        speed = report["rows"] / report["seconds"]
        self._metric("Gauge", "rows_per_second", "Rows trained a second in the present epoch").set(speed, self._tags)

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Count an epoch that is finished, given its record (`Replica.epoch`)."""
        self._count("epochs", "Epochs finished, dead starts among them", 1)
        self._count("rows_trained", "Rows that finished epochs trained on", record["rows_seen"])

    def _count(self, name: str, about: str, number: float, **tags: str) -> None:
        """Add to a counter; Ray refuses to add nothing."""
        if number > 0:
            self._metric("Counter", name, about, tags).inc(number, self._tags | tags)

    def _metric(self, kind: str, name: str, about: str, tags: Mapping[str, str] = {}, **options: Any) -> Any:
        if name not in self._metrics:
            from ray.util import metrics

            keys = (*self._tags, *tags)
            self._metrics[name] = getattr(metrics, kind)(f"sentray_{name}", about, tag_keys=keys, **options)
        return self._metrics[name]
