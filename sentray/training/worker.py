"""What each training worker does: steps, epochs, checkpoints, and the bundle at the end."""

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sentray import bundle, models
from sentray.errors import SentrayError
from sentray.training import batches
from sentray.training.dataset import TrainingSet
from sentray.training.exchange import Exchange

if TYPE_CHECKING:
    from sentray.training.network import StepResult, TrainingNetwork

REPORT_SECONDS = 0.5
"""Least time between two progress reports to the driver."""

STATE_FILE, WEIGHTS_FILE, BUNDLE_FOLDER = "state.json", "weights.npz", "bundle"


@dataclass(frozen=True)
class Job:
    """What every worker is told.

    Attributes:
        dataset: Folder of the training set.
        epochs: Passes over it.
        batch_size: Rows of a global batch.
        learning_rate: Adam's step size.
        balanced: Whether every class, not every review, has the same weight in the loss.
        seed: Fixes first weights and order.
        max_restarts: New seeds to try after dead starts.
        threads: CPU threads of a worker.
        settings: Resolved settings of the run, for the bundle.
        progress: Handle of the `Progress` actor, or None.
    """

    dataset: str
    epochs: int
    batch_size: int
    learning_rate: float
    balanced: bool
    seed: int
    max_restarts: int
    threads: int
    settings: dict[str, Any] = field(default_factory=dict)
    progress: Any = None


@dataclass(frozen=True)
class State:
    """How far a run is; part of every checkpoint.

    Attributes:
        epoch: Epochs done with the present seed.
        seed: The present seed.
        restarts: Dead starts so far.
        history: One record an epoch done with the present seed; see `Trainer.epoch`.
    """

    epoch: int
    seed: int
    restarts: int = 0
    history: tuple[dict[str, Any], ...] = ()


class Trainer:
    """Trains one network on one worker's part of every batch.

    Args:
        job: What to do.
        dataset: The training reviews.
        exchange: The connection to the other workers.
        seed: Fixes first weights and order.
    """

    def __init__(self, job: Job, dataset: TrainingSet, exchange: Exchange, seed: int) -> None:
        import keras

        from sentray.training.network import TrainingNetwork

        keras.utils.set_random_seed(seed)
        facts = dataset.facts
        self._rows = dataset.vocabulary.size
        self.model = models.architecture(facts.architecture).build(self._rows, facts.max_length, len(facts.labels))
        self.network: TrainingNetwork = TrainingNetwork(self.model, job.learning_rate)
        self._job, self._dataset, self._exchange, self._seed = job, dataset, exchange, seed
        self._lengths = np.minimum(dataset.lengths, facts.max_length)
        counts = np.array(facts.label_rows, np.float64)
        even = len(dataset) / (len(counts) * np.maximum(counts, 1))
        self._class_weights = (even if job.balanced else np.ones_like(counts)).astype(np.float32)
        self._clock = Clock()

    def epoch(self, number: int) -> Iterator[dict[str, Any]]:
        """Train one epoch, the `number`-th from 0.

        Yields:
            A report after each step on this worker's rows so far; then, as the last, the epoch's record over all
            workers: `epoch` from 1, mean `loss`, `accuracy`, `rows_seen`, `seconds`, the seconds by part of a
            step in `parts`, and `dead`, whether no unit of some layer reacts to any row (in the second half).
        """
        started, self._clock = time.perf_counter(), Clock()
        job, exchange = self._job, self._exchange
        steps = batches.epoch_batches(len(self._dataset), job.batch_size, self._seed, number)
        sums = np.zeros(3)
        alive = False
        for step, batch in enumerate(steps):
            mine = batches.share(batch, self._lengths[batch], exchange.rank, exchange.world)
            result, reacts = self._step(batch, mine, number * len(steps) + step + 1)
            sums += (result.loss, result.correct, len(mine))
            alive |= reacts and step >= len(steps) // 2
            seen = max(sums[2], 1)
            yield {
                "epoch": number + 1,
                "step": step + 1,
                "steps": len(steps),
                "loss": sums[0] / seen,
                "accuracy": sums[1] / seen,
                "rows": (step + 1) * job.batch_size,
                "seconds": time.perf_counter() - started,
            }
        loss, correct, rows = np.sum([np.frombuffer(part) for part in exchange.gather(sums.tobytes())], axis=0)
        yield {
            "epoch": number + 1,
            "loss": loss / rows,
            "accuracy": correct / rows,
            "rows_seen": int(rows),
            "seconds": time.perf_counter() - started,
            "parts": self._clock.seconds,
            # A network that has learnt every row by heart gets no gradient either.
            "dead": not alive and bool(correct < rows),
        }

    def check_replicas(self) -> str:
        """SHA-256 of the weights, the same on every worker.

        Raises:
            RuntimeError: The workers' weights differ.
        """
        digest = hashlib.sha256()
        for name, values in sorted(self.network.weights().items()):
            digest.update(name.encode() + values.tobytes())
        if len(set(self._exchange.gather(digest.digest()))) > 1:
            raise RuntimeError("the training workers' weights differ")
        return digest.hexdigest()

    def _step(self, batch: batches.Rows, mine: batches.Rows, number: int) -> tuple["StepResult", bool]:
        dataset, clock = self._dataset, self._clock
        with clock.part("data"):
            packed = batches.pack([dataset.review(row) for row in mine], self.network.window, self._rows)
            labels = dataset.targets[mine]
        with clock.part("network"):
            weights = self._class_weights[labels]
            result, gradients = self.network.gradients(packed, labels, weights, len(batch))
        words = packed.words
        if self._exchange.world > 1:
            with clock.part("exchange"):
                words = batches.distinct_words([dataset.review(row) for row in batch], self._rows)
                gradients = sum_gradients(self._exchange, [g.numpy() for g in gradients], packed.words, words)
        with clock.part("optimizer"):
            reacts = self.network.apply(gradients, words, number)
        return result, reacts


