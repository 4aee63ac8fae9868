"""What a Ray Train worker does: `run` trains a `Replica`, stores a checkpoint each epoch and the bundle at the end.

A run is one fit for each fold of held-out rows, on all rows but these, and a last one. The rows that a fit does not see
say how long the last one trains, and how its heads are mixed and calibrated.
"""

import hashlib
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from pydantic import TypeAdapter

from sentray import models
from sentray.config import TrainSettings
from sentray.console import count
from sentray.errors import SentrayError
from sentray.task import Task, outputs
from sentray.training import batches, checkpoint
from sentray.training.allreduce import AllReduce
from sentray.training.calibration import Floats, Mix, log_loss, right_share
from sentray.training.checkpoint import Choice, HeldOut, Logits, NothingToKeepError, State, choose
from sentray.training.gradients import Gradients, summed
from sentray.training.heads import new_network
from sentray.training.loss_watch import LossWatch
from sentray.training.losses import chance
from sentray.training.progress import POLL_SECONDS, Kind
from sentray.training.stopping import parted
from sentray.training.training_set import TrainingSet

Check = Callable[[], None]
Tell = Callable[[Kind, Any], None]
T = TypeVar("T")

ACCURACY: dict[Task, str] = {
    **dict.fromkeys(("classification", "multilabel", "ordinal"), "accuracy"),
    "regression": "r2",
}
"""What an epoch's record says besides the loss: the share of the rows that are right in all of their outputs, or R²."""
_SAMPLED = 1 << 24
"""Outputs that are looked at to say what the loss of a network is that knows nothing of the texts."""
_SCORED = 128
"""Held-out rows that are scored at a time."""


@dataclass(frozen=True)
class Job:
    """What every worker gets.

    Attributes:
        settings: Of the run.
        dataset: Folder of the training set.
        progress: Handle of the actor of `shown_on`, or None.
        require_held: Raises when the work folder is no longer the run's; None where nobody else may want it.
        code: The function that builds the network and its layers, as `models.packed` gives them; empty for one of ours.
    """

    settings: TrainSettings
    dataset: str
    progress: Any = None
    require_held: Check | None = None
    code: bytes = b""


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
    dataset = _together(allreduce, lambda: load(job))
    if isinstance(dataset, SentrayError):
        return dataset
    state, logits, replica = _start(settings, dataset, allreduce, tell)
    replica.check_replicas()
    still_held = (job.require_held if allreduce.rank == 0 else None) or (lambda: None)
    folds = len(dataset.facts.held_out)
    tell("history", state.history)
    while True:
        network = replica.network
        ended = [head for head in network.heads if state.ended(head, settings, network.fixed)]
        if len(ended) == len(network.heads):
            if state.fit == folds:
                return None
            said = [parted(state.records_of(fit), settings.patience) for fit in range(state.fit + 1)]
            if folds > 1:
                tell("line", f"  {count(state.epoch, 'epoch')}, least held-out loss: {_least(state, network.heads)}")
            if said[-1] and not any(said[:-1]):
                tell("line", said[-1])
            state, replica = _begin(replace(state, fit=state.fit + 1), logits, settings, dataset, allreduce, tell)
            replica.check_replicas()
            continue
        for head in ended:
            network.rest(head)
        tell("expected", "a step of training")
        most = max(state.most_epochs(head, settings, network.fixed) for head in network.heads)
        about = {"fit": state.fit, "fits": folds + 1, "epochs": most}
        record = replica.epoch(state.epoch, partial(_tell_step, tell, about), partial(tell, "line")) | {
            "fit": state.fit
        }
        dead = record.pop("dead")
        if state.fit < folds and state.judges(network.heads, settings, network.fixed) and not dead:
            tell("expected", "the held-out rows to be scored")
            logits[state.fit, state.epoch + 1] = replica.held_out(state.fit)
            record |= _of_first(allreduce, partial(judge, state, logits, dataset, network.heads))
        tell("epoch", {**record, "trial": folds > 1 and state.fit < folds})
        if dead:
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
            state = state.restarted()
            replica = Replica(settings, dataset, allreduce, state.seed, state.fit)
        else:
            state = state.after(record)
        replica.check_replicas()
        if isinstance(lost := _together(allreduce, still_held), SentrayError):
            return lost
        tell("expected", f"the checkpoint after epoch {state.epoch} to be stored")
        _report(state, logits, replica, settings, dataset, allreduce.rank)
        tell("history", state.history)


