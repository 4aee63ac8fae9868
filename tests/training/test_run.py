"""Training through Ray: several workers, lost workers, killed runs."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentray import bundle, cluster
from sentray.config import EmbedSettings, TrainSettings
from sentray.console import Console
from sentray.embeddings.learn import embed
from sentray.embeddings.read import read_vectors
from sentray.errors import SentrayError
from sentray.lease import Holder, Lease
from sentray.scoring.drift import reference_of
from sentray.storage import Folder
from sentray.training import run
from sentray.training.run import LEASE, train, work_folder


def settings(out: Path, **values: Any) -> TrainSettings:
    defaults: dict[str, Any] = {"corpus": "synthetic:700", "out": str(out), "epochs": 2, "seed": 1, "report": False}
    defaults |= {"model": "tutorial-cnn", "test_fraction": 0.1, "validation_fraction": 0}
    return TrainSettings(**defaults | values)


def history(out: Path) -> list[dict[str, Any]]:
    return json.loads((out / "history.json").read_text())


def train_workers() -> list[int]:
    """Ray Train's worker processes below this one; the machine may hold those of other runs."""
    parents, workers = {}, []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit():
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if b"RayTrainWorker" in (entry / "cmdline").read_bytes():
                    workers.append(int(entry.name))
        except OSError:
            continue

    def is_ours(process: int) -> bool:
        return process == os.getpid() or (process in parents and is_ours(parents[process]))

    return [worker for worker in workers if is_ours(worker)]


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("model", ["tutorial-cnn", "wide-deep"])
def test_two_workers_follow_one(tmp_path: Path, in_process: Any, model: str) -> None:
    two = train(settings(tmp_path / "two", workers=2, model=model), Console())
    in_process()
    one = train(settings(tmp_path / "one", model=model), Console())
    assert one["rows_seen_per_epoch"] == two["rows_seen_per_epoch"] == one["train_rows"]
    losses = [[epoch["loss"] for epoch in history(tmp_path / name)] for name in ("one", "two")]
    assert abs(losses[0][0] - losses[1][0]) < 1e-4
    shown = EventAccumulator(str(tmp_path / "two" / "tensorboard" / "last")).Reload().Scalars("loss")
    assert [(point.step, point.value) for point in shown] == [
        (number, pytest.approx(loss)) for number, loss in enumerate(losses[1], 1)
    ]
    trained = bundle.load(tmp_path / "two")
    assert trained.labels == ("neg", "pos")
    assert trained.metrics["test_accuracy"] == two["test_accuracy"]
    assert trained.settings["workers"] == 2
    assert not Path(work_folder(str(tmp_path / "two"))).exists()
    # The same command again has nothing to do, also where its end was missed before the work folder was removed.
    (Path(work_folder(str(tmp_path / "two"))) / "dataset").mkdir(parents=True)
    assert train(settings(tmp_path / "two", workers=1, model=model), Console()) == two
    assert not Path(work_folder(str(tmp_path / "two"))).exists()
    with pytest.raises(SentrayError, match="two holds another bundle; choose another --out"):
        train(settings(tmp_path / "two", seed=5, model=model), Console())


