import hashlib

import numpy as np
import pyarrow as pa
import pytest

from sentray.corpus.synthetic import SCHEMA, generate
from sentray.text.cleaning import clean, preset


@pytest.fixture(scope="module")
def reviews() -> pa.Table:
    return generate(0, 6000, seed=0)


def tokens(reviews: pa.Table) -> list[list[str]]:
    rules, _ = preset("reviews")
    return [clean(text, rules) for text in reviews["text"].to_pylist()]


def positive(reviews: pa.Table) -> np.ndarray:
    return np.array([label == "pos" for label in reviews["label"].to_pylist()])


def test_schema_and_ids(reviews: pa.Table) -> None:
    assert reviews.schema.equals(SCHEMA)
    assert reviews["id"][17].as_py() == "synthetic:17"
    assert generate(5, 5, 0).num_rows == 0


def test_any_range_gives_the_same_rows(reviews: pa.Table) -> None:
    parts = [generate(start, start + 7, seed=0) for start in range(100, 135, 7)]
    assert pa.concat_tables(parts).combine_chunks().equals(reviews[100:135].combine_chunks())


def test_same_rows_in_every_version(reviews: pa.Table) -> None:
    content = "\n".join(reviews["text"][:100].to_pylist() + reviews["label"][:100].to_pylist())
    assert hashlib.sha256(content.encode()).hexdigest()[:16] == "a727ec5c73864cc4"


def test_rows_and_seeds_differ(reviews: pa.Table) -> None:
    texts = reviews["text"].to_pylist() + generate(0, 1000, seed=1)["text"].to_pylist()
    assert len(set(texts)) == len(texts)


def test_balance_and_length(reviews: pa.Table) -> None:
    assert abs(positive(reviews).mean() - 0.5) < 0.03
    lengths = [len(text.split()) for text in reviews["text"].to_pylist()]
    assert 100 < np.mean(lengths) < 140
    assert min(lengths) > 30


def test_no_single_word_decides(reviews: pa.Table) -> None:
    labels = positive(reviews)
    rows_with: dict[str, list[int]] = {}
    for row, words in enumerate(tokens(reviews)):
        for word in set(words):
            rows_with.setdefault(word, []).append(row)
    best = 0.0
    for rows in rows_with.values():
        says = np.zeros(len(labels), bool)
        says[rows] = True
        agreement = (says == labels).mean()
        best = max(best, agreement, 1 - agreement)
    assert best < 0.58


def test_word_order_decides(reviews: pa.Table) -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import BernoulliNB

    def accuracy(longest: int) -> float:
        def grams(words: list[str]) -> list[str]:
            return [" ".join(words[at : at + n]) for n in range(1, longest + 1) for at in range(len(words))]

        counts = CountVectorizer(analyzer=grams, min_df=2).fit_transform(texts)
        model = BernoulliNB().fit(counts[:5000], labels[:5000])
        return model.score(counts[5000:], labels[5000:])

    texts, labels = tokens(reviews), positive(reviews)
    assert accuracy(1) < 0.75
    assert accuracy(2) > 0.85
