"""The counts of lengths that a page of Parquet has in its body.

A page in the encodings DELTA_LENGTH_BYTE_ARRAY and DELTA_BYTE_ARRAY begins with the lengths of its values, packed as
DELTA_BINARY_PACKED (apache/parquet-format, Encodings.md). These lengths have a count of their own, and Arrow makes as
many as that says, whatever the page's header does: two kilobytes may stand for a billion. So it is looked up here.
"""

from sentray.corpus.compact import Compact

_MAX_BITS = 32


def skip_levels(values: memoryview, kinds: int) -> memoryview:
    """What stands behind the levels of a page of version 1, in their usual encoding.

    Args:
        values: the page, decompressed.
        kinds: of how many kinds it has levels.

    Raises:
        ValueError: they do not end in the page.
    """
    for _ in range(kinds):
        end = 4 + int.from_bytes(values[:4], "little")
        if end > len(values):
            raise ValueError("levels that do not end")
        values = values[end:]
    return values


def require_lengths(values: memoryview, count: int, prefixed: bool) -> None:
    """Make sure that there are no more lengths than values.

    Args:
        values: a page behind its levels.
        count: values of the page, with those that are null.
        prefixed: whether each value says how much of the one before it repeats, so that there are lengths of two kinds.

    Raises:
        ValueError: there are more, or they are not as Arrow reads them.
        IndexError: they do not end in the page.
    """
    if not values:
        return
    reader = Compact(values)
    _lengths(reader, count, to_their_end=prefixed)
    if prefixed:
        _lengths(reader, count, to_their_end=False)


def _lengths(reader: Compact, count: int, to_their_end: bool) -> None:
    block, parts, total = (reader.unsigned(_MAX_BITS) for _ in range(3))
    reader.unsigned(64)
    if not block or block % 128 or not parts or block % parts or block // parts % 32 or total > count:
        raise ValueError("other lengths than values")
    # The first one stands in the head.
    left, part = total - 1, block // parts
    while to_their_end and left > 0:
        reader.unsigned(64)
        for bits in bytes(reader.take(parts)):
            # Parts without a length are left out.
            if left > 0:
                if bits > _MAX_BITS:
                    raise ValueError("a length of too many bits")
                reader.take(part * bits // 8)
                left -= part
