"""`Lease`: one run at a time in a folder. A small file says who works there, and is renewed as long as it does.

A lease is stale when it was not renewed for half a minute, and at once when its process could be seen from here and is
gone. It changes hands by comparing and replacing: a run writes its name only where the file still says what that run
read. On a local file system that happens under a lock of the folder, on S3 by a conditional put. A store that has none
cannot do it in one step: there a run writes its name, waits, and reads again who is there.
"""

import contextlib
import fcntl
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sentray.errors import SentrayError
from sentray.storage import Folder, locate, refused

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
SETTLE_SECONDS = 1.0
"""How long a run waits, where a store has no conditional puts, before it reads who came last."""
_CURE = "delete it when no run works there"
_CURE_AT_WORK = "it tells whether the folder is still this run's: run the same command again to go on"

_Seconds = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]


@dataclass(frozen=True)
class Holder:
    """Who works in a folder; times are in seconds since 1970.

    Attributes:
        owner: An id made for the run.
        host: Name of its machine or container, for people.
        pid: Its process.
        heartbeat: When the lease was last renewed.
        started: When the run began.
        space: Where its process number means something: a start of a machine and a namespace of its processes. An
            older sentray's lease has none: only time shows whether such a run lives.
    """

    owner: str
    host: str
    pid: Annotated[int, Field(gt=0, lt=1 << 31)]
    heartbeat: _Seconds
    started: _Seconds
    space: str = ""

    @classmethod
    def me(cls) -> Self:
        """This process."""
        space = socket.gethostname()
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            space = f"{boot} {os.readlink('/proc/self/ns/pid')}"
        now = time.time()
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid(), now, now, space)

    @property
    def is_dead(self) -> bool:
        """Whether its process could be seen from here and is gone."""
        if self.space != Holder.me().space:
            return False
        try:
            with contextlib.suppress(PermissionError):
                os.kill(self.pid, 0)
            # A process that is over may wait for its parent to notice, in a container for ever.
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except ProcessLookupError:
            return True
        except (OSError, IndexError):
            return False

    @property
    def is_late(self) -> bool:
        """Whether it was not renewed for long, or comes from a clock that differs from ours."""
        return abs(time.time() - self.heartbeat) > STALE_SECONDS

    def describe(self) -> str:
        """Who it is and since when, for a sentence."""
        seconds = max(0, round(time.time() - self.started))
        return f"process {self.pid} on {self.host}, started {seconds // 60} min {seconds % 60} s ago"


class Lease:
    """The right to work in a folder, held for the length of a `with` block.

    Args:
        folder: What a run writes.
        name: Of the lease's file in it.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._me = Holder.me()
        self._store: Any = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sentray-lease", daemon=True)
        self._mutex = threading.Lock()
        self._lost_to = ""
        self._renewed = time.monotonic()

    @property
    def owner(self) -> str:
        """The run's id, by which its other processes ask with `require_held`."""
        return self._me.owner

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            SentrayError: When another run holds it, or the folder cannot be written.
        """
        holder = self._read()
        self._store = _conditional_store(self._folder, self._name)
        if holder is not None and not holder.is_dead:
            if not holder.is_late:
                raise self._refusal(holder)
            if holder.space != self._me.space:
                # It may live, with a clock that is wrong: then it renews the lease meanwhile.
                time.sleep(HEARTBEAT_SECONDS * 1.5)
        self._me = replace(self._me, heartbeat=time.time())
        self._replace(holder, self._me)
        if not self._folder.local and self._store is None:
            time.sleep(SETTLE_SECONDS)
        # A put that seemed to fail may have been done.
        if (holder := self._read()) is None or holder.owner != self.owner:
            raise self._refusal(holder)
        self._renewed = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        # A folder that cannot be written any more must not hide why the run ended.
        with contextlib.suppress(SentrayError):
            if (holder := self._read()) is not None and holder.owner == self.owner:
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

    def check(self) -> None:
        """Make sure that this run still holds the lease.

        Raises:
            SentrayError: When another run took it over, because this one stood still for long.
        """
        # The monotonic clock stands still while the machine sleeps, the other may be set back.
        asleep = time.time() - self._me.heartbeat
        if max(time.monotonic() - self._renewed, asleep) > STALE_SECONDS:
            self._renew()
        if self._lost_to:
            raise SentrayError(
                f"{self._folder.out} was taken over by {self._lost_to}, because this run stood still; "
                "let that one finish"
            )

    def _keep(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            # A full disk or a network that is down for a while is the job's to report, and must not end the thread.
            with contextlib.suppress(Exception):
                self._renew()

    def _renew(self) -> None:
        """Renew the lease, unless it is another's, or was and is gone with it."""
        with self._mutex:
            holder, me = self._read(_CURE_AT_WORK), replace(self._me, heartbeat=time.time())
            if holder is not None and holder.owner == self.owner:
                if self._replace(holder, me):
                    self._me, self._renewed = me, time.monotonic()
                    return
                holder = self._read(_CURE_AT_WORK)
            if holder is None:
                self._lost_to = "another run, which has ended"
            elif holder.owner != self.owner:
                self._lost_to = holder.describe()

    def _refusal(self, holder: Holder | None) -> SentrayError:
        who = f"another run ({holder.describe()})" if holder else "another run"
        return SentrayError(
            f"{self._folder.out} is being written by {who}; let it finish, stop it, or choose another --out"
        )

    def _read(self, cure: str = _CURE) -> Holder | None:
        values = _read_json(self._folder, self._name, cure)
        try:
            return None if values is None else TypeAdapter(Holder).validate_python(values)
        except ValidationError as error:
            reason = ValueError(f"it is no lease: {error.errors()[0]['msg']}")
            raise self._folder.damaged(self._name, reason, cure) from error

    def _replace(self, old: Holder | None, new: Holder) -> bool:
        """Write a holder where the file still names another, None for no file; whether it did."""
        content = (json.dumps(asdict(new), indent=1) + "\n").encode()
        if self._store is not None:
            cure = "check the permissions, then run the same command again to go on"
            with refused(f"{self._folder.out}/{self._name}", "written", cure):
                return _put(self._store, self._name, content, lambda: self._read() == old)
        with self._locked_folder() if self._folder.local else contextlib.nullcontext():
            if self._read() != old:
                return False
            self._folder.write(self._name, content)
            return True

    @contextlib.contextmanager
    def _locked_folder(self) -> Iterator[None]:
        """Keep other threads and processes out; where a file system knows no locks, the heartbeat must do."""
        folder = os.path.dirname(self._folder.path(self._name))
        with refused(self._folder.out, "written", "check the permissions, or choose another --out"):
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


