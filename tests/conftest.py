"""Fixtures shared by the whole run: one local Ray, three raylets, and the real data where it can be had."""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sentray.console import Console
from sentray.task import Task
from tests.in_process import InProcessTrainer

if TYPE_CHECKING:
    from sentray.bundle import Bundle

SHARED = Path(__file__).resolve().parents[2] / "shared"

if "NLTK_DATA" not in os.environ and (SHARED / "nltk_data").is_dir():
    os.environ["NLTK_DATA"] = str(SHARED / "nltk_data")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background jobs ignore it, and so would the processes that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# First, since what divides the tests among processes reads the marks as soon as it comes to its own.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Keep what shares something in one process: the whole run's Ray session or raylets, or a file's own fixtures."""
    for item in items:
        shared = [fixture for fixture in ("ray_session", "raylets") if fixture in item.fixturenames]
        item.add_marker(pytest.mark.xdist_group(shared[0] if shared else str(item.path)))


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a test by the beginning of a long value: the processes send each other names, and one had 36 MB."""
    if isinstance(val, bytes | str) and len(val) > 60:
        return f"{val[:40]!r} of {len(val):,}"
    return None


class Recorder(Console):
    """A console that keeps its lines, and what it shows of the progress with the share done."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.shown: list[tuple[str, float | None]] = []

    def say(self, line: str = "") -> None:
        self.lines.append(line)

    def progress(self, line: str, share: float | None = None, *, moved: bool = True) -> None:
        self.shown.append((line, share))


@pytest.fixture
def console() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the folder of real data {SHARED} is not here")
    return SHARED


@pytest.fixture(scope="session")
def nltk_polarity() -> str:
    from sentray import nltk_data

    if nltk_data.find("corpora/movie_reviews") is None:
        pytest.skip("NLTK's movie_reviews is not here; set NLTK_DATA to a folder that holds it")
    return "nltk:movie_reviews"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    from sentray import cluster

    with cluster.connect(address=None, cpus=2):
        yield


WORDS = ["good", "bad", "film", "plot", "actor", "scene", "boring", "great", "never", "not", "but", "music", "slow"]
WORDS += ["fast", "naïve", "ending"]
LENGTH = 40

MakeBundle = Callable[..., "Bundle"]
MakeReviews = Callable[..., list[str]]


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Makes a bundle with random weights and lets it lie in a folder of its own."""
    from sentray import bundle, models
    from sentray.bundle import ModelSpec
    from sentray.inference import folding
    from sentray.inference.scorer import golden_texts
    from sentray.text.cleaning import preset
    from sentray.text.vocabulary import Vocabulary

    def make(
        labels: tuple[str, ...] = ("neg", "pos"),
        seed: int = 0,
        length: int = LENGTH,
        fold: bool = True,
        task: Task = "classification",
        **more: Any,
    ):
        import keras

        words = Vocabulary(WORDS)
        keras.utils.set_random_seed(seed)
        model = models.architecture("tutorial-cnn").build(words.size, length, len(labels), task=task)
        # Far larger weights than a new network's, so that the scores differ.
        model.layers[0].set_weights([np.random.default_rng(seed).normal(size=(words.size, 100))])
        spec = ModelSpec.of(
            words,
            architecture="tutorial-cnn.v1",
            cleaning=preset("reviews")[0],
            labels=labels,
            max_length=length,
            task=task,
        )
        files = {bundle.MODEL: models.keras_file(model), **(folding.fold(model) if fold else {})}
        made = bundle.make(spec, words, files, **more)
        made = bundle.update(made, golden=golden_texts(made, ["good film", "not a good film", ""]))
        return bundle.publish(made, str(tmp_path_factory.mktemp("bundle")))

    return make


@pytest.fixture(scope="session")
def small_bundle(make_bundle: MakeBundle) -> "Bundle":
    return make_bundle()


TASK_LABELS: dict[Task, tuple[str, ...]] = {
    "multilabel": ("comedy", "drama", "war"),
    "ordinal": ("1", "2", "4"),
    "regression": (),
}
"""Labels of a bundle of each task but classification."""


@pytest.fixture(scope="session")
def bundle_of(make_bundle: MakeBundle) -> "Callable[[Task], Bundle]":
    """A bundle with random weights for a task, made once; of several labels with a threshold for each."""
    from functools import cache

    from sentray.decision import Decision

    def make(task: Task) -> "Bundle":
        decision = Decision(thresholds=(0.4, 0.5, 0.6)) if task == "multilabel" else Decision()
        return make_bundle(TASK_LABELS[task], task=task, decision=decision)

    return cache(make)


@pytest.fixture(scope="session")
def make_reviews() -> MakeReviews:
    def make(count: int, seed: int = 0) -> list[str]:
        chance = random.Random(seed)
        return [" ".join(chance.choices([*WORDS, "zebra"], k=chance.randrange(1, 60))) for _ in range(count)]

    return make


InProcess = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="session")
def trains_in_process() -> InProcess:
    """Called, it has Ray Train's worker run in this process, alone."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        from sentray.training import trainer

        monkeypatch.setattr(trainer, "DataParallelTrainer", InProcessTrainer)

    return patch


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, trains_in_process: InProcess) -> Callable[[], None]:
    """Called, it has the rest of the test train in this process."""
    return lambda: trains_in_process(monkeypatch)


