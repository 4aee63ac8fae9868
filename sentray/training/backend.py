"""How Ray Train's workers find each other: each opens a port, and all learn all addresses before training starts."""

import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from sentray.training.exchange import Exchange, Peers, listen

_meeting: dict[str, Any] = {}
"""This worker process's open port and, once known, its peers."""


@dataclass
class ExchangeConfig(BackendConfig):
    """Connects the workers of a Ray Train run; `connect` in the training function gives the connection."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Ray Train's hook."""
        return _ExchangeBackend


def connect() -> Exchange:
    """This worker's connection to the others; called once by each worker's training function."""
    rank = ray.train.get_context().get_world_rank()
    return Exchange(rank, _meeting.pop("peers"), _meeting.pop("listener"))


class _ExchangeBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        peers = Peers.meet(worker_group.execute(_open))
        worker_group.execute(_meet, peers)


def _open() -> tuple[str, int]:
    host = ray.util.get_node_ip_address()
    listener: socket.socket = listen(host)
    _meeting["listener"] = listener
    return host, listener.getsockname()[1]


def _meet(peers: Peers) -> None:
    _meeting["peers"] = peers
