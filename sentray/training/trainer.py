"""Training on a prepared training set with Ray Train, as the driver sees it: `fit`. Imported once Ray is connected."""

import contextlib
import os
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.train.v2.api.exceptions import WorkerGroupError

from sentray import bundle, cluster
from sentray.bundle import Bundle
from sentray.config import TrainSettings
from sentray.console import Console, count
from sentray.errors import SentrayError
from sentray.storage import Folder, first_line, locate
from sentray.tracking.figures import History
from sentray.training import worker
from sentray.training.allreduce import TOKEN_BYTES, AllReduce, listen
from sentray.training.checkpoint import BUNDLE_FOLDER, HeldOut, State, read_state
from sentray.training.progress import shown_on
from sentray.training.training_set import Facts
from sentray.training.worker import Check, Job

RUN_NAME = "train"
_RESERVATION = "reservation.txt"
_RESIZE_SECONDS = 300.0
"""How often a range of workers may grow: each time the work since the last checkpoint is done again."""
_START_SECONDS = "10"
"""How long Ray Train waits for a range of workers to be scheduled: after a loss it counts the lost ones too."""


def fit(
    settings: TrainSettings,
    prepared: str,
    work: str,
    console: Console,
    require_held: Check | None = None,
    history: Callable[[History], None] | None = None,
) -> tuple[State, Bundle, HeldOut | None]:
    """Train on a prepared training set with Ray Train, going on from a checkpoint in `work` if there is one.

    Args:
        settings: Of the run.
        prepared: Folder of the training set, which every node sees; an absolute path or a URI.
        work: Folder for checkpoints, likewise.
        console: Where to say what happens.
        require_held: Raises when `work` is no longer the run's; None where nobody else may want it.
        history: Called with the records of the epochs so far, whenever there are others.

    Returns:
        The state that the workers ended in, the bundle without its metrics, and what is known of held-out rows.

    Raises:
        NothingToKeepError: No seed made the network learn.
        SentrayError: TensorFlow does not see a worker's GPU, workers were lost too often, or `work` is another run's.
    """
    workers = settings.workers
    wanted = count(workers.max, "worker") if workers.fixed else f"{workers.min} to {workers.max} workers"
    awaited = f"{wanted} wanted, not all started"
    console.expect(awaited)
    # Ray Train's handler of Ctrl-C would outlive the training that it ends.
    try:
        with shown_on(console, history) as board, cluster.keep_handler(signal.SIGINT):
            trainer = _trainer(Job(settings, prepared, board, require_held, code_of(prepared)), work, awaited)
            _withdraw_reservation(Folder(work))
            Folder(work).write(_RESERVATION, f"train-{trainer.train_run_context.run_id}".encode())
            result = trainer.fit()
    except WorkerGroupError as error:
        raise cluster.user_error(error) or SentrayError(
            f"training workers were lost or failed more than --max-failures {settings.max_failures} times (at last "
            f"{describe_failure(error.worker_failures)}); the same command goes on from the last epoch"
        ) from error
    console.expect("")
    ray.kill(board)
    if isinstance(result.return_value, SentrayError):
        raise result.return_value
    with result.checkpoint.as_directory() as folder:
        return read_state(folder), bundle.load(Path(folder) / BUNDLE_FOLDER), HeldOut.read(folder)


def code_of(prepared: str) -> bytes:
    """The function that builds the network of a training set, by value; nothing where it is one of ours."""
    spec = Facts.read(prepared).spec
    return spec.function.code if spec.function is not None else b""


def _trainer(job: Job, work: str, awaited: str) -> Any:
    """Ray Train's trainer for what `fit` is given."""
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
        backend_config=AllReduceConfig(),
        scaling_config=ScalingConfig(
            num_workers=workers.max if workers.fixed else (workers.min, workers.max),
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


def _withdraw_reservation(work: Folder) -> None:
    """Free what a killed run reserved: Ray keeps it for three minutes, where a range of workers then finds no room."""
    requester = work.read(_RESERVATION)
    # Only Ray Train's own controller withdraws it, and that is gone; there is no public way.
    with contextlib.suppress(ValueError, AttributeError, ray.exceptions.RayError):
        if requester is not None:
            coordinator = ray.get_actor("AutoscalingCoordinator", "AutoscalingCoordinator")
            ray.get(coordinator.cancel_request.remote(requester.decode()), timeout=10)


class Failures(UserCallback):
    """Says in Ray Train's controller that workers were lost or failed, and that others are awaited in their stead.

    Args:
        board: Handle of the actor of `shown_on`.
        awaited: What the run waits for until training goes on.
    """

    def __init__(self, board: Any, awaited: str) -> None:
        self._board, self._awaited = board, awaited

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ray Train's hook."""
        self._board.put.remote("line", describe_failure(worker_exceptions))
        self._board.put.remote("expected", self._awaited)


def describe_failure(worker_exceptions: dict[int, Exception]) -> str:
    """What befell the workers, from what Ray Train knows of each by its rank."""
    # The others fail as well, since they miss the lost one.
    causes = [getattr(error, "health_check_failure", error) for error in worker_exceptions.values()]
    lost = sum(isinstance(cause, ray.exceptions.RayActorError) for cause in causes)
    failed = f"a training worker failed: {type(causes[0]).__name__}: {first_line(causes[0])}"
    return f"{count(lost, 'training worker')} lost" if lost else failed


def _train_worker(config: dict[str, Any]) -> SentrayError | None:
    rank = ray.train.get_context().get_world_rank()
    with contextlib.closing(AllReduce(rank, **_met)) as allreduce:
        return worker.run(config["job"], allreduce)


_met: dict[str, Any] = {}
"""This worker process's open port, all workers' addresses and their secret."""


def _open() -> tuple[str, int]:
    host = ray.util.get_node_ip_address()
    _met["listener"] = listen(host)
    return host, _met["listener"].getsockname()[1]


def _meet(**others: Any) -> None:
    _met.update(others)


class _AllReduceBackend(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        addresses = worker_group.execute(_open)
        worker_group.execute(_meet, addresses=addresses, token=secrets.token_bytes(TOKEN_BYTES))


class AllReduceConfig(BackendConfig):
    """Has each worker of a Ray Train run open a port, and all learn all addresses before training starts."""

    backend_cls = _AllReduceBackend
