import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pytest

from sentray.training import allreduce
from sentray.training.allreduce import TOKEN_BYTES, AllReduce, listen

T = TypeVar("T")
TOKEN = bytes(range(TOKEN_BYTES))


def on_all(world: int, work: Callable[[AllReduce], T]) -> list[T]:
    """What each of `world` connected workers, a thread each, makes of its allreduce."""
    listeners = [listen("127.0.0.1") for _ in range(world)]
    addresses = [listener.getsockname() for listener in listeners]

    def run(rank: int) -> T:
        allreduce = AllReduce(rank, addresses, TOKEN, listeners[rank])
        try:
            return work(allreduce)
        finally:
            allreduce.close()

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, range(world)))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [0, 1, 7, 1_000_003])
def test_sum_is_right_and_the_same_bits_everywhere(world: int, size: int) -> None:
    values = [np.random.default_rng(rank).normal(size=size).astype(np.float32) for rank in range(world)]
    sums = on_all(world, lambda allreduce: allreduce.sum(values[allreduce.rank]).tobytes())
    assert len(set(sums)) == 1
    in_order = values[0].copy()
    for other in values[1:]:
        in_order += other
    assert sums[0] == in_order.tobytes()


def test_gather_gives_messages_by_rank() -> None:
    messages = [b"", b"one", b"2" * 100_000]
    assert on_all(3, lambda allreduce: allreduce.gather(messages[allreduce.rank])) == [messages] * 3


def test_a_worker_that_goes_away_is_noticed() -> None:
    def work(allreduce: AllReduce) -> str:
        if allreduce.rank == 1:
            return "left"
        try:
            while True:
                allreduce.sum(np.ones(1000, np.float32))
        except ConnectionError:
            return "noticed"

    assert on_all(2, work) == ["noticed", "left"]


@pytest.mark.parametrize("says", [b"x" * 40, b"", b"x", None], ids=["wrong", "leaves", "half", "silent"])
def test_a_caller_without_the_token_is_refused(says: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allreduce, "_GREETING_SECONDS", 0.2)
    listeners = [listen("127.0.0.1") for _ in range(2)]
    addresses = [listener.getsockname() for listener in listeners]
    caller = socket.create_connection(addresses[0])
    if says is not None:
        caller.sendall(says)
        caller.shutdown(socket.SHUT_WR)
    with ThreadPoolExecutor(2) as pool:
        workers = list(pool.map(lambda rank: AllReduce(rank, addresses, TOKEN, listeners[rank]), range(2)))
        sums = list(pool.map(lambda one: one.sum(np.ones(4, np.float32)).tolist(), workers))
    caller.close()
    for each in workers:
        each.close()
    assert sums == [[2.0] * 4] * 2