def sum_gradients(
    exchange: Exchange,
    gradients: list[NDArray[np.float32]],
    words: NDArray[np.int32],
    all_words: NDArray[np.int32],
) -> list[NDArray[np.float32]]:
    """Sum the workers' gradients in one message, of the embedding only the rows that the global batch uses.

    Every worker works out `all_words` from the batch by itself, so that nothing has to be agreed on first.

    Args:
        exchange: The connection to the other workers.
        gradients: This worker's, the first of which has a row for each of `words`.
        words: int32, ascending.
        all_words: int32, ascending; all workers' words.
    """
    rows, *others = gradients
    shapes = [(len(all_words), rows.shape[1]), *(other.shape for other in others)]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    buffer = np.zeros(ends[-1], np.float32)
    parts = np.split(buffer, ends[:-1])
    parts[0].reshape(shapes[0])[np.searchsorted(all_words, words)] = rows
    for part, other in zip(parts[1:], others, strict=True):
        part[:] = other.ravel()
    summed = np.split(exchange.sum(buffer), ends[:-1])
    return [part.reshape(shape) for part, shape in zip(summed, shapes, strict=True)]


class Clock:
    """Adds up the seconds spent in the parts of a step."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("data", "network", "exchange", "optimizer"), 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time as this part's."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started


def run(job: Job, exchange: Exchange) -> None:
    """Train under Ray Train: from its latest checkpoint, one new checkpoint an epoch, the bundle in the last.

    Raises:
        SentrayError: No seed made the network learn.
    """
    _prepare_tensorflow(job.threads)
    dataset = TrainingSet.load(Path(job.dataset))
    state, trainer = _start(job, dataset, exchange)
    trainer.check_replicas()
    while state.epoch < job.epochs:
        record = _train_epoch(trainer, job, exchange, state)
        if record.pop("dead"):
            state = _next_seed(job, state, exchange)
            trainer = Trainer(job, dataset, exchange, state.seed)
        else:
            state = replace(state, epoch=state.epoch + 1, history=(*state.history, record))
        trainer.check_replicas()
        _report(state, trainer, exchange)
    _report(state, trainer, exchange, finished=(job, dataset))


def _prepare_tensorflow(threads: int) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def _start(job: Job, dataset: TrainingSet, exchange: Exchange) -> tuple[State, Trainer]:
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        state = State(0, job.seed)
        return state, Trainer(job, dataset, exchange, state.seed)
    with checkpoint.as_directory() as folder:
        state = read_state(Path(folder))
        trainer = Trainer(job, dataset, exchange, state.seed)
        with np.load(Path(folder) / WEIGHTS_FILE) as weights:
            trainer.network.set_weights(dict(weights))
    _say(job, exchange, f"going on after epoch {state.epoch} of {job.epochs}")
    return state, trainer


def read_state(folder: Path) -> State:
    """The state in a checkpoint's folder."""
    values = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
    return State(**values | {"history": tuple(values["history"])})


def _train_epoch(trainer: Trainer, job: Job, exchange: Exchange, state: State) -> dict[str, Any]:
    reported = 0.0
    report: dict[str, Any] = {}
    for report in trainer.epoch(state.epoch):
        if exchange.rank == 0 and job.progress and time.monotonic() - reported > REPORT_SECONDS:
            reported = time.monotonic()
            job.progress.update.remote(report | {"epochs": job.epochs})
    return report


def _next_seed(job: Job, state: State, exchange: Exchange) -> State:
    if state.restarts == job.max_restarts:
        raise SentrayError(
            f"the network did not start to learn with {job.max_restarts + 1} seeds from {job.seed} on: every unit of "
            "a layer died in each; try a smaller --learning-rate or a larger --max-restarts"
        )
    seed = state.seed + 1
    _say(job, exchange, f"seed {state.seed} made a dead start (no unit of a layer reacts): again with seed {seed}")
    return State(0, seed, state.restarts + 1)


def _say(job: Job, exchange: Exchange, line: str) -> None:
    if exchange.rank == 0 and job.progress:
        job.progress.say.remote(line)


def _report(
    state: State, trainer: Trainer, exchange: Exchange, finished: tuple[Job, TrainingSet] | None = None
) -> None:
    import ray.train

    metrics = {"epoch": state.epoch, "restarts": state.restarts}
    if exchange.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights: dict[str, NDArray[Any]] = dict(trainer.network.weights())
        np.savez(folder / WEIGHTS_FILE, **weights)
        (folder / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        if finished:
            _write_bundle(folder / BUNDLE_FOLDER, trainer.model, *finished)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(scratch))


def _write_bundle(folder: Path, model: Any, job: Job, dataset: TrainingSet) -> None:
    from sentray.scoring.scorer import golden_texts

    facts = dataset.facts
    folder.mkdir()
    model.save(folder / bundle.MODEL)
    written = bundle.write(
        folder,
        architecture=facts.architecture,
        rules=facts.rules,
        vocabulary=dataset.vocabulary,
        labels=facts.labels,
        max_length=facts.max_length,
        truncating=facts.truncating,
        settings=job.settings,
    )
    bundle.update(written, golden=golden_texts(written, _samples(dataset.vocabulary)))


def _samples(vocabulary: Any) -> list[str]:
    """Texts that reach all of cleaning, vocabulary and network, made of the vocabulary and of no training review."""
    words = vocabulary.words
    spread = words[:: max(len(words) // 50, 1)]
    return [" ".join(words[:30]), " ".join(spread), f"<b>{words[0].upper()}</b>, {words[-1]}!<br />{words[0]} zzqx 42."]
