"""`BASELINES`: sentray and what else predicts sentiment; `measure` takes their time on the same texts."""

import operator
import random
import string
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import bundle, models
from sentray.errors import SentrayError
from sentray.inference.networks import load_network
from sentray.inference.scorer import Scorer
from sentray.text.vocabulary import Vocabulary

CHUNK_ROWS = 8_000
SECONDS = 5.0
"""A baseline predicts chunk after chunk until this time is over or it has seen all texts."""

Predict = Callable[[list[str]], list[str]]
"""The labels of texts."""


Train = Callable[[list[str], list[str], str], Predict]
"""Learns from texts and their labels, or takes the bundle in a folder."""


def measure(train: Train, labelled: Path, sample: Path, source: str) -> dict[str, Any]:
    """Train a baseline in this process and time its predictions.

    Args:
        train: makes it.
        labelled: Parquet file with `text`, `label` and `split`.
        sample: Parquet file whose `text` to predict.
        source: folder of the bundle.

    Returns:
        `rows_per_s` of the chunk that other processes disturbed least, and `accuracy` on the test rows; that is None
        for a bundle that has other labels.
    """
    rows = pq.read_table(labelled, columns=["text", "label", "split"])
    known, test = (rows.filter(pc.equal(rows["split"], split)) for split in ("train", "test"))
    pairs = list(zip(known["text"].to_pylist(), known["label"].to_pylist(), strict=True))
    # An online learner forgets the first label where the second comes after it.
    random.Random(0).shuffle(pairs)
    predict = train([text for text, _ in pairs], [label for _, label in pairs], source)
    found, wanted = predict(test["text"].to_pylist()), test["label"].to_pylist()
    right = sum(map(operator.eq, found, wanted)) / len(wanted)
    speed = _speed(predict, pq.read_table(sample, columns=["text"])["text"].to_pylist())
    return {"rows_per_s": speed, "accuracy": right if set(found) <= set(wanted) else None}


def _speed(predict: Predict, texts: list[str]) -> float:
    rates, total = [], 0.0
    for start in range(0, len(texts), CHUNK_ROWS):
        chunk = texts[start : start + CHUNK_ROWS]
        began = time.perf_counter()
        predict(chunk)
        seconds = time.perf_counter() - began
        rates.append(len(chunk) / seconds)
        total += seconds
        if total > SECONDS:
            break
    return max(rates)


def _sentray(_: list[str], __: list[str], source: str) -> Predict:
    scorer = Scorer(bundle.load(source), threads=1)
    labels = np.array(scorer.bundle.labels)

    def predict(texts: list[str]) -> list[str]:
        return list(labels[scorer.score(pa.array(texts, pa.large_string())).classes])

    return predict


def _tutorial(_: list[str], __: list[str], source: str) -> Predict:
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

    return predict


def _scikit_learn(texts: list[str], labels: list[str], _: str) -> Predict:
    """TF-IDF and logistic regression, both with the library's defaults but a weaker regularisation."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10.0)).fit(texts, labels)
    return lambda texts: list(model.predict(texts))


def _fasttext(texts: list[str], labels: list[str], _: str) -> Predict:
    """FastText's classifier, which splits a line at white space."""
    import fasttext

    def line(text: str) -> str:
        return text.replace("\n", " ")

    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.writelines(f"__label__{label} {line(text)}\n" for text, label in zip(texts, labels, strict=True))
        file.flush()
        model = fasttext.train_supervised(file.name, epoch=25, lr=0.5, thread=1, verbose=0)

    def predict(texts: list[str]) -> list[str]:
        return [labels[0].removeprefix("__label__") for labels in model.predict(list(map(line, texts)))[0]]

    return predict


BASELINES: dict[str, Train] = {
    "the tutorial's path: clean_doc, Keras padding, model.predict": _tutorial,
    "scikit-learn: TF-IDF, logistic regression": _scikit_learn,
    "fastText: predict": _fasttext,
    "sentray: predict": _sentray,
}
"""By their names for the user; the first is what the others are compared with."""
