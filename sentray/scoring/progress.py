"""How far a scoring job is: a line with rates and the time that is left, for a terminal or a log."""

import time

from sentray.console import Console, count, duration
from sentray.corpus.splits import ShardPlan
from sentray.scoring.accounts import Accounts


class Progress:
    """Shows how far a job is, from what it has counted.

    Args:
        console: Where to show it.
        plan: All shards.
        accounts: What the job has committed so far; it goes on growing.
    """

    def __init__(self, console: Console, plan: ShardPlan, accounts: Accounts) -> None:
        self._console, self._accounts = console, accounts
        self._all_bytes, self._all_shards = plan.bytes, len(plan)
        self._rows_before = self._bytes_before = 0
        self._began: float | None = None

    @property
    def rows(self) -> int:
        """Rows read since the scoring began."""
        return self._accounts.total.rows - self._rows_before

    @property
    def bytes(self) -> int:
        """Size of what was read since then, as stored."""
        return self._accounts.total.bytes - self._bytes_before

    @property
    def share(self) -> float:
        """How much of the input is done, by its size."""
        return self._accounts.total.bytes / self._all_bytes if self._all_bytes else 1.0

    def begin(self) -> None:
        """Take the time from now on."""
        self._rows_before, self._bytes_before = self._accounts.total.rows, self._accounts.total.bytes
        self._began = time.monotonic()

    def show_ids(self, shards: int, moved: bool) -> None:
        """Show how far the look at the ids is, and whether it is further than before."""
        self._console.progress(
            f"looking for ids that occur twice, {shards:,} of {count(self._all_shards, 'shard')}",
            shards / self._all_shards,
            moved=moved,
        )

    def show(self, moved: bool = True) -> None:
        """Show how far the scoring is, and whether it is further than before."""
        if self._began is None:
            self._console.progress("waiting for workers to start", moved=moved)
            return
        seconds = max(time.monotonic() - self._began, 1e-3)
        total = self._accounts.total
        left = duration((self._all_bytes - total.bytes) * seconds / self.bytes) if self.bytes else "?"
        self._console.progress(
            f"{self.rows / seconds:,.0f} rows/s, {self.bytes / 1e6 / seconds:,.1f} MB/s, {left} left, "
            f"{total.rows:,} rows, {total.bad:,} quarantined, "
            f"{self._accounts.committed:,} of {count(self._all_shards, 'shard')}",
            self.share,
            moved=moved,
        )
