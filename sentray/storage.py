"""Files on any file system: paths and URIs, output folders whose files appear whole or not at all, bounded reads."""

import contextlib
import hashlib
import json
import mmap
import os
import re
import tempfile
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs as pafs
from pyarrow import fs

from sentray.errors import SentrayError

HALF_WRITTEN = re.compile(r"(?:.*/)?\.[^/]+\.[0-9a-f]{32}")
"""What a killed writer leaves behind, as a name within the folder."""
CURE = "choose another --out"
_MAX_BYTES = 1 << 28
"""Of a file that is read whole; those that sentray writes so have a tenth of it."""
_CHUNK = 8_000_000


def sha256_of(stream: pa.NativeFile) -> str:
    """Digest of what a stream holds from its place on, 64 hexadecimal digits; read piece by piece."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


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


class Folder:
    """A folder, local or on any pyarrow file system; a small value that travels to the workers.

    Args:
        out: Path or URI.

    Attributes:
        local: Whether this machine's file system has it.
        pauses: Seconds to wait before each further attempt to read; see `read_pauses`.

    Raises:
        SentrayError: When the place cannot be reached.
    """

    def __init__(self, out: str) -> None:
        self.out = out.rstrip("/")
        self._filesystem, root = locate(out)
        self._root = root.rstrip("/")
        self.local = isinstance(self._filesystem, pafs.LocalFileSystem)
        self.pauses = read_pauses(self._filesystem)

    def path(self, name: str) -> str:
        """Where the file system has a name of the folder."""
        return f"{self._root}/{name}".rstrip("/")

    def write(self, name: str, content: pa.Buffer | bytes) -> None:
        """Put a file into the folder, whole or not at all; one of that name is replaced.

        Raises:
            SentrayError: When the file system refuses, for instance because it is full.
        """
        with self.create(name) as output:
            output.write(content)

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[Output]:
        """Write a file piece by piece; it appears at the end of the block, or not at all when the block raises.

        Raises:
            SentrayError: When the file system refuses, for instance because it is full.
        """
        try:
            with (self._renamed if self.local else self._uploaded)(name) as output:
                yield output
        except OSError as error:
            raise SentrayError(
                f"{self.out}/{name} cannot be written ({first_line(error)}); make room or check the "
                "permissions, then run the same command again to go on"
            ) from error

    @contextlib.contextmanager
    def _renamed(self, name: str) -> Iterator[Output]:
        folder, base = os.path.split(self.path(name))
        half = f"{folder}/.{base}.{uuid.uuid4().hex}"
        try:
            os.makedirs(folder, exist_ok=True)
            with open(half, "wb") as stream:
                yield Output(stream)
                # Else a machine that loses power may keep the name and lose the content.
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(half, self.path(name))
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(half)
            raise

    @contextlib.contextmanager
    def _uploaded(self, name: str) -> Iterator[Output]:
        """A stream to an object store publishes what it has when it is closed, so that it is opened last."""
        with tempfile.TemporaryFile() as held:
            output = Output(held)
            yield output
            held.flush()
            content = mmap.mmap(held.fileno(), 0, access=mmap.ACCESS_READ) if output.bytes else b""
        with self._filesystem.open_output_stream(self.path(name)) as stream:
            stream.write(content)

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Write a value as JSON for people to read."""
        self.write(name, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())

    def open_file(self, name: str) -> pa.NativeFile:
        """Open a file for reading at any place; it is closed by the caller.

        Raises:
            FileNotFoundError: When it is not there.
            OSError: When it cannot be read, or is something that only looks like a file.
        """
        if self.local and self._filesystem.get_file_info(self.path(name)).type == pafs.FileType.Unknown:
            raise OSError(f"{name} is no regular file")
        return self._filesystem.open_input_file(self.path(name))

    def read(self, name: str, cure: str = CURE) -> bytes | None:
        """The content of a file, None where there is none.

        Raises:
            SentrayError: When it cannot be read; it ends with the cure.
        """
        try:
            return read_whole(self._filesystem, self.path(name), _MAX_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, UnsoundError) as error:
            raise self.damaged(name, error, cure) from error

    def read_json(self, name: str, cure: str = CURE) -> dict[str, Any] | None:
        """The value that a file holds as JSON, None where there is no file.

        Raises:
            SentrayError: When it cannot be read or is no JSON object; it ends with the cure.
        """
        content = self.read(name, cure)
        if content is None:
            return None
        try:
            value = parse_json(content)
            if not isinstance(value, dict):
                raise ValueError("it is no JSON object")
        except ValueError as error:
            raise self.damaged(name, error, cure) from error
        return value

    def damaged(self, name: str, error: BaseException, cure: str = CURE) -> SentrayError:
        """The sentence for a file of the folder that is not what sentray wrote."""
        return SentrayError(f"{self.out}/{name} cannot be read ({first_line(error)}); {cure}")

    def names(self, folder: str = "") -> list[str]:
        """What lies in a folder, relative to this one.

        Raises:
            SentrayError: When the place cannot be listed.
        """
        return [info.path[len(self._root) + 1 :] for info in self._infos(folder)]

    def sizes(self, folder: str) -> dict[str, int]:
        """Names and bytes of the files in a folder at any depth, relative to this one.

        Raises:
            SentrayError: When the place cannot be listed.
        """
        found = self._infos(folder, recursive=True)
        return {info.path[len(self._root) + 1 :]: info.size for info in found if info.type == pafs.FileType.File}

    def _infos(self, folder: str, recursive: bool = False) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True, recursive=recursive)
        try:
            return list(self._filesystem.get_file_info(selector))
        except OSError as error:
            raise SentrayError(f"{self.out} cannot be read ({first_line(error)}); {CURE}") from error

    def move(self, source: str, target: str) -> None:
        """Give a file another name; one of that name is replaced. An object store copies it and deletes the old one.

        Raises:
            FileNotFoundError: When it is not there.
            SentrayError: When the file system refuses.
        """
        try:
            if self.local:
                os.makedirs(os.path.dirname(self.path(target)), exist_ok=True)
                os.replace(self.path(source), self.path(target))
            else:
                self._filesystem.move(self.path(source), self.path(target))
        except FileNotFoundError:
            raise
        except OSError as error:
            if self._filesystem.get_file_info(self.path(source)).type == pafs.FileType.NotFound:
                raise FileNotFoundError(source) from error
            raise SentrayError(
                f"{self.out}/{target} cannot be written ({first_line(error)}); make room or check the "
                "permissions, then run the same command again to go on"
            ) from error

    def delete(self, name: str) -> None:
        """Remove a file or a folder with all it holds; that it is gone already does not matter.

        Raises:
            SentrayError: When the file system refuses.
        """
        try:
            kind = self._filesystem.get_file_info(self.path(name)).type
            if kind == pafs.FileType.Directory:
                self._filesystem.delete_dir(self.path(name))
            elif kind != pafs.FileType.NotFound:
                self._filesystem.delete_file(self.path(name))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise SentrayError(
                f"{self.out}/{name} cannot be removed ({first_line(error)}); check the permissions"
            ) from error


