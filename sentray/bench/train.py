"""`sentray bench train`: sentray's training against the tutorial's Keras script, and two workers against one."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from sentray import cluster, models
from sentray.bench import processes, reviews
from sentray.bench.settings import BenchTrainSettings
from sentray.bench.tables import Rows, show, with_ratios
from sentray.config import TrainSettings
from sentray.console import Console, count
from sentray.training.prepare import prepare
from sentray.training.training_set import TrainingSet

BATCHES = (32, 256)


def bench_train(settings: BenchTrainSettings, console: Console) -> dict[str, Any]:
    """Measure and print; everything is trained on the same encoded reviews of one corpus.

    Returns:
        The figures.

    Raises:
        SentrayError: the corpus cannot be used.
    """
    from sentray.training.trainer import fit

    corpus, cores = settings.corpus or reviews.corpus(), len(os.sched_getaffinity(0))
    processes.require_own_ray()
    with (
        tempfile.TemporaryDirectory() as folder,
        cluster.connect(None, cpus=max(cores, 2), verbose=settings.verbose),
    ):
        common: dict[str, Any] = {
            **{"corpus": corpus, "out": folder, "epochs": settings.epochs, "seed": settings.seed},
            **{"test_fraction": 0.1, "validation_fraction": 0},
        }
        prepared = Path(folder, "prepared")
        defaults = TrainSettings(**common)
        prepare(defaults, models.architecture(defaults.model), str(prepared), console)
        rows = len(TrainingSet.load(str(prepared)))

        def sentray(workers: int, cpus: int, batch: int) -> list[dict[str, Any]]:
            run = TrainSettings(**common | {"workers": workers, "cpus_per_worker": cpus, "batch_size": batch})
            return list(fit(run, str(prepared), f"{folder}/{workers}-{cpus}-{batch}", console)[0].history)

        console.progress(f"the tutorial's script, {count(cores, 'core')}")
        arguments = (str(prepared), settings.epochs, BATCHES[0], settings.seed)
        script = processes.run("the tutorial's script", tutorial_script, *arguments)
        both = {"the tutorial's Keras script": script, "sentray, 1 worker": sentray(1, cores, BATCHES[0])}
        tables = {f"training, {count(cores, 'CPU')}, batches of {BATCHES[0]}": compared(both, rows)}
        for batch in BATCHES:
            runs = {count(workers, "worker"): sentray(workers, 1, batch) for workers in (1, 2)}
            tables[f"1 CPU a worker, batches of {batch}"] = compared(runs, rows)
    show(console, tables)
    return {"corpus": corpus, "cores": cores, **tables}


def compared(runs: dict[str, list[dict[str, Any]]], rows: int) -> Rows:
    """Training runs beside each other.

    Args:
        runs: `loss` and `seconds` of each epoch; sentray's have the `parts` of a step and more.
        rows: training rows.

    Returns:
        `rows_per_s` of the fastest epoch, the one that other processes disturbed least; the last `loss`; the seconds
        of training to the least loss that all reach; of sentray's the milliseconds of a step by what they go to.
    """
    loss = max(epochs[-1]["loss"] for epochs in runs.values())
    found: Rows = {}
    for name, epochs in runs.items():
        reached = next(index for index, epoch in enumerate(epochs, 1) if epoch["loss"] <= loss)
        found[name] = {
            "rows_per_s": rows / min(epoch["seconds"] for epoch in epochs),
            "loss": epochs[-1]["loss"],
            f"s_to_loss_{loss:.4f}": float(sum(epoch["seconds"] for epoch in epochs[:reached])),
        }
        if parts := epochs[0].get("parts"):
            # The first epoch compiles.
            later = epochs[1:]
            steps = sum(epoch["steps"] for epoch in later)
            found[name] |= {f"{part}_ms": 1000 * sum(epoch["parts"][part] for epoch in later) / steps for part in parts}
            found[name] |= {"first_step_s": epochs[0]["first_step_seconds"], "peak_mb": epochs[0]["peak_rss_mb"]}
    return with_ratios(found, "rows_per_s")


def tutorial_script(folder: str, epochs: int, batch_size: int, seed: int) -> list[dict[str, float]]:
    """The tutorial's training as a plain Keras script: pad every review to the longest one, compile, fit.

    Args:
        folder: the training set.
        epochs: passes over it.
        batch_size: reviews a step.
        seed: gives the same first weights as sentray has with it.

    Returns:
        `loss` and `seconds` of each epoch.
    """
    import keras

    dataset = TrainingSet.load(folder)
    length, classes = dataset.facts.spec.max_length, len(dataset.facts.spec.labels)
    padded = np.zeros((len(dataset), length), np.int32)
    for row, review in zip(padded, dataset.reviews(np.arange(len(dataset))), strict=True):
        row[: len(review)] = review
    keras.utils.set_random_seed(seed)
    model = models.architecture(dataset.facts.spec.architecture).build(dataset.vocabulary.size, length, classes)
    loss = "binary_crossentropy" if classes == 2 else "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    records = []
    for _ in range(epochs):
        started = time.perf_counter()
        history = model.fit(padded, dataset.targets, epochs=1, batch_size=batch_size, verbose=0)
        records.append({"loss": history.history["loss"][0], "seconds": time.perf_counter() - started})
    return records
