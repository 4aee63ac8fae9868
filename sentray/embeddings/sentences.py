"""A corpus as sentences for word2vec, cleaned in parallel: a line or a review each, in files that gensim reads."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa

from sentray.console import Console
from sentray.corpus.dataset import Corpus
from sentray.corpus.inspect import Inspection, inspect_block
from sentray.corpus.vocab import training_rows
from sentray.errors import SentrayError
from sentray.text.cleaning import CleaningRules, Tokenizer, tokenizer

Sentence = Literal["line", "review"]

FILE_WORDS = 100_000
"""Words of a file, about: so little that small corpora keep several threads busy and progress is seen."""
_PIECE_WORDS = 10_000

# Stands for the end of a line while a whole review is cleaned, since a tag may reach over several lines. Characters
# for private use, which no rule knows, in an order that no text has.
_LINE_END = "\ue000\ue001\ue000"


@dataclass
class Block:
    """Sentences of some reviews.

    Attributes:
        pieces: UTF-8, lines of words parted by spaces, some whole reviews each; and the number of their words.
        lines: sentences of the reviews, those without a word too.
        counts: how often each word occurs.
    """

    pieces: list[tuple[bytes, int]] = field(default_factory=list)
    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def sentences(texts: pa.Array | pa.ChunkedArray, rules: CleaningRules, sentence: Sentence = "line") -> Block:
    r"""The sentences of reviews: a review is one, or what stands between two `\n` is, and no other character ends it.

    A review's words are those that `clean` gives for its whole text, in the same order.

    Args:
        texts: `string` or `large_string`, without nulls.
        rules: the cleaning.
        sentence: what is one.
    """
    prepared, block = tokenizer(rules), Block()
    line_end = f" {_LINE_END} " if sentence == "line" else " "
    kept = _Kept(prepared)
    piece: list[str] = []
    for text in texts.to_pylist():
        tokens = prepared.split(text.removesuffix("\n").replace("\n", line_end))
        block.lines += tokens.count(_LINE_END) + 1
        piece += [word for token in tokens if (word := kept[token]) is not None]
        piece.append("\n")
        if len(piece) >= _PIECE_WORDS:
            _close(piece, block)
    _close(piece, block)
    return block


class _Kept(dict[str, str | None]):
    """The word that each token is kept as, remembered; for the end of a line, that of a line."""

    def __init__(self, prepared: Tokenizer) -> None:
        super().__init__({_LINE_END: "\n"})
        self._word = prepared.word

    def __missing__(self, token: str) -> str | None:
        word = self[token] = self._word(token)
        return word


def _close(piece: list[str], block: Block) -> None:
    """Move the words of a piece into the block."""
    words = len(piece) - piece.count("\n")
    if words:
        block.pieces.append((" ".join(piece).encode(), words))
        block.counts.update(piece)
        del block.counts["\n"]
    piece.clear()


class SentenceFiles:
    """Files of sentences in a folder, written piece after piece.

    Attributes:
        files: each file with the number of its words; about `FILE_WORDS`, and never less than half of it but for a
            single one.
        lines: sentences of the reviews, those without a word too.
        counts: how often each word occurs.

    Args:
        folder: where to write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[tuple[Path, int]] = []
        self.lines = 0
        self.counts: Counter[str] = Counter()

    def add(self, block: Block) -> None:
        """Write a block behind the others.

        Raises:
            SentrayError: the folder cannot be written.
        """
        self.lines += block.lines
        self.counts.update(block.counts)
        for content, words in block.pieces:
            if not self.files or self.files[-1][1] >= FILE_WORDS:
                self.files.append((self._folder / f"{len(self.files):06}.txt", 0))
            self._append(content, words)

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

    def work(table: pa.Table) -> tuple[Inspection, Block]:
        return inspect_block(table), sentences(training_rows(table)["text"], rules, sentence)

    inspection, written = Inspection(), SentenceFiles(folder)
    for part, block in corpus.map_blocks(work):
        inspection += part
        written.add(block)
        console.progress(f"reading: {inspection.rows:,} rows, {len(written.counts):,} distinct words")
    written.finish()
    return inspection, written
