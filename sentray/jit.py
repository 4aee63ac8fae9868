"""`njit`: Numba's compiler, which keeps what it compiled wherever it may write: by the code, at home, or in TMPDIR."""

import contextlib
import functools
import os
import stat
import tempfile
from pathlib import Path

import numba
from numba.core import config

NOTE = (
    "compiled code can be kept nowhere (packages, home and temporary folder cannot be written), so that each process "
    "compiles anew, for some ten seconds: name a folder in NUMBA_CACHE_DIR"
)


def caches() -> bool:
    """Whether compiled code can be kept; where only the temporary folder is left for it, Numba is told to use that."""
    if _finds_place():
        return True
    with contextlib.suppress(OSError):
        folder = Path(tempfile.gettempdir()) / f"sentray-compiled-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        # What lies there is run: it must be nobody else's, nor a link to it.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022:
            config.CACHE_DIR = str(folder)
            return _finds_place()
    return False


def _finds_place() -> bool:
    try:
        numba.njit(cache=True)(_finds_place)
    except RuntimeError:
        return False
    return True


CACHED = caches()
"""Whether compiled code is kept for the next process."""
njit = functools.partial(numba.njit, cache=CACHED)
