"""A map ends when Ray loses the same task again and again, and its caller gets its moments however busy the map is."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from sentray.errors import SentrayError
from sentray.scoring import tasks
from sentray.scoring.tasks import Tasks


class Task:
    """A task of a cluster that does not exist: each message is what it is asked to say, or to raise."""

    def __init__(self, says: list[Any]) -> None:
        self._says = says

    def options(self, **_: Any) -> "Task":
        return self

    def remote(self, *_: Any) -> Iterator[Any]:
        return iter(list(self._says))


def map_of(monkeypatch: pytest.MonkeyPatch, says: list[Any], **options: Any) -> list[Any]:
    def get(message: Any) -> Any:
        if isinstance(message, Exception):
            raise message
        return message

    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.wait", lambda running, **_: (running, []))
    monkeypatch.setattr("ray.cancel", lambda *_, **__: None)
    running = Tasks(object, workers=1)
    running._task, running._made, running._may_queue = Task(says), None, False
    running._began = 0.0
    return list(running.map("work", [1], **options))


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
        map_of(monkeypatch, [error])


def test_without_ray_on_this_machine_nothing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import exceptions

    with pytest.raises(SentrayError, match=r"^Ray has ended on this machine.*run the same command again"):
        map_of(monkeypatch, [exceptions.LocalRayletDiedError()])


def test_the_caller_gets_moments_while_every_task_has_something_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: 0.1 * next(times))
    ticks: list[None] = []
    says = [tasks._Pulse("127.0.0.1", 1)] * 100 + [tasks._Result(7, 1.0)]
    assert map_of(monkeypatch, says, tick=lambda: ticks.append(None)) == [7]
    assert len(ticks) >= 20


def test_a_burst_without_memory_lowers_the_limit_once_and_successes_raise_it(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: dict[str, Any] = {}
    monkeypatch.setattr("ray.get", messages.get)
    running = Tasks(object, workers=8)
    course = tasks._Course(None, "work", [], 1)

    def end(*found: tuple[str, Any]) -> None:
        """Tasks that begin together, and how each ends."""
        running._running |= {Named(name): tasks._Item(name, time.monotonic(), tries=1) for name, _ in found}
        messages.update(found)
        for task in list(running._running):
            running._collect(task, course)

    end(*((f"hungry {number}", tasks._OutOfMemory()) for number in range(6)))
    assert running._limit == 7
    end(("hungry", tasks._OutOfMemory()), ("another", tasks._OutOfMemory()))
    assert running._limit == 6
    for wanted in (7, 8, 8):
        end(*((f"fed {number}", tasks._Result(1, 1.0)) for number in range(tasks.MORE_AFTER)))
        assert running._limit == wanted


class Named:
    """A task whose only message is known by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __next__(self) -> str:
        return self._name
