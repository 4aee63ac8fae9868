"""The actors of a pool: what runs in their processes, and what the driver knows of them and of their items."""

import contextlib
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Any, NamedTuple, NoReturn

from sentray.errors import SentrayError

RECENT_ITEMS = 101
"""So many finished items tell how long one takes."""
PULSE = "pulse"
_NODE_DIED = "node has died"
"""In what Ray tells of an actor that was lost with its node."""


class Where(NamedTuple):
    """Where an actor runs: its node's id and address, and its process number there."""

    node: str
    address: str
    process: int

    def __str__(self) -> str:
        return f"process {self.process} on {self.address}"


NOWHERE = Where("", "", 0)


@dataclass(eq=False)
class Item:
    """An item of a map, on its way.

    Attributes:
        value: As it was given to the map.
        deaths: Processes that died of it.
        began: When it was handed out, by `time.monotonic()`.
        given: When it was last given to an actor, as a further one may work on it too.
    """

    value: Any
    deaths: int = 0
    began: float = 0.0
    given: float = 0.0


@dataclass(eq=False)
class Worker:
    """What the driver knows of an actor.

    Attributes:
        handle: Ray's handle.
        starting: The reference that says that it has started; None once it has.
        where: Known once it has started.
        items: What it was given, by the references of the results, the one that it works on first.
        pulse: The reference of the answer to how much it has worked, where it was asked.
        worked: What it answered last, CPU seconds.
    """

    handle: Any
    starting: Any
    where: Where = NOWHERE
    items: dict[Any, Item] = field(default_factory=dict)
    pulse: Any = None
    worked: float = 0.0


class Course:
    """A map on its way: which of the actors' methods it calls, what is to hand out, and how long items take.

    Args:
        method: Name of the method.
        values: The items, drawn one by one.
        retries: How often an item is tried again whose process died.
        size: How large an item is, compared with others.
    """

    def __init__(self, method: str, values: Iterable[Any], retries: int, size: Callable[[Any], float]) -> None:
        self.method, self.retries = method, retries
        self.again: deque[Item] = deque()
        self._values, self._size = iter(values), size
        self._seconds: deque[float] = deque(maxlen=RECENT_ITEMS)
        self._sizes: deque[float] = deque(maxlen=RECENT_ITEMS)

    def __bool__(self) -> bool:
        if not self.again:
            self.again.extend(map(Item, islice(self._values, 1)))
        return bool(self.again)

    def pop(self) -> Item:
        """The next item to hand out: those to try again first."""
        item = self.again.popleft()
        item.began = time.monotonic()
        return item

    def finished(self, item: Item) -> None:
        """Note how long an item took."""
        self._seconds.append(time.monotonic() - item.began)
        self._sizes.append(self._size(item.value))

    def usual_seconds(self, item: Item) -> float | None:
        """What an item of this size takes, going by the medians of the last ones; None while none is finished.

        A small one may take as long as one of the median size: not all work grows with the size.
        """
        if not self._seconds:
            return None
        return median(self._seconds) * max(1.0, self._size(item.value) / max(1.0, median(self._sizes)))


class Actor:
    """What runs in a process of the pool.

    It gives a SentrayError back as a value: Ray adds to the text of an error that passes through it. When it gets no
    memory it dies, as it would if the system noticed first: another attempt may get it, or tell which rows take it.
    """

    def start(self, make: Callable[[], Any]) -> Where | SentrayError:
        """Make the worker."""
        import ray

        self._clock = _own_clock()
        try:
            self._worker = make()
        except SentrayError as mistake:
            return mistake
        except MemoryError:
            _die()
        return Where(ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address(), os.getpid())

    def call(self, method: str, value: Any) -> Any:
        """What the worker's method makes of an item."""
        self._clock = _own_clock()
        try:
            return getattr(self._worker, method)(value)
        except SentrayError as mistake:
            return mistake
        except MemoryError:
            _die()

    def pulse(self) -> float:
        """CPU seconds of the thread that works on the items: they stand still when it hangs."""
        return time.clock_gettime(self._clock)


def _die() -> NoReturn:
    traceback.print_exc()
    os._exit(1)


def _own_clock() -> int:
    """The clock of this thread's CPU time; the process's, where a system tells no thread's.

    The process's never stands still: Ray's own threads always have a little to do.
    """
    if not hasattr(time, "pthread_getcpuclockid"):
        return time.CLOCK_PROCESS_CPUTIME_ID
    return time.pthread_getcpuclockid(threading.get_ident())


def remote_actor(cpus: float, gpus: float) -> Any:
    """`Actor` for Ray; one that dies stays dead, and `PULSE` names the group whose calls pass those that wait."""
    import ray

    options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0, "max_task_retries": 0}
    return ray.remote(concurrency_groups={PULSE: 1}, **options)(Actor)


def any_works(workers: Sequence[Worker]) -> bool:
    """Whether one of the actors has worked since this was asked before; the answers come the next time."""
    import ray

    for worker in workers:
        if worker.pulse is None and worker.items:
            worker.pulse = worker.handle.pulse.options(concurrency_group=PULSE).remote()
    asked = {worker.pulse: worker for worker in workers if worker.pulse is not None}
    works = False
    for answer in ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else ():
        worker = asked[answer]
        worker.pulse = None
        # One that died is found out by its item.
        with contextlib.suppress(*deaths()):
            before, worker.worked = worker.worked, ray.get(answer)
            works |= worker.worked > before
    return works


def deaths() -> tuple[type[BaseException], ...]:
    """What Ray raises when the process of a task is gone."""
    from ray import exceptions as ray

    return (
        ray.RayActorError,
        ray.WorkerCrashedError,
        ray.OutOfMemoryError,
        ray.NodeDiedError,
        ray.ObjectLostError,
    )


def is_out_of_reach(error: BaseException) -> bool:
    """Whether an actor was lost with its node or the way to it: its item is not to blame, and it may live on."""
    from ray import exceptions as ray

    if isinstance(error, ray.ActorUnavailableError | ray.NodeDiedError | ray.ObjectLostError):
        return True
    return isinstance(error, ray.RayActorError) and (error.preempted or _NODE_DIED in str(error))
