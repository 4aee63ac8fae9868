"""From a URI to the files of a corpus: `nltk:movie_reviews`, `synthetic:N`, or files, folders and globs."""

import os
import posixpath
import re
from dataclasses import dataclass, replace
from typing import Literal

from pyarrow import fs

from sentray import nltk_data
from sentray.console import count
from sentray.corpus.files import require_bytes
from sentray.errors import SentrayError
from sentray.storage import first_line, locate

Format = Literal["csv", "jsonl", "parquet", "text", "nltk", "synthetic"]

WITH_COLUMNS = ("csv", "jsonl", "parquet")
"""Formats whose files have columns, so that a column may give the ids."""
NLTK_RESOURCE = "corpora/movie_reviews"
_SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "text",
}
_READABLE = ".csv, .jsonl, .ndjson and .json (each also .gz), .parquet, and folders of .txt"
_SPLIT_FOLDERS = ("train", "test", "valid", "validation", "val", "dev")
_UNLABELLED_FOLDER = "unsup"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a corpus.

    Attributes:
        path: where the file system has it; the entry's name for NLTK's data.
        name: relative to the URI's root, with `/` between folders; what ids are made of.
        size: in bytes, as stored.
        modified: time of the last change in nanoseconds since 1970, where the file system tells.
        label: class of its only review, for a file that is one review.
        split: train, test or unsup, where the folder or NLTK's convention says.
    """

    path: str
    name: str
    size: int
    modified: int | None = None
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Source:
    """What a URI stands for.

    Attributes:
        uri: as the user gave it.
        format: of every file.
        files: sorted by name; none for `synthetic`.
        filesystem: where the paths are valid; None for `nltk` and `synthetic`, which each machine has itself.
        rows: how many reviews, for `synthetic`.
        seed: of the generator, for `synthetic`.
        ignored: files under the root that are no part of the corpus, such as a README.
    """

    uri: str
    format: Format
    files: tuple[SourceFile, ...] = ()
    filesystem: fs.FileSystem | None = None
    rows: int = 0
    seed: int = 0
    ignored: int = 0

    @property
    def bytes(self) -> int:
        """Size of all files together, as stored."""
        return sum(file.size for file in self.files)

    @property
    def local_file(self) -> str | None:
        """Path of one of the files where they lie on this machine, by which other machines can be asked for them."""
        return self.files[0].path if self.files and isinstance(self.filesystem, fs.LocalFileSystem) else None

    def lean(self) -> "Source":
        """The same without the list of files: all a worker needs to read a shard."""
        return replace(self, files=())

    def describe(self) -> str:
        """One line for the user: what, how many files, how large."""
        if self.format == "synthetic":
            return f"{self.uri}: {self.rows:,} generated reviews"
        ignored = f", {self.ignored:,} others ignored" if self.ignored else ""
        kind = "text" if self.format == "nltk" else self.format
        return f"{self.uri}: {count(len(self.files), 'file')} ({kind}), {self.bytes / 1e6:,.1f} MB{ignored}"


def resolve(uri: str) -> Source:
    """Find what a URI stands for, without reading any review.

    Args:
        uri: `nltk:movie_reviews`, `synthetic:N` or `synthetic:N?seed=S`, or a file, a folder or a glob (`*`,
            `?`, `[…]`, `**/`), as a path or as a URI of any pyarrow file system (`s3://`, `gs://`, …).

    Raises:
        SentrayError: there is nothing there, nothing readable, or several formats at once.
    """
    if uri.startswith("nltk:"):
        return _resolve_nltk(uri)
    if uri.startswith("synthetic:"):
        return _resolve_synthetic(uri)
    filesystem, path = _file_system(uri)
    root, infos = _list_files(uri, filesystem, path)
    alone = [info.path for info in infos] == [path]
    files = []
    for info in infos:
        name = info.path[len(root) :]
        if alone or not re.search(r"(^|/)[._]", name):
            if info.type != fs.FileType.File:
                raise SentrayError(f"{info.path} is no regular file: delete it, or name the others")
            files.append(SourceFile(info.path, name, info.size, info.mtime_ns))
    return _of_files(uri, filesystem, sorted(files, key=lambda file: file.name), alone)


def _resolve_nltk(uri: str) -> Source:
    if uri != "nltk:movie_reviews":
        raise SentrayError(f"{uri} is not a corpus that sentray knows: of NLTK's data it reads nltk:movie_reviews")
    path = nltk_data.find(NLTK_RESOURCE)
    if path is None:
        raise SentrayError(
            "nltk:movie_reviews is not on this machine and could not be downloaded: set NLTK_DATA to a "
            "folder that holds corpora/movie_reviews, or try synthetic:5000"
        )
    files = []
    for name, size in nltk_data.members(path).items():
        label, base = posixpath.split(name)
        if label and base.endswith(".txt"):
            files.append(SourceFile(name, name, size, None, label, "test" if base.startswith("cv9") else "train"))
    if not files:
        raise SentrayError(f"{path} holds no review (neg/*.txt, pos/*.txt): delete it and download it again")
    return Source(uri, "nltk", tuple(files))


def _resolve_synthetic(uri: str) -> Source:
    match = re.fullmatch(r"synthetic:([\d_]*\d)(?:\?seed=(\d+))?", uri)
    if match is None or int(match[1]) == 0:
        raise SentrayError(f"{uri} is not understood: write synthetic:N or synthetic:N?seed=S, as in synthetic:5000")
    return Source(uri, "synthetic", rows=int(match[1]), seed=int(match[2] or 0))


def _file_system(uri: str) -> tuple[fs.FileSystem, str]:
    if "://" not in uri:
        return locate(os.path.expanduser(uri))
    # A glob is no valid URI, so that only what stands before it is parsed.
    address, _, query = uri.partition("?")
    literal, glob = _split_glob(address)
    filesystem, path = locate(literal + ("?" + query if query else ""))
    return filesystem, f"{path}/{glob}" if glob else path


def _split_glob(path: str) -> tuple[str, str]:
    """The folder before the first part with a wildcard, and the rest ("" where there is none)."""
    wildcard = re.search(r"[*?\[]", path)
    if wildcard is None:
        return path, ""
    slash = path.rindex("/", 0, wildcard.start())
    return path[:slash], path[slash + 1 :]


def _list_files(uri: str, filesystem: fs.FileSystem, path: str) -> tuple[str, list[fs.FileInfo]]:
    """The URI's root folder, and all files that the URI names under it."""
    try:
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:
            return path[: path.rfind("/") + 1], [info]
        folder, glob = (path, "**") if info.type == fs.FileType.Directory else _split_glob(path)
        if not glob:
            raise SentrayError(
                f"there is no file or folder {uri}: check the path (a relative one starts at {os.getcwd()})"
            )
        found = [(found.path, found) for found in _listed(filesystem, folder)]
    except UnicodeError as error:
        raise SentrayError(f"{uri} holds a file whose name is not UTF-8: rename it, or name the others") from error
    except OSError as error:
        raise SentrayError(
            f"{uri} cannot be listed ({first_line(error)}): check the address and your rights"
        ) from error
    root = folder.rstrip("/") + "/"
    pattern = re.compile(_glob_pattern(glob), re.DOTALL)
    files = [
        each for path, each in found if each.type != fs.FileType.Directory and pattern.fullmatch(path[len(root) :])
    ]
    if not files:
        raise SentrayError(f"{uri} names no file: check the path, or fill the folder first")
    return root, files


