"""How Ray Train's workers find each other: each opens a port, and all learn all addresses before training starts."""

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.train.backend import Backend, BackendConfig

from sentray.training.allreduce import Exchange, Peers, listen

if TYPE_CHECKING:
    from sentray.training.collective import Hint

_meeting: dict[str, Any] = {}
"""This worker process's open port and, once known, its peers and how they sum."""


@dataclass
class ExchangeConfig(BackendConfig):
    """Connects the workers of a Ray Train run; `connect` in the training function gives the connection.

    Attributes:
        hint: How TensorFlow sums gradients on the workers' devices; None: they are summed over TCP.
    """

    hint: "Hint | None" = None

    @property
    def backend_cls(self) -> type[Backend]:
        """Ray Train's hook."""
        return _ExchangeBackend


def connect(threads: int) -> Exchange:
    """This worker's connection to the others; called once by each worker's training function, before all else.

    Args:
        threads: CPU threads of this worker.

    Raises:
        SentrayError: TensorFlow does not see some worker's GPU.
    """
    rank = ray.train.get_context().get_world_rank()
    peers, listener, hint = (_meeting.pop(name) for name in ("peers", "listener", "hint"))
    if hint is None:
        return Exchange(rank, peers, listener)
    from sentray.training.collective import Collective

    return Collective(rank, peers, listener, hint, threads)


class _ExchangeBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: ExchangeConfig) -> None:
        peers = Peers.meet(worker_group.execute(_open))
        worker_group.execute(_meet, peers, backend_config.hint)


def _open() -> tuple[str, int]:
    host = ray.util.get_node_ip_address()
    listener: socket.socket = listen(host)
    _meeting["listener"] = listener
    return host, listener.getsockname()[1]


def _meet(peers: Peers, hint: "Hint | None") -> None:
    _meeting.update(peers=peers, hint=hint)
