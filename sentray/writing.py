"""Small result files: a text, and the settings that made it beside it."""

import contextlib
import json
import os
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import fs

from sentray.config import Settings
from sentray.corpus.files import first_line
from sentray.errors import SentrayError
from sentray.places import behind, locate

SETTINGS_FILE = "settings.json"


def write_settings_beside(file: str, settings: Settings) -> None:
    """Write the resolved settings as `FILE.settings.json`, for a result that is one file, local or a `pyarrow.fs` URI.

    It can be given to `--config` to run the same again.
    """
    write_text(behind(file, f".{SETTINGS_FILE}"), settings_text(settings))


def settings_text(settings: Settings) -> str:
    """The resolved settings as JSON."""
    values = settings.model_dump(mode="json", by_alias=True, exclude=set(settings.unused))
    return json.dumps(values, indent=2) + "\n"


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
