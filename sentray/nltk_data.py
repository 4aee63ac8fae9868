"""NLTK's data where it can be had: found in the folders that NLTK itself uses, else downloaded once."""

import contextlib
import functools
import os
import sys
import threading
import zipfile
from pathlib import Path

from sentray.errors import SentrayError

_CONNECT_SECONDS = 5.0
_DOWNLOAD_SECONDS = 60.0


def find(resource: str) -> Path | None:
    """Where a resource of NLTK's data lies on this machine.

    A resource that is nowhere is downloaded into the home folder, quietly: one attempt a process, which is given up
    where the server gives no answer within 5 s.

    Args:
        resource: folder and name as NLTK calls them, such as `corpora/movie_reviews`.

    Returns:
        The resource's folder or zip file (whose entries lie under the resource's name), or None.
    """
    return _found(resource) or _downloaded(resource)


def read(path: Path, member: str) -> bytes:
    """The bytes of one file of a resource that `find` found.

    Raises:
        SentrayError: the resource holds no such file or is damaged.
    """
    try:
        if path.is_dir():
            return (path / member).read_bytes()
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"{path.stem}/{member}")
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise SentrayError(
            f"{member} can't be read from NLTK's data at {path}; delete that and download it again"
        ) from error


def members(path: Path) -> dict[str, int]:
    """The sizes in bytes of all files of a resource that `find` found, by their sorted names relative to the resource.

    Raises:
        SentrayError: the resource is damaged.
    """
    try:
        if path.is_dir():
            files = [file for file in path.rglob("*") if file.is_file()]
            sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
        else:
            with zipfile.ZipFile(path) as archive:
                sizes = {entry.filename: entry.file_size for entry in archive.infolist() if not entry.is_dir()}
    except (OSError, zipfile.BadZipFile) as error:
        raise SentrayError(f"NLTK's data at {path} is damaged; delete it and download it again") from error
    return {name.removeprefix(f"{path.stem}/"): sizes[name] for name in sorted(sizes)}


def _found(resource: str) -> Path | None:
    """The resource in the folders that NLTK looks in, in its order."""
    folders = [folder for folder in os.environ.get("NLTK_DATA", "").split(os.pathsep) if folder]
    roots = [sys.prefix, f"{sys.prefix}/share", f"{sys.prefix}/lib"]
    roots += ["/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib"]
    for folder in (*folders, _home(), *(f"{root}/nltk_data" for root in roots)):
        for path in (Path(folder, resource), Path(folder, f"{resource}.zip")):
            if path.exists():
                return path
    return None


def _home() -> str:
    return os.path.expanduser("~/nltk_data")


@functools.cache
def _downloaded(resource: str) -> Path | None:
    """Let NLTK download, in a thread: looking up a host name can block for longer than any socket's time-out."""
    answered = threading.Event()

    def fetch() -> None:
        from nltk.downloader import Downloader

        # A server that answers with anything but NLTK's list makes it raise what it will.
        with contextlib.suppress(Exception):
            downloader = Downloader(download_dir=_home())
            # The list of packages is the first thing NLTK asks the server for.
            downloader.packages()
            answered.set()
            downloader.download(resource.rpartition("/")[2], quiet=True)
        answered.set()

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    if answered.wait(_CONNECT_SECONDS):
        thread.join(_DOWNLOAD_SECONDS)
    return _found(resource)
