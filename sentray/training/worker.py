"""What a Ray Train worker does: `run` trains a `Replica`, stores a checkpoint each epoch and the bundle at the end."""

import hashlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from sentray import models
from sentray.config import TrainSettings
from sentray.console import count
from sentray.errors import SentrayError
from sentray.training import batches, checkpoint
from sentray.training.allreduce import AllReduce
from sentray.training.checkpoint import NothingToKeepError, State
from sentray.training.progress import Reporter
from sentray.training.training_set import TrainingSet

if TYPE_CHECKING:
    from sentray.training.network import Gradients, StepResult

_STEP = "a step of training"

Check = Callable[[], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """What every worker gets.

    Attributes:
        settings: Of the run.
        dataset: Folder of the training set.
        progress: Handle of the actor of `shown_on`, or None.
        require_held: Raises when the work folder is no longer the run's; None where nobody else may want it.
    """

    settings: TrainSettings
    dataset: str
    progress: Any = None
    require_held: Check | None = None


def run(job: Job, allreduce: AllReduce) -> SentrayError | None:
    """Train under Ray Train: from its latest checkpoint, one new checkpoint an epoch, the bundle in the last.

    Returns:
        None where there is a bundle. Else why there is none, on every worker: a `NothingToKeepError` where the same
        command would end so again. It is returned and not raised, since Ray Train would try again.
    """
    reporter, settings = Reporter(job.progress if allreduce.rank == 0 else None), job.settings
    wanted = "" if str(settings.workers) == str(allreduce.world) else f" of {settings.workers}"
    reporter.send("line", f"training with {count(allreduce.world, 'worker')}{wanted}")
    reporter.send("expected", "the workers to load the training set")
    dataset = _together(allreduce, lambda: _load(job))
    if isinstance(dataset, SentrayError):
        return dataset
    state, replica = _start(job, dataset, allreduce, reporter)
    reporter.send("expected", _STEP)
    replica.check_replicas()
    still_held = (job.require_held if allreduce.rank == 0 else None) or (lambda: None)
    while state.epoch < settings.epochs:
        record = replica.epoch(state.epoch, lambda report: reporter.send("step", report))
        reporter.send("epoch", record)
        if record.pop("dead"):
            if state.restarts >= settings.max_restarts:
                return NothingToKeepError(
                    f"the network did not start to learn with {settings.max_restarts + 1} seeds from {settings.seed} "
                    "on: every unit of a layer died in each, or the loss was no number; try a smaller --learning-rate "
                    "or a larger --max-restarts"
                )
            reporter.send(
                "line",
                f"seed {state.seed} made a dead start (no unit of a layer reacts, or the loss is no number): again "
                f"with seed {state.seed + 1}",
            )
            state = State(0, state.seed + 1, state.restarts + 1)
            replica = Replica(job, dataset, allreduce, state.seed)
        else:
            state = replace(state, epoch=state.epoch + 1, history=(*state.history, record))
        replica.check_replicas()
        if isinstance(lost := _together(allreduce, still_held), SentrayError):
            return lost
        reporter.send("expected", f"the checkpoint after epoch {state.epoch} to be stored")
        _report(state, replica, allreduce)
        reporter.send("expected", _STEP)
    reporter.send("expected", "the bundle to be stored")
    _report(state, replica, allreduce, finished=(settings, dataset))
    return None


def _together(allreduce: AllReduce, work: Callable[[], T]) -> T | SentrayError:
    """What some work gives on this worker; what is wrong with it on the first worker that says so, on all of them."""
    result, mistake = None, ""
    try:
        result = work()
    except SentrayError as error:
        mistake = str(error)
    mistakes = [each.decode() for each in allreduce.gather(mistake.encode()) if each]
    return SentrayError(mistakes[0]) if mistakes else cast(T, result)


def _load(job: Job) -> TrainingSet:
    models.prepare_tensorflow(max(int(job.settings.cpus_per_worker), 1))
    return TrainingSet.load(job.dataset)


def _start(job: Job, dataset: TrainingSet, allreduce: AllReduce, reporter: Reporter) -> tuple[State, "Replica"]:
    import ray.train

    stored = ray.train.get_checkpoint()
    state = State(0, job.settings.seed) if stored is None else checkpoint.read_state(stored)
    replica = Replica(job, dataset, allreduce, state.seed)
    if stored is not None:
        checkpoint.restore(stored, replica.network)
        reporter.send("line", f"going on after epoch {state.epoch} of {job.settings.epochs}")
    return state, replica


def _report(
    state: State,
    replica: "Replica",
    allreduce: AllReduce,
    finished: tuple[TrainSettings, TrainingSet] | None = None,
) -> None:
    import ray.train

    metrics = {"epoch": state.epoch, "restarts": state.restarts}
    if allreduce.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint.write(Path(scratch), state, replica.network)
        if finished:
            checkpoint.write_bundle(Path(scratch), replica.network.keras_model(), *finished)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(scratch))