@pytest.mark.usefixtures("ray_session")
def test_three_classes_unbalanced_with_bad_rows(tmp_path: Path, in_process: Any) -> None:
    in_process()
    texts = ["awful dreadful mess"] * 60 + ["plain average film"] * 30 + ["great lovely joy"] * 10
    # Copies of one text would be held out together, and with them all that is to be learnt of a label.
    texts = [f"{text} {number}" for number, text in enumerate(texts)]
    labels = ["bad"] * 60 + ["fair"] * 30 + ["good"] * 10
    # A missing text, and a label that occurs in the test rows only.
    splits = ["test" if row % 5 == 0 else "train" for row in range(100)]
    table = pa.table(
        {
            "review": [*texts, None, "odd"],
            "stars": [*labels, "bad", "excellent"],
            "split": [*splits, "train", "test"],
        }
    )
    pq.write_table(table, tmp_path / "reviews.parquet")
    asked = settings(
        tmp_path / "model",
        corpus=str(tmp_path / "reviews.parquet"),
        text_column="review",
        label_column="stars",
        class_weight="balanced",
        epochs=12,
        batch_size=16,
        learning_rate=0.01,
        max_bad_rows=0.02,
        validation_fraction=0.1,
    )
    metrics = train(asked, Console())
    assert (metrics["fits"], metrics["train_rows"], metrics["validation"]["rows"]) == (6, 80, 80)
    assert metrics["validation_accuracy"] > 0.9
    made = bundle.load(tmp_path / "model")
    assert made.calibration is not None
    assert (made.calibration.temperature, made.calibration.rows) == (metrics["validation"]["temperature"], 80)
    assert metrics["test"]["labels"] == ["bad", "fair", "good"]
    assert metrics["test_accuracy"] == 1.0
    reference = reference_of(made)
    assert reference is not None
    assert reference.words is not None
    assert (reference.rows, reference.scored_rows, sum(reference.lengths)) == (80, 80, 80)
    assert (sum(reference.scores or []), sum((reference.labels or {}).values())) == (80, 80)
    # Each review has three words that others have too and a number of its own, which the vocabulary does not have.
    assert reference.known[2] == reference.lengths[4] == 80
    assert (metrics["quarantined_rows"], metrics["test_rows"]) == (2, 20)
    quarantined = pq.read_table(tmp_path / "model" / "quarantine.parquet").to_pylist()
    assert [(row["file"], row["row"], row["reason"]) for row in quarantined] == [
        ("reviews.parquet", 101, "null_text"),
        ("reviews.parquet", 102, "unknown_label"),
    ]


@pytest.fixture
def killer(console: Any) -> Iterator[Any]:
    """The console, which kills a training worker once, after the third epoch: a checkpoint counts once Ray Train has
    seen it."""
    killed: list[int] = []

    def progress(line: str, share: float | None = None, *, moved: bool = True) -> None:
        if not killed and line.startswith("epoch ") and int(line[6:].partition("/")[0]) > 3:
            for worker in train_workers()[-1:]:
                os.kill(worker, signal.SIGKILL)
                killed.append(worker)

    console.progress = progress
    yield console
    assert killed


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_lost_worker_costs_no_epoch(tmp_path: Path, killer: Any) -> None:
    metrics = train(settings(tmp_path / "model", workers=2, epochs=25), killer)
    assert any(line.startswith("going on after epoch") for line in killer.lines)
    assert [epoch["epoch"] for epoch in history(tmp_path / "model")] == list(range(1, 26))
    assert metrics["rows_seen_per_epoch"] == metrics["train_rows"]


@pytest.mark.usefixtures("ray_session")
def test_too_many_lost_workers_end_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import RayActorError
    from ray.train.v2.api.exceptions import WorkerGroupError

    from sentray.training import trainer

    class Losing:
        train_run_context = SimpleNamespace(run_id="losing")

        def __init__(self, *_: object, **__: object) -> None: ...

        def fit(self) -> None:
            raise WorkerGroupError("lost", {0: RayActorError(), 1: RuntimeError("another went away")})

    monkeypatch.setattr(trainer, "DataParallelTrainer", Losing)
    sentence = (
        r"lost or failed more than --max-failures 0 times \(at last 1 training worker lost\); the same command goes on "
        "from the last epoch"
    )
    with pytest.raises(SentrayError, match=sentence):
        train(settings(tmp_path / "model", workers=2, max_failures=0), Console())
    assert Path(work_folder(str(tmp_path / "model")), "dataset").exists()


def reviews(file: Path, first: str) -> None:
    rows = [first, *(f"the {word} film {number}" for number in range(40) for word in ("good", "poor"))]
    file.write_text("text,label\n" + "".join(f"{text},{int('good' in text)}\n" for text in rows))


