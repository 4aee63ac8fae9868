"""How far training is: the first worker sends it to an actor, and the driver has it `shown_on` its console."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

from sentray.console import Console, duration
from sentray.telemetry import Telemetry

POLL_SECONDS = 0.5
Kind = Literal["line", "expected", "step", "epoch", "history", "progress"]
"""Of a message: a line to print, what the run waits for (`Console.expect`), a step's report, an epoch's record, all
records so far that a run goes on from (`State.history`), or the progress line itself."""


class _Board:
    """Actor that keeps messages until the driver asks for them."""

    def __init__(self) -> None:
        self.messages: list[tuple[Kind, Any]] = []

    def put(self, kind: Kind, content: Any) -> None:
        if kind == "history":
            # It has what those before it had.
            self.messages = [message for message in self.messages if message[0] != kind]
        self.messages.append((kind, content))

    def take(self) -> list[tuple[Kind, Any]]:
        messages, self.messages = self.messages, []
        return messages


@contextlib.contextmanager
def shown_on(console: Console, history: Callable[[Any], None] | None = None) -> Iterator[Any]:
    """Show on a console what is sent to the actor whose handle the block gets, until the block ends.

    Args:
        console: Where to show it.
        history: Called with all records so far, whenever there are others.

    Raises:
        Exception: What went wrong in showing it; see `Console.failure`.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node, since it is of use as long as that is, and without a CPU of its own.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=here)(_Board).remote()
    telemetry, done = Telemetry(console.verb, console.run), threading.Event()

    def follow() -> None:
        try:
            finished = False
            while not finished:
                finished = done.wait(POLL_SECONDS)
                for kind, content in ray.get(board.take.remote()):
                    if kind == "history":
                        if history is not None:
                            history(content)
                    else:
                        _show(kind, content, console, telemetry)
        except Exception as error:
            # Nobody would see the run go on, not even the watchdog.
            console.failure = error

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield board
    finally:
        done.set()
        thread.join()
        if console.failure:
            raise console.failure


def _show(kind: Kind, content: Any, console: Console, telemetry: Telemetry) -> None:
    if kind == "line":
        console.say(content)
    elif kind == "expected":
        console.expect(content)
    elif kind == "progress":
        console.progress(content)
    elif kind == "step":
        telemetry.step(content)
        console.progress(progress_line(content))
    else:
        telemetry.epoch(content)
        fields = {
            name: content[name]
            for name in ("epoch", "loss", "accuracy", "r2", "rows_seen", "seconds")
            if name in content
        }
        # Of fits that only say how the last one shall be, a line each is enough.
        line = "" if content.get("trial") else epoch_line(content)
        console.event(f"epoch {content['epoch']} finished", line, **fields)


def epoch_line(record: dict[str, Any]) -> str:
    """An epoch that is finished: losses, accuracy, rows a second and how long it took, in one line."""
    seconds = record["seconds"]
    losses = record.get("held_out", {})
    held_out = "".join(f"held-out {head if len(losses) > 1 else 'loss'} {losses[head]:.4f}  " for head in losses)
    return (
        f"epoch {record['epoch']}  loss {record['loss']:.4f}  {_accuracy(record)}  "
        f"{held_out}{record['rows_seen'] / max(seconds, 1e-3):,.0f} rows/s  {duration(seconds)}"
    )


def progress_line(report: dict[str, Any]) -> str:
    """Epoch, step, time left, loss, accuracy and rows a second, in one line, of which a terminal may cut the end."""
    left = report["steps"] - report["step"] + (report["epochs"] - report["epoch"]) * report["steps"]
    fit = f"fit {report['fit'] + 1}/{report['fits']}  " if report.get("fits", 1) > 1 else ""
    return (
        f"{fit}epoch {report['epoch']}/{report['epochs']}  step {report['step']}/{report['steps']}  "
        f"ETA {duration(left * report['seconds'] / report['step'])}  "
        f"loss {report['loss']:.4f}  {_accuracy(report)}  "
        f"{report['rows'] / report['seconds']:,.0f} rows/s"
    )


def _accuracy(report: dict[str, Any]) -> str:
    return f"R² {report['r2']:.3f}" if "r2" in report else f"accuracy {report['accuracy']:.3f}"
