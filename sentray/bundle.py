"""The folder a trained model is: written, checked and read here.

`bundle.json` names every other file with its SHA-256, so the SHA-256 of `bundle.json` itself, the *digest*,
stands for the whole content. Nothing in the folder is pickled.
"""

import atexit
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn, Self

import pyarrow.fs as pafs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sentray import __version__
from sentray.errors import SentrayError
from sentray.storage import UnsoundError, locate, parse_json, read_whole
from sentray.text.cleaning import CleaningRules
from sentray.text.encoding import Truncating
from sentray.text.hashing import MAX_BUCKETS, HashedWords, Words
from sentray.text.vocabulary import Unknown, Vocabulary

FORMAT_VERSION = 2  # 1 had no buckets
MANIFEST = "bundle.json"
MODEL = "model.keras"
VOCABULARY = "vocabulary.txt"
GOLDEN = "golden.json"
FOLDED, FOLDED_WEIGHTS = "folded.json", "folded.npz"
ENGINE_FILES = (FOLDED, FOLDED_WEIGHTS)
"""The network prepared for another engine than Keras; part of the bundle where they are present."""
MAX_BYTES = {
    MANIFEST: 1 << 26,
    MODEL: 2 << 30,
    VOCABULARY: 1 << 27,
    GOLDEN: 1 << 24,
    FOLDED: 1 << 20,
    FOLDED_WEIGHTS: 2 << 30,
}
"""The files that a bundle may have, and how large they may be: whoever loads one holds them in memory."""

MAX_WORDS, MAX_LABELS, MAX_LABEL, MAX_GOLDEN = 1 << 23, 10_000, 1000, 1000
"""Words of a review (as many as the longest row can have), labels, characters of one, golden texts."""
MAX_SHOWN = 100

LIBRARIES = ("keras", "tensorflow", "ray", "pyarrow", "numpy")