@pytest.mark.usefixtures("ray_session")
def test_data_that_changed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Any, in_process: Any
) -> None:
    from sentray.training import trainer

    in_process()
    corpus, out = tmp_path / "reviews.csv", tmp_path / "model"
    asked = settings(out, corpus=str(corpus), epochs=1)
    reviews(corpus, "a good one")
    fit = trainer.fit

    def changing(*given: Any) -> Any:
        reviews(corpus, "a poor one")
        return fit(*given)

    def stopped(*_: Any) -> None:
        raise SentrayError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit", stopped)
        with pytest.raises(SentrayError, match="stopped"):
            train(asked, console)
        # Only a time is another: what was prepared still holds.
        os.utime(corpus, (1, 1))
        patch.setattr(trainer, "fit", changing)
        with pytest.raises(SentrayError, match=r"reviews\.csv has changed since .*model\.work was made; "):
            train(asked, console)
    assert not out.exists()
    with pytest.raises(SentrayError, match=r"reviews\.csv has changed since .*model\.work was made; "):
        train(asked, console)
    reviews(corpus, "a good one")
    metrics = train(asked, console)
    assert metrics["test"]["of"] == 81
    made = bundle.load(out)
    assert made.trained_on is not None
    assert made.trained_on.bytes == corpus.stat().st_size
    assert made.texts is not None
    assert len(made.texts.values) == metrics["train_rows"]

    assert train(asked, console) == metrics
    os.utime(corpus, (1, 1))
    assert train(asked, console) == metrics
    # The same size, and another text.
    reviews(corpus, "a poor one")
    with pytest.raises(SentrayError, match=r"reviews\.csv has changed since .*model was made; choose another"):
        train(asked, console)
    reviews(corpus, "a longer one")
    with pytest.raises(SentrayError, match=r"^reviews\.csv has changed since"):
        train(asked, console)


@pytest.mark.usefixtures("ray_session")
def test_a_work_folder_of_an_earlier_version_is_refused(tmp_path: Path, console: Any) -> None:
    work = tmp_path / "model.work"
    (work / "dataset").mkdir(parents=True)
    (work / "run.json").write_text('{"corpus": "synthetic:700", "test_fraction": 0.1}')
    (work / "dataset" / "dataset.json").write_text('{"label_rows": [1, 1], "dimensions": null, "metrics": {}}')
    with pytest.raises(SentrayError, match="was made by another version of sentray; remove the folder to start anew"):
        train(settings(tmp_path / "model"), console)


@pytest.mark.usefixtures("ray_session")
def test_the_second_of_two_runs_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with Lease(Folder(work_folder(str(out))), LEASE), pytest.raises(SentrayError, match="is being written by another"):
        train(settings(out), Console())
    assert not out.exists()


