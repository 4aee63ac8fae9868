"""One worker's epochs, restarts and replica check, without Ray."""

import itertools
import shutil
import socket
import time
from collections import Counter
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

from sentray import bundle, models
from sentray.bundle import Function, ModelSpec, TrainedOn
from sentray.config import TrainSettings
from sentray.corpus.identity import TextHashes
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.inference.networks import load_network
from sentray.models import DeepSpec
from sentray.storage import Folder
from sentray.text.cleaning import preset
from sentray.text.ngrams import Grams, GramSpec, make_table, word_grams
from sentray.text.vocabulary import Vocabulary
from sentray.training import checkpoint, worker
from sentray.training.allreduce import TOKEN_BYTES, AllReduce, listen
from sentray.training.batches import laid_out
from sentray.training.calibration import Mix
from sentray.training.checkpoint import NothingToKeepError
from sentray.training.folds import NEVER
from sentray.training.heads import new_network
from sentray.training.stopping import best_epoch
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
    facts = Facts(spec, sum(counts), counts, (), None, {"embedding": None, "grams": {"min_reviews": 2}}, trained_on)
    vocabulary = Vocabulary([chr(ord("a") + index) for index in range(20)])
    write(
        Folder(str(tmp_path)),
        facts,
        vocabulary,
        np.arange(51) * 12,
        targets,
        np.full(50, NEVER, np.uint8),
        TextHashes.of([]),
        resolve("synthetic:50"),
    )
    return TrainingSet.load(str(tmp_path))


@pytest.fixture
def halves(dataset: TrainingSet) -> TrainingSet:
    """The same reviews for a network of a wide and a deep half."""
    deep = DeepSpec(widths=(2, 3), filters=4, dimensions=6)
    spec = dataset.facts.spec.model_copy(update={"architecture": "wide-deep.v1", "grams": GramSpec(), "deep": deep})
    keys = dict.fromkeys(
        gram for review in dataset.reviews(np.arange(50)) for gram in word_grams(review.tolist(), GramSpec())
    )
    grams = Grams(GramSpec(), make_table(np.array(list(keys), np.uint64)), None)
    vectors = np.random.default_rng(1).normal(0, 0.3, (21, 6)).astype(np.float32)
    vectors[0] = 0
    return replace(dataset, facts=replace(dataset.facts, spec=spec), grams=grams, vectors=vectors)


def test_a_fit_knows_the_n_grams_of_its_rows_alone(halves: TrainingSet) -> None:
    rows, held = np.arange(25), halves.reviews(np.arange(25, 50))
    network = new_network(settings(), halves, rows, 0, AllReduce())
    counts = Counter(gram for review in halves.reviews(rows) for gram in word_grams(review.tolist(), GramSpec()))
    wanted = [gram for review in held for gram in word_grams(review.tolist(), GramSpec()) if counts[gram] >= 2]
    assert halves.grams is not None
    assert halves.grams.table[network.pack(held)["wide"].rows - 1].tolist() == wanted


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
    lines: list[str] = []
    records = [replica.epoch(number, unseen, lines.append) for number in range(2)]
    (line,) = lines
    assert line.startswith("warning: the network: it diverges at step")
    assert not np.isfinite(records[-1]["loss"])
    assert records[-1]["dead"]


