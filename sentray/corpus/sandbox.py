"""What untrusted bytes may do to the process that decodes them: `bounded_memory`, and `run` in a process of its own.

A few bytes of Parquet may stand for gigabytes, and a damaged footer may end its reader (Arrow is C++). Two means keep
that in bounds, whatever the file holds:

- `bounded_memory` is for the process that wants the rows. While it reads, `RLIMIT_DATA` lets it have `MAX_READ_BYTES`
  more than it has, and Arrow allocates from the system: its default allocator reserves a gigabyte at a time, which
  would count. What asks for more gets a `MemoryError`, and the process lives. It costs 50 us a table; rows that came
  from a process of their own would cost as much again as to decode them (measured: 390 MB in 0.5 s here, in 1.0 s
  through a pipe), so reading stays here.
- `run` is for whoever must not die of a file: the driver, `verify`, and a worker whose like died of the same shard.
  The process takes 0.5 s to start and 40 MB, and is kept for further calls.
"""

import atexit
import contextlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

import pyarrow as pa

from sentray.errors import SentrayError, first_line

MAX_READ_BYTES = 800_000_000
"""Memory that reading may take beside what the process has: eight pages as large as DuckDB's, which are the largest."""

_KILLS = (signal.SIGKILL, signal.SIGTERM)
_bounding, _calling = threading.RLock(), threading.RLock()
_child: subprocess.Popen[bytes] | None = None
T = TypeVar("T")


class CrashError(SentrayError):
    """The process that read a file died of it."""


class TooMuchError(SentrayError):
    """To read a file takes more memory than it may."""


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Let this process take at most `MAX_READ_BYTES` more than it has within the block; else a MemoryError is raised.

    One thread at a time is in such a block, since the limit is the process's. Linux only: elsewhere nothing is limited.
    """
    with _bounding:
        limits, pool = resource.getrlimit(resource.RLIMIT_DATA), pa.default_memory_pool()
        try:
            pa.set_memory_pool(pa.system_memory_pool())
            if sys.platform == "linux":
                allowed = [limit for limit in limits if limit != resource.RLIM_INFINITY]
                soft = min([_data_bytes() + MAX_READ_BYTES, *allowed])
                resource.setrlimit(resource.RLIMIT_DATA, (soft, limits[1]))
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, limits)
            pa.set_memory_pool(pool)


def bounded(values: Iterator[T]) -> Iterator[T]:
    """The values, each made within `bounded_memory`."""
    end = object()
    while True:
        with bounded_memory():
            value = next(values, end)
        if value is end:
            return
        yield value  # type: ignore[misc]


def _data_bytes() -> int:
    """What counts against `RLIMIT_DATA` now (see proc_pid_statm(5))."""
    with open("/proc/self/statm", "rb") as stream:
        return int(stream.read().split()[5]) * resource.getpagesize()


def run(path: str, function: Callable[..., T], *args: object) -> T:
    """Call a function in a process of its own, under the same bound.

    Args:
        path: what it reads, for messages.
        function: a module's; it, its arguments and what it gives are pickled on their way.
        *args: of the function.

    Raises:
        SentrayError: the function raised it.
        TooMuchError: the function takes too much memory.
        CrashError: the process died.
        MemoryError: the process could not start or was killed, as the kernel does when memory is scarce, and so was a
            second one: nobody knows whose fault it is.
    """
    try:
        result, error = _ask(path, function, args)
    except MemoryError:
        result, error = _ask(path, function, args)
    if isinstance(error, MemoryError):
        raise TooMuchError(
            f"{path} takes more than {MAX_READ_BYTES:,} bytes of memory at once: write it with smaller pages or row "
            "groups, or leave it out"
        )
    if error is not None:
        raise error
    value: T = result
    return value


def blame(path: str, function: Callable[..., object], *args: object) -> NoReturn:
    """After a MemoryError here, call a function that reads a file in a process of its own, as `run` does.

    Something else in this process may have taken the memory: the file is blamed for what it does alone.

    Raises:
        SentrayError: as `run`.
        MemoryError: memory is scarce, and not for this file's sake.
    """
    run(path, function, *args)
    raise MemoryError(f"{path} was read in little memory alone, and not here")


@contextlib.contextmanager
def memory_explained(path: str) -> Iterator[None]:
    """Make one sentence of a MemoryError, for a process that nobody starts again, unlike a worker's.

    Raises:
        SentrayError: when memory was too scarce to read `path`.
    """
    try:
        yield
    except MemoryError as error:
        why = f" ({first_line(error)})" if str(error) else ""
        raise SentrayError(
            f"there was not enough memory to read {path}{why}; end other programs or take a machine with more memory, "
            "then run the same command again"
        ) from error


def _ask(path: str, function: Callable[..., object], args: tuple[object, ...]) -> tuple[Any, Exception | None]:
    """What a function gives in the process, and what it raises there."""
    global _child
    with _calling:
        child, answered = _started(), False
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            pickle.dump((function, args), child.stdin)
            child.stdin.flush()
            result, error = pickle.load(child.stdout)
            answered = True
            return result, error
        except (BrokenPipeError, EOFError):
            code = child.wait()
        except pickle.UnpicklingError:
            # It may live on; one that died of something else has that as its status.
            child.kill()
            code = child.wait()
        finally:
            if not answered:
                # A later call must not get this one's answer.
                _stop()
    if -code in _KILLS:
        raise MemoryError(f"the process that read {path} was killed; most likely the machine ran out of memory")
    how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    raise CrashError(
        f"{path} cannot be read (the process that reads it dies: {how}): it seems damaged; replace it or leave it out"
    )


def _started() -> subprocess.Popen[bytes]:
    """The process of this one that answers requests; a new one where there is none or it ended.

    Raises:
        MemoryError: it cannot start, which is no file's fault.
    """
    global _child
    if _child is None or _child.poll() is not None:
        command = [sys.executable, "-c", f"from {__name__} import serve; serve()"]
        # Ray would unpickle what a Parquet footer says of a column.
        env = {**os.environ, "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA": "0"}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        pipe = subprocess.PIPE
        try:
            _child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=env)
            assert _child.stdout is not None
            pickle.load(_child.stdout)
        except (OSError, EOFError) as error:
            _stop()
            raise MemoryError(f"no process to read files in can be started: {first_line(error)}") from error
        except BaseException:
            _stop()
            raise
    return _child


@atexit.register
def _stop() -> None:
    """Let the process end: it does when it can read no more."""
    global _child
    if _child is not None:
        _child.kill()
        _child.wait()
        _child = None


def _forget() -> None:
    """After a fork the process is the parent's."""
    global _child
    _child = None


os.register_at_fork(after_in_child=_forget)


def serve() -> None:
    """Answer requests from standard input until it ends; what the process that `run` starts does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies = os.fdopen(os.dup(1), "wb")
    # What a library prints is no reply.
    os.dup2(2, 1)
    pickle.dump("ready", replies)
    replies.flush()
    while True:
        try:
            function, args = pickle.load(sys.stdin.buffer)
            with bounded_memory():
                reply = pickle.dumps((function(*args), None))
        except EOFError:
            return
        except (SentrayError, MemoryError) as error:
            reply = pickle.dumps((None, error))
        except Exception:
            reply = pickle.dumps((None, RuntimeError(traceback.format_exc())))
        replies.write(reply)
        replies.flush()
