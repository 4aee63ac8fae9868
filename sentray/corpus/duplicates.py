"""A 64-bit hash of each string of an Arrow array, without a Python object a row."""

from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit

from sentray.corpus.rows import Hashes

# Those of XXH64 (Collet), whose step for short inputs this is, taken for inputs of any length.
_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(prime)
    for prime in (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
)
_8, _27, _29, _31, _32, _33, _37 = (np.uint64(bits) for bits in (8, 27, 29, 31, 32, 33, 37))


def hash_texts(texts: pa.Array) -> Hashes:
    """A 64-bit hash of each text, the same on every machine.

    Args:
        texts: large strings without a null.
    """
    if not len(texts):
        return np.zeros(0, np.uint64)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    hashes: Hashes = _hash(np.frombuffer(data or b"", np.uint8), bounds)
    return hashes


@njit(cache=True, nogil=True)
def _hash(data: Any, bounds: Any) -> Any:
    hashes = np.empty(len(bounds) - 1, np.uint64)
    for text in range(len(hashes)):
        start, stop = bounds[text], bounds[text + 1]
        value = _P5 + np.uint64(stop - start)
        for place in range(start, stop, 8):
            word = np.uint64(0)
            for byte in range(min(8, stop - place)):
                word |= np.uint64(data[place + byte]) << np.uint64(8 * byte)
            word *= _P2
            word = ((word << _31) | (word >> _33)) * _P1
            value ^= word
            value = ((value << _27) | (value >> _37)) * _P1 + _P4
        value = (value ^ (value >> _33)) * _P2
        value = (value ^ (value >> _29)) * _P3
        hashes[text] = value ^ (value >> _32)
    return hashes
