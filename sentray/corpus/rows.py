"""What every reader gives: rows of one schema (`ROW_SCHEMA`), checked (`finish`), with a `Reason` where one is bad."""

import difflib
import itertools
import math
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray import console
from sentray.config import CorpusSettings
from sentray.corpus.limits import EXCERPT_CHARACTERS, MAX_NAME
from sentray.errors import SentrayError
from sentray.task import join

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

ROW_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("label", pa.string()),
        pa.field("split", pa.string()),
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
    ]
)
"""A review as every reader gives it. `file` is relative to the URI's root, `row` is counted from 1 within the
file, `reason` is null for a good row and a `Reason` for a bad one, whose text is its first 200 characters and whose
`detail` says why in words, where there is more to say."""

NUMBERS = "numbers"
"""The column of a row's numbers, by their names, behind those of `ROW_SCHEMA` where a run has columns of numbers."""
ROLES = ("id", "text", "label", "split")
SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("test", "testing", "testset", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "validset", "val", "dev", "devset"), "validation"),
    **dict.fromkeys(("unsup", "unsupervised"), "unsup"),
}
"""What the splits are called, in a column and as a word in a file's name, and what they are."""
TABLE_ROWS = 16_384
"""Rows of a table that a reader gives, at most; of sentences, 4096 at once take a tenth more time to score."""
TABLE_BYTES = 16_000_000
"""Bytes of text of a table that a reader gives, about at most, but for a single longer review."""

NO_COLUMN = "none"
"""As the column of the ids: no column gives them, but path and position do."""
NO_SPLIT = ""
"""The split of a row that is given none, where none is to be drawn for it."""

_DELIMITER = re.compile(r"[;\t|]")
_DATA = re.compile(r"\s*|[+-]?[\d.,]+|(\S+\s+){5,}\S+|.{60,}", re.DOTALL)
"""What no column is called: nothing, a number, a sentence."""
_COMPARED = 1000
"""Columns of a file among which the one is looked for that a wrong name may mean."""
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_LARGEST = float(np.finfo(np.float32).max)
"""Of a number that can be used: larger ones have no end where networks compute."""
_FINITE = r"^(-?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|true|false)$"


class Reason(StrEnum):
    """Why a row was set aside. Values are written to `quarantine.parquet` and are stable.

    Members come in the order in which a row with several faults gets its reason.
    """

    TOO_LARGE = "too_large"
    """The row is longer than one that is read; see `sentray.corpus.limits`."""
    NULL_TEXT = "null_text"
    EMPTY_TEXT = "empty_text"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_RECORD = "invalid_record"
    MISSING_ID = "missing_id"
    DUPLICATE_ID = "duplicate_id"
    MISSING_LABEL = "missing_label"
    UNKNOWN_LABEL = "unknown_label"
    INVALID_NUMBER = "invalid_number"
    """A column of numbers that the model takes besides the text has none for the row."""
    CRASH = "crash"
    """The process that scored the row died of it, each time."""
    UNREADABLE_FILE = "unreadable_file"
    """The file cannot be read from this row on; the text says why."""


QUARANTINE_FILE = "quarantine.parquet"
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("id", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("text", pa.large_string()),
    ]
)
"""`file` as in the row's id, `row` counted from 1 within the file, `detail` as in `ROW_SCHEMA` (earlier versions wrote
none), `text` the first 200 characters."""


class Broken(NamedTuple):
    """What stands for a row that is no record, or for the rest of a file that cannot be read.

    Attributes:
        reason: why it is set aside.
        text: what is shown of it, or what is wrong.
        detail: why, in words, such as "4 fields, the header has 3".
    """

    reason: Reason
    text: str
    detail: str = ""


