"""New processes, on the cores they are given."""

import os

import pytest

from sentray.bench import processes
from sentray.errors import SentrayError


def described(*arguments: object) -> tuple[int, int, list[object]]:
    return os.getpid(), len(os.sched_getaffinity(0)), list(arguments)


def broken() -> None:
    raise ValueError("no such thing")


def killed() -> None:
    os._exit(3)


def test_gives_what_the_function_returns_and_keeps_to_the_cores() -> None:
    before = os.sched_getaffinity(0)
    with processes.on_cores(1):
        process, cores, arguments = processes.run("the test", described, 1, "a")
    assert process != os.getpid()
    assert (cores, arguments) == (1, [1, "a"])
    assert os.sched_getaffinity(0) == before
    assert processes.run("the test", described)[1:] == (len(before), [])


def test_a_failure_is_one_sentence() -> None:
    with pytest.raises(SentrayError, match=r"^the test failed: ValueError: no such thing$"):
        processes.run("the test", broken)
    with pytest.raises(SentrayError, match=r"^the test failed: BrokenProcessPool: "):
        processes.run("the test", killed)
