"""What kind of word vectors a file holds, told from its first bytes."""

import re
from collections import Counter
from dataclasses import dataclass

from sentray.errors import SentrayError

MAX_DIMENSIONS = 100_000
"""More is no vector but a damaged file."""
_LOOKED_AT = 100
_SHOWN = 40

_HEADER = re.compile(rb"[ \t]*([0-9]{1,30})[ \t]+([0-9]{1,30})[ \t]*(?:\r?\n|\Z)")
NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")

_OTHERS = (
    (rb"\x80[\x02-\x05]", "a pickle, such as gensim's own .model and .kv files, which can run any program when it is "
     "loaded: load it where you trust it and save it with save_word2vec_format"),
    (rb"\x93NUMPY", "a NumPy array without words: save words and vectors together, as save_word2vec_format does"),
    (rb"\xba\x16O/", "a fastText model: take the .vec file that comes with it"),
    (rb"\x89HDF", "an HDF5 file: save the vectors in word2vec's text format"),
    (rb"PAR1", "a Parquet file: save the vectors in word2vec's text format"),
    (rb"\x28\xb5\x2f\xfd", "compressed by Zstandard: unpack it with `zstd -d`"),
    (rb"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (rb"\x1f\x8b|PK\x03\x04|\xfd7zXZ|BZh[1-9]1AY", "compressed twice: unpack it once"),
    (rb"\xff\xfe|\xfe\xff", "UTF-16: convert it with `iconv -f UTF-16 -t UTF-8`"),
    (rb"version https://git-lfs\.github\.com/", "a Git LFS pointer, which stands for the real file: get that with "
     "`git lfs pull`"),
    (rb"(?i)\s*<(!doctype|html|head|\?xml)", "a web page: download the file itself"),
)  # fmt: skip


@dataclass(frozen=True)
class Format:
    """How to read a file of word vectors.

    Attributes:
        name: word2vec text, word2vec binary or GloVe.
        dimensions: numbers of a vector.
        declared: rows by the header; None where there is none.
        start: where the first row begins, in bytes.
    """

    name: str
    dimensions: int
    declared: int | None
    start: int

    @property
    def binary(self) -> bool:
        """Whether the numbers are float32 rather than decimals."""
        return self.name == "word2vec binary"


def recognise(head: bytes, whole: bool, file: str) -> Format:
    """Tell format and dimension from the beginning of a decompressed file.

    Args:
        head: its first bytes, two lines at least where there are so many.
        whole: whether those are all.
        file: for messages.

    Raises:
        SentrayError: it is something else; known kinds are named, with the cure.
    """
    bom = len(b"\xef\xbb\xbf") if head.startswith(b"\xef\xbb\xbf") else 0
    if not head[bom:].strip():
        raise SentrayError(
            f"{file} begins with nothing but white space: it seems the rest of a broken copy; get it again"
        )
    header = _HEADER.match(head, bom)
    if header is not None:
        declared, dimensions = int(header[1]), int(header[2])
        lengths = _row_lengths(head[header.end() :], whole)
        # Rows of a word and one number look like headers themselves.
        if lengths and dimensions != 1 and set(lengths) == {1}:
            header = None
    if header is None:
        dimensions = _dimensions(head[bom:], whole, file)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise SentrayError(
            f"{file} has vectors of {dimensions:,} numbers by its line 1, where 1 to {MAX_DIMENSIONS:,} are possible: "
            "it seems damaged; get it again"
        )
    if header is None:
        return Format("GloVe", dimensions, None, bom)
    binary = not lengths and not _is_text(head[header.end() :])
    return Format(f"word2vec {'binary' if binary else 'text'}", dimensions, declared, header.end())


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return _CONTROL.search(content) is None


def fields_of(line: bytes) -> list[bytes]:
    """What spaces and tabs part; any other white space is as good as a letter."""
    return [field for field in line.replace(b"\t", b" ").split(b" ") if field]


def _dimensions(head: bytes, whole: bool, file: str) -> int:
    """How many numbers most rows have."""
    lengths = _row_lengths(head, whole)
    # No UTF-8 begins as a pickle does, so that it is refused whatever follows.
    if not lengths or head.startswith(b"\x80"):
        for magic, what in _OTHERS:
            if re.match(magic, head):
                raise SentrayError(f"{file} holds no word vectors, it is {what}")
    if lengths:
        return Counter(lengths).most_common(1)[0][0]
    line = head.split(b"\n", 1)[0]
    shown = line[:_SHOWN].decode(errors="replace") + "…" * (len(line) > _SHOWN)
    raise SentrayError(
        f"{file} holds no word vectors that sentray reads: line 1 ({shown!r}) is no word with its numbers; give a file "
        "in word2vec's text or binary format or in GloVe's"
    )


def _row_lengths(text: bytes, whole: bool) -> list[int]:
    """How many numbers end each of the first lines; empty where most lines are none."""
    lines = text.split(b"\n", _LOOKED_AT)
    if not whole or len(lines) > _LOOKED_AT:
        lines.pop()
    lines = [line for line in lines if line.strip()]
    lengths = []
    for line in lines:
        fields = fields_of(line.removesuffix(b"\r"))
        numbers = next((place for place, field in enumerate(reversed(fields)) if not NUMBER.fullmatch(field)), None)
        # A word may be a number too.
        count = len(fields) - 1 if numbers is None else numbers
        if count:
            lengths.append(count)
    return lengths if 2 * len(lengths) >= len(lines) else []