@dataclass
class Block:
    """Some rows as a file holds them, before any check.

    Attributes:
        file: name of the file, or of each row's file.
        rows: positions within the file, from 1.
        columns: what was read, by the names that the file has for it; nulls where a row is broken.
        broken: the rows that are no records, by their index.
        too_large: which of the others hold a value longer than a row may be, of which only the beginning is here.
        all_text: whether the format knows nothing but text, so that kept columns are strings too.
    """

    file: str | pa.Array
    rows: Numbers
    columns: dict[str, pa.Array]
    broken: dict[int, Broken] = field(default_factory=dict)
    too_large: Mask | None = None
    all_text: bool = False


@dataclass(frozen=True)
class Columns:
    """Which columns a run wants of a file that has named columns.

    Attributes:
        settings: what the columns are called.
        keep: further columns that the run passes through; null where a file lacks one.
        need_label: whether a file without labels is an error.
        ids_only: read the ids and nothing else.
        given: columns that a file's name gives, so that the file need not have them.
        need_keep: whether a file without one of the further columns is an error.
    """

    settings: CorpusSettings
    keep: tuple[str, ...] = ()
    need_label: bool = False
    ids_only: bool = False
    given: frozenset[str] = frozenset()
    need_keep: bool = False

    @property
    def further(self) -> tuple[str, ...]:
        """The columns to read besides those of the roles: those to keep, and those of numbers."""
        return self.keep if self.ids_only else tuple(dict.fromkeys((*self.keep, *self.settings.numeric)))

    @property
    def roles(self) -> tuple[str, ...]:
        """Those of `ROLES` that columns are looked for; what the verb has no use for is not."""
        roles = ("id",) if self.ids_only else ROLES
        unused = {*self.settings.unused, *(("id_column",) if self.settings.id_column == NO_COLUMN else ())}
        return tuple(role for role in roles if f"{role}_column" not in unused)

    def name(self, role: str) -> str:
        """What the file calls `id`, `text`, `label` or `split`."""
        return str(getattr(self.settings, f"{role}_column"))

    def choose(self, available: Sequence[str], path: str) -> list[str]:
        """The columns to read of a file that has the columns `available`.

        Raises:
            SentrayError: a column is not there that the run needs or that the user named.
        """
        if self.name("id") == NO_COLUMN and NO_COLUMN in self.keep:
            raise SentrayError(f"{path} has a column {NO_COLUMN!r} to keep, which --id-column none means: rename it")
        chosen = []
        for role in self.roles:
            name = self.name(role)
            if name in available:
                chosen.append(name)
            elif self.ids_only or name in self.given:
                pass
            elif role == "text" or (role == "label" and self.need_label) or (role != "label" and name != role):
                raise self._missing(name, f"--{role}-column", available, path)
        for name in self.further:
            if name in available:
                chosen.append(name)
            elif self.need_keep and name not in self.given:
                raise self._missing(name, "--keep" if name in self.keep else "--numeric", available, path)
        twice = [name for name in chosen if list(available).count(name) > 1]
        if twice:
            raise SentrayError(f"{path} has more than one column {twice[0]!r}: rename all but one")
        return list(dict.fromkeys(chosen))

    def _missing(self, name: str, option: str, available: Sequence[str], path: str) -> SentrayError:
        shown = [each[:MAX_NAME] for each in available[:_COMPARED]]
        have = ", ".join(shown[:20]) + (", …" if len(available) > 20 else "")
        hint = _hint(name, option, shown)
        if option == "--numeric" and "numeric" in self.settings.unused:
            hint = "the bundle takes its numbers besides the text, so give a file that has it, or rename the right one"
        return SentrayError(f"{path} has no column {name!r} (it has: {have or 'none'}): {hint}")


def label_form(label: str) -> str:
    """A label as every format gives it: `0` for 0.0, as pandas writes whole numbers with a gap, `true` for True."""
    if label in ("True", "False"):
        return label.lower()
    whole = _WHOLE.fullmatch(label)
    return label if whole is None else "0" if whole[1] == "-0" else whole[1]


