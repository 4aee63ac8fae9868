"""`Lease`: one run at a time in a folder. A small file says who works there, and is renewed as long as it does.

On this machine a lock keeps others out, which the system releases when the process ends, however it ends. Elsewhere,
and where a file system knows no locks, a run is taken for dead when its file does not change for half a minute; who
finds one waits so long. The file changes hands by a conditional put where an S3 store has them; on other stores a run
writes its name, waits, and reads again who is there.
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
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from sentray.errors import SentrayError
from sentray.storage import Folder, locate, refused

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
SETTLE_SECONDS = 1.0
"""How long a run waits, where there is neither a lock nor a conditional put, before it reads who came last."""
REQUEST_TIMEOUT = timedelta(seconds=10)
_CURE = "run the same command again; where that does not help and no run works there, delete it"

_Seconds = Annotated[float, Field(ge=0, lt=1e11, allow_inf_nan=False)]


@dataclass(frozen=True)
class Holder:
    """Who works in a folder; times are in seconds since 1970.

    Attributes:
        owner: An id made for the run.
        host: Name of its machine or container.
        pid: Its process, for people.
        heartbeat: When the lease was last renewed.
        started: When the run began.
        locked: Whether it has a lock, too; an older sentray's has none.
    """

    owner: str
    host: str
    pid: int
    heartbeat: _Seconds
    started: _Seconds
    locked: bool = False

    @classmethod
    def me(cls) -> Self:
        """This process."""
        now = time.time()
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid(), now, now)

    def describe(self) -> str:
        """Who it is and since when, for a sentence."""
        seconds = max(0, round(time.time() - self.started))
        return f"process {self.pid} on {self.host}, started {seconds // 60} min {seconds % 60} s ago"


class Lease:
    """The right to work in a folder, held for the length of a `with` block.

    Args:
        folder: What a run writes.
        name: Of the lease's file in it.

    Attributes:
        store: The folder for obstore, where that can reach it and the store has conditional puts.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name, self._me = folder, name, Holder.me()
        self.store: Any = None
        self._lock: int | None = None
        self._end, self._mutex = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="sentray-lease", daemon=True)
        self._lost_to = ""
        self._renewed = time.monotonic()

    @property
    def owner(self) -> str:
        """The run's id, by which its other processes ask with `require_held`."""
        return self._me.owner

    def __enter__(self) -> Self:
        """Take the lease, after a while where the run that has it may be dead.

        Raises:
            SentrayError: When another run holds it, or the folder cannot be written.
        """
        with self._refusals():
            self._lock_folder()
            try:
                self._take()
            except BaseException:
                self._unlock()
                raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop()
            # A folder that cannot be written any more must not hide why the run ended.
            with contextlib.suppress(SentrayError):
                require_held(self._folder, self._name, self.owner)
                self._folder.delete(self._name)
        finally:
            self._unlock()

    def discard(self) -> None:
        """Remove the folder with all it holds while nothing renews the lease in it.

        Raises:
            SentrayError: When it cannot be removed.
        """
        self._stop()
        self._folder.delete("")

    def check(self) -> None:
        """Make sure that this run still holds the lease.

        Raises:
            SentrayError: When another run took it over, because this one stood still for long.
        """
        # The monotonic clock stands still while the machine sleeps, the other may be set back.
        if max(time.monotonic() - self._renewed, time.time() - self._me.heartbeat) > STALE_SECONDS:
            self._renew()
        if self._lost_to:
            raise SentrayError(
                f"{self._folder.out} was taken over by {self._lost_to}, because this run stood still; "
                "let that one finish"
            )

    def _refusals(self) -> contextlib.AbstractContextManager[None]:
        return refused(f"{self._folder.out}/{self._name}", "written", "check the permissions, or choose another --out")

    def _lock_folder(self) -> None:
        """Lock a local folder for this run; nothing is locked where the file system knows no locks."""
        if not self._folder.local:
            return
        folder = os.path.dirname(self._folder.path(self._name))
        os.makedirs(folder, exist_ok=True)
        self._lock = os.open(folder, os.O_RDONLY)
        _LOCKED.add(self)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._unlock()
            if isinstance(error, BlockingIOError):
                raise self._refusal(_read(self._folder, self._name)) from error

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None
        _LOCKED.discard(self)

    def _take(self) -> None:
        holder = _read(self._folder, self._name)
        if holder is not None and not (self._lock is not None and holder.locked and holder.host == self._me.host):
            holder = self._outlive(holder)
        self.store = _conditional_store(self._folder, self._name)
        self._write(holder)
        if self._lock is None and self.store is None:
            time.sleep(SETTLE_SECONDS)
        # A put that seemed to fail may have been done.
        holder = _read(self._folder, self._name)
        if holder is None or holder.owner != self.owner:
            raise self._refusal(holder)

    def _outlive(self, holder: Holder) -> Holder | None:
        """Wait until a run has ended or must be dead; whom the file names then."""
        until = time.monotonic() + STALE_SECONDS
        while time.monotonic() < until:
            time.sleep(HEARTBEAT_SECONDS / 5)
            now = _read(self._folder, self._name)
            if now is None:
                return None
            if now != holder:
                raise self._refusal(now)
        return holder

    def _stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._end.wait(HEARTBEAT_SECONDS):
            # A full disk or a network that is down for a while is the job's to report, and must not end the thread.
            with contextlib.suppress(Exception):
                self._renew()

    def _renew(self) -> None:
        """Renew the lease, unless it is another's, or was and is gone with it."""
        with self._mutex, self._refusals():
            began = time.time()
            holder = _read(self._folder, self._name)
            if holder is not None and holder.owner == self.owner:
                if self._write(holder):
                    slow = time.time() - began > STALE_SECONDS - HEARTBEAT_SECONDS
                    if slow and self._lock is None and self.store is None:
                        # Another run may have come between reading and writing.
                        self._lost_to = "another run, perhaps"
                    return
                holder = _read(self._folder, self._name)
            if holder is None:
                self._lost_to = "another run, which has ended"
            elif holder.owner != self.owner:
                self._lost_to = holder.describe()

    def _refusal(self, holder: Holder | None) -> SentrayError:
        who = f"another run ({holder.describe()})" if holder else "another run"
        return SentrayError(
            f"{self._folder.out} is being written by {who}; let it finish, stop it, or choose another --out"
        )

    def _write(self, old: Holder | None) -> bool:
        """Write that this run works here now; where puts are conditional, only if the file still names `old`."""
        me = replace(self._me, heartbeat=time.time(), locked=self._lock is not None)
        content = (json.dumps(asdict(me), indent=1) + "\n").encode()
        if self.store is None:
            self._folder.write(self._name, content)
        elif not self._put(old, content):
            return False
        self._me, self._renewed = me, time.monotonic()
        return True

    def _put(self, old: Holder | None, content: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

        try:
            try:
                version: Any = {"e_tag": obstore.head(self.store, self._name)["e_tag"]}
            except FileNotFoundError:
                version = "create"
            if _read(self._folder, self._name) != old:
                return False
            obstore.put(self.store, self._name, content, mode=version)
        except (AlreadyExistsError, PreconditionError):
            return False
        except (BaseError, FileNotFoundError) as error:
            found = re.search("<Message>(.*?)</Message>", str(error))
            raise OSError(found[1] if found else str(error)) from error
        return True


_LOCKED: set[Lease] = set()


def _forget_locks() -> None:
    for lease in list(_LOCKED):
        lease._unlock()


# A child that outlives a killed run must not keep the folder locked.
os.register_at_fork(after_in_child=_forget_locks)


def s3_store(folder: Folder, timeout: timedelta) -> Any:
    """A folder on S3 for obstore.

    Address and keys are those of pyarrow's file system, or of the environment or the machine's role. Keys in
    `~/.aws/credentials` are not seen.

    Args:
        folder: The folder, which is on S3.
        timeout: Of a request; a later failure is not tried again.

    Raises:
        obstore.exceptions.BaseError: When the settings do not make a store.
    """
    import obstore

    file_system, path = locate(folder.out)
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
    return obstore.store.S3Store(
        bucket,
        prefix=prefix,
        client_options={"allow_http": True, "timeout": timeout},
        retry_config={"max_retries": 3, "retry_timeout": timeout},
        **{name: value for name, value in options.items() if value},
    )


def _conditional_store(folder: Folder, name: str) -> Any:
    """A folder on S3; None elsewhere, where the store has no conditional puts, or where these keys let nobody in."""
    if locate(folder.out)[0].type_name != "s3":
        return None
    import obstore
    from obstore.exceptions import BaseError, PreconditionError

    probe = f"{name}.{uuid.uuid4().hex}"
    with contextlib.suppress(BaseError):
        store = s3_store(folder, REQUEST_TIMEOUT)
        try:
            # A store that does not know conditions writes this.
            obstore.put(store, probe, b"", mode={"e_tag": '"none"'})
            obstore.delete(store, probe)
        except (PreconditionError, FileNotFoundError):
            return store
    return None


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
    holder = _read(folder, name)
    if holder is None or holder.owner != owner:
        raise SentrayError(f"{folder.out} is no longer this run's: another one took over, or it has ended")


def _read(folder: Folder, name: str) -> Holder | None:
    """Who holds a lease, also where a store is busy, or replaces the file between telling its size and its bytes.

    Raises:
        SentrayError: When it cannot be read a little later either, or is damaged.
    """
    for pause in folder.pauses:
        try:
            return _read_once(folder, name)
        except SentrayError:
            time.sleep(pause)
    return _read_once(folder, name)


def _read_once(folder: Folder, name: str) -> Holder | None:
    values = folder.read_json(name, _CURE)
    try:
        return None if values is None else TypeAdapter(Holder).validate_python(values)
    except ValidationError as error:
        raise folder.damaged(name, ValueError(f"it is no lease: {error.errors()[0]['msg']}"), _CURE) from error
