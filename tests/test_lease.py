"""One run at a time: the second is refused, a dead one's place is taken, a run that lost its place stops."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from sentray import lease
from sentray.errors import SentrayError
from sentray.lease import Holder
from sentray.scoring.ledger import LEASE, Ledger, Record
from sentray.storage import Folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "out"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "out" / LEASE


def leave(file: Path, **changes: Any) -> Holder:
    """A lease as a run leaves it that was killed or is not from here."""
    holder = replace(Holder.me(), owner="other", host="elsewhere", pid=1, started=time.time() - 90)
    holder = replace(holder, **changes)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(asdict(holder)))
    return holder


@contextlib.contextmanager
def renewed(file: Path, seconds: float, **who: str) -> Iterator[None]:
    """A lease that seems stale, and is renewed so many seconds later by a clock that is as wrong."""
    leave(file, heartbeat=time.time() - 1000, **who)
    beat = threading.Timer(seconds, lambda: leave(file, heartbeat=time.time() - 999, **who))
    beat.start()
    yield
    beat.join()


def test_the_second_run_is_refused_until_the_first_ends(ledger: Ledger, file: Path) -> None:
    with ledger.lease() as held:
        held.check()
        with pytest.raises(
            SentrayError, match=rf"another run \(process {os.getpid()} on .*started 0 min 0 s ago"
        ) as error:
            ledger.lease().__enter__()
        assert "\n" not in str(error.value)
        beat = json.loads(file.read_text())["heartbeat"]
        time.sleep(0.3)
        assert json.loads(file.read_text())["heartbeat"] > beat
        assert [path.name for path in file.parent.glob("[!.]*")] == ["lease.json"]
    assert not file.exists()
    with ledger.lease():
        assert file.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, SentrayError])
def test_it_is_given_back_however_the_run_ends(ledger: Ledger, file: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), ledger.lease():
        raise error
    assert not file.exists()


def test_a_killed_run_here_is_followed_at_once(ledger: Ledger, file: Path) -> None:
    script = "import sys, time; from sentray.scoring.ledger import Ledger; Ledger(sys.argv[1]).lease().__enter__()"
    script += "; print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, ledger.out], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SentrayError, match=f"process {other.pid} on"):
            ledger.lease().__enter__()
        os.kill(other.pid, signal.SIGKILL)
    with ledger.lease() as held:
        held.check()


def test_a_stale_lease_of_another_machine_is_taken_over(ledger: Ledger, file: Path) -> None:
    leave(file)
    with pytest.raises(SentrayError, match="process 1 on elsewhere, started 1 min 30 s ago"):
        ledger.lease().__enter__()
    for age in (100, -100):
        leave(file, heartbeat=time.time() - age)
        with ledger.lease() as held:
            held.check()


def test_a_run_whose_clock_is_wrong_is_left_alone(ledger: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.2)
    with renewed(file, 0.1), pytest.raises(SentrayError, match="on elsewhere"):
        ledger.lease().__enter__()


def test_a_run_here_that_lives_but_stood_still_is_taken_over_and_stops(ledger: Ledger, file: Path) -> None:
    with ledger.lease() as held:
        leave(file, host=socket.gethostname(), pid=os.getpid())
        time.sleep(0.2)
        with pytest.raises(SentrayError, match="was taken over by process"):
            held.check()
    # The other's lease stays.
    assert json.loads(file.read_text())["owner"] == "other"
    leave(file, host=socket.gethostname(), pid=os.getpid(), heartbeat=time.time() - 100)
    with ledger.lease():
        pass


@pytest.mark.parametrize(
    ("changes", "dead"),
    [
        ({}, True),
        ({"pid": os.getpid()}, False),
        ({"namespace": "pid:[1]"}, False),
        # Either this machine was started anew or another one has its name: the time of its start tells.
        ({"boot": "another"}, False),
        ({"boot": "another", "heartbeat": 1e9}, True),
        ({"boot": "another", "heartbeat": 1e9, "namespace": "pid:[1]"}, False),
        ({"host": "elsewhere"}, False),
    ],
)
def test_only_a_process_that_could_be_seen_is_dead(changes: dict[str, Any], dead: bool) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    holder = replace(Holder.me(), pid=gone.pid)
    assert holder.namespace
    assert holder.boot
    assert replace(holder, **changes).is_dead == dead


def test_a_late_run_in_another_container_is_waited_for(ledger: Ledger, file: Path) -> None:
    who = {"host": socket.gethostname(), "namespace": "pid:[1]"}
    with renewed(file, 0.02, **who), pytest.raises(SentrayError, match="is being written by another run"):
        ledger.lease().__enter__()


def test_a_run_that_lost_its_lease_writes_no_record(ledger: Ledger, file: Path) -> None:
    with ledger.lease() as held:
        log = ledger.commits(held.check)
        log.add(Record(0, (), None, {"rows": 0, "scored": 0, "quarantined": {}}))
        leave(file)
        time.sleep(0.2)
        with pytest.raises(SentrayError, match="taken over"):
            log.close()
    assert list(file.parent.glob("ledger/*")) == []


def test_check_notices_without_the_heartbeat(ledger: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 60)
    with ledger.lease() as held:
        leave(file)
        held.check()
        monkeypatch.setattr(lease, "STALE_SECONDS", 0)
        with pytest.raises(SentrayError, match="taken over"):
            held.check()


def test_of_many_at_once_one_gets_it(ledger: Ledger, file: Path) -> None:
    leave(file, heartbeat=time.time() - 100)
    got, refused, start, end = [], [], threading.Barrier(8), threading.Event()

    def take() -> None:
        start.wait()
        try:
            with ledger.lease():
                got.append(1)
                end.wait()
        except SentrayError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(got) + len(refused) < 8:
        time.sleep(0.01)
    end.set()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


def test_on_an_object_store_the_last_to_write_has_it(
    ledger: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "local", False)
    file.parent.mkdir(parents=True)
    with ledger.lease() as held:
        held.check()
    assert not file.exists()
    other = threading.Timer(0.05, lambda: leave(file))
    other.start()
    with pytest.raises(SentrayError, match="on elsewhere"):
        ledger.lease().__enter__()
    assert json.loads(file.read_text())["owner"] == "other"


@pytest.mark.parametrize(
    "changes",
    [
        {"started": float("nan")},
        {"started": float("inf")},
        {"started": 1e300},
        # It would never be late.
        {"heartbeat": float("nan")},
        {"heartbeat": 10**400},
        {"pid": float("inf")},
        {"pid": 10**30},
        {"pid": 0},
    ],
)
def test_a_lease_that_tells_what_cannot_be_is_named(ledger: Ledger, file: Path, changes: dict[str, Any]) -> None:
    leave(file, host=socket.gethostname(), **changes)
    with pytest.raises(SentrayError, match=r"lease\.json cannot be read .*; delete it when no run works there$"):
        ledger.lease().__enter__()


def test_a_new_fence_voids_the_earlier_ones(ledger: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 60)
    with ledger.lease() as held:
        before = held.fence
        assert not before.broken()
        held.renew_fence()
        assert "no longer this run's" in before.broken()
        assert not held.fence.broken()
        # It can be renewed as before, and no one else gets in.
        held._renew()
        held.check()
        with pytest.raises(SentrayError, match="being written by another run"):
            ledger.lease().__enter__()
        leave(file)
        with pytest.raises(SentrayError, match="was taken over"):
            held.renew_fence()
    assert json.loads(file.read_text())["owner"] == "other"


def test_a_fence_asks_a_busy_store_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 60)
    usual, failures = Folder.read, iter(["reset", "throttled", "", "reset", "reset", "reset"])

    def busy(self: Folder, name: str, cure: str = "") -> bytes | None:
        if failure := next(failures, None):
            raise self.damaged(name, OSError(failure), cure)
        return usual(self, name, cure)

    with ledger.lease() as held:
        fence = held.fence
        monkeypatch.setattr(Folder, "read", busy)
        monkeypatch.setattr(fence.folder, "pauses", (0.0, 0.0))
        assert not fence.broken()
        with pytest.raises(SentrayError, match=r"lease\.json cannot be read \(reset\).*run the same command again"):
            fence.broken()
        assert next(failures, None) is None


@pytest.mark.parametrize("content", ["", "{", "\xff", '{"owner": "x"}'])
def test_a_damaged_lease_is_named(ledger: Ledger, file: Path, content: str) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="latin-1")
    with pytest.raises(SentrayError, match=r"lease\.json cannot be read .*; delete it when no run works there$"):
        ledger.lease().__enter__()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SentrayError, match=r"file.* cannot be"):
        Ledger(str(tmp_path / "file" / "out")).lease().__enter__()


def test_a_process_that_nobody_waits_for_is_dead_when_it_is_over() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        holder = replace(Holder.me(), pid=process.pid)
        assert not holder.is_dead
        process.kill()
        # Not reaped: it stays in the list of processes.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert holder.is_dead
