"""Training without the processes that Ray Train starts: one worker, in the test's own process."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], None]:
    """Called, it has the rest of the test train so; a process with TensorFlow takes ten seconds to start."""

    class Trainer:
        """Stands in for Ray Train's."""

        train_run_context = SimpleNamespace(run_id="in-process")

        def __init__(self, *_: object, train_loop_config: dict[str, Any], **__: object) -> None:
            self._job = train_loop_config["job"]

        def fit(self) -> Any:
            import ray.train

            from sentray.training import worker
            from sentray.training.allreduce import AllReduce

            stored: list[Path] = []

            def report(metrics: dict[str, Any], checkpoint: Any) -> None:
                stored.append(tmp_path_factory.mktemp("checkpoint") / "copy")
                shutil.copytree(checkpoint.path, stored[-1])

            monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
            monkeypatch.setattr(ray.train, "report", report)
            refusal = worker.run(self._job, AllReduce())
            checkpoint = ray.train.Checkpoint.from_directory(stored[-1]) if stored else None
            return SimpleNamespace(return_value=refusal, checkpoint=checkpoint)

    def patch() -> None:
        from sentray.training import trainer

        monkeypatch.setattr(trainer, "DataParallelTrainer", Trainer)

    return patch
