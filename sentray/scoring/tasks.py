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
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple, Self

from sentray import cluster
from sentray.console import count
from sentray.corpus.splits import Shard
from sentray.errors import SentrayError
from sentray.scoring.stats import WORKER_CPUS

RETRIES = 3
"""How often a shard is tried again alone when its process died, or when it got no memory alone."""
TICK_SECONDS = 0.5
"""A map gives its caller a moment about this often."""
PULSE_SECONDS = 5.0
"""A task that takes longer says so often that it goes on."""
SHORT_SECONDS = 0.25
"""Where tasks take less, some more wait in Ray's queue, so that no process waits for the driver."""
QUEUED, MAX_QUEUED = 3, 64
"""How many more for each that runs, and at most."""
STRAGGLER_TIMES, STRAGGLER_SECONDS = 3.0, 5.0
"""A shard is tried a second time when it takes so many times the usual time of its size (as Spark's speculation has
it; a shard may well take twice as long as others), and at least so long."""
MORE_AFTER = 20
"""So many tasks that end well in a row, after one got no memory, let one more run at once."""
RECENT = 101
"""So many finished tasks tell how long one takes."""
MAX_CRASHES = 16
"""So many rows of a shard may kill, and so many suspects may wait: more are a matter of memory or of the engine."""
_WAYS = 4


@dataclass(frozen=True)
class Lost:
    """An item of which each process died, also alone.

    Attributes:
        item: As it was given to `Tasks.map`.
        deaths: How many processes.
    """

    item: Any
    deaths: int


class _Pulse(NamedTuple):
    """A task goes on; the process that begins a worker says so too, and then again what it works on."""

    address: str
    process: int


class _Result(NamedTuple):
    """What a task gives at its end, and the seconds that it took once its worker was made."""

    value: Any
    seconds: float


class _OutOfMemory(NamedTuple):
    """A task was refused memory and lives."""


@dataclass(eq=False)
class _Item:
    """An item of a map, on its way.

    Attributes:
        value: As it was given to the map.
        began: When it was last handed out, by `time.monotonic()`.
        tries: How many tasks work on it now.
        deaths: Processes that died of it.
        shortages: How often it got no memory although nothing else ran.
        losses: How often its node was lost or its task cancelled while no other worked on it.
        done: Whether it has given its result.
    """

    value: Any
    began: float = 0.0
    tries: int = 0
    deaths: int = 0
    shortages: int = 0
    losses: int = 0
    done: bool = False


