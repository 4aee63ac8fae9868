"""From texts to ids, and from ids to the padded matrix that a network takes."""

from array import array
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sentray.text.cleaning import CleaningRules, Tokenizer, tokenizer
from sentray.text.vocabulary import Vocabulary

Truncating = Literal["pre", "post"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """The ids of n reviews, one after the other.

    Attributes:
        ids: int32[total], never 0 (padding).
        offsets: int64[n + 1]; review i has `ids[offsets[i]:offsets[i + 1]]`.
        words: int32[n], words that cleaning kept, in the vocabulary or not.
        known: int32[n], those of them in the vocabulary.
    """

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    words: npt.NDArray[np.int32]
    known: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[n]: ids a review has."""
        return np.diff(self.offsets)


def encode(texts: pa.Array | pa.ChunkedArray, rules: CleaningRules, vocabulary: Vocabulary) -> Encoded:
    """Clean texts and look their words up.

    Args:
        texts: `string` or `large_string`; a null has no words.
        rules: the cleaning.
        vocabulary: the ids; its `unknown` says whether other words are left out or share an id.
    """
    prepared = tokenizer(rules)
    code_of = _Codes(prepared, vocabulary).__getitem__
    codes = array("i")
    ends = array("q", [0])
    for text in texts.to_pylist():
        if text is not None:
            codes.extend(map(code_of, prepared.split(text)))
        ends.append(len(codes))
    code = np.frombuffer(codes, dtype=np.int32)
    limits = np.frombuffer(ends, dtype=np.int64)
    is_word = code > 0
    is_known = is_word & (code < vocabulary.unknown_id)
    words, known = (_counts(flags, limits) for flags in (is_word, is_known))
    shared = vocabulary.unknown == "share"
    return Encoded(
        code[is_word if shared else is_known],
        _offsets(words if shared else known),
        words.astype(np.int32),
        known.astype(np.int32),
    )


def pad(encoded: Encoded, rows: npt.ArrayLike, length: int, truncating: Truncating = "pre") -> npt.NDArray[np.int32]:
    """Reviews as a matrix: shorter ones are filled with 0 at the end, longer ones cut.

    Args:
        encoded: the reviews.
        rows: int[m], which reviews, 0 to n - 1.
        length: columns of the result.
        truncating: `pre` keeps the end of a long review (as Keras does unless told), `post` its beginning.

    Returns:
        int32[m, length].
    """
    chosen = np.asarray(rows, dtype=np.int64)
    full = encoded.lengths[chosen]
    kept = np.minimum(full, length)
    starts = encoded.offsets[chosen]
    if truncating == "pre":
        starts = starts + full - kept
    matrix = np.zeros((len(chosen), length), dtype=np.int32)
    matrix[np.arange(length) < kept[:, None]] = encoded.ids[_positions(starts, kept)]
    return matrix


class _Codes(dict[str, int]):
    """Token to code, worked out once a token: 0 where cleaning drops it, else its id or the unknown id."""

    def __init__(self, prepared: Tokenizer, vocabulary: Vocabulary) -> None:
        super().__init__()
        self._word = prepared.word
        self._ids = vocabulary.ids
        self._unknown_id = vocabulary.unknown_id

    def __missing__(self, token: str) -> int:
        word = self._word(token)
        code = 0 if word is None else self._ids.get(word, self._unknown_id)
        self[token] = code
        return code


def _counts(flags: npt.NDArray[np.bool_], limits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64[n]: how many flags are set between each two limits."""
    return np.diff(_offsets(flags)[limits])


def _offsets(lengths: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """int64[n + 1]: where each of n pieces starts, and the end of the last."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _positions(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Indices of all elements of the pieces, piece after piece."""
    return np.repeat(starts - _offsets(lengths)[:-1], lengths) + np.arange(lengths.sum())
