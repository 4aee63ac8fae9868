"""`Encoder`: from texts to ids; `pad`: from ids to the padded matrix that a network takes."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sentray.text import kernel
from sentray.text.characters import characters
from sentray.text.cleaning import CleaningRules, without_html
from sentray.text.hashing import HashedWords, Words
from sentray.text.segment import require_segmenter, segmented
from sentray.text.table import table
from sentray.text.unicode_words import unicode_words
from sentray.text.vocabulary import Vocabulary

Truncating = Literal["pre", "post"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """The ids of n reviews, review after review.

    Attributes:
        ids: int32[total], never 0 (padding).
        offsets: int64[n + 1]; review i has `ids[offsets[i]:offsets[i + 1]]`.
        words: int32[n], words that cleaning kept, in the vocabulary or not.
        known: int32[n], those of them in the vocabulary; all of them where words are hashed.
        spaced: int32[n], words of the texts as they are, which white space separates.
        numbers: float32[n, columns], standardised numbers besides the texts; None where there are none.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    words: npt.NDArray[np.int32]
    known: npt.NDArray[np.int32]
    spaced: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.words)

    def rows(self, start: int, stop: int) -> "Encoded":
        """Some of the reviews, with the same memory."""
        some = slice(start, stop)
        offsets = self.offsets[start : min(stop, len(self)) + 1]
        numbers = None if self.numbers is None else self.numbers[some]
        return Encoded(self.ids, offsets, self.words[some], self.known[some], self.spaced[some], numbers)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[n]: ids a review has."""
        return np.diff(self.offsets)


class Encoder:
    """Cleans texts and gives their words ids.

    Args:
        rules: the cleaning.
        words: the ids. A vocabulary's `unknown` says whether other words are left out or share an id.
    """

    def __init__(self, rules: CleaningRules, words: Words) -> None:
        require_segmenter(rules.segment)
        self._rules, self._words = rules, words
        listed = words.words if isinstance(words, Vocabulary) else []
        codes = np.concatenate([np.zeros(len(rules.stop_words), np.int64), np.arange(1, len(listed) + 1)])
        self._table = table([*rules.stop_words, *listed], codes, sparse=isinstance(words, HashedWords))
        self._unknown_id = words.unknown_id if isinstance(words, Vocabulary) else 0

    def encode(self, texts: pa.Array | pa.ChunkedArray) -> Encoded:
        """Encode texts, `string` or `large_string`; a null has no words."""
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.chunk(0) if texts.num_chunks == 1 else texts.cast(pa.large_string()).combine_chunks()
        if self._rules.segment:
            texts = pa.array([segmented(text or "") for text in texts.to_pylist()], pa.large_string())
        encoded = self._encode(texts, self._rules)
        if isinstance(self._words, HashedWords):
            return replace(encoded, ids=self._words.ids_of(encoded.ids))
        return encoded

    def _encode(self, texts: pa.Array, rules: CleaningRules) -> Encoded:
        """As `encode`, of one array by other rules, and with codes instead of ids where words are hashed."""
        data, offsets = _buffers(texts)
        count = len(texts)
        # A word takes a byte or more, and but for Unicode words another separates it from the next.
        most = len(data) if rules.punctuation == "words" else (len(data) + count) // 2 + 1
        ids = np.empty(most, np.int32)
        ends = np.empty(count + 1, np.int64)
        words, known, spaced = (np.empty(count, np.int32) for _ in range(3))
        whole = np.empty(count, np.bool_)
        kernel.encode_rows(
            data,
            offsets,
            kernel.rule_bits(rules, self._words.unknown == "share", isinstance(self._words, HashedWords)),
            rules.min_token_length,
            characters(rules),
            self._table,
            self._unknown_id,
            ids,
            ends,
            words,
            known,
            spaced,
            whole,
        )
        encoded = Encoded(ids[: ends[-1]], ends, words, known, spaced)
        rows = np.flatnonzero(whole)
        return self._with_whole(encoded, texts, rows, rules) if len(rows) else encoded

    def _with_whole(
        self, encoded: Encoded, texts: pa.Array, rows: npt.NDArray[np.int64], rules: CleaningRules
    ) -> Encoded:
        """Insert the rows that need a rule which looks at the whole text: the reference applies it."""
        raw = texts.take(pa.array(rows)).to_pylist()
        applied: dict[str, object] = {"strip_html": False}
        if rules.strip_html:
            done = [without_html(text) for text in raw]
        elif rules.punctuation == "words":
            segmented = rules.segment is not None
            done = [" ".join(unicode_words(text, rules.lowercase, segmented)) for text in raw]
            applied |= {"lowercase": False, "punctuation": "keep"}
        else:
            done = [text.lower() for text in raw]
            applied |= {"lowercase": False}
        rest = self._encode(pa.array(done, pa.large_string()), rules.model_copy(update=applied))
        lengths, words, known, spaced = encoded.lengths, encoded.words, encoded.known, encoded.spaced
        lengths[rows], words[rows], known[rows] = rest.lengths, rest.words, rest.known
        spaced[rows] = [len(text.split()) for text in raw]
        between = np.split(encoded.ids, encoded.offsets[rows])
        inserted = [*np.split(rest.ids, rest.offsets[1:-1]), rest.ids[:0]]
        ids = [part for pair in zip(between, inserted, strict=True) for part in pair]
        return Encoded(np.concatenate(ids), _offsets(lengths), words, known, spaced)


def cut(
    offsets: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], length: int, truncating: Truncating
) -> Iterator[slice]:
    """Where the ids of some reviews lie, and of a longer one `length` of them.

    `pre` keeps the end of a long review (as Keras does unless told), `post` its beginning.
    """
    starts, stops = offsets[rows], offsets[rows + 1]
    if truncating == "pre":
        starts = np.maximum(starts, stops - length)
    else:
        stops = np.minimum(stops, starts + length)
    return map(slice, starts.tolist(), stops.tolist())


def cut_from(
    encoded: Encoded, length: int, truncating: Truncating
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the ids of each review begin that are left of it, and how many these are, int64 [n] each; see `cut`."""
    lengths = np.minimum(encoded.lengths, length)
    return (encoded.offsets[1:] - lengths if truncating == "pre" else encoded.offsets[:-1]), lengths


