"""Small result files: a text, and the settings that made it beside it."""

import json
from pathlib import Path

from sentray.config import Settings
from sentray.errors import SentrayError

SETTINGS_FILE = "settings.json"


def write_settings_beside(file: str, settings: Settings) -> None:
    """Write the resolved settings as `FILE.settings.json`, for a result that is one file, local or a `pyarrow.fs` URI.

    It can be given to `--config` to run the same again.
    """
    write_text(behind(file, f".{SETTINGS_FILE}"), settings_text(settings))


def behind(place: str, more: str) -> str:
    """A path or URI with more at the end of its path; a URI's query (`?region=…`) stays behind that."""
    path, mark, query = place.partition("?") if "://" in place else (place, "", "")
    return f"{path.rstrip('/')}{more}{mark}{query}"


def settings_text(settings: Settings) -> str:
    """The resolved settings as JSON."""
    values = settings.model_dump(mode="json", by_alias=True, exclude=set(settings.unused))
    return json.dumps(values, indent=2) + "\n"


def write_text(file: str, content: str) -> None:
    """Write a UTF-8 file, local or a `pyarrow.fs` URI, and the folder it is in."""
    if "://" not in file:
        try:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text(content, encoding="utf-8", newline="\n")
        except OSError as error:
            raise SentrayError(f"{file} cannot be written ({error.strerror}); choose another place") from error
        return
    from pyarrow import fs

    file_system, path = fs.FileSystem.from_uri(file)
    with file_system.open_output_stream(path) as stream:
        stream.write(content.encode())