def _begin(
    state: State, logits: Logits, settings: TrainSettings, dataset: TrainingSet, allreduce: AllReduce, tell: Tell
) -> tuple[State, "Replica"]:
    """A fit before its first epoch: the state, and a new replica."""
    replica, folds = Replica(settings, dataset, allreduce, state.seed, state.fit), len(dataset.facts.held_out)
    heads, fixed, choice = replica.network.heads, replica.network.fixed, None
    if state.fit == folds:
        of_first = partial(choose, state, logits, dataset, settings, heads, fixed)
        choice = TypeAdapter(Choice).validate_python(_of_first(allreduce, lambda: asdict(of_first())))
    if folds:
        what = f"holds out {dataset.facts.held_out[state.fit]:,}" if choice is None else choice.describe()
        tell("line", f"fit {state.fit + 1} of {folds + 1} trains on {len(replica.rows):,} rows and {what}")
    return replace(state, epoch=0, choice=choice), replica


def _least(state: State, heads: Sequence[str]) -> str:
    """The least loss of each head on the rows that the present fit held out, and after which epoch."""
    losses = {head: state.losses(state.fit, head) for head in heads}
    return ", ".join(
        f"{head} {min(found):.4f} after {found.index(min(found)) + 1}" for head, found in losses.items() if found
    )


def judge(state: State, logits: Logits, dataset: TrainingSet, heads: Sequence[str]) -> dict[str, Any]:
    """By head the loss and the accuracy on the rows that the present fit holds out, after the epoch just trained."""
    task, found = dataset.facts.spec.task, logits[state.fit, state.epoch + 1]
    wanted = dataset.facts.wanted(dataset.targets[dataset.held == state.fit])
    losses = {head: log_loss(found[:, column], wanted, task=task) for column, head in enumerate(heads)}
    right = {head: right_share(found[:, column], wanted, task) for column, head in enumerate(heads)}
    return {"held_out": losses, f"held_out_{ACCURACY[task]}": right}


def _tell_step(tell: Tell, about: dict[str, Any], report: dict[str, Any]) -> None:
    tell("step", report | about)


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


def _of_first(allreduce: AllReduce, work: Callable[[], Any]) -> Any:
    """JSON values that the first worker works out, on all: others' processors may round otherwise."""
    mine = json.dumps(work()) if allreduce.rank == 0 else ""
    return json.loads(allreduce.gather(mine.encode())[0])


def load(job: Job) -> TrainingSet:
    """The training set, in a process that is ready to train on it."""
    dataset = TrainingSet.load(job.dataset)
    if job.code:
        models.unpack(job.code)
    if not isinstance(models.architecture(dataset.facts.spec.network), models.Halves):
        _prepare_tensorflow(job.settings)
    return dataset


def _prepare_tensorflow(settings: TrainSettings) -> None:
    models.prepare_tensorflow(max(int(settings.cpus_per_worker), 1))
    import tensorflow as tf

    # Replicas are to be equal, and a resumed run to end as an unbroken one: on a GPU too.
    tf.config.experimental.enable_op_determinism()


def _start(
    settings: TrainSettings, dataset: TrainingSet, allreduce: AllReduce, tell: Tell
) -> tuple[State, Logits, "Replica"]:
    """The state to go on from, with the logits that belong to it, and a replica of that state."""
    import ray.train

    stored = ray.train.get_checkpoint()
    if stored is None:
        logits: Logits = {}
        state, replica = _begin(State(0, settings.seed), logits, settings, dataset, allreduce, tell)
        return state, logits, replica
    with stored.as_directory() as folder:
        state, logits = checkpoint.read_state(folder), checkpoint.read_logits(folder)
        replica = Replica(settings, dataset, allreduce, state.seed, state.fit)
        checkpoint.restore(folder, replica.network)
    folds = len(dataset.facts.held_out)
    fit = f" of fit {state.fit + 1} of {folds + 1}" if folds else f" of {settings.epochs}"
    tell("line", f"going on after epoch {state.epoch}{fit}")
    return state, logits, replica


