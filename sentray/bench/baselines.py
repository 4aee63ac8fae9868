"""`BASELINES`: what else predicts sentiment, on the same texts and one core; each is measured in its own process."""

import importlib.util
import operator
import random
import string
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray.bench import processes
from sentray.errors import SentrayError
from sentray.text.vocabulary import Vocabulary

CHUNK_ROWS = 8_000
SECONDS = 5.0
"""A baseline predicts chunk after chunk until this time is over or it has seen all texts."""


class Model(Protocol):
    """A model that has learnt; only `predict` is timed."""

    def prepare(self, texts: list[str]) -> Any:
        """The texts as `predict` takes them: where it wants tokens, they are given."""
        ...

    def predict(self, inputs: Any) -> list[str]:
        """A label for each text."""
        ...


@dataclass(frozen=True)
class Baseline:
    """Something to compare with.

    Attributes:
        key: what its figures' names end with.
        title: its name for the user, with what is timed.
        module: what must be importable for it.
        train: makes the model from training texts, their labels, a scratch folder and the bundle's path.
    """

    key: str
    title: str
    module: str
    train: Callable[[list[str], list[str], Path, str], Model]


@dataclass(frozen=True)
class Measured:
    """How a baseline did, or why there is nothing to compare with.

    Attributes:
        rows_per_s: texts a second on one core, of the chunk that other processes disturbed least.
        accuracy: share of the test rows that it labels right.
        note: why it was not measured, and the cure.
    """

    rows_per_s: float | None = None
    accuracy: float | None = None
    note: str = ""


def measure(baseline: Baseline, labelled: Path, sample: Path, bundle: str) -> Measured:
    """Train and time a baseline on one core; why not, where it cannot be.

    Args:
        baseline: which.
        labelled: Parquet file with `text`, `label` and `split`.
        sample: Parquet file whose `text` to predict.
        bundle: folder of the bundle whose network the tutorial's path runs.
    """
    if importlib.util.find_spec(baseline.module) is None:
        return Measured(note="not installed; pip install 'sentray[bench]'")
    try:
        with processes.on_cores(1):
            return processes.run(baseline.title, train_and_predict, baseline.key, labelled, sample, bundle)  # type: ignore[no-any-return]
    except SentrayError as error:
        return Measured(note=str(error))


class _Tutorial:
    """The tutorial's own path: `clean_doc` in Python, Keras's encoding and padding, `model.predict`."""

    def __init__(self, _: list[str], __: list[str], ___: Path, bundle: str) -> None:
        from sentray import models
        from sentray.bundle import load
        from sentray.inference.networks import load_network

        models.prepare_tensorflow(1)
        import keras
        import tensorflow as tf

        self._bundle = load(bundle)
        vocabulary = self._bundle.vocabulary
        if not isinstance(vocabulary, Vocabulary):
            raise SentrayError(f"{bundle} hashes its words, which the tutorial's path cannot; give another --bundle")
        self._known = set(vocabulary.words)
        self._model = load_network(self._bundle)
        self._pad = keras.utils.pad_sequences
        self._tokenizer = tf.keras.preprocessing.text.Tokenizer()
        self._tokenizer.word_index = vocabulary.ids

    def prepare(self, texts: list[str]) -> list[str]:
        return texts

    def predict(self, inputs: list[str]) -> list[str]:
        documents = [self._clean(text) for text in inputs]
        encoded = self._tokenizer.texts_to_sequences(documents)
        padded = self._pad(encoded, maxlen=self._bundle.spec.max_length, padding="post")
        output = self._model.predict(padded, verbose=0)
        classes = output[:, 0] > 0.5 if output.shape[1] == 1 else output.argmax(axis=1)
        return [self._bundle.labels[index] for index in classes.astype(int)]

    def _clean(self, document: str) -> str:
        tokens = document.split()
        table = str.maketrans("", "", string.punctuation)
        tokens = [word.translate(table) for word in tokens]
        return " ".join([word for word in tokens if word in self._known])


class _ScikitLearn:
    """TF-IDF and logistic regression, both with the library's defaults but a weaker regularisation."""

    def __init__(self, texts: list[str], labels: list[str], *_: Any) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        self._model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10.0)).fit(texts, labels)

    def prepare(self, texts: list[str]) -> list[str]:
        return texts

    def predict(self, inputs: list[str]) -> list[str]:
        return list(self._model.predict(inputs))


