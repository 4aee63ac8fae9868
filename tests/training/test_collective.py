"""Two real processes that sum on their devices (CPUs here, by TensorFlow's ring) against the same sums over TCP."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Found = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both workers leave what they found."""
    folder = tmp_path_factory.mktemp("collective")
    script = Path(__file__).with_name("collective_worker.py")
    logs = [(folder / f"log{rank}").open("w+") for rank in range(2)]
    workers = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(folder)], stdout=logs[rank], stderr=logs[rank])
        for rank in range(2)
    ]
    try:
        codes = [worker.wait(timeout=240) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert codes == [0, 0], "\n".join((folder / f"log{rank}").read_text()[-3000:] for rank in range(2))
    return folder


@pytest.fixture(scope="module")
def found(folder: Path) -> Found:
    first, second = (dict(np.load(folder / f"found{rank}.npz")) for rank in range(2))
    return first, second


def names(found: Found, part: str) -> list[str]:
    return [name.removeprefix("collective.") for name in found[0] if name.startswith(f"collective.{part}")]


@pytest.mark.parametrize("part", ["sum", "rows"])
def test_sums_are_those_of_the_tcp_exchange(found: Found, part: str) -> None:
    assert len(names(found, part)) == 3
    for name in names(found, part):
        ours, theirs = (found[0][f"{kind}.{name}"] for kind in ("collective", "tcp"))
        assert ours.shape == theirs.shape
        assert ours.any()
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_every_worker_gets_the_same_bits(found: Found) -> None:
    for name, values in found[0].items():
        if name.startswith("device"):
            continue
        assert values.tobytes() == found[1][name].tobytes(), name


@pytest.mark.parametrize("jit", [False, True])
def test_the_step_runs_on_the_workers_own_device(found: Found, jit: bool) -> None:
    devices = [str(part[f"device.{jit}"]) for part in found]
    assert devices == [f"/job:worker/replica:0/task:{rank}/device:CPU:1" for rank in range(2)]


def test_messages_are_gathered(found: Found) -> None:
    assert found[1]["collective.gather"].tolist() == [b"from 0", b"from 1"]


@pytest.mark.parametrize("freeze", [False, True])
def test_training_follows_the_tcp_exchange(found: Found, freeze: bool) -> None:
    part = f"trained.{freeze}."
    weights = [name for name in names(found, part) if name.removeprefix(part).isdigit()]
    assert len(weights) == 7
    for name in weights:
        np.testing.assert_allclose(found[0][f"collective.{name}"], found[0][f"tcp.{name}"], atol=1e-4)
    assert found[0][f"collective.{part}loss"] == pytest.approx(found[0][f"tcp.{part}loss"], rel=1e-4)


def test_a_worker_that_dies_is_an_error_and_no_hang(folder: Path) -> None:
    assert "gradients could not be summed" in (folder / "noticed").read_text()


def train_worker(config: dict[str, Any]) -> Any:
    """What a training worker does, where its sums are collective."""
    from sentray.training import backend, worker

    exchange = backend.connect(1)
    if type(exchange).__name__ != "Collective" or exchange.world != 2:
        return worker.Refusal(f"summed by {exchange.world} of {type(exchange)}")
    return worker.run(config["job"], exchange)


@pytest.mark.usefixtures("ray_session")
def test_workers_that_ray_started_train_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray import cloudpickle

    from sentray import bundle
    from sentray.config import TrainSettings
    from sentray.console import Console
    from sentray.training import backend, fitting, run

    config = backend.ExchangeConfig
    monkeypatch.setattr(backend, "ExchangeConfig", lambda hint: config("ring"))
    monkeypatch.setattr(fitting, "_train_worker", train_worker)
    # The workers cannot import this file.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    settings = TrainSettings(corpus="synthetic:700", out=str(tmp_path / "model"), workers=2, epochs=2, seed=1)
    metrics = run.train(settings, Console())
    assert metrics["rows_seen_per_epoch"] == metrics["train_rows"]
    first, second = json.loads((tmp_path / "model" / "history.json").read_text())
    assert second["loss"] < first["loss"]
    assert bundle.load(tmp_path / "model").folded