class Tasks:
    """Runs methods of a worker in Ray's processes, for the length of a `with` block.

    The worker is made once in a process and kept there for the tasks to come. As many tasks run at once as the cluster
    has room for and the user asked for; nodes may come and go.

    Args:
        make: Makes the worker. Its methods take an item and are generators, which yield often and return a result.
        workers: Tasks that run at once at most.
        gpus: GPUs of each.
        size: How large an item is, compared with others; a larger one may take longer.
        on_retry: Called with each item that is tried once more, why (`process_died`, `node_lost`, `cancelled`,
            `out_of_memory` or `straggler`), and that in words.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        workers: int,
        gpus: float = 0,
        size: Callable[[Any], float] = lambda item: 1.0,
        on_retry: Callable[[Any, str, str], None] = lambda item, reason, line: None,
    ) -> None:
        self._make, self._wanted, self._gpus = make, workers, gpus
        self._size, self._on_retry = size, on_retry
        self._limit = workers
        self._running: dict[Any, _Item] = {}
        self._processes: set[_Pulse] = set()
        self._seconds: deque[float] = deque(maxlen=RECENT)
        self._sizes: deque[float] = deque(maxlen=RECENT)
        self._lowered, self._fed = float("-inf"), 0
        self._crashes = 0
        self._moves = self._moves_reported = 0
        self._starts: list[float] = []

    def __enter__(self) -> Self:
        import ray

        self._began = time.monotonic()
        self._made = ray.put(self._make)
        # Only the decorator of a task that has a GPU can keep Ray from ending its process after each.
        options = {"num_cpus": WORKER_CPUS, "num_gpus": self._gpus, "max_calls": 0, "max_retries": 0}
        self._task = ray.remote(num_returns="streaming", **options)(_run)
        # More would run at once than the user asked for where there are more CPUs.
        self._may_queue = not self._gpus and self._wanted * WORKER_CPUS >= cluster.resources().cpus
        return self

    def __exit__(self, *_: object) -> None:
        # The bundle leaves the object store.
        del self._made

    @property
    def start_seconds(self) -> float:
        """Time until a process had made its worker: the mean of the first ones, without those that replace others."""
        return sum(self._starts) / len(self._starts) if self._starts else 0.0

    def moved(self) -> bool:
        """Whether anything went on since this was asked before: a task began, ended or said that it goes on."""
        moved, self._moves_reported = self._moves != self._moves_reported, self._moves
        return moved

    def expected(self, name: Callable[[Any], str]) -> str:
        """What is waited for: processes to start, or the item that takes longest.

        Args:
            name: Tells what an item is.
        """
        ready = min(len(self._processes), self._wanted)
        started = f"{count(self._wanted, 'worker')} wanted, {ready} started"
        if not ready or not self._running:
            return started
        item = min(self._running.values(), key=lambda item: item.began)
        longest = f"{name(item.value)}, for {time.monotonic() - item.began:.0f} s"
        return longest if ready == self._wanted else f"{longest}; {started}"

    def map(
        self, method: str, items: Iterable[Any], *, retries: int = 1, tick: Callable[[], None] = lambda: None
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

        course = _Course(self._task.options(name=f"sentray {method}"), method, items, retries)
        ticked = time.monotonic()
        try:
            while True:
                self._hand_out(course)
                if not self._running:
                    return
                ready, rest = ray.wait(list(self._running), timeout=TICK_SECONDS)
                if ready and rest:
                    ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
                results = [result for task in ready if task in self._running for result in self._collect(task, course)]
                # Processes are at work again while the caller looks at the results.
                self._hand_out(course)
                yield from results
                if not ready or time.monotonic() - ticked >= TICK_SECONDS:
                    tick()
                    ticked = time.monotonic()
        finally:
            # What a map that was left has begun must not turn up in the next.
            self._end(list(self._running))

    def _hand_out(self, course: "_Course") -> None:
        """Start tasks while there is room."""
        short = self._may_queue and self._seconds and median(self._seconds) < SHORT_SECONDS
        room = self._limit + (min(QUEUED * self._limit, MAX_QUEUED) if short and self._limit == self._wanted else 0)
        while len(self._running) < room and (item := course.next(bool(self._running))):
            item.began = time.monotonic()
            self._start(item, course)
        if course.retries and course.exhausted and not course.alone and len(self._running) < self._limit:
            self._try_stragglers(course)

    def _start(self, item: _Item, course: "_Course", **options: str) -> None:
        item.tries += 1
        task = self._task.options(name=f"sentray {course.method}", **options) if options else course.task
        self._running[task.remote([self._made], course.method, item.value)] = item

    def _try_stragglers(self, course: "_Course") -> None:
        """Try the items a second time that take far longer than usual, on other nodes where there are any."""
        now = time.monotonic()
        for item in sorted(self._running.values(), key=lambda item: item.began):
            if len(self._running) >= self._limit or not self._seconds:
                return
            larger = self._size(item.value) / max(1.0, median(self._sizes))
            # A small item may take as long as one of the median size: not all work grows with the size.
            usual = median(self._seconds) * max(1.0, larger)
            late = now - item.began > max(STRAGGLER_TIMES * usual, STRAGGLER_SECONDS)
            # One that waits for a CPU is not slow.
            if late and item.tries == 1 and len(self._running) * WORKER_CPUS <= cluster.resources().cpus:
                line = f"takes {now - item.began:.0f} s where {usual:.1f} s are usual; another process does the same"
                self._on_retry(item.value, "straggler", line)
                self._start(item, course, scheduling_strategy="SPREAD")

    def _collect(self, task: Any, course: "_Course") -> list[Any]:
        """What a task says: a result, or nothing yet."""
        import ray
        from ray import exceptions

        item = self._running[task]
        try:
            message = ray.get(next(task))
        except exceptions.WorkerCrashedError:
            return self._died(task, item, course)
        except exceptions.OutOfMemoryError:
            message = _OutOfMemory()
        except exceptions.TaskCancelledError:
            return self._lost(task, item, course, "cancelled", "its task was cancelled; it is done again")
        except (exceptions.NodeDiedError, exceptions.ObjectLostError):
            line = "the node that worked on it cannot be reached any more; it is done elsewhere"
            return self._lost(task, item, course, "node_lost", line)
        except exceptions.LocalRayletDiedError as error:
            raise SentrayError(
                "Ray has ended on this machine, so that no task can run; run the same command again to go on"
            ) from error
        self._moves += 1
        if isinstance(message, SentrayError):
            raise message
        if isinstance(message, _OutOfMemory):
            return self._starved(task, item, course)
        if isinstance(message, _Pulse):
            if message not in self._processes and len(self._starts) < self._wanted:
                self._starts.append(time.monotonic() - self._began)
            self._processes.add(message)
            return []
        self._forget(task, item)
        self._fed += 1
        if self._fed >= MORE_AFTER and self._limit < self._wanted:
            self._limit, self._fed = self._limit + 1, 0
        self._seconds.append(message.seconds)
        self._sizes.append(self._size(item.value))
        item.done = True
        self._end([other for other, its in self._running.items() if its is item], force=True)
        return [message.value]

    def _died(self, task: Any, item: _Item, course: "_Course") -> list[Any]:
        self._forget(task, item)
        item.deaths += 1
        self._crashes += 1
        if self._crashes > RETRIES and not self._processes:
            raise SentrayError(
                f"{self._crashes} worker processes died while they started (out of memory?); take fewer --workers, or "
                "see Ray's logs"
            )
        if item.tries:
            return []
        if item.deaths > course.retries:
            return [Lost(item.value, item.deaths)]
        self._on_retry(item.value, "process_died", "its process died; it is done again, alone")
        course.suspects.append(item)
        return []

    def _starved(self, task: Any, item: _Item, course: "_Course") -> list[Any]:
        """Let fewer tasks run at once, for a while; nothing helps an item that got no memory although it ran alone."""
        item.shortages += len(self._running) == 1
        if item.shortages > RETRIES:
            raise SentrayError(died(1, item.shortages))
        self._fed = 0
        # Those that began before the last lowering say nothing of what is enough now.
        if item.began > self._lowered:
            self._limit, self._lowered = max(1, self._limit - 1), time.monotonic()
        line = f"it got no memory; it is done again, with at most {count(self._limit, 'worker')} at once"
        return self._again(task, item, course, "out_of_memory", line)

    def _lost(self, task: Any, item: _Item, course: "_Course", reason: str, line: str) -> list[Any]:
        """Do an item again that is not to blame, unless that goes wrong each time."""
        item.losses += item.tries == 1
        if item.losses > RETRIES:
            raise SentrayError(
                f"Ray lost the task of one shard {item.losses} times ({reason}); see Ray's logs and whether the "
                "cluster's nodes stay up, then run the same command again to go on"
            )
        return self._again(task, item, course, reason, line)

    def _again(self, task: Any, item: _Item, course: "_Course", reason: str, line: str) -> list[Any]:
        self._forget(task, item)
        if not item.tries:
            self._on_retry(item.value, reason, line)
            course.again.append(item)
        return []

    def _forget(self, task: Any, item: _Item) -> None:
        del self._running[task]
        item.tries -= 1

    def _end(self, tasks: list[Any], force: bool = False) -> None:
        """Give up tasks that nobody waits for any more; `force` ends their processes, which may hang."""
        import ray

        for task in tasks:
            self._forget(task, self._running[task])
            ray.cancel(task, force=force)


class _Course:
    """What a map has still to hand out.

    Args:
        task: Runs a method of a worker.
        method: Name of the method.
        values: The items, drawn one by one.
        retries: How often an item whose process died is tried again.

    Attributes:
        again: Items to be done again that are not to blame.
        suspects: Items whose process died.
        exhausted: Whether there is no item that was not handed out yet.
        alone: The suspect that runs now, with nothing else beside it.
    """

    def __init__(self, task: Any, method: str, values: Iterable[Any], retries: int) -> None:
        self.task, self.method, self.retries = task, method, retries
        self.again: deque[_Item] = deque()
        self.suspects: deque[_Item] = deque()
        self.exhausted = False
        self._values = iter(values)
        self.alone: _Item | None = None

    def next(self, busy: bool) -> _Item | None:
        """The next item to hand out; none while a suspect runs, or is to run when the others have ended.

        Args:
            busy: Whether something runs.
        """
        if self.alone is not None and busy:
            return None
        self.alone = None
        if len(self.suspects) <= MAX_CRASHES:
            if self.again:
                return self.again.popleft()
            for value in self._values:
                return _Item(value)
            self.exhausted = True
        if busy or not self.suspects:
            return None
        self.alone = self.suspects.popleft()
        return self.alone


# --- In the worker's process


def _run(made: list[Any], method: str, item: Any) -> Iterator[Any]:
    """A task: the process's worker works on an item; yields what `Tasks` wants to know.

    A SentrayError is a value: Ray adds to the text of an error that passes through it.
    """
    try:
        known = _worker.cache_info().misses
        worker = _worker(made[0])
        began = pulsed = time.monotonic()
        if _worker.cache_info().misses > known:
            yield _pulse()
        work = getattr(worker, method)(item)
        while True:
            try:
                next(work)
            except StopIteration as end:
                yield _Result(end.value, time.monotonic() - began)
                return
            if time.monotonic() - pulsed > PULSE_SECONDS:
                pulsed = time.monotonic()
                yield _pulse()
    except SentrayError as mistake:
        yield mistake
    except MemoryError:
        yield _OutOfMemory()


@functools.lru_cache(maxsize=1)
def _worker(made: Any) -> Any:
    """The worker of this process; a new one where another run begins."""
    import ray

    return ray.get(made)()


def _pulse() -> _Pulse:
    import ray

    return _Pulse(ray.util.get_node_ip_address(), os.getpid())


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


def describe(workers: int, gpus: float = 0) -> str:
    """The workers in a line for the user."""
    with_gpus = f" and {gpus:g} GPU" if gpus else ""
    return f"workers that read and score: {workers}, with {WORKER_CPUS:g} CPU{with_gpus} each"


# --- Rows that kill


def score_without_crashes(tasks: Tasks, task: Any, tick: Callable[[], None] = lambda: None) -> Any:
    """Score a shard of which processes died, leaving out the rows that are to blame; gives its attempt.

    Args:
        tasks: Of `ShardScorer`s, all else is done.
        task: The shard, a `Task`.
        tick: Called now and then.

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