class _FastText:
    """FastText's classifier; it is given tokens and splits them at white space."""

    def __init__(self, texts: list[str], labels: list[str], scratch: Path, _: str) -> None:
        import fasttext

        file = scratch / "train.txt"
        lines = [f"__label__{label} {_tokens(text)}\n" for text, label in zip(texts, labels, strict=True)]
        file.write_text("".join(lines), encoding="utf-8")
        self._model = fasttext.train_supervised(str(file), epoch=25, lr=0.5, thread=1, verbose=0)

    def prepare(self, texts: list[str]) -> list[str]:
        return [_tokens(text) for text in texts]

    def predict(self, inputs: list[str]) -> list[str]:
        found, _ = self._model.predict(inputs)
        return [labels[0].removeprefix("__label__") for labels in found]


class _VowpalWabbit:
    """Logistic regression on hashed words; it reads a text file of tokens and writes a text file, its fastest way."""

    _ESCAPES = str.maketrans({":": " ", "|": " "})

    def __init__(self, texts: list[str], labels: list[str], scratch: Path, _: str) -> None:
        self._scratch = scratch
        self._labels = sorted(set(labels))
        signs = [2 * self._labels.index(label) - 1 for label in labels]
        data = self._write("train.txt", [f"{sign} {self._line(text)}" for sign, text in zip(signs, texts, strict=True)])
        options = "--loss_function logistic --bit_precision 20 --passes 20 --holdout_off --kill_cache"
        self._run(f"--data {data} --cache_file {scratch}/cache --final_regressor {scratch}/model {options}")

    def prepare(self, texts: list[str]) -> Path:
        return self._write("texts.txt", map(self._line, texts))

    def predict(self, inputs: Path) -> list[str]:
        found = self._scratch / "predictions.txt"
        self._run(f"--testonly --initial_regressor {self._scratch}/model --data {inputs} --predictions {found}")
        return [self._labels[float(line) > 0] for line in found.read_text().splitlines()]

    def _line(self, text: str) -> str:
        return f"| {_tokens(text).translate(self._ESCAPES)}\n"

    def _write(self, name: str, lines: Any) -> Path:
        file = self._scratch / name
        file.write_text("".join(lines), encoding="utf-8")
        return file

    @staticmethod
    def _run(arguments: str) -> None:
        from vowpalwabbit import Workspace

        Workspace(f"{arguments} --quiet").finish()


BASELINES = (
    Baseline("tutorial", "the tutorial's path: clean_doc, Keras padding, model.predict", "keras", _Tutorial),
    Baseline("sklearn", "scikit-learn: TF-IDF, logistic regression", "sklearn", _ScikitLearn),
    Baseline("fasttext", "fastText: predict on tokens", "fasttext", _FastText),
    Baseline("vowpal_wabbit", "Vowpal Wabbit: text file to text file", "vowpalwabbit", _VowpalWabbit),
)


def _tokens(text: str) -> str:
    return " ".join(text.split())


def train_and_predict(key: str, labelled: Path, sample: Path, bundle: str) -> Measured:
    """Train a baseline, by its key, and time its predictions; see `measure`."""
    rows = pq.read_table(labelled, columns=["text", "label", "split"])
    train, test = (rows.filter(pc.equal(rows["split"], split)) for split in ("train", "test"))
    pairs = list(zip(train["text"].to_pylist(), train["label"].to_pylist(), strict=True))
    # An online learner forgets the first label where the second comes after it.
    random.Random(0).shuffle(pairs)
    texts = pq.read_table(sample, columns=["text"])["text"].to_pylist()
    baseline = next(baseline for baseline in BASELINES if baseline.key == key)
    with tempfile.TemporaryDirectory() as scratch:
        model = baseline.train([text for text, _ in pairs], [label for _, label in pairs], Path(scratch), bundle)
        found = model.predict(model.prepare(test["text"].to_pylist()))
        wanted = test["label"].to_pylist()
        right = sum(map(operator.eq, found, wanted))
        # A bundle that the user gave may have other labels.
        comparable = set(found) <= set(wanted)
        return Measured(_speed(model, texts), right / len(found) if comparable else None)


def _speed(model: Model, texts: list[str]) -> float:
    rates, total = [], 0.0
    for start in range(0, len(texts), CHUNK_ROWS):
        chunk = texts[start : start + CHUNK_ROWS]
        inputs = model.prepare(chunk)
        began = time.perf_counter()
        model.predict(inputs)
        seconds = time.perf_counter() - began
        rates.append(len(chunk) / seconds)
        total += seconds
        if total > SECONDS:
            break
    return max(rates)
