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
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

TIMEOUT_SECONDS = 600.0
"""How long the workers wait until all are connected.

Later they wait without a limit, as the first may store a checkpoint for long: one that dies closes its connection,
which is noticed at once, and a lost machine is noticed by TCP's keep-alive and by Ray.
"""
_GREETING_SECONDS = 5.0
_KEEPALIVE = {socket.TCP_KEEPIDLE: 60, socket.TCP_KEEPINTVL: 15, socket.TCP_KEEPCNT: 8}
"""Seconds of silence before a connection is tried, seconds between tries, and how many may go unanswered."""

Floats = NDArray[np.float32]
Words = NDArray[np.int32]

TOKEN_BYTES = 32
_BUFFER_BYTES = 4 << 20


@dataclass(frozen=True)
class Peers:
    """Where the workers listen, by rank, and the secret by which they know each other: a new one where not given."""

    addresses: Sequence[tuple[str, int]]
    token: bytes = field(default_factory=lambda: secrets.token_bytes(TOKEN_BYTES))


def listen(host: str) -> socket.socket:
    """Open a port on this worker's address for the others to connect to."""
    return socket.create_server((host, 0), backlog=1024)


class AllReduce:
    """Connects a worker to all others; every method must be called by all workers in the same order.

    Args:
        rank: This worker's number.
        peers: All workers.
        listener: This worker's open port; closed once all are connected.

    Raises:
        ConnectionError: A worker went away; also raised by every method.
        TimeoutError: A worker did not answer in time; likewise.
    """

    def __init__(self, rank: int, peers: Peers, listener: socket.socket | None = None) -> None:
        self.rank = rank
        self.world = len(peers.addresses)
        self._sockets: dict[int, socket.socket] = {}
        # Kept between calls: fresh memory of this size would cost a page fault every 4 kB.
        self._totals: dict[str, Floats] = {}
        self._sender = ThreadPoolExecutor(max(self.world - 1, 1), thread_name_prefix="allreduce")
        if listener is not None:
            with listener:
                self._connect(peers, listener)

    def sum(self, values: Any) -> Any:
        """Sum of the workers' values, the same bits everywhere.

        Args:
            values: float32 [n], an array or a tensor; n is the same for all workers.

        Returns:
            float32 [n], overwritten by the next call; the values themselves where there is one worker.
        """
        if self.world == 1:
            return values
        values = np.ascontiguousarray(values)
        parts = self._parts(len(values))
        total = self._memory("sum", len(values))
        mine = total[parts[self.rank]]
        received = np.empty_like(mine)
        with self._sending(lambda peer: [values[parts[peer]]]):
            # Added in the order of the ranks, whichever comes first: sums of floating point numbers depend on order.
            for rank in range(self.world):
                part = values[parts[rank]] if rank == self.rank else self._receive(rank, received)
                mine[:] = part if rank == 0 else mine + part
        self._all_gather(total, parts)
        return total

    def sum_rows(self, rows: Any, words: Words, all_words: Words) -> Any:
        """Sum of the workers' rows by word, the same bits everywhere; only rows that a worker has are sent for it.

        Args:
            rows: float32 [len(words), dimensions], an array or a tensor.
            words: int32, ascending; this worker's, all of them among `all_words`.
            all_words: int32, ascending and not empty, the same for all workers.

        Returns:
            float32 [len(all_words), dimensions], overwritten by the next call; the rows themselves where there is one
            worker.
        """
        if self.world == 1:
            return rows
        rows, words = np.ascontiguousarray(rows), np.ascontiguousarray(words)
        dimensions = rows.shape[1]
        parts = self._parts(len(all_words))
        total = self._memory("rows", len(all_words) * dimensions).reshape(-1, dimensions)
        starts = np.searchsorted(words, all_words[[part.start for part in parts]]).tolist()
        own = [slice(start, stop) for start, stop in pairwise([*starts, len(words)])]
        mine, my_words = total[parts[self.rank]], all_words[parts[self.rank]]
        mine[:] = 0
        with self._sending(lambda peer: [_length(words[own[peer]]), words[own[peer]], rows[own[peer]]]):
            for rank in range(self.world):
                their_words, their_rows = words[own[rank]], rows[own[rank]]
                if rank != self.rank:
                    their_words = self._receive(rank, np.empty(self._receive_length(rank), np.int32))
                    their_rows = self._receive(rank, np.empty((len(their_words), dimensions), np.float32))
                mine[np.searchsorted(my_words, their_words)] += their_rows
        self._all_gather(total, parts)
        return total

    def gather(self, message: bytes) -> list[bytes]:
        """Every worker's message, by rank."""
        content = np.frombuffer(message, np.uint8)
        received = {self.rank: message}
        with self._sending(lambda peer: [_length(content), content]):
            for peer in self._sockets:
                received[peer] = self._receive(peer, np.empty(self._receive_length(peer), np.uint8)).tobytes()
        return [received[rank] for rank in range(self.world)]

    def close(self) -> None:
        """End the connections."""
        self._sender.shutdown(wait=False, cancel_futures=True)
        for connection in self._sockets.values():
            connection.close()

    def _connect(self, peers: Peers, listener: socket.socket) -> None:
        # The higher rank connects to the lower one, so that each pair has one connection.
        listener.settimeout(TIMEOUT_SECONDS)
        for peer in range(self.rank):
            connection = socket.create_connection(peers.addresses[peer], timeout=TIMEOUT_SECONDS)
            connection.sendall(peers.token + np.int64(self.rank).tobytes())
            self._add(peer, connection)
        while len(self._sockets) < self.world - 1:
            connection, _ = listener.accept()
            token, rank = _greeting(connection)
            if secrets.compare_digest(token, peers.token):
                self._add(rank, connection)
            else:
                connection.close()
        self._sockets = dict(sorted(self._sockets.items()))

    def _add(self, peer: int, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._sockets[peer] = connection

    def _parts(self, size: int) -> list[slice]:
        """The part of `size` items that each worker adds up."""
        limits = np.linspace(0, size, self.world + 1).astype(np.int64).tolist()
        return [slice(start, stop) for start, stop in pairwise(limits)]

    def _memory(self, name: str, size: int) -> Floats:
        """Float32 [size] with any values, the same memory as for the last call where it is large enough."""
        if name not in self._totals or len(self._totals[name]) < size:
            self._totals[name] = np.empty(size, np.float32)
        return self._totals[name][:size]

    def _all_gather(self, total: Floats, parts: list[slice]) -> None:
        """Send this worker's part of the total to all others, and receive theirs."""
        with self._sending(lambda _: [total[parts[self.rank]]]):
            for peer in self._sockets:
                self._receive(peer, total[parts[peer]])

    @contextlib.contextmanager
    def _sending(self, arrays_for: Callable[[int], Sequence[NDArray[Any]]]) -> Iterator[None]:
        """Send each peer its arrays, while the block receives; the block's end waits until they are sent."""
        sent = [self._sender.submit(_send, stream, arrays_for(peer)) for peer, stream in self._sockets.items()]
        yield
        for future in sent:
            future.result()

    def _receive(self, peer: int, target: NDArray[Any]) -> NDArray[Any]:
        """Fill an array with what a peer sends, and return it."""
        return _fill(self._sockets[peer], target)

    def _receive_length(self, peer: int) -> int:
        return int(self._receive(peer, np.empty(1, np.int64))[0])


def _length(array: NDArray[Any]) -> NDArray[np.int64]:
    return np.array([len(array)])


def _greeting(connection: socket.socket) -> tuple[bytes, int]:
    """The token and rank that a caller sends first; anybody may call, and leave or send nothing: then zeros."""
    greeting = np.zeros(TOKEN_BYTES + 8, np.uint8)
    connection.settimeout(_GREETING_SECONDS)
    with contextlib.suppress(OSError):
        _fill(connection, greeting)
    return greeting[:TOKEN_BYTES].tobytes(), int(greeting[TOKEN_BYTES:].view(np.int64)[0])


def _send(connection: socket.socket, arrays: Sequence[NDArray[Any]]) -> None:
    for array in arrays:
        connection.sendall(array.data)


def _fill(connection: socket.socket, target: NDArray[Any]) -> NDArray[Any]:
    rest = target.reshape(-1).view(np.uint8).data
    while rest:
        count = connection.recv_into(rest)
        if count == 0:
            raise ConnectionError("another training worker went away")
        rest = rest[count:]
    return target
