"""Reviews that are files of their own: class folders, and NLTK's corpus."""

import codecs
import io
import posixpath
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from sentray import nltk_data
from sentray.corpus import limits
from sentray.corpus.files import Transcoded, require_no_pointer
from sentray.corpus.names import said_of, says_label
from sentray.corpus.rows import TABLE_BYTES, TABLE_ROWS, Block, Broken, Columns, Reason
from sentray.corpus.source import NLTK_RESOURCE, Source
from sentray.corpus.splits import Piece, Shard
from sentray.errors import SentrayError
from sentray.storage import reading

_SHORT = 1 << 16


def read_reviews(source: Source, shard: Shard, columns: Columns, quarantine: bool) -> Iterator[Block]:
    """A review a file: its id is the file's name, its label the folder.

    Args:
        source: where the files lie.
        shard: which of them.
        columns: what is wanted of them.
        quarantine: whether a file that cannot be read is a bad row.
    """
    if columns.need_label and not any(says_label(piece, columns) for piece in shard.pieces):
        raise SentrayError(
            f"{source.uri} has no class folders: lay the reviews out as neg/*.txt and pos/*.txt, or say what the lines "
            "hold where each is a review, as in --lines label-first"
        )
    texts: list[bytes | None] = []
    broken: dict[int, Broken] = {}
    size = 0
    with _opener(source) as opened:
        for end, piece in enumerate(shard.pieces, 1):
            text: bytes | None = None
            try:
                with reading(piece.path), opened(piece.path) as stream:
                    text = _content(stream)
                    require_no_pointer(piece.path, text)
            except SentrayError as error:
                if not quarantine:
                    raise
                broken[len(texts)] = Broken(Reason.UNREADABLE_FILE, str(error), str(error))
            if text is not None and len(text) > limits.MAX_ROW_BYTES:
                broken[len(texts)], text = Broken(Reason.TOO_LARGE, limits.excerpt(text)), None
            texts.append(text and _utf8(text, columns.settings.encoding))
            size += len(text or b"")
            if len(texts) == TABLE_ROWS or size >= TABLE_BYTES or end == len(shard.pieces):
                pieces = shard.pieces[end - len(texts) : end]
                block = _block(pieces, texts, broken, columns)
                if source.format == "nltk":
                    # Pang and Lee's: the first has the files whose number begins with 0.
                    folds = [posixpath.basename(piece.name)[2:3] for piece in pieces]
                    block.columns["fold"] = pa.array(folds, pa.string())
                yield block
                texts, broken, size = [], {}, 0


def _block(pieces: tuple[Piece, ...], texts: list[bytes | None], broken: dict[int, Broken], columns: Columns) -> Block:
    names = pa.array([piece.name for piece in pieces], pa.string())
    found = {columns.name("id"): names, columns.name("text"): pa.array(texts, pa.large_binary())}
    said = [said_of(piece, columns) for piece in pieces]
    for name in {name: None for of_piece in said for name in of_piece}:
        found[name] = pa.array([of_piece.get(name) for of_piece in said], pa.string())
    return Block(names, np.ones(len(pieces), np.int64), found, broken)


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


def _utf8(text: bytes, encoding: str | None) -> bytes:
    encoding = encoding or ("utf-16" if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else None)
    return (Transcoded(io.BytesIO(text), encoding).readall() if encoding else text).removeprefix(codecs.BOM_UTF8)


def _content(stream: Any) -> bytes:
    """All of a stream, or more than a row may have; most are short, and what is asked for is allocated."""
    content: bytes = stream.read(_SHORT)
    return content if len(content) < _SHORT else content + stream.read(limits.MAX_ROW_BYTES + 1)
