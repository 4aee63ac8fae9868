"""Which items are late, and who gets them then; without Ray, by a clock that stands still."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from sentray.scoring import actors, pool
from sentray.scoring.actors import Course, Where, Worker
from sentray.scoring.pool import Pool


class Clock:
    """Tells the seconds that it was set to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (actors, pool):
        monkeypatch.setattr(module, "time", clock)
    return clock


def course(values: list[float], size: Callable[[float], float] = lambda value: value) -> Course:
    return Course("work", values, 3, size)


def test_what_is_usual_grows_with_the_size_and_does_not_shrink(clock: Clock) -> None:
    work = course([10, 10, 20, 1000, 1])
    large = [work.pop() for _ in range(5) if work]
    assert work.usual_seconds(large[3]) is None
    for item, seconds in zip(large[:3], (4, 6, 8), strict=True):
        clock.now = seconds
        work.finished(item)
    assert [work.usual_seconds(item) for item in large] == [6, 6, 12, 600, 6]


def test_an_item_without_a_size_takes_what_is_usual(clock: Clock) -> None:
    work = course([0, 0], lambda value: 0)
    first, second = (work.pop() for _ in range(2) if work)
    clock.now = 5
    work.finished(first)
    assert work.usual_seconds(second) == 5


def test_a_late_item_goes_to_ever_more_actors_and_a_large_one_later(clock: Clock) -> None:
    told: list[tuple[Any, ...]] = []
    actors_of = Pool(lambda: None, 4, size=lambda value: value, on_retry=lambda *given: told.append(given))
    handle = SimpleNamespace(call=SimpleNamespace(remote=lambda method, value: object()))
    actors_of._workers = [Worker(handle, None, Where("node", "host", number)) for number in range(4)]
    work = course([1, 1, 1, 50])
    actors_of._hand_out(work, 1)
    clock.now = 10
    for worker in actors_of._workers[:3]:
        work.finished(worker.items.popitem()[1])

    began = []
    for clock.now in range(11, 10_000):
        actors_of._hand_out(work, 1)
        if len(told) > len(began):
            began.append(clock.now)
    # Fifty times 10 s are usual; three times as much is late, and each further actor gets as long as those before.
    assert began == [1501, 3003, 6007]
    assert {(item, reason) for item, reason, _ in told} == {(50, "straggler")}
    assert (
        told[0][2] == "process 3 on host is at work for 1501 s where 500.0 s are usual; process 0 on host does the same"
    )
    assert all(len(worker.items) == 1 for worker in actors_of._workers)
