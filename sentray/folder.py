"""An output folder on any file system: files appear in it under their names whole or not at all."""

import contextlib
import hashlib
import json
import mmap
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.fs as pafs

from sentray.corpus.files import first_line, read_pauses
from sentray.errors import SentrayError
from sentray.places import locate
from sentray.untrusted import UnsoundError, parse_json, read_whole

HALF_WRITTEN = re.compile(r"(?:.*/)?\.[^/]+\.[0-9a-f]{32}")
"""What a killed writer leaves behind, as a name within the folder."""
CURE = "choose another --out"
_MOST_BYTES = 1 << 28
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
            return read_whole(self._filesystem, self.path(name), _MOST_BYTES)
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
