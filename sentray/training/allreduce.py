"""Sums and messages between the training workers: `AllReduce`, over TCP connections from each to each.

TensorFlow's own collectives go through gRPC on CPUs, which took longer than the training step itself, and open a port
that asks nobody for a token. Here every worker adds up one part of the buffer for all and sends them the sum, so that a
worker sends and receives twice the buffer whatever their number, and every worker gets the same bits.
"""

import contextlib
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

TIMEOUT_SECONDS = 600.0
"""How long the workers wait until all are connected.

Later they wait without a limit, as the first may store a checkpoint for long: one that dies closes its connection,
which is noticed at once, and a lost machine is noticed by TCP's keep-alive and by Ray.
"""
TOKEN_BYTES = 32
_GREETING_SECONDS = 5.0
_BUFFER_BYTES = 4 << 20
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # Seconds of silence before a connection is tried, seconds between tries, and how many may go unanswered.
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 8),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES),
    (socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES),
)

T = TypeVar("T", bound=np.generic)
Address = tuple[str, int]


def listen(host: str) -> socket.socket:
    """Open a port on this worker's address for the others to connect to."""
    return socket.create_server((host, 0), backlog=1024)


class AllReduce:
    """Connects a worker to all others; every method must be called by all workers in the same order.

    Args:
        rank: This worker's number.
        addresses: Where the workers listen, by rank; none where there is only this one.
        token: The secret by which they know each other, `TOKEN_BYTES` long.
        listener: This worker's open port; closed once all are connected.

    Raises:
        ConnectionError: A worker went away; also raised by every method.
        TimeoutError: A worker did not answer in time; likewise.
    """

    def __init__(
        self,
        rank: int = 0,
        addresses: Sequence[Address] = (),
        token: bytes = b"",
        listener: socket.socket | None = None,
    ) -> None:
        self.rank, self.world = rank, max(len(addresses), 1)
        self._sockets: dict[int, socket.socket] = {}
        self._sender = ThreadPoolExecutor(max(self.world - 1, 1), thread_name_prefix="allreduce")
        if listener is not None:
            with listener:
                self._connect(addresses, token, listener)

    def sum(self, values: NDArray[T]) -> NDArray[T]:
        """Sum of the workers' values [n], with the same bits everywhere; the values themselves where alone."""
        if self.world == 1:
            return values
        limits = [len(values) * rank // self.world for rank in range(self.world + 1)]
        parts = [slice(*pair) for pair in pairwise(limits)]
        total = np.empty_like(values)
        mine = total[parts[self.rank]]
        received = np.empty_like(mine)
        with self._sending(lambda peer: values[parts[peer]]):
            # Added in the order of the ranks, whichever comes first: sums of floating point numbers depend on order.
            for rank in range(self.world):
                part = values[parts[rank]] if rank == self.rank else self._receive(rank, received)
                mine[:] = part if rank == 0 else mine + part
        with self._sending(lambda _: mine):
            for peer in self._sockets:
                self._receive(peer, total[parts[peer]])
        return total

    def gather(self, message: bytes) -> list[bytes]:
        """Every worker's message, by rank."""
        content = np.frombuffer(np.int64(len(message)).tobytes() + message, np.uint8)
        received = {self.rank: message}
        with self._sending(lambda _: content):
            for peer in self._sockets:
                (size,) = self._receive(peer, np.empty(1, np.int64))
                received[peer] = self._receive(peer, np.empty(size, np.uint8)).tobytes()
        return [received[rank] for rank in range(self.world)]

    def close(self) -> None:
        """End the connections."""
        self._sender.shutdown(wait=False, cancel_futures=True)
        for connection in self._sockets.values():
            connection.close()

    def _connect(self, addresses: Sequence[Address], token: bytes, listener: socket.socket) -> None:
        # The higher rank connects to the lower one, so that each pair has one connection.
        listener.settimeout(TIMEOUT_SECONDS)
        for peer in range(self.rank):
            connection = socket.create_connection(addresses[peer], timeout=TIMEOUT_SECONDS)
            connection.sendall(token + np.int64(self.rank).tobytes())
            self._add(peer, connection)
        while len(self._sockets) < self.world - 1:
            connection, _ = listener.accept()
            greeting = _greeting(connection)
            if secrets.compare_digest(greeting[:TOKEN_BYTES], token):
                self._add(int.from_bytes(greeting[TOKEN_BYTES:], "little"), connection)
            else:
                connection.close()
        self._sockets = dict(sorted(self._sockets.items()))

    def _add(self, peer: int, connection: socket.socket) -> None:
        connection.settimeout(None)
        for option in _OPTIONS:
            connection.setsockopt(*option)
        self._sockets[peer] = connection

    @contextlib.contextmanager
    def _sending(self, array_for: Callable[[int], NDArray[Any]]) -> Iterator[None]:
        """Send each peer its array, while the block receives; the block's end waits until they are sent."""
        sent = [self._sender.submit(stream.sendall, array_for(peer).data) for peer, stream in self._sockets.items()]
        yield
        for future in sent:
            future.result()

    def _receive(self, peer: int, target: NDArray[Any]) -> NDArray[Any]:
        """Fill an array with what a peer sends, and return it."""
        return _fill(self._sockets[peer], target)


def _greeting(connection: socket.socket) -> bytes:
    """The token and rank that a caller sends first; anybody may call, and leave or send nothing: then zeros."""
    greeting = np.zeros(TOKEN_BYTES + 8, np.uint8)
    connection.settimeout(_GREETING_SECONDS)
    with contextlib.suppress(OSError):
        _fill(connection, greeting)
    return greeting.tobytes()


def _fill(connection: socket.socket, target: NDArray[Any]) -> NDArray[Any]:
    rest = target.view(np.uint8).data
    while rest:
        count = connection.recv_into(rest)
        if count == 0:
            raise ConnectionError("another training worker went away")
        rest = rest[count:]
    return target