def number_form(label: str) -> str | None:
    """A number as every format gives it; None where a label is none, or one that is too large for a float32."""
    number = float(label) if _NUMBER.fullmatch(label.strip()) else math.inf
    return label_form(repr(number)) if abs(number) <= _LARGEST else None


def label_order(label: str) -> tuple[float, str]:
    """The key by which labels are sorted: numbers by their size, before all others."""
    return (float(label) if _NUMBER.fullmatch(label) else math.inf, label)


def kept_name(column: str) -> str:
    """What a table calls a kept column, so that it hides none of `ROW_SCHEMA`."""
    return f"kept {column}" if column in (*ROW_SCHEMA.names, NUMBERS) else column


def numbers_type(names: Sequence[str]) -> pa.DataType:
    """Of the column `NUMBERS`."""
    return pa.struct([(name, pa.float64()) for name in names])


def numbers_of(rows: pa.Table, names: Sequence[str]) -> Floats | None:
    """Some columns of the numbers of rows, float64 [rows, columns]; None where none are asked for."""
    if not names:
        return None
    return np.column_stack([pc.struct_field(rows[NUMBERS], [name]).to_numpy() for name in names])


def _number(texts: pa.Array) -> pa.Array:
    """Texts as numbers, float64: 1 and 0 for true and false, null for whatever is no number that a float32 can hold."""
    texts = pc.utf8_ltrim(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), "+")
    texts = pc.if_else(pc.match_substring_regex(texts, _FINITE), texts, None)
    texts = pc.replace_substring_regex(pc.replace_substring_regex(texts, "^true$", "1"), "^false$", "0")
    numbers = texts.cast(pa.float64())
    return pc.if_else(pc.less_equal(pc.abs(numbers), _LARGEST), numbers, None)


def _numbers(block: Block, columns: Columns) -> tuple[pa.Array, Mask, pa.Array]:
    """The numbers of a block's rows, which rows lack one, and what of these is said."""
    count, names = len(block.rows), columns.settings.numeric
    texts = [decode(block.columns.get(name, pa.nulls(count)), name, block.file)[0] for name in names]
    found = [_number(each) for each in texts]
    causes = pa.nulls(count, pa.large_string())
    for name, text, number in zip(names, texts, found, strict=True):
        if number.null_count:
            around = (f"{name} '", "' is no number that can be used", "")
            before, behind, between = (pa.scalar(each, pa.large_string()) for each in around)
            shown = pc.binary_join_element_wise(before, pc.utf8_slice_codeunits(text, 0, MAX_NAME), behind, between)
            wrong = pc.if_else(is_blank(text), f"{name} has no number", shown).fill_null(f"{name} has no number")
            causes = pc.coalesce(causes, pc.if_else(pc.is_null(number), wrong, None))
    return pa.StructArray.from_arrays(found, fields=list(numbers_type(names))), as_mask(pc.is_valid(causes)), causes


def _hint(name: str, option: str, available: Sequence[str]) -> str:
    """What to do about a column that is not there."""
    if not available:
        return "is it the right file?"
    if len(available) == 1 and (found := _DELIMITER.search(available[0])):
        sign = shlex.quote(found[0].replace("\t", "tab"))
        return f"it seems to be separated by {sign}, so add --delimiter {sign}"
    if available == [str(number) for number in range(1, len(available) + 1)]:
        return f"give {option} the column's number, or name all of them with --columns"
    if any(_DATA.fullmatch(each) for each in available):
        return f"it seems to have no header, so add --no-header and give {option} the column's number"
    lower, wanted = {each.lower(): each for each in available}, name.lower()
    near = [each for each in lower if each.endswith(f".{wanted}")]
    near = near or difflib.get_close_matches(wanted, lower, n=1) or [each for each in lower if wanted in each]
    return f"name the right one with {option}" + (f", as in {option} {shlex.quote(lower[near[0]])}" if near else "")


