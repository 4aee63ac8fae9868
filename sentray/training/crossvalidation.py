"""`sentray crossvalidate`: an ordinary training a fold, some at the same time, and what they give on average."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentray import cluster, models
from sentray.config import SETTINGS_FILE, CrossvalidateSettings, TrainSettings, settings_text
from sentray.console import Console, count, printable
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.groups import dealt_rows, folds_of
from sentray.corpus.rows import label_order
from sentray.corpus.source import require_apart
from sentray.errors import SentrayError
from sentray.metrics import LEVEL
from sentray.storage import Folder, behind
from sentray.tables import METRICS, headline, shown
from sentray.tracking.mlflow_run import tracking_environment
from sentray.training.function import checked
from sentray.training.progress import shown_on
from sentray.training.run import train, work_folder

FIGURES_FILE = "crossvalidation.json"
MAX_FOLDS = 1000
SHOWN = (
    *("accuracy", "balanced_accuracy", "exact_match", "mean_absolute_error", "rmse", "r2", "quadratic_kappa"),
    *("f1", "micro_f1", "roc_auc", "log_loss", "ece"),
)
"""The metrics in the table; the file has all."""
BY_T = (
    "intervals: of the mean over the folds, 95 % by Student's t; the folds' training rows overlap, so that they are a "
    "little too narrow (Bengio & Grandvalet 2004)"
)


def crossvalidate(settings: CrossvalidateSettings, console: Console) -> dict[str, Any]:
    """Train and test on each fold, print the table, and write `crossvalidation.json` into `settings.out`.

    Returns:
        `folds`, for each its name as `fold`, and what `metrics.json` has of its test rows; `mean` and `intervals` of
        each metric over the folds; `pooled`, the accuracy, or what the task has, and the confusion matrix of all rows.

    Raises:
        SentrayError: The corpus or a fold cannot be used.
    """
    require_apart(settings.corpus, settings.out)
    checked(settings)
    with cluster.connect(settings.address, verbose=settings.verbose):
        names = list(folds_in(settings, console))
        jobs = {f"fold {name}": _fold(settings, name, number) for number, name in enumerate(names, 1)}
        found = train_each(jobs, settings.at_once, console)
    tests = [{"fold": name, **metrics["test"]} for name, metrics in zip(names, found.values(), strict=True)]
    figures = {**summary(tests), "pooled": pooled(tests), "folds": tests}
    folder = Folder(settings.out)
    folder.write(SETTINGS_FILE, settings_text(settings).encode())
    folder.write(FIGURES_FILE, (json.dumps(figures, indent=1, ensure_ascii=False) + "\n").encode())
    # There lies a table that was given in memory.
    Folder(work_folder(settings.out)).delete("")
    console.say()
    console.table(*table(figures))
    console.say(BY_T)
    console.say(f"written to {settings.out}: {FIGURES_FILE} and each fold's bundle")
    return figures


def folds_in(settings: CrossvalidateSettings, console: Console) -> dict[str, int]:
    """Each fold's name and how many rows it has.

    Raises:
        SentrayError: There are fewer than two, too many, or one has no row.
    """
    corpus, column = Corpus.open(settings.corpus, settings), settings.fold_column
    console.say(f"corpus: {corpus.describe()}")
    rows = Counter[str]()
    for found in corpus.map_blocks(count_folds, settings=settings):
        rows.update(dict(zip(*(each.to_pylist() for each in found["folds"].columns), strict=True)))
        if len(rows) > MAX_FOLDS:
            raise SentrayError(
                f"--fold-column {column} has more than {MAX_FOLDS:,} values: give it as --group-column, whose equal "
                "values are in one fold together"
            )
    names = [f"{number}/{settings.folds}" for number in range(1, settings.folds + 1)]
    if column is not None:
        names = sorted(rows, key=label_order)
        if len(names) < 2:
            raise SentrayError(
                f"--fold-column {column} has {count(len(names), 'value')} in {corpus.name}, and two folds are the "
                "least: name another column"
            )
    if empty := [name for name in names if not rows[name]]:
        raise SentrayError(
            f"fold {empty[0]} of {corpus.name} has no row: take fewer --folds or smaller groups, or name a column that "
            "says the fold with --fold-column"
        )
    sizes = [rows[name] for name in names]
    groups = settings.group_by or (settings.group_column and f"whole {settings.group_column}")
    by = (column and f"the column {column}") or groups or "a hash of the text"
    console.say(f"folds: {len(names):,} of {min(sizes):,} to {max(sizes):,} rows, by {by}")
    return {name: rows[name] for name in names}


def count_folds(rows: pa.Table, settings: CrossvalidateSettings) -> Tables:
    """A stage: how many rows each fold has."""
    counts = folds_of(rows.filter(dealt_rows(rows, settings)), settings, settings.folds).drop_null().value_counts()
    return {"folds": pa.table({"fold": counts.field(0).cast(pa.string()), "rows": counts.field(1)})}


def _fold(settings: CrossvalidateSettings, name: str, number: int) -> TrainSettings:
    """The training that tests on a fold."""
    values = {field: getattr(settings, field) for field in TrainSettings.model_fields}
    return TrainSettings(**values | {"out": behind(settings.out, f"/fold-{number}"), "test_fold": name})


Work = Callable[[str, TrainSettings, Any], dict[str, Any]]
"""Trains, given its name, the settings and the handle of `shown_on`'s actor; gives metrics with `test`."""


