"""What the driver is said while workers train, and when they are lost."""

from types import SimpleNamespace
from typing import Any

import pytest

from sentray.training.progress import progress_line, shown_on

REPORT = {"epoch": 2, "epochs": 3, "step": 5, "steps": 10, "loss": 0.5, "accuracy": 0.75, "rows": 100, "seconds": 2.0}

RECORD = {"epoch": 2, "loss": 0.4, "accuracy": 0.8, "rows_seen": 1000, "seconds": 4.0}


def test_a_report_is_one_line_with_the_time_left() -> None:
    assert progress_line(REPORT) == "epoch 2/3  step 5/10  ETA 0:06  loss 0.5000  accuracy 0.750  50 rows/s"


@pytest.mark.usefixtures("ray_session")
def test_what_is_sent_is_shown_and_what_is_awaited_is_known(console: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    told: list[Any] = []
    with shown_on(console, told.append) as board:
        board.put.remote("history", ())
        board.put.remote("line", "training with 2 workers")
        board.put.remote("expected", "a step of training")
        board.put.remote("history", (RECORD,))
        board.put.remote("step", REPORT)
        board.put.remote("epoch", RECORD | {"trial": True, "epoch": 1})
        ray.get(board.put.remote("epoch", RECORD))
    assert console.lines == ["training with 2 workers"]
    assert told[-1] == (RECORD,)
    assert capsys.readouterr().err == "epoch 2  loss 0.4000  accuracy 0.800  250 rows/s  0:04\n"
    assert console.shown == [(progress_line(REPORT), None)]
    assert console.expected == "a step of training"
    # A node that is lost must not take with it what the driver needs.
    (info,) = [actor for actor in ray._private.state.actors().values() if actor["ActorID"] == board._actor_id.hex()]
    assert info["Address"]["NodeID"] == ray.get_runtime_context().get_node_id()
    ray.kill(board)


@pytest.mark.usefixtures("ray_session")
def test_a_line_that_nobody_reads_ends_the_run(console: Any) -> None:
    import ray

    def left(line: str) -> None:
        raise BrokenPipeError(line)

    console.say = left
    with pytest.raises(BrokenPipeError, match="training with 2 workers"), shown_on(console) as board:
        ray.get(board.put.remote("line", "training with 2 workers"))
    assert isinstance(console.failure, BrokenPipeError)
    ray.kill(board)


def test_lost_workers_are_counted_and_others_named() -> None:
    from ray.exceptions import RayActorError
    from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

    from sentray.training.trainer import Failures

    said: list[Any] = []
    board = SimpleNamespace(put=SimpleNamespace(remote=lambda kind, content: said.append(content)))
    failures = Failures(board, "2 workers wanted, not all started")
    lost = WorkerHealthCheckFailedError("it does not answer", RayActorError())
    failures.after_exception(None, {0: ConnectionError("another training worker went away"), 1: lost})
    assert said == ["1 training worker lost", "2 workers wanted, not all started"]
    said.clear()
    failures.after_exception(None, {0: RuntimeError("the weights differ.\nMore of it")})
    assert said[0] == "a training worker failed: RuntimeError: the weights differ"
