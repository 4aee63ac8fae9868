"""One run at a time in a folder: a small file says who works there, and is renewed as long as it does.

A lease is stale when it was not renewed for half a minute, and at once when its process was on this machine and is
no more. On a local file system, taking and renewing it happen under a lock of the folder, so that two runs cannot take
it together. An object store has no such lock: there a run writes its name, waits, and reads again who is there.
"""

import contextlib
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sentray.errors import SentrayError
from sentray.storage import Folder

_CURE = "delete it when no run works there"
_CURE_AT_WORK = "it tells whether the folder is still this run's: run the same command again to go on"
HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
SETTLE_SECONDS = 1.0
"""How long a run on an object store waits before it reads who came last."""
_MAX_PROCESS, _MAX_TIME = 1 << 31, 1e11


@dataclass(frozen=True)
class Holder:
    """Who works in a folder; times are in seconds since 1970.

    Attributes:
        owner: An id made for the run.
        host: Name of its machine or container.
        namespace: That of its process number, which means nothing in another; empty where the system has none.
        boot: The machine's id from one start to the next; empty where the system has none.
        pid: Its process.
        heartbeat: When the lease was last renewed.
        started: When the run began.
    """

    owner: str
    host: str
    namespace: str
    boot: str
    pid: int
    heartbeat: float
    started: float

    @classmethod
    def me(cls) -> Self:
        """This process."""
        namespace = boot = ""
        with contextlib.suppress(OSError):
            namespace = os.readlink("/proc/self/ns/pid")
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        now = time.time()
        return cls(uuid.uuid4().hex, socket.gethostname(), namespace, boot, os.getpid(), now, now)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """The holder that a lease names.

        Raises:
            ValueError: When the values name none.
        """
        try:
            kinds = {"pid": int, "heartbeat": float, "started": float}
            holder = cls(**{field.name: kinds.get(field.name, str)(values[field.name]) for field in fields(cls)})
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"it is no lease ({error})") from error
        # What is not a number would never be late.
        times = all(0 <= seconds < _MAX_TIME for seconds in (holder.heartbeat, holder.started))
        if not (times and 0 < holder.pid < _MAX_PROCESS):
            raise ValueError("it names a process or a time that cannot be")
        return holder

    @property
    def is_dead(self) -> bool:
        """Whether its process was on this machine and is no more."""
        here = Holder.me()
        if (self.host, self.namespace) != (here.host, here.namespace):
            return False
        if self.boot != here.boot:
            # Either this machine was started anew since, or it is another one of the same name.
            return self.heartbeat < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return _is_ended(self.pid)

    @property
    def is_late(self) -> bool:
        """Whether it was not renewed for long, or comes from a clock that differs from ours."""
        return abs(time.time() - self.heartbeat) > STALE_SECONDS

    def shares_processes(self, other: "Holder") -> bool:
        """Whether the two can see each other's process."""
        return (self.host, self.namespace, self.boot) == (other.host, other.namespace, other.boot)

    def describe(self) -> str:
        """Who it is and since when, for a sentence."""
        seconds = max(0, round(time.time() - self.started))
        return f"process {self.pid} on {self.host}, started {seconds // 60} min {seconds % 60} s ago"


