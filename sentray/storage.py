"""Files on any file system: paths and URIs, what goes wrong in reading, files that appear whole or not at all.

A `Folder` is local or on any pyarrow file system.
"""

import contextlib
import errno
import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs
from pydantic_core import from_json

from sentray.errors import SentrayError
from sentray.errors import first_line as first_line

HALF_WRITTEN = re.compile(r"(?:.*/)?\.[^/]+\.[0-9a-f]{32}")
"""What a killed writer leaves behind, as a name within the folder."""
_CURE = "choose another --out"
_RETRY = "make room or check the permissions, then run the same command again to go on"
_MAX_BYTES = 1 << 28
"""Of a file that is read whole; those that sentray writes so have a tenth of it."""
_PAUSES = (0.5, 1.0, 2.0)

# --- Paths and URIs


def locate(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and the absolute path in it, without a slash at its end.

    Raises:
        SentrayError: No file system knows the URI, or it names no bucket.
    """
    if "://" not in uri:
        return fs.LocalFileSystem(), os.path.abspath(uri)
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SentrayError(
            f"{uri} cannot be opened ({first_line(error)}): give a path or a URI that pyarrow knows (s3://, gs://)"
        ) from error
    if not path and not isinstance(filesystem, fs.LocalFileSystem):
        raise SentrayError(f"{uri} names no bucket: give one, as in s3://BUCKET/reviews")
    return filesystem, path.rstrip("/")


def behind(uri: str, more: str) -> str:
    """A path or URI with more at the end of its path; a URI's query (`?region=…`) stays behind that."""
    path, mark, query = uri.partition("?") if "://" in uri else (uri, "", "")
    return f"{path.rstrip('/')}{more}{mark}{query}"


def is_remote(uri: str) -> bool:
    """Whether a path or URI is of another file system than this machine's."""
    return "://" in uri and not uri.startswith("file://")


def look_where(uri: str) -> str:
    """The cure where nothing is found under a path or URI."""
    if is_remote(uri):
        return "check the bucket and the key"
    return f"check the path (a relative one starts at {os.getcwd()})"


# --- What goes wrong


class UnsoundError(ValueError):
    """A file is not what it should be; the text says how, in a few words."""


# pyarrow raises Python's own errors for invalid UTF-8 and excessive numbers within Parquet.
_DECOMPRESSION = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, struct.error, NotImplementedError)
_SCARCE = (errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN)
_DAMAGED = (OSError, EOFError, pa.ArrowException, UnicodeError, OverflowError, *_DECOMPRESSION)


@contextlib.contextmanager
def reading(path: str, damaged: str = "it seems damaged; replace it or leave it out") -> Iterator[None]:
    """Turn whatever goes wrong while `path` is read into one sentence, which ends with `damaged` where that is so.

    Raises:
        SentrayError: the file is gone, damaged, cut short or may not be read.
        MemoryError: memory, open files or processes are scarce, which is no file's fault.
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
        if isinstance(error, OSError) and error.errno in _SCARCE:
            raise MemoryError(first_line(error)) from error
        raise SentrayError(f"{path} cannot be read ({first_line(error)}): {damaged}") from error


@contextlib.contextmanager
def refused(what: str, done: str, cure: str) -> Iterator[None]:
    """Turn a file system's refusal into one sentence, such as "`what` cannot be written (why); `cure`".

    Raises:
        SentrayError: When it refuses.
    """
    try:
        yield
    except (OSError, UnsoundError) as error:
        raise SentrayError(f"{what} cannot be {done} ({first_line(error)}); {cure}") from error


def read_pauses(filesystem: fs.FileSystem | None) -> tuple[float, ...]:
    """Seconds to wait before each further attempt to read: an object store may be busy or hang up, a disk is not."""
    return () if filesystem is None or isinstance(filesystem, fs.LocalFileSystem) else _PAUSES


# --- Whole files


def read_whole(filesystem: fs.FileSystem, path: str, max_bytes: int) -> bytes:
    """The content of a regular file of at most `max_bytes`.

    Raises:
        OSError: When it cannot be read.
        UnsoundError: When it is larger, or something that only looks like a file: opening a pipe would never end.
    """
    local = isinstance(filesystem, fs.LocalFileSystem)
    if local and filesystem.get_file_info(path).type == fs.FileType.Unknown:
        raise UnsoundError("it is no regular file")
    with filesystem.open_input_file(path) as stream:
        if stream.size() > max_bytes:
            raise UnsoundError(f"it has {stream.size():,} bytes, more than {max_bytes:,}")
        return bytes(stream.readall())


def sha256_of(stream: Any) -> str:
    """Digest of what a stream holds from its position on, 64 hexadecimal digits; read piece by piece."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


