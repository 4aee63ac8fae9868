"""Reviews that are files of their own (class folders and NLTK's corpus), and generated ones."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from sentray import nltk_data
from sentray.corpus import limits
from sentray.corpus.rows import TABLE_BYTES, TABLE_ROWS, Block, Broken, Columns, Reason, alone
from sentray.corpus.source import NLTK_RESOURCE, Source
from sentray.corpus.splits import Piece, Shard
from sentray.errors import SentrayError
from sentray.storage import reading

_BOM = b"\xef\xbb\xbf"
_SHORT = 1 << 16


def read_reviews(source: Source, shard: Shard, columns: Columns, quarantine: bool) -> Iterator[Block]:
    """A review a file: its id is the file's name, its label the folder.

    Args:
        source: where the files lie.
        shard: which of them.
        columns: what is wanted of them.
        quarantine: whether a file that cannot be read is a bad row.
    """
    if columns.need_label and all(piece.label is None and piece.split != "unsup" for piece in shard.pieces):
        raise SentrayError(f"{source.uri} has no class folders: lay the reviews out as neg/*.txt and pos/*.txt")
    with _opener(source) as opened:
        pieces: list[Piece] = []
        texts: list[bytes] = []
        size = 0
        for piece in shard.pieces:
            broken = None
            try:
                with reading(piece.path), opened(piece.path) as stream:
                    text = _content(stream)
                if len(text) > limits.MAX_ROW_BYTES:
                    broken = Broken(1, limits.beginning(text), Reason.TOO_LARGE)
            except SentrayError as error:
                if not quarantine:
                    raise
                broken = Broken(1, str(error), Reason.UNREADABLE_FILE)
            if broken is None:
                texts.append(text.removeprefix(_BOM))
                pieces.append(piece)
                size += len(texts[-1])
            if pieces and (broken or len(texts) == TABLE_ROWS or size >= TABLE_BYTES):
                yield _block(pieces, texts)
                pieces, texts, size = [], [], 0
            if broken:
                yield alone(piece.name, broken, {})
        if pieces:
            yield _block(pieces, texts)


def _block(pieces: Sequence[Piece], texts: list[bytes]) -> Block:
    names = pa.array([piece.name for piece in pieces], pa.string())
    return Block(
        file=names,
        rows=np.ones(len(pieces), np.int64),
        text=pa.array(texts, pa.large_binary()),
        id=names,
        label=pa.array([piece.label for piece in pieces], pa.string()),
        split=pa.array([piece.split for piece in pieces], pa.string()),
    )


@contextmanager
def _opener(source: Source) -> Iterator[Callable[[str], Any]]:
    """How to open one of the files, given its path."""
    if source.filesystem is not None:
        yield partial(source.filesystem.open_input_stream, compression=None)
        return
    # Each machine looks for the data itself: its folders need not be those of the machine that made the plan.
    found = nltk_data.find(NLTK_RESOURCE)
    if found is None:
        raise SentrayError("a machine of the cluster has no nltk:movie_reviews: set NLTK_DATA on every machine")
    if found.is_dir():
        yield lambda path: (found / path).open("rb")
        return
    with reading(str(found)), zipfile.ZipFile(found) as archive:
        yield lambda path: archive.open(f"{found.stem}/{path}")


def _content(stream: Any) -> bytes:
    """All of a stream, or more than a row may have; most are short, and what is asked for is allocated."""
    most = limits.MAX_ROW_BYTES + 1
    short = min(_SHORT, most)
    content: bytes = stream.read(short)
    return content if len(content) < short else content + stream.read(most - short)


def read_synthetic(source: Source, piece: Piece, columns: Columns) -> Iterator[Block]:
    """Generated reviews `piece.start` to `piece.stop`."""
    from sentray.corpus import synthetic

    assert piece.stop is not None
    for start in range(piece.start, piece.stop, TABLE_ROWS):
        stop = min(start + TABLE_ROWS, piece.stop)
        rows = synthetic.generate(start, stop, source.seed).combine_chunks()
        id, text, label = (rows[name].combine_chunks() for name in ("id", "text", "label"))
        yield Block(piece.name, np.arange(start + 1, stop + 1, dtype=np.int64), text, id, label)
