"""A pool of actors that works through items one by one; scoring and evaluation share it.

It is built on Ray's actors and not on Ray Data's: a dataset retries the block of an actor that died, but cannot
say which item kills its process, keeps a block an item on the driver, and ends as a whole when the retries are out.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

from sentray import cluster
from sentray.errors import SentrayError

WORKER_CPUS = 1
RETRIES = 3
"""How often an item is tried again when the process that works on it dies."""
TICK_SECONDS = 0.5
"""A map gives its caller a moment at least this often."""
SHORT_ITEM_SECONDS = 0.25
"""An actor whose items take less has the next one waiting; longer ones go to the actor that is free first."""


@dataclass(frozen=True)
class Lost:
    """An item that gave no result.

    Attributes:
        item: As it was given to `Pool.map`.
        deaths: Processes that died of it.
    """

    item: Any
    deaths: int


@dataclass(eq=False)
class _Task:
    """An item on its way, and the deaths it has caused."""

    item: Any
    deaths: int = 0


@dataclass(eq=False)
class _Worker:
    """An actor, the reference that says it has started, and the references of its tasks, the running one first."""

    handle: Any
    starting: Any
    tasks: dict[Any, _Task] = field(default_factory=dict)


class _Queue:
    """Tasks to hand out: those to try again first, then the items, drawn one by one."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.again: deque[_Task] = deque()
        self._items = iter(items)

    def __bool__(self) -> bool:
        if not self.again:
            self.again.extend(map(_Task, islice(self._items, 1)))
        return bool(self.again)

    def pop(self) -> _Task:
        return self.again.popleft()


class Pool:
    """Actors that each hold one worker, for the length of a `with` block.

    An actor that dies is replaced, and its item is tried again. Work goes on with the actors that the cluster has
    placed, however many are still waiting for a node.

    Args:
        make: Called once in each actor; gives the worker whose methods `map` calls.
        workers: Actors.
        cpus: CPUs of each.
        gpus: GPUs of each.
    """

    def __init__(self, make: Callable[[], Any], workers: int, cpus: float = WORKER_CPUS, gpus: float = 0) -> None:
        self._make, self._size = make, workers
        self._options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._began = 0.0
        self._starts: list[float] = []

    def __enter__(self) -> Self:
        import ray

        self._began = time.monotonic()
        self._made = ray.put(self._make)
        self._actor = ray.remote(_Actor).options(**self._options)
        self._workers = [self._start() for _ in range(self._size)]
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for worker in self._workers:
            ray.kill(worker.handle)
        self._workers = []

    @property
    def start_seconds(self) -> float:
        """Time until an actor was ready, the mean of those that were; those that replace others do not count."""
        starts = self._starts[: self._size]
        return sum(starts) / len(starts) if starts else 0.0

    @property
    def ready(self) -> int:
        """Actors that have started."""
        return sum(worker.starting is None for worker in self._workers)

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
            retries: How often an item is tried again whose process died; with none, no item waits behind another, so
                that a death is its own for sure.
            tick: Called now and then while there is nothing to give.

        Yields:
            The results, and a `Lost` for each item of which `retries + 1` processes died.

        Raises:
            SentrayError: When a worker raised one, or the workers cannot start.
        """
        import ray

        queue, done, began = _Queue(items), 0, time.monotonic()
        results: list[Any] = []
        for worker in self._workers:
            worker.tasks.clear()
        while True:
            short = retries > 0 and done > 0 and (time.monotonic() - began) * self.ready < SHORT_ITEM_SECONDS * done
            self._hand_out(method, queue, 2 if short else 1)
            # The actors are at work again while the caller looks at what they made.
            for result in results:
                if isinstance(result, SentrayError):
                    raise result
                yield result
            owners = {task: worker for worker in self._workers for task in worker.tasks}
            if not owners and not queue:
                return
            owners |= {worker.starting: worker for worker in self._workers if worker.starting is not None}
            finished, _ = ray.wait(list(owners), timeout=TICK_SECONDS)
            results = []
            for worker in (owners[reference] for reference in finished):
                if worker.starting is None:
                    results += self._collect(worker, queue, retries)
                else:
                    self._note_start(worker)
            done += len(results)
            if tick is not None and not finished:
                tick()

    def _hand_out(self, method: str, queue: "_Queue", depth: int) -> None:
        """Give every actor that has started its next items, those without any first."""
        for level in range(depth):
            for worker in self._workers:
                if worker.starting is None and len(worker.tasks) == level and queue:
                    task = queue.pop()
                    worker.tasks[worker.handle.call.remote(method, task.item)] = task

    def _collect(self, worker: _Worker, queue: "_Queue", retries: int) -> list[Any]:
        """What a worker has finished, in the order in which it was given; tasks of a dead one go back."""
        import ray

        results: list[Any] = []
        while worker.tasks:
            reference, task = next(iter(worker.tasks.items()))
            if not ray.wait([reference], timeout=0)[0]:
                break
            del worker.tasks[reference]
            try:
                results.append(ray.get(reference))
            except _deaths():
                # Tasks run one after the other: it died of the first, and the others were only waiting. (Or it died
                # of the second while the answer to the first was on its way: the retries put that right.)
                task.deaths += 1
                queue.again += worker.tasks.values()
                self._replace(worker)
                if task.deaths > retries:
                    results.append(Lost(task.item, task.deaths))
                else:
                    queue.again.append(task)
                break
        return results

    def _note_start(self, worker: _Worker) -> None:
        import ray

        try:
            mistake = ray.get(worker.starting)
        except _deaths() as error:
            self._failed_starts += 1
            if self._failed_starts > RETRIES:
                raise SentrayError(
                    f"{self._failed_starts} worker processes died while they started (out of memory?); take fewer "
                    "--workers, or see Ray's logs"
                ) from error
            self._replace(worker)
            return
        if mistake is not None:
            raise mistake
        worker.starting = None
        self._failed_starts = 0
        self._starts.append(time.monotonic() - self._began)

    def _replace(self, worker: _Worker) -> None:
        import ray

        # A process that only cannot be reached must not go on beside its successor.
        ray.kill(worker.handle)
        self._workers[self._workers.index(worker)] = self._start()

    def _start(self) -> _Worker:
        handle = self._actor.remote()
        return _Worker(handle, handle.start.remote(self._made))


class _Actor:
    """Gives a SentrayError back as a value: Ray adds to the text of an error that passes through it."""

    def start(self, make: Callable[[], Any]) -> SentrayError | None:
        """Make the worker."""
        try:
            self._worker = make()
        except SentrayError as mistake:
            return mistake
        return None

    def call(self, method: str, item: Any) -> Any:
        """What the worker's method makes of an item."""
        try:
            return getattr(self._worker, method)(item)
        except SentrayError as mistake:
            return mistake


def place(wish: int | None, items: int, cpus: float = WORKER_CPUS, gpus: float = 0) -> int:
    """How many actors to use: as many as wished, or one for each CPU (or GPU), and no more than there are items.

    An actor reads what it scores, so no CPU must stay free to read with.

    Raises:
        SentrayError: When the cluster cannot hold them.
    """
    have = cluster.resources()
    most = int(have.most_gpus / gpus) if gpus else int(have.most_cpus / cpus)
    return cluster.place(max(1, min(wish or most, items)), cpus, gpus, on=have).workers


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


def _deaths() -> tuple[type[BaseException], ...]:
    """What Ray raises when the process of a task is gone."""
    from ray import exceptions as ray

    return (
        ray.RayActorError,
        ray.WorkerCrashedError,
        ray.OutOfMemoryError,
        ray.NodeDiedError,
        ray.ObjectLostError,
    )
