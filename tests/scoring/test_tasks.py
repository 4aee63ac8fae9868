"""Tasks give each item's result once, whatever happens to the processes that work on them."""

import os
import re
import signal
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sentray import cluster
from sentray.errors import SentrayError
from sentray.scoring import tasks
from sentray.scoring.tasks import Lost, Tasks, plan_workers

pytestmark = pytest.mark.usefixtures("ray_session")


class Worker:
    """Doubles numbers; dies of some of them as often as it is asked to, and leaves a trace of each death."""

    def __init__(self, traces: Path | None = None, fatal: dict[int, int] | None = None) -> None:
        self._traces, self._fatal = traces, fatal or {}

    def double(self, number: int) -> int:
        if self._traces is not None and number in self._fatal:
            died = len(list(self._traces.glob(f"{number}-*")))
            if died < self._fatal[number]:
                (self._traces / f"{number}-{died}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number

    def text(self, number: int) -> str:
        return str(number)

    def process(self, number: int) -> int:
        time.sleep(0.05)
        return os.getpid()

    def refuse(self, number: int) -> int:
        if number == 3:
            raise SentrayError("number 3 cannot be worked on; leave it out")
        return number

    def slow(self, seconds: float) -> int:
        time.sleep(seconds)
        return os.getpid()

    def hang_once(self, number: int) -> int:
        assert self._traces is not None
        trace = self._traces / "hangs"
        if number == 3 and not trace.exists():
            trace.write_text(str(os.getpid()))
            time.sleep(600)
        return 2 * number

    def starve(self, number: int) -> int:
        """Gets no memory for one number as long as another process works."""
        assert self._traces is not None
        mark = self._traces / f"{number}"
        mark.touch()
        time.sleep(0.1)
        others = len(list(self._traces.iterdir())) > 1
        mark.unlink()
        if number == 3 and others:
            raise pa.ArrowMemoryError("malloc of size 64 failed")
        return 2 * number

    def starve_always(self, number: int) -> int:
        raise MemoryError


@pytest.fixture(scope="module")
def pool() -> Iterator[Tasks]:
    with Tasks(Worker, workers=2) as running:
        yield all_started(running)


def all_started(running: Tasks) -> Tasks:
    """Both processes work; as long as one starts, the other does all."""
    while len(set(running.map("slow", [0.3, 0.3]))) < 2:
        pass
    return running


def test_one_worker_a_process_serves_several_maps(pool: Tasks) -> None:
    assert sorted(pool.map("double", range(100))) == [2 * number for number in range(100)]
    assert sorted(pool.map("text", range(5))) == list("01234")
    assert list(pool.map("double", [])) == []
    assert 0 < pool.start_seconds < 60


def test_items_are_drawn_as_they_are_needed(pool: Tasks) -> None:
    drawn: list[int] = []

    def draw() -> Iterator[int]:
        for number in range(1_000_000):
            drawn.append(number)
            yield number

    results = pool.map("double", draw())
    for _ in range(10):
        next(results)
    results.close()
    assert len(drawn) < 40
    # What is still on its way from a map that was left does not turn up in the next.
    assert sorted(pool.map("text", range(3))) == list("012")


def test_a_users_mistake_comes_back_as_it_was_raised(pool: Tasks) -> None:
    with pytest.raises(SentrayError, match=r"^number 3 cannot be worked on; leave it out$") as error:
        list(pool.map("refuse", range(10)))
    assert not hasattr(error.value, "cause")
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        list(pool.map("missing", range(2)))


def test_long_items_run_side_by_side_and_the_caller_gets_moments_between(pool: Tasks) -> None:
    ticks: list[float] = []
    began = time.monotonic()
    processes = list(pool.map("slow", [1.2, 1.2], tick=lambda moved: ticks.append(time.monotonic())))
    assert time.monotonic() - began < 2.2
    assert len(set(processes)) == 2
    assert ticks


def test_no_more_run_at_once_than_was_asked_for(pool: Tasks) -> None:
    with Tasks(Worker, workers=1) as one:
        began = time.monotonic()
        list(one.map("process", range(20)))
        assert time.monotonic() - began > 20 * 0.05


def test_an_item_whose_process_died_is_tried_again_alone_and_at_last_given_up(tmp_path: Path) -> None:
    told: list[tuple[int, str, str]] = []
    with Tasks(
        lambda: Worker(tmp_path, {2: 1, 5: 99}), workers=2, on_retry=lambda *given: told.append(given)
    ) as running:
        results = list(running.map("double", range(8)))
        (lost,) = (result for result in results if isinstance(result, Lost))
        # On a busy machine a second process may have tried it, too.
        assert lost.item == 5
        assert lost.deaths >= 2
        assert sorted(result for result in results if result is not lost) == [0, 2, 4, 6, 8, 12, 14]
        # The suspects come when the others are done.
        assert results[-1] in (4, lost)
        assert {(item, reason) for item, reason, _ in told if reason != "straggler"} == {
            (2, "process_died"),
            (5, "process_died"),
        }
        # New processes take the place of those that died.
        assert sorted(running.map("double", [6, 7])) == [12, 14]
        # Without retries one death is enough.
        assert sorted(running.map("double", [1, 5], retries=0), key=str) == [2, Lost(5, 1)]


def test_what_gets_no_memory_is_tried_again_with_fewer_at_once_and_blames_nobody(tmp_path: Path) -> None:
    told: list[tuple[int, str, str]] = []
    with Tasks(lambda: Worker(tmp_path), workers=2, on_retry=lambda *given: told.append(given)) as running:
        all_started(running)
        assert sorted(running.map("starve", range(6), retries=0)) == [0, 2, 4, 6, 8, 10]
        assert {(item, reason) for item, reason, _ in told if reason != "straggler"} <= {(3, "out_of_memory")}
        with pytest.raises(SentrayError, match=r"worked on one shard died, \d of them \(out of memory\?\); take fewer"):
            list(running.map("starve_always", [1]))


def test_an_item_whose_process_hangs_is_done_by_another_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "STRAGGLER_SECONDS", 0.3)
    told: list[tuple[int, str, str]] = []
    with Tasks(lambda: Worker(tmp_path), workers=2, on_retry=lambda *given: told.append(given)) as running:
        all_started(running)
        assert sorted(running.map("hang_once", range(40))) == [2 * number for number in range(40)]
        hanging = int((tmp_path / "hangs").read_text())
        line = next(line for item, reason, line in told if (item, reason) == (3, "straggler"))
        assert re.fullmatch(r"takes \d+ s where \d+\.\d s are usual; another process does the same", line)
        # What hung is ended, and the next map has all CPUs.
        while Path(f"/proc/{hanging}").exists():
            time.sleep(0.01)
        all_started(running)


