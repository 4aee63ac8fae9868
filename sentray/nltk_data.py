"""NLTK's data where it can be had: found in the folders that NLTK itself uses, else downloaded once."""

import contextlib
import os
import sys
import threading
import time
import zipfile
from pathlib import Path

from sentray.errors import SentrayError

_CONNECT_SECONDS = 5.0
_DOWNLOAD_SECONDS = 60.0

_attempted: set[str] = set()
_unreachable = False


def folders() -> list[Path]:
    """The folders that NLTK looks in, in its order: `NLTK_DATA`, the home folder, the prefix, the system."""
    given = [Path(name) for name in os.environ.get("NLTK_DATA", "").split(os.pathsep) if name]
    roots = [sys.prefix, f"{sys.prefix}/share", f"{sys.prefix}/lib", os.environ.get("APPDATA")]
    roots += ["/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib"]
    return [*given, _home(), *(Path(root, "nltk_data") for root in roots if root)]


def find(resource: str, download: bool = True) -> Path | None:
    """Where a resource of NLTK's data lies on this machine.

    A resource that is nowhere is downloaded into the home folder, quietly: one attempt a process, and none
    after the server gave no answer within 5 s.

    Args:
        resource: folder and name as NLTK calls them, such as `corpora/movie_reviews`.
        download: whether to try a download.

    Returns:
        The resource's folder or zip file (whose entries lie under the resource's name), or None.
    """
    for folder in folders():
        for path in (folder / resource, folder / f"{resource}.zip"):
            if path.is_dir() or (path.suffix == ".zip" and path.is_file()):
                return path
    if not download or _unreachable or resource in _attempted:
        return None
    _attempted.add(resource)
    _download(resource)
    return find(resource, download=False)


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
            prefix = f"{path.stem}/"
            with zipfile.ZipFile(path) as archive:
                entries = [entry for entry in archive.infolist() if entry.filename.startswith(prefix)]
            sizes = {entry.filename.removeprefix(prefix): entry.file_size for entry in entries if not entry.is_dir()}
    except (OSError, zipfile.BadZipFile) as error:
        raise SentrayError(f"NLTK's data at {path} is damaged; delete it and download it again") from error
    return dict(sorted(sizes.items()))


def _home() -> Path:
    return Path(os.path.expanduser("~"), "nltk_data")


def _download(resource: str) -> None:
    """Let NLTK download, in a thread: looking up a host name can block for longer than any socket's time-out."""
    global _unreachable
    answered = threading.Event()
    thread = threading.Thread(target=_fetch, args=(resource, answered), daemon=True)
    thread.start()
    deadline = time.monotonic() + _CONNECT_SECONDS
    while thread.is_alive() and not answered.is_set() and time.monotonic() < deadline:
        thread.join(0.02)
    _unreachable = not answered.is_set()
    if answered.is_set():
        thread.join(_DOWNLOAD_SECONDS)


def _fetch(resource: str, answered: threading.Event) -> None:
    from nltk.downloader import Downloader

    with contextlib.suppress(OSError, ValueError):
        downloader = Downloader(download_dir=str(_home()))
        # The list of packages is the first thing NLTK asks the server for.
        downloader.packages()
        answered.set()
        downloader.download(resource.rpartition("/")[2], quiet=True)
