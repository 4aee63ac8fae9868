"""How far training is: rank 0 reports to an actor, the driver shows it."""

import threading
from typing import Any

from sentray.console import Console, duration

POLL_SECONDS = 0.5


class _Board:
    """Actor that keeps what rank 0 reports until the driver asks for it."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] | None = None
        self.lines: list[str] = []

    def update(self, report: dict[str, Any]) -> None:
        self.latest = report

    def say(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> tuple[list[str], dict[str, Any] | None]:
        lines, self.lines = self.lines, []
        latest, self.latest = self.latest, None
        return lines, latest


class Progress:
    """Shows on the console what the workers report to an actor, while the block runs."""

    def __init__(self, actor: Any, console: Console) -> None:
        self.actor = actor
        self._console = console
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    @classmethod
    def start(cls, console: Console) -> "Progress":
        """Start the actor, on a node of Ray's choice and without a CPU of its own."""
        import ray

        return cls(ray.remote(num_cpus=0)(_Board).remote(), console)

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _follow(self) -> None:
        import ray

        while True:
            finished = self._done.wait(POLL_SECONDS)
            lines, latest = ray.get(self.actor.take.remote())
            for line in lines:
                self._console.say(line)
            if latest:
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
