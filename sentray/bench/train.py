"""`sentray bench train`: sentray against a plain Keras script and fastText, and two workers against one."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sentray import cluster, models
from sentray.bench import processes, reviews
from sentray.bench.grams import write_ids
from sentray.bench.settings import BenchGramsSettings, BenchTrainSettings
from sentray.bench.tables import Rows, show, with_ratios
from sentray.config import TrainSettings
from sentray.console import Console, count
from sentray.errors import SentrayError
from sentray.training.prepare import prepare
from sentray.training.training_set import TrainingSet

Epochs = list[dict[str, Any]]
BATCHES = (32, 256)
WORDS = 20
"""Of a sentence to train on beside fastText."""
_ROUNDS = 2
_FEW, _MORE = 1, 3
"""Epochs of fastText, whose difference in time is that of two epochs without the reading of the file."""


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
            **{"model": settings.model, "max_length": settings.max_length},
            **{"test_fraction": 0.1, "validation_fraction": 0},
        }
        prepared = Path(folder, "prepared")
        defaults = TrainSettings(**common)
        prepare(defaults, models.architecture(defaults.model), str(prepared), console)
        rows = len(TrainingSet.load(str(prepared)))

        def sentray(workers: int, cpus: int, batch: int) -> Epochs:
            run = TrainSettings(**common | {"workers": workers, "cpus_per_worker": cpus, "batch_size": batch})
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                return list(fit(run, str(prepared), scratch, console)[0].history)

        def script() -> Epochs:
            console.progress(f"the plain Keras script, {count(cores, 'core')}")
            arguments = (str(prepared), settings.epochs, BATCHES[0], settings.seed)
            epochs: Epochs = processes.run("the plain Keras script", keras_script, *arguments)
            return epochs

        both: dict[str, Callable[[], Epochs]] = {"a plain Keras script": script}
        both["sentray, 1 worker"] = partial(sentray, 1, cores, BATCHES[0])
        tables = {f"training, {count(cores, 'CPU')}, batches of {BATCHES[0]}": compared(by_turns(both), rows)}
        for batch in BATCHES:
            runs = {count(workers, "worker"): partial(sentray, workers, 1, batch) for workers in (1, 2)}
            tables[f"1 CPU a worker, batches of {batch}"] = compared(by_turns(runs), rows)
        if settings.sentences:
            tables[f"{settings.sentences:,} sentences of {WORDS} words, 1 CPU"] = _sentences(settings, folder, console)
    show(console, tables)
    return {"corpus": corpus, "cores": cores, **tables}


def _sentences(settings: BenchTrainSettings, folder: str, console: Console) -> Rows:
    """Rows a second of an epoch of fastText with bigrams and of `--model wide`, on the same sentences and one core."""
    from sentray.training.trainer import fit

    rows, made = settings.sentences, f"{folder}/sentences.parquet"
    write_ids(Path(folder, "ids.bin"), BenchGramsSettings(reviews=rows, words=WORDS, seed=settings.seed))
    ids = np.fromfile(f"{folder}/ids.bin", np.int32).reshape(rows, WORDS)
    texts = [" ".join(f"w{word}" for word in sentence) for sentence in ids.tolist()]
    labels = ["pos" if word % 2 else "neg" for word in ids.min(axis=1).tolist()]
    pq.write_table(pa.table({"text": texts, "label": labels}), made)
    common: dict[str, Any] = {"corpus": made, "id_column": "none", "out": folder, "seed": settings.seed}
    run = TrainSettings(**common, model="wide", epochs=_MORE, batch_size=BATCHES[-1], validation_fraction=0)
    began = time.perf_counter()
    prepare(run, models.architecture(run.model), f"{folder}/sentences", console)
    counting = time.perf_counter() - began
    console.progress("sentray --model wide, 1 worker")
    epochs = list(fit(run, f"{folder}/sentences", f"{folder}/wide", console)[0].history)
    found: Rows = {}
    console.progress("fastText with bigrams, 1 thread")
    try:
        seconds = processes.run("fastText", fasttext_seconds, made)
        found["fastText, bigrams"] = {"rows_per_s": (_MORE - _FEW) * rows / (seconds[_MORE] - seconds[_FEW])}
    except SentrayError as error:
        console.say(f"{error}; left out (the baselines come with pip install 'sentray[bench]')")
    found["sentray --model wide"] = {"rows_per_s": rows / _fastest(epochs), "prepare_s": counting}
    return with_ratios(found, "rows_per_s")


def fasttext_seconds(file: str) -> dict[int, float]:
    """How long fastText with bigrams trains on the texts of a Parquet file, one thread, by its epochs."""
    import fasttext

    table, seconds = pq.read_table(file), {}
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as lines:
        pairs = zip(table["label"].to_pylist(), table["text"].to_pylist(), strict=True)
        lines.writelines(f"__label__{label} {text}\n" for label, text in pairs)
        lines.flush()
        for epochs in (_FEW, _MORE):
            began = time.perf_counter()
            fasttext.train_supervised(lines.name, epoch=epochs, lr=0.5, wordNgrams=2, thread=1, verbose=0)
            seconds[epochs] = time.perf_counter() - began
    return seconds


def by_turns(runs: Mapping[str, Callable[[], Epochs]]) -> dict[str, Epochs]:
    """The epochs of each run in the round in which one of them was fastest: a machine may be slower for minutes."""
    rounds = [{name: run() for name, run in runs.items()} for _ in range(_ROUNDS)]
    return {name: min((each[name] for each in rounds), key=_fastest) for name in runs}


def _fastest(epochs: Epochs) -> float:
    return float(min(epoch["seconds"] for epoch in epochs))


def compared(runs: dict[str, Epochs], rows: int) -> Rows:
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
            "rows_per_s": rows / _fastest(epochs),
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


def keras_script(folder: str, epochs: int, batch_size: int, seed: int) -> Epochs:
    """Training as a plain Keras script does it: pad every review to the longest one, compile, fit.

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
    model = models.architecture(dataset.facts.spec.network).build(dataset.vocabulary.size, length, classes)
    loss = "binary_crossentropy" if classes == 2 else "sparse_categorical_crossentropy"
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    records = []
    for _ in range(epochs):
        started = time.perf_counter()
        history = model.fit(padded, dataset.targets, epochs=1, batch_size=batch_size, verbose=0)
        records.append({"loss": history.history["loss"][0], "seconds": time.perf_counter() - started})
    return records
