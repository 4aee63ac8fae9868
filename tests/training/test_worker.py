"""One worker's epochs, restarts and replica check, without Ray."""

import itertools
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from sentray import models
from sentray.bundle import ModelSpec, TrainedOn
from sentray.config import TrainSettings
from sentray.corpus.identity import TextHashes
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.storage import Folder
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary
from sentray.training import worker
from sentray.training.allreduce import TOKEN_BYTES, AllReduce, listen
from sentray.training.checkpoint import NothingToKeepError
from sentray.training.training_set import IDS_FILE, Facts, TrainingSet, write
from sentray.training.worker import Job, Replica


@pytest.fixture
def dataset(tmp_path: Path) -> TrainingSet:
    """Reviews of which the positive ones hold low ids."""
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, 50).astype(np.int32)
    reviews = [generator.integers(1, 10, 12) + 10 * (1 - target) for target in targets]
    (tmp_path / IDS_FILE).write_bytes(np.concatenate(reviews).astype(np.int32).tobytes())
    rules, _ = preset("reviews")
    counts = tuple(np.bincount(targets, minlength=2).tolist())
    spec = ModelSpec(architecture="tutorial-cnn.v1", cleaning=rules, labels=("neg", "pos"), max_length=20)
    trained_on = TrainedOn(split_by="text", test_fraction=0.1, sampled=1, bytes=0, digest="")
    facts = Facts(spec, counts, None, {"embedding": None}, trained_on)
    vocabulary = Vocabulary([chr(ord("a") + index) for index in range(20)])
    write(
        Folder(str(tmp_path)),
        facts,
        vocabulary,
        np.arange(51) * 12,
        targets,
        TextHashes.of([]),
        resolve("synthetic:50"),
    )
    return TrainingSet.load(str(tmp_path))


def unseen(report: dict[str, Any]) -> None:
    """Takes a step's report."""


def job(dataset_folder: Path, progress: Any = None, **values: Any) -> Job:
    return Job(settings(**values), str(dataset_folder), progress)


def settings(**values: Any) -> TrainSettings:
    defaults: dict[str, Any] = {"epochs": 8, "batch_size": 8, "learning_rate": 0.01, "seed": 3, "max_restarts": 2}
    return TrainSettings(corpus="unused", out="unused", **defaults | values)


def test_an_epoch_reports_all_rows_and_learns(dataset: TrainingSet, tmp_path: Path) -> None:
    replica = Replica(settings(), dataset, AllReduce(), seed=3)
    records = [replica.epoch(number, unseen) for number in range(8)]
    assert {record["rows_seen"] for record in records} == {50}
    assert {record["steps"] for record in records} == {7}
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert records[-1]["accuracy"] == 1.0
    assert not any(record["dead"] for record in records)


