"""A corpus as sentences for word2vec, cleaned in parallel: a line or a review each, in one file."""

import functools
from collections import Counter
from typing import IO, Literal

import pyarrow as pa
import pyarrow.compute as pc

from sentray.console import Console
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.inspect import Inspection, inspect_rows
from sentray.corpus.vocab import WordCounts, training_rows, words_table
from sentray.errors import SentrayError
from sentray.text.cleaning import CleaningRules, tokenizer

Sentence = Literal["line", "review"]

# Stands for the end of a line while a whole review is cleaned, since a tag may reach over several lines. Characters
# for private use, which no rule knows, in an order that no text has.
_LINE_END = "\ue000\ue001\ue000"


def sentences(texts: pa.Array | pa.ChunkedArray, rules: CleaningRules, sentence: Sentence = "line") -> Tables:
    r"""The sentences of reviews: a review is one, or what stands between two `\n` is, and no other character ends it.

    A review's words are those that `clean` gives for its whole text, in the same order.

    Args:
        texts: `string` or `large_string`, without nulls.
        rules: the cleaning.
        sentence: what is one.

    Returns:
        `sentences` with the column `words`, each sentence's words parted by spaces, also where there is none; and
        `words` of `WORDS_SCHEMA`, how often each occurs.
    """
    prepared = tokenizer(rules)
    line_end = f" {_LINE_END} " if sentence == "line" else " "
    found: list[str] = []

    @functools.cache
    def kept(token: str) -> str | None:
        return "\n" if token == _LINE_END else prepared.word(token)

    for text in texts.to_pylist():
        tokens = prepared.split(text.removesuffix("\n").replace("\n", line_end))
        words = " ".join(word for token in tokens if (word := kept(token)) is not None)
        found += (line.strip(" ") for line in words.split("\n"))
    counts = Counter(word for line in found for word in line.split(" ") if word)
    return {"sentences": pa.table({"words": pa.array(found, pa.large_string())}), "words": words_table(counts)}


def write_sentences(
    corpus: Corpus, rules: CleaningRules, sentence: Sentence, file: IO[bytes], console: Console
) -> tuple[Inspection, Counter[str], int]:
    """Clean a corpus's usable training reviews, labelled or not, in one parallel pass, in the input's order.

    Args:
        corpus: the reviews.
        rules: the cleaning.
        sentence: what is one.
        file: for the sentences that have a word, one a line.
        console: for the progress.

    Returns:
        The rows of the corpus; how often each word occurs; and how many sentences there are, with or without a word.

    Raises:
        SentrayError: a file of the corpus cannot be read, or the sentences cannot be written.
    """
    inspection, counts, lines = Inspection(), WordCounts(), 0
    for found in corpus.map_blocks(clean_and_cut, rules=rules, sentence=sentence):
        inspection += Inspection.of(found)
        counts.add(found["words"])
        lines += found["sentences"].num_rows
        words = found["sentences"]["words"]
        content = "".join(f"{line}\n" for line in words.filter(pc.not_equal(words, "")).to_pylist())
        try:
            file.write(content.encode())
        except OSError as error:
            raise SentrayError(
                f"the sentences cannot be written beside --out ({error.strerror}): they take about as much room as the "
                "corpus; make room or choose another --out"
            ) from error
        console.progress(f"reading: {inspection.rows:,} rows")
    return inspection, counts.total(), lines


def clean_and_cut(rows: pa.Table, rules: CleaningRules, sentence: Sentence) -> Tables:
    """A stage: `inspect_rows`, and the `sentences` of the training reviews and of those that are for no label."""
    texts = training_rows(rows, ("train", "unsup"))["text"]
    return {**inspect_rows(rows), **sentences(texts, rules, sentence)}
