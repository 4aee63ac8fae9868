"""`opened`: the bytes of a file of word vectors as one stream, wherever it is and however it is compressed.

The first bytes say what a file is, never its name. Nothing is unpacked to disk, and memory stays bounded.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs

from sentray.corpus.files import open_file
from sentray.errors import SentrayError
from sentray.storage import first_line, locate

_XZ_MEMORY = 256 << 20
"""An .xz file that asks for more is refused; `xz -9` needs a quarter of it."""
_XZ_INPUT = 1 << 16
_READ_AHEAD = 1 << 20
_SHOWN_MEMBERS = 8
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@contextlib.contextmanager
def opened(file: str) -> Iterator[tuple[IO[bytes], str]]:
    """Open a file to read from its beginning.

    Args:
        file: path or URI of a pyarrow file system, plain or compressed by gzip, bzip2, xz or zip; of a zip with
            several members one is named, as in `FILE.zip#MEMBER`.

    Yields:
        The decompressed stream, and the compression (`none` where there is none).

    Raises:
        SentrayError: there is no such file, or it is empty, damaged or may not be read; also from within
            the block, while it reads.
    """
    try:
        filesystem, path, address, member = _locate(file)
        with contextlib.ExitStack() as stack:
            stored = stack.enter_context(open_file(filesystem, path))
            start = stored.read(10)
            stored.seek(0)
            name, decompress = next(found for magic, found in _DECOMPRESSORS.items() if re.match(magic, start))
            if member and name != "zip":
                raise SentrayError(
                    f"{address} is no zip archive, so that it has no member {member}: leave out #{member}"
                )
            if name != "none":
                # The decompressors ask for a few kB at a time, each of which would be a request to an object store.
                stored = stack.enter_context(io.BufferedReader(stored, _READ_AHEAD))
            yield stack.enter_context(decompress(stored, address, member)), name
    except PermissionError as error:
        raise SentrayError(f"{file} may not be read: give this user the right to") from error
    except _DAMAGED as error:
        raise SentrayError(
            f"{file} cannot be read ({first_line(error)}): it seems damaged or out of reach; get it again"
        ) from error


_DAMAGED = (
    OSError,
    EOFError,
    NotImplementedError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    pa.ArrowException,
)


def _locate(file: str) -> tuple[fs.FileSystem, str, str, str]:
    """The file system, the path in it, and the name before and after the `#` of a zip's member."""
    if _URI.match(file):
        address, _, member = file.partition("#")
        filesystem, path = locate(address)
    else:
        # A file's own name may have a # in it.
        address, _, member = (file, "", "") if os.path.exists(os.path.expanduser(file)) else file.rpartition("#")
        address = address or file
        filesystem, path = fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(address))
    kind = filesystem.get_file_info(path).type
    if kind == fs.FileType.NotFound:
        raise SentrayError(f"there is no file {file}: check the path (a relative one starts at {os.getcwd()})")
    if kind == fs.FileType.Directory:
        raise SentrayError(f"{file} is a folder: name a file of word vectors in it")
    if kind != fs.FileType.File:
        raise SentrayError(f"{file} is no regular file: copy what it gives to a file first")
    return filesystem, path, address, member


def _member(stored: Any, address: str, member: str) -> IO[bytes]:
    """The only member of a zip archive, or the one that is named."""
    try:
        archive = zipfile.ZipFile(stored)
        info = _choose(archive, address, member)
        return archive.open(info)
    except (ValueError, struct.error) as error:
        # What zipfile raises where an archive is damaged.
        raise zipfile.BadZipFile(first_line(error)) from error


def _choose(archive: zipfile.ZipFile, address: str, member: str) -> zipfile.ZipInfo:
    # macOS adds members of its own beside the real ones.
    names = [info for info in archive.infolist() if not info.is_dir() and not info.filename.startswith("__MACOSX/")]
    found = [info for info in names if member in ("", info.filename)]
    if len(found) != 1:
        held = ", ".join(info.filename for info in names[:_SHOWN_MEMBERS]) + ", …" * (len(names) > _SHOWN_MEMBERS)
        if not names:
            raise SentrayError(f"{address} is a zip archive without a file in it: get it again")
        cure = f"name one, as in {address}#{names[0].filename}"
        if member and not found:
            raise SentrayError(f"{address} has no member {member}, but {held}: {cure}")
        raise SentrayError(f"{address} is a zip archive of several files ({held}): {cure}")
    if found[0].flag_bits & 1:
        raise SentrayError(f"{address} is encrypted: unzip it with its password first")
    return found[0]


class _Xz(io.RawIOBase):
    """The content of an .xz file; unlike `lzma.LZMAFile` it bounds memory and reads on after padding."""

    def __init__(self, stored: Any) -> None:
        self._stored, self._decompressor = stored, lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            decompressor, data = self._decompressor, b""
            if decompressor.eof:
                # A file may be several streams, with zeros after each.
                data = decompressor.unused_data.lstrip(b"\0") or self._stored.read(_XZ_INPUT).lstrip(b"\0")
                if not data:
                    return 0
                decompressor = self._decompressor = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)
            elif decompressor.needs_input and not (data := self._stored.read(_XZ_INPUT)):
                raise EOFError("it ends in the middle of its compressed data")
            if content := decompressor.decompress(data, len(buffer)):
                buffer[: len(content)] = content
                return len(content)


_DECOMPRESSORS: dict[bytes, tuple[str, Callable[[Any, str, str], Any]]] = {
    rb"\x1f\x8b": ("gzip", lambda stored, *_: gzip.GzipFile(fileobj=stored)),
    # A row of text may begin with BZh as well.
    rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": ("bzip2", lambda stored, *_: bz2.BZ2File(stored)),
    rb"\xfd7zXZ\x00": ("xz", lambda stored, *_: _Xz(stored)),
    rb"PK(\x03\x04|\x05\x06)": ("zip", _member),
    rb"": ("none", lambda stored, *_: contextlib.nullcontext(stored)),
}
