"""The pool gives each item's result once, whatever happens to the processes that work on them."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from sentray import cluster
from sentray.errors import SentrayError
from sentray.scoring.pool import RETRIES, Lost, Pool, place

pytestmark = pytest.mark.usefixtures("ray_session")


class Worker:
    """Doubles numbers; dies of some of them as often as it is told to, and leaves a trace of each death."""

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

    def die_slowly(self, number: int) -> int:
        if number == 3:
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * number

    def starve(self, number: int) -> int:
        if number == 3:
            raise pa.ArrowMemoryError("malloc of size 64 failed")
        return 2 * number

    def work_or_hang(self, works: bool) -> None:
        end = time.monotonic() + 1.5
        while works and time.monotonic() < end:
            sum(range(1000))
        time.sleep(max(0.0, end - time.monotonic()))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(Worker, workers=2, cpus=0.5) as pool:
        yield pool


def test_one_pool_serves_several_maps(pool: Pool) -> None:
    assert sorted(pool.map("double", range(100))) == [2 * number for number in range(100)]
    assert sorted(pool.map("text", range(5))) == list("01234")
    assert list(pool.map("double", [])) == []
    assert 0 < pool.start_seconds < 60


def test_items_are_drawn_as_they_are_needed(pool: Pool) -> None:
    drawn: list[int] = []

    def draw() -> Iterator[int]:
        for number in range(1_000_000):
            drawn.append(number)
            yield number

    results = pool.map("double", draw())
    for _ in range(10):
        next(results)
    results.close()
    assert len(drawn) < 20
    # What is still on its way from a map that was left does not turn up in the next.
    assert sorted(pool.map("text", range(3))) == list("012")


def test_a_users_mistake_comes_back_as_it_was_raised(pool: Pool) -> None:
    with pytest.raises(SentrayError, match=r"^number 3 cannot be worked on; leave it out$") as error:
        list(pool.map("refuse", range(10)))
    assert not hasattr(error.value, "cause")
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        list(pool.map("missing", range(2)))


def test_long_items_run_side_by_side_and_the_caller_gets_moments_between(pool: Pool) -> None:
    ticks: list[float] = []
    began = time.monotonic()
    processes = list(pool.map("slow", [1.2, 1.2], tick=lambda: ticks.append(time.monotonic())))
    assert time.monotonic() - began < 2.2
    assert len(set(processes)) == 2
    assert ticks


def test_an_item_whose_process_died_is_tried_again_and_at_last_given_up(tmp_path: Path) -> None:
    with Pool(lambda: Worker(tmp_path, {2: 1, 5: 99}), workers=2, cpus=0.5) as pool:
        results = list(pool.map("double", range(8)))
        assert Lost(5, RETRIES + 1) in results
        assert sorted(result for result in results if not isinstance(result, Lost)) == [0, 2, 4, 6, 8, 12, 14]
        # As many actors as before go on.
        assert sorted(pool.map("double", [6, 7])) == [12, 14]


def test_without_retries_one_death_is_enough(tmp_path: Path) -> None:
    with Pool(lambda: Worker(tmp_path, {1: 9}), workers=1, cpus=0.5) as pool:
        assert list(pool.map("double", [0, 1, 2], retries=0)) == [0, Lost(1, 1), 4]
        # A process that gets no memory dies too.
        assert list(pool.map("starve", [2, 3, 4], retries=0)) == [4, Lost(3, 1), 8]


def all_start(pool: Pool) -> None:
    while pool.ready < 2:
        list(pool.map("slow", [0.1]))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentray.scoring.pool.STRAGGLER_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
def test_an_item_whose_actor_hangs_is_done_by_another_once(tmp_path: Path, monkeypatch) -> None:
    told: list[tuple[int, str, str]] = []
    # Behind the one that hangs another one waits.
    monkeypatch.setattr("sentray.scoring.pool.SHORT_ITEM_SECONDS", 1e9)
    with Pool(lambda: Worker(tmp_path), workers=2, cpus=0.5, on_retry=lambda *given: told.append(given)) as pool:
        all_start(pool)
        assert sorted(pool.map("hang_once", range(40))) == [2 * number for number in range(40)]
        first, behind = pool.contested
        assert first == 3 < behind
        hanging = int((tmp_path / "hangs").read_text())
        ((item, reason, line),) = told
        assert (item, reason) == (3, "straggler")
        assert re.match(rf"process {hanging} on [\d.]+ is at work for .* s are usual; process \d+ on .* same", line)
        # What hung is ended, and as many actors as before go on.
        while Path(f"/proc/{hanging}").exists():
            time.sleep(0.01)
        all_start(pool)


@pytest.mark.usefixtures("impatient")
def test_an_item_of_which_both_its_processes_die_is_lost_once() -> None:
    told: list[str] = []
    with Pool(Worker, workers=2, cpus=0.5, on_retry=lambda item, reason, line: told.append(reason)) as pool:
        all_start(pool)
        results = list(pool.map("die_slowly", range(4), retries=1))
        (lost,) = (result for result in results if isinstance(result, Lost))
        assert lost.item == 3
        # A third one may have begun before the second died.
        assert 2 <= lost.deaths <= 3
        assert set(told) == {"straggler", "process_died"}
        assert sorted(result for result in results if result != lost) == [0, 2, 4]
        # Without retries a death must be the item's own: nobody else works on it.
        assert Lost(3, 1) in list(pool.map("die_slowly", range(4), retries=0))
        assert pool.contested == []


@pytest.mark.parametrize("works", [True, False])
def test_an_actor_that_works_for_long_moves_and_one_that_hangs_does_not(works: bool, monkeypatch) -> None:
    monkeypatch.setattr("sentray.scoring.pool.PULSE_SECONDS", 0.0)
    monkeypatch.setattr("sentray.scoring.pool.TICK_SECONDS", 0.1)
    with Pool(Worker, workers=1, cpus=0.5) as pool:
        assert pool.expected(str) == "1 worker wanted, 0 started"
        list(pool.map("double", [1]))
        told, moved = [], []

        def tick() -> None:
            told.append(pool.expected(lambda item: f"the item {item}"))
            moved.append(pool.moved())

        list(pool.map("work_or_hang", [works], tick=tick))
    assert re.fullmatch(rf"the item {works}, for \d s with process \d+ on [\d.]+", told[0])
    assert len(moved) > 8
    # What it had worked before is told once.
    assert sum(moved[2:]) > 4 if works else sum(moved[2:]) <= 1


def test_workers_that_cannot_start_end_the_map(tmp_path: Path) -> None:
    def refuse() -> Worker:
        raise SentrayError("the engine does not load; install it")

    def die() -> Worker:
        os.kill(os.getpid(), signal.SIGKILL)
        return Worker()

    with Pool(refuse, workers=1, cpus=0.5) as pool, pytest.raises(SentrayError, match=r"^the engine does not load"):
        list(pool.map("double", [1]))
    with Pool(die, workers=1, cpus=0.5) as pool, pytest.raises(SentrayError, match="died while they started"):
        list(pool.map("double", [1]))


def test_work_goes_on_while_some_actors_find_no_place() -> None:
    with Pool(Worker, workers=5, cpus=1) as pool:
        assert sorted(pool.map("double", range(10))) == [2 * number for number in range(10)]
        assert 1 <= pool.ready <= 2


def test_places_as_many_workers_as_there_is_work_for() -> None:
    assert place(None, 100) == 2
    assert place(None, 1) == place(1, 100) == 1
    with pytest.raises(SentrayError, match="16 workers"):
        place(16, 100)
    with pytest.raises(SentrayError, match="the cluster has 0 GPUs: leave out --gpu"):
        place(None, 100, gpus=1)
    assert cluster.resources().cpus == 2
