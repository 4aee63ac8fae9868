"""A training run as the driver sees it: prepare, plan, train, evaluate, publish the bundle."""

import contextlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from sentray import bundle, cluster, models, publishing
from sentray.config import CorpusSettings, EvaluateSettings, TrainSettings
from sentray.console import Console, count
from sentray.errors import SentrayError
from sentray.folder import Folder
from sentray.quarantine import QUARANTINE_FILE
from sentray.training import dataset
from sentray.training.prepare import prepare
from sentray.training.progress import Progress
from sentray.training.trainer import Job
from sentray.training.worker import BUNDLE_FOLDER, Refusal, State, read_state
from sentray.writing import SETTINGS_FILE, behind, settings_text

METRICS_FILE, HISTORY_FILE = "metrics.json", "history.json"
RUN_NAME, DATASET, CLAIM, RESERVATION = "train", "dataset", "run.json", "reservation.txt"

RESUMABLE = {
    *("address", "max_bad_rows", "workers", "cpus_per_worker", "gpu", "nccl", "max_failures", "max_restarts"),
    *("jit", "stall_timeout", "log_format", "verbose"),
}
"""Settings that a resumed run may change: they do not change what is learnt."""


_RESIZE_SECONDS = 300.0
"""How often a range of workers may grow: each time the work since the last checkpoint is done again."""
_START_SECONDS = "10"
"""How long Ray Train waits for a range of workers to get their places: after a loss it counts the lost ones too."""


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
    if Folder(settings.out).read(bundle.MANIFEST) is not None:
        raise SentrayError(f"{settings.out} already holds a bundle; choose another --out, or remove it to train anew")
    publishing.check_free(settings.out)
    with cluster.connect(settings.address, verbose=settings.verbose):
        placement = cluster.place(settings.workers.least, settings.cpus_per_worker, int(settings.gpu))
        if place.local:
            cluster.require_shared(Path(place.path("")).parent)
        console.say(_plan(settings, placement))
        if dataset.exists(prepared):
            _require_same(place, settings)
            console.say("the corpus is prepared already: going on with it")
        else:
            _prepare(settings, architecture, place, prepared, console)
        fitted = fit(settings, prepared, work, console)
        with tempfile.TemporaryDirectory() as scratch:
            trained = bundle.unpack(fitted.files, Path(scratch))
            metrics = _metrics(dataset.Facts.read(prepared), trained, fitted.state)
            if metrics["test_rows"]:
                metrics |= _test(settings, trained, console)
            else:
                console.say("no test rows: the bundle's accuracy is not measured")
            with place.open_file(f"{DATASET}/{QUARANTINE_FILE}") as aside:
                quarantined = aside.readall()
            records = {
                SETTINGS_FILE: settings_text(settings).encode(),
                METRICS_FILE: _json(metrics),
                HISTORY_FILE: _json(fitted.state.history),
                QUARANTINE_FILE: quarantined,
            }
            publishing.publish(bundle.update(trained, metrics=metrics), settings.out, records)
    place.delete("")
    return metrics


def _plan(settings: TrainSettings, placement: cluster.Placement) -> str:
    # Reading ends before training starts, so both may take the same CPUs.
    reading = placement.cpus_left + placement.workers * placement.cpus_each
    workers, batch = settings.workers, settings.batch_size
    if workers.fixed:
        train = f"{placement.describe()}; batches of {batch}, {-(-batch // workers.most)} a worker"
    else:
        each = count(placement.cpus_each, "CPU") + (", 1 GPU" if settings.gpu else "")
        train = (
            f"{workers.least} to {workers.most} workers, {each} each, as many as there is room for; batches of {batch} "
            "whatever their number, so that the losses compare"
        )
    return f"plan: read with {count(reading, 'CPU')}, then train with {train}"


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
        except SentrayError:
            # The rows set aside stay to be looked at; the ids may be gigabytes.
            aside = folder / QUARANTINE_FILE
            rows = aside.read_bytes() if aside.exists() else None
            place.delete("" if rows is None else DATASET)
            if rows is not None:
                place.write(f"{DATASET}/{QUARANTINE_FILE}", rows)
            raise
        if not place.local:
            console.progress(f"storing the training set in {prepared}")
            console.expect("the training set to be stored")
            dataset.upload(folder, prepared)


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


@dataclass(frozen=True)
class Fitted:
    """What the workers leave: the state they ended in, and the packed bundle without its metrics."""

    state: State
    files: dict[str, bytes]


