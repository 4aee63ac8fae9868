"""Shards as Ray tasks: `Tasks` runs them in a bounded window, tries them again, and finds rows that kill.

Ray replaces dead processes and lost nodes; what is tried again is decided here, since only a task that nobody retries
says what became of it. A process that dies makes its shard a suspect and no more: a bare SIGKILL, the kernel's memory
killer and an evicted pod look like a row that kills. The suspect is tried again alone. Lost nodes, a lack of memory
that is noticed, and cancelled tasks blame nobody.

A shard that takes far longer than usual is tried a second time when CPUs are idle, and the first result counts: the
backup tasks of Dean and Ghemawat, "MapReduce: Simplified Data Processing on Large Clusters" (OSDI 2004), section 3.6.
"""

import functools
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median
from typing import Any, Self

from sentray import cluster
from sentray.console import count
from sentray.corpus.splits import Shard
from sentray.errors import SentrayError
from sentray.scoring.stats import WORKER_CPUS

RETRIES = 3
"""How often a shard is tried again alone when its process died, or for another reason that is not its fault."""
TICK_SECONDS = 0.5
"""A map gives its caller a moment about this often."""
SHORT_SECONDS, QUEUED = 0.25, 3
"""Where tasks take less, so many more for each that runs wait in Ray's queue, so that no process waits for the driver
(`sentray bench driver`: 440 shards a second instead of 340)."""
STRAGGLER_TIMES, STRAGGLER_SECONDS = 3.0, 5.0
"""A shard is tried a second time when it takes so many times the usual time (as Spark's speculation has it; a shard may
well take twice as long as others), and at least so long."""
MORE_AFTER = 20
"""So many tasks that end well in a row, after one got no memory, let one more run at once."""
RECENT = 101
"""So many finished tasks tell how long one takes."""
MAX_CRASHES = 16
"""So many rows of a shard may kill, and so many suspects may wait: more are a matter of memory or of the engine."""
_WAYS = 4
_AGAIN = {
    "process_died": "its process died; it is done again, alone",
    "out_of_memory": "it got no memory; it is done again, with at most {} at once",
    "cancelled": "its task was cancelled; it is done again",
    "node_lost": "the node that worked on it cannot be reached any more; it is done elsewhere",
}
"""Why an item is tried again, and in words."""

Tick = Callable[[bool], None]
"""Called now and then, with whether a task has ended since the last time."""


@dataclass(frozen=True)
class Lost:
    """An item of which each process died, also alone.

    Attributes:
        item: As it was given to `Tasks.map`.
        deaths: How many processes.
    """

    item: Any
    deaths: int


