"""Where a finished bundle is put: the place is seen to be free, and then holds the bundle whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from sentray.bundle import MANIFEST, Bundle, load, pack
from sentray.errors import SentrayError
from sentray.storage import Folder, first_line

UNFINISHED = ".unfinished"
"""Lies in a remote place while a bundle is put there, so that a run that was killed meanwhile may do it again."""


def publish(bundle: Bundle, out: str, records: Mapping[str, bytes] | None = None) -> Bundle:
    """Put a finished bundle at `out`, whole or not at all; a bundle that was there is replaced.

    A local folder appears under its name by renaming. An object store cannot rename: there the old bundle is no
    bundle any more before the first new file comes, and the new one is none before the last, `bundle.json`.

    Args:
        bundle: The bundle.
        out: Folder to make, as a path or a URI of a pyarrow file system.
        records: Further files to put beside the bundle's own, by name; the digest does not cover them.

    Raises:
        SentrayError: When `out` holds something that is not a bundle, or cannot be written.
    """
    check_free(out)
    place, files = Folder(out), {**(records or {}), **pack(bundle)}
    if place.local:
        try:
            _rename(files, Path(place.path("")))
        except OSError as error:
            raise SentrayError(
                f"{out} cannot be written ({first_line(error)}); make room or check the permissions, then run the same "
                "command again to go on"
            ) from error
    else:
        _upload(files, place)
    return load(out)


def check_free(out: str) -> None:
    """Refuse a place for a new bundle that holds something else.

    Raises:
        SentrayError: When `out` cannot be reached, is a file, or has content that is no bundle.
    """
    place = Folder(out)
    if place.local:
        path = Path(place.path(""))
        taken = path.exists() and not (path / MANIFEST).exists() and (not path.is_dir() or any(path.iterdir()))
    else:
        names = place.names()
        taken = bool(names) and not {MANIFEST, UNFINISHED} & set(names)
    if taken:
        raise SentrayError(f"{out} exists and is not a bundle; choose another --out, or remove it")


def _rename(files: Mapping[str, bytes], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        new, old = Folder(f"{scratch}/new"), Path(scratch) / "old"
        for name, content in files.items():
            new.write(name, content)
        try:
            if out.exists():
                os.rename(out, old)
            os.rename(new.path(""), out)
        except BaseException:
            # What is left in here when it ends is removed.
            if old.exists() and not out.exists():
                os.rename(old, out)
            raise


def _upload(files: Mapping[str, bytes], place: Folder) -> None:
    place.write(UNFINISHED, b"")
    place.delete(MANIFEST)
    for name in set(place.names()) - {UNFINISHED, *files}:
        place.delete(name)
    for name in sorted(files, key=lambda name: name == MANIFEST):
        place.write(name, files[name])
    place.delete(UNFINISHED)
