"""What the names of a corpus's files say: the split (`split_of`), `key=value/` folders (`keys_of`), the label.

All of it follows from a file's name alone, relative to the URI's root, but for `labels_of`.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from sentray.corpus.rows import SPLIT_OF_WORD, Block, Columns, blank_to_null, canonical, decode, of_one_form
from sentray.errors import SentrayError

if TYPE_CHECKING:
    from sentray.corpus.splits import Piece

_NULL = "__HIVE_DEFAULT_PARTITION__"
_word = re.compile(r"[^\W\d_]+")
_hump = re.compile(r"(?<=[a-z])(?=[A-Z])")


def keys_of(name: str) -> dict[str, str | None]:
    """The columns that folders give, such as `stars` by `stars=5/`, percent-decoded; None is a null."""
    pairs = (folder.partition("=") for folder in name.split("/")[:-1])
    return {unquote(key): None if value == _NULL else unquote(value) for key, mark, value in pairs if key and mark}


def split_of(name: str) -> str | None:
    """The split that a name's words say: those of the file's own name, else of the innermost folder that has one.

    A word is what stands between other characters than letters, or begins in the middle with a capital
    (`labeledTrainData`). Two splits in one part of the name say nothing. The folder `split=…/` says it as well.
    """
    keys = keys_of(name)
    if "split" in keys:
        return SPLIT_OF_WORD.get((keys["split"] or "").lower())
    for part in reversed(name.split("/")):
        found = {SPLIT_OF_WORD.get(word.lower()) for word in words_of(part)} - {None}
        if len(found) == 1 and "=" not in part:
            return found.pop()
    return None


def words_of(name: str) -> list[str]:
    """The words of a name, without digits and punctuation."""
    return _word.findall(_hump.sub(" ", name))


def without_split(folder: str) -> str:
    """The parts of a folder's name that say no split, such as `pos` of `train-pos`."""
    parts = re.split(r"[\W_]+", _hump.sub(" ", folder))
    return "-".join(part for part in parts if part and part.lower() not in SPLIT_OF_WORD)


def labels_of(names: Sequence[str], uri: str) -> list[str]:
    """A label for each file: the words by which the names differ, but for splits, as in `reviews.pos`, `reviews.neg`.

    Raises:
        SentrayError: a name has no word that not all have.
    """
    words = [[word for word in words_of(name) if word.lower() not in SPLIT_OF_WORD] for name in names]
    common = set(words[0]).intersection(*words)
    labels = ["-".join(word for word in of_file if word not in common) for of_file in words]
    if "" in labels:
        raise SentrayError(
            f"--label-from name: {names[labels.index('')]} has no word in its name that not all files of {uri} have: "
            "give the files of all labels at once, named as in reviews.pos and reviews.neg"
        )
    return labels


def says_label(piece: "Piece", columns: Columns) -> bool:
    """Whether a piece's name gives the label of its reviews, or says that they need none."""
    return piece.label is not None or piece.split == "unsup" or columns.name("label") in keys_of(piece.name)


def said_of(piece: "Piece", columns: Columns) -> dict[str, str | None]:
    """The columns that a run wants and a piece's name gives, and what it says."""
    keys, roles = keys_of(piece.name), {columns.name(role): role for role in ("label", "split")}
    said = {}
    for name in (*(name for name, role in roles.items() if role in columns.roles), *columns.further):
        value = getattr(piece, roles[name]) if name in roles else None
        if name in keys or value is not None:
            said[name] = keys.get(name, value)
    return said


def with_said(block: Block, piece: "Piece", columns: Columns, said: dict[str, str | None]) -> Block:
    """A block with what its file's name says, where the file has no such column or that one holds nothing.

    Raises:
        SentrayError: a `key=value/` folder says something else than the column.
    """
    by_name = columns.name("label") if columns.settings.label_from == "name" else None
    forms = {columns.name("label"): of_one_form, columns.name("split"): canonical}
    for name, value in said.items():
        constant = pa.repeat(pa.scalar(value, pa.string()), len(block.rows))
        own = block.columns.get(name)
        if own is None or name == by_name:
            block.columns[name] = constant
            continue
        text = blank_to_null(decode(own, name, block.file)[0])
        differs = pa.array([], pa.bool_())
        if name in keys_of(piece.name):
            form = forms.get(name, lambda values: values)
            differs = pc.not_equal(form(text), form(constant.cast(text.type)))
        if (row := pc.index(differs, True).as_py()) >= 0:
            raise SentrayError(
                f"{piece.path} has {text[row].as_py()!r} as {name} in row {block.rows[row]}, and its folder says "
                f"{value!r}: leave out the column, or name the folder itself, whose name does not count then"
            )
        if text.null_count:
            block.columns[name] = pc.if_else(pc.is_null(text), constant.cast(own.type), own)
    return block