class Output:
    """A file that is being written: takes bytes, counts them and hashes them.

    Attributes:
        bytes: written so far.
    """

    closed = False

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._digest = stream, hashlib.sha256()
        self.bytes = 0

    def write(self, content: pa.Buffer | bytes) -> None:
        """Append to the file."""
        self._stream.write(content)
        self._digest.update(content)
        self.bytes += len(content)

    def flush(self) -> None:
        """Do nothing: the file counts only when it is whole. Arrow's writers ask for the method."""

    @property
    def sha256(self) -> str:
        """Digest of what was written, 64 hexadecimal digits."""
        return self._digest.hexdigest()


@contextlib.contextmanager
def create(file: str) -> Iterator[Output]:
    """Write a file, local or a URI, piece by piece, and make the folder it is in.

    It appears at the end of the block, or not at all when the block raises.

    Raises:
        SentrayError: It cannot be written.
    """
    filesystem, path = locate(file)
    write = _renamed(path) if isinstance(filesystem, fs.LocalFileSystem) else _uploaded(filesystem, path)
    with refused(file, "written", "choose another place"), write as output:
        yield output


@contextlib.contextmanager
def _renamed(path: str) -> Iterator[Output]:
    folder, base = os.path.split(path)
    half = f"{folder}/.{base}.{uuid.uuid4().hex}"
    try:
        os.makedirs(folder, exist_ok=True)
        with open(half, "wb") as stream:
            yield Output(stream)
            # Else a machine that loses power may keep the name and lose the content.
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(half, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(half)
        raise


@contextlib.contextmanager
def _uploaded(filesystem: fs.FileSystem, path: str) -> Iterator[Output]:
    """A stream to an object store publishes what it has when it is closed, so that it is opened last."""
    with tempfile.TemporaryFile() as spool:
        yield Output(spool)
        spool.seek(0)
        with filesystem.open_output_stream(path) as stream:
            shutil.copyfileobj(spool, stream, 1 << 23)


def write_text(file: str, content: str) -> None:
    """Write a UTF-8 file; see `create`."""
    with create(file) as stream:
        stream.write(content.encode())


def require_writable(file: str) -> None:
    """Find out before the work whether a file can be written at its end; of an object store only its name is looked at.

    Raises:
        SentrayError: It cannot.
    """
    filesystem, path = locate(file)
    if isinstance(filesystem, fs.LocalFileSystem):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            tempfile.TemporaryFile(dir=os.path.dirname(path)).close()
            reason = "it is a folder" if os.path.isdir(path) else ""
        except OSError as error:
            reason = error.strerror or first_line(error)
        if reason:
            raise SentrayError(f"{file} cannot be written ({reason}); choose another place")


class Folder:
    """A folder, local or on any pyarrow file system; a small value that travels to the workers.

    Args:
        out: Path or URI.

    Attributes:
        out: As given.
        local: Whether it is on this machine's file system.
        pauses: Seconds to wait before each further attempt to read; see `read_pauses`.

    Raises:
        SentrayError: When the file system cannot be reached.
    """

    def __init__(self, out: str) -> None:
        self.out = out.rstrip("/")
        self._filesystem, self._root = locate(out)
        self.local = isinstance(self._filesystem, fs.LocalFileSystem)
        self.pauses = read_pauses(self._filesystem)

    def path(self, name: str) -> str:
        """The path of a name in the folder, as its file system takes it."""
        return f"{self._root}/{name}".rstrip("/")

    def open_file(self, name: str) -> pa.NativeFile:
        """Open a file for random access; the caller closes it.

        Raises:
            FileNotFoundError: When it is not there.
            OSError: When it cannot be read.
        """
        return self._filesystem.open_input_file(self.path(name))

    def read(self, name: str, cure: str = _CURE) -> bytes | None:
        """The content of a file, None where there is none.

        Raises:
            SentrayError: When it cannot be read; it ends with the cure.
        """
        with refused(f"{self.out}/{name}", "read", cure):
            try:
                return read_whole(self._filesystem, self.path(name), _MAX_BYTES)
            except FileNotFoundError:
                return None

    def read_json(self, name: str, cure: str = _CURE) -> dict[str, Any] | None:
        """The value that a file holds as JSON, None where there is no file.

        Raises:
            SentrayError: When it cannot be read or is no JSON object; it ends with the cure.
        """
        content = self.read(name, cure)
        try:
            value = None if content is None else from_json(content)
            if not isinstance(value, dict | None):
                raise ValueError("it is no JSON object")
        except ValueError as error:
            raise self.damaged(name, error, cure) from error
        return value

    def damaged(self, name: str, error: BaseException, cure: str = _CURE) -> SentrayError:
        """The sentence for a file of the folder that is not what sentray wrote."""
        return SentrayError(f"{self.out}/{name} cannot be read ({first_line(error)}); {cure}")

    def names(self, folder: str = "") -> list[str]:
        """The files and folders in a folder, relative to this one.

        Raises:
            SentrayError: When it cannot be listed.
        """
        return [info.path[len(self._root) + 1 :] for info in self._infos(folder)]

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and bytes of the files in a folder at any depth, relative to this one.

        Raises:
            SentrayError: When it cannot be listed.
        """
        found = self._infos(folder, recursive=True)
        return {info.path[len(self._root) + 1 :]: info.size for info in found if info.type == fs.FileType.File}

    def _infos(self, folder: str, recursive: bool = False) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        with refused(self.out, "read", _CURE):
            return list(self._filesystem.get_file_info(selector))

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[Output]:
        """Write a file piece by piece; it appears at the end of the block, or not at all when the block raises.

        Raises:
            SentrayError: When the file system refuses, for instance because it is full.
        """
        path = self.path(name)
        write = _renamed(path) if self.local else _uploaded(self._filesystem, path)
        with refused(f"{self.out}/{name}", "written", _RETRY), write as output:
            yield output

    def write(self, name: str, content: pa.Buffer | bytes) -> None:
        """Put a file into the folder, whole or not at all; one of that name is replaced.

        Raises:
            SentrayError: When the file system refuses, for instance because it is full.
        """
        with self.create(name) as output:
            output.write(content)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a value as JSON for people to read."""
        self.write(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def move(self, source: str, target: str) -> None:
        """Give a file another name; one of that name is replaced. An object store copies it and deletes the old one.

        Raises:
            FileNotFoundError: When it is not there.
            SentrayError: When the file system refuses.
        """
        old, new = self.path(source), self.path(target)
        try:
            with refused(f"{self.out}/{target}", "written", _RETRY):
                if self.local:
                    os.makedirs(os.path.dirname(new), exist_ok=True)
                    os.replace(old, new)
                else:
                    self._filesystem.move(old, new)
        except SentrayError as error:
            if self._filesystem.get_file_info(old).type == fs.FileType.NotFound:
                raise FileNotFoundError(source) from error
            raise

    def delete(self, name: str) -> None:
        """Remove a file or a folder with all it holds; that it is gone already does not matter.

        Raises:
            SentrayError: When the file system refuses.
        """
        with refused(f"{self.out}/{name}", "removed", "check the permissions"), contextlib.suppress(FileNotFoundError):
            kind = self._filesystem.get_file_info(self.path(name)).type
            if kind == fs.FileType.Directory:
                self._filesystem.delete_dir(self.path(name))
            elif kind != fs.FileType.NotFound:
                self._filesystem.delete_file(self.path(name))
