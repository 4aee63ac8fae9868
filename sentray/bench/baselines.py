"""`BASELINES`: what else predicts sentiment, on the same texts and one core; each is measured in its own process."""

import importlib.util
import operator
import random
import string
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import bundle, models
from sentray.bench import processes
from sentray.errors import SentrayError
from sentray.inference.networks import load_network
from sentray.text.vocabulary import Vocabulary

CHUNK_ROWS = 8_000
SECONDS = 5.0
"""A baseline predicts chunk after chunk until this time is over or it has seen all texts."""


@dataclass(frozen=True)
class Model:
    """A model that has learnt.

    Attributes:
        predict: a label for each text; it alone is timed.
        prepare: the texts as `predict` takes them: where it wants tokens, they are given.
    """

    predict: Callable[[Any], list[str]]
    prepare: Callable[[list[str]], Any] = list


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


def measure(baseline: Baseline, labelled: Path, sample: Path, source: str) -> Measured:
    """Train and time a baseline on one core; why not, where it cannot be.

    Args:
        baseline: which.
        labelled: Parquet file with `text`, `label` and `split`.
        sample: Parquet file whose `text` to predict.
        source: folder of the bundle whose network the tutorial's path runs.
    """
    if importlib.util.find_spec(baseline.module) is None:
        return Measured(note="not installed; pip install 'sentray[bench]'")
    try:
        with processes.on_cores(1):
            return processes.run(baseline.title, train_and_predict, baseline, labelled, sample, source)  # type: ignore[no-any-return]
    except SentrayError as error:
        return Measured(note=str(error))


def _tutorial(_: list[str], __: list[str], ___: Path, source: str) -> Model:
    """The tutorial's own path: `clean_doc` in Python, Keras's encoding and padding, `model.predict`."""
    models.prepare_tensorflow(1)
    import keras
    import tensorflow as tf

    loaded = bundle.load(source)
    vocabulary, labels = loaded.vocabulary, loaded.labels
    if not isinstance(vocabulary, Vocabulary):
        raise SentrayError(f"{source} hashes its words, which the tutorial's path cannot; give another --bundle")
    network, known = load_network(loaded), set(vocabulary.words)
    tokenizer = tf.keras.preprocessing.text.Tokenizer()
    tokenizer.word_index = vocabulary.ids

    def clean_doc(document: str) -> str:
        tokens = document.split()
        table = str.maketrans("", "", string.punctuation)
        tokens = [word.translate(table) for word in tokens]
        return " ".join([word for word in tokens if word in known])

    def predict(texts: list[str]) -> list[str]:
        encoded = tokenizer.texts_to_sequences([clean_doc(text) for text in texts])
        padded = keras.utils.pad_sequences(encoded, maxlen=loaded.spec.max_length, padding="post")
        output = network.predict(padded, verbose=0)
        classes = output[:, 0] > 0.5 if output.shape[1] == 1 else output.argmax(axis=1)
        return [labels[index] for index in classes.astype(int)]

    return Model(predict)


def _scikit_learn(texts: list[str], labels: list[str], *_: Any) -> Model:
    """TF-IDF and logistic regression, both with the library's defaults but a weaker regularisation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10.0)).fit(texts, labels)
    return Model(lambda texts: list(model.predict(texts)))


def _fasttext(texts: list[str], labels: list[str], scratch: Path, _: str) -> Model:
    """FastText's classifier; it is given tokens and splits them at white space."""
    import fasttext

    lines = [f"__label__{label} {_tokens(text)}\n" for text, label in zip(texts, labels, strict=True)]
    file = _written(scratch / "train.txt", lines)
    model = fasttext.train_supervised(str(file), epoch=25, lr=0.5, thread=1, verbose=0)

    def predict(lines: list[str]) -> list[str]:
        return [labels[0].removeprefix("__label__") for labels in model.predict(lines)[0]]

    return Model(predict, lambda texts: list(map(_tokens, texts)))


def _vowpal_wabbit(texts: list[str], labels: list[str], scratch: Path, _: str) -> Model:
    """Logistic regression on hashed words; it reads a text file of tokens and writes a text file, its fastest way."""
    from vowpalwabbit import Workspace

    names, escapes = sorted(set(labels)), str.maketrans(":|", "  ")

    def line(text: str) -> str:
        return f"| {_tokens(text).translate(escapes)}\n"

    def predict(data: Path) -> list[str]:
        found = scratch / "predictions.txt"
        read = f"--testonly --initial_regressor {scratch}/model --data {data}"
        Workspace(f"{read} --predictions {found} --quiet").finish()
        return [names[float(number) > 0] for number in found.read_text().splitlines()]

    signs = [2 * names.index(label) - 1 for label in labels]
    data = _written(scratch / "train.txt", [f"{sign} {line(text)}" for sign, text in zip(signs, texts, strict=True)])
    files = f"--data {data} --cache_file {scratch}/cache --final_regressor {scratch}/model"
    options = "--loss_function logistic --bit_precision 20 --passes 20 --holdout_off --kill_cache --quiet"
    Workspace(f"{files} {options}").finish()
    return Model(predict, lambda texts: _written(scratch / "texts.txt", map(line, texts)))


def _tokens(text: str) -> str:
    return " ".join(text.split())


def _written(file: Path, lines: Iterable[str]) -> Path:
    file.write_text("".join(lines), encoding="utf-8")
    return file


BASELINES = (
    Baseline("tutorial", "the tutorial's path: clean_doc, Keras padding, model.predict", "keras", _tutorial),
    Baseline("sklearn", "scikit-learn: TF-IDF, logistic regression", "sklearn", _scikit_learn),
    Baseline("fasttext", "fastText: predict on tokens", "fasttext", _fasttext),
    Baseline("vowpal_wabbit", "Vowpal Wabbit: text file to text file", "vowpalwabbit", _vowpal_wabbit),
)


def train_and_predict(baseline: Baseline, labelled: Path, sample: Path, source: str) -> Measured:
    """Train a baseline and time its predictions; see `measure`."""
    rows = pq.read_table(labelled, columns=["text", "label", "split"])
    train, test = (rows.filter(pc.equal(rows["split"], split)) for split in ("train", "test"))
    pairs = list(zip(train["text"].to_pylist(), train["label"].to_pylist(), strict=True))
    # An online learner forgets the first label where the second comes after it.
    random.Random(0).shuffle(pairs)
    texts = pq.read_table(sample, columns=["text"])["text"].to_pylist()
    with tempfile.TemporaryDirectory() as scratch:
        model = baseline.train([text for text, _ in pairs], [label for _, label in pairs], Path(scratch), source)
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
