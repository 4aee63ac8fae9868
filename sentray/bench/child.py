"""Measurements in processes of their own, on as many cores as they are to have."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


def run(what: str, module: str, *arguments: object) -> Any:
    """The JSON that a module prints as its last line when it is run with arguments.

    Args:
        what: the module's work, for the user.
        module: what comes after `python -m`.
        arguments: the words after it.

    Raises:
        SentrayError: it failed.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise SentrayError(f"{what} failed: {reason}")
    if not done.stdout.strip():
        raise SentrayError(f"{what} failed: it printed nothing")
    return json.loads(done.stdout.splitlines()[-1])