class GoldenText(BaseModel):
    """A text and the probability of each label, in the bundle's order, as the new model gave it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str
    scores: dict[str, float]


class Manifest(BaseModel):
    """The content of `bundle.json`. It holds no time and no path: the same content has the same digest."""

    model_config = ConfigDict(frozen=True)
    format_version: int = Field(ge=1)
    architecture: str
    cleaning: CleaningRules
    unknown: Unknown
    buckets: int | None = Field(default=None, ge=1, le=MAX_BUCKETS)  # of hashed words, which have no vocabulary
    max_length: int = Field(ge=1, le=MAX_WORDS)
    truncating: Truncating
    labels: tuple[Annotated[str, Field(max_length=MAX_LABEL)], ...] = Field(min_length=2, max_length=MAX_LABELS)
    settings: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    files: dict[str, str]

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if missing := {MODEL, GOLDEN} - self.files.keys():
            raise ValueError(f"it lists no {min(missing)}")
        if (self.buckets is None) != (VOCABULARY in self.files):
            raise ValueError(f"it must have either buckets or a {VOCABULARY}")
        if foreign := [name for name in self.files if name not in MAX_BYTES or name == MANIFEST]:
            raise ValueError(f"it lists a file {foreign[0][:MAX_SHOWN]!r} that does not belong to a bundle")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("it has a label twice")
        if not 0 <= self.cleaning.min_token_length <= MAX_WORDS:
            raise ValueError(f"its words have at least {self.cleaning.min_token_length} characters")
        coverage = self.metrics.get("coverage")
        if coverage is not None and not (isinstance(coverage, int | float) and 0 <= coverage <= 1):
            raise ValueError("its coverage is no share")
        return self


@dataclass(frozen=True)
class Bundle:
    """A trained model and all that is needed to use it.

    Attributes:
        path: Folder that holds the files.
        digest: SHA-256 of `bundle.json`, 64 hexadecimal digits; it covers every file.
        architecture: Versioned name of the network, such as `tutorial-cnn.v1`.
        rules: How a text becomes words.
        vocabulary: How words get their ids: listed, or hashed.
        labels: Class names; a class is a position in them.
        max_length: Word ids the network takes a review.
        truncating: Which end of a longer review is cut: `pre` keeps its end, `post` its beginning.
        settings: Settings of the training run.
        metrics: Metrics of the training run and its evaluation.
        versions: Versions of the libraries that made it.
        golden: Texts with their scores, compared whenever the bundle is loaded for scoring.
        folded: Whether it holds the network prepared for the engine `folded`.
    """

    path: Path
    digest: str
    architecture: str
    rules: CleaningRules
    vocabulary: Words
    labels: tuple[str, ...]
    max_length: int
    truncating: Truncating
    settings: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    golden: tuple[GoldenText, ...]
    folded: bool

    @property
    def model_file(self) -> Path:
        """The network as a Keras 3 file."""
        return self.path / MODEL


def write(
    folder: Path,
    *,
    architecture: str,
    rules: CleaningRules,
    vocabulary: Words,
    labels: Sequence[str],
    max_length: int,
    truncating: Truncating = "pre",
    settings: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    golden: Sequence[GoldenText] = (),
    model_file: Path | None = None,
    engine_files: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Make `folder` a bundle.

    Args:
        folder: Where to write; made when absent. It already holds `model.keras` unless `model_file` is given.
        architecture: Versioned name of the network.
        rules: Cleaning rules that the network was trained with.
        vocabulary: How words got their ids when the network was trained.
        labels: Class names in the order of the network's outputs.
        max_length: Word ids the network takes a review.
        truncating: Which end of a longer review is cut.
        settings: Settings of the training run, as JSON values.
        metrics: Metrics, as JSON values.
        golden: Texts with their scores; see `sentray.inference.scorer.golden_texts`.
        model_file: Keras file to copy into the folder.
        engine_files: The network prepared for other engines; see `sentray.inference.folding.fold`.

    Returns:
        The bundle as `load` would give it.

    Raises:
        SentrayError: When the model is nothing that a bundle can hold, such as one of a hundred thousand labels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if model_file is not None:
        shutil.copyfile(model_file, folder / MODEL)
    for name, content in (engine_files or {}).items():
        (folder / name).write_bytes(content)
    if isinstance(vocabulary, Vocabulary):
        vocabulary.save(folder / VOCABULARY)
    _write_json(folder / GOLDEN, [text.model_dump(mode="json") for text in golden])
    values = {
        "format_version": FORMAT_VERSION,
        "architecture": architecture,
        "cleaning": rules,
        "unknown": vocabulary.unknown,
        "buckets": vocabulary.buckets if isinstance(vocabulary, HashedWords) else None,
        "max_length": max_length,
        "truncating": truncating,
        "labels": tuple(labels),
        "settings": dict(settings or {}),
        "metrics": dict(metrics or {}),
        "versions": {"sentray": __version__, **{library: version(library) for library in LIBRARIES}},
        "files": {path.name: _sha256(path.read_bytes()) for path in _content(folder, vocabulary)},
    }
    try:
        manifest = Manifest.model_validate(values)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise SentrayError(f"no bundle can hold this model ({place}: {error.errors()[0]['msg']}): change it") from error
    _write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return load(folder)


def update(
    bundle: Bundle,
    *,
    metrics: Mapping[str, Any] | None = None,
    golden: Sequence[GoldenText] | None = None,
) -> Bundle:
    """Write a bundle's manifest anew with other metrics or golden texts; its digest changes with them."""
    return write(
        bundle.path,
        architecture=bundle.architecture,
        rules=bundle.rules,
        vocabulary=bundle.vocabulary,
        labels=bundle.labels,
        max_length=bundle.max_length,
        truncating=bundle.truncating,
        settings=bundle.settings,
        metrics=bundle.metrics if metrics is None else metrics,
        golden=bundle.golden if golden is None else golden,
    )