def _report(
    state: State, logits: Logits, replica: "Replica", settings: TrainSettings, dataset: TrainingSet, rank: int
) -> None:
    """Tell Ray Train of an epoch; the first worker stores its checkpoint."""
    import ray.train

    stored, network, choice = None, replica.network, state.choice
    with tempfile.TemporaryDirectory() as scratch:
        if rank == 0:
            checkpoint.write(Path(scratch), state, network, logits)
            if choice is not None and all(state.ended(head, settings, network.fixed) for head in network.heads):
                _prepare_tensorflow(settings)
                mix = choice.mix or Mix.mean(len(network.heads))
                model = network.keras_model(mix.scaled(dataset.facts.mean, dataset.facts.scale))
                checkpoint.write_bundle(Path(scratch), model, settings, dataset)
                if logits:
                    HeldOut.of(logits, choice.epochs, dataset).write(Path(scratch))
            stored = ray.train.Checkpoint.from_directory(scratch)
        ray.train.report({"epoch": state.epoch, "restarts": state.restarts}, checkpoint=stored)


class Replica:
    """One worker's copy of the network, trained on its part of every batch; all copies stay equal.

    Args:
        settings: Of the run.
        dataset: The training reviews.
        allreduce: The connection to the other workers.
        seed: Fixes first weights and order.
        fit: Number of the fit, which says what rows it trains on.

    Attributes:
        network: What is trained.
        rows: Which rows of the training set it is trained on.
    """

    def __init__(
        self, settings: TrainSettings, dataset: TrainingSet, allreduce: AllReduce, seed: int, fit: int = 0
    ) -> None:
        # The last fit, whose number is no fold's, sees all rows or, without a refit, what the first one sees.
        is_last = fit == len(dataset.facts.held_out)
        self.rows = np.flatnonzero(dataset.held != (0 if is_last and not settings.refit else fit))
        self.network = new_network(settings, dataset, self.rows, seed, allreduce)
        self._dataset, self._allreduce, self._seed = dataset, allreduce, seed
        self._batch_size = settings.batch_size
        spec = dataset.facts.spec
        self._lengths = np.minimum(dataset.lengths, spec.max_length)
        self._class_weights: Floats | None = None
        if settings.class_weight == "balanced":
            counts = np.bincount(dataset.targets[self.rows], minlength=len(spec.labels))
            self._class_weights = (len(self.rows) / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
        # Of millions of rows with many labels some say it as well.
        some = self.rows[:: -(-len(self.rows) * outputs(spec.task, len(spec.labels)) // _SAMPLED) or 1]
        wanted, weights = dataset.facts.wanted(dataset.targets[some]), self._weights_of(some)
        self._task, self._chance = spec.task, chance(spec.task, wanted, weights, len(spec.labels))
        self._watches = {head: LossWatch(self._chance) for head in self.network.heads}
        self._seconds: dict[str, float] = {}
        # Kept across epochs: one that is shorter than the pause is progress too.
        self._reported = time.perf_counter()

    def epoch(
        self, number: int, report: Callable[[dict[str, Any]], None], warn: Callable[[str], None] = lambda line: None
    ) -> dict[str, Any]:
        """Train one epoch.

        Args:
            number: Of the epoch, from 0.
            report: Called now and then with what the progress line shows of this worker's rows so far.
            warn: Called where this worker's rows say that a head does not learn, once a head.

        Returns:
            The epoch's record over all workers: `epoch` from 1, mean `loss` and `accuracy` of the heads (of a
            regression `r2`, the share of its numbers' variance that is explained), `rows_seen`, `steps`, `started_at`
            (Unix time), `seconds`, of them `first_step_seconds` and by part of a step `parts`, `peak_rss_mb`, and
            `dead`: whether the loss is no number, or no unit of some layer reacted to any row in the epoch's second
            half.
        """
        started_at, started = time.time(), time.perf_counter()
        self._seconds = dict.fromkeys(("data", "network", "allreduce", "optimizer"), 0.0)
        first_step = 0.0
        allreduce, batch_size = self._allreduce, self._batch_size
        steps = [self.rows[batch] for batch in batches.epoch_batches(len(self.rows), batch_size, self._seed, number)]
        sums = np.zeros(3)
        alive = False
        for step, batch in enumerate(steps):
            mine = batches.share(batch, self._lengths[batch], allreduce.rank, allreduce.world)
            result, reacts = self._step(batch, mine)
            first_step = first_step or time.perf_counter() - started
            heads = len(result)
            sums += (sum(part.loss for part in result) / heads, sum(part.correct for part in result) / heads, len(mine))
            for head, part in zip(self.network.learning, result, strict=True):
                if head in self._watches and len(mine) and (line := self._watches[head].add(part.loss / len(mine))):
                    warn(f"warning: {'the network' if len(self.network.heads) == 1 else head}: {line}")
                    del self._watches[head]
            alive |= reacts and step >= len(steps) // 2
            if time.perf_counter() - self._reported < POLL_SECONDS:
                continue
            self._reported, seen = time.perf_counter(), max(sums[2], 1)
            report(
                {
                    "epoch": number + 1,
                    "step": step + 1,
                    "steps": len(steps),
                    "loss": sums[0] / seen,
                    **self._accuracy(sums[0], sums[1], seen),
                    "rows": (step + 1) * batch_size,
                    "seconds": time.perf_counter() - started,
                }
            )
        loss, correct, rows = np.sum([np.frombuffer(part) for part in allreduce.gather(sums.tobytes())], axis=0)
        return {
            "epoch": number + 1,
            "loss": float(loss / rows),
            **self._accuracy(loss, correct, rows),
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

    def held_out(self, fold: int) -> Floats:
        """Logits of the rows of a fold, each worker's share gathered; float32 [rows, heads, outputs]."""
        rows, world = np.flatnonzero(self._dataset.held == fold), self._allreduce.world
        mine, found = rows[self._allreduce.rank :: world], list[Floats]()
        for start in range(0, max(len(mine), 1), _SCORED):
            some = self._dataset.reviews(mine[start : start + _SCORED])
            numbers = self._dataset.numbers_of(mine[start : start + _SCORED])
            found.append(self.network.logits(self.network.pack(some, numbers)))
        parts = self._allreduce.gather(np.concatenate(found).astype(np.float32).tobytes())
        every = np.empty((len(rows), *found[0].shape[1:]), np.float32)
        for rank, part in enumerate(parts):
            every[rank::world] = np.frombuffer(part, np.float32).reshape(-1, *every.shape[1:])
        return every

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
            packed = self.network.pack(self._dataset.reviews(mine), self._dataset.numbers_of(mine))
            wanted = self._dataset.facts.wanted(self._dataset.targets[mine])
            weights = self._weights_of(mine)
        with self._timed("network"):
            gradients = self.network.gradients(packed, wanted, weights, len(batch))
        with self._timed("allreduce"):
            total = summed(gradients, self._allreduce)
        with self._timed("optimizer"):
            reacts = self.network.apply(total)
        return gradients, reacts

    def _weights_of(self, rows: batches.Rows) -> Floats:
        """How much some rows count, by their labels and by themselves; float32 [rows]."""
        of_rows = self._dataset.weights
        weights = np.ones(len(rows), np.float32) if of_rows is None else of_rows[rows]
        return weights if self._class_weights is None else weights * self._class_weights[self._dataset.targets[rows]]

    def _accuracy(self, loss: float, correct: float, rows: float) -> dict[str, float]:
        """What the record of an epoch says besides the loss, of sums over rows."""
        found = 1 - loss / rows / self._chance if self._task == "regression" else correct / rows
        return {ACCURACY[self._task]: float(found)}

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - started