class Replica:
    """One worker's copy of the network, trained on its part of every batch; all copies stay equal.

    Args:
        job: What to do.
        dataset: The training reviews.
        allreduce: The connection to the other workers.
        seed: Fixes first weights and order.
    """

    def __init__(self, job: Job, dataset: TrainingSet, allreduce: AllReduce, seed: int) -> None:
        import keras

        keras.utils.set_random_seed(seed)
        settings, facts = job.settings, dataset.facts
        self._rows = dataset.vocabulary.size
        vectors = facts.dimensions if dataset.vectors is None else dataset.vectors
        model = models.architecture(facts.spec.architecture).build(
            self._rows, facts.spec.max_length, len(facts.spec.labels), vectors, settings.freeze
        )
        self.network = network_for(model, settings)
        self._dataset, self._allreduce, self._seed = dataset, allreduce, seed
        self._batch_size, self._epochs = settings.batch_size, settings.epochs
        self._lengths = np.minimum(dataset.lengths, facts.spec.max_length)
        counts = np.array(facts.label_rows, np.float64)
        even = len(dataset) / (len(counts) * np.maximum(counts, 1))
        self._class_weights = (even if settings.class_weight == "balanced" else np.ones_like(counts)).astype(np.float32)
        self._seconds: dict[str, float] = {}

    def epoch(self, number: int, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Train one epoch.

        Args:
            number: Of the epoch, from 0.
            report: Called after each step with what the progress line shows of this worker's rows so far.

        Returns:
            The epoch's record over all workers: `epoch` from 1, mean `loss`, `accuracy`, `rows_seen`, `steps`,
            `started_at` (Unix time), `seconds`, of them `first_step_seconds` and by part of a step `parts`,
            `peak_rss_mb`, and `dead`: whether the loss is no number, or no unit of some layer reacted to any row in
            the epoch's second half.
        """
        started_at, started = time.time(), time.perf_counter()
        self._seconds = dict.fromkeys(("data", "network", "allreduce", "optimizer"), 0.0)
        first_step = 0.0
        allreduce, batch_size = self._allreduce, self._batch_size
        steps = batches.epoch_batches(len(self._dataset), batch_size, self._seed, number)
        sums = np.zeros(3)
        alive = False
        for step, batch in enumerate(steps):
            mine = batches.share(batch, self._lengths[batch], allreduce.rank, allreduce.world)
            result, reacts = self._step(batch, mine)
            first_step = first_step or time.perf_counter() - started
            sums += (result.loss, result.correct, len(mine))
            alive |= reacts and step >= len(steps) // 2
            seen = max(sums[2], 1)
            report(
                {
                    "epoch": number + 1,
                    "epochs": self._epochs,
                    "step": step + 1,
                    "steps": len(steps),
                    "loss": sums[0] / seen,
                    "accuracy": sums[1] / seen,
                    "rows": (step + 1) * batch_size,
                    "seconds": time.perf_counter() - started,
                }
            )
        loss, correct, rows = np.sum([np.frombuffer(part) for part in allreduce.gather(sums.tobytes())], axis=0)
        return {
            "epoch": number + 1,
            "loss": float(loss / rows),
            "accuracy": float(correct / rows),
            "rows_seen": int(rows),
            "steps": len(steps),
            "started_at": started_at,
            "seconds": time.perf_counter() - started,
            "first_step_seconds": first_step,
            "parts": self._seconds,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            # A network that has learnt every row by heart gets no gradient either.
            "dead": not np.isfinite(loss) or (not alive and bool(correct < rows)),
        }

    def check_replicas(self) -> str:
        """SHA-256 of the weights, the same on every worker.

        Raises:
            RuntimeError: The workers' weights differ.
        """
        # What is frozen is no part of the state.
        digest = hashlib.sha256(self.network.embedding.weights.data if self.network.embedding.frozen else b"")
        for name, values in sorted(self.network.state().items()):
            digest.update(name.encode())
            digest.update(values.data)
        if len(set(self._allreduce.gather(digest.digest()))) > 1:
            raise RuntimeError("the training workers' weights differ")
        return digest.hexdigest()

    def _step(self, batch: batches.Rows, mine: batches.Rows) -> tuple["StepResult", bool]:
        dataset = self._dataset
        with self._timed("data"):
            packed = self.network.pack([dataset.review(row) for row in mine])
            labels = dataset.targets[mine]
        with self._timed("network"):
            weights = self._class_weights[labels]
            result, gradients = self.network.gradients(packed, labels, weights, len(batch))
        if self._allreduce.world > 1:
            with self._timed("allreduce"):
                gradients = self._sum(gradients, batch)
        with self._timed("optimizer"):
            reacts = self.network.apply(gradients)
        return result, reacts

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - started

    def _sum(self, gradients: "Gradients", batch: batches.Rows) -> "Gradients":
        """The global batch's gradients, from every worker's part of them."""
        dense = self._allreduce.sum(gradients.dense)
        if self.network.embedding.frozen:
            return replace(gradients, dense=dense)
        # Every worker works out the batch's words by itself: nothing has to be agreed on first.
        words = batches.distinct_words([self._dataset.review(row) for row in batch], self._rows)
        rows = self._allreduce.sum_rows(gradients.rows, gradients.words, words)
        return replace(gradients, words=words, rows=rows, dense=dense)


def network_for(model: Any, settings: TrainSettings) -> Any:
    """What trains a Keras model: a `FastNetwork` where it knows the shape, else a `Network`.

    Raises:
        ValueError: The network cannot be trained, or not with these settings.
    """
    from sentray.training import fast_network
    from sentray.training.network import Network

    rates = (settings.learning_rate, settings.embedding_learning_rate)
    device = "/GPU:0" if settings.gpu else None
    if fast_network.knows(model):
        return fast_network.FastNetwork(model, *rates, precision=settings.precision, device=device)
    if settings.precision != "float32":
        raise ValueError(f"--precision {settings.precision} is of the networks that fast_network knows")
    return Network(model, *rates, device=device)