def test_epochs_shorter_than_the_pause_between_reports_are_seen(
    dataset: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each look at the clock takes a millisecond: an epoch of 7 steps is far under half a second.
    clock = itertools.count()
    monkeypatch.setattr(worker, "time", SimpleNamespace(time=time.time, perf_counter=lambda: next(clock) / 1000))
    replica = Replica(settings(), dataset, AllReduce(), seed=3)
    reports: list[dict[str, Any]] = []
    records = [replica.epoch(number, reports.append) for number in range(20)]
    assert max(record["seconds"] for record in records) < worker.POLL_SECONDS / 2
    assert 2 <= len(reports) <= 5


class Board:
    """Takes what the first worker sends, as the actor does."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.put = SimpleNamespace(remote=lambda kind, content: kind == "line" and self.lines.append(content))


def test_a_dead_start_goes_on_with_the_next_seed(
    dataset: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    normal = models.architecture("tutorial-cnn.v1")
    built = []

    def first_is_dead(kinds: Any) -> list[Any]:
        layers = normal.layers(kinds)
        if not built:
            layers[-1].bias_initializer = keras.initializers.Constant(-1e6)
        built.append(layers)
        return layers

    monkeypatch.setitem(models.ARCHITECTURES, normal.name, replace(normal, layers=first_is_dead))
    states: list[worker.State] = []
    monkeypatch.setattr(worker, "_report", lambda state, *_: states.append(state))
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: None)
    board = Board()
    assert worker.run(job(tmp_path, progress=board), AllReduce()) is None
    assert board.lines == [
        "training with 1 worker",
        "seed 3 made a dead start (no unit of a layer reacts, or the loss is no number): again with seed 4",
    ]
    assert (states[-1].seed, states[-1].restarts, states[-1].epoch) == (4, 1, 8)
    assert len(states[-1].history) == 8
    assert states[-1].history[-1]["accuracy"] == 1.0


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_no_start_at_all_is_a_refusal_that_lasts(
    dataset: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_report", lambda *_: None)
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: None)
    refusal = worker.run(job(tmp_path, learning_rate=1e38, max_restarts=1), AllReduce())
    assert isinstance(refusal, NothingToKeepError)
    assert str(refusal).startswith("the network did not start to learn with 2 seeds from 3 on")


def test_a_worker_that_does_not_see_the_training_set_ends_them_all(dataset: TrainingSet, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    with pair() as (pool, workers):
        boards = [Board(), Board()]
        jobs = [
            job(folder, progress=board, workers="1:3")
            for folder, board in zip((tmp_path, elsewhere), boards, strict=True)
        ]
        refusals = list(pool.map(worker.run, jobs, workers))
    assert [type(refusal) for refusal in refusals] == [SentrayError] * 2
    assert str(refusals[0]) == str(refusals[1])
    assert f"the training set in {elsewhere} cannot be read on {socket.gethostname()} (" in str(refusals[0])
    assert boards[0].lines == ["training with 2 workers of 1:3"]
    assert boards[1].lines == []


@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_a_loss_that_is_no_number_is_a_dead_start(dataset: TrainingSet, tmp_path: Path) -> None:
    replica = Replica(settings(learning_rate=1e38), dataset, AllReduce(), seed=3)
    records = [replica.epoch(number, unseen) for number in range(2)]
    assert not np.isfinite(records[-1]["loss"])
    assert records[-1]["dead"]


def test_balanced_classes_weigh_alike(dataset: TrainingSet, tmp_path: Path) -> None:
    replica = Replica(settings(class_weight="balanced"), dataset, AllReduce(), seed=3)
    per_class = replica._class_weights * np.array(dataset.facts.label_rows)
    np.testing.assert_allclose(per_class, 25.0, rtol=1e-6)


@pytest.mark.parametrize("seeds", [(3, 3), (3, 4)])
def test_replicas_are_compared_to_the_last_bit(dataset: TrainingSet, tmp_path: Path, seeds: tuple[int, int]) -> None:
    with pair() as (pool, workers):
        replicas = [
            Replica(settings(), dataset, allreduce, seed) for allreduce, seed in zip(workers, seeds, strict=True)
        ]
        if seeds[0] == seeds[1]:
            list(pool.map(lambda replica: replica.epoch(0, unseen), replicas))
            assert len(set(pool.map(Replica.check_replicas, replicas))) == 1
        else:
            assert_unlike(pool, replicas)


def test_replicas_with_other_frozen_vectors_are_noticed(dataset: TrainingSet, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(21, 4)).astype(np.float32)
    other = vectors.copy()
    other[7, 2] = np.nextafter(other[7, 2], np.float32(9))
    with pair() as (pool, workers):
        frozen = settings(embedding="unused", freeze=True)
        same = [Replica(frozen, replace(dataset, vectors=vectors), allreduce, 3) for allreduce in workers]
        list(pool.map(lambda replica: replica.epoch(0, unseen), same))
        assert len(set(pool.map(Replica.check_replicas, same))) == 1
        given = zip((vectors, other), workers, strict=True)
        assert_unlike(pool, [Replica(frozen, replace(dataset, vectors=mine), one, 3) for mine, one in given])


@contextmanager
def pair() -> Iterator[tuple[ThreadPoolExecutor, list[AllReduce]]]:
    """Two connected workers, and a thread for each."""
    listeners = [listen("127.0.0.1") for _ in range(2)]
    addresses = [listener.getsockname() for listener in listeners]
    with ThreadPoolExecutor(2) as pool:
        workers = list(pool.map(lambda rank: AllReduce(rank, addresses, bytes(TOKEN_BYTES), listeners[rank]), range(2)))
        yield pool, workers
    for allreduce in workers:
        allreduce.close()


def assert_unlike(pool: ThreadPoolExecutor, replicas: list[Replica]) -> None:
    for outcome in [pool.submit(replica.check_replicas) for replica in replicas]:
        with pytest.raises(RuntimeError, match="weights differ"):
            outcome.result()
