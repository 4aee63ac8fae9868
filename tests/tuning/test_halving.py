"""Which trials go on: the first always, others while they are among the better half, also beside earlier starts'."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import TrialScheduler

from sentray.config import TuneSettings
from sentray.storage import Folder
from sentray.tuning.halving import Halving, Watch
from sentray.tuning.records import Records

SETTINGS = TuneSettings(corpus="reviews.csv", out="out")


def _asked(halving: Halving, number: int, *losses: float) -> list[bool]:
    """Whether a trial goes on after each epoch with these losses."""
    trial = SimpleNamespace(trial_id=f"t{number}", config={"number": number})
    halving.on_trial_add(None, trial)
    reports: list[dict[str, Any]] = [{"resource": epoch, "loss": loss} for epoch, loss in enumerate(losses, 1)]
    return [halving.on_trial_result(None, trial, report) == TrialScheduler.CONTINUE for report in reports]


def test_the_worse_half_is_stopped_after_two_epochs_and_the_first_never(tmp_path: Path, console: Any) -> None:
    records = Records(Folder(str(tmp_path)), {1: {}, 2: {}, 3: {}, 4: {}}, None, console)
    halving = Halving(SETTINGS, records)
    assert _asked(halving, 2, 0.9, 0.5, 0.45) == [True, True, True]
    assert _asked(halving, 1, 0.9, 0.7, 0.7, 0.7) == [True] * 4
    assert _asked(halving, 3, 0.1, 0.65) == [True, False]
    assert _asked(halving, 4, 0.9, 0.4) == [True, True]


def test_trials_of_an_earlier_start_are_kept_and_compared_with(tmp_path: Path, console: Any) -> None:
    folder, changes = Folder(str(tmp_path)), {1: {}, 2: {"batch_size": 16}, 3: {"batch_size": 64}, 4: {}}
    records = Records(folder, changes, 60, console)
    about = {"accuracy": 0.5, "rows": 10, "folds": 1, "time_total_s": 1.0, "intervals": {}}
    for number, end in ((1, True), (2, False)):
        records.begin(number)
        for epoch, loss in enumerate((0.6, 0.5 + number / 100), 1):
            done = epoch == 2
            ended = end and done
            records.add(
                number, about | {"resource": epoch, "loss": loss, "epochs": epoch, "ended": ended, "done": done}
            )
    records.fail(3, "no room")
    assert "trial 3 (batch_size 64): no room" in console.lines
    assert records.line().startswith("3 trials done, 0 running, 1:00 left; best 0.5100")

    # What was lost may not be the next time.
    Watch(records).on_trial_error(0, [], SimpleNamespace(config={"number": 4}))
    assert records.done.pop(4)["error"].startswith("its process was lost")

    again = Records(folder, changes, 60, console)
    assert [again.done[number]["status"] for number in (1, 2, 3)] == ["ended", "stopped", "failed"]
    assert again.done == records.done
    assert 59 < again.left() < 60
    assert _asked(Halving(SETTINGS, again), 4, 0.9, 0.53) == [True, False]