@pytest.mark.usefixtures("ray_session")
def test_a_run_whose_folder_was_taken_over_leaves_it(tmp_path: Path, console: Any, in_process: Any) -> None:
    in_process()
    work = Folder(work_folder(str(tmp_path / "model")))

    def progress(line: str, share: float | None = None, *, moved: bool = True) -> None:
        if line.startswith("epoch "):
            work.write_json(LEASE, asdict(Holder.me()))

    console.progress = progress
    with pytest.raises(SentrayError, match=r"model\.work is no longer this run's: another one took over"):
        train(settings(tmp_path / "model", epochs=1000), console)
    assert Path(work.path("dataset")).exists()
    assert Path(work.path(LEASE)).exists()
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("ray_session")
def test_a_run_that_was_killed_at_its_very_end_is_tracked_all_the_same(
    tmp_path: Path, console: Any, in_process: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise KilledError

    in_process()
    out, given = tmp_path / "model", {"corpus": "synthetic:60", "epochs": 1}
    with monkeypatch.context() as patch:
        patch.setattr(run.Trackers, "finish", killed)
        with pytest.raises(KilledError):
            train(settings(out, **given), console)
    assert not (out / "tensorboard").exists()
    train(settings(out, **given), console)
    assert EventAccumulator(str(out / "tensorboard" / "last")).Reload().Tags()["scalars"]
    assert not (tmp_path / "model.work").exists()


@pytest.mark.usefixtures("ray_session")
def test_dead_starts_end_in_one_sentence(tmp_path: Path, console: Any, in_process: Any) -> None:
    in_process()
    asked = settings(tmp_path / "model", learning_rate=1000.0, max_restarts=1)
    with pytest.raises(SentrayError, match="did not start to learn with 2 seeds from 1 on"):
        train(asked, console)
    assert any("seed 1 made a dead start" in line for line in console.lines)


@pytest.mark.parametrize(
    ("workers", "line"),
    [
        (2, "2 workers, 1 CPU each; 1 CPU left; batches of 32, 16 a worker"),
        (
            "2:4",
            "2 to 4 workers, 1 CPU each, as many as there is room for; batches of 32 whatever their number, so that "
            "the losses compare",
        ),
    ],
)
def test_the_plan_says_how_many_train(tmp_path: Path, workers: int | str, line: str) -> None:
    plan = run._describe(settings(tmp_path, workers=workers), cluster.Plan(2, 1.0, 0.0, 1.0))
    assert plan == f"plan: read with 3 CPUs, then train with {line}"


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"embedding": "foreign.txt"}, "none of the vocabulary's [0-9]+ words has a vector"),
        ({"encoder": "hash", "cleaning": "reviews", "min_token_length": 99}, "cleaning leaves no word"),
    ],
)
def test_a_refused_corpus_leaves_only_the_rows_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("foreign.txt").write_text("zzqx 1 2 3\n")
    with pytest.raises(SentrayError, match=message):
        train(settings(tmp_path / "model", **values), Console())
    left = [path.name for path in Path(work_folder(str(tmp_path / "model")), "dataset").iterdir()]
    assert left == ["quarantine.parquet"]


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("embedding-mlp", {"encoder": "hash", "buckets": 500}),
        ("pretrained-cnn", {"freeze": True}),
        ("embedding-average", {"center": True, "embedding_learning_rate": 0.01, "epochs": 3}),
    ],
)
def test_the_tutorials_systems_train_and_score(
    tmp_path: Path, console: Any, in_process: Any, model: str, values: dict[str, Any]
) -> None:
    in_process()
    if "encoder" not in values:
        vectors = tmp_path / "vectors.txt"
        embed(EmbedSettings(corpus="synthetic:700", out=str(vectors), dimensions=12, epochs=1), console)
        values = {"embedding": str(vectors)} | values
    out = tmp_path / "bundle"
    metrics = train(settings(out, model=model, learning_rate=0.01, **values), console)
    trained = bundle.load(out)
    assert trained.folded
    assert trained.spec.architecture == f"{model}.v1"
    losses = [epoch["loss"] for epoch in history(out)]
    assert losses[-1] < losses[0]
    start = np.load(tmp_path / "bundle" / "folded.npz")["embedding"]
    if "encoder" in values:
        assert metrics["buckets"] == 500
        assert 500 < metrics["sharing_words"] <= metrics["vocabulary_distinct"]
        assert start.shape == (501, 8)
        assert any("hashed into 500 buckets" in line for line in console.lines)
    else:
        assert metrics["embedding"]["words_found"] == metrics["vocabulary_size"]
        assert trained.metrics["embedding"]["tokens_found"] == metrics["embedding"]["tokens"]
        rows = read_vectors(values["embedding"], trained.vocabulary.words)[0].rows
        assert np.array_equal(np.sort(start[1:], axis=None), np.sort(rows, axis=None)) == ("freeze" in values)