# --- Conditional puts, which pyarrow lacks


def _conditional_store(folder: Folder, name: str) -> Any:
    """A folder on S3 for obstore, None where the store has no conditional puts or lets nobody in by these credentials.

    Address and keys are those of pyarrow's file system, or of the environment or the machine's role. Keys in
    `~/.aws/credentials` are not seen: with those, as where the store ignores the condition and on other stores, a run
    writes its name, waits and reads who is there.
    """
    file_system, path = locate(folder.out)
    if file_system.type_name != "s3":
        return None
    import obstore
    from obstore.exceptions import BaseError, PreconditionError

    given = file_system.__reduce__()[1][0]
    bucket, _, prefix = path.partition("/")
    options = {
        "access_key_id": given["access_key"],
        "secret_access_key": given["secret_key"],
        "session_token": given["session_token"],
        "region": given["region"],
        "skip_signature": given["anonymous"],
    }
    if endpoint := given["endpoint_override"]:
        options["endpoint"] = endpoint if "://" in endpoint else f"{given['scheme']}://{endpoint}"
    probe = f"{name}.{uuid.uuid4().hex}"
    try:
        store = obstore.store.S3Store(
            bucket,
            prefix=prefix,
            client_options={"allow_http": True, "timeout": timedelta(seconds=10)},
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=10)},
            **{name: value for name, value in options.items() if value},
        )
        # A store that does not know conditions writes this.
        obstore.put(store, probe, b"", mode={"e_tag": '"none"'})
        obstore.delete(store, probe)
    except (PreconditionError, FileNotFoundError):
        return store
    except BaseError:
        pass
    return None


def _put(store: Any, name: str, content: bytes, unchanged: Callable[[], bool]) -> bool:
    """Write a file where nobody else did since `unchanged` was asked and said yes; whether that was so.

    Raises:
        OSError: When the store refuses for another reason.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        try:
            version: Any = {"e_tag": obstore.head(store, name)["e_tag"]}
        except FileNotFoundError:
            version = "create"
        if not unchanged():
            return False
        obstore.put(store, name, content, mode=version)
    except (AlreadyExistsError, PreconditionError):
        return False
    except (BaseError, FileNotFoundError) as error:
        found = re.search("<Message>(.*?)</Message>", str(error))
        raise OSError(found[1] if found else str(error)) from error
    return True


# --- For the run's other processes


def require_held(folder: Folder, name: str, owner: str) -> None:
    """Make sure that a run still holds its lease, also in a process that cannot reach the run.

    Args:
        folder: What the run writes.
        name: Of the lease's file in it.
        owner: The run's id, `Lease.owner`.

    Raises:
        SentrayError: When another run took the lease over, this one has ended, or the lease cannot be read, also not a
            little later.
    """
    values = _read_json(folder, name, _CURE_AT_WORK)
    if values is None or values.get("owner") != owner:
        raise SentrayError(f"{folder.out} is no longer this run's: another one took over, or it has ended")


def _read_json(folder: Folder, name: str, cure: str) -> dict[str, Any] | None:
    """As `Folder.read_json`, also where a store is busy, or replaces the file between telling its size and its bytes.

    Raises:
        SentrayError: When it cannot be read a little later either.
    """
    for pause in folder.pauses:
        try:
            return folder.read_json(name, cure)
        except SentrayError:
            time.sleep(pause)
    return folder.read_json(name, cure)