def train_each(
    jobs: Mapping[str, TrainSettings], at_once: int | None, console: Console, work: Work | None = None
) -> dict[str, dict[str, Any]]:
    """Train in tasks on the cluster, which need no CPU themselves, as many at a time as there are CPUs for.

    Args:
        jobs: By their names for the user.
        at_once: How many at the same time; None for as many as there is room for.
        console: Where to say what happens.
        work: What trains; `sentray train` where not given.

    Returns:
        Each one's metrics, in the order of the jobs.

    Raises:
        SentrayError: What made one impossible.
    """
    import ray

    task = ray.remote(num_cpus=0, max_retries=0)(_at_work)
    at_once = min(len(jobs), at_once or min(map(_room, jobs.values())))
    console.say(f"{count(len(jobs), 'training')}, {at_once} at the same time")
    # A function may be one of a notebook, which no other process can import.
    functions = {settings.model: checked(settings) for settings in jobs.values() if ":" in settings.model}
    code = [(function.code, {function.name: function.digest}) for function in functions.values() if function]
    found: dict[str, dict[str, Any]] = {}
    left, running, environment = iter(jobs.items()), dict[Any, str](), tracking_environment()
    try:
        with shown_on(console) as board:
            while len(found) < len(jobs):
                while len(running) < at_once and (job := next(left, None)) is not None:
                    started = task.options(name=f"sentray {job[0]}").remote(
                        work or _train, *job, board, environment, code
                    )
                    running[started] = job[0]
                (ready,), _ = ray.wait(list(running))
                name = running.pop(ready)
                found[name] = ray.get(ready)
                test = found[name]["test"]
                done = f"{len(found)} of {len(jobs)} done"
                first, about = headline(test)
                console.say(f"{name}: {about} {test[first]:.4f} on {test['rows']:,} rows; {done}")
    except ray.exceptions.RayError as error:
        if (mistake := cluster.user_error(error)) is None:
            raise
        raise SentrayError(f"{name}: {mistake}") from error
    finally:
        for other in running:
            ray.cancel(other, recursive=True)
    return {name: found[name] for name in jobs}


def _room(settings: TrainSettings) -> int:
    """How many such trainings the cluster has processors and GPUs for; 1 where it has not even these."""
    have, workers = cluster.resources(), settings.workers.max
    free = [have.cpus / (workers * settings.cpus_per_worker), *([have.gpus / workers] if settings.gpu else [])]
    return max(1, int(min(free)))


