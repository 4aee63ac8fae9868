"""The columns of the output: the scores' own, and those of the input that are kept."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from sentray import __version__
from sentray.config import ScoreSettings
from sentray.corpus.readers import read_schema
from sentray.corpus.source import Source
from sentray.corpus.splits import Piece
from sentray.errors import SentrayError
from sentray.inference.scorer import Scores

_FIRST_FILES = 1000
"""Among so many files one must have a row that tells what columns there are."""


def kept_columns(source: Source, settings: ScoreSettings) -> pa.Schema:
    """Types of the kept columns, in the first files that tell.

    Args:
        source: The input.
        settings: Which columns to keep, and which of them to partition by.

    Raises:
        SentrayError: When the input has no row, lacks a column, or cannot be partitioned so.
    """
    mistake: SentrayError | None = None
    types: dict[str, pa.DataType] | None = None
    for piece in _first_pieces(source):
        try:
            schema = read_schema(source, piece, settings, settings.keep)
        except SentrayError as error:
            mistake = mistake or error
            continue
        if schema is not None:
            before = types or dict.fromkeys(settings.keep, pa.null())
            types = {name: schema.field(name).type if kind == pa.null() else kind for name, kind in before.items()}
            if pa.null() not in types.values():
                break
    if types is None:
        raise mistake or SentrayError(f"{settings.input} holds no row; check the path and that its files are not empty")
    # A column without any value has no type of its own.
    kept = pa.schema([(name, pa.string() if kind == pa.null() else kind) for name, kind in types.items()])
    _require_partition(settings, kept)
    return kept


def _first_pieces(source: Source) -> Iterator[Piece]:
    if source.format == "synthetic":
        yield Piece(source.uri, "synthetic", 0, 1)
    for file in source.files[:_FIRST_FILES]:
        yield Piece(file.path, file.name, label=file.label, split=file.split)


def _require_partition(settings: ScoreSettings, kept: pa.Schema) -> None:
    column = settings.partition_by
    if column not in (None, "label", *kept.names):
        raise SentrayError(
            f"--partition-by {column} is no column of few values in the output; take label, or --keep {column}"
        )
    if column in kept.names and pa.types.is_nested(kept.field(column).type):
        raise SentrayError(
            f"--partition-by {column}: the column holds {kept.field(column).type}, and a folder's name is made of one "
            "value; choose a column of strings or numbers"
        )


def output_schema(labels: tuple[str, ...], kept: pa.Schema, digest: str) -> pa.Schema:
    """Columns of the output: the same for every file that a bundle writes from an input.

    Args:
        labels: The bundle's labels; two of them get the column `positive`, the probability of the second.
        kept: Columns of the input that are passed through.
        digest: The bundle's digest, noted in the metadata beside sentray's version.

    Raises:
        SentrayError: When a kept column has the name of one of ours.
    """
    positive = [pa.field("positive", pa.float32())] if len(labels) == 2 else []
    own = [
        pa.field("id", pa.string()),
        pa.field("label", pa.string()),
        pa.field("score", pa.float32()),
        *positive,
        pa.field("words", pa.int32()),
        pa.field("known_words", pa.int32()),
    ]
    taken = {column.name for column in own}
    if clash := [name for name in kept.names if name in taken]:
        raise SentrayError(
            f"--keep {clash[0]} would hide the output's own column {clash[0]}; rename the input's column"
        )
    return pa.schema([*own, *kept], {"sentray.bundle": digest, "sentray.version": __version__})


def own_columns(ids: pa.ChunkedArray, scores: Scores, labels: tuple[str, ...]) -> list[Any]:
    """The columns of `output_schema` but the kept ones, for scored rows."""
    positive = [scores.probabilities[:, 1]] if len(labels) == 2 else []
    label = pa.array(labels, pa.string()).take(pa.array(scores.classes))
    return [ids, label, scores.best, *positive, scores.words, scores.known]
