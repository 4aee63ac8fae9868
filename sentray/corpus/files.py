"""Opening files of any file system, with one clear sentence where a file cannot be read."""

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sentray.corpus.limits import require_little_inflation
from sentray.errors import SentrayError

_READ_AHEAD = 4 << 20

_PAUSES = (0.5, 1.0, 2.0)


# Names within Parquet that are no UTF-8, and numbers too large for anything, pyarrow passes on as Python tells them.
_DAMAGED = (OSError, EOFError, zlib.error, zipfile.BadZipFile, pa.ArrowException, UnicodeError, OverflowError)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into one sentence.

    Raises:
        SentrayError: the file is gone, damaged, cut short or may not be read.
    """
    try:
        yield
    except MemoryError:
        # Arrow's is an ArrowException too, and says nothing of the file.
        raise
    except FileNotFoundError as error:
        raise SentrayError(f"{path} is not there any more: put it back, or run again without it") from error
    except PermissionError as error:
        raise SentrayError(f"{path} may not be read: give this user the right to, or leave the file out") from error
    except _DAMAGED as error:
        raise SentrayError(
            f"{path} cannot be read ({first_line(error)}): it seems damaged; replace it or leave it out"
        ) from error


def read_pauses(filesystem: fs.FileSystem | None) -> tuple[float, ...]:
    """Seconds to wait before each further attempt to read: an object store may be busy or hang up, a disk is not."""
    return () if filesystem is None or isinstance(filesystem, fs.LocalFileSystem) else _PAUSES


def first_line(error: BaseException) -> str:
    """What an error says, in one line without its final stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


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
        SentrayError: it holds no byte.
    """
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
