"""A training run as the driver sees it: prepare, plan, train, evaluate, publish the bundle."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentray import bundle, cluster, models
from sentray.config import (
    CorpusSettings,
    EvaluateSettings,
    TrainSettings,
)
from sentray.console import Console, count
from sentray.errors import SentrayError
from sentray.quarantine import QUARANTINE_FILE
from sentray.training import dataset
from sentray.training.prepare import prepare
from sentray.training.progress import Progress
from sentray.training.trainer import Job
from sentray.training.worker import BUNDLE_FOLDER, State, read_state
from sentray.writing import SETTINGS_FILE, settings_text

METRICS_FILE, HISTORY_FILE = "metrics.json", "history.json"
RUN_NAME, DATASET, CLAIM = "train", "dataset", "run.json"

RESUMABLE = {"address", "max_bad_rows", "workers", "cpus_per_worker", "gpu", "verbose", "max_failures", "max_restarts"}
"""Settings that a resumed run may change: they do not change what is learnt."""


def work_folder(out: Path) -> Path:
    """Where a run keeps what it needs to be resumed, until the bundle is finished."""
    return out.parent / f"{out.name}.work"


def train(settings: TrainSettings, console: Console) -> dict[str, Any]:
    """Train a model and write its bundle to `settings.out`, with `metrics.json` and the settings beside it.

    A run that was killed goes on from its last checkpoint when it is started again.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        SentrayError: The corpus cannot be used, the plan cannot be placed, or `out` is taken.
    """
    if "://" in settings.out:
        raise SentrayError(f"--out {settings.out} is no folder; train into a folder, which may be copied afterwards")
    out = Path(settings.out).absolute()
    architecture = models.architecture(settings.model)
    if (out / bundle.MANIFEST).exists():
        raise SentrayError(f"{settings.out} already holds a bundle; choose another --out, or remove it to train anew")
    bundle.check_free(out)
    work = work_folder(out)
    prepared = work / DATASET
    with cluster.connect(settings.address, verbose=settings.verbose):
        placement = cluster.place(settings.workers.least, settings.cpus_per_worker, int(settings.gpu))
        console.say(_plan(settings, placement))
        if dataset.exists(prepared):
            _require_same(work, settings)
            console.say("the corpus is prepared already: going on with it")
        else:
            _prepare(settings, architecture, work, console)
        fitted = fit(settings, prepared, work, console)
        metrics = _metrics(dataset.TrainingSet.load(prepared), fitted.state)
        if metrics["test_rows"]:
            metrics |= _test(settings, fitted.bundle, console)
        else:
            console.say("no test rows: the bundle's accuracy is not measured")
    records = {
        SETTINGS_FILE: settings_text(settings).encode(),
        METRICS_FILE: _json(metrics),
        HISTORY_FILE: _json(fitted.state.history),
        QUARANTINE_FILE: (prepared / QUARANTINE_FILE).read_bytes(),
    }
    bundle.publish(bundle.update(fitted.bundle, metrics=metrics), out, records)
    shutil.rmtree(work)
    return metrics


def _plan(settings: TrainSettings, placement: cluster.Placement) -> str:
    # Reading ends before training starts, so both may take the same CPUs.
    each = -(-settings.batch_size // settings.workers.most)
    reading = placement.cpus_left + placement.workers * placement.cpus_each
    return (
        f"plan: read with {count(reading, 'CPU')}, then train with {placement.describe()}; batches of "
        f"{settings.batch_size}, {each} a worker"
    )


def _claim(settings: TrainSettings) -> dict[str, Any]:
    """What a run that goes on in a work folder must have in common with the one that began there."""
    return settings.model_dump(mode="json", exclude=RESUMABLE)


def _prepare(settings: TrainSettings, architecture: models.Architecture, work: Path, console: Console) -> None:
    work.mkdir(parents=True, exist_ok=True)
    (work / CLAIM).write_bytes(_json(_claim(settings)))
    try:
        prepare(settings, architecture, work / DATASET, console)
    except SentrayError:
        # The rows set aside stay to be looked at; the ids may be gigabytes.
        (work / DATASET / dataset.IDS_FILE).unlink(missing_ok=True)
        if not (work / DATASET / QUARANTINE_FILE).exists():
            shutil.rmtree(work)
        raise


def _require_same(work: Path, settings: TrainSettings) -> None:
    before = json.loads((work / CLAIM).read_text(encoding="utf-8"))
    for key, value in _claim(settings).items():
        if before.get(key) != value:
            raise SentrayError(
                f"{work} holds a run that was started with --{key.replace('_', '-')} {before.get(key)}, not {value}; "
                "use that setting to go on, or remove the folder to start anew"
            )


@dataclass(frozen=True)
class Fitted:
    """What the workers leave: the state they ended in, and the bundle without its metrics."""

    state: State
    bundle: bundle.Bundle


def fit(settings: TrainSettings, prepared: Path, work: Path, console: Console) -> Fitted:
    """Train on a prepared training set with Ray Train, going on from a checkpoint in `work` if there is one.

    Raises:
        SentrayError: No seed made the network learn.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from sentray.training.backend import ExchangeConfig

    # A worker's report waits until Ray Train's controller looks next, by default every 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    progress = Progress.start(console)
    job = Job(
        dataset=str(prepared),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        balanced=settings.class_weight == "balanced",
        seed=settings.seed,
        max_restarts=settings.max_restarts,
        threads=max(int(settings.cpus_per_worker), 1),
        freeze=settings.freeze,
        embedding_learning_rate=settings.embedding_learning_rate,
        settings=settings.model_dump(mode="json"),
        progress=progress.actor,
    )
    trainer = DataParallelTrainer(
        _train_worker,
        train_loop_config={"job": job},
        backend_config=ExchangeConfig(),
        scaling_config=ScalingConfig(
            num_workers=settings.workers.most,
            use_gpu=settings.gpu,
            resources_per_worker={"CPU": settings.cpus_per_worker} | ({"GPU": 1} if settings.gpu else {}),
        ),
        run_config=RunConfig(
            name=RUN_NAME,
            storage_path=str(work),
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    with progress:
        result = trainer.fit()
    ray.kill(progress.actor)
    with result.checkpoint.as_directory() as folder:
        state = read_state(Path(folder))
        if state.refused:
            # The same settings would end the same way; others may use the place.
            shutil.rmtree(work)
            raise SentrayError(state.refused)
        shutil.copytree(Path(folder) / BUNDLE_FOLDER, work / "bundle", dirs_exist_ok=True)
        return Fitted(state, bundle.load(work / "bundle"))


def _train_worker(config: dict[str, Any]) -> None:
    from sentray.training import backend, worker

    exchange = backend.connect()
    try:
        worker.run(config["job"], exchange)
    finally:
        exchange.close()


def _metrics(prepared: dataset.TrainingSet, state: State) -> dict[str, Any]:
    facts, last = prepared.facts, state.history[-1]
    if any(record["rows_seen"] != len(prepared) for record in state.history):
        raise RuntimeError("an epoch did not see every training row exactly once")
    return {
        "vocabulary_size": len(prepared.vocabulary),
        "vocabulary_distinct": facts.distinct,
        "vocabulary_distinct_estimated": facts.distinct_estimated,
        "coverage": facts.coverage,
        "buckets": facts.buckets,
        "sharing_words": facts.sharing_words,
        "embedding": facts.embedding,
        "max_length": facts.max_length,
        "longest_review": facts.longest,
        "train_rows": len(prepared),
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
