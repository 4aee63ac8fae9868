"""Sums and messages between the training workers, over TCP connections from each to each.

TensorFlow's own collectives on CPUs go through gRPC and took longer than the training step itself (design,
decision 6). Here every worker adds up one part of the buffer for all and hands the sum round, so that a worker
sends and receives twice the buffer whatever their number, and every worker gets the same bits.
"""

import secrets
import socket
import struct
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIMEOUT_SECONDS = 600.0
"""How long to wait for another worker. One that dies closes its connection, which is noticed at once."""

TOKEN_BYTES = 32
_BUFFER_BYTES = 4 << 20
_HEADER = struct.Struct("<q")


@dataclass(frozen=True)
class Peers:
    """Where the workers listen, by rank, and the secret by which they know each other."""

    addresses: tuple[tuple[str, int], ...]
    token: bytes

    @classmethod
    def meet(cls, addresses: Sequence[tuple[str, int]]) -> "Peers":
        """Peers at these addresses, with a new secret."""
        return cls(tuple(addresses), secrets.token_bytes(TOKEN_BYTES))


def listen(host: str) -> socket.socket:
    """Open a port on this worker's address for the others to connect to."""
    return socket.create_server((host, 0), backlog=1024)


class Exchange:
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
        self._total = np.empty(0, np.float32)
        self._sender = ThreadPoolExecutor(max(self.world - 1, 1), thread_name_prefix="exchange")
        if listener is not None:
            with listener:
                self._connect(peers, listener)

    def sum(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sum of the workers' values, the same bits everywhere.

        Args:
            values: float32 [n], contiguous; n is the same for all workers.

        Returns:
            float32 [n], overwritten by the next call.
        """
        if self.world == 1:
            return values
        limits = np.linspace(0, len(values), self.world + 1).astype(np.int64)
        parts = [slice(limits[rank], limits[rank + 1]) for rank in range(self.world)]
        if len(self._total) < len(values):
            self._total = np.empty(len(values), np.float32)
        total = self._total[: len(values)]
        mine = parts[self.rank]
        received = np.empty(mine.stop - mine.start, np.float32)
        sent = [self._send(peer, values[parts[peer]]) for peer in self._sockets]
        # Added in the order of the ranks, whichever part arrives first: floating point sums depend on order.
        for rank in range(self.world):
            if rank != self.rank:
                self._receive_into(rank, received)
            part = values[mine] if rank == self.rank else received
            if rank == 0:
                total[mine] = part
            else:
                total[mine] += part
        _wait(sent)
        sent = [self._send(peer, total[mine]) for peer in self._sockets]
        for peer in self._sockets:
            self._receive_into(peer, total[parts[peer]])
        _wait(sent)
        return total

    def gather(self, message: bytes) -> list[bytes]:
        """Every worker's message, by rank."""
        sent = [self._send(peer, _HEADER.pack(len(message)) + message) for peer in self._sockets]
        messages = [message if rank == self.rank else self._receive_message(rank) for rank in range(self.world)]
        _wait(sent)
        return messages

    def close(self) -> None:
        """End the connections."""
        self._sender.shutdown(wait=False, cancel_futures=True)
        for connection in self._sockets.values():
            connection.close()

    def _connect(self, peers: Peers, listener: socket.socket) -> None:
        # The higher rank calls the lower one, so that each pair has one connection.
        listener.settimeout(TIMEOUT_SECONDS)
        for peer in range(self.rank):
            connection = socket.create_connection(peers.addresses[peer], timeout=TIMEOUT_SECONDS)
            connection.sendall(peers.token + _HEADER.pack(self.rank))
            self._add(peer, connection)
        while len(self._sockets) < self.world - 1:
            connection, _ = listener.accept()
            connection.settimeout(TIMEOUT_SECONDS)
            greeting = bytearray(TOKEN_BYTES + _HEADER.size)
            _receive(connection, memoryview(greeting))
            if secrets.compare_digest(bytes(greeting[:TOKEN_BYTES]), peers.token):
                self._add(_HEADER.unpack(greeting[TOKEN_BYTES:])[0], connection)
            else:
                connection.close()
        self._sockets = dict(sorted(self._sockets.items()))

    def _add(self, peer: int, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._sockets[peer] = connection

    def _send(self, peer: int, data: NDArray[np.float32] | bytes) -> "Future[None]":
        return self._sender.submit(self._sockets[peer].sendall, data.data if isinstance(data, np.ndarray) else data)

    def _receive_into(self, peer: int, target: NDArray[np.float32]) -> None:
        _receive(self._sockets[peer], target.data.cast("B"))

    def _receive_message(self, peer: int) -> bytes:
        header = bytearray(_HEADER.size)
        _receive(self._sockets[peer], memoryview(header))
        message = bytearray(_HEADER.unpack(header)[0])
        _receive(self._sockets[peer], memoryview(message))
        return bytes(message)


def _receive(connection: socket.socket, target: memoryview) -> None:
    while target:
        count = connection.recv_into(target)
        if count == 0:
            raise ConnectionError("another training worker went away")
        target = target[count:]


def _wait(sent: list["Future[None]"]) -> None:
    for future in sent:
        future.result()
