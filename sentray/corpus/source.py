"""From a URI to the files of a corpus: `nltk:movie_reviews`, `synthetic:N`, or files, folders and globs."""

import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pyarrow import fs

from sentray import nltk_data
from sentray.config import CorpusSettings, Lines
from sentray.console import count
from sentray.corpus.files import excel, look_into, require_bytes, split_member
from sentray.corpus.names import keys_of, labels_of, split_of, without_split
from sentray.corpus.rows import SPLIT_OF_WORD
from sentray.errors import SentrayError
from sentray.storage import first_line, is_remote, locate, look_where

Format = Literal["csv", "jsonl", "parquet", "arrow", "lines", "text", "nltk", "synthetic"]

TYPED = ("parquet", "arrow")
"""Formats whose columns have types, which a file says without its rows."""
WITH_COLUMNS = ("csv", "jsonl", *TYPED)
"""Formats whose files have columns, so that a column may give the ids."""
NLTK_RESOURCE = "corpora/movie_reviews"
_SUFFIXES: dict[str, Format] = {
    **dict.fromkeys((".csv", ".tsv", ".tab"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".parq", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "arrow"),
    ".txt": "text",
}
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_READABLE = (
    ".csv, .tsv, .jsonl, .ndjson and .json (each also .gz, .bz2, .xz, .zst, .zip), .parquet, .arrow, .feather, folders "
    "of .txt, and with --lines files with a review a line"
)
_no_corpus = re.compile(
    # What Hugging Face's datasets writes beside its files.
    r"(.*/)?((dataset_dict|dataset_infos?|state)\.json|cache-\w+\.arrow)"
).fullmatch
_no_lines = re.compile(
    r"(?i)(.*/)?((.*[^a-z])?(readme|licen[cs]e|copying|notice|changelog|makefile)([^a-z].*)?"
    r"|.*\.(md|rst|html?|pdf|py|ipynb|sh|ya?ml|toml|lock|crc|log|png|jpe?g|gif|docx?|xls[xm]?))"
).fullmatch
"""Files that are no reviews, where their names do not tell what they hold."""
_EXCEL = (".xls", ".xlsx", ".xlsm")
_EXCEL_97 = b"\xd0\xcf\x11\xe0"
_SHOWN = 3
"""Ignored files and labels that are named."""
_LOOKED_AT = 8
"""Files of text in which fastText's labels are looked for."""
_HOW_LINES = "say how the lines hold reviews: --lines text, label-first (`label text`) or label-last (`text TAB label`)"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a corpus.

    Attributes:
        path: where the file system has it; the entry's name for NLTK's data.
        name: relative to the URI's root, with `/` between folders; what ids are made of.
        size: in bytes, as stored.
        modified: time of the last change in nanoseconds since 1970, where the file system tells.
        label: class of its reviews, where its folder or its name says.
        split: train, test, validation or unsup, where its folders, its name or NLTK's convention say.
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
        ignored: names of files under the root that are no part of the corpus, such as a README.
        lines: what is on a line, for `lines`.
    """

    uri: str
    format: Format
    files: tuple[SourceFile, ...] = ()
    filesystem: fs.FileSystem | None = None
    rows: int = 0
    seed: int = 0
    ignored: tuple[str, ...] = ()
    lines: Lines | None = None

    @property
    def bytes(self) -> int:
        """Size of all files together, as stored."""
        return sum(file.size for file in self.files)

    @property
    def local_file(self) -> str | None:
        """Path of one of the files where they lie on this machine, by which other machines can be asked for them."""
        local = self.files and isinstance(self.filesystem, fs.LocalFileSystem)
        return split_member(self.files[0].path)[0] if local else None

    def lean(self) -> "Source":
        """The same without the list of files: all a worker needs to read a shard."""
        return replace(self, files=(), ignored=())

    def describe(self) -> str:
        """One line for the user: what, how many files, how large."""
        if self.format == "synthetic":
            return f"{self.uri}: {self.rows:,} generated reviews"
        kind = {"nltk": "text", "lines": f"{self.lines} lines"}.get(self.format, self.format)
        kind = "lines of text" if self.lines == "text" else kind
        size = f"{count(len(self.files), 'file')} ({kind}), {self.bytes / 1e6:,.1f} MB"
        others = f", {count(len(self.ignored), 'other')} ignored ({_first(self.ignored)})" if self.ignored else ""
        return f"{self.uri}: {size}{self._said()}{others}"

    def _said(self) -> str:
        """What was taken from the names of files and folders."""
        if self.filesystem is None:
            return ""
        said = ""
        if any(file.split for file in self.files):
            unless = ", unless a column says it" if self.format in WITH_COLUMNS else ""
            said += f", split from names{unless}: {_counts(file.split or 'none' for file in self.files)}"
        if any(file.label for file in self.files):
            said += f", label from names: {_counts(file.label or 'none' for file in self.files)}"
        if keys := sorted({key for file in self.files if "=" in file.name for key in keys_of(file.name)}):
            said += f", columns from folders: {', '.join(keys)}"
        return said


def _counts(values: Iterable[str]) -> str:
    """How often each value occurs, such as `train 3 files, test 1`."""
    (first, files), *more = Counter(values).most_common()
    shown = [f"{first} {count(files, 'file')}", *(f"{value} {files:,}" for value, files in more[: _SHOWN + 1])]
    return ", ".join(shown) + ", …" * (len(more) > _SHOWN + 1)


def _first(names: Sequence[str]) -> str:
    """Some of the names, for a message."""
    return ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)


def resolve(uri: str, settings: CorpusSettings | None = None) -> Source:
    """Find what a URI stands for, without reading any review.

    Args:
        uri: `nltk:movie_reviews`, `synthetic:N` or `synthetic:N?seed=S`, or a file, a folder or a glob (`*`,
            `?`, `[…]`, `**/`), as a path or as a URI of any pyarrow file system (`s3://`, `gs://`, …); of a zip
            archive one member, as in `FILE.zip#MEMBER`.
        settings: say what the lines of files are, and whether their names are labels.

    Raises:
        SentrayError: there is nothing there, nothing readable, or several formats at once.
    """
    if uri.startswith("nltk:"):
        return _resolve_nltk(uri)
    if uri.startswith("synthetic:"):
        return _resolve_synthetic(uri)
    address, member = split_member(uri)
    filesystem, path = _file_system(address)
    root, infos = _list_files(address, filesystem, path)
    alone = [info.path for info in infos] == [path]
    files = []
    for info in infos:
        name = info.path[len(root) :]
        if alone or not re.search(r"(^|/)[._]", name):
            if info.type != fs.FileType.File:
                raise SentrayError(f"{info.path} is no regular file: delete it, or name the others")
            file = SourceFile(info.path, name, info.size, info.mtime_ns)
            files.append(_in_archive(file, member) if member else file)
    files.sort(key=lambda file: file.name)
    return _of_files(uri, filesystem, files, alone, settings or CorpusSettings())


def require_apart(uri: str, out: str) -> None:
    """Refuse an output in the input, where the next run would find it, and an input in the output.

    Args:
        uri: of the input.
        out: path or URI of the file or folder to write.

    Raises:
        SentrayError: one lies in the other.
    """
    if uri == "-" or uri.startswith(("nltk:", "synthetic:")):
        return
    (source, path), (target, written) = _file_system(split_member(uri)[0]), locate(os.path.expanduser(out))
    if source != target:
        return
    try:
        exact = source.get_file_info(path).type != fs.FileType.NotFound
    except OSError:
        # Who reads the input says why it cannot be.
        return
    folder, glob = (path, "") if exact else _split_glob(path)
    if isinstance(source, fs.LocalFileSystem):
        folder, written = os.path.realpath(folder), os.path.realpath(written)
    inner = written.removeprefix(folder + "/")
    # Most globs do not reach into folders.
    reached = not glob or "**" in glob or re.fullmatch(_glob_pattern(glob), inner, re.DOTALL)
    if written == folder or folder.startswith(written + "/"):
        raise SentrayError(f"the input {uri} lies in --out {out}: give the output a folder of its own")
    if inner != written and reached:
        raise SentrayError(
            f"--out {out} lies in the input {uri}, where the next run would take it for reviews: choose one outside"
        )


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
            raise SentrayError(f"there is no file or folder {uri}: {look_where(uri)}")
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
        where = (
            "no key begins so; check bucket and key" if is_remote(uri) else "check the path, or fill the folder first"
        )
        raise SentrayError(f"{uri} names no file: {where}")
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


def _of_files(
    uri: str, filesystem: fs.FileSystem, found: list[SourceFile], alone: bool, settings: CorpusSettings
) -> Source:
    by_format, lines = _by_format(filesystem, found, alone, settings)
    if "text" in by_format and settings.label_from == "column":
        reviews = _reviews_in_folders(by_format.pop("text"), optional=bool(by_format))
        by_format |= {"text": reviews} if reviews else {}
    if not by_format:
        if spreadsheets := [file.path for file in found if file.name.lower().endswith(_EXCEL)]:
            raise excel(spreadsheets[0])
        held = f" ({_first([file.name for file in found])})" if found and not alone else ""
        raise SentrayError(f"{uri} holds no file that sentray reads{held}: it reads {_READABLE}")
    if len(by_format) > 1:
        kinds = " and ".join(f"{len(files):,} {kind}" for kind, files in sorted(by_format.items()))
        raise SentrayError(f"{uri} mixes formats ({kinds} files): name one of them, as in {uri.rstrip('/')}/*.csv")
    kind, files = by_format.popitem()
    if kind == "text" and alone:
        raise SentrayError(f"{uri} is one review: give the folder it lies in, or {_HOW_LINES}")
    if kind in TYPED and (members := [file.path for file in files if split_member(file.path)[1]]):
        raise SentrayError(f"{members[0]} is read only as a file of its own: unzip it first")
    if kind != "text":
        if not any(file.size for file in files):
            require_bytes(files[0].path, 0)
        files = [replace(file, split=split_of(file.name)) for file in files]
    if settings.label_from == "name":
        labels = labels_of([file.name for file in files], uri)
        files = [replace(file, label=label) for file, label in zip(files, labels, strict=True)]
    paths = {split_member(file.path)[0] for file in files}
    ignored = tuple(file.name for file in found if split_member(file.path)[0] not in paths)
    return Source(uri, kind, tuple(files), filesystem, ignored=ignored, lines=lines if kind == "lines" else None)


def _by_format(
    filesystem: fs.FileSystem, found: list[SourceFile], alone: bool, settings: CorpusSettings
) -> tuple[dict[Format, list[SourceFile]], Lines | None]:
    """The files that may be reviews, and what is on a line of those that are `lines`."""
    by_format: dict[Format, list[SourceFile]] = {}
    for file in found:
        kind = _format_of(file.name)
        # In a class folder any name may be a review's.
        noted = _no_corpus(file.name) or (kind == "text" and "/" not in file.name and _no_lines(file.name))
        if kind is not None and (alone or not noted):
            by_format.setdefault(kind, []).append(file)
    # Where their names do not tell what they hold.
    others = [file for file in found if alone or not _no_lines(file.name)]
    if settings.lines is not None:
        of_lines = [file for file in others if _format_of(file.name) in (None, "csv", "text")]
        return {"lines": of_lines} if of_lines else {}, settings.lines
    if not by_format:
        looked = [_looked_into(filesystem, file, settings) for file in others]
        for file, kind in looked:
            if kind is not None and kind != "text":
                by_format.setdefault(kind, []).append(file)
        if not by_format and (unclear := [file for file, kind in looked if kind == "text"]):
            raise SentrayError(
                f"{unclear[0].path} is text without a header that names {settings.text_column!r}: name the right "
                f"one with --text-column, or {_HOW_LINES}"
            )
    elif by_format.keys() == {"text"}:
        texts = by_format["text"]
        # One of them may be a note.
        looked_at = [file for file in texts if "/" not in file.name][:_LOOKED_AT] or texts[:1]
        if any(_begins_with_label(filesystem, file) for file in looked_at):
            by_format = {"lines": texts}
    return by_format, "fasttext"


def _format_of(name: str) -> Format | None:
    """What a file holds by its suffix, if that tells."""
    plain, suffix = posixpath.splitext(name.lower())
    if suffix not in _PACKED:
        return _SUFFIXES.get(suffix)
    kind = _SUFFIXES.get(posixpath.splitext(plain)[1])
    return kind if kind in ("csv", "jsonl") else None


def _looked_into(
    filesystem: fs.FileSystem, file: SourceFile, settings: CorpusSettings
) -> tuple[SourceFile, Format | None]:
    """A file, as the only member of the archive that it may be, and what it holds by its first bytes.

    Args:
        filesystem: where it is.
        file: whose name does not tell.
        settings: name the column by whose name in its first line CSV is told; other text is `text`.
    """
    if not file.size:
        return file, None
    packed, member, head = look_into(filesystem, file.path)
    if member and not split_member(file.path)[1]:
        file = _in_archive(file, member)
    if head.startswith(_EXCEL_97):
        raise excel(file.path)
    if head.startswith((b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")):
        return file, None if packed else "parquet" if head.startswith(b"PAR1") else "arrow"
    if (kind := _format_of(file.name)) in ("csv", "jsonl"):
        return file, kind
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"__label__"):
        return file, "lines"
    if text[:1] in (b"{", b"["):
        return file, "jsonl"
    if b"\0" in head:
        return file, "csv" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else None
    names = re.split(r"[,;\t|]", text.split(b"\n")[0].decode(errors="replace"))
    named = settings.text_column in (name.strip(" \"'\r") for name in names)
    return file, "csv" if named or not settings.header else "text"


def _in_archive(file: SourceFile, member: str) -> SourceFile:
    return replace(file, path=f"{file.path}#{member}", name=f"{file.name}#{member}")


def _begins_with_label(filesystem: fs.FileSystem, file: SourceFile) -> bool:
    """Whether a file seems to hold a review a line in fastText's way; not one that cannot be read."""
    try:
        head = look_into(filesystem, file.path)[2] if file.size else b""
    except SentrayError:
        # Whoever reads it says why.
        return False
    return head.lstrip(b"\xef\xbb\xbf \n").startswith(b"__label__")


def _reviews_in_folders(files: list[SourceFile], optional: bool) -> list[SourceFile]:
    """Give each file its folder's label and split, and leave out files beside the class folders.

    Where the name of every file has a word of a split, as in `pos/train_1.txt`, it says the split; else such a word is
    one of a title.

    Args:
        files: all .txt files.
        optional: whether there are files of another format, beside which a .txt in no class folder is a note.
    """
    reviews = [replace(file, label=label, split=split) for file in files for label, split in [_folders(file.name)]]
    if optional or any(file.label for file in reviews):
        reviews = [file for file in reviews if file.label or file.split == "unsup" or keys_of(file.name)]
    own = [split_of(posixpath.basename(file.name)) for file in reviews]
    if not all(own):
        return reviews
    return [replace(file, split=file.split or split) for file, split in zip(reviews, own, strict=True)]


def _folders(name: str) -> tuple[str | None, str | None]:
    """Label and split by the folders of a name, such as `train/pos/1.txt` or `train-pos/1.txt`."""
    folder = posixpath.dirname(name)
    keys, label = keys_of(name), posixpath.basename(folder)
    if "label" in keys or "=" in label or label.lower() in SPLIT_OF_WORD:
        return keys.get("label"), split_of(f"{folder}/")
    if split_of(f"{label}/") and (own := without_split(label)):
        return own, split_of(f"{folder}/")
    return label or None, split_of(f"{posixpath.dirname(folder)}/")
