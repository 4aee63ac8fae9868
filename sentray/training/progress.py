"""How far training is: a `Reporter` in a worker sends it to an actor, whose `Progress` the driver shows."""

import threading
import time
from typing import Any

from sentray.console import Console, duration
from sentray.telemetry import TrainingTelemetry

POLL_SECONDS = 0.5


class Reporter:
    """Sends the driver how far training is.

    Args:
        board: Handle of the `Progress` actor; None sends nothing, as all workers but the first do.
    """

    def __init__(self, board: Any) -> None:
        self._board, self._last = board, time.monotonic()

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
        if self._board and time.monotonic() - self._last > POLL_SECONDS:
            self._last = time.monotonic()
            self._board.update.remote(report)

    def finish(self, record: dict[str, Any]) -> None:
        """Have an epoch's record counted."""
        if self._board:
            self._board.finish.remote(record)


class _Board:
    """Actor that keeps what is reported until the driver asks for it."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] | None = None
        self.lines: list[str] = []
        self.expected: str | None = None
        self.epochs: list[dict[str, Any]] = []

    def update(self, report: dict[str, Any]) -> None:
        self.latest = report

    def say(self, line: str) -> None:
        self.lines.append(line)

    def expect(self, what: str) -> None:
        self.expected = what

    def finish(self, record: dict[str, Any]) -> None:
        self.epochs.append(record)

    def take(self) -> tuple[list[str], list[dict[str, Any]], dict[str, Any] | None, str | None]:
        lines, self.lines = self.lines, []
        epochs, self.epochs = self.epochs, []
        latest, self.latest = self.latest, None
        return lines, epochs, latest, self.expected


class Progress:
    """Shows on the console what the workers report to an actor, while the block runs."""

    def __init__(self, actor: Any, console: Console) -> None:
        self.actor = actor
        self._console = console
        self._telemetry = TrainingTelemetry(console.verb, console.run)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    @classmethod
    def start(cls, console: Console) -> "Progress":
        """Start the actor, without a CPU of its own and on the driver's node, since it is of use as long as that is."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        return cls(ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote(), console)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        if self._console.failure:
            raise self._console.failure

    def _follow(self) -> None:
        try:
            self._show()
        except Exception as error:
            # Nobody would see the run go on, not even the watchdog.
            self._console.failure = error

    def _show(self) -> None:
        import ray

        while True:
            finished = self._done.wait(POLL_SECONDS)
            lines, epochs, latest, expected = ray.get(self.actor.take.remote())
            if expected:
                self._console.expect(expected)
            for line in lines:
                self._console.say(line)
            for record in epochs:
                self._telemetry.epoch(record)
                fields = {name: record[name] for name in ("epoch", "loss", "accuracy", "rows_seen", "seconds")}
                self._console.event(f"epoch {record['epoch']} finished", **fields)
            if latest:
                self._telemetry.step(latest)
                self._console.progress(progress_line(latest))
            if finished:
                return


def progress_line(report: dict[str, Any]) -> str:
    """Epoch, step, loss, accuracy, rows a second and time left, in one line."""
    left = report["steps"] - report["step"] + (report["epochs"] - report["epoch"]) * report["steps"]
    return (
        f"epoch {report['epoch']}/{report['epochs']}  step {report['step']}/{report['steps']}  "
        f"loss {report['loss']:.4f}  accuracy {report['accuracy']:.3f}  "
        f"{report['rows'] / report['seconds']:,.0f} rows/s  ETA {duration(left * report['seconds'] / report['step'])}"
    )
