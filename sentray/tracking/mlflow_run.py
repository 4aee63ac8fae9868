"""`MlflowRun`: a training as a run on the server that `MLFLOW_TRACKING_URI` names, its bundle as a model there."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sentray import __version__, bundle
from sentray.bundle import Bundle
from sentray.cluster import environment
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.storage import Folder
from sentray.tracking.figures import History, ended_at, epoch_figures, final_figures, fit_name

TRACKING_URI = "MLFLOW_TRACKING_URI"
RUN_FILE = "mlflow.json"
"""In the work folder: which run goes on."""
ARTIFACTS = ("report.html", "metrics.json", "history.json", "settings.json", "README.md")
"""Of the files beside a bundle those that go along, where they are there."""

_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""MLflow would try for minutes to reach a server that is not there."""
_SMALL = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Seconds that the server may take for a request that is no upload."""
_MAX_METRICS = 1000
"""MLflow takes so many at a time."""


def tracking_environment() -> dict[str, str]:
    """MLflow's variables, for trainings in other processes; not the run, since each of them has its own."""
    return {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_") and name != "MLFLOW_RUN_ID"}


def without_password(sentence: str) -> str:
    """A sentence whose URLs name neither user nor password."""
    return re.sub(r"://[^/@\s]*@", "://", sentence)


class MlflowRun:
    """A `Tracker`: settings as parameters, figures as metrics, records as artifacts, the bundle as a pyfunc model.

    Where the caller has an active run it is that one; else, as `mlflow.start_run` does, the one that `MLFLOW_RUN_ID`
    names, or a new one of the experiment `MLFLOW_EXPERIMENT_NAME`. A training that goes on goes on in its run. Metrics
    are never taken back there: after a dead start a step may have two values, of which the later is the bundle's.

    Args:
        settings: Of the training.
        work: Folder of the training, which keeps the run's id.
        console: Where to say which run it is.
    """

    name = "tracking by MLflow"

    def __init__(self, settings: TrainSettings, work: Folder, console: Console) -> None:
        self._settings, self._work, self._console = settings, work, console
        self.cure = f"check the server and {TRACKING_URI} ({without_password(os.environ[TRACKING_URI])})"
        self._fits, self._owned = 1, False
        self._logged: set[tuple[str, int]] = set()

    def begin(self, fits: int) -> None:
        """See `Tracker`."""
        self._fits = fits
        self._console.expect("the MLflow server to answer")
        with _mlflow(_SMALL) as mlflow:
            active, known = mlflow.active_run(), (self._work.read_json(RUN_FILE) or {}).get("run_id")
            self._owned = active is None
            run = active or self._start(mlflow, known)
            self._run, self._client = run.info.run_id, mlflow.MlflowClient()
            self._console.say(f"MLflow: run {run.info.run_name}, {self._run}")
            if self._run == known:
                for name in {fit_name({"fit": number}, fits) for number in range(fits)}:
                    found = self._client.get_metric_history(self._run, f"{name}/loss")
                    self._logged |= {(name, metric.timestamp) for metric in found}
                return
            values = self._settings.model_dump(mode="json", exclude=set(self._settings.unused))
            mlflow.log_params({name: value for name, value in values.items() if value is not None})
            self._work.write_json(RUN_FILE, {"run_id": self._run})

    def _start(self, mlflow: Any, known: str | None) -> Any:
        tags = {"sentray.version": __version__}
        if self._settings.test_fold is not None:
            tags["sentray.test_fold"] = self._settings.test_fold
        about: dict[str, Any] = {"run_id": known, "tags": tags}
        if not (known or os.environ.get("MLFLOW_RUN_ID")):
            about["run_name"] = Path(self._settings.out.partition("?")[0]).name
        try:
            return mlflow.start_run(**about)
        except mlflow.MlflowException as error:
            # Another fold made the experiment at the same time.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return mlflow.start_run(**about)

    def history(self, records: History) -> None:
        """See `Tracker`."""
        from mlflow.entities import Metric

        found = []
        for record in records:
            name, at = fit_name(record, self._fits), int(1000 * ended_at(record))
            if (name, at) not in self._logged:
                self._logged.add((name, at))
                figures = epoch_figures(record).items()
                found += [Metric(f"{name}/{figure}", value, at, record["epoch"]) for figure, value in figures]
        with _mlflow(_SMALL):
            for start in range(0, len(found), _MAX_METRICS):
                self._client.log_batch(self._run, metrics=found[start : start + _MAX_METRICS])

    def finish(self, published: Bundle, records: History) -> None:
        """See `Tracker`."""
        self.history(records)
        self._console.expect("MLflow to take the bundle")
        folder = Folder(published.path)
        with _mlflow(_SMALL) as mlflow:
            for split, figures in final_figures(published.metrics).items():
                mlflow.log_metrics({f"{split}/{name}": value for name, value in figures.items()})
            mlflow.set_tag("sentray.digest", published.digest)
        with _mlflow() as mlflow, TemporaryDirectory() as scratch:
            for name in ARTIFACTS:
                if (content := folder.read(name)) is not None:
                    Path(scratch, name).write_bytes(content)
                    mlflow.log_artifact(f"{scratch}/{name}")
            alone = bundle.publish(published, f"{scratch}/bundle").path
            mlflow.pyfunc.log_model(**model_of(published, alone), name="model")

    def end(self, finished: bool) -> None:
        """See `Tracker`."""
        if self._owned:
            with _mlflow(_SMALL) as mlflow:
                mlflow.end_run("FINISHED" if finished else "FAILED")


def model_of(made: Bundle, folder: str) -> dict[str, Any]:
    """What `mlflow.pyfunc.log_model` and `save_model` are given of a bundle.

    Args:
        made: The bundle.
        folder: A local folder that holds it alone.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    from sentray.inference.scorer import ANSWERS, LABELS_TYPE

    kinds = {"string": DataType.string, "float": DataType.float}
    columns = [
        ColSpec(
            kinds.get(str(kind)) or Array(kinds["string" if kind == LABELS_TYPE else "float"]), name, required=False
        )
        for name, kind in ANSWERS[made.spec.task].items()
    ]
    numbers = [ColSpec("double", name) for name in made.spec.columns]
    given = [ColSpec("string", "text"), *numbers] if numbers else [ColSpec("string")]
    extra = "[segment]" if made.spec.cleaning.segment else ""
    return {
        "python_model": str(Path(__file__).with_name("mlflow_model.py")),
        "artifacts": {"bundle": folder},
        # What `load_model` may be given otherwise; MLflow takes no other names.
        "model_config": {"trust_model": False},
        # Without a name, so that a list is taken as well as a frame, of which it is the first column.
        "signature": ModelSignature(Schema(given), Schema(columns)),
        # MLflow would add itself, with its server and a bound on pyarrow, where none of its packages is named.
        "pip_requirements": [f"mlflow-skinny=={version('mlflow-skinny')}", f"sentray{extra}=={__version__}"],
        "metadata": {"sentray.digest": made.digest},
    }


@contextmanager
def _mlflow(variables: dict[str, str] | None = None) -> Iterator[Any]:
    """MLflow, which neither waits long nor talks within the block, as far as the user has not said otherwise."""
    with environment(_QUIET | (variables or {})), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow

        yield mlflow