_ENCODINGS = {
    "shift_jis": "[\u3000-\u30ff\u4e00-\u9fff]",
    "euc_kr": "[\uac00-\ud7a3]",
    "gb18030": "[\u3000-\u303f\u4e00-\u9fff\uff00-\uff5e]",
    "cp1251": "[\u0400-\u04ff]",
    "cp1252": "",
}
"""Those that are looked for, and what of Unicode is in most of their texts."""
_STRINGS = (pa.string(), pa.large_string(), pa.string_view())
_BYTES = (pa.binary(), pa.large_binary(), pa.binary_view())


def decode(array: pa.Array, name: str, file: object, typed: bool = False) -> tuple[pa.Array, Mask]:
    """Any scalar column as large strings, and which values are invalid UTF-8 (decoded with replacement).

    Args:
        array: of strings, bytes, numbers, dates or booleans, dictionary-encoded or not.
        name: of the column, for the message.
        file: where it was read, for the message.
        typed: give a column that is neither strings nor bytes back as it is.

    Raises:
        SentrayError: the column holds lists or structures, or a column of another type than text holds invalid values.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray) and not typed:
        array = _uuid_texts(array.storage) if isinstance(array.type, pa.UuidType) else array.storage
    kind = array.type
    if pa.types.is_null(kind) and not typed:
        return pa.nulls(len(array), pa.large_string()), no_rows(len(array))
    if kind in _STRINGS or (not typed and (kind in _BYTES or pa.types.is_fixed_size_binary(kind))):
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


def is_list(kind: pa.DataType) -> bool:
    """Whether values are lists of any kind."""
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def is_text(kind: pa.DataType) -> bool:
    """Whether values are strings or bytes."""
    return (kind.value_type if pa.types.is_dictionary(kind) else kind) in _STRINGS + _BYTES


def _joined(array: pa.Array) -> pa.Array:
    """Texts that are lists of words, with a space between two words."""
    if not is_list(array.type):
        return array
    return pc.binary_join(array.cast(pa.list_(pa.large_binary())), pa.scalar(b" ", pa.large_binary()))


def _only_labels(array: pa.Array) -> tuple[pa.Array, Numbers]:
    """Labels that are lists: the only one where there is one, else null; and how many there are."""
    if not is_list(array.type):
        return array, np.ones(len(array), np.int64)
    counts = pc.list_value_length(array).fill_null(0)
    alone = pc.equal(counts, 1)
    labels = pc.list_flatten(array.filter(alone))
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    positions = pa.array(np.cumsum(as_mask(alone)) - 1, mask=~as_mask(alone))
    return labels.take(positions), counts.to_numpy().astype(np.int64)


def _all_labels(array: pa.Array, separator: str | None, name: str, file: object) -> tuple[pa.Array, Mask]:
    """All labels of each row as `task.join` has them, null where it says nothing; which rows hold invalid UTF-8."""
    if is_list(array.type):
        missing, counts = pc.is_null(array), pc.list_value_length(array).fill_null(0).to_numpy()
        values, wrong = decode(pc.list_flatten(array), name, file)
        given, ends = values.to_pylist(), np.cumsum(np.append(0, counts)).tolist()
        of_rows = [given[start:end] for start, end in itertools.pairwise(ends)]
        invalid = np.bincount(np.repeat(np.arange(len(array)), counts)[wrong], minlength=len(array)) > 0
    else:
        values, invalid = decode(array, name, file)
        missing = pc.is_null(values := blank_to_null(values))
        of_rows = [(text or "").split(separator) if separator else [text] for text in values.to_pylist()]
    labels = [join([label_form(each.strip()) for each in of_row if each and each.strip()]) for of_row in of_rows]
    return pa.array(labels, pa.large_string(), mask=as_mask(missing)), invalid


def _label_numbers(labels: pa.Array) -> pa.Array:
    """Labels by `number_form`."""
    encoded = labels.dictionary_encode()
    forms = pa.array(map(number_form, encoded.dictionary.to_pylist()), pa.large_string())
    return forms.take(encoded.indices)


def of_one_form(labels: pa.Array) -> pa.Array:
    """Labels by `label_form`, without blank ones."""
    encoded = blank_to_null(labels).dictionary_encode()
    forms = pa.array(map(label_form, encoded.dictionary.to_pylist()), pa.large_string())
    return forms.take(encoded.indices)


def no_text(name: str, file: object, kind: pa.DataType) -> SentrayError:
    """The sentence for a column of lists or structures where there should be text."""
    return SentrayError(f"column {name!r} of {file} holds {kind}, not text: name another column")


def _uuid_texts(values: pa.Array) -> pa.Array:
    """UUIDs as they are usually written, from their 16 bytes."""
    texts = [None if value is None else str(UUID(bytes=value)) for value in values.to_pylist()]
    return pa.array(texts, pa.large_string())


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


def invalid_bytes(values: Sequence[object]) -> str:
    """How many bytes of a row are invalid UTF-8, and what encoding they are likeliest of."""
    raw = b"\n".join(value for value in values if isinstance(value, bytes))
    wrong = [raw[error.start : error.end] for error in _errors(raw)]
    likeliest = next((each for each in _ENCODINGS if _fits(raw, each)), "latin-1")
    return f"{console.count(sum(map(len, wrong)), 'byte')} invalid in UTF-8; likeliest is --encoding {likeliest}"


def _errors(raw: bytes) -> Iterator[UnicodeDecodeError]:
    start = 0
    while True:
        try:
            raw[start:].decode()
        except UnicodeDecodeError as error:
            yield UnicodeDecodeError("utf-8", raw, start + error.start, start + error.end, error.reason)
            start += error.end
        else:
            return


def _fits(raw: bytes, encoding: str) -> bool:
    """Whether bytes may be of an encoding: enough of what they become besides ASCII is what its languages write."""
    try:
        others = [character for character in raw.decode(encoding) if character > "\x7f"]
    except UnicodeDecodeError:
        return False
    share = sum(bool(re.match(_ENCODINGS[encoding], each)) for each in others) / max(1, len(others))
    # Letters of other scripts than Latin come in words.
    return encoding == "cp1252" or (share > 0.9 and 8 * len(re.findall(rb"[\x80-\xff]{2}", raw)) > len(raw))


def no_rows(count: int) -> Mask:
    """The mask that chooses none of so many rows."""
    return np.zeros(count, dtype=bool)


def as_mask(array: pa.Array) -> Mask:
    """A boolean column as a mask."""
    mask: Mask = array.to_numpy(zero_copy_only=False).astype(bool, copy=False)
    return mask


def is_blank(array: pa.Array) -> Mask:
    """Which strings hold nothing but white space."""
    return as_mask(pc.or_(pc.utf8_is_space(array), pc.equal(pc.binary_length(array), 0)).fill_null(False))


def blank_to_null(array: pa.Array) -> pa.Array:
    """Strings without those that hold nothing but white space."""
    blank = is_blank(array)
    return pc.if_else(blank, None, array) if blank.any() else array


def finish(block: Block, columns: Columns) -> pa.Table:
    """Check a block's rows and bring them to `ROW_SCHEMA` (and the kept columns)."""
    count, given = len(block.rows), block.columns
    rows = pa.array(block.rows, pa.int64())
    if (id_column := columns.name("id")) not in given:
        given = {id_column: pc.binary_join_element_wise(block.file, rows.cast(pa.string()), ":"), **given}
    of_role = {role: given.get(columns.name(role), pa.nulls(count)) for role in {"id", *columns.roles}}
    of_role["text"] = _joined(of_role.get("text", pa.nulls(count)))
    task, given_labels, no_label = columns.settings.task, of_role.get("label", pa.nulls(count)), no_rows(count)
    labels = np.ones(count, np.int64)
    if task != "multilabel":
        given_labels, labels = _only_labels(given_labels)
    of_role["label"] = given_labels
    decoded = {
        role: _all_labels(given_labels, columns.settings.label_separator, columns.name(role), block.file)
        if role == "label" and task == "multilabel"
        else decode(of_role.get(role, pa.nulls(count)), columns.name(role), block.file)
        for role in ROLES
    }
    ids, text, label, split = (array for array, _ in decoded.values())
    ids, split = blank_to_null(ids), blank_to_null(split)
    if task != "multilabel":
        label = of_one_form(label)
    if task in ("ordinal", "regression"):
        written, label = label, _label_numbers(label)
        no_label = as_mask(pc.and_(pc.is_valid(written), pc.is_null(label)))
    split = canonical(split)
    supervised = pc.not_equal(split, "unsup").fill_null(True)
    # In the order of `Reason`: a row with several faults has the first.
    faults = {
        Reason.TOO_LARGE: no_rows(count) if block.too_large is None else block.too_large,
        Reason.NULL_TEXT: pc.is_null(text),
        Reason.EMPTY_TEXT: is_blank(text),
        Reason.INVALID_UTF8: np.logical_or.reduce([invalid for _, invalid in decoded.values()]),
        Reason.MISSING_ID: pc.is_null(ids),
        Reason.MISSING_LABEL: as_mask(pc.and_(pc.is_null(label), supervised)) & (labels < 2) & ~no_label
        if columns.need_label
        else no_rows(count),
        Reason.UNKNOWN_LABEL: (labels > 1) | no_label,
    }
    if columns.settings.numeric:
        numbers, faults[Reason.INVALID_NUMBER], no_number = _numbers(block, columns)
    reason = pc.case_when(pc.make_struct(*map(pa.array, faults.values())), *map(str, faults))
    split = _split_by_hash(split, columns.settings, {"id": ids, "text": text})
    detail = pa.nulls(count, pa.string())
    if (labels > 1).any():
        causes = [
            f"the label is a list of {number:,}; --task multilabel takes several" if number > 1 else None
            for number in labels.tolist()
        ]
        detail = pc.if_else(pc.equal(reason, str(Reason.UNKNOWN_LABEL)), pa.array(causes, pa.string()), None)
    if no_label.any():
        shown = pc.utf8_slice_codeunits(written.cast(pa.string()), 0, MAX_NAME)
        causes = pc.binary_join_element_wise("label '", shown, f"' is no number that --task {task} can use", "")
        detail = pc.if_else(pc.equal(reason, str(Reason.UNKNOWN_LABEL)).fill_null(False), causes, detail)
    if columns.settings.numeric:
        detail = pc.if_else(pc.equal(reason, str(Reason.INVALID_NUMBER)).fill_null(False), no_number, detail)
    if faults[Reason.INVALID_UTF8].any():
        given_texts = [of_role[role] for role in ROLES if role in of_role]
        if not block.all_text:
            # Arrow takes strings for valid, whatever a file says.
            given_texts = [each.cast(pa.large_binary()) if each.type in _STRINGS else each for each in given_texts]
        causes = [
            invalid_bytes([texts[row].as_py() for texts in given_texts]) if wrong else None
            for row, wrong in enumerate(as_mask(pc.equal(reason, Reason.INVALID_UTF8).fill_null(False)))
        ]
        detail = pc.coalesce(detail, pa.array(causes, pa.string()))
    if block.broken:
        broken = np.isin(np.arange(count), list(block.broken))
        reasons, texts, details = zip(*(block.broken[index] for index in sorted(block.broken)), strict=True)
        reason = pc.replace_with_mask(reason, broken, pa.array(map(str, reasons), pa.string()))
        text = pc.replace_with_mask(text, broken, pa.array(texts, pa.large_string()))
        detail = pc.replace_with_mask(detail, broken, pa.array([each or None for each in details], pa.string()))
        ids, label, split = (pc.if_else(broken, None, array) for array in (ids, label, split))
    if reason.null_count < count:
        text = pc.if_else(pc.is_valid(reason), pc.utf8_slice_codeunits(text, 0, EXCERPT_CHARACTERS), text)
    file = pa.repeat(block.file, count) if isinstance(block.file, str) else block.file
    values = [ids, text, label, split, file, rows, reason, detail]
    arrays = [value.cast(wanted.type) for value, wanted in zip(values, ROW_SCHEMA, strict=True)]
    own = {name: array for name, array in zip(ROW_SCHEMA.names, arrays, strict=True) if name in columns.roles}
    missing = pa.nulls(count, pa.large_string() if block.all_text else pa.null())
    kept = [
        own[name]
        if name in own and name == columns.name(name)
        else decode(given.get(name, missing), name, block.file, typed=not block.all_text)[0]
        for name in columns.keep
    ]
    rows = pa.table([*arrays, *kept], names=[*ROW_SCHEMA.names, *map(kept_name, columns.keep)])
    return rows.append_column(NUMBERS, numbers) if columns.settings.numeric else rows


