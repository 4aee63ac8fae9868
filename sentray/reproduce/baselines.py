"""What the comparison sets sentray beside, on the same rows and texts: `measure` trains one and counts its hits.

NB-SVM is that of Wang & Manning (2012), "Baselines and Bigrams", fastText that of Joulin et al. (2017).
"""

import json
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentray.config import TrainSettings
from sentray.corpus.dataset import Corpus
from sentray.corpus.rows import label_order
from sentray.storage import write_text

Integers = NDArray[np.integer[Any]]
Predict = Callable[[list[str]], Integers]
"""Positions of the labels of texts."""
Fit = Callable[[list[str], Integers, int, int], Predict]
"""Learns from texts, the positions of their labels, how many labels there are, and a seed."""

BETA = 0.25
"""How far NB-SVM's weights are those that it learnt, and not their mean, as its authors have it."""

_TAG, _TOKEN = re.compile(r"<[^<>]*>"), re.compile(r"[\w']+|[^\w\s]+")


def measure(system: str, name: str, settings: TrainSettings, board: Any = None) -> dict[str, Any]:
    """Train a baseline on the rows that a training of sentray would take and test it on the same test rows.

    Args:
        system: Name of the baseline.
        name: Of this training, for the user.
        settings: Say which rows, the seed and, as `out`, where the result is kept, from which it is read another time.
        board: Handle of the actor of `shown_on`, or None.

    Returns:
        `test` with `accuracy` and `rows`, as `metrics.json` has them, and `seconds` of training.
    """
    file = Path(f"{settings.out}.json")
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    if board is not None:
        board.put.remote("progress", f"{name} trains")
    corpus = Corpus.plan(settings.corpus, settings)
    tables = [table for shard in corpus.shards for table in corpus.read(shard)]
    rows = pa.concat_tables(tables).filter(pc.is_null(pa.concat_tables(tables)["reason"]))
    train = rows.filter(pc.is_in(rows["split"], pa.array(["train", "validation"])))
    test = rows.filter(pc.equal(rows["split"], "test"))
    labels = pa.array(sorted(pc.unique(train["label"]).to_pylist(), key=label_order), pa.string())
    truth, wanted = (pc.index_in(part["label"], labels).fill_null(-1).to_numpy() for part in (train, test))
    started = time.perf_counter()
    predict = BASELINES[system].fit(_plain(train), truth, len(labels), settings.seed)
    seconds = time.perf_counter() - started
    accuracy = float(np.mean(predict(_plain(test)) == wanted))
    found = {"test": {"accuracy": accuracy, "rows": len(test)}, "seconds": seconds}
    write_text(str(file), json.dumps(found) + "\n")
    return found


def _plain(rows: pa.Table) -> list[str]:
    """Texts without tags, in lower case, with a space between words and runs of punctuation."""
    return [" ".join(_TOKEN.findall(_TAG.sub(" ", text).lower())) for text in rows["text"].to_pylist()]


def _nb_svm(most: int, texts: list[str], labels: Integers, classes: int, seed: int) -> Predict:
    """A linear SVM on n-grams' presence times their log-count ratios, one label against the others.

    Args:
        most: Words of the longest n-grams.
        texts: To learn from.
        labels: Of them.
        classes: How many labels there are.
        seed: Fixes the order of the coordinate descent.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.svm import LinearSVC

    vectorizer = CountVectorizer(
        binary=True, ngram_range=(1, most), lowercase=False, token_pattern=r"\S+", dtype=np.float32
    )
    present = vectorizer.fit_transform(texts)
    weights, biases = [], []
    for label in range(1, 2) if classes == 2 else range(classes):
        mine = labels == label
        counts = [1 + np.asarray(present[chosen].sum(axis=0)).ravel() for chosen in (mine, ~mine)]
        ratios = np.log(counts[0] / counts[0].sum()) - np.log(counts[1] / counts[1].sum())
        with warnings.catch_warnings():
            # It says that more iterations would fit the training rows better.
            warnings.simplefilter("ignore")
            svm = LinearSVC(C=1.0, random_state=seed).fit(present.multiply(ratios).tocsr(), mine)
        learnt = svm.coef_[0]
        weights.append(ratios * ((1 - BETA) * np.abs(learnt).mean() + BETA * learnt))
        biases.append(svm.intercept_[0] * BETA)
    matrix = np.array(weights, np.float32).T

    def predict(texts: list[str]) -> Integers:
        scores = vectorizer.transform(texts) @ matrix + biases
        found: Integers = (scores[:, 0] > 0).astype(np.int64) if classes == 2 else scores.argmax(axis=1)
        return found

    return predict


def _fasttext(texts: list[str], labels: Integers, classes: int, seed: int) -> Predict:
    """FastText's classifier with bigrams and vectors of 10 numbers, as in its paper, not tuned."""
    import fasttext

    order = np.random.default_rng(seed).permutation(len(texts))
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.writelines(f"__label__{labels[row]} {texts[row]}\n" for row in order)
        file.flush()
        model = fasttext.train_supervised(
            file.name, dim=10, wordNgrams=2, lr=0.5, epoch=10, thread=1, verbose=0, seed=seed
        )
    return lambda texts: np.array([int(found[0].removeprefix("__label__")) for found in model.predict(texts)[0]])


class Baseline:
    """What is compared.

    Args:
        fit: Learns.
        module: What it needs.
        seeded: Whether it depends on the seed.
    """

    def __init__(self, fit: Fit, module: str, seeded: bool) -> None:
        self.fit, self.module, self.seeded = fit, module, seeded

    @property
    def available(self) -> bool:
        """Whether what it needs is installed."""
        return find_spec(self.module) is not None


BASELINES: Mapping[str, Baseline] = {
    "nb-svm-bigrams": Baseline(partial(_nb_svm, 2), "sklearn", False),
    "nb-svm-trigrams": Baseline(partial(_nb_svm, 3), "sklearn", False),
    "fasttext-bigrams": Baseline(_fasttext, "fasttext", True),
}