def _is_ended(process: int) -> bool:
    """Whether a process is over and only waits for its parent to notice, which in a container may take for ever."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False


@dataclass(frozen=True)
class Fence:
    """By what the processes of a run know whether its lease is still its own, also when they cannot reach the run.

    Attributes:
        folder: What the run writes.
        name: Of the lease's file in it.
        owner: Id of the run.
    """

    folder: Folder
    name: str
    owner: str

    def broken(self) -> str:
        """Why nothing may be written in the folder any more; empty where it may.

        Raises:
            SentrayError: When the lease cannot be read, also not a little later.
        """
        values = self._read()
        if values is not None and values.get("owner") == self.owner:
            return ""
        return f"{self.folder.out} is no longer this run's: another one took over, or it has ended"

    def _read(self) -> dict[str, Any] | None:
        for pause in self.folder.pauses:
            try:
                return self.folder.read_json(self.name)
            except SentrayError:
                time.sleep(pause)
        return self.folder.read_json(self.name, _CURE_AT_WORK)


class Lease:
    """The right to work in a folder, held for the length of a `with` block.

    Args:
        folder: What a run writes.
        name: Of the lease's file in it.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._me = Holder.me()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sentray-lease", daemon=True)
        self._mutex = threading.Lock()
        self._taken_by: Holder | None = None
        self._renewed = time.monotonic()

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            SentrayError: When another run holds it, or the folder cannot be written.
        """
        self._require_free(self._read())
        with self._lock():
            # Another run may have taken it while this one looked whether the last holder is alive.
            self._require_free(self._read(), patient=False)
            self._write(self._me)
        if not self._folder.local:
            time.sleep(SETTLE_SECONDS)
            if (holder := self._read()) and holder.owner != self._me.owner:
                raise self._refusal(holder)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        # A folder that cannot be written any more must not hide why the run ended.
        with contextlib.suppress(SentrayError):
            # A folder that is gone already is not made again, as the lock would.
            if self._read() is not None:
                with self._lock():
                    if (holder := self._read()) and holder.owner == self._me.owner:
                        self._folder.delete(self._name)

    def discard(self) -> None:
        """Remove the folder with all it holds while nothing renews the lease in it.

        Raises:
            SentrayError: When it cannot be removed.
        """
        self._stop()
        self._folder.delete("")

    def _stop(self) -> None:
        self._end.set()
        self._thread.join()

    @property
    def owner(self) -> str:
        """The run's id."""
        return self._me.owner

    @property
    def fence(self) -> Fence:
        """What travels to the run's workers."""
        return Fence(self._folder, self._name, self._me.owner)

    def renew_fence(self) -> None:
        """Hold the lease under another id from now on: processes that have an earlier `fence` may not write any more.

        Raises:
            SentrayError: When another run took the lease over, or the folder cannot be written.
        """
        self._renew(uuid.uuid4().hex)
        self.check()

    def check(self) -> None:
        """Make sure that this run still holds the lease.

        Raises:
            SentrayError: When another run took it over, because this one stood still for long.
        """
        if time.monotonic() - self._renewed > STALE_SECONDS:
            self._renew()
        if self._taken_by:
            raise SentrayError(
                f"{self._folder.out} was taken over by {self._taken_by.describe()}, because this run stood still; "
                "let that one finish"
            )

    def _keep(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            # A full disk or a network that is down for a while is the job's to report.
            with contextlib.suppress(SentrayError):
                self._renew()

    def _renew(self, owner: str = "") -> None:
        with self._lock():
            holder = self._read(_CURE_AT_WORK)
            if holder and holder.owner != self._me.owner:
                self._taken_by = holder
            else:
                me = replace(self._me, owner=owner or self._me.owner)
                self._write(me)
                self._me, self._renewed = me, time.monotonic()

    def _require_free(self, holder: Holder | None, patient: bool = True) -> None:
        """Refuse when a living run holds the lease; of one on another machine time shows whether it lives."""
        if holder is None or holder.is_dead:
            return
        if patient and holder.is_late and not holder.shares_processes(self._me):
            time.sleep(HEARTBEAT_SECONDS * 1.5)
            now = self._read()
            if now and now != holder:
                raise self._refusal(now)
        if not holder.is_late:
            raise self._refusal(holder)

    def _refusal(self, holder: Holder) -> SentrayError:
        return SentrayError(
            f"{self._folder.out} is being written by another run ({holder.describe()}); let it finish, stop it, or "
            "choose another --out"
        )

    def _read(self, cure: str = _CURE) -> Holder | None:
        values = self._folder.read_json(self._name, cure)
        if values is None:
            return None
        try:
            return Holder.from_json(values)
        except ValueError as error:
            raise self._folder.damaged(self._name, error, cure) from error

    def _write(self, holder: Holder) -> None:
        self._folder.write_json(self._name, asdict(holder) | {"heartbeat": time.time()})

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Keep other threads and processes out; where a file system knows no locks, the heartbeat must do."""
        with self._mutex, self._locked_folder() if self._folder.local else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def _locked_folder(self) -> Iterator[None]:
        try:
            folder = os.path.dirname(self._folder.path(self._name))
            os.makedirs(folder, exist_ok=True)
            place = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise SentrayError(
                f"{self._folder.out} cannot be written ({error.strerror}); check the permissions, or choose "
                "another --out"
            ) from error
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(place, fcntl.LOCK_EX)
            yield
        finally:
            os.close(place)


def require_held(folder: Folder, name: str, owner: str) -> None:
    """Make sure that a run still holds its lease; for its processes that cannot reach the run.

    Raises:
        SentrayError: When it does not, or the lease cannot be read, also not a little later.
    """
    if why := Fence(folder, name, owner).broken():
        raise SentrayError(why)
