"""`run`: a measurement in a new process, on as many cores as it is to have."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentray.errors import SentrayError


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Let what is started within the block run on the first `count` of this process's cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def require_own_ray() -> None:
    """Refuse to measure a cluster that runs already: it has other cores than this process.

    Raises:
        SentrayError: RAY_ADDRESS names one.
    """
    if os.environ.get("RAY_ADDRESS"):
        raise SentrayError("the bench starts a Ray of its own on this machine: unset RAY_ADDRESS and run it again")


def memory_mb(name: str) -> float:
    """A figure of this process's memory, in MB: `VmRSS` is that of now, `VmHWM` the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024 / 1e6


def run(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module returns in a new process, which imports only what it needs.

    Args:
        what: the function's work, for the user.
        function: defined at the top of a module.
        arguments: of the function; these and the result travel as pickles.

    Raises:
        SentrayError: it failed.
    """
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    except Exception as error:
        raise SentrayError(f"{what} failed: {type(error).__name__}: {error}") from error