def canonical(split: pa.Array) -> pa.Array:
    """Splits by their one name each, such as validation for dev; others as they are, in lower case."""
    split = pc.utf8_lower(pc.utf8_trim_whitespace(split))
    known = pc.index_in(split, pa.array(SPLIT_OF_WORD, split.type))
    return pc.coalesce(pa.array(SPLIT_OF_WORD.values(), split.type).take(known), split)


def _split_by_hash(split: pa.Array, settings: CorpusSettings, values: dict[str, pa.Array]) -> pa.Array:
    """Fill in the split where there is none: by a hash of the text or id alone, whatever else the corpus holds."""
    if not split.null_count:
        return split
    if not settings.test_fraction:
        return split.fill_null("train" if settings.test_fraction is not None else NO_SPLIT)
    drawn_by = values[settings.split_by].fill_null("")
    limit = math.ceil(settings.test_fraction * 2.0**64)
    if settings.split_by == "text":
        # Numba takes its time to load, and where no row is held out nothing is hashed.
        from sentray.corpus.duplicates import hash_texts

        held_out = hash_texts(drawn_by) < np.uint64(limit)
    else:
        first = limit.to_bytes(8, "big")
        names = drawn_by.cast(pa.large_binary()).to_pylist()
        held_out = np.array([blake2b(name, digest_size=8).digest() < first for name in names], bool)
    return pc.coalesce(split, pc.if_else(pa.array(held_out), "test", "train").cast(pa.large_string()))