def _listed(filesystem: fs.FileSystem, folder: str) -> list[fs.FileInfo]:
    """All that lies in a folder at any depth. Links to folders are followed, but each folder is read once."""
    if not isinstance(filesystem, fs.LocalFileSystem):
        return list(filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True)))
    found: list[fs.FileInfo] = []
    folders, seen = [folder], set[str]()
    while folders:
        path = folders.pop()
        if (real := os.path.realpath(path)) not in seen:
            seen.add(real)
            infos = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
            found += infos
            inner = sorted(info.path for info in infos if info.type == fs.FileType.Directory)
            # Links come last, so that a folder keeps its own name where that is under the root too.
            links = [path for path in inner if os.path.islink(path)]
            folders = links[::-1] + folders + [path for path in inner if path not in links]
    return found


def _glob_pattern(glob: str) -> str:
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}

    def translate(token: re.Match[str]) -> str:
        if token[0].startswith("[") and len(token[0]) > 2:
            return "[" + token[0][1:-1].replace("\\", "\\\\").replace("!", "^", token[0][1] == "!") + "]"
        return parts.get(token[0]) or re.escape(token[0])

    return re.sub(r"\*\*/|\*\*|\*|\?|\[!?[^/\]]+\]|.", translate, glob, flags=re.DOTALL)


def _of_files(uri: str, filesystem: fs.FileSystem, found: list[SourceFile], alone: bool) -> Source:
    by_format: dict[Format, list[SourceFile]] = {}
    for file in found:
        if (kind := _format_of(file.name)) is not None:
            by_format.setdefault(kind, []).append(file)
    if "text" in by_format:
        reviews = _reviews_in_folders(by_format.pop("text"), optional=bool(by_format))
        if reviews and alone:
            raise SentrayError(f"{uri} is one review: give the folder it lies in, or a .csv or .jsonl file of reviews")
        by_format |= {"text": reviews} if reviews else {}
    if not by_format:
        raise SentrayError(f"{uri} holds no file that sentray reads: it reads {_READABLE}")
    if len(by_format) > 1:
        kinds = " and ".join(f"{len(files):,} {kind}" for kind, files in sorted(by_format.items()))
        raise SentrayError(f"{uri} mixes formats ({kinds} files): name one of them, as in {uri.rstrip('/')}/*.csv")
    kind, files = by_format.popitem()
    if kind != "text" and not any(file.size for file in files):
        require_bytes(files[0].path, 0)
    return Source(uri, kind, tuple(files), filesystem, ignored=len(found) - len(files))


def _format_of(name: str) -> Format | None:
    plain = name.lower().removesuffix(".gz")
    kind = _SUFFIXES.get(posixpath.splitext(plain)[1])
    return None if name.lower() != plain and kind in ("parquet", "text") else kind


def _reviews_in_folders(files: list[SourceFile], optional: bool) -> list[SourceFile]:
    """Give each file its folder's label and split, and leave out files beside the class folders.

    Args:
        files: all .txt files.
        optional: whether there are files of another format, beside which a .txt in no class folder is a note.
    """
    reviews = [replace(file, label=label, split=split) for file in files for label, split in [_folders(file.name)]]
    if optional or any(file.label for file in reviews):
        return [file for file in reviews if file.label or file.split == _UNLABELLED_FOLDER]
    return reviews


def _folders(name: str) -> tuple[str | None, str | None]:
    """Label and split by the folders of a name, such as `train/pos/1.txt`."""
    *folders, _ = name.split("/")
    label = folders[-1] if folders else None
    if label == _UNLABELLED_FOLDER:
        return None, _UNLABELLED_FOLDER
    if label in _SPLIT_FOLDERS:
        return None, label
    return label, folders[-2] if len(folders) > 1 and folders[-2] in _SPLIT_FOLDERS else None
