"""Training on a prepared training set with Ray Train, as the driver sees it."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentray import bundle, cluster
from sentray.bundle import Bundle
from sentray.config import TrainSettings
from sentray.console import Console, count
from sentray.errors import SentrayError
from sentray.storage import Folder, locate
from sentray.training.progress import Progress
from sentray.training.trainer import Check, Job
from sentray.training.worker import BUNDLE_FOLDER, Refusal, State, read_state

RUN_NAME = "train"
_RESERVATION = "reservation.txt"
_RESIZE_SECONDS = 300.0
"""How often a range of workers may grow: each time the work since the last checkpoint is done again."""
_START_SECONDS = "10"
"""How long Ray Train waits for a range of workers to get their places: after a loss it counts the lost ones too."""


class NothingToKeepError(SentrayError):
    """The same command would end so again: what was kept to go on with is of no use."""


@dataclass(frozen=True)
class Fitted:
    """What the workers leave: the state they ended in, and the bundle without its metrics."""

    state: State
    bundle: Bundle


def fit(
    settings: TrainSettings, prepared: str, work: str, console: Console, require_held: Check | None = None
) -> Fitted:
    """Train on a prepared training set with Ray Train, going on from a checkpoint in `work` if there is one.

    Args:
        settings: Of the run.
        prepared: Folder of the training set, which every node sees; an absolute path or a URI.
        work: Folder for checkpoints, likewise.
        console: Where to say what happens.
        require_held: Raises when `work` is no longer the run's; None where nobody else may want it.

    Raises:
        SentrayError: No seed made the network learn, or TensorFlow does not see a worker's GPU.
    """
    import ray
    from ray.train.v2.api.exceptions import WorkerGroupError

    from sentray.training.failures import told

    workers = settings.workers
    wanted = count(workers.most, "worker") if workers.fixed else f"{workers.least} to {workers.most} workers"
    awaited = f"{wanted} wanted, not all started"
    console.expect(awaited)
    progress = Progress.start(console)
    trainer = _trainer(Job(settings, prepared, progress.actor, require_held), work, awaited)
    _withdraw_reservation(Folder(work))
    Folder(work).write(_RESERVATION, f"train-{trainer.train_run_context.run_id}".encode())
    # Ray Train's answer to Ctrl-C would outlive the training that it ends.
    try:
        with progress, cluster.keep_answer(signal.SIGINT):
            result = trainer.fit()
    except WorkerGroupError as error:
        raise cluster.user_error(error) or SentrayError(
            f"training workers were lost or failed more than --max-failures {settings.max_failures} times (at last "
            f"{told(error.worker_failures)}); the same command goes on from the last epoch"
        ) from error
    console.expect("")
    ray.kill(progress.actor)
    if isinstance(result.return_value, Refusal):
        ended = NothingToKeepError if result.return_value.lasting else SentrayError
        raise ended(result.return_value.sentence)
    with result.checkpoint.as_directory() as folder:
        return Fitted(read_state(result.checkpoint), bundle.load(Path(folder) / BUNDLE_FOLDER))


def _trainer(job: Job, work: str, awaited: str) -> Any:
    """Ray Train's trainer for what `fit` is given."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from sentray.training.backend import ExchangeConfig
    from sentray.training.failures import Failures

    # A worker's report waits until Ray Train's controller looks next, by default every 2 s.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")
    settings = job.settings
    workers = settings.workers
    if not workers.fixed:
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", _START_SECONDS)
    filesystem, path = locate(work)
    return DataParallelTrainer(
        _train_worker,
        train_loop_config={"job": job},
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
            callbacks=[Failures(job.progress, awaited)],
        ),
    )


def _withdraw_reservation(place: Folder) -> None:
    """Free what a killed run reserved: Ray keeps it for three minutes, where a range of workers then finds no room."""
    import ray

    requester = place.read(_RESERVATION)
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