@pytest.mark.parametrize(("first", "told"), [(True, []), (False, ["straggler"])])
def test_a_first_item_may_wait_for_its_process_to_start(
    first: bool, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[str] = []
    running = Tasks(Worker, workers=2, on_retry=lambda item, reason, line: reasons.append(reason))
    monkeypatch.setattr(running, "_start", lambda item, **_: None)
    # One process took 4 s to start and does an item in 0.1 s; the other has shown nothing for 8 s.
    running._retries, running._seconds, running._starts = 1, deque([0.1]), {("here", 1): 4.0}
    running._running = {"task": tasks._Item("item", time.monotonic() - 8, first, 1)}
    running._try_stragglers()
    assert reasons == told


def test_a_tick_tells_whether_a_task_has_ended(pool: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TICK_SECONDS", 0.1)
    told, moved = [], []

    def tick(ended: bool) -> None:
        told.append(pool.expected(lambda value: f"the item {value}"))
        moved.append(ended)

    assert Tasks(Worker, workers=3).expected(str) == "3 workers wanted, 0 seen at work"
    list(pool.map("slow", [1.5], tick=tick))
    assert re.fullmatch(r"the item 1\.5, for \d s", told[0])
    assert len(moved) > 8
    assert not any(moved[:-1])
    moved.clear()
    list(pool.map("slow", [0.3] * 10, tick=tick))
    assert sum(moved) > 2


def test_workers_that_cannot_start_end_the_map() -> None:
    def refuse() -> Worker:
        raise SentrayError("the engine does not load; install it")

    def die() -> Worker:
        os.kill(os.getpid(), signal.SIGKILL)
        return Worker()

    with Tasks(refuse, workers=1) as running, pytest.raises(SentrayError, match=r"^the engine does not load"):
        list(running.map("double", [1]))
    with Tasks(die, workers=1) as running, pytest.raises(SentrayError, match="died while they started"):
        list(running.map("double", range(9)))


def test_work_goes_on_while_the_cluster_has_less_room_than_was_asked_for() -> None:
    with Tasks(Worker, workers=5) as running:
        assert sorted(running.map("double", range(10))) == [2 * number for number in range(10)]


def test_as_many_tasks_as_there_is_work_for() -> None:
    assert plan_workers(None, 100) == 2
    assert plan_workers(None, 1) == plan_workers(1, 100) == 1
    with pytest.raises(SentrayError, match="16 workers"):
        plan_workers(16, 100)
    with pytest.raises(SentrayError, match="0 GPUs on 1 node, which cannot hold them"):
        plan_workers(None, 100, gpus=1)
    assert cluster.resources().cpus == 2
