"""A review a line, without columns: a text, `label text`, `text TAB label`, or fastText's `__label__x text`."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from sentray.config import CorpusSettings
from sentray.corpus import limits, records
from sentray.corpus.records import LINES, open_windows, read_records
from sentray.corpus.rows import Block, Broken, Columns, Reason, as_mask
from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import Part, Piece

_PATTERNS = {
    "text": r"(?s)^(?P<text>.*)$",
    "label-first": r"(?s)^\s*(?P<label>\S+)\s*(?P<text>.*?)\s*$",
    "label-last": r"(?s)^(?P<text>.*)\t\s*(?P<label>[^\t]*?)\s*$",
    "fasttext": r"(?s)^\s*(?:__label__(?P<label>\S*)\s*)?(?P<more>(?:__label__\S*\s*)*)(?P<text>.*?)\s*$",
}


def read(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """The rows of a piece; see `sentray.corpus.readers`."""
    _, window = open_windows(source, piece, columns.settings.encoding)
    for some in read_records(window, LINES, 1, [0]):
        lines, broken = some.fields[0], dict(some.broken)
        found = pc.extract_regex(lines, _PATTERNS[source.lines or "fasttext"])
        parts = dict(zip(found.type.names, found.flatten(), strict=True))

        bad = {"no tab with a label behind it": pc.and_(pc.is_null(found), pc.is_valid(lines))}
        several_fit = columns.settings.task == "multilabel"
        if "more" in parts and "label" in columns.roles and not several_fit:
            several = pc.greater(pc.binary_length(parts["more"]), 0)
            bad["several labels; --task multilabel takes them"] = several.fill_null(False)
        elif "more" in parts:
            more = pc.replace_substring_regex(parts["more"], r"__label__(\S*)\s*", r" \1")
            parts["label"] = pc.binary_join_element_wise(parts["label"], more, pa.scalar("", more.type))
            if several_fit:
                known = pc.if_else(pc.equal(parts["label"], b""), None, parts["label"])
                parts["label"] = pc.split_pattern(known, " ")
        for why, mask in bad.items():
            for row in np.flatnonzero(as_mask(mask)).tolist():
                broken[row] = Broken(Reason.INVALID_RECORD, limits.excerpt(lines[row].as_py()), why)
        values = {columns.name(role): parts[role] for role in ("text", "label") if role in parts}
        yield Block(piece.name, some.positions + piece.row + 1, values, broken, all_text=True)


def cut(
    filesystem: fs.FileSystem, files: Sequence[SourceFile], size: int, settings: CorpusSettings
) -> list[list[Part]]:
    """Byte ranges of whole lines of each file."""
    return records.cut(filesystem, files, size, settings.encoding, lambda *_: (LINES, 1, []))