def fit(settings: TrainSettings, prepared: str, work: str, console: Console) -> Fitted:
    """Train on a prepared training set with Ray Train, going on from a checkpoint in `work` if there is one.

    Args:
        settings: Of the run.
        prepared: Folder of the training set, which every node sees; an absolute path or a URI.
        work: Folder for checkpoints, likewise.
        console: Where to say what happens.

    Raises:
        SentrayError: No seed made the network learn, or TensorFlow does not see a worker's GPU.
    """
    import ray

    workers = settings.workers
    wanted = count(workers.most, "worker") if workers.fixed else f"{workers.least} to {workers.most} workers"
    awaited = f"{wanted} wanted, none started"
    console.expect(awaited)
    progress = Progress.start(console)
    trainer = _trainer(settings, prepared, work, progress.actor, awaited)
    _withdraw_reservation(Folder(work))
    Folder(work).write(RESERVATION, f"train-{trainer.train_run_context.run_id}".encode())
    # Ray Train's answer to Ctrl-C would outlive the training that it ends.
    with progress, cluster.keep_answer(signal.SIGINT):
        result = trainer.fit()
    console.expect("")
    ray.kill(progress.actor)
    if isinstance(result.return_value, Refusal):
        if result.return_value.lasting:
            # Others may use the place.
            Folder(work).delete("")
        raise SentrayError(result.return_value.sentence)
    with result.checkpoint.as_directory() as folder:
        return Fitted(read_state(result.checkpoint), bundle.pack(bundle.load(Path(folder) / BUNDLE_FOLDER)))


def _trainer(settings: TrainSettings, prepared: str, work: str, board: Any, awaited: str) -> Any:
    """Ray Train's trainer for what `fit` is given; `board` is the handle of the `Progress` actor."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from sentray.training.backend import ExchangeConfig
    from sentray.training.failures import Failures

    # A worker's report waits until Ray Train's controller looks next, by default every 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    workers = settings.workers
    if not workers.fixed:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _START_SECONDS)
    filesystem, path = pafs.FileSystem.from_uri(work)
    return DataParallelTrainer(
        _train_worker,
        train_loop_config={"job": _job(settings, prepared, board)},
        backend_config=ExchangeConfig("nccl" if settings.nccl else None),
        scaling_config=ScalingConfig(
            num_workers=workers.most if workers.fixed else (workers.least, workers.most),
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
            use_gpu=settings.gpu,
            resources_per_worker={"CPU": settings.cpus_per_worker} | ({"GPU": 1} if settings.gpu else {}),
        ),
        run_config=RunConfig(
            name=RUN_NAME,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            callbacks=[Failures(board, awaited)],
        ),
    )


def _job(settings: TrainSettings, prepared: str, board: Any) -> Job:
    return Job(
        dataset=prepared,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        balanced=settings.class_weight == "balanced",
        seed=settings.seed,
        max_restarts=settings.max_restarts,
        threads=max(int(settings.cpus_per_worker), 1),
        freeze=settings.freeze,
        embedding_learning_rate=settings.embedding_learning_rate,
        precision=settings.precision,
        jit=settings.jit,
        gpu=settings.gpu,
        settings=settings.model_dump(mode="json"),
        progress=board,
    )


def _withdraw_reservation(place: Folder) -> None:
    """Free what a killed run reserved: Ray keeps it for three minutes, where a range of workers then finds no room."""
    import ray

    requester = place.read(RESERVATION)
    # Only Ray Train's own controller withdraws it, and that is gone; there is no public way.
    with contextlib.suppress(ValueError, AttributeError, ray.exceptions.RayError):
        if requester is not None:
            coordinator = ray.get_actor("AutoscalingCoordinator", "AutoscalingCoordinator")
            ray.get(coordinator.cancel_request.remote(requester.decode()), timeout=10)


def _train_worker(config: dict[str, Any]) -> Refusal | None:
    from sentray.training import backend, worker

    job: Job = config["job"]
    try:
        exchange = backend.connect(job.threads)
    except SentrayError as mistake:
        return Refusal(str(mistake))
    try:
        return worker.run(job, exchange)
    finally:
        exchange.close()


def _metrics(facts: dataset.Facts, trained: bundle.Bundle, state: State) -> dict[str, Any]:
    rows, last = sum(facts.label_rows), state.history[-1]
    if any(record["rows_seen"] != rows for record in state.history):
        raise RuntimeError("an epoch did not see every training row exactly once")
    return {
        "vocabulary_size": len(trained.vocabulary),
        "vocabulary_distinct": facts.distinct,
        "vocabulary_distinct_estimated": facts.distinct_estimated,
        "coverage": facts.coverage,
        "buckets": facts.buckets,
        "sharing_words": facts.sharing_words,
        "embedding": facts.embedding,
        "max_length": facts.max_length,
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
    result = evaluate(
        EvaluateSettings(bundle=str(trained.path), corpus=settings.corpus, split="test", **shared), console
    )
    return {
        "test_accuracy": result["accuracy"],
        "test_f1": result["f1"],
        "test_auc": result["roc_auc"],
        "test": result,
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
