"""`EventFiles` for TensorBoard: `OUT.work/tensorboard` while a training runs, then `OUT/tensorboard`, a folder a fit.

They are made of the epochs' records alone: the same records make the same bytes, so that what is there already after a
restart is neither lost nor doubled, and a file that is being looked at only grows.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sentray.bundle import Bundle
from sentray.storage import Folder
from sentray.tracking.figures import History, ended_at, epoch_figures, final_figures, fit_name

FOLDER = "tensorboard"


class EventFiles:
    """A `Tracker`.

    Args:
        work: Folder of the run.
    """

    name = "writing TensorBoard's event files"
    cure = "the figures are in history.json and metrics.json"

    def __init__(self, work: Folder) -> None:
        self._work, self._fits = work, 1

    def begin(self, fits: int) -> None:
        """See `Tracker`."""
        self._fits = fits

    def history(self, records: History) -> None:
        """See `Tracker`."""
        _store(event_files(records, self._fits), self._work)

    def finish(self, published: Bundle, records: History) -> None:
        """See `Tracker`."""
        _store(event_files(records, self._fits, published.metrics), Folder(published.path))

    def end(self, finished: bool) -> None:
        """See `Tracker`."""


def event_files(records: History, fits: int, metrics: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """Event files by their names: one for the epochs of each fit, and one each for validation and test rows.

    Args:
        records: Of the epochs.
        fits: How many there are.
        metrics: Of the bundle, as in `metrics.json`; None where it is not finished.
    """
    epochs: dict[str, list[tuple[float, int, dict[str, float]]]] = {}
    began: dict[str, float] = {}
    for record in records:
        run = fit_name(record, fits)
        began.setdefault(run, record["started_at"])
        epochs.setdefault(run, []).append((ended_at(record), record["epoch"], epoch_figures(record)))
    for split, figures in final_figures(metrics or {}).items():
        # Of the bundle as the last epoch left it.
        last = records[-1]
        began[split] = ended_at(last)
        epochs[split] = [(ended_at(last), last["epoch"], {f"final/{name}": value for name, value in figures.items()})]
    return {
        f"{FOLDER}/{run}/events.out.tfevents.{began[run]:.0f}.sentray": _event_file(began[run], found)
        for run, found in epochs.items()
    }


def _event_file(began: float, steps: Iterable[tuple[float, int, Mapping[str, float]]]) -> bytes:
    """An event file of scalars: for each step its time, its number, and the scalars by name."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    # The second drops what a reader has of a fit that began anew.
    events = [
        Event(wall_time=began, file_version="brain.Event:2"),
        Event(wall_time=began, session_log=SessionLog(status=SessionLog.START)),
    ]
    for time, step, scalars in steps:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        events.append(Event(wall_time=time, step=step, summary=Summary(value=values)))
    with TemporaryDirectory() as scratch:
        file = Path(scratch, "events")
        writer = RecordWriter(str(file))
        for event in events:
            writer.write(event.SerializeToString())
        writer.close()
        return file.read_bytes()


def _store(files: Mapping[str, bytes], folder: Folder) -> None:
    """Make a folder's event files these ones; one that only grew is appended to, since a reader may hold it open."""
    for name in folder.sizes(FOLDER).keys() - files.keys():
        folder.delete(name)
    for name, content in files.items():
        before = folder.read(name)
        if folder.local and before and content.startswith(before):
            with open(folder.path(name), "ab") as stream:
                stream.write(content[len(before) :])
        elif content != before:
            folder.write(name, content)