class Store:
    """Stands in for Ray Train: keeps every checkpoint, and gives one to go on from."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.kept, self.start = folder, list[Path](), 0
        monkeypatch.setattr("ray.train.report", lambda metrics, checkpoint: self.keep(checkpoint.path))
        monkeypatch.setattr("ray.train.get_checkpoint", self.begin)

    def keep(self, path: str) -> None:
        self.kept.append(self.folder / str(len(self.kept)))
        shutil.copytree(path, self.kept[-1])

    def arrays(self) -> dict[str, np.ndarray]:
        """Weights of the last checkpoint, and what is known of the rows that were held out."""
        found = {}
        for name in ("weights.npz", "held_out.npz"):
            with np.load(self.kept[-1] / name) as arrays:
                found |= {f"{name} {key}": arrays[key] for key in arrays}
        return found

    def begin(self) -> Any:
        from ray.train import Checkpoint

        return Checkpoint.from_directory(str(self.kept[self.start - 1])) if self.start else None


def in_folds(dataset: TrainingSet, folds: int) -> TrainingSet:
    held = np.arange(len(dataset)) % folds
    rows = tuple(np.bincount(held).tolist())
    return replace(dataset, held=held.astype(np.uint8), facts=replace(dataset.facts, held_out=rows))


def test_rows_held_out_choose_the_epochs_of_the_last_fit_and_a_stopped_run_ends_alike(
    dataset: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "load", lambda _: in_folds(dataset, 2))
    store, board = Store(tmp_path / "checkpoints", monkeypatch), Board()
    asked = job(tmp_path, progress=board, epochs=4, patience=1)
    assert worker.run(asked, AllReduce()) is None
    state = checkpoint.read_state(str(store.kept[-1]))
    assert state.choice is not None
    (epochs,) = state.choice.epochs.values()
    assert [record["rows_seen"] for record in state.records_of(2)] == [50] * epochs
    assert {record["rows_seen"] for record in state.history if record["fit"] < 2} == {25}
    folds = [[record["held_out"]["network"] for record in state.records_of(fold)] for fold in (0, 1)]
    assert epochs == best_epoch(folds, [25, 25])
    assert board.lines[1] == "fit 1 of 3 trains on 25 rows and holds out 25"
    after = folds[0].index(min(folds[0])) + 1
    said = f"{len(folds[0])} epochs, least held-out loss: network {min(folds[0]):.4f} after {after}"
    assert board.lines[2].strip() == said
    assert board.lines[-1].startswith(
        f"fit 3 of 3 trains on 50 rows and takes from the held-out rows: network {epochs}"
    )
    known = checkpoint.HeldOut.read(str(store.kept[-1]))
    assert known is not None
    assert np.array_equal(known.labels, dataset.targets)
    # The calibrated last layer is that of the weights as trained, by the temperature.
    with np.load(store.kept[-1] / "weights.npz") as weights:
        trained = weights[next(name for name in weights if "dense" in name and "weights" in name)].ravel()
    calibrated = bundle.load(store.kept[-1] / "bundle")
    network = load_network(calibrated)
    kernel, bias = network.layers[-1].get_weights()
    assert state.choice.mix is not None
    np.testing.assert_allclose(np.append(kernel, bias), trained[-11:] / state.choice.mix.temperature, rtol=1e-6)
    whole = store.arrays()
    for start in (1, len(folds[0]), len(store.kept) - 1):
        store.start = start
        assert worker.run(asked, AllReduce()) is None
        again = store.arrays()
        assert again.keys() == whole.keys()
        assert all(np.array_equal(again[name], whole[name]) for name in whole), start


def test_two_workers_hold_out_and_score_as_one(dataset: TrainingSet) -> None:
    folded = in_folds(dataset, 3)
    alone = Replica(settings(), folded, AllReduce(), 3, fit=1)
    assert np.array_equal(alone.rows, np.flatnonzero(np.arange(50) % 3 != 1))
    with pair() as (pool, workers):
        replicas = [Replica(settings(), folded, allreduce, 3, fit=1) for allreduce in workers]
        found = list(pool.map(lambda replica: replica.held_out(1), replicas))
    assert found[0].shape == (17, 1, 1)
    assert np.array_equal(*found)
    np.testing.assert_allclose(found[0], alone.held_out(1), atol=1e-6)


def test_rows_count_as_their_weights_say(dataset: TrainingSet) -> None:
    ignored = (dataset.targets == 0).astype(np.float32)
    replica = Replica(settings(), replace(dataset, weights=ignored), AllReduce(), 3)
    for number in range(8):
        replica.epoch(number, unseen)
    chances = 1 / (1 + np.exp(-replica.network.logits(replica.network.pack(dataset.reviews(np.arange(2))))))
    assert chances.max() < 0.1


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


OWN = Function(name="tests.training.own_networks:build", digest="0" * 64)


@pytest.mark.parametrize(("name", "function"), [(models.FUNCTION, OWN), ("kim-cnn.v1", None), ("bilstm.v1", None)])
def test_replicas_of_any_network_are_equal_and_go_on_to_the_same_bits(
    dataset: TrainingSet, name: str, function: Function | None
) -> None:
    """LSTM, dropout, statistics, half precision, a schedule; the last batch has a row for one worker alone."""
    spec = dataset.facts.spec.model_copy(update={"architecture": name, "function": function})
    own = replace(dataset, facts=replace(dataset.facts, spec=spec, dimensions=6))
    with pair() as (pool, workers):

        def replicas() -> list[Replica]:
            return [Replica(settings(batch_size=49), own, among, 3) for among in workers]

        def train(some: list[Replica], number: int) -> str:
            list(pool.map(lambda replica: replica.epoch(number, unseen), some))
            (digest,) = set(pool.map(Replica.check_replicas, some))
            return digest

        whole = replicas()
        first = train(whole, 0)
        states = [{name: values.copy() for name, values in each.network.state().items()} for each in whole]
        last = train(whole, 1)
        resumed = replicas()
        for replica in resumed:
            replica.network.restore(states[0])
        assert train(resumed, 1) == last != first
    moved = {each for each in states[0] if not np.array_equal(states[0][each], whole[0].network.state()[each])}
    statistics = {"statistics"} if function else set()
    assert {each.split(".")[1] for each in moved} == {"step", "weights", "optimizer"} | statistics


def test_replicas_of_halves_are_equal_and_follow_one(halves: TrainingSet) -> None:
    with pair() as (pool, workers):
        replicas = list(pool.map(lambda among: Replica(settings(), halves, among, 3), workers))
        records = [list(pool.map(lambda replica, of=of: replica.epoch(of, unseen), replicas)) for of in range(2)]
        assert len(set(pool.map(Replica.check_replicas, replicas))) == 1
    one = Replica(settings(), halves, AllReduce(), 3)
    for number in range(2):
        assert one.epoch(number, unseen)["loss"] == pytest.approx(records[number][0]["loss"], abs=1e-4)


def test_halves_go_on_from_a_state_to_the_same_bits_and_rest(halves: TrainingSet) -> None:
    whole, begun = (Replica(settings(), halves, AllReduce(), 3) for _ in range(2))
    for number in range(2):
        whole.epoch(number, unseen)
    begun.epoch(0, unseen)
    resumed = Replica(settings(), halves, AllReduce(), 3)
    resumed.network.restore({name: values.copy() for name, values in begun.network.state().items()})
    resumed.epoch(1, unseen)
    assert resumed.check_replicas() == whole.check_replicas()
    resumed.network.rest("deep")
    record = resumed.epoch(2, unseen)
    assert not record["dead"]
    for name, values in resumed.network.state().items():
        assert np.array_equal(values, whole.network.state()[name]) == name.startswith("deep."), name


@pytest.mark.parametrize("mix", [None, Mix((0.7, 0.4), -0.3)])
def test_the_keras_model_of_halves_mixes_their_logits(halves: TrainingSet, mix: Mix | None) -> None:
    replica = Replica(settings(), halves, AllReduce(), 3)
    replica.epoch(0, unseen)
    reviews = halves.reviews(np.arange(4))
    logits = replica.network.logits(replica.network.pack(reviews))
    assert replica.network.heads == ("wide", "deep")
    assert logits.shape == (4, 2, 1)
    found = halves.grams.of(*laid_out(reviews))
    sizes = np.diff(found.offsets)
    ids, grams, values = (
        np.zeros((4, size), kind) for size, kind in ((12, "i4"), (sizes.max(), "i4"), (sizes.max(), "f4"))
    )
    for row, review in enumerate(reviews):
        ids[row], mine = review, slice(*found.offsets[row : row + 2])
        grams[row, : sizes[row]], values[row, : sizes[row]] = found.rows[mine], found.values[mine]
    scores = np.asarray(replica.network.keras_model(mix)([grams, values, ids]))
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-(mix or Mix.mean(2)).of(logits))), atol=1e-5)


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
