"""Opening files: those of a corpus (`open_stream`, `open_file`), and one by path or URI (`opened`).

How a file is compressed its first bytes say, never its name. Nothing is unpacked to disk, and memory stays bounded.
"""

import codecs
import contextlib
import io
import lzma
import os
import re
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from sentray.corpus.limits import require_little_inflation
from sentray.errors import SentrayError
from sentray.storage import first_line, locate, look_where, read_pauses, reading

_READ_AHEAD = 4 << 20
"""Decompressors ask for a few kB at a time, and object stores take about as long for these as for a megabyte."""
_TRANSCODED = 1 << 18
_SHOWN_MEMBERS = 8
_MAX_POINTER = 1024
_POINTER = b"version https://git-lfs.github.com/spec/"
_XZ_MEMORY = 1 << 28
"""For the dictionary of an .xz file; `xz -9` takes a quarter of it."""
HEAD_BYTES = 1 << 12
"""How far is looked for what a file holds."""
_MAGIC = {
    "gzip": rb"\x1f\x8b",
    # A row of text may begin with BZh as well.
    "bzip2": rb"BZh[1-9](1AY&SY|\x17rE8P\x90)",
    "xz": rb"\xfd7zXZ\x00",
    "zstd": rb"\x28\xb5\x2f\xfd",
    "zip": rb"PK(\x03\x04|\x05\x06)",
    "none": rb"",
}
"""What the first bytes of a file look like, by its compression."""
T = TypeVar("T")


class _Inflated(io.RawIOBase):
    """The content of a compressed file, as long as it is no decompression bomb."""

    def __init__(self, stream: pa.NativeFile, path: str, stored: int) -> None:
        self._stream, self._path, self._stored, self._inflated = stream, path, stored, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read: int = self._stream.readinto(buffer)
        self._inflated += read
        require_little_inflation(self._path, self._inflated, self._stored)
        return read


class Transcoded(io.RawIOBase):
    """The content of a text in UTF-8; where it is invalid in its own encoding, it becomes invalid UTF-8.

    Args:
        stream: of the text.
        encoding: of the stream.
    """

    def __init__(self, stream: pa.NativeFile | io.RawIOBase, encoding: str) -> None:
        self._stream, self._decoder = stream, codecs.getincrementaldecoder(encoding)("sentray.invalid")
        self._left, self._final = memoryview(b""), False

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, or less of it; gives how many bytes."""
        while not self._left and not self._final:
            data = self._stream.read(_TRANSCODED)
            self._final = not data
            text = self._decoder.decode(data, self._final)
            self._left = memoryview(text.encode("utf-8", "surrogateescape"))
        taken = self._left[: len(buffer)]
        buffer[: len(taken)] = taken
        self._left = self._left[len(taken) :]
        return len(taken)


# The surrogate of a byte that is no part of any UTF-8.
codecs.register_error("sentray.invalid", lambda error: ("\udcff", error.end))  # type: ignore[attr-defined]


def open_stream(
    filesystem: fs.FileSystem, path: str, start: int = 0, stop: int | None = None
) -> pa.NativeFile | io.RawIOBase:
    """A file's bytes from `start` to `stop`, or all of them, decompressed.

    Raises:
        SentrayError: the file holds no byte, or fewer than `stop`; also while it is read, when it turns out to be a
            decompression bomb.
    """
    address, member = split_member(path)
    file = open_file(filesystem, address)
    size = file.size()
    if stop is not None:
        if size < stop:
            raise SentrayError(f"{path} is shorter than when the run was planned: put the whole file back")
        return pa.BufferedInputStream(file.get_stream(start, stop - start), _READ_AHEAD)
    kind = _compression(file)
    stream = _decompressed(file, kind, address, member)
    return pa.BufferedInputStream(stream, _READ_AHEAD) if kind == "none" else _Inflated(stream, path, size)


def open_file(filesystem: fs.FileSystem, path: str) -> pa.NativeFile:
    """A file to read anywhere in, as it is stored.

    Raises:
        SentrayError: it holds no byte, is a pipe or device, or stands for a file that Git has elsewhere.
    """
    if isinstance(filesystem, fs.LocalFileSystem) and filesystem.get_file_info(path).type == fs.FileType.Unknown:
        raise SentrayError(f"{path} is no regular file: replace it or leave it out")
    file = filesystem.open_input_file(path)
    require_bytes(path, file.size())
    if file.size() < _MAX_POINTER:
        require_no_pointer(path, file.read(len(_POINTER)))
        file.seek(0)
    return file


def is_compressed(filesystem: fs.FileSystem, path: str) -> bool:
    """Whether a file can only be read from its beginning."""
    address, member = split_member(path)
    with open_file(filesystem, address) as file:
        return bool(member) or _compression(file) != "none"


def look_into(filesystem: fs.FileSystem, path: str) -> tuple[bool, str, bytes]:
    """Whether a file is compressed, the name of its only member where it is a zip archive, and its first bytes.

    Raises:
        SentrayError: it cannot be read, or is an archive of several files.
    """
    address, member = split_member(path)
    with reading(path), open_file(filesystem, address) as file:
        kind = _compression(file)
        stream = _decompressed(file, kind, address, member)
        return kind != "none", stream.name if kind == "zip" else "", stream.read(HEAD_BYTES)


def split_member(path: str) -> tuple[str, str]:
    """The archive and its member of `FILE.zip#MEMBER`; the path and "" of any other, whose name may have a # in it."""
    found = re.fullmatch(r"(?is)(.*?\.zip(?:\?[^#]*)?)#(.+)", path)
    return (found[1], found[2]) if found else (path, "")