@dataclass(eq=False)
class _Item:
    """An item of a map, on its way.

    Attributes:
        value: As it was given to the map.
        began: When it was last handed out, by `time.monotonic()`.
        first: Whether it was handed out while processes were still starting.
        tries: How many tasks work on it now.
        failures: How often each thing went wrong with it.
    """

    value: Any
    began: float = 0.0
    first: bool = False
    tries: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class Tasks:
    """Runs methods of a worker in Ray's processes, for the length of a `with` block, one map after the other.

    The worker is made once in a process and kept there for the tasks to come. As many tasks run at once as the cluster
    has room for and the user asked for; nodes may come and go.

    Args:
        make: Makes the worker, whose methods take an item and return a result.
        workers: Tasks that run at once at most.
        gpus: GPUs of each.
        on_retry: Called with each item that is tried once more, why (`process_died`, `node_lost`, `cancelled`,
            `out_of_memory` or `straggler`), and that in words.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        workers: int,
        gpus: float = 0,
        on_retry: Callable[[Any, str, str], None] = lambda item, reason, line: None,
    ) -> None:
        self._make, self._wanted, self._gpus, self._on_retry = make, workers, gpus, on_retry
        self._limit, self._lowered, self._fed = workers, float("-inf"), 0
        self._starts: dict[tuple[str, int], float] = {}
        self._early_deaths, self._may_queue = 0, False
        self._running: dict[Any, _Item] = {}

    def __enter__(self) -> Self:
        import ray

        self._began = time.monotonic()
        self._made = ray.put(self._make)
        # Only the decorator of a task that has a GPU can keep Ray from ending its process after each.
        self._task = ray.remote(num_cpus=WORKER_CPUS, num_gpus=self._gpus, max_calls=0, max_retries=0)(_run)
        # More would run at once than the user asked for where there are more CPUs.
        self._may_queue = not self._gpus and self._wanted * WORKER_CPUS >= cluster.resources().cpus
        return self

    def __exit__(self, *_: object) -> None:
        # The bundle leaves the object store.
        del self._made

    @property
    def start_seconds(self) -> float:
        """Time until a process had made its worker: the mean of the first ones, without those that replace others."""
        starts = list(self._starts.values())[: self._wanted]
        return sum(starts) / len(starts) if starts else 0.0

    def expected(self, name: Callable[[Any], str]) -> str:
        """What is waited for: processes to start, or the item that takes longest.

        Args:
            name: Tells what an item is.
        """
        if not self._starts or not self._running:
            return f"{count(self._wanted, 'worker')} wanted, {len(self._starts)} seen at work"
        item = min(self._running.values(), key=lambda item: item.began)
        return f"{name(item.value)}, for {time.monotonic() - item.began:.0f} s"

    def map(
        self, method: str, items: Iterable[Any], *, retries: int = 1, tick: Tick = lambda moved: None
    ) -> Generator[Any]:
        """What a method of the worker makes of each item, in the order in which they finish.

        Args:
            method: Name of the method.
            items: Small values, drawn as they are needed.
            retries: How often an item whose process died is tried again, alone; with none, any death loses it at once.
            tick: Called about every `TICK_SECONDS`, however much there is to give.

        Yields:
            The results, and a `Lost` for each item of which `retries + 1` processes died.

        Raises:
            SentrayError: When a worker raised one, the workers cannot start, there is not enough memory, or Ray loses a
                task each time.
        """
        import ray

        self._method, self._retries, self._fresh = method, retries, map(_Item, items)
        self._again, self._suspects = deque[_Item](), deque[_Item]()
        self._seconds = deque[float](maxlen=RECENT)
        self._alone = moved = False
        ticked = time.monotonic()
        try:
            while True:
                self._hand_out()
                if not self._running:
                    return
                ready, rest = ray.wait(list(self._running), timeout=TICK_SECONDS)
                if ready and rest:
                    ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
                # A task may end another that is ready too.
                results = [result for task in ready if task in self._running for result in self._collect(task)]
                # Processes are at work again while the caller looks at the results.
                self._hand_out()
                yield from results
                moved = moved or bool(ready)
                if not ready or time.monotonic() - ticked >= TICK_SECONDS:
                    tick(moved)
                    ticked, moved = time.monotonic(), False
        finally:
            # What a map that was left has begun goes on to its end, and nobody looks at it: Ray 2.60 ends a driver that
            # cancels a task just when it completes ("Tried to complete task that was not pending").
            self._running.clear()

    def _hand_out(self) -> None:
        """Start tasks while there is room; a suspect only when nothing else runs, and nothing else beside it."""
        self._alone = self._alone and bool(self._running)
        short = self._may_queue and self._seconds and median(self._seconds) < SHORT_SECONDS
        room = self._limit * (1 + QUEUED) if short and self._limit == self._wanted else self._limit
        while len(self._running) < room and not self._alone:
            item = None
            if len(self._suspects) <= MAX_CRASHES:
                item = self._again.popleft() if self._again else next(self._fresh, None)
            if item is None and self._suspects and not self._running:
                item, self._alone = self._suspects.popleft(), True
            if item is None:
                self._try_stragglers()
                return
            item.began, item.first = time.monotonic(), len(self._starts) < self._wanted
            self._start(item)

    def _try_stragglers(self) -> None:
        """Try the items a second time that take far longer than usual, on other nodes where there are any."""
        if not self._retries or not self._seconds:
            return
        usual, now = median(self._seconds), time.monotonic()
        late = max(STRAGGLER_TIMES * usual, STRAGGLER_SECONDS)
        # The first item of a process waits for its start, on a busy machine for some much longer than for others.
        start = STRAGGLER_TIMES * self.start_seconds
        running = self._running.values()
        slow = [item for item in running if now - item.began > late + start * item.first and item.tries == 1]
        for item in sorted(slow, key=lambda item: item.began)[: max(0, self._limit - len(self._running))]:
            line = f"takes {now - item.began:.0f} s where {usual:.1f} s are usual; another process does the same"
            self._on_retry(item.value, "straggler", line)
            self._start(item, scheduling_strategy="SPREAD")

    def _start(self, item: _Item, **options: str) -> None:
        item.tries += 1
        task = self._task.options(name=f"sentray {self._method}", **options)
        self._running[task.remote([self._made], self._method, item.value)] = item

    def _collect(self, task: Any) -> list[Any]:
        """The result of a task that has ended; none where its item is tried again, or another task works on it."""
        import ray

        item = self._running.pop(task)
        item.tries -= 1
        try:
            result = ray.get(task)
        except ray.exceptions.LocalRayletDiedError as error:
            raise SentrayError(
                "Ray has ended on this machine, so that no task can run; run the same command again to go on"
            ) from error
        except ray.exceptions.RayError as error:
            reason = _reason(error)
            if reason is None:
                raise cluster.user_error(error) or error from None
            return self._failed(item, reason)
        if result is None:
            return self._failed(item, "out_of_memory")
        value, seconds, process = result
        self._starts.setdefault(process, time.monotonic() - self._began - seconds)
        self._seconds.append(seconds)
        self._fed += 1
        if self._fed >= MORE_AFTER and self._limit < self._wanted:
            self._limit, self._fed = self._limit + 1, 0
        self._end([other for other, its in self._running.items() if its is item])
        return [value]

    def _failed(self, item: _Item, reason: str) -> list[Any]:
        """Try an item again, unless that goes wrong each time; one whose processes died is given back as that."""
        # A lack of memory says something of an item only when it had all there is.
        item.failures[reason] += reason != "out_of_memory" or not self._running
        failures = item.failures[reason]
        if reason == "process_died" and not self._starts:
            self._early_deaths += 1
            if self._early_deaths > RETRIES:
                raise SentrayError(
                    f"{self._early_deaths} worker processes died while they started (out of memory?); take fewer "
                    "--workers, or see Ray's logs"
                )
        if reason == "out_of_memory":
            self._fed = 0
            # Those that began before the last lowering say nothing of what is enough now.
            if item.began > self._lowered:
                self._limit, self._lowered = max(1, self._limit - 1), time.monotonic()
        if item.tries:
            return []
        if reason == "process_died" and failures > self._retries:
            return [Lost(item.value, failures)]
        if reason == "out_of_memory" and failures > RETRIES:
            raise SentrayError(died(1, failures))
        if failures > RETRIES:
            raise SentrayError(
                f"Ray lost the task of one shard {failures} times ({reason}); see Ray's logs and whether the cluster's "
                "nodes stay up, then run the same command again to go on"
            )
        self._on_retry(item.value, reason, _AGAIN[reason].format(count(self._limit, "worker")))
        (self._suspects if reason == "process_died" else self._again).append(item)
        return []

    def _end(self, tasks: list[Any]) -> None:
        """End tasks whose item another has done, and their processes, which may hang."""
        import ray

        for task in tasks:
            del self._running[task]
            ray.cancel(task, force=True)


def _reason(error: Exception) -> str | None:
    """Why a task has no result, a key of `_AGAIN`; None where that is what its worker raised."""
    from ray import exceptions

    kinds = {
        "out_of_memory": exceptions.OutOfMemoryError,
        "process_died": exceptions.WorkerCrashedError,
        "cancelled": exceptions.TaskCancelledError,
        "node_lost": (exceptions.NodeDiedError, exceptions.ObjectLostError),
    }
    return next((reason for reason, kind in kinds.items() if isinstance(error, kind)), None)


# --- In the worker's process


def _run(made: list[Any], method: str, item: Any) -> tuple[Any, float, tuple[str, int]] | None:
    """A task: what the process's worker makes of an item, the seconds that took, and which process it is.

    None where there was not enough memory: an error would hold on to what the worker had.
    """
    import ray

    try:
        worker = _worker(made[0])
        began = time.monotonic()
        value = getattr(worker, method)(item)
    except MemoryError:
        return None
    return value, time.monotonic() - began, (ray.util.get_node_ip_address(), os.getpid())


@functools.lru_cache(maxsize=1)
def _worker(made: Any) -> Any:
    """The worker of this process; a new one where another run begins."""
    import ray

    return ray.get(made)()


# --- How many


def plan_workers(wish: int | None, items: int, gpus: float = 0) -> int:
    """How many tasks run at once: as many as wished, or one for each CPU (or GPU), and no more than there are items.

    A task reads what it scores, so no CPU must stay free to read with.

    Raises:
        SentrayError: When the cluster cannot hold them.
    """
    have = cluster.resources()
    max_workers = int(have.max_gpus / gpus) if gpus else int(have.max_cpus / WORKER_CPUS)
    return cluster.plan(max(1, min(wish or max_workers, items)), WORKER_CPUS, gpus, on=have).workers


# --- Rows that kill


def score_without_crashes(tasks: Tasks, task: Any, tick: Tick = lambda moved: None) -> Any:
    """Score a shard of which processes died, leaving out the rows that are to blame; gives its attempt.

    Args:
        tasks: Of `ShardScorer`s, all else is done.
        task: The shard, a `Task`.
        tick: As for `Tasks.map`.

    Raises:
        SentrayError: When no single rows are to blame, or too many.
    """
    deaths = 0
    # A file that kills its reader is set aside, and its rows are not to blame.
    task = replace(task, isolated=True)
    for _ in range(RETRIES):
        crashes = {*task.crashes, *_killing_rows(tasks, task, tick)}
        task = replace(task, crashes=tuple(sorted(crashes)))
        result = next(tasks.map("score", [task], tick=tick))
        if not isinstance(result, Lost):
            return result
        deaths += result.deaths
    raise SentrayError(died(1, deaths))


def _killing_rows(tasks: Tasks, task: Any, tick: Tick) -> list[int]:
    """Those rows of a shard, by index, that kill a process alone, and do so twice."""
    # Of no row at its end nothing is scored, but all are read.
    rows = next(tasks.map("probe", [(task, sys.maxsize, sys.maxsize)], retries=RETRIES, tick=tick))
    if isinstance(rows, Lost):
        raise SentrayError(reading_kills(task.shard))
    killers: list[int] = []
    suspects = _split(0, rows)
    while suspects:
        probes = tasks.map("probe", ((task, *rows) for rows in suspects), retries=0, tick=tick)
        lost = sorted(result.item[1:] for result in probes if isinstance(result, Lost))
        suspects = [part for start, stop in lost if stop - start > 1 for part in _split(start, stop)]
        for start, stop in lost:
            # Once with others beside it; now twice alone.
            if stop - start == 1 and isinstance(next(tasks.map("probe", [(task, start, stop)], tick=tick)), Lost):
                killers.append(start)
        if len(killers) + len(lost) > MAX_CRASHES:
            raise SentrayError(
                f"more than {MAX_CRASHES} rows of {files_of(task.shard)} kill the process that scores them (out "
                "of memory?); leave the file out, or take fewer --workers or a smaller --shard-size"
            )
    return killers


def _split(start: int, stop: int) -> list[tuple[int, int]]:
    """A range of rows in parts of about the same size."""
    parts = min(_WAYS, stop - start)
    return list(pairwise(start + (stop - start) * part // max(1, parts) for part in range(parts + 1)))


# --- Sentences


def files_of(shard: Shard) -> str:
    """The files of a shard for a sentence about one of them."""
    first, last = shard.pieces[0].path, shard.pieces[-1].path
    return first if first == last else f"one of the files {first} to {last}"


def reading_kills(shard: Shard) -> str:
    """The sentence for a shard whose reader dies each time."""
    return (
        f"the processes that read {files_of(shard)} died each time (out of memory, or damaged in a way that kills the "
        "reader); leave it out, or take fewer --workers or a smaller --shard-size"
    )


def died(shards: int, deaths: int) -> str:
    """The sentence for shards that are lost and stay so."""
    which = "one shard" if shards == 1 else f"each of {shards:,} shards"
    return (
        f"the processes that worked on {which} died, {deaths} of them (out of memory?); take "
        "fewer --workers or a smaller --shard-size"
    )
