"""A map ends when Ray loses the same task again and again, and its caller gets its moments however busy the map is."""

import time
from typing import Any

import pytest

from sentray.errors import SentrayError
from sentray.scoring import tasks
from sentray.scoring.tasks import Tasks


class Task:
    """A task of a cluster that does not exist: it gives what it is asked to, or raises it."""

    def __init__(self, gives: Any) -> None:
        self.gives = gives

    def options(self, **_: Any) -> "Task":
        return self

    def remote(self, *_: Any) -> "Task":
        return Task(self.gives)


def map_of(monkeypatch: pytest.MonkeyPatch, gives: Any, **options: Any) -> list[Any]:
    def get(task: Task) -> Any:
        if isinstance(task.gives, Exception):
            raise task.gives
        return task.gives

    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.wait", lambda running, **_: (running, []))
    monkeypatch.setattr("ray.cancel", lambda *_, **__: None)
    running = Tasks(object, workers=1)
    running._task, running._made, running._began = Task(gives), None, 0.0
    return list(running.map("work", range(100), **options))


@pytest.mark.parametrize(
    ("kind", "given"), [("TaskCancelledError", ()), ("ObjectLostError", ("0" * 56, None, "")), ("NodeDiedError", ("",))]
)
def test_a_task_that_is_lost_each_time_ends_the_map(
    monkeypatch: pytest.MonkeyPatch, kind: str, given: tuple[Any, ...]
) -> None:
    # Not imported above: a local cluster keeps to the loopback address only where Ray is imported after it is asked to.
    from ray import exceptions

    error = getattr(exceptions, kind)(*given)
    with pytest.raises(SentrayError, match=r"Ray lost the task of one shard 4 times \((cancelled|node_lost)\)"):
        map_of(monkeypatch, error)


def test_without_ray_on_this_machine_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import exceptions

    with pytest.raises(SentrayError, match=r"^Ray has ended on this machine.*run the same command again"):
        map_of(monkeypatch, exceptions.LocalRayletDiedError())


def test_the_caller_gets_moments_however_fast_tasks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: 0.1 * next(times))
    ticks: list[bool] = []
    assert map_of(monkeypatch, (7, 1.0, ("127.0.0.1", 1)), tick=ticks.append) == [7] * 100
    assert len(ticks) >= 20
    assert all(ticks)


def test_a_burst_without_memory_lowers_the_limit_once_and_successes_raise_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import exceptions

    hungry = exceptions.OutOfMemoryError("killed")
    ends: dict[str, Any] = {}

    def get(task: str) -> Any:
        if isinstance(ends[task], Exception):
            raise ends[task]
        return ends[task]

    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.wait", lambda running, **_: ([], []))
    running = Tasks(object, workers=8)
    running._began = 0.0
    running._again, running._seconds = tasks.deque(), tasks.deque()

    def end(*found: Any) -> None:
        """Tasks that begin together, and how each ends."""
        names = [f"task {number}" for number in range(len(found))]
        running._running |= {name: tasks._Item(name, time.monotonic(), tries=1) for name in names}
        ends.update(zip(names, found, strict=True))
        for task in list(running._running):
            running._collect(task)

    end(*[hungry] * 6)
    assert running._limit == 7
    end(hungry, hungry)
    assert running._limit == 6
    for wanted in (7, 8, 8):
        end(*[(1, 1.0, ("127.0.0.1", 1))] * tasks.MORE_AFTER)
        assert running._limit == wanted