def excel(path: str) -> SentrayError:
    """The sentence for a file of a spreadsheet program."""
    return SentrayError(f"{path} is an Excel file: save its sheet as CSV (UTF-8) and give that")


def require_no_pointer(path: str, start: bytes) -> None:
    """Refuse what Git LFS leaves in a file's place where it was not fetched.

    Raises:
        SentrayError: the file begins so.
    """
    if start.startswith(_POINTER):
        raise SentrayError(f"{path} is a Git LFS pointer, not the file: run `git lfs pull`")


def require_bytes(path: str, size: int) -> None:
    """Refuse a file without any byte: it is the rest of a broken copy.

    Raises:
        SentrayError: `size` is zero.
    """
    if size == 0:
        raise SentrayError(f"{path} holds no byte: it seems the rest of a broken copy; replace it or leave it out")


def try_again(filesystem: fs.FileSystem, read: Callable[[], T]) -> T | None:
    """What a function reads; None where a file cannot be read, also not later, as an object store may be busy."""
    for pause in (*read_pauses(filesystem), None):
        try:
            return read()
        except SentrayError:
            if pause is not None:
                time.sleep(pause)
    return None


@contextlib.contextmanager
def opened(file: str) -> Iterator[tuple[IO[bytes], str]]:
    """Open a file to read from its beginning.

    Args:
        file: path or URI of a pyarrow file system, plain or compressed by gzip, bzip2, xz, Zstandard or zip; of a zip
            with several members one is named, as in `FILE.zip#MEMBER`.

    Yields:
        The decompressed stream, and the compression (`none` where there is none).

    Raises:
        SentrayError: there is no such file, or it is empty, damaged or may not be read; also from within
            the block, while it reads.
    """
    with reading(file, "it seems damaged or out of reach; get it again"), contextlib.ExitStack() as stack:
        filesystem, path, address, member = _locate(file)
        stored = stack.enter_context(open_file(filesystem, path))
        kind = _compression(stored)
        yield stack.enter_context(_decompressed(stored, kind, address, member)), kind


def _compression(stored: pa.NativeFile) -> str:
    """How a file is compressed: one of `_MAGIC`."""
    start = stored.read(10)
    stored.seek(0)
    return next(kind for kind, magic in _MAGIC.items() if re.match(magic, start))


def _decompressed(stored: pa.NativeFile, kind: str, address: str, member: str = "") -> Any:
    """The content of a file by its compression, one of `_MAGIC`."""
    if member and kind != "zip":
        raise SentrayError(f"{address} is no zip archive, so that it has no member {member}: leave out #{member}")
    if kind == "none":
        return stored
    if kind in ("gzip", "bzip2", "zstd"):
        return pa.CompressedInputStream(pa.BufferedInputStream(stored, _READ_AHEAD), kind.replace("bzip2", "bz2"))
    buffered = io.BufferedReader(stored, _READ_AHEAD)
    return _Xz(buffered) if kind == "xz" else _member(buffered, address, member)


class _Xz(io.RawIOBase):
    """The content of an .xz file; unlike `lzma.LZMAFile` it reads on after zeros between two streams."""

    def __init__(self, stored: Any) -> None:
        self._stored, self._decompressor = stored, lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            decompressor, data = self._decompressor, b""
            if decompressor.eof:
                # A file may be several streams, with zeros after each.
                data = decompressor.unused_data.lstrip(b"\0")
                while not data:
                    if not (more := self._stored.read(_READ_AHEAD)):
                        return 0
                    data = more.lstrip(b"\0")
                decompressor = self._decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            elif decompressor.needs_input and not (data := self._stored.read(_READ_AHEAD)):
                raise EOFError("it ends in the middle of its compressed data")
            if content := decompressor.decompress(data, len(buffer)):
                buffer[: len(content)] = content
                return len(content)


def _locate(file: str) -> tuple[fs.FileSystem, str, str, str]:
    """The file system, the path in it, and the name before and after the `#` of a zip's member."""
    address, member = split_member(file)
    filesystem, path = locate(os.path.expanduser(address))
    kind = filesystem.get_file_info(path).type
    if kind == fs.FileType.NotFound:
        raise SentrayError(f"there is no file {file}: {look_where(file)}")
    if kind == fs.FileType.Directory:
        raise SentrayError(f"{file} is a folder: name a file of word vectors in it")
    if kind != fs.FileType.File:
        raise SentrayError(f"{file} is no regular file: copy what it gives to a file first")
    return filesystem, path, address, member


def _member(stored: Any, address: str, member: str) -> IO[bytes]:
    """The only member of a zip archive, or the one that is named."""
    try:
        archive = zipfile.ZipFile(stored)
        # macOS adds members of its own beside the real ones.
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        found = [name for name in names if member in ("", name)]
        if len(found) == 1:
            if archive.getinfo(found[0]).flag_bits & 1:
                raise SentrayError(f"{address} is encrypted: unzip it with its password first")
            return archive.open(found[0])
    except (ValueError, struct.error) as error:
        # What zipfile raises where an archive is damaged.
        raise zipfile.BadZipFile(first_line(error)) from error
    if not names:
        raise SentrayError(f"{address} is a zip archive without a file in it: get it again")
    if "xl/workbook.xml" in names:
        raise excel(address)
    held = ", ".join(names[:_SHOWN_MEMBERS]) + ", …" * (len(names) > _SHOWN_MEMBERS)
    what = f"has no member {member}, but {held}" if member else f"is a zip archive of several files ({held})"
    example = f"{address}#{names[0]}"
    cure = f"name one, as in {example}" if split_member(example)[1] else "give it a name in .zip, and name one"
    raise SentrayError(f"{address} {what}: {cure}")
