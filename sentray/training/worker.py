"""What each training worker does under Ray Train: epochs, new starts, checkpoints, and the bundle at the end."""

import json
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sentray import bundle, models
from sentray.config import TrainSettings
from sentray.console import count
from sentray.errors import SentrayError
from sentray.training.allreduce import Exchange
from sentray.training.trainer import Job, Trainer
from sentray.training.training_set import TrainingSet

REPORT_SECONDS = 0.5
"""Least time between two progress reports to the driver."""

STATE_FILE, WEIGHTS_FILE, BUNDLE_FOLDER = "state.json", "weights.npz", "bundle"
_STEP = "a step of training"


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


@dataclass(frozen=True)
class Refusal:
    """Why training ended without a bundle. It is returned and not raised, since Ray Train would try again.

    Attributes:
        sentence: What went wrong and the cure.
        lasting: Whether the same command would end so again, so that nothing needs to be kept for it.
    """

    sentence: str
    lasting: bool = False


class Reporter:
    """Tells the driver how far training is; only the first worker speaks.

    Args:
        job: What the workers were told.
        rank: This worker's number.
    """

    def __init__(self, job: Job, rank: int) -> None:
        self._board = job.progress if rank == 0 else None
        self._epochs = job.settings.epochs
        self._last = time.monotonic()

    def say(self, line: str) -> None:
        """Have a line printed."""
        if self._board:
            self._board.say.remote(line)

    def expect(self, what: str) -> None:
        """Have it known what training waits for; see `Console.expect`."""
        if self._board:
            self._board.expect.remote(what)

    def progress(self, report: dict[str, Any]) -> None:
        """Have a step's report shown, unless the last one was a moment ago."""
        if self._board and time.monotonic() - self._last > REPORT_SECONDS:
            self._last = time.monotonic()
            self._board.update.remote(report | {"epochs": self._epochs})

    def finish(self, record: dict[str, Any]) -> None:
        """Have an epoch's record counted."""
        if self._board:
            self._board.finish.remote(record)


def run(job: Job, exchange: Exchange) -> Refusal | None:
    """Train under Ray Train: from its latest checkpoint, one new checkpoint an epoch, the bundle in the last.

    Returns:
        Why there is no bundle, on every worker; None where there is one.
    """
    reporter = Reporter(job, exchange.rank)
    asked = str(job.settings.workers)
    reporter.say(
        f"training with {count(exchange.world, 'worker')}" + (f" of {asked}" if asked != str(exchange.world) else "")
    )
    reporter.expect("the workers to load the training set")
    dataset = _load(job, exchange)
    if isinstance(dataset, Refusal):
        return dataset
    state, trainer = _start(job, dataset, exchange, reporter)
    reporter.expect(_STEP)
    trainer.check_replicas()
    while state.epoch < job.settings.epochs:
        record = _train_epoch(trainer, state.epoch, reporter)
        if record.pop("dead"):
            if state.restarts >= job.settings.max_restarts:
                return Refusal(_no_start(job.settings), lasting=True)
            state = _next_seed(state, reporter)
            trainer = Trainer(job, dataset, exchange, state.seed)
        else:
            state = replace(state, epoch=state.epoch + 1, history=(*state.history, record))
        trainer.check_replicas()
        if refusal := _refusal(exchange, _lost_lease(job) if exchange.rank == 0 else ""):
            return refusal
        reporter.expect(f"the checkpoint after epoch {state.epoch} to be stored")
        _report(state, trainer, exchange)
        reporter.expect(_STEP)
    reporter.expect("the bundle to be stored")
    _report(state, trainer, exchange, finished=(job, dataset))
    return None


def _load(job: Job, exchange: Exchange) -> TrainingSet | Refusal:
    """The training set; or, where a worker does not get it or its GPU, what that worker says, on all of them."""
    dataset, mistake = None, ""
    try:
        models.prepare_tensorflow(job.threads)
        dataset = TrainingSet.load(job.dataset)
    except SentrayError as error:
        mistake = str(error)
    refusal = _refusal(exchange, mistake)
    if refusal is None:
        assert dataset is not None
        return dataset
    return refusal


def _lost_lease(job: Job) -> str:
    """Why this run may not go on in its work folder; empty where it may."""
    try:
        if job.require_held:
            job.require_held()
    except SentrayError as error:
        return str(error)
    return ""


def _refusal(exchange: Exchange, mistake: str) -> Refusal | None:
    """What the first worker that cannot go on says, on all of them."""
    mistakes = [told.decode() for told in exchange.gather(mistake.encode()) if told]
    return Refusal(mistakes[0]) if mistakes else None


def _start(job: Job, dataset: TrainingSet, exchange: Exchange, reporter: Reporter) -> tuple[State, Trainer]:
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        state = State(0, job.settings.seed)
        return state, Trainer(job, dataset, exchange, state.seed)
    state = read_state(checkpoint)
    trainer = Trainer(job, dataset, exchange, state.seed)
    # Without a name, so that a process that is killed leaves nothing.
    with tempfile.TemporaryFile() as copy, _open(checkpoint, WEIGHTS_FILE) as stored:
        shutil.copyfileobj(stored, copy)
        copy.seek(0)
        with np.load(copy) as weights:
            trainer.network.restore(weights)
    reporter.say(f"going on after epoch {state.epoch} of {job.settings.epochs}")
    return state, trainer


def read_state(checkpoint: Any) -> State:
    """The state in a checkpoint of Ray Train."""
    with _open(checkpoint, STATE_FILE) as stored:
        values = json.loads(stored.readall())
    return State(**values | {"history": tuple(values["history"])})


def _open(checkpoint: Any, name: str) -> Any:
    return checkpoint.filesystem.open_input_file(f"{checkpoint.path}/{name}")


def _train_epoch(trainer: Trainer, number: int, reporter: Reporter) -> dict[str, Any]:
    report: dict[str, Any] = {}
    for report in trainer.epoch(number):
        if "step" in report:
            reporter.progress(report)
    reporter.finish(report)
    return report


def _no_start(settings: TrainSettings) -> str:
    seeds = f"{settings.max_restarts + 1} seeds from {settings.seed} on"
    return (
        f"the network did not start to learn with {seeds}: every unit of a layer died in each, or the loss was no "
        "number; try a smaller --learning-rate or a larger --max-restarts"
    )


def _next_seed(state: State, reporter: Reporter) -> State:
    seed = state.seed + 1
    why = "no unit of a layer reacts, or the loss is no number"
    reporter.say(f"seed {state.seed} made a dead start ({why}): again with seed {seed}")
    return State(0, seed, state.restarts + 1)


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
        weights: dict[str, Any] = trainer.network.state()
        np.savez(folder / WEIGHTS_FILE, **weights)
        (folder / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")
        if finished:
            _write_bundle(folder / BUNDLE_FOLDER, trainer.network.keras_model(), *finished)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(scratch))


def _write_bundle(folder: Path, model: Any, job: Job, dataset: TrainingSet) -> None:
    from sentray.inference.folding import fold_if_possible
    from sentray.inference.scorer import golden_texts

    files = {bundle.MODEL: models.keras_file(model), **fold_if_possible(model)}
    settings = job.settings.model_dump(mode="json")
    made = bundle.make(dataset.facts.spec, dataset.vocabulary, files, settings=settings)
    bundle.publish(bundle.update(made, golden=golden_texts(made, dataset.vocabulary.samples())), str(folder))
