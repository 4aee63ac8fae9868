"""Paths and URIs: which file system has them, and how more is put behind them."""

import os

import pyarrow as pa
from pyarrow import fs

from sentray.corpus.files import first_line
from sentray.errors import SentrayError


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
