"""`sentray crossvalidate`: an ordinary training a fold, in parallel on the cluster, and what it gives on average."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray import cluster
from sentray.config import SETTINGS_FILE, CrossvalidateSettings, TrainSettings, settings_text
from sentray.console import Console, count
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.rows import kept_name, label_order
from sentray.corpus.source import require_apart
from sentray.errors import SentrayError
from sentray.metrics import LEVEL
from sentray.storage import Folder, behind
from sentray.tables import METRICS
from sentray.training.run import RESUMABLE, train

FIGURES_FILE, TABLE_FILE = "crossvalidation.json", "crossvalidation.md"
MAX_FOLDS = 1000
SHOWN = ("accuracy", "balanced_accuracy", "f1", "roc_auc", "log_loss", "ece")
"""The metrics in the table; the file has all."""


def crossvalidate(settings: CrossvalidateSettings, console: Console) -> dict[str, Any]:
    """Train and test on each fold, print the table, and write it into `settings.out`.

    Returns:
        `folds`, for each its `fold`, `rows`, seed and metrics of the rows that were tested on; `mean` and `intervals`
        of each metric over the folds, 95 % by Student's t.

    Raises:
        SentrayError: The corpus or a fold cannot be used, or `out` holds figures of other settings.
    """
    require_apart(settings.corpus, settings.out)
    folder = Folder(settings.out)
    before = folder.read_json(SETTINGS_FILE, "remove the folder to start anew") or {}
    for name, value in json.loads(settings_text(settings)).items():
        if name not in RESUMABLE and before.get(name, value) != value:
            raise SentrayError(
                f"{settings.out} holds folds that were made with --{name.replace('_', '-')} {before[name]}, not {value}; "
                "use that setting to go on, choose another --out, or remove it"
            )
    folder.write(SETTINGS_FILE, settings_text(settings).encode())
    with cluster.connect(settings.address, verbose=settings.verbose):
        names = _folds(settings)
        jobs = [_job(settings, number, name) for number, name in enumerate(names, 1)]
        needed = settings.workers.min * settings.cpus_per_worker
        at_once = max(1, int(cluster.resources().cpus // max(needed, 1)))
        console.say(f"{count(len(jobs), 'fold')}, up to {at_once} at a time; each trains on all others")
        found: dict[int, dict[str, Any]] = {}
        for number, metrics in trained(jobs, at_once):
            test = metrics.get("test")
            if test is None:
                raise SentrayError(
                    f"fold {names[number]} of {settings.corpus} has no row to test on: take fewer --folds"
                )
            found[number] = {"fold": names[number], "rows": test["rows"], "seed": metrics["seed"], "metrics": test}
            console.say(f"fold {names[number]}: accuracy {test['accuracy']:.4f} on {test['rows']:,} rows")
            console.progress(f"{len(found)} of {count(len(jobs), 'fold')} done", len(found) / len(jobs))
    figures = summary([found[number] for number in sorted(found)])
    folder.write(FIGURES_FILE, (json.dumps(figures, indent=1, ensure_ascii=False) + "\n").encode())
    header, rows = table(figures)
    folder.write(TABLE_FILE, _markdown(header, rows).encode())
    console.say()
    console.table(header, rows)
    console.say(f"written to {settings.out}: {FIGURES_FILE}, {TABLE_FILE}, and each fold's bundle")
    return figures


def summary(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The folds with the mean of each metric over them and its interval, where it is defined in each."""
    # SciPy takes its time to load.
    from scipy.stats import t

    mean, intervals = {}, {}
    for name in METRICS:
        values = np.array([fold["metrics"][name] for fold in folds], float)
        if np.isfinite(values).all():
            mean[name] = float(values.mean())
            half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
            intervals[name] = [mean[name] - float(half), mean[name] + float(half)]
    return {"folds": list(folds), "rows": sum(fold["rows"] for fold in folds), "mean": mean, "intervals": intervals}


def table(figures: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows: a row a fold, their mean, and the two ends of its interval."""
    shown = [name for name in SHOWN if name in figures["mean"]]
    rows = [[fold["fold"], fold["rows"], *(fold["metrics"][name] for name in shown)] for fold in figures["folds"]]
    rows.append(["mean", figures["rows"], *(figures["mean"][name] for name in shown)])
    for end, about in enumerate(("95 % from", "to")):
        rows.append([about, "", *(figures["intervals"][name][end] for name in shown)])
    return ["fold", "rows", *(METRICS[name] for name in shown)], rows


def trained(jobs: Sequence[TrainSettings], at_once: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Train the folds in tasks on the cluster, some at a time; gives each one's number and metrics as it ends.

    Raises:
        SentrayError: What made one impossible.
    """
    import ray

    # The training processes have CPUs of their own.
    task = ray.remote(num_cpus=0, max_retries=0)(_train)
    left, running = iter(enumerate(jobs)), dict[Any, int]()
    while True:
        while len(running) < at_once and (job := next(left, None)) is not None:
            running[task.options(name=f"sentray fold {job[0] + 1}").remote(job[1])] = job[0]
        if not running:
            return
        (ready,), _ = ray.wait(list(running))
        number = running.pop(ready)
        try:
            yield number, ray.get(ready)
        except ray.exceptions.RayError as error:
            for other in running:
                ray.cancel(other, recursive=True)
            raise cluster.user_error(error) or error from None


def _train(settings: TrainSettings) -> dict[str, Any]:
    return train(settings, Console(silent=True))


def _job(settings: CrossvalidateSettings, number: int, name: str) -> TrainSettings:
    """The training that tests on a fold."""
    values = {field: getattr(settings, field) for field in TrainSettings.model_fields}
    return TrainSettings(**values | {"out": behind(settings.out, f"/fold-{number:03d}"), "test_fold": name})


def _folds(settings: CrossvalidateSettings) -> list[str]:
    """What each fold is called."""
    column = settings.fold_column
    if column is None:
        return [f"{number}/{settings.folds}" for number in range(1, settings.folds + 1)]
    corpus, values = Corpus.open(settings.corpus, settings), set[str]()
    for found in corpus.map_blocks(_values, column=kept_name(column)):
        values.update(found["folds"]["fold"].to_pylist())
        if len(values) > MAX_FOLDS:
            raise SentrayError(f"{column} has more than {MAX_FOLDS:,} values: is it the --fold-column?")
    if len(values) < 2:
        raise SentrayError(
            f"{column} has {count(len(values), 'value')}, and two folds are the least: name another column"
        )
    return sorted(values, key=label_order)


def _values(rows: pa.Table, column: str) -> Tables:
    """A stage: the values that a column has in the usable training rows."""
    chosen = rows.filter(pc.and_(pc.is_null(rows["reason"]), pc.equal(rows["split"], "train")))
    return {"folds": pa.table({"fold": pc.unique(chosen[column]).drop_null()})}


def _markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in cells) + " |\n"

    return line(header) + line(["---"] * len(header)) + "".join(map(line, rows))
