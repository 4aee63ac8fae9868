"""A pool of actors that works through items one by one; scoring and evaluation share it.

It is built on Ray's actors and not on Ray Data's: a dataset retries the block of an actor that died, but cannot
say which item kills its process, keeps a block an item on the driver, and ends as a whole when the retries are out.

An item whose actor is far slower than the others is given to an idle one too, and the first result counts: the backup
tasks of Dean and Ghemawat, "MapReduce: Simplified Data Processing on Large Clusters" (OSDI 2004), section 3.6.
"""

import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Self

from sentray import cluster
from sentray.console import count
from sentray.errors import SentrayError
from sentray.scoring.actors import Course, Item, Where, Worker, any_works, deaths, is_out_of_reach, remote_actor

WORKER_CPUS = 1
RETRIES = 3
"""How often an item is tried again when the process that works on it dies."""
TICK_SECONDS = 0.5
"""A map gives its caller a moment at least this often."""
SHORT_ITEM_SECONDS = 0.25
"""An actor whose items take less has the next one waiting; longer ones go to the actor that is free first."""
STRAGGLER_TIMES, STRAGGLER_SECONDS = 3.0, 5.0
"""An item is given to an idle actor too when it takes so many times the usual time of its size (as Spark's speculation
has it; a shard may well take twice as long as others), and at least so long (or any hiccup would cost a process)."""
PULSE_SECONDS = 5.0
"""Where nothing is finished for so long, the actors are asked whether they work."""


@dataclass(frozen=True)
class Lost:
    """An item that gave no result.

    Attributes:
        item: As it was given to `Pool.map`.
        deaths: Processes that died of it.
    """

    item: Any
    deaths: int


