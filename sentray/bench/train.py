"""`sentray bench train`: sentray's training against the tutorial's Keras script, and two workers against one."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentray import cluster, models
from sentray.bench import processes, reviews
from sentray.bench.settings import BenchTrainSettings
from sentray.config import TrainSettings
from sentray.console import Console, count
from sentray.training.prepare import prepare
from sentray.training.training_set import TrainingSet

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

    def seconds_to(self, loss: float) -> float:
        """Seconds of training until an epoch's mean loss is at most this, which one's is."""
        reached = next(index for index, epoch in enumerate(self.epochs, 1) if epoch["loss"] <= loss)
        return sum(float(epoch["seconds"]) for epoch in self.epochs[:reached])

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
    from sentray.training.trainer import fit

    corpus, cores = settings.corpus or reviews.corpus(), len(os.sched_getaffinity(0))
    processes.require_own_ray()
    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {"corpus": corpus, "out": folder, "epochs": settings.epochs, "seed": settings.seed}
        prepared = Path(folder, "prepared")
        started = time.perf_counter()
        with cluster.connect(None, cpus=max(cores, 2), verbose=settings.verbose):
            ray_seconds = time.perf_counter() - started
            defaults = TrainSettings(**common)
            prepare(defaults, models.architecture(defaults.model), str(prepared), console)
            rows = len(TrainingSet.load(str(prepared)))

            def sentray(workers: int, cpus: int, batch: int) -> Measured:
                run = TrainSettings(**common | {"workers": workers, "cpus_per_worker": cpus, "batch_size": batch})
                work, began = f"{folder}/{workers}-{cpus}-{batch}", time.time()
                history = fit(run, str(prepared), work, console)[0].history
                return Measured(list(history), rows, history[0]["started_at"] - began)

            console.progress(f"the tutorial's script, {count(cores, 'core')}")
            arguments = (str(prepared), settings.epochs, BATCHES[0], settings.seed)
            script = Measured(processes.run("the tutorial's script", tutorial_script, *arguments), rows)
            ours = sentray(1, cores, BATCHES[0])
            pairs = {batch: [sentray(workers, 1, batch) for workers in (1, 2)] for batch in BATCHES}
    figures = {"corpus": corpus, "cores": cores, "startup_ray_s": ray_seconds, **_figures(script, ours, pairs)}
    _show(console, script, ours, pairs, figures)
    return figures


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


def _figures(script: Measured, ours: Measured, pairs: dict[int, list[Measured]]) -> dict[str, Any]:
    loss = max(script.epochs[-1]["loss"], ours.epochs[-1]["loss"])
    figures = {
        "script_rows_per_s": script.rows_per_s,
        "rows_per_s": ours.rows_per_s,
        "ratio_to_script": ours.rows_per_s / script.rows_per_s,
        "loss": loss,
        "script_seconds_to_loss": script.seconds_to(loss),
        "seconds_to_loss": ours.seconds_to(loss),
        "ratio_to_script_to_loss": script.seconds_to(loss) / ours.seconds_to(loss),
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
    console: Console, script: Measured, ours: Measured, pairs: dict[int, list[Measured]], figures: dict[str, Any]
) -> None:
    loss = figures["loss"]
    both = {"Keras script": script, f"sentray, 1 worker, {count(figures['cores'], 'CPU')}": ours}
    console.table(
        ["training", "rows/s", "ratio", f"seconds to loss {loss:.4f}", "last loss"],
        [
            [name, run.rows_per_s, run.rows_per_s / script.rows_per_s, run.seconds_to(loss), run.epochs[-1]["loss"]]
            for name, run in both.items()
        ],
    )
    console.say()
    one_cpu = [
        (count(workers, "worker"), batch, run, run.rows_per_s / runs[0].rows_per_s)
        for batch, runs in pairs.items()
        for workers, run in enumerate(runs, start=1)
    ]
    console.table(
        ["1 CPU a worker", "batch", "rows/s", "ratio", *(f"{name} ms" for name in ours.parts())],
        [[name, batch, run.rows_per_s, ratio, *run.parts().values()] for name, batch, run, ratio in one_cpu],
    )
    console.say()
    console.say(
        f"start-up: Ray {figures['startup_ray_s']:.1f} s, workers with TensorFlow "
        f"{figures['startup_workers_s']:.1f} s, first step {figures['startup_first_step_s']:.1f} s; "
        f"a worker's peak memory {figures['peak_rss_mb']:,.0f} MB"
    )
