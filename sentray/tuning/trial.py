"""A `Trial` of Ray Tune: fits with some settings, epoch after epoch, and what the held-out rows say of them."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from ray.tune import Trainable

from sentray.config import TrainSettings
from sentray.errors import SentrayError, first_line
from sentray.metrics import metrics
from sentray.training.allreduce import AllReduce
from sentray.training.calibration import Mix, cross_fitted, log_loss
from sentray.training.checkpoint import HeldOut, Logits, State, choose
from sentray.training.folds import NEVER
from sentray.training.progress import progress_line
from sentray.training.training_set import TrainingSet
from sentray.training.validation import COMPARED, decision_of
from sentray.training.worker import Job, Replica, judge, load

Show = Callable[[dict[str, Any]], None]
RESOURCE, LOSS, ENDED = "resource", "loss", "ended"
"""In a report: epochs over all fits, those that were not needed among them; the loss; whether it is the last."""
MEASURE = {task: names[0] for task, names in COMPARED.items()}
"""What is said besides the loss."""


class Trial(Trainable):
    """Ray Tune's process of a trial, and of the next one when that has ended."""

    def setup(self, config: dict[str, Any], trials: Mapping[int, Job], board: Any) -> None:
        """Ray's hook.

        Args:
            config: The trial's `number`.
            trials: What to train, by number.
            board: Handle of the actor of `shown_on`.
        """
        self._trials, self._board = trials, board
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Ray's hook: begin with another trial."""
        number = new_config["number"]
        self._reports = reports(self._trials[number], partial(self._show, number))
        return True

    def step(self) -> dict[str, Any]:
        """Ray's hook: train until the next report."""
        try:
            return next(self._reports)
        except Exception as error:
            # Ray Tune would try what fails each time again as often as what is lost.
            if not isinstance(error, SentrayError):
                traceback.print_exc()
            why = (
                str(error) if isinstance(error, SentrayError) else f"{type(error).__name__}: {first_line(error)[:300]}"
            )
            return {LOSS: float("nan"), "error": why, ENDED: False, "done": True}

    def _show(self, number: int, step: dict[str, Any]) -> None:
        self._board.put.remote("progress", f"trial {number}: {progress_line(step)}")


def reports(job: Job, show: Show = lambda step: None) -> Iterator[dict[str, Any]]:
    """Fit for each fold of held-out rows; report after each epoch of the first fit, then after each further fit.

    So reports at the same `resource` are of the same rows. What a report says is what `sentray train` would find, would
    it end there: the heads after those epochs that were best, mixed and calibrated, with the thresholds chosen then.

    Args:
        job: Settings and training set.
        show: Called now and then with what the progress line shows.

    Yields:
        `resource`, the held-out rows' `loss` as training has it and what `MEASURE` names, `epochs` trained, `folds` and
        `rows` judged by, and whether the trial has `ended`, then with `intervals`.

    Raises:
        SentrayError: No seed made the network learn.
    """
    settings, dataset, alone = job.settings, load(job), AllReduce()
    folds, epochs = len(dataset.facts.held_out), 0
    state, logits = State(0, settings.seed), Logits()
    for fold in range(folds):
        state = replace(state, epoch=0, fit=fold)
        seen, about = _first(dataset, fold + 1), {"fit": fold, "fits": folds, "epochs": settings.epochs}
        replica = Replica(settings, dataset, alone, state.seed, fold)
        ended = False
        while not ended:
            heads, fixed = replica.network.heads, replica.network.fixed
            for head in heads:
                if state.ended(head, settings, fixed):
                    replica.network.rest(head)
            record = replica.epoch(state.epoch, partial(_show, show, about)) | {"fit": fold}
            epochs += 1
            if record.pop("dead"):
                if state.restarts >= settings.max_restarts:
                    raise SentrayError(f"the network did not start to learn with {settings.max_restarts + 1} seeds")
                state = state.restarted()
                replica = Replica(settings, dataset, alone, state.seed, fold)
                continue
            judged = state.judges(heads, settings, fixed)
            # A report wants them also where `sentray train` would not look.
            if judged or not fold:
                logits[fold, state.epoch + 1] = replica.held_out(fold)
            if judged:
                record |= judge(state, logits, dataset, heads)
            state = state.after(record)
            ended = all(state.ended(head, settings, fixed) for head in heads)
            if ended or not fold:
                last = ended and fold + 1 == folds
                yield {
                    RESOURCE: (fold + 1) * settings.epochs if ended else state.epoch,
                    **_figures(state, logits, seen, settings, heads, fixed, last),
                    "epochs": epochs,
                    "folds": fold + 1,
                    ENDED: last,
                    "done": last,
                }


def _show(show: Show, about: dict[str, Any], step: dict[str, Any]) -> None:
    show(step | about)


def _first(dataset: TrainingSet, folds: int) -> TrainingSet:
    """The training set as if it had the first folds alone."""
    facts = replace(dataset.facts, held_out=dataset.facts.held_out[:folds])
    return replace(dataset, facts=facts, held=np.where(dataset.held < folds, dataset.held, NEVER))


def _figures(
    state: State,
    logits: Logits,
    dataset: TrainingSet,
    settings: TrainSettings,
    heads: tuple[str, ...],
    fixed: Mapping[str, int],
    last: bool,
) -> dict[str, Any]:
    """What the held-out rows say, at last with intervals."""
    reached = {head: min(epochs, state.epoch) for head, epochs in fixed.items()}
    found = HeldOut.of(logits, choose(state, logits, dataset, settings, heads, reached).epochs, dataset)
    task, mixed = dataset.facts.spec.task, Mix.mean(len(heads)).of(found.logits)
    if settings.calibrate != "none":
        mixed = cross_fitted(found.logits, found.wanted, found.weights, task)
    scores, labels = found.scores(mixed, task), dataset.facts.spec.labels
    decided = decision_of(settings, found.labels, scores, task).of(scores, task)
    every = metrics(found.labels, scores, labels, decided, task, intervals=last)
    return {
        LOSS: log_loss(mixed, found.wanted, task=task),
        MEASURE[task]: every[MEASURE[task]],
        "rows": len(found.labels),
        "intervals": {name: ends for name, ends in every["intervals"].items() if name in ("log_loss", MEASURE[task])},
    }