class Pool:
    """Actors that each hold one worker, for the length of a `with` block.

    An actor that dies is replaced, and its item is tried again. Work goes on with the actors that the cluster has
    placed, however many are still waiting for a node.

    Args:
        make: Called once in each actor; gives the worker whose methods `map` calls.
        workers: Actors.
        cpus: CPUs of each.
        gpus: GPUs of each.
        size: How large an item is, compared with others: tells which ones may take longer.
        on_retry: Told of each item that is worked on once more, why (`process_died`, `node_lost` or `straggler`), and
            that in words.

    Attributes:
        contested: Items that a process may still work on although the pool has given it up.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        workers: int,
        cpus: float = WORKER_CPUS,
        gpus: float = 0,
        size: Callable[[Any], float] = lambda item: 1.0,
        on_retry: Callable[[Any, str, str], None] = lambda item, reason, line: None,
    ) -> None:
        self._make, self._wanted, self._cpus, self._gpus = make, workers, cpus, gpus
        self._size, self._on_retry = size, on_retry
        self._workers: list[Worker] = []
        self._failed_starts = 0
        self._began = 0.0
        self._starts: list[float] = []
        self._moves = self._moves_told = 0
        self._moved_at = 0.0
        self.contested: list[Any] = []

    def __enter__(self) -> Self:
        import ray

        self._began = self._moved_at = time.monotonic()
        self._made = ray.put(self._make)
        self._actor = remote_actor(self._cpus, self._gpus)
        self._workers = [self._start() for _ in range(self._wanted)]
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for worker in self._workers:
            ray.kill(worker.handle)
        self._workers = []

    @property
    def start_seconds(self) -> float:
        """Time until an actor was ready, the mean of those that were; those that replace others do not count."""
        starts = self._starts[: self._wanted]
        return sum(starts) / len(starts) if starts else 0.0

    @property
    def ready(self) -> int:
        """Actors that have started."""
        return sum(worker.starting is None for worker in self._workers)

    def moved(self) -> bool:
        """Whether anything went on since this was asked before: an actor started, finished an item or worked on it."""
        moved, self._moves_told = self._moves != self._moves_told, self._moves
        return moved

    def expected(self, name: Callable[[Any], str]) -> str:
        """What is waited for: actors to start, or the item that takes longest.

        Args:
            name: Tells what an item is.
        """
        started = f"{count(self._wanted, 'worker')} wanted, {self.ready} started"
        if not (at_work := self._at_work()):
            return started
        item, worker = at_work[0]
        longest = f"{name(item.value)}, for {time.monotonic() - item.began:.0f} s with {worker.where}"
        return longest if self.ready == self._wanted else f"{longest}; {started}"

    def map(
        self,
        method: str,
        items: Iterable[Any],
        *,
        retries: int = RETRIES,
        tick: Callable[[], None] | None = None,
    ) -> Generator[Any]:
        """What a method of the workers makes of each item, in the order in which they finish.

        Args:
            method: Name of the method; it takes an item.
            items: Small values, drawn as they are needed.
            retries: How often an item is tried again whose process died; with none, no item waits behind another and
                none is given to two actors, so that a death is its own for sure.
            tick: Called now and then while there is nothing to give.

        Yields:
            The results, and a `Lost` for each item of which `retries + 1` processes died.

        Raises:
            SentrayError: When a worker raised one, or the workers cannot start.
        """
        import ray

        course, done, began = Course(method, items, retries, self._size), 0, time.monotonic()
        results: list[Any] = []
        for worker in self._workers:
            worker.items.clear()
        while True:
            short = retries > 0 and done > 0 and (time.monotonic() - began) * self.ready < SHORT_ITEM_SECONDS * done
            self._hand_out(course, 2 if short else 1)
            # The actors are at work again while the caller looks at what they made.
            for result in results:
                if isinstance(result, SentrayError):
                    raise result
                yield result
            owners = {reference: worker for worker in self._workers for reference in worker.items}
            if not owners and not course:
                return
            owners |= {worker.starting: worker for worker in self._workers if worker.starting is not None}
            finished, _ = ray.wait(list(owners), timeout=TICK_SECONDS)
            results = []
            for worker in (owners[reference] for reference in finished):
                if worker.starting is None:
                    results += self._collect(worker, course)
                else:
                    self._note_start(worker)
            done += len(results)
            if not finished:
                if time.monotonic() - self._moved_at >= PULSE_SECONDS and any_works(self._workers):
                    self._moved()
                if tick is not None:
                    tick()

    def _hand_out(self, course: Course, depth: int) -> None:
        """Give every actor that has started its next items, those without any first."""
        for level in range(depth):
            for worker in self._workers:
                if worker.starting is None and len(worker.items) == level and course:
                    self._give(worker, course, course.pop())
        if course.retries and not course:
            self._back_up(course)

    def _give(self, worker: Worker, course: Course, item: Item) -> None:
        worker.items[worker.handle.call.remote(course.method, item.value)] = item
        item.given = time.monotonic()

    def _back_up(self, course: Course) -> None:
        """Give the items that take far longer than usual to idle actors too, on other nodes where there are any."""
        idle = [worker for worker in self._workers if worker.starting is None and not worker.items]
        now = time.monotonic()
        for item, holder in self._at_work() if idle else ():
            usual = course.usual_seconds(item)
            if not idle or usual is None:
                return
            # Each further actor gets as long as all before it together.
            patience = max(STRAGGLER_TIMES * usual, STRAGGLER_SECONDS, item.given - item.began)
            if now - item.given <= patience:
                continue
            other = min(idle, key=lambda worker: worker.where.node == holder.where.node)
            idle.remove(other)
            line = f"is at work for {now - item.began:.0f} s where {usual:.1f} s are usual; {other.where} does the same"
            self._on_retry(item.value, "straggler", f"{holder.where} {line}")
            self._give(other, course, item)

    def _at_work(self) -> list[tuple[Item, Worker]]:
        """All items that actors have, with the actors, those first that were handed out first."""
        pairs = ((item, worker) for worker in self._workers for item in worker.items.values())
        return sorted(pairs, key=lambda pair: pair[0].began)

    def _collect(self, worker: Worker, course: Course) -> list[Any]:
        """What a worker has finished, in the order in which it was given; items of a dead one go back."""
        import ray

        results: list[Any] = []
        while worker.items:
            reference, item = next(iter(worker.items.items()))
            if not ray.wait([reference], timeout=0)[0]:
                break
            del worker.items[reference]
            try:
                results.append(ray.get(reference))
            except deaths() as error:
                # Tasks run one after the other: it died of the first, and the others were only waiting. (Or it died
                # of the second while the answer to the first was on its way: the retries put that right.)
                results += self._died(worker, item, course, may_live=is_out_of_reach(error))
                break
            self._moved()
            course.finished(item)
            if holders := self._holders(item):
                self._call_off(item, holders, course)
        return results

    def _died(self, worker: Worker, item: Item, course: Course, may_live: bool) -> list[Lost]:
        """Give up an actor whose process died of an item or cannot be reached; an item that kills too often is lost."""
        self._give_up(worker, course, may_live)
        if may_live:
            self.contested.append(item.value)
            reason, line = "node_lost", "cannot be reached any more; what it worked on is done elsewhere"
        else:
            item.deaths += 1
            reason, line = "process_died", "died; what it worked on is done again"
        if item.deaths <= course.retries:
            self._on_retry(item.value, reason, f"{worker.where} {line}")
            self._try_again(item, course)
        elif not self._holders(item):
            return [Lost(item.value, item.deaths)]
        return []

    def _call_off(self, item: Item, holders: list[Worker], course: Course) -> None:
        """End what others do with an item that is finished; a process that cannot be reached only seems to end."""
        import ray

        self.contested.append(item.value)
        for worker in holders:
            (reference,) = (reference for reference, held in worker.items.items() if held is item)
            del worker.items[reference]
            if not ray.wait([reference], timeout=0)[0]:
                self._give_up(worker, course, may_live=True)

    def _holders(self, item: Item) -> list[Worker]:
        return [worker for worker in self._workers if item in worker.items.values()]

    def _try_again(self, item: Item, course: Course) -> None:
        """Put an item back, unless another actor is at work on it."""
        if not self._holders(item):
            course.again.append(item)

    def _give_up(self, worker: Worker, course: Course, may_live: bool) -> None:
        """Replace an actor and put back what it was given."""
        items = list(worker.items.values())
        worker.items.clear()
        self._replace(worker)
        if may_live:
            self.contested += [item.value for item in items]
        for item in items:
            self._try_again(item, course)

    def _moved(self) -> None:
        self._moves += 1
        self._moved_at = time.monotonic()

    def _note_start(self, worker: Worker) -> None:
        import ray

        try:
            where: Where | SentrayError = ray.get(worker.starting)
        except deaths() as error:
            self._failed_starts += not is_out_of_reach(error)
            if self._failed_starts > RETRIES:
                raise SentrayError(
                    f"{self._failed_starts} worker processes died while they started (out of memory?); take fewer "
                    "--workers, or see Ray's logs"
                ) from error
            self._replace(worker)
            return
        if isinstance(where, SentrayError):
            raise where
        worker.starting, worker.where = None, where
        self._failed_starts = 0
        self._starts.append(time.monotonic() - self._began)
        self._moved()

    def _replace(self, worker: Worker) -> None:
        import ray

        # A process that only cannot be reached must not go on beside its successor.
        ray.kill(worker.handle)
        self._workers[self._workers.index(worker)] = self._start()

    def _start(self) -> Worker:
        handle = self._actor.remote()
        return Worker(handle, handle.start.remote(self._made))


def place(wish: int | None, items: int, cpus: float = WORKER_CPUS, gpus: float = 0) -> int:
    """How many actors to use: as many as wished, or one for each CPU (or GPU), and no more than there are items.

    An actor reads what it scores, so no CPU must stay free to read with.

    Raises:
        SentrayError: When the cluster cannot hold them.
    """
    have = cluster.resources()
    most = int(have.max_gpus / gpus) if gpus else int(have.max_cpus / cpus)
    return cluster.plan(max(1, min(wish or most, items)), cpus, gpus, on=have).workers


def describe(workers: int, cpus: float = WORKER_CPUS, gpus: float = 0) -> str:
    """The pool in a line for the user."""
    with_gpus = f" and {gpus:g} GPU" if gpus else ""
    return f"workers that read and score: {workers}, with {cpus:g} CPU{with_gpus} each"


def died(shards: int) -> str:
    """The sentence for shards that are lost and stay so."""
    which = "one shard" if shards == 1 else f"each of {shards:,} shards"
    return (
        f"the processes that worked on {which} died, {RETRIES + 1} of them (out of memory?); take "
        "fewer --workers or a smaller --shard-size"
    )
