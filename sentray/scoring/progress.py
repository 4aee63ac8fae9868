"""How far a scoring job is: a line with rates and the time that is left, for a terminal or a log."""

import time

from sentray.console import Console, count, duration
from sentray.corpus.shards import ShardPlan
from sentray.scoring.counts import Counts


class Progress:
    """Shows how far a job is, from what it has counted.

    Args:
        console: Where to show it.
        plan: All shards.
        total: What the job has counted so far; it goes on growing.
        shards: How many are committed already.
    """

    def __init__(self, console: Console, plan: ShardPlan, total: Counts, shards: int) -> None:
        self._console, self._total = console, total
        self._all_bytes, self._all_shards, self.shards = plan.bytes, len(plan), shards
        self._rows, self._bytes = total.rows, total.bytes
        self._began: float | None = None

    @property
    def share(self) -> float:
        """How much of the input is done, by its size."""
        return self._total.bytes / self._all_bytes if self._all_bytes else 1.0

    def begin(self) -> None:
        """Take the time from now on."""
        self._began = time.monotonic()

    def show_ids(self, shards: int) -> None:
        """Show how far the look at the ids is."""
        self._console.progress(
            f"looking for ids that occur twice, {shards:,} of {count(self._all_shards, 'shard')}",
            shards / self._all_shards,
        )

    def show(self) -> None:
        """Show how far the scoring is."""
        if self._began is None:
            self._console.progress("waiting for workers to start")
            return
        seconds = max(time.monotonic() - self._began, 1e-3)
        rows, size = self._total.rows - self._rows, self._total.bytes - self._bytes
        left = duration((self._all_bytes - self._total.bytes) * seconds / size) if size else "?"
        self._console.progress(
            f"{rows / seconds:,.0f} rows/s, {size / 1e6 / seconds:,.1f} MB/s, {left} left, {self._total.rows:,} rows, "
            f"{self._total.bad:,} quarantined, {self.shards:,} of {count(self._all_shards, 'shard')}",
            self.share,
        )
