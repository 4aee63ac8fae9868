"""`Halving`: ASHA, which knows the trials of earlier starts; `Watch` has Ray Tune keep `Records`."""

from types import SimpleNamespace
from typing import Any

from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from sentray.config import TuneSettings
from sentray.training.folds import FOLDS
from sentray.tuning.records import Records
from sentray.tuning.trial import LOSS, RESOURCE

FACTOR, LEAST_EPOCHS = 2, 2
"""One in so many trials goes on from each rung, and the epochs before the first."""


class Halving(ASHAScheduler):
    """Asynchronous successive halving (Li et al. 2020) that never stops the first trial, the measure of all others.

    Args:
        settings: Of the command.
        records: Of the trials so far, whose rungs count.
    """

    def __init__(self, settings: TuneSettings, records: Records) -> None:
        # No trial reports more: it is at its end before.
        most = settings.epochs * FOLDS + 1
        super().__init__(RESOURCE, LOSS, "min", most, min(LEAST_EPOCHS, settings.epochs), FACTOR)
        for number, record in records.done.items():
            earlier = SimpleNamespace(trial_id=f"earlier-{number}", config={"number": number})
            self.on_trial_add(None, earlier)
            for report in record["reports"]:
                super().on_trial_result(None, earlier, report)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Ray's hook: whether a trial goes on after a report."""
        action: str = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config["number"] == 1 else action


class Watch(Callback):
    """Keeps the records in the process that asked for the trials.

    Args:
        records: Of the trials.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, for the copy that Ray Tune stores and nobody reads: a console cannot be stored."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Ray's hook."""
        self._records.begin(trial.config["number"])

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """Ray's hook."""
        self._records.add(trial.config["number"], result)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Ray's hook, when a trial has failed for the last time."""
        why = "its process was lost more than --max-failures times; see the log"
        self._records.fail(trial.config["number"], why, again=True)
