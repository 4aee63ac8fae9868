"""Opening the files of a corpus, decompressed where their name says so, within bounds."""

import io
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

from sentray.corpus.limits import require_little_inflation
from sentray.errors import SentrayError
from sentray.storage import read_pauses

_READ_AHEAD = 4 << 20
T = TypeVar("T")


class _Inflated(io.RawIOBase):
    """The content of a compressed file, as long as it is no decompression bomb."""

    def __init__(self, stream: pa.NativeFile, path: str, stored: int) -> None:
        self._stream, self._path, self._stored = pa.CompressedInputStream(stream, "gzip"), path, stored
        self._inflated = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read: int = self._stream.readinto(buffer)
        self._inflated += read
        require_little_inflation(self._path, self._inflated, self._stored)
        return read


def open_stream(
    filesystem: fs.FileSystem, path: str, start: int = 0, stop: int | None = None
) -> pa.NativeFile | io.RawIOBase:
    """A file's bytes from `start` to `stop`, decompressed where the name ends in .gz (then all of them).

    Raises:
        SentrayError: the file holds no byte, or fewer than `stop`; also while it is read, when it turns out to be a
            decompression bomb.
    """
    file = open_file(filesystem, path)
    size = file.size()
    if stop is not None:
        if size < stop:
            raise SentrayError(f"{path} is shorter than when the run was planned: put the whole file back")
        file = file.get_stream(start, stop - start)
    # Object stores take about as long for a few bytes as for a megabyte.
    stream = pa.BufferedInputStream(file, _READ_AHEAD)
    return _Inflated(stream, path, size) if path.lower().endswith(".gz") else stream


def open_file(filesystem: fs.FileSystem, path: str) -> pa.NativeFile:
    """A file to read anywhere in.

    Raises:
        SentrayError: it holds no byte, or is a pipe or device.
    """
    if isinstance(filesystem, fs.LocalFileSystem) and filesystem.get_file_info(path).type == fs.FileType.Unknown:
        raise SentrayError(f"{path} is no regular file: replace it or leave it out")
    file = filesystem.open_input_file(path)
    require_bytes(path, file.size())
    return file


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