class UnsoundError(ValueError):
    """A file is not what it should be; the text says how, in a few words."""


def read_whole(filesystem: fs.FileSystem, path: str, most: int) -> bytes:
    """The content of a regular file.

    Args:
        filesystem: Where it lies.
        path: Its name there.
        most: Bytes that it may have.

    Raises:
        OSError: When it cannot be read.
        UnsoundError: When it is larger, or something that only looks like a file: to open a pipe would wait for ever.
    """
    if isinstance(filesystem, fs.LocalFileSystem) and filesystem.get_file_info(path).type == fs.FileType.Unknown:
        raise UnsoundError("it is no regular file")
    with filesystem.open_input_file(path) as stream:
        if stream.size() > most:
            raise UnsoundError(f"it has {stream.size():,} bytes, more than {most:,}")
        return bytes(stream.readall())


def parse_json(content: bytes) -> Any:
    """The value that UTF-8 bytes hold as JSON.

    Raises:
        ValueError: When they hold none, or one that is nested too deeply or has text that is no Unicode.
    """
    try:
        value = json.loads(content.decode())
        if b"\\u" in content:
            # JSON may escape half of a surrogate pair, which no one can write any more.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise UnsoundError("it is nested too deeply") from error
    return value


def locate(place: str) -> tuple[fs.FileSystem, str]:
    """The file system that has a path or a URI, and the absolute path in it, without a slash at its end.

    Raises:
        SentrayError: No file system knows the URI, or it names no bucket.
    """
    if "://" not in place:
        return fs.LocalFileSystem(), os.path.abspath(place)
    try:
        filesystem, path = fs.FileSystem.from_uri(place)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SentrayError(
            f"{place} cannot be opened ({first_line(error)}): give a path or a URI that pyarrow knows (s3://, gs://)"
        ) from error
    if not path and not isinstance(filesystem, fs.LocalFileSystem):
        raise SentrayError(f"{place} names no bucket: give one, as in s3://BUCKET/reviews")
    return filesystem, path.rstrip("/")


def behind(place: str, more: str) -> str:
    """A path or URI with more at the end of its path; a URI's query (`?region=…`) stays behind that."""
    path, mark, query = place.partition("?") if "://" in place else (place, "", "")
    return f"{path.rstrip('/')}{more}{mark}{query}"


def write_text(file: str, content: str) -> None:
    """Write a UTF-8 file; see `create`."""
    with create(file) as stream:
        stream.write(content.encode())


@contextlib.contextmanager
def create(file: str) -> Iterator[Any]:
    """Open a file to be written, local or a URI, and make the folder it is in.

    Raises:
        SentrayError: It cannot be written.
    """
    filesystem, path = locate(file)
    try:
        if isinstance(filesystem, fs.LocalFileSystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with filesystem.open_output_stream(path) as stream:
            yield stream
    except (OSError, pa.ArrowException) as error:
        raise SentrayError(f"{file} cannot be written ({first_line(error)}); choose another place") from error


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
