"""What others look at a training with: `Trackers` tell TensorBoard's event files and an MLflow server how it goes."""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol, Self

from sentray.bundle import Bundle
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.errors import SentrayError, first_line
from sentray.storage import Folder
from sentray.tracking.figures import History
from sentray.tracking.mlflow_run import TRACKING_URI, MlflowRun, without_password
from sentray.tracking.tensorboard import EventFiles

_MAX_CAUSE = 300
"""Characters of a cause that are shown."""


class Tracker(Protocol):
    """Follows one training. Whatever it raises is said once, and the training goes on without it.

    Attributes:
        name: What it is to the user.
        cure: What the user may do where it fails.
    """

    name: str
    cure: str

    def begin(self, fits: int) -> None:
        """The corpus is prepared: so many fits follow."""

    def history(self, records: History) -> None:
        """These are the epochs so far (`State.history`): those told before and more, or fewer after a dead start."""

    def finish(self, published: Bundle, records: History) -> None:
        """The bundle lies where it belongs, after these epochs."""

    def end(self, finished: bool) -> None:
        """The training ends, well or not; called whatever failed before."""


class Trackers:
    """Those that follow a training, for the length of a `with` block.

    Args:
        settings: Of the run.
        work: Folder of what the run needs to go on after it was stopped.
        console: Where to say that one failed.
    """

    def __init__(self, settings: TrainSettings, work: Folder, console: Console) -> None:
        self._console = console
        self._trackers: list[Tracker] = [EventFiles(work)]
        if os.environ.get(TRACKING_URI):
            if find_spec("mlflow") is None:
                console.note(
                    f"warning: {TRACKING_URI} is set and mlflow is not installed, so that this training is not tracked "
                    "there: pip install 'sentray[mlflow]'"
                )
            else:
                self._trackers.append(MlflowRun(settings, work, console))
        self._working = list(self._trackers)

    def begin(self, fits: int) -> None:
        """See `Tracker`."""
        self._tell("begin", fits)

    def history(self, records: History) -> None:
        """See `Tracker`."""
        self._tell("history", records)

    def finish(self, published: Bundle, records: History) -> None:
        """See `Tracker`."""
        self._tell("finish", published, records)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._tell("end", kind is None, among=self._trackers)

    def _tell(self, what: str, *given: Any, among: Sequence[Tracker] | None = None) -> None:
        for tracker in list(self._working if among is None else among):
            try:
                getattr(tracker, what)(*given)
            except Exception as error:
                # What failed once has been said.
                if tracker in self._working:
                    self._working.remove(tracker)
                    cause = without_password(first_line(_cause(error)))[:_MAX_CAUSE]
                    self._console.note(
                        f"warning: {tracker.name} failed ({cause}), and the training goes on without; {tracker.cure}"
                    )


def _cause(error: BaseException) -> BaseException:
    """What another library's error came from: MLflow's repeats its request at length, and the reason comes last."""
    inner = None if isinstance(error, SentrayError) else error.__cause__ or error.__context__
    return error if inner is None else _cause(inner)