def load(source: str | Path) -> Bundle:
    """Read a bundle and check every file of it.

    Args:
        source: Folder, or a URI of one (`s3://…`, `gs://…`), which is downloaded into a temporary folder.

    Raises:
        SentrayError: When `source` is no bundle, is damaged, or has a newer format than this sentray knows.
    """
    if "://" not in str(source):
        return _parse(_read(pafs.LocalFileSystem(), str(source), str(source)), Path(source), str(source))
    files = _read(*locate(str(source)), str(source))
    folder = Path(tempfile.mkdtemp(prefix="sentray-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return unpack(files, folder)


def pack(bundle: Bundle) -> dict[str, bytes]:
    """The bundle's files by name, to hand to a process that does not see its folder; see `unpack`."""
    return _read(pafs.LocalFileSystem(), str(bundle.path), str(bundle.path))


def unpack(files: Mapping[str, bytes], folder: Path) -> Bundle:
    """Write packed files into `folder` and load them as `load` does."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return _parse(files, folder, str(folder))


def _read(filesystem: pafs.FileSystem, path: str, shown: str) -> dict[str, bytes]:
    def content(name: str) -> bytes:
        try:
            return read_whole(filesystem, f"{path.rstrip('/')}/{name}", MAX_BYTES[name])
        except UnsoundError as error:
            _damaged(shown, f"{name}: {error}", error)

    try:
        manifest = content(MANIFEST)
    except OSError as error:
        raise SentrayError(
            f"{shown} is not a bundle (no readable {MANIFEST}); give a folder that `sentray train` wrote"
        ) from error
    files = {MANIFEST: manifest}
    for name in _manifest(manifest, shown).files:
        try:
            files[name] = content(name)
        except OSError as error:
            _damaged(shown, f"{name} is missing or cannot be read", error)
    return files


def _parse(files: Mapping[str, bytes], folder: Path, shown: str) -> Bundle:
    manifest = _manifest(files[MANIFEST], shown)
    for name, digest in manifest.files.items():
        if _sha256(files[name]) != digest:
            _damaged(shown, f"{name} is not the file that {MANIFEST} describes")
    try:
        golden = tuple(GoldenText(**text) for text in parse_json(files[GOLDEN]))
        vocabulary: Words = (
            HashedWords(manifest.buckets)
            if manifest.buckets is not None
            else Vocabulary.from_text(files[VOCABULARY].decode(), manifest.unknown)
        )
        if any(text.scores.keys() != set(manifest.labels) for text in golden):
            raise ValueError("a golden text has other labels than the bundle")
        if len(golden) > MAX_GOLDEN:
            raise ValueError("there are too many golden texts")
    except (ValueError, TypeError, SentrayError) as error:
        _damaged(shown, f"{GOLDEN} or {VOCABULARY} cannot be parsed", error)
    return Bundle(
        path=folder,
        digest=_sha256(files[MANIFEST]),
        architecture=manifest.architecture,
        rules=manifest.cleaning,
        vocabulary=vocabulary,
        labels=manifest.labels,
        max_length=manifest.max_length,
        truncating=manifest.truncating,
        settings=manifest.settings,
        metrics=manifest.metrics,
        versions=manifest.versions,
        golden=golden,
        folded={FOLDED, FOLDED_WEIGHTS} <= manifest.files.keys(),
    )


def _manifest(content: bytes, shown: str) -> Manifest:
    try:
        values = parse_json(content)
        found = values["format_version"]
        if isinstance(found, int) and found > FORMAT_VERSION:
            raise SentrayError(
                f"{shown} has bundle format {found} and this sentray knows formats up to {FORMAT_VERSION}; "
                "use a newer sentray"
            )
        return Manifest.model_validate(values)
    except (ValueError, TypeError, KeyError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not the JSON it should be"
        _damaged(shown, f"{MANIFEST} cannot be parsed ({reason})", error)


def _damaged(shown: str, what: str, cause: Exception | None = None) -> NoReturn:
    raise SentrayError(f"the bundle {shown} is damaged: {what}; copy or train it again") from cause


def _content(folder: Path, words: Words) -> list[Path]:
    named = [MODEL, GOLDEN, VOCABULARY] if isinstance(words, Vocabulary) else [MODEL, GOLDEN]
    return sorted(folder / name for name in [*named, *(name for name in ENGINE_FILES if (folder / name).exists())])


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
