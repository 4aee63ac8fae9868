"""One of two training workers that sum by TensorFlow's collective operations; `test_collective` starts both."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from sentray import models
from sentray.bundle import ModelSpec
from sentray.config import TrainSettings
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary
from sentray.training.allreduce import Exchange, Peers, listen
from sentray.training.training_set import Facts, TrainingSet

WORLD = 2
ALL_WORDS = np.arange(0, 60, 2, dtype=np.int32)


def peers(rank: int, folder: Path, name: str) -> tuple[Any, Peers]:
    """This worker's open port and both workers' addresses."""
    listener = listen("127.0.0.1")
    partial = folder / f"{name}{rank}.partial"
    partial.write_text(json.dumps(listener.getsockname()))
    partial.rename(folder / f"{name}{rank}")
    files = [folder / f"{name}{other}" for other in range(WORLD)]
    while not all(file.exists() for file in files):
        time.sleep(0.02)
    return listener, Peers(tuple(tuple(json.loads(file.read_text())) for file in files), b"s" * 32)


def dataset() -> TrainingSet:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, 50).astype(np.int32)
    ids = np.concatenate([generator.integers(1, 10, 12) + 10 * (1 - target) for target in targets]).astype(np.int32)
    counts = tuple(np.bincount(targets, minlength=2).tolist())
    rules, _ = preset("reviews")
    spec = ModelSpec(architecture="tutorial-cnn.v1", cleaning=rules, labels=("neg", "pos"), max_length=20)
    facts = Facts(spec, counts, 12, 20, 1.0, 0, 0)
    vectors = generator.normal(size=(21, 4)).astype(np.float32)
    return TrainingSet(facts, Vocabulary([chr(97 + n) for n in range(20)]), ids, np.arange(51) * 12, targets, vectors)


def trained(exchange: Exchange, freeze: bool) -> dict[str, Any]:
    """Weights after two epochs, and the digest on which the workers agreed."""
    from sentray.training.trainer import Job, Trainer

    settings = TrainSettings(
        corpus="unused", out="unused", batch_size=8, learning_rate=0.01, embedding="unused", freeze=freeze
    )
    trainer = Trainer(Job(settings, "unused"), dataset(), exchange, 3)
    for number in range(2):
        *_, record = trainer.epoch(number)
    agreed = trainer.check_replicas()
    return {"agreed": agreed, "loss": record["loss"]} | {
        str(place): weights for place, weights in enumerate(trainer.network.keras_model().get_weights())
    }


def device_of(jit: bool) -> str:
    """Where gradients come from that are to be computed on the second device; as many have one GPU each."""
    from sentray.training.network import TrainingNetwork

    model = models.architecture("embedding-average").build(20, 12, 2)
    network = TrainingNetwork(model, 0.01, jit=jit, device="/CPU:1")
    packed = network.pack([np.arange(1, 9, dtype=np.int32)] * 2)
    return str(network.gradients(packed, np.zeros(2, np.int32), np.ones(2, np.float32), 2)[1].rows.device)


def rows_of(rank: int, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Words and their rows: all of them, every other, or in one worker none."""
    words = {"all": ALL_WORDS, "apart": ALL_WORDS[rank::WORLD], "none": ALL_WORDS[: rank * len(ALL_WORDS)]}[case]
    return words, np.random.default_rng(rank).normal(size=(len(words), 6)).astype(np.float32)


def main(rank: int, folder: Path) -> None:
    import tensorflow as tf

    # A second device, to see that what is meant for one runs there.
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from sentray.training.collective import Collective

    listener, both = peers(rank, folder, "collective")
    collective = Collective(rank, both, listener, "ring", threads=1)
    listener, both = peers(rank, folder, "tcp")
    tcp = Exchange(rank, both, listener)
    found: dict[str, Any] = {f"device.{jit}": device_of(jit) for jit in (False, True)}
    for name, exchange in (("collective", collective), ("tcp", tcp)):
        for size in (1, 7, 1003, 7):
            values = np.random.default_rng((rank, size)).normal(size=size).astype(np.float32)
            found[f"{name}.sum.{size}"] = exchange.sum(values).copy()
        for case in ("all", "apart", "none"):
            words, rows = rows_of(rank, case)
            found[f"{name}.rows.{case}"] = exchange.sum_rows(rows, words, ALL_WORDS).copy()
        found[f"{name}.gather"] = np.array(exchange.gather(b"from %d" % rank))
        for freeze in (False, True):
            results = trained(exchange, freeze)
            found |= {f"{name}.trained.{freeze}.{key}": value for key, value in results.items()}
    np.savez(folder / f"found{rank}.npz", **found)
    if rank == 1:
        os._exit(0)
    try:
        while True:
            collective.sum(np.ones(1003, np.float32))
    except ConnectionError as error:
        (folder / "noticed").write_text(str(error))
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
