"""What is read from places that anyone may have written to: whole files of bounded size, and JSON."""

import json
from typing import Any

from pyarrow import fs


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