@pytest.fixture(scope="session")
def stars(ray_session: None, trains_in_process: InProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that knows a good film from a bad one: labels neg and pos, trained by the Python API."""
    import pyarrow as pa

    import sentray

    words = {"pos": "a great and moving film", "neg": "an awful and boring film"}
    rows = [{"text": f"{words[label]} {number}", "label": label} for number in range(200) for label in words]
    out = tmp_path_factory.mktemp("stars") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        trains_in_process(patch)
        # Of so many rows alike each epoch helps, and what is measured of them is no matter.
        kept = {"test_fraction": 0.1, "validation_fraction": 0}
        sentray.train(pa.Table.from_pylist(rows), out=str(out), cleaning="reviews", epochs=4, **kept)
    return out


class Raylets:
    """A Ray cluster of three raylets with a CPU each, and more or fewer of them later.

    Attributes:
        address: Of its head.
        client: Environment of a process that may reach it.
        processes: Of the raylets, the head's first; a driver connects to the head's.
        count: How many there were at first.
    """

    def __init__(self) -> None:
        self.client = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.client |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        # Ray's own switch for staying on the loopback address; a lost raylet is missed after 5 s and not after 15.
        self.client |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_health_check_period_ms": "1000"}
        # A process for each group of training workers, which would look whether their machines are to be taken away.
        self.client |= {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
        self._holder = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("raylets.py")],
            env=self.client,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started = json.loads(self._answer())
        self.address: str = started["address"]
        self.processes: list[int] = started["processes"]
        self.count = len(self.processes)

    def sentray(self, *words: object) -> list[str]:
        """The command that does something on this cluster, to be run with the environment `client`."""
        return [sys.executable, "-m", "sentray", *map(str, words), "--address", self.address]

    def alone(self, folder: Path, *words: object) -> "subprocess.CompletedProcess[str]":
        """Run sentray where a folder is a disk of its own, which the nodes do not see; in it lies a file in.csv."""
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            pytest.skip("this user may not mount anything")
        script = 'mount -t tmpfs tmpfs "$0" && printf "id,text,label\n1,good,1\n2,bad,0\n" > "$0/in.csv" && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, str(folder), *self.sentray(*words)]
        return subprocess.run(command, env=self.client, capture_output=True, text=True, timeout=120)

    def kill(self) -> None:
        """Lose the machine that came last: the raylet, and with it all that it runs."""
        os.kill(self.processes.pop(), signal.SIGKILL)

    def add(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.write("\n")
        self._holder.stdin.flush()
        self.processes.append(int(self._answer()))

    def close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(timeout=60)

    def _answer(self) -> str:
        assert self._holder.stdout is not None
        return self._holder.stdout.readline()


@pytest.fixture(scope="session")
def raylets_of_session() -> Iterator[Raylets]:
    raylets = Raylets()
    try:
        yield raylets
    finally:
        raylets.close()


@pytest.fixture
def raylets(raylets_of_session: Raylets) -> Iterator[Raylets]:
    """Three raylets for each test, of a cluster that all tests share."""
    yield raylets_of_session
    while len(raylets_of_session.processes) < raylets_of_session.count:
        raylets_of_session.add()
