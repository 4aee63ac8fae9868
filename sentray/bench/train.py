"""`sentray bench train`: sentray's training against the tutorial's Keras script, and two workers against one."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentray import cluster, models, nltk_data
from sentray.bench import processes
from sentray.bench.settings import BenchTrainSettings
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.training.prepare import prepare
from sentray.training.training_set import TrainingSet

SYNTHETIC = "synthetic:2000"
BATCHES = (32, 256)


@dataclass(frozen=True)
class Measured:
    """A training run: its epochs, and how long it took to the first of them.

    Attributes:
        epochs: `loss` and `seconds` each; sentray's have the `parts` of a step too.
        rows: training rows.
        start: seconds from the call to the first step; None for the script.
    """

    epochs: list[dict[str, Any]]
    rows: int
    start: float | None = None

    @property
    def rows_per_s(self) -> float:
        """Of the fastest epoch: the one that the machine's other processes disturbed least."""
        return float(self.rows / min(epoch["seconds"] for epoch in self.epochs))

    def seconds_to(self, loss: float) -> float | None:
        """Seconds of training until an epoch's mean loss is at most this, or None if none is."""
        total = 0.0
        for epoch in self.epochs:
            total += float(epoch["seconds"])
            if epoch["loss"] <= loss:
                return total
        return None

    def parts(self) -> dict[str, float]:
        """Milliseconds of a step by what they are spent on, over the epochs but the first."""
        epochs = self.epochs[1:]
        steps = sum(epoch["steps"] for epoch in epochs)
        return {name: 1000 * sum(epoch["parts"][name] for epoch in epochs) / steps for name in epochs[0]["parts"]}


def bench_train(settings: BenchTrainSettings, console: Console) -> dict[str, Any]:
    """Measure and print; everything is trained on the same encoded reviews of one corpus.

    Returns:
        The figures with stable keys.

    Raises:
        SentrayError: the corpus cannot be used.
    """
    corpus = settings.corpus or ("nltk:movie_reviews" if nltk_data.find("corpora/movie_reviews") else SYNTHETIC)
    cores = len(os.sched_getaffinity(0))
    processes.require_own_ray()
    with tempfile.TemporaryDirectory() as scratch:
        bench = _Bench(settings, corpus, Path(scratch), console)
        started = time.perf_counter()
        with cluster.connect(None, cpus=max(cores, 2), verbose=settings.verbose):
            ray_seconds = time.perf_counter() - started
            bench.prepare()
            console.progress(f"the tutorial's script, {cores} cores")
            script = bench.script()
            ours = bench.sentray(workers=1, cpus=cores, batch=BATCHES[0])
            pairs = {
                batch: [bench.sentray(workers=count, cpus=1, batch=batch) for count in (1, 2)] for batch in BATCHES
            }
    figures = _figures(script, ours, pairs, ray_seconds) | {"corpus": corpus, "cores": cores}
    _show(console, script, ours, pairs, figures)
    return figures


class _Bench:
    def __init__(self, settings: BenchTrainSettings, corpus: str, folder: Path, console: Console) -> None:
        self.settings, self.corpus, self.folder, self.console = settings, corpus, folder, console
        self.dataset = folder / "dataset"
        self.runs = 0

    def train_settings(self, **values: Any) -> TrainSettings:
        return TrainSettings(
            corpus=self.corpus,
            out=str(self.folder),
            epochs=self.settings.epochs,
            seed=self.settings.seed,
            **values,
        )

    def prepare(self) -> None:
        settings = self.train_settings()
        prepare(settings, models.architecture(settings.model), self.dataset, self.console)
        self.rows = len(TrainingSet.load(str(self.dataset)))

    def script(self) -> Measured:
        arguments = (str(self.dataset), self.settings.epochs, BATCHES[0], self.settings.seed)
        return Measured(processes.run("the tutorial's script", tutorial_script, *arguments), self.rows)

    def sentray(self, workers: int, cpus: int, batch: int) -> Measured:
        from sentray.training.trainer import fit

        self.runs += 1
        settings = self.train_settings(workers=workers, cpus_per_worker=cpus, batch_size=batch)
        started = time.time()
        state = fit(settings, str(self.dataset), str(self.folder / f"run{self.runs}"), self.console).state
        return Measured(list(state.history), self.rows, state.history[0]["started_at"] - started)


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
    for row in range(len(dataset)):
        review = dataset.review(row)
        padded[row, : len(review)] = review
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


def _figures(script: Measured, ours: Measured, pairs: dict[int, list[Measured]], ray_seconds: float) -> dict[str, Any]:
    loss = max(script.epochs[-1]["loss"], ours.epochs[-1]["loss"])
    to_loss = script.seconds_to(loss), ours.seconds_to(loss)
    assert to_loss[0] is not None
    assert to_loss[1] is not None
    figures = {
        "script_rows_per_s": script.rows_per_s,
        "rows_per_s": ours.rows_per_s,
        "ratio_to_script": ours.rows_per_s / script.rows_per_s,
        "loss": loss,
        "script_seconds_to_loss": to_loss[0],
        "seconds_to_loss": to_loss[1],
        "ratio_to_script_to_loss": to_loss[0] / to_loss[1],
        "startup_ray_s": ray_seconds,
        "startup_workers_s": ours.start,
        "startup_first_step_s": ours.epochs[0]["first_step_seconds"],
        "peak_rss_mb": max(epoch["peak_rss_mb"] for epoch in ours.epochs),
    }
    for batch, (one, two) in pairs.items():
        figures[f"rows_per_s_1_worker_batch_{batch}"] = one.rows_per_s
        figures[f"rows_per_s_2_workers_batch_{batch}"] = two.rows_per_s
        figures[f"speedup_2_workers_batch_{batch}"] = two.rows_per_s / one.rows_per_s
    return figures


def _show(
    console: Console,
    script: Measured,
    ours: Measured,
    pairs: dict[int, list[Measured]],
    figures: dict[str, Any],
) -> None:
    console.table(
        ["training", "rows/s", "ratio", f"seconds to loss {figures['loss']:.4f}", "last loss"],
        [
            [
                "Keras script",
                script.rows_per_s,
                1.0,
                figures["script_seconds_to_loss"],
                script.epochs[-1]["loss"],
            ],
            [
                f"sentray, 1 worker, {figures['cores']} CPUs",
                ours.rows_per_s,
                figures["ratio_to_script"],
                figures["seconds_to_loss"],
                ours.epochs[-1]["loss"],
            ],
        ],
    )
    console.say()
    names = list(ours.parts())
    console.table(
        ["1 CPU a worker", "batch", "rows/s", "ratio", *(f"{name} ms" for name in names)],
        [
            [
                f"{count} worker(s)",
                batch,
                run.rows_per_s,
                run.rows_per_s / both[0].rows_per_s,
                *run.parts().values(),
            ]
            for batch, both in pairs.items()
            for count, run in enumerate(both, start=1)
        ],
    )
    console.say()
    console.say(
        f"start-up: Ray {figures['startup_ray_s']:.1f} s, workers with TensorFlow "
        f"{figures['startup_workers_s']:.1f} s, first step {figures['startup_first_step_s']:.1f} s; "
        f"a worker's peak memory {figures['peak_rss_mb']:,.0f} MB"
    )
