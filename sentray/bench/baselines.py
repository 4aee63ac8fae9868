"""`BASELINES`: what else predicts sentiment, beside `sentray`; `measure` takes their time on the same texts."""

import operator
import os
import random
import string
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import bundle, models
from sentray.errors import SentrayError
from sentray.inference.heaviest import Heaviest
from sentray.inference.networks import load_network
from sentray.inference.scorer import Scorer
from sentray.text.vocabulary import Vocabulary
from sentray.words import bundle_vectors

CHUNK_ROWS = 8_000
SECONDS = 5.0
"""A baseline predicts chunk after chunk until this time is over or it has seen all texts."""

Predict = Callable[[list[str]], list[str]]
"""The labels of texts."""


Train = Callable[[list[str], list[str], str], Predict]
"""Learns from texts and their labels, or takes the bundle in a folder."""


def measure(train: Train, labelled: Path, samples: Mapping[str, Path], source: str) -> dict[str, Any]:
    """Train a baseline in this process and time its predictions.

    Args:
        train: makes it.
        labelled: Parquet file with `text`, `label` and `split`.
        samples: Parquet files whose `text` to predict, by names.
        source: folder of the bundle.

    Returns:
        By each sample's name the rows a second of the chunk that other processes disturbed least, and `accuracy` on the
        test rows; that is None for a bundle that has other labels.
    """
    rows = pq.read_table(labelled, columns=["text", "label", "split"])
    known, test = (rows.filter(pc.equal(rows["split"], split)) for split in ("train", "test"))
    pairs = list(zip(known["text"].to_pylist(), known["label"].to_pylist(), strict=True))
    # An online learner forgets the first label where the second comes after it.
    random.Random(0).shuffle(pairs)
    predict = train([text for text, _ in pairs], [label for _, label in pairs], source)
    found, wanted = predict(test["text"].to_pylist()), test["label"].to_pylist()
    right = sum(map(operator.eq, found, wanted)) / len(wanted)
    texts = {name: pq.read_table(file, columns=["text"])["text"].to_pylist() for name, file in samples.items()}
    speeds = {name: _speed(predict, sample) for name, sample in texts.items()}
    return {**speeds, "accuracy": right if set(found) <= set(wanted) else None}


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


def sentray(_: list[str], __: list[str], source: str, explain: int = 0) -> Predict:
    """The bundle in this process; where wanted it also finds so many words that moved each score most."""
    scorer = Scorer(bundle.load(source), threads=1)
    labels = np.array(scorer.bundle.labels)
    heaviest = Heaviest(scorer, explain) if explain else None

    def predict(texts: list[str]) -> list[str]:
        column = pa.array(texts, pa.large_string())
        return list(labels[(heaviest.score(column)[0] if heaviest else scorer.score(column)).decided])

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


def _lines(texts: list[str]) -> list[str]:
    """Texts as fastText takes them, which splits a line at white space."""
    return [text.replace("\n", " ") for text in texts]


def _trained_fasttext(texts: list[str], labels: list[str]) -> Any:
    import fasttext

    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as file:
        file.writelines(f"__label__{label} {text}\n" for text, label in zip(_lines(texts), labels, strict=True))
        file.flush()
        return fasttext.train_supervised(file.name, epoch=25, lr=0.5, wordNgrams=2, thread=1, verbose=0)


def _fasttext(texts: list[str], labels: list[str], _: str) -> Predict:
    """FastText's classifier with bigrams."""
    model = _trained_fasttext(texts, labels)
    return lambda texts: [found[0].removeprefix("__label__") for found in model.predict(_lines(texts))[0]]


def _fastertext(texts: list[str], labels: list[str], _: str) -> Predict:
    """The same model, predicted by a library in Rust."""
    import fastertext

    trained = _trained_fasttext(texts, labels)
    with tempfile.TemporaryDirectory() as folder:
        trained.save_model(f"{folder}/model.bin")
        model = fastertext.load_model(f"{folder}/model.bin")
    names = {number: name.removeprefix("__label__") for number, name in model.get_labels().items()}
    return lambda texts: [names[found] for found in model.batch(_lines(texts), k=1)[0][:, 0].tolist()]


def _model2vec(texts: list[str], labels: list[str], source: str) -> Predict:
    """Model2vec's encoder before a logistic regression.

    Its own vectors are of a model that was pretrained on other text; these are the bundle's, found by whole words.
    """
    from model2vec import StaticModel
    from sklearn.linear_model import LogisticRegression
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import Lowercase
    from tokenizers.pre_tokenizers import Whitespace

    # One core.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    vectors = bundle_vectors(bundle.load(source))
    ids = {"[UNK]": 0} | {word: number for number, word in enumerate(vectors.words, 1)}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = Lowercase(), Whitespace()
    rows = np.vstack([np.zeros_like(vectors.rows[:1]), vectors.rows])
    encode = partial(StaticModel(rows, tokenizer, normalize=True, max_length=None).encode, use_multiprocessing=False)

    model = LogisticRegression(C=10.0, max_iter=1000).fit(encode(texts), labels)
    return lambda texts: list(model.predict(encode(texts)))


BASELINES: dict[str, Train] = {
    "the tutorial's path: clean_doc, Keras padding, model.predict": _tutorial,
    "scikit-learn: TF-IDF, logistic regression": _scikit_learn,
    "fastText, bigrams: predict": _fasttext,
    "fastertext, bigrams: batch": _fastertext,
    "model2vec: encode, logistic regression": _model2vec,
}
"""By their names for the user; the first is what the others are compared with."""