def cut_all(
    encoded: Encoded, length: int, truncating: Truncating
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Ids of reviews, int32[total], and where each begins and the last ends, int64[n + 1]; longer reviews are `cut`."""
    begins, lengths = cut_from(encoded, length, truncating)
    offsets = _offsets(lengths)
    if offsets[-1] == len(encoded.ids):
        return encoded.ids, encoded.offsets
    return encoded.ids[np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], lengths)], offsets


def pad(encoded: Encoded, rows: Iterable[int], length: int, truncating: Truncating = "pre") -> npt.NDArray[np.int32]:
    """Reviews as a matrix: shorter ones are filled with 0 at the end, longer ones `cut`.

    Args:
        encoded: the reviews.
        rows: which of them, m of 0 to n - 1.
        length: columns of the result.
        truncating: see `cut`.

    Returns:
        int32[m, length].
    """
    where = cut(encoded.offsets, np.fromiter(rows, np.int64), length, truncating)
    reviews = [encoded.ids[each] for each in where]
    matrix = np.zeros((len(reviews), length), np.int32)
    for row, review in zip(matrix, reviews, strict=True):
        row[: len(review)] = review
    return matrix


def _buffers(texts: pa.Array) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The texts' UTF-8, uint8, and where each starts and ends in it, int64[n + 1]."""
    texts = texts.cast(pa.large_string())
    if texts.null_count:
        texts = texts.fill_null("")
    _, offsets, data = texts.buffers()
    if not len(texts) or data is None:
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int64)
    limits = np.frombuffer(offsets, np.int64, len(texts) + 1, 8 * texts.offset)
    return np.frombuffer(data, np.uint8, limits[-1]), limits


def _offsets(lengths: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """int64[n + 1]: where each of n pieces starts, and the end of the last."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
