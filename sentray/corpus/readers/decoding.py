"""From a column of any type and bytes of any kind to strings."""

from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray.errors import SentrayError

Mask = npt.NDArray[np.bool_]


def decode(array: pa.Array, name: str, file: object, typed: bool = False) -> tuple[pa.Array, Mask]:
    """Any scalar column as large strings, and which values are no UTF-8 (these are decoded with replacement).

    Args:
        array: of strings, bytes, numbers, dates or booleans, dictionary-encoded or not.
        name: of the column, for the message.
        file: where it was read, for the message.
        typed: give a column that is neither strings nor bytes back as it is.

    Raises:
        SentrayError: the column holds lists or structures, or where these may be, such with text that is no UTF-8.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray) and not typed:
        array = _uuid_texts(array.storage) if isinstance(array.type, pa.UuidType) else array.storage
    kind = array.type
    if pa.types.is_null(kind) and not typed:
        return pa.nulls(len(array), pa.large_string()), no_rows(len(array))
    stringy = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if stringy or (not typed and _is_bytes(kind)):
        return _decode_bytes(array.cast(pa.large_binary()))
    if typed:
        try:
            array.validate(full=True)
        except pa.ArrowInvalid as error:
            raise SentrayError(f"column {name!r} of {file} holds invalid values in its {kind}: leave it out") from error
        return array, no_rows(len(array))
    if pa.types.is_floating(kind):
        # pandas writes whole numbers with a gap as floats: NaN is none, and 1.0 is 1 (as the cast has it).
        array = pc.if_else(pc.is_nan(array), None, array)
    try:
        return array.cast(pa.large_string()), no_rows(len(array))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise no_text(name, file, kind) from error


def no_text(name: str, file: object, kind: pa.DataType) -> SentrayError:
    """The sentence for a column of lists or structures where there should be text."""
    return SentrayError(f"column {name!r} of {file} holds {kind}, not text: name another column")


def _uuid_texts(values: pa.Array) -> pa.Array:
    """UUIDs as they are usually written, from their 16 bytes."""
    texts = [None if value is None else str(UUID(bytes=value)) for value in values.to_pylist()]
    return pa.array(texts, pa.large_string())


def _is_bytes(kind: pa.DataType) -> bool:
    tests = (
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_fixed_size_binary,
    )
    return any(test(kind) for test in tests)


def _decode_bytes(array: pa.Array) -> tuple[pa.Array, Mask]:
    try:
        return array.cast(pa.large_string()), no_rows(len(array))
    except pa.ArrowInvalid:
        pass
    values: list[str | None] = []
    invalid = no_rows(len(array))
    for index, value in enumerate(array.to_pylist()):
        try:
            values.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            invalid[index] = True
            values.append(value.decode(errors="replace"))
    return pa.array(values, pa.large_string()), invalid


def no_rows(count: int) -> Mask:
    """The mask that chooses none of so many rows."""
    return np.zeros(count, dtype=bool)


def as_mask(array: pa.Array) -> Mask:
    """A boolean column as a mask."""
    mask: Mask = array.to_numpy(zero_copy_only=False).astype(bool, copy=False)
    return mask


def is_blank(array: pa.Array) -> Mask:
    """Which strings hold nothing but white space."""
    # Few texts begin with white space, and only those are looked at to their end.
    blank = _trimmed_empty(pc.utf8_slice_codeunits(array, 0, 1))
    if blank.any():
        blank[blank] = _trimmed_empty(array.filter(pa.array(blank)))
    return blank


def _trimmed_empty(array: pa.Array) -> Mask:
    return as_mask(pc.equal(pc.binary_length(pc.utf8_ltrim_whitespace(array)), 0).fill_null(False))


def blank_to_null(array: pa.Array) -> pa.Array:
    """Strings without those that hold nothing but white space."""
    blank = is_blank(array)
    return pc.if_else(blank, None, array) if blank.any() else array


def sound(text: str) -> str:
    """A text with replacement characters where undecodable bytes were kept as surrogates."""
    return as_read(text).decode(errors="replace")


def as_read(text: str) -> bytes:
    """The bytes of a text: undecodable ones as they were, or the lone surrogate that JSON escaped."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
