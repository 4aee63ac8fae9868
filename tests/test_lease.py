"""One run at a time: the second is refused, a dead one's lease is taken over, a run that lost its lease stops."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import obstore
import pyarrow.fs as pafs
import pytest

from sentray import lease
from sentray.errors import SentrayError
from sentray.lease import Holder, Lease, require_held
from sentray.storage import Folder

NAME = "_sentray/lease.json"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run is taken for dead sooner."""
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of a real S3 server (moto's) on loopback, with one bucket."""
    pytest.importorskip("moto.server")
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    made, _ = pafs.FileSystem.from_uri(s3_uri(address, "bucket") + "&allow_bucket_creation=true")
    made.create_dir("bucket")
    yield address
    server.shutdown()


def s3_uri(address: str, path: str) -> str:
    return f"s3://user:secret@{path}?endpoint_override={address.replace(':', '%3A')}&scheme=http&region=us-east-1"


@pytest.fixture(params=["local", "s3", "s3 by the environment", "a store without conditional puts"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """What a run writes."""
    if request.param == "local":
        return Folder(str(tmp_path / "out"))
    address, path = request.getfixturevalue("s3"), f"bucket/{tmp_path.name}"
    if request.param == "s3 by the environment":
        values = {"ENDPOINT_URL": f"http://{address}", "ACCESS_KEY_ID": "user", "SECRET_ACCESS_KEY": "secret"}
        for name, value in values.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        return Folder(f"s3://{path}")
    if request.param != "s3":
        put = obstore.put
        # It takes what is put whatever the condition.
        monkeypatch.setattr(obstore, "put", lambda store, key, content, mode: put(store, key, content))
    return Folder(s3_uri(address, path))


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out"))


def leave(folder: Folder, **changes: Any) -> Holder:
    """A lease as a run leaves it that was killed or is not from here."""
    values = asdict(Holder.me()) | {"owner": "other", "host": "elsewhere", "pid": 1}
    values |= {"started": time.time() - 90} | changes
    folder.write_json(NAME, values)
    return lease.TypeAdapter(Holder).validate_python(values)


def owner(folder: Folder) -> str | None:
    holder = lease._read(folder, NAME)
    return holder and holder.owner


def heartbeat(folder: Folder) -> float:
    holder = lease._read(folder, NAME)
    assert holder is not None
    return holder.heartbeat


@pytest.fixture
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems know no locks."""

    def refuse(*_: Any) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("fcntl.flock", refuse)


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- Taking, renewing and giving back


def test_the_second_run_is_refused_until_the_first_ends(folder: Folder) -> None:
    with Lease(folder, NAME) as held:
        held.check()
        with pytest.raises(
            SentrayError, match=rf"another run \(process {os.getpid()} on .*started 0 min \d s ago\)"
        ) as error:
            Lease(folder, NAME).__enter__()
        assert "\n" not in str(error.value)
        beat = heartbeat(folder)
        wait_for(lambda: heartbeat(folder) > beat)
        assert owner(folder) == held.owner
    assert folder.sizes("") == {}
    with Lease(folder, NAME):
        assert owner(folder)


def test_conditional_puts_are_used_where_the_store_has_them(folder: Folder, request: pytest.FixtureRequest) -> None:
    with Lease(folder, NAME) as held:
        assert (held.store is not None) == (request.node.callspec.params["folder"] in ("s3", "s3 by the environment"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, SentrayError])
def test_it_is_given_back_however_the_run_ends(local: Folder, error: type[BaseException]) -> None:
    with pytest.raises(error), Lease(local, NAME):
        raise error
    assert owner(local) is None


def test_a_folder_that_is_discarded_is_not_made_again(folder: Folder) -> None:
    with Lease(folder, NAME) as held:
        folder.write("data", b"x")
        held.discard()
    assert folder.sizes("") == {}


# --- Of a dead or stale run


def test_a_killed_run_here_is_followed_at_once(local: Folder) -> None:
    script = "import sys, time; from sentray.lease import Lease; from sentray.storage import Folder"
    script += "; Lease(Folder(sys.argv[1]), sys.argv[2]).__enter__(); print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", script, local.out, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SentrayError, match=f"process {other.pid} on"):
            Lease(local, NAME).__enter__()
        os.kill(other.pid, signal.SIGKILL)
    with Lease(local, NAME) as held:
        held.check()


@pytest.mark.usefixtures("impatient")
def test_a_run_elsewhere_that_renews_its_lease_no_more_is_followed(folder: Folder) -> None:
    leave(folder)
    began = time.monotonic()
    with Lease(folder, NAME) as held:
        assert time.monotonic() - began > lease.STALE_SECONDS
        held.check()
        assert owner(folder) == held.owner


def test_a_run_elsewhere_that_lives_is_left_alone_whatever_its_clock_says(folder: Folder) -> None:
    leave(folder, heartbeat=1.0)
    alive = threading.Timer(0.2, leave, (folder,), {"heartbeat": 2.0})
    alive.start()
    with pytest.raises(SentrayError, match=r"is being written by another run .process 1 on elsewhere, started 1 min 3"):
        Lease(folder, NAME).__enter__()
    alive.join()
    assert owner(folder) == "other"


def test_a_run_elsewhere_that_ends_meanwhile_is_followed(folder: Folder) -> None:
    leave(folder)
    end = threading.Timer(0.1, folder.delete, (NAME,))
    end.start()
    with Lease(folder, NAME) as held:
        held.check()
    end.join()


@pytest.mark.usefixtures("impatient")
def test_a_lease_of_an_older_sentray_is_read(local: Folder) -> None:
    local.write_json(NAME, asdict(leave(local)) | {"boot": "x", "namespace": "pid:[1]", "space": "x pid:[1]"})
    with Lease(local, NAME):
        pass


@pytest.mark.usefixtures("impatient")
def test_a_run_here_of_an_older_sentray_is_watched_since_it_has_no_lock(local: Folder) -> None:
    values = asdict(Holder.me()) | {"space": "x pid:[1]"}
    values.pop("locked", None)
    local.write_json(NAME, values)
    alive = threading.Timer(0.2, local.write_json, (NAME, values | {"heartbeat": time.time() + 5}))
    alive.start()
    with pytest.raises(SentrayError, match="is being written by another run"):
        Lease(local, NAME).__enter__()
    alive.join()
    with Lease(local, NAME) as held:
        held.check()


def test_a_child_does_not_keep_the_lock_of_a_run_that_was_killed(local: Folder) -> None:
    script = "import os, sys, time; from sentray.lease import Lease; from sentray.storage import Folder"
    script += "; Lease(Folder(sys.argv[1]), sys.argv[2]).__enter__(); child = os.fork()"
    script += "; print(child, flush=True) if child else None; time.sleep(60)"
    command = [sys.executable, "-c", script, local.out, NAME]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        try:
            with pytest.raises(SentrayError, match=f"process {other.pid} on"):
                Lease(local, NAME).__enter__()
            os.kill(other.pid, signal.SIGKILL)
            other.wait()
            with Lease(local, NAME) as held:
                held.check()
        finally:
            os.kill(child, signal.SIGKILL)


def test_an_interrupt_at_the_end_frees_the_lock(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Lease(local, NAME).__enter__()
    stop = held._stop

    def interrupted() -> None:
        stop()
        raise KeyboardInterrupt

    monkeypatch.setattr(held, "_stop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        held.__exit__(None, None, None)
    with Lease(local, NAME) as second:
        second.check()


@pytest.mark.usefixtures("unlocked", "impatient")
def test_a_renewal_that_took_too_long_may_have_come_too_late(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(local, NAME) as held:
        held._stop()
        write = Folder.write

        def slow(self: Folder, name: str, content: bytes) -> None:
            time.sleep(lease.STALE_SECONDS)
            write(self, name, content)

        monkeypatch.setattr(Folder, "write", slow)
        held._renew()
        with pytest.raises(SentrayError, match="was taken over by another run, perhaps, because this run stood still"):
            held.check()


@pytest.mark.usefixtures("unlocked", "impatient")
def test_a_run_that_stood_still_is_taken_over_and_stops(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(folder, NAME) as held:
        # Its heartbeat stands still, too.
        held._stop()
        with Lease(folder, NAME) as second:
            monkeypatch.setattr(held, "_renewed", time.monotonic() - 100)
            with pytest.raises(SentrayError, match=r"was taken over by process .* because this run stood still"):
                held.check()
            second.check()
            held.__exit__(None, None, None)
            # The other's lease stays.
            assert owner(folder) == second.owner


def test_a_run_whose_machine_slept_looks_who_holds_the_lease(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(local, NAME) as held:
        held._stop()
        leave(local, heartbeat=time.time())
        held.check()
        # Only the wall clock went on.
        now = time.time() + 100
        monkeypatch.setattr(time, "time", lambda: now)
        with pytest.raises(SentrayError, match="was taken over by process"):
            held.check()


def test_whatever_goes_wrong_the_lease_is_renewed_again(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    held, errors = Lease(local, NAME), iter([RuntimeError("unforeseen"), SentrayError("full")])
    again = threading.Event()

    def renew() -> None:
        if error := next(errors, None):
            raise error
        again.set()

    monkeypatch.setattr(held, "_renew", renew)
    with held:
        assert again.wait(30)


# --- Two at once


@pytest.mark.usefixtures("impatient")
def test_of_many_at_once_one_gets_it(local: Folder) -> None:
    leave(local)
    got, refused, start, end = [], [], threading.Barrier(8), threading.Event()

    def take() -> None:
        start.wait()
        try:
            with Lease(local, NAME):
                got.append(1)
                end.wait()
        except SentrayError:
            refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(got) + len(refused) == 8)
    end.set()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("before", ["nothing", "a stale lease"])
def test_a_conditional_put_comes_too_late_when_another_run_was_faster(
    s3: str, tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other takes the lease between this run's last look at it and its put."""
    folder = Folder(s3_uri(s3, f"bucket/{tmp_path.name}"))
    if before == "a stale lease":
        leave(folder)
    put, faster = obstore.put, Lease(folder, NAME)

    def late(store: Any, key: str, content: bytes, mode: Any) -> Any:
        if key.endswith("lease.json"):
            monkeypatch.setattr(obstore, "put", put)
            monkeypatch.setattr(faster, "_outlive", lambda holder: holder)
            faster.__enter__()
        return put(store, key, content, mode=mode)

    monkeypatch.setattr(obstore, "put", late)
    with pytest.raises(SentrayError, match="is being written by another run"):
        Lease(folder, NAME).__enter__()
    assert owner(folder) == faster.owner
    faster.check()
    faster.__exit__(None, None, None)


def test_a_put_that_was_done_and_seemed_to_fail_counts(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client tries again, and finds its own object in the way."""
    folder = Folder(s3_uri(s3, f"bucket/{tmp_path.name}"))
    put = Lease._put
    monkeypatch.setattr(Lease, "_put", lambda *given: put(*given) and False)
    with Lease(folder, NAME) as held:
        assert owner(folder) == held.owner
        assert not held._renew()
        held.check()


@pytest.mark.usefixtures("unlocked")
def test_without_locks_and_conditional_puts_the_last_to_write_has_it(local: Folder) -> None:
    faster = threading.Timer(0.05, leave, (local,))
    faster.start()
    with pytest.raises(SentrayError, match="on elsewhere"):
        Lease(local, NAME).__enter__()
    assert owner(local) == "other"


def test_a_bucket_that_is_not_there_is_named(s3: str) -> None:
    with pytest.raises(SentrayError, match=r"lease\.json cannot be written \(The specified bucket does not exist\)"):
        Lease(Folder(s3_uri(s3, "nowhere/out")), NAME).__enter__()


# --- For the run's other processes


def test_processes_of_a_run_see_whether_it_holds_the_lease(folder: Folder) -> None:
    with Lease(folder, NAME) as held:
        require_held(folder, NAME, held.owner)
        with pytest.raises(SentrayError, match="is no longer this run's: another one took over, or it has ended"):
            require_held(folder, NAME, "another")
    with pytest.raises(SentrayError, match="is no longer this run's"):
        require_held(folder, NAME, held.owner)


def test_a_busy_store_is_asked_again(local: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 60)
    usual, failures = Folder.read, iter(["reset", "throttled", "", "reset", "reset", "reset"])

    def busy(self: Folder, name: str, cure: str = "") -> bytes | None:
        if failure := next(failures, None):
            raise self.damaged(name, OSError(failure), cure)
        return usual(self, name, cure)

    with Lease(local, NAME) as held:
        monkeypatch.setattr(Folder, "read", busy)
        monkeypatch.setattr(local, "pauses", (0.0, 0.0))
        require_held(local, NAME, held.owner)
        with pytest.raises(SentrayError, match=r"lease\.json cannot be read \(reset\).*run the same command again"):
            require_held(local, NAME, held.owner)
        assert next(failures, None) is None


# --- Damaged


@pytest.mark.parametrize(
    "changes",
    [
        {"started": float("nan")},
        {"started": float("inf")},
        {"started": 1e300},
        {"heartbeat": float("nan")},
        {"pid": float("inf")},
    ],
)
def test_a_lease_with_impossible_values_is_named(local: Folder, changes: dict[str, Any]) -> None:
    local.write_json(NAME, asdict(leave(local)) | changes)
    with pytest.raises(SentrayError, match=r"lease\.json cannot be read .*; run the same command again; .* delete it$"):
        Lease(local, NAME).__enter__()


@pytest.mark.parametrize("content", ["", "{", "\xff", '{"owner": "x"}'])
def test_a_damaged_lease_is_named(local: Folder, content: str) -> None:
    local.write(NAME, content.encode("latin-1"))
    with pytest.raises(SentrayError, match=r"lease\.json cannot be read .*; run the same command again; .* delete it$"):
        Lease(local, NAME).__enter__()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SentrayError, match=r"file.* cannot be"):
        Lease(Folder(str(tmp_path / "file" / "out")), NAME).__enter__()
