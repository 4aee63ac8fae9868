"""Rows that kill the process which scores them, found by scoring ever smaller parts of their shard."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from sentray.errors import SentrayError
from sentray.scoring.pool import Lost, Pool, died
from sentray.scoring.reading import files_of, reading_kills
from sentray.scoring.records import Record
from sentray.scoring.worker import Task

MAX_CRASHES = 16
"""So many rows of a shard, or shards of a job, may kill: more are a matter of memory or of the engine, not of rows."""
_WAYS = 4
_Range = tuple[int, int]


def score_without_crashes(pool: Pool, task: Task, tick: Callable[[], None] = lambda: None) -> Record:
    """Score a shard of which processes died, leaving out the rows that are to blame.

    Args:
        pool: Of `ShardScorer`s.
        task: The shard; all other work of the pool is done.
        tick: Called now and then.

    Raises:
        SentrayError: When no single rows are to blame, or too many.
    """
    crashes = _killing_rows(pool, task, tick)
    result = next(pool.map("score", [replace(task, crashes=crashes)], tick=tick))
    if isinstance(result, Lost):
        raise SentrayError(died(1))
    record: Record = result
    return record


def _killing_rows(pool: Pool, task: Task, tick: Callable[[], None]) -> tuple[int, ...]:
    """The places of those rows of a shard that kill a process alone, and do so twice."""
    rows = next(pool.map("count", [task], tick=tick))
    if isinstance(rows, Lost):
        raise SentrayError(reading_kills(task.shard))
    suspects, alone = _split(0, rows), Counter[_Range]()
    while suspects:
        probes = ((task, start, stop) for start, stop in suspects)
        lost: list[_Range] = []
        for result in pool.map("probe", probes, retries=0, tick=tick):
            # Probes may be so short that the pool has always something to give.
            tick()
            if isinstance(result, Lost):
                lost.append(result.item[1:])
            if len(lost) > MAX_CRASHES:
                raise SentrayError(
                    f"more than {MAX_CRASHES} rows of {files_of(task.shard)} kill the process that scores them (out "
                    "of memory?); leave the file out, or take fewer --workers or a smaller --shard-size"
                )
        alone.update((start, stop) for start, stop in lost if stop - start == 1)
        suspects = [part for start, stop in lost if alone[start, stop] < 2 for part in _split(start, stop)]
    return tuple(start for (start, _), number in sorted(alone.items()) if number > 1)


def _split(start: int, stop: int) -> list[_Range]:
    """A range of rows in parts of about the same size."""
    parts = min(_WAYS, stop - start)
    limits = [start + (stop - start) * part // parts for part in range(parts + 1)] if parts else []
    return list(pairwise(limits))