def set_aside(rows: pa.Table, excerpts: bool = True) -> pa.Table:
    """The bad ones of some rows in `QUARANTINE_SCHEMA`, with or without their texts."""
    bad = rows.filter(pc.is_valid(rows["reason"])).select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA)
    column = QUARANTINE_SCHEMA.get_field_index("text")
    return (
        bad
        if excerpts
        else bad.set_column(column, QUARANTINE_SCHEMA.field(column), pa.nulls(len(bad), pa.large_string()))
    )


def mark(table: pa.Table, mask: Mask, reason: Reason, detail: pa.Array | str | None = None) -> pa.Table:
    """Give rows a reason to be set aside, and a detail, unless they have one that comes before it in `Reason`."""
    earlier = pa.array(map(str, itertools.takewhile(lambda other: other != reason, Reason)), pa.string())
    chosen = pc.and_(pa.array(mask), pc.invert(pc.is_in(table["reason"], earlier)))
    if not pc.any(chosen).as_py():
        return table
    reasons = pc.if_else(chosen, str(reason), table["reason"])
    details = pc.if_else(chosen, detail, table["detail"])
    texts = pc.if_else(chosen, pc.utf8_slice_codeunits(table["text"], 0, EXCERPT_CHARACTERS), table["text"])
    for name, column in (("reason", reasons), ("detail", details), ("text", texts)):
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(index), column)
    return table
