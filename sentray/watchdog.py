"""`watch`: a run in which nothing moves says what it waits for, and ends when it waits for too long."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from sentray import cluster
from sentray.console import Console, count
from sentray.errors import SentrayError

NOTICE_SECONDS = 30.0
"""After so long without progress, and again whenever that has doubled, a line says what the run waits for."""
_LOOK_SECONDS = 0.5
_GRACE_SECONDS = 60.0
"""How long an interrupted run may take to end by itself; then its process is ended."""


class StalledError(SentrayError):
    """Nothing moved for as long as `--stall-timeout` allows."""


@contextlib.contextmanager
def watch(console: Console, timeout: float) -> Iterator[None]:
    """Watch over the work of a block in the main thread, since only that can be interrupted.

    Args:
        console: What is printed on it counts as progress; see `Console.moved_at`.
        timeout: Seconds without progress after which the block ends; 0 for never.

    Raises:
        StalledError: Nothing moved for so long.
        Exception: What broke in another thread; see `Console.failure`.
    """
    dog = _Watchdog(console, timeout)
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored:
        # A script's shell starts background jobs so: the user's Ctrl-C remains ignored.
        signal.signal(signal.SIGINT, dog.interrupt)
    dog.start()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        # Ray Train answers the signal with SystemExit.
        if dog.verdict is None:
            raise
        raise dog.verdict from None
    finally:
        dog.done.set()
        dog.join()
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Watchdog(threading.Thread):
    """Interrupts the main thread once `verdict` says why; ends when `done` is set."""

    def __init__(self, console: Console, timeout: float) -> None:
        super().__init__(daemon=True, name="watchdog")
        self.done = threading.Event()
        self.verdict: Exception | None = None
        self._console, self._timeout = console, timeout

    def interrupt(self, *_: object) -> None:
        """Answer a SIGINT: by an exception where it is the watchdog's."""
        if self.verdict is not None:
            raise KeyboardInterrupt

    def run(self) -> None:
        """Watch, and end the run where it has to be ended."""
        try:
            self.verdict = self._wait()
        except OSError as error:
            # Nobody reads the notice any more.
            self.verdict = error
        if self.verdict is None:
            return
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not self.done.wait(_GRACE_SECONDS):
            with contextlib.suppress(OSError):
                self._console.error(str(self.verdict))
            os._exit(1)

    def _wait(self) -> Exception | None:
        """Watch until the work is done; what ends it before."""
        notice = NOTICE_SECONDS
        while not self.done.wait(_LOOK_SECONDS):
            if self._console.failure:
                return self._console.failure
            waited = time.monotonic() - self._console.moved_at
            if waited < NOTICE_SECONDS:
                notice = NOTICE_SECONDS
            if self._timeout and waited >= self._timeout:
                cure = "free what it needs or give it less to do, and run the same command again, or allow more by"
                return StalledError(f"{_stall(waited, self._console)}; {cure} --stall-timeout")
            if waited >= notice:
                self._console.note(_stall(waited, self._console), moved=False)
                notice *= 2
        return None


def _stall(seconds: float, console: Console) -> str:
    """What the run waits for, and what the cluster has free."""
    stall = f"nothing has moved for {seconds:.0f} s: {console.expected or 'waiting for the work of the last line'}"
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return stall
    try:
        have = cluster.resources()
    except Exception as error:
        return f"{stall}; the cluster does not say what it has ({type(error).__name__})"
    gpus = f", {have.free_gpus:g} of {count(have.gpus, 'GPU')}" if have.gpus else ""
    return f"{stall}; {have.free_cpus:g} of {count(have.cpus, 'CPU')}{gpus} free on {count(len(have.nodes), 'node')}"