def _killing_rows(tasks: Tasks, task: Any, tick: Callable[[], None]) -> list[int]:
    """Those rows of a shard, by index, that kill a process alone, and do so twice."""
    rows = next(tasks.map("count", [task], retries=RETRIES, tick=tick))
    if isinstance(rows, Lost):
        raise SentrayError(reading_kills(task.shard))
    killers: list[int] = []
    suspects = _split(0, rows)
    while suspects:
        lost = [
            result.item[1:]
            for result in tasks.map("probe", ((task, *rows) for rows in suspects), retries=0, tick=tick)
            if isinstance(result, Lost)
        ]
        suspects = [part for start, stop in lost if stop - start > 1 for part in _split(start, stop)]
        for start in sorted(start for start, stop in lost if stop - start == 1):
            # Once with others beside it; now twice alone.
            alone = next(tasks.map("probe", [(task, start, start + 1)], retries=1, tick=tick))
            killers += [start] if isinstance(alone, Lost) else []
        if len(killers) + len(lost) > MAX_CRASHES:
            raise SentrayError(
                f"more than {MAX_CRASHES} rows of {files_of(task.shard)} kill the process that scores them (out "
                "of memory?); leave the file out, or take fewer --workers or a smaller --shard-size"
            )
    return killers


def _split(start: int, stop: int) -> list[tuple[int, int]]:
    """A range of rows in parts of about the same size."""
    parts = min(_WAYS, stop - start)
    limits = [start + (stop - start) * part // parts for part in range(parts + 1)] if parts else []
    return list(pairwise(limits))


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
