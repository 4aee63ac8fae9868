"""A corpus as sentences for word2vec, cleaned in parallel: a line or a review each, in files that gensim reads."""

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from sentray.console import Console
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.inspect import Inspection, inspect_rows
from sentray.corpus.vocab import WordCounts, training_rows, words_table
from sentray.errors import SentrayError
from sentray.text.cleaning import CleaningRules, Tokenizer, tokenizer

Sentence = Literal["line", "review"]

FILE_WORDS = 100_000
"""Words of a file, about: so little that small corpora keep several threads busy and progress is seen."""
_PIECE_WORDS = 10_000

# Stands for the end of a line while a whole review is cleaned, since a tag may reach over several lines. Characters
# for private use, which no rule knows, in an order that no text has.
_LINE_END = "\ue000\ue001\ue000"


PIECES_SCHEMA = pa.schema([pa.field("lines", pa.large_string()), pa.field("words", pa.int64())])
"""Some whole reviews in a row: lines of words parted by spaces, and the number of their words."""


def sentences(texts: pa.Array | pa.ChunkedArray, rules: CleaningRules, sentence: Sentence = "line") -> Tables:
    r"""The sentences of reviews: a review is one, or what stands between two `\n` is, and no other character ends it.

    A review's words are those that `clean` gives for its whole text, in the same order.

    Args:
        texts: `string` or `large_string`, without nulls.
        rules: the cleaning.
        sentence: what is one.

    Returns:
        `pieces` of `PIECES_SCHEMA`; `words` of `WORDS_SCHEMA`, how often each occurs; and `sentences` with one value
        `count`, of sentences with or without a word.
    """
    prepared = tokenizer(rules)
    line_end = f" {_LINE_END} " if sentence == "line" else " "
    kept = _Kept(prepared)
    counts: Counter[str] = Counter()
    lines: list[str] = []
    words: list[int] = []
    piece: list[str] = []
    total = 0

    def close() -> None:
        if in_piece := len(piece) - piece.count("\n"):
            lines.append(" ".join(piece))
            words.append(in_piece)
            counts.update(piece)
        piece.clear()

    for text in texts.to_pylist():
        tokens = prepared.split(text.removesuffix("\n").replace("\n", line_end))
        total += tokens.count(_LINE_END) + 1
        piece += [word for token in tokens if (word := kept[token]) is not None]
        piece.append("\n")
        if len(piece) >= _PIECE_WORDS:
            close()
    close()
    del counts["\n"]
    return {
        "pieces": pa.table([lines, words], schema=PIECES_SCHEMA),
        "words": words_table(counts),
        "sentences": pa.table({"count": [total]}),
    }


class _Kept(dict[str, str | None]):
    """The word that each token is kept as, remembered; for the end of a line, that of a line."""

    def __init__(self, prepared: Tokenizer) -> None:
        super().__init__({_LINE_END: "\n"})
        self._word = prepared.word

    def __missing__(self, token: str) -> str | None:
        word = self[token] = self._word(token)
        return word


class SentenceFiles:
    """Files of sentences in a folder, written piece after piece.

    Attributes:
        files: each file with the number of its words; about `FILE_WORDS`, and never less than half of it but for a
            single one.
        lines: sentences of the reviews, those without a word too.

    Args:
        folder: where to write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[tuple[Path, int]] = []
        self.lines = 0
        self._counts = WordCounts()

    @cached_property
    def counts(self) -> Counter[str]:
        """How often each word occurs, once all are added."""
        return self._counts.total()

    def add(self, found: Tables) -> None:
        """Write what `sentences` gave behind the others.

        Raises:
            SentrayError: the folder cannot be written.
        """
        self.lines += pc.sum(found["sentences"]["count"]).as_py()
        self._counts.add(found["words"])
        for content, words in zip(*(column.to_pylist() for column in found["pieces"].columns), strict=True):
            if not self.files or self.files[-1][1] >= FILE_WORDS:
                self.files.append((self._folder / f"{len(self.files):06}.txt", 0))
            self._append(content.encode(), words)

    def finish(self) -> None:
        """Put a last file that is small behind the one before."""
        if len(self.files) > 1 and self.files[-1][1] < FILE_WORDS / 2:
            last, words = self.files.pop()
            self._append(last.read_bytes(), words)
            last.unlink()

    def _append(self, content: bytes, words: int) -> None:
        path, before = self.files[-1]
        try:
            with path.open("ab") as stream:
                stream.write(content)
        except OSError as error:
            raise SentrayError(
                f"the sentences cannot be written to {self._folder} ({error.strerror}): they take about as much room "
                "as the corpus; make room or choose another --out"
            ) from error
        self.files[-1] = path, before + words


def write_sentences(
    corpus: Corpus, rules: CleaningRules, sentence: Sentence, folder: Path, console: Console
) -> tuple[Inspection, SentenceFiles]:
    """Clean a corpus's usable training reviews, labelled or not, in one parallel pass, in the input's order.

    Args:
        corpus: the reviews.
        rules: the cleaning.
        sentence: what is one.
        folder: for the files; local to this process.
        console: for the progress.

    Raises:
        SentrayError: a file of the corpus cannot be read, or the folder cannot be written.
    """
    inspection, written = Inspection(), SentenceFiles(folder)
    for found in corpus.map_blocks(clean_and_cut, rules=rules, sentence=sentence):
        inspection += Inspection.of(found)
        written.add(found)
        console.progress(f"reading: {inspection.rows:,} rows")
    written.finish()
    return inspection, written


def clean_and_cut(rows: pa.Table, rules: CleaningRules, sentence: Sentence) -> Tables:
    """A stage: `inspect_rows`, and the `sentences` of the training reviews."""
    return {**inspect_rows(rows), **sentences(training_rows(rows)["text"], rules, sentence)}
