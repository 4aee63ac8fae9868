"""`Records` of trials: what each gave, stored when it ends, so that a command that is given again goes on."""

import json
import math
import time
from collections.abc import Mapping
from typing import Any

from sentray.console import Console, count, duration
from sentray.storage import Folder
from sentray.tables import headline, shown

_SPENT = "spent.json"


class Records:
    """What is known of the trials, and how much of the budget is left.

    A record has the trial's `number`, what `settings` it changes, its `status` (running, ended, stopped or failed), of
    its last report `loss`, `accuracy` or what else its task is measured by, `rows`, `epochs` and `folds`, `intervals`
    of 95 % where it has ended, `seconds`, the `error` where it failed, and all `reports`.

    Args:
        work: Where they are kept.
        changes: The settings of each trial, by its number.
        budget: Seconds for all; None where there is no limit.
        console: Where to say what trials give.

    Attributes:
        changes: As given.
        budget: Likewise; infinite where there is no limit.
        done: Records of trials that will not go on, by their number.
    """

    def __init__(self, work: Folder, changes: Mapping[int, dict[str, Any]], budget: float | None, console: Console):
        self.changes, self.budget = changes, math.inf if budget is None else budget
        self._work, self._console, self._started = work, console, time.monotonic()
        self._spent = (work.read_json(_SPENT) or {}).get("seconds", 0.0)
        self._running = dict[int, dict[str, Any]]()
        stored = (work.read_json(name) for name in sorted(work.names("trials")))
        self.done = {record["number"]: record for record in stored if record and record["number"] in changes}

    def left(self) -> float:
        """Seconds of the budget that are left, over all starts of the command."""
        return self.budget - self._seconds()

    def begin(self, number: int) -> None:
        """A trial starts, perhaps anew."""
        about = {"number": number, "settings": self.changes[number], "status": "running", "loss": None}
        self._running[number] = about | {"seconds": 0, "error": "", "reports": []}
        self._show()

    def add(self, number: int, report: Mapping[str, Any]) -> None:
        """A trial reports; `done` says that it will not go on."""
        if error := report.get("error"):
            self.fail(number, error)
            return
        record = self._running[number]
        figures = ("loss", *shown(report))
        record |= {name: report[name] for name in (*figures, "rows", "epochs", "folds", "intervals")}
        record["seconds"] = round(report["time_total_s"])
        record["reports"].append({name: report[name] for name in ("resource", *figures)})
        if report["done"]:
            self._end(record, "ended" if report["ended"] else "stopped")
        self._show()

    def fail(self, number: int, error: str, *, again: bool = False) -> None:
        """A trial cannot go on.

        Args:
            number: Of the trial.
            error: Why, in words.
            again: Whether it may when the command is given again, so that it is not stored.
        """
        self.begin(number)
        self._end(self._running[number] | {"error": error}, "failed", keep=not again)

    def line(self) -> str:
        """How far all are, and the best so far."""
        of = f" of {len(self.changes):,}" if math.isinf(self.budget) else ""
        line = f"{len(self.done):,}{of} trials done, {len(self._running):,} running"
        if not math.isinf(self.budget):
            line += f", {duration(max(self.left(), 0))} left"
        ended = [record for record in self.done.values() if record["status"] == "ended"]
        if not ended:
            return line
        best = min(ended, key=lambda record: (record["loss"], record["number"]))
        return f"{line}; best {_figures(best)}: {written(best['settings'])}"

    def _end(self, record: dict[str, Any], status: str, *, keep: bool = True) -> None:
        number = record["number"]
        self.done[number] = self._running.pop(number) | record | {"status": status}
        if keep:
            self._work.write_json(f"trials/{number:04}.json", self.done[number])
        self._work.write_json(_SPENT, {"seconds": self._seconds()})
        said = record["error"] or (
            f"{'stopped with ' if status == 'stopped' else ''}held-out loss {_figures(record)}; "
            f"{count(record['epochs'], 'epoch')}, {record['seconds']} s"
        )
        self._console.say(f"trial {number} ({written(record['settings'])}): {said}")

    def _seconds(self) -> float:
        """Spent so far, over all starts."""
        return float(self._spent) + time.monotonic() - self._started

    def _show(self) -> None:
        share = len(self.done) / len(self.changes) if math.isinf(self.budget) else 1 - max(self.left(), 0) / self.budget
        self._console.progress(self.line(), share)


def _figures(record: Mapping[str, Any]) -> str:
    name, about = headline(record)
    return f"{record['loss']:.4f}, {about} {record[name]:.3f}"


def written(settings: Mapping[str, Any]) -> str:
    """Settings in words."""
    plain = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in settings.items())
    return ", ".join(f"{name} {value}" for name, value in plain) or "this command's own settings"
