"""Small bundles with random weights, reviews to score with them, and a console that remembers."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray import bundle, models
from sentray.bundle import Bundle
from sentray.console import Console
from sentray.scoring.scorer import golden_texts
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary

WORDS = [
    "good",
    "bad",
    "film",
    "plot",
    "actor",
    "scene",
    "boring",
    "great",
    "never",
    "not",
    "but",
    "music",
    "slow",
    "fast",
    "naïve",
    "ending",
]
LENGTH = 40

MakeBundle = Callable[..., Bundle]
MakeReviews = Callable[..., list[str]]


class Recorder(Console):
    """A console that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.shown: list[str] = []

    def say(self, line: str = "") -> None:
        self.lines.append(line)

    def progress(self, line: str) -> None:
        self.shown.append(line)


@pytest.fixture
def console() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    def make(labels: tuple[str, ...] = ("neg", "pos"), seed: int = 0, length: int = LENGTH) -> Bundle:
        import keras

        folder = tmp_path_factory.mktemp("bundle")
        vocabulary = Vocabulary(WORDS)
        keras.utils.set_random_seed(seed)
        model = models.architecture("tutorial-cnn").build(vocabulary.size, length, len(labels))
        # Far larger weights than a new network's, so that the scores differ.
        model.layers[0].set_weights([np.random.default_rng(seed).normal(size=(vocabulary.size, 100))])
        model.save(folder / bundle.MODEL)
        made = bundle.write(
            folder,
            architecture="tutorial-cnn.v1",
            rules=preset("reviews")[0],
            vocabulary=vocabulary,
            labels=labels,
            max_length=length,
        )
        return bundle.update(made, golden=golden_texts(made, ["good film", "not a good film", ""]))

    return make


@pytest.fixture(scope="session")
def small_bundle(make_bundle: MakeBundle) -> Bundle:
    return make_bundle()


@pytest.fixture(scope="session")
def make_reviews() -> MakeReviews:
    def make(count: int, seed: int = 0) -> list[str]:
        chance = random.Random(seed)
        return [" ".join(chance.choices([*WORDS, "zebra"], k=chance.randrange(1, 60))) for _ in range(count)]

    return make


@pytest.fixture
def reviews(tmp_path: Path, make_reviews: MakeReviews) -> Path:
    """A folder of Parquet files, a shard each: 300 good rows and, in the middle one, four bad ones."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    texts: list[str | None] = list(make_reviews(300))
    for row, bad in ((150, None), (160, "  "), (170, ""), (180, None)):
        texts.insert(row, bad)
    for part, start in enumerate(range(0, len(texts), 76)):
        chunk = texts[start : start + 76]
        table = pa.table(
            {
                "id": [f"r{start + row}" for row in range(len(chunk))],
                "text": chunk,
                "label": [("neg", "pos")[row % 2] for row in range(len(chunk))],
                "rating": pa.array([row % 10 for row in range(len(chunk))], pa.int8()),
            }
        )
        pq.write_table(table, folder / f"part{part}.parquet")
    return folder
