"""Sums of gradients on the devices that hold them, by TensorFlow's collective operations: NCCL between GPUs.

TensorFlow's collective runtime opens a port of its own on each worker, on all of the node's addresses and without any
secret; hence it is started for GPUs only.
"""

import socket
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from sentray import models
from sentray.errors import SentrayError
from sentray.training.allreduce import TIMEOUT_SECONDS, Exchange, Peers, Words
from sentray.training.batches import coarse

Hint = Literal["nccl", "ring"]
_GROUP = 1_000_000
"""Number of our group of workers; TensorFlow's own count from 1."""


class Collective(Exchange):
    """An exchange whose sums stay on the workers' devices; messages still go over TCP.

    It must be made before the process uses TensorFlow for anything else.

    Args:
        rank: This worker's number.
        peers: All workers.
        listener: This worker's open port.
        hint: `nccl` for sums between GPUs, `ring` for sums between CPUs.
        threads: CPU threads of this worker.

    Raises:
        ConnectionError: A worker went away; also raised by every method.
        SentrayError: TensorFlow does not see some worker's GPU; raised on all workers.
    """

    def __init__(self, rank: int, peers: Peers, listener: socket.socket, hint: Hint, threads: int) -> None:
        super().__init__(rank, peers, listener)
        self._hint, self._device = hint, "/GPU:0" if hint == "nccl" else "/CPU:0"
        if mistakes := [told.decode() for told in self.gather(_prepare(threads).encode()) if told]:
            self.close()
            raise SentrayError(mistakes[0])
        if self.world > 1:
            self._runtime = self._start(peers.addresses[rank][0])

    def sum(self, values: Any) -> Any:
        """See `Exchange`."""
        if self.world == 1:
            return values
        return self._sum(lambda: tf.convert_to_tensor(values))

    def sum_rows(self, rows: Any, words: Words, all_words: Words) -> Any:
        """See `Exchange`. Every worker sends a row for each word: its own or zeros."""
        if self.world == 1:
            return rows
        shape = (coarse(len(all_words)), rows.shape[1])
        places = np.searchsorted(all_words, words)[:, None]
        summed = self._sum(lambda: tf.reshape(tf.scatter_nd(places, rows, shape), [-1]))
        return summed.reshape(shape)[: len(all_words)]

    def _start(self, host: str) -> Any:
        """TensorFlow's collective runtime, which lives as long as what this returns."""
        with socket.create_server((host, 0)) as free:
            address = f"{host}:{free.getsockname()[1]}"
        addresses = [address.decode() for address in self.gather(address.encode())]
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": addresses}), task_type="worker", task_id=self.rank, rpc_layer="grpc"
        )
        # Keras 3 cannot train under this strategy (keras-team/keras#20585): it is made to start the runtime only.
        return tf.distribute.MultiWorkerMirroredStrategy(resolver)

    def _sum(self, values: Callable[[], Any]) -> Any:
        """Sum of the workers' values, float32 [n], which are made on the device."""
        try:
            with tf.device(self._device):
                mine = values()
                # An instance is tied to the shape it first had: each size has one of its own.
                summed = tf.raw_ops.CollectiveReduceV2(
                    input=mine,
                    group_size=self.world,
                    group_key=_GROUP,
                    instance_key=len(mine),
                    ordering_token=[],
                    merge_op="Add",
                    final_op="Id",
                    communication_hint=self._hint,
                    timeout_seconds=TIMEOUT_SECONDS,
                )
                return summed.numpy()
        except tf.errors.OpError as error:
            told = error.message.partition("\n")[0].rpartition("}} ")[2]
            raise ConnectionError(f"the training workers' gradients could not be summed ({told})") from error


def _prepare(threads: int) -> str:
    """Settle TensorFlow's devices; gives why that cannot be, or nothing."""
    try:
        models.prepare_tensorflow(threads)
    except SentrayError as mistake:
        return str(mistake)
    return ""
