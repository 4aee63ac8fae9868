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
"""How long an interrupted run of the command line may take to end by itself; then its process is ended."""


class StalledError(SentrayError):
    """Nothing moved for as long as `--stall-timeout` allows."""


@contextlib.contextmanager
def watch(console: Console, timeout: float, end_process: bool = False) -> Iterator[None]:
    """Watch over the work of a block; in another thread than the main one, which cannot be interrupted, do nothing.

    Args:
        console: What is printed on it counts as progress; see `Console.moved_at`.
        timeout: Seconds without progress after which the block ends; 0 for never.
        end_process: Whether to end the process where the interrupted block does not end, as in the background of a
            script, where interrupts are ignored. A program that calls sentray is not ended: it gets the exception when
            the block does end.

    Raises:
        StalledError: Nothing moved for so long.
        Exception: What broke in another thread; see `Console.failure`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    done, verdict = threading.Event(), list[Exception]()

    def wait() -> None:
        try:
            if (end := _end(console, timeout, done)) is None:
                return
        except OSError as error:
            # Nobody reads the notice any more.
            end = error
        verdict.append(end)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if end_process and not done.wait(_GRACE_SECONDS):
            with contextlib.suppress(OSError):
                console.error(str(end))
            os._exit(1)

    dog = threading.Thread(target=wait, daemon=True, name="watchdog")
    dog.start()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        # Ray Train answers the signal with SystemExit.
        if not verdict:
            raise
        raise verdict[0] from None
    finally:
        done.set()
        dog.join()


def _end(console: Console, timeout: float, done: threading.Event) -> Exception | None:
    """Watch until the work is done; what ends it before, if anything."""
    notice = NOTICE_SECONDS
    while not done.wait(_LOOK_SECONDS):
        if console.failure:
            return console.failure
        waited = time.monotonic() - console.moved_at
        if timeout and waited >= timeout:
            cure = "free what it needs or give it less to do, and run the same command again, or allow more by"
            return StalledError(f"{_stall(waited, console)}; {cure} --stall-timeout")
        if waited < NOTICE_SECONDS:
            notice = NOTICE_SECONDS
        elif waited >= notice:
            console.note(_stall(waited, console), moved=False)
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