def _at_work(
    work: Work,
    name: str,
    settings: TrainSettings,
    board: Any,
    environment: Mapping[str, str],
    code: Sequence[tuple[bytes, dict[str, str]]],
) -> dict[str, Any]:
    for functions, digests in code:
        models.unpack(functions)
        models.DIGESTS.update(digests)
    # Each has a run of its own. (Variables of a task's own would cost Ray a process made for it.)
    os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.update(environment)
    # Ray takes functions alone, and no `partial` of one.
    return work(name, settings, board)


def _train(name: str, settings: TrainSettings, board: Any = None) -> dict[str, Any]:
    return train(settings, _Relay(name, settings.out, board))


class _Relay(Console):
    """Console of one training among others: its lines go to its log, beside a local bundle, and the last one is shown.

    Args:
        name: Of the training, for the user.
        out: Its bundle.
        board: Handle of the actor of `shown_on`, or None.
    """

    def __init__(self, name: str, out: str, board: Any) -> None:
        super().__init__(silent=True)
        self._name, self._board = name, board
        self._log = None if "://" in out else Path(f"{out}.log")

    def progress(self, line: str, share: float | None = None, *, moved: bool = True) -> None:
        if moved:
            self.moved_at = time.monotonic()
            if line and self._board is not None:
                self._board.put.remote("progress", f"{self._name}: {line}")

    def _write(self, name: str, level: str, line: str, fields: Mapping[str, Any] = {}, moved: bool = True) -> None:
        if self._log is not None:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a", encoding="utf-8") as stream:
                stream.write(printable(line) + "\n")
        if level == "warning" and self._board is not None:
            self._board.put.remote("line", f"{self._name}: {line}")
        self.progress(line, moved=moved)


def summary(tests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of each metric over the folds and its interval, where it is defined in each, and how many rows there are."""
    mean, intervals = {}, {}
    for name in shown(tests[0]):
        values = np.array([test[name] for test in tests], float)
        if np.isfinite(values).all():
            mean[name], intervals[name] = float(values.mean()), list(interval(values))
    return {"rows": sum(test["rows"] for test in tests), "mean": mean, "intervals": intervals}


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Limits of the interval of a mean, 95 % by Student's t."""
    # SciPy takes its time to load.
    from scipy.special import stdtrit

    half = stdtrit(len(values) - 1, (1 + LEVEL) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def pooled(tests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first metric of the task over all rows, each by the model that did not see it, and the confusion matrix.

    That of an ordinal scale is its accuracy, too; where rows have no one label there is no matrix.
    """
    if "confusion_matrix" not in tests[0]:
        name, total = headline(tests[0])[0], sum(test["rows"] for test in tests)
        return {name: sum(test[name] * test["rows"] for test in tests) / max(total, 1)}
    labels = sorted({label for test in tests for label in test["labels"]}, key=label_order)
    matrix = np.zeros((len(labels), len(labels)), np.int64)
    for test in tests:
        at = [labels.index(label) for label in test["labels"]]
        matrix[np.ix_(at, at)] += np.array(test["confusion_matrix"])
    accuracy = float(np.trace(matrix) / max(matrix.sum(), 1))
    return {"accuracy": accuracy, "labels": labels, "confusion_matrix": matrix.tolist()}


def table(figures: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows: a row a fold, their mean, and the two ends of its interval."""
    names = [name for name in SHOWN if name in figures["mean"]]
    rows = [[test["fold"], test["rows"], *(test[name] for name in names)] for test in figures["folds"]]
    rows.append(["mean", figures["rows"], *(figures["mean"][name] for name in names)])
    for end, about in enumerate(("95 % from", "to")):
        rows.append([about, "", *(figures["intervals"][name][end] for name in names)])
    return ["fold", "rows", *(METRICS[name] for name in names)], rows
