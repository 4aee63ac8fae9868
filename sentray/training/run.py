"""A training run from the corpus to the bundle: plan, prepare, fit, evaluate, publish."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sentray import bundle, cluster, models
from sentray.config import SETTINGS_FILE, CorpusSettings, EvaluateSettings, TrainSettings, settings_text
from sentray.console import Console, count
from sentray.corpus.rows import QUARANTINE_FILE
from sentray.errors import SentrayError
from sentray.lease import Lease, require_held
from sentray.storage import Folder, behind
from sentray.training import training_set
from sentray.training.fitting import Fitted, NothingToKeepError, fit
from sentray.training.prepare import prepare

METRICS_FILE, HISTORY_FILE = "metrics.json", "history.json"
DATASET, CLAIM, LEASE = "dataset", "run.json", "lease.json"

RESUMABLE = {
    *("address", "max_bad_rows", "workers", "cpus_per_worker", "gpu", "nccl", "max_failures", "max_restarts"),
    *("jit", "stall_timeout", "log_format", "verbose", "shard_size", "out"),
}
"""Settings that a resumed run may change: they do not change what is learnt. A place may have several names."""


def work_folder(out: str) -> str:
    """Where a run keeps what it needs to be resumed, until the bundle is finished: `OUT.work`, an absolute path or URI.

    Raises:
        SentrayError: `out` is a whole bucket.
    """
    if "://" not in out:
        return behind(os.path.abspath(out), ".work")
    if "/" not in out.partition("://")[2].partition("?")[0].rstrip("/"):
        raise SentrayError(f"--out {out} is a whole bucket; name a folder in it")
    return behind(out, ".work")


def train(settings: TrainSettings, console: Console) -> dict[str, Any]:
    """Train a model and write its bundle to `settings.out`, with `metrics.json` and the settings beside it.

    A run that was killed goes on from its last checkpoint when it is started again.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        SentrayError: The corpus cannot be used, the plan cannot be placed, or `out` is taken.
    """
    architecture = models.architecture(settings.model)
    work = work_folder(settings.out)
    place, prepared = Folder(work), behind(work, f"/{DATASET}")
    if (metrics := _finished(settings, console)) is not None:
        place.delete("")
        return metrics
    with cluster.connect(settings.address, verbose=settings.verbose):
        placement = cluster.place(settings.workers.least, settings.cpus_per_worker, int(settings.gpu))
        if place.local:
            cluster.require_shared(Path(place.path("")).parent, f"--out {settings.out}")
        with Lease(place, LEASE) as lease:
            try:
                metrics = _finished(settings, console)
                if metrics is None:
                    console.say(_plan(settings, placement))
                    metrics = _train(settings, architecture, place, prepared, lease, console)
            except NothingToKeepError:
                lease.discard()
                raise
            lease.discard()
    return metrics


def _finished(settings: TrainSettings, console: Console) -> dict[str, Any] | None:
    """The metrics of the bundle that this very command left, None where it has still to be made.

    Raises:
        SentrayError: Something else lies at its place.
    """
    bundle.check_free(settings.out)
    if Folder(settings.out).read(bundle.MANIFEST) is None:
        return None
    found = bundle.load(settings.out)
    if {name: value for name, value in found.settings.items() if name not in RESUMABLE} != _claim(settings):
        raise SentrayError(f"{settings.out} holds another bundle; choose another --out, or remove it to train anew")
    console.say(f"{settings.out} is finished: it holds the bundle of this command already; nothing to do")
    return dict(found.metrics)


def _train(
    settings: TrainSettings,
    architecture: models.Architecture,
    place: Folder,
    prepared: str,
    lease: Lease,
    console: Console,
) -> dict[str, Any]:
    if training_set.exists(prepared):
        _require_same(place, settings)
        console.say("the corpus is prepared already: going on with it")
    else:
        _prepare(settings, architecture, place, prepared, console)
    fitted = fit(settings, prepared, place.out, console, partial(require_held, place, LEASE, lease.owner))
    return _finish(settings, prepared, fitted, lease, console)


def _finish(settings: TrainSettings, prepared: str, fitted: Fitted, lease: Lease, console: Console) -> dict[str, Any]:
    """Measure what was trained on the test rows and publish it; the metrics."""
    metrics = _metrics(training_set.Facts.read(prepared), fitted)
    if metrics["test_rows"]:
        metrics |= _test(settings, fitted.bundle, console)
    else:
        console.say("no test rows: the bundle's accuracy is not measured")
    with Folder(prepared).open_file(QUARANTINE_FILE) as aside:
        quarantined = aside.readall()
    records = {
        SETTINGS_FILE: settings_text(settings).encode(),
        METRICS_FILE: _json(metrics),
        HISTORY_FILE: _json(fitted.state.history),
        QUARANTINE_FILE: quarantined,
    }
    lease.check()
    bundle.publish(bundle.update(fitted.bundle, metrics=metrics), settings.out, records)
    return metrics


def _plan(settings: TrainSettings, placement: cluster.Placement) -> str:
    # Reading ends before training starts, so both may take the same CPUs.
    reading = placement.cpus_left + placement.workers * placement.cpus_each
    workers, batch = settings.workers, settings.batch_size
    if workers.fixed:
        then = f"{placement.describe()}; batches of {batch}, {-(-batch // workers.most)} a worker"
    else:
        each = count(placement.cpus_each, "CPU") + (", 1 GPU" if settings.gpu else "")
        then = (
            f"{workers.least} to {workers.most} workers, {each} each, as many as there is room for; batches of {batch} "
            "whatever their number, so that the losses compare"
        )
    return f"plan: read with {count(reading, 'CPU')}, then train with {then}"


def _claim(settings: TrainSettings) -> dict[str, Any]:
    """What a run that goes on in a work folder must have in common with the one that began there."""
    return settings.model_dump(mode="json", exclude=RESUMABLE)


def _prepare(
    settings: TrainSettings, architecture: models.Architecture, place: Folder, prepared: str, console: Console
) -> None:
    # Before the corpus is read, so that a place that cannot be written is found at once.
    place.write_json(CLAIM, _claim(settings))
    console.expect("a block of reviews to be read")
    with _staging(place) as folder:
        try:
            prepare(settings, architecture, folder, console)
        except SentrayError as error:
            # The rows set aside stay to be looked at; the ids may be gigabytes.
            aside = folder / QUARANTINE_FILE
            rows = aside.read_bytes() if aside.exists() else None
            if rows is None:
                raise NothingToKeepError(str(error)) from error
            place.delete(DATASET)
            place.write(f"{DATASET}/{QUARANTINE_FILE}", rows)
            raise
        if not place.local:
            console.expect("the training set to be stored")
            training_set.upload(folder, prepared, partial(console.progress, f"storing the training set in {prepared}"))


@contextlib.contextmanager
def _staging(place: Folder) -> Iterator[Path]:
    """A local folder to make the training set in: its own, or a temporary one to be copied from."""
    if place.local:
        yield Path(place.path(DATASET))
        return
    with tempfile.TemporaryDirectory(prefix="sentray-train-") as folder:
        yield Path(folder) / DATASET


def _require_same(place: Folder, settings: TrainSettings) -> None:
    before = place.read_json(CLAIM, "remove the folder to start anew") or {}
    for key, value in _claim(settings).items():
        if before.get(key) != value:
            raise SentrayError(
                f"{place.out} holds a run that was started with --{key.replace('_', '-')} {before.get(key)}, not "
                f"{value}; use that setting to go on, or remove the folder to start anew"
            )


def _metrics(facts: training_set.Facts, fitted: Fitted) -> dict[str, Any]:
    state = fitted.state
    rows, last = sum(facts.label_rows), state.history[-1]
    if any(record["rows_seen"] != rows for record in state.history):
        raise RuntimeError("an epoch did not see every training row exactly once")
    return {
        "vocabulary_size": len(fitted.bundle.vocabulary),
        "vocabulary_distinct": facts.distinct,
        "vocabulary_distinct_estimated": facts.distinct_estimated,
        "coverage": facts.coverage,
        "buckets": facts.spec.buckets,
        "sharing_words": facts.sharing_words,
        "embedding": facts.embedding,
        "max_length": facts.spec.max_length,
        "longest_review": facts.longest,
        "train_rows": rows,
        "test_rows": facts.test_rows,
        "quarantined_rows": facts.quarantined_rows,
        "rows_seen_per_epoch": last["rows_seen"],
        "epochs": state.epoch,
        "restarts": state.restarts,
        "seed": state.seed,
        "train_loss": last["loss"],
        "train_accuracy": last["accuracy"],
        "test_accuracy": None,
        "test_f1": None,
        "test_auc": None,
    }


def _test(settings: TrainSettings, trained: bundle.Bundle, console: Console) -> dict[str, Any]:
    from sentray.evaluation import evaluate

    shared = {name: getattr(settings, name) for name in CorpusSettings.model_fields}
    with tempfile.TemporaryDirectory() as scratch:
        path = bundle.publish(trained, f"{scratch}/bundle").path
        result = evaluate(EvaluateSettings(bundle=path, corpus=settings.corpus, split="test", **shared), console)
    return {
        "test_accuracy": result["accuracy"],
        "test_f1": result["f1"],
        "test_auc": result["roc_auc"],
        "test": result,
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
