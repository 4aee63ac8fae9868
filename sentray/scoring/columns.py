"""The columns of the output: the scores' own, and those of the input that are kept."""

import re
import shlex
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any

import pyarrow as pa

from sentray import __version__
from sentray.config import ScoreSettings
from sentray.console import count
from sentray.corpus.readers import read_schema
from sentray.corpus.source import Source
from sentray.corpus.splits import Piece
from sentray.errors import SentrayError
from sentray.inference.heaviest import WORDS_TYPE
from sentray.inference.scorer import ANSWERS, Scores
from sentray.scoring.by import is_countable
from sentray.task import Task

_FIRST_FILES, _LOOKED_AT = 1000, 50
"""Among so many files one must have a row that tells what columns there are; columns to keep are looked for in more."""


def kept_columns(
    source: Source, settings: ScoreSettings, say: Callable[[str], None] = lambda line: None
) -> tuple[dict[str, str], pa.Schema]:
    """The kept columns of the output, and what they are called in the input.

    Args:
        source: The input.
        settings: Which columns to keep, and which of them to partition by.
        say: Is told of columns that only some files have.

    Returns:
        By their names in the output: their names in the input, and their types in the first files that tell.

    Raises:
        SentrayError: When the input has no row, lacks a column, or cannot be partitioned so.
    """
    mistake: SentrayError | None = None
    null = pa.null()
    wanted = dict.fromkeys(name for keep in settings.keep for name in (keep, _parted(keep)[0]))
    if settings.by is not None:
        wanted[settings.by] = None
    types, files, first, looked = dict[str, pa.DataType](), Counter[str](), None, 0
    for piece in _first_pieces(source):
        try:
            schema = read_schema(source, piece, settings, tuple(wanted), need_keep=False)
        except SentrayError as error:
            mistake = mistake or error
            continue
        if schema is None:
            continue
        first, looked = first or piece, looked + 1
        files.update(schema.names)
        types |= {field.name: field.type for field in schema if types.get(field.name, null) == null}
        untyped = [name for name in kept_inputs(settings.keep, files).values() if types.get(name, null) == null]
        if not wanted or (looked >= _LOOKED_AT and not untyped):
            break
    if first is None:
        raise mistake or SentrayError(f"{settings.input} holds no row; check the path and that its files are not empty")
    if settings.numeric:
        read_schema(source, first, settings)
    inputs = kept_inputs(settings.keep, files)
    if len(inputs) < len(settings.keep):
        raise SentrayError("--keep gives two columns one name: give each its own, as in --keep OLD:NEW")
    for name in inputs.values():
        if not files[name]:
            read_schema(source, first, settings, (name,))
        if files[name] < looked:
            say(f"{name} is in {files[name]:,} of {_first(looked, source)}; null in the others")
    # A column without any value has no type of its own.
    kept = pa.schema(
        [(name, pa.string() if types[column] == null else types[column]) for name, column in inputs.items()]
    )
    _require_partition(settings, kept)
    if settings.by is not None:
        column = inputs.get(settings.by, settings.by)
        if not files[column]:
            try:
                read_schema(source, first, settings, (column,))
            except SentrayError as error:
                raise SentrayError(str(error).replace("--keep", "--by")) from error
        if not is_countable(types.get(column, null)):
            raise SentrayError(
                f"--by {settings.by}: the column holds {types[column]}; choose one of dates, texts or whole numbers"
            )
    return inputs, kept


def kept_inputs(keep: Sequence[str], names: Container[str]) -> dict[str, str]:
    """What the kept columns are called in the input, by their names in the output.

    Args:
        keep: As in the settings: a column, or OLD:NEW.
        names: Those of the columns of the output, or those of the columns of the input: a column of the input whose own
            name holds the colon is in both.
    """
    return {new: old for each in keep for old, new in [(each, each) if each in names else _parted(each)]}


def _parted(keep: str) -> tuple[str, str]:
    old, _, new = keep.rpartition(":")
    return (old, new) if old and new else (keep, keep)


def _first(looked: int, source: Source) -> str:
    return f"{count(looked, 'file')} with rows" if looked < len(source.files) else count(looked, "file")


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


def require_task(settings: ScoreSettings, task: Task) -> None:
    """Refuse what the output of a task cannot have.

    Raises:
        SentrayError: Something asks for one label a review, or for a label at all.
    """
    gives = {"multilabel": "several labels a review", "regression": "a number and no label"}.get(task)
    if gives and settings.partition_by == "label":
        raise SentrayError(
            f"--partition-by label: {settings.bundle} gives {gives}; name a column that --keep keeps, or leave it out"
        )
    if task == "regression" and (settings.scores == "all" or settings.by is not None):
        option = "--scores all" if settings.scores == "all" else f"--by {settings.by}"
        raise SentrayError(f"{option} is about labels, and {settings.bundle} gives {gives}: leave it out")


def output_schema(
    labels: tuple[str, ...],
    kept: pa.Schema,
    digest: str,
    every: bool = False,
    explained: bool = False,
    task: Task = "classification",
) -> pa.Schema:
    """Columns of the output: the same for every file that a bundle writes from an input.

    Args:
        labels: The bundle's labels; two classes get the column `positive`, the probability of the second.
        kept: Columns of the input that are passed through.
        digest: The bundle's digest, noted in the metadata beside sentray's version.
        every: Whether there is a column for the probability of each label.
        explained: Whether there is a column of the words that moved the score.
        task: The bundle's.

    Raises:
        SentrayError: When a kept column has the name of one of ours, or of another.
    """
    further = [*(["positive"] if _has_positive(labels, task) else []), *(score_names(labels) if every else [])]
    own = [
        pa.field("id", pa.string()),
        *(pa.field(name, kind) for name, kind in ANSWERS[task].items()),
        *(pa.field(name, pa.float32()) for name in further),
        pa.field("words", pa.int32()),
        pa.field("known_words", pa.int32()),
        *([pa.field("explained", WORDS_TYPE)] if explained else []),
    ]
    taken = {column.name for column in own}
    if clash := [name for name in kept.names if name in taken]:
        name = clash[0]
        raise SentrayError(
            f"--keep {name} would hide the output's own column {name}; keep it under another name, as in "
            f"{shlex.join(['--keep', f'{name}:input_{name}'])}"
        )
    return pa.schema([*own, *kept], {"sentray.bundle": digest, "sentray.version": __version__})


def score_names(labels: Sequence[str]) -> list[str]:
    """The columns for the probability of each label: names that every reader takes, each once."""
    names: list[str] = []
    for label in labels:
        name = again = "score_" + re.sub(r"\W+", "_", label)
        number = 2
        while again in names:
            again, number = f"{name}_{number}", number + 1
        names.append(again)
    return names


def own_columns(ids: pa.ChunkedArray, scores: Scores, labels: tuple[str, ...], every: bool = False) -> list[Any]:
    """The columns of `output_schema` but the kept ones, for scored rows."""
    return [
        ids,
        *scores.answers(labels).values(),
        *([scores.probabilities[:, 1]] if _has_positive(labels, scores.task) else []),
        *(scores.probabilities.T if every else ()),
        scores.words,
        scores.known,
    ]


def _has_positive(labels: tuple[str, ...], task: Task) -> bool:
    return task == "classification" and len(labels) == 2
