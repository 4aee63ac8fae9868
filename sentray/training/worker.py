"""What a Ray Train worker does: `run` trains a `Replica`, stores a checkpoint each epoch and the bundle at the end."""

import hashlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from sentray import models
from sentray.config import TrainSettings
from sentray.console import count
from sentray.errors import SentrayError
from sentray.training import batches, checkpoint
from sentray.training.allreduce import AllReduce
from sentray.training.checkpoint import NothingToKeepError, State
from sentray.training.gradients import Gradients, summed
from sentray.training.heads import new_network
from sentray.training.progress import POLL_SECONDS, Kind
from sentray.training.training_set import TrainingSet

Check = Callable[[], None]
Tell = Callable[[Kind, Any], None]
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
    """Train under Ray Train: from its latest checkpoint, one new checkpoint an epoch, with the bundle in the last.

    Returns:
        None where there is a bundle. Else why there is none, on every worker: a `NothingToKeepError` where the same
        command would end so again. It is returned and not raised, since Ray Train would try again.
    """
    settings, tell = job.settings, _teller(job.progress if allreduce.rank == 0 else None)
    wanted = "" if str(settings.workers) == str(allreduce.world) else f" of {settings.workers}"
    tell("line", f"training with {count(allreduce.world, 'worker')}{wanted}")
    tell("expected", "the workers to load the training set")
    dataset = _together(allreduce, lambda: _load(job))
    if isinstance(dataset, SentrayError):
        return dataset
    state, replica = _start(settings, dataset, allreduce, tell)
    replica.check_replicas()
    still_held = (job.require_held if allreduce.rank == 0 else None) or (lambda: None)
    while state.epoch < settings.epochs:
        tell("expected", "a step of training")
        record = replica.epoch(state.epoch, lambda report: tell("step", report))
        tell("epoch", record)
        if record.pop("dead"):
            if state.restarts >= settings.max_restarts:
                return NothingToKeepError(
                    f"the network did not start to learn with {settings.max_restarts + 1} seeds from {settings.seed} "
                    "on: every unit of a layer died in each, or the loss was no number; try a smaller --learning-rate "
                    "or a larger --max-restarts"
                )
            tell(
                "line",
                f"seed {state.seed} made a dead start (no unit of a layer reacts, or the loss is no number): again "
                f"with seed {state.seed + 1}",
            )
            state = State(0, state.seed + 1, state.restarts + 1)
            replica = Replica(settings, dataset, allreduce, state.seed)
        else:
            state = replace(state, epoch=state.epoch + 1, history=(*state.history, record))
        replica.check_replicas()
        if isinstance(lost := _together(allreduce, still_held), SentrayError):
            return lost
        tell("expected", f"the checkpoint after epoch {state.epoch} to be stored")
        _report(state, replica, settings, dataset, allreduce.rank)
    return None


def _teller(board: Any) -> Tell:
    """Sends messages to the actor of `shown_on` without waiting for them to arrive; nothing where there is none."""

    def tell(kind: Kind, content: Any) -> None:
        if board is not None:
            board.put.remote(kind, content)

    return tell


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


def _start(settings: TrainSettings, dataset: TrainingSet, allreduce: AllReduce, tell: Tell) -> tuple[State, "Replica"]:
    """The state to go on from, and a replica of that state."""
    import ray.train

    stored = ray.train.get_checkpoint()
    if stored is None:
        return State(0, settings.seed), Replica(settings, dataset, allreduce, settings.seed)
    with stored.as_directory() as folder:
        state = checkpoint.read_state(folder)
        replica = Replica(settings, dataset, allreduce, state.seed)
        checkpoint.restore(folder, replica.network)
    tell("line", f"going on after epoch {state.epoch} of {settings.epochs}")
    return state, replica


def _report(state: State, replica: "Replica", settings: TrainSettings, dataset: TrainingSet, rank: int) -> None:
    """Tell Ray Train of an epoch; the first worker stores its checkpoint."""
    import ray.train

    stored = None
    with tempfile.TemporaryDirectory() as scratch:
        if rank == 0:
            checkpoint.write(Path(scratch), state, replica.network)
            if state.epoch == settings.epochs:
                checkpoint.write_bundle(Path(scratch), replica.network.keras_model(), settings, dataset)
            stored = ray.train.Checkpoint.from_directory(scratch)
        ray.train.report({"epoch": state.epoch, "restarts": state.restarts}, checkpoint=stored)


class Replica:
    """One worker's copy of the network, trained on its part of every batch; all copies stay equal.

    Args:
        settings: Of the run.
        dataset: The training reviews.
        allreduce: The connection to the other workers.
        seed: Fixes first weights and order.
    """

    def __init__(self, settings: TrainSettings, dataset: TrainingSet, allreduce: AllReduce, seed: int) -> None:
        self.network = new_network(settings, dataset, np.arange(len(dataset)), seed, allreduce)
        self._dataset, self._allreduce, self._seed = dataset, allreduce, seed
        self._batch_size, self._epochs = settings.batch_size, settings.epochs
        self._lengths = np.minimum(dataset.lengths, dataset.facts.spec.max_length)
        counts = np.array(dataset.facts.label_rows, np.float64)
        even = len(dataset) / (len(counts) * np.maximum(counts, 1))
        self._class_weights = (even if settings.class_weight == "balanced" else np.ones_like(counts)).astype(np.float32)
        self._seconds: dict[str, float] = {}
        # Kept across epochs: one that is shorter than the pause is progress too.
        self._reported = time.perf_counter()

    def epoch(self, number: int, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Train one epoch.

        Args:
            number: Of the epoch, from 0.
            report: Called now and then with what the progress line shows of this worker's rows so far.

        Returns:
            The epoch's record over all workers: `epoch` from 1, mean `loss` and `accuracy` of the heads, `rows_seen`,
            `steps`, `started_at` (Unix time), `seconds`, of them `first_step_seconds` and by part of a step `parts`,
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
            sums += (*np.mean([(part.loss, part.correct) for part in result], axis=0), len(mine))
            alive |= reacts and step >= len(steps) // 2
            if time.perf_counter() - self._reported < POLL_SECONDS:
                continue
            self._reported, seen = time.perf_counter(), max(sums[2], 1)
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
        digest = hashlib.sha256()
        for values in self.network.constants():
            digest.update(values.data)
        for name, values in sorted(self.network.state().items()):
            digest.update(name.encode())
            digest.update(values.data)
        if len(set(self._allreduce.gather(digest.digest()))) > 1:
            raise RuntimeError("the training workers' weights differ")
        return digest.hexdigest()

    def _step(self, batch: batches.Rows, mine: batches.Rows) -> tuple[list[Gradients], bool]:
        """Train on a batch; what it says of this worker's rows by head, and whether the network reacts."""
        with self._timed("data"):
            packed = self.network.pack([self._dataset.review(row) for row in mine])
            labels = self._dataset.targets[mine]
        with self._timed("network"):
            gradients = self.network.gradients(packed, labels, self._class_weights[labels], len(batch))
        with self._timed("allreduce"):
            total = summed(gradients, self._allreduce)
        with self._timed("optimizer"):
            reacts = self.network.apply(total)
        return gradients, reacts

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - started
