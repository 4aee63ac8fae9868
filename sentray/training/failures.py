"""What Ray Train's controller tells the driver when it loses workers."""

from typing import Any

import ray
from ray.train import UserCallback

from sentray.console import count
from sentray.storage import first_line


class Failures(UserCallback):
    """Tells of workers that were lost or failed, and that others are awaited in their place.

    Args:
        board: Handle of the `Progress` actor.
        awaited: What the run waits for until training goes on.
    """

    def __init__(self, board: Any, awaited: str) -> None:
        self._board, self._awaited = board, awaited

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ray Train's hook."""
        self._board.say.remote(told(worker_exceptions))
        self._board.expect.remote(self._awaited)


def told(worker_exceptions: dict[int, Exception]) -> str:
    """What befell the workers, from what Ray Train knows of each by its rank."""
    # The others fail as well, since they miss the lost one.
    causes = [getattr(error, "health_check_failure", error) for error in worker_exceptions.values()]
    lost = sum(isinstance(cause, ray.exceptions.RayActorError) for cause in causes)
    failed = f"a training worker failed: {type(causes[0]).__name__}: {first_line(causes[0])}"
    return f"{count(lost, 'training worker')} lost" if lost else failed
