"""The folder a trained model is, and its value in memory: made, read, checked and published here.

`bundle.json` names every other file with its SHA-256, so the SHA-256 of `bundle.json` itself, the *digest*,
stands for the whole content. Nothing in the folder is pickled. What every room has to know of a model is its
`ModelSpec`; a `Bundle` is that with the files, which travel as they are: name and bytes.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import from_json

from sentray import __version__, models
from sentray.corpus.identity import MAX_HASHES, TextHashes
from sentray.corpus.limits import MAX_LABEL, MAX_LABELS
from sentray.corpus.rows import number_form
from sentray.decision import MOST_PROBABLE, Decision
from sentray.errors import SentrayError, SentrayWarning
from sentray.models import DeepSpec
from sentray.storage import HALF_WRITTEN, Folder, UnsoundError, locate, read_whole
from sentray.task import VALUE, Task
from sentray.text.cleaning import CleaningRules
from sentray.text.encoding import Truncating
from sentray.text.hashing import MAX_BUCKETS, HashedWords, Words
from sentray.text.ngrams import MAX_SLOTS, MAX_WORD_ID, Grams, GramSpec, require_table
from sentray.text.vocabulary import Unknown, Vocabulary

FORMAT_VERSION = 5  # 1 had no buckets, 2 did not say what it was trained on, 3 had no n-grams, 4 knew one task
MANIFEST = "bundle.json"
MODEL = "model.keras"
VOCABULARY = "vocabulary.txt"
GOLDEN = "golden.json"
TEXTS = "texts.bin"
"""Hashes of the texts it was trained on, by which a copy of the corpus is recognised; see `TextHashes`."""
GRAMS = "grams.bin"
"""The table of the n-grams it knows; see `sentray.text.ngrams`."""
UNFINISHED = ".unfinished"
"""Lies in a folder while a bundle is put there, so that a killed run may do it again."""
FOLDED, FOLDED_WEIGHTS = "folded.json", "folded.npz"
ENGINE_FILES = (FOLDED, FOLDED_WEIGHTS)
"""The network prepared for another engine than Keras; part of the bundle where they are present."""
HISTORY_FILE = "history.json"
"""Lies beside it: a record an epoch of its training."""
MAX_BYTES = {
    MANIFEST: 1 << 26,
    MODEL: 2 << 30,
    VOCABULARY: 1 << 27,
    GOLDEN: 1 << 24,
    FOLDED: 1 << 20,
    FOLDED_WEIGHTS: 2 << 30,
    TEXTS: 8 * MAX_HASHES,
    GRAMS: 8 * MAX_SLOTS,
}
"""The files that a bundle may have, and how large they may be: whoever loads one holds them in memory."""

_OWN_CODE = "(code)"
"""No file, but goes with them from a process to others: what `models.packed` makes of a network's own layers."""
MAX_WORDS, MAX_GOLDEN, MAX_NUMBERS = 1 << 23, 1000, 1000
"""Words of a review (as many as the longest row can have), golden texts, columns of numbers."""
_MAX_SHOWN = 100
_MAX_FORMAT = 1000
"""Above this a number is no format of a later sentray but a forgery."""

LIBRARIES = ("keras", "tensorflow", "ray", "pyarrow", "numpy")


class Number(BaseModel):
    """A column of numbers that a model takes besides the text; it is given `(value - mean) / scale`.

    Attributes:
        name: Of the column.
        mean: Of the training rows' values.
        scale: Their standard deviation, 1 where they are all the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: str = Field(max_length=MAX_LABEL)
    mean: float
    scale: float = Field(gt=0)


MAX_STANDARDISED = 1e6
"""Standardised numbers are at most so large, as float32 needs."""


def standardised(columns: Sequence[Number], values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Numbers as a model takes them, float32 [reviews, columns].

    Args:
        columns: Of the model.
        values: As they are in the corpus, float64 [reviews, columns].
    """
    means, scales = np.array([(each.mean, each.scale) for each in columns]).T
    shrunk = np.clip((values - means) / scales, -MAX_STANDARDISED, MAX_STANDARDISED)
    return np.asarray(shrunk, np.float32)


class Function(BaseModel):
    """The user's function that built a network.

    Attributes:
        name: `package.module:function`.
        digest: SHA-256 of the source of its module, 64 hexadecimal digits.
        layers: Names of the layers that are not Keras's own, and of those of Keras's that are not known to do nothing
            but compute; the bundle loads with `--trust-model` alone where it has any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(max_length=MAX_LABEL)
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    layers: tuple[Annotated[str, Field(max_length=MAX_LABEL)], ...] = Field(default=(), max_length=1000)

    @property
    def own_layers(self) -> list[str]:
        """Those of the layers that are not Keras's own."""
        return [name for name in self.layers if not models.is_stock(name)]

    @property
    def code(self) -> bytes:
        """The function and its layers by value, as `models.unpack` takes them."""
        return models.packed([self.name, *map(models.unregistered, self.own_layers)])


class ModelSpec(BaseModel):
    """What a model takes and gives: all that must be the same in training, in its bundle and in scoring.

    Attributes:
        architecture: Versioned name of the network, such as `tutorial-cnn.v1`.
        cleaning: How a text becomes words.
        unknown: What becomes of words outside the vocabulary.
        buckets: Ids that words are hashed to; None where a vocabulary lists them.
        max_length: Word ids the network takes a review.
        truncating: Which end of a longer review is cut: `pre` keeps its end, `post` its beginning.
        labels: Class names; a class is a position in them. A regression has none; those of an ordinal scale are in the
            order of its steps.
        grams: Which n-grams it looks at; None where it looks at none.
        deep: Sizes of the network's deep half; None where it has none.
        task: What is asked of a review.
        numeric: Columns of numbers that it takes besides the text.
        function: What built the network, where the architecture is `function`; else None.
    """

    model_config = ConfigDict(frozen=True)
    architecture: str
    cleaning: CleaningRules
    unknown: Unknown = "drop"
    buckets: int | None = Field(default=None, ge=1, le=MAX_BUCKETS)
    max_length: int = Field(ge=1, le=MAX_WORDS)
    truncating: Truncating = "pre"
    labels: tuple[Annotated[str, Field(max_length=MAX_LABEL)], ...] = Field(max_length=MAX_LABELS)
    grams: GramSpec | None = None
    deep: DeepSpec | None = None
    task: Task = "classification"
    numeric: tuple[Number, ...] = Field(default=(), max_length=MAX_NUMBERS)
    function: Function | None = None

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("it has a label twice")
        least = {"regression": 0, "multilabel": 1}.get(self.task, 2)
        if len(self.labels) < least or (self.task == "regression" and self.labels):
            raise ValueError(f"it has {len(self.labels)} labels, which is no {self.task}")
        if self.task == "ordinal":
            steps = [float(number_form(label) or "nan") for label in self.labels]
            if not all(low < high for low, high in pairwise(steps)):
                raise ValueError("its labels are no numbers in ascending order, which an ordinal needs")
        if not 0 <= self.cleaning.min_token_length <= MAX_WORDS:
            raise ValueError(f"its words have at least {self.cleaning.min_token_length} characters")
        if self.grams and (self.buckets or 0) > MAX_WORD_ID:
            raise ValueError(f"n-grams are of at most {MAX_WORD_ID:,} buckets")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of numbers."""
        return tuple(each.name for each in self.numeric)

    @property
    def network(self) -> str:
        """By which name `models.architecture` finds the network in training."""
        return self.architecture if self.function is None else self.function.name

    @property
    def own_code(self) -> list[str]:
        """What of the network is not Keras's own, as `models.named` takes it."""
        return [] if self.function is None else [models.unregistered(name) for name in self.function.own_layers]

    @classmethod
    def of(cls, words: Words, **values: Any) -> Self:
        """The description of a new model.

        Args:
            words: How words get their ids.
            **values: The other attributes.

        Raises:
            SentrayError: When no bundle can hold such a model, such as one of a hundred thousand labels.
        """
        buckets = words.buckets if isinstance(words, HashedWords) else None
        try:
            return cls(unknown=words.unknown, buckets=buckets, **values)
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise SentrayError(
                f"no bundle can hold this model ({where}: {error.errors()[0]['msg']}): change it"
            ) from error

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of what it says of a review: the labels, or `VALUE` of a regression."""
        return self.labels or (VALUE,)

    def words(self, vocabulary: bytes | None) -> Words:
        """How words get their ids.

        Args:
            vocabulary: Content of the file `vocabulary.txt`; not looked at where words are hashed.

        Raises:
            ValueError: When the file is missing or not UTF-8.
            SentrayError: When it is no vocabulary.
        """
        if self.buckets is not None:
            return HashedWords(self.buckets)
        if vocabulary is None:
            raise ValueError("there is no vocabulary")
        return Vocabulary.from_text(vocabulary.decode(), self.unknown)


class TrainedOn(BaseModel):
    """What a model was trained on, and what was held out.

    Attributes:
        split_by: What was hashed to hold rows out that were given no split: their text or their id.
        test_fraction: Share of these that was held out.
        sampled: Of so many hashes of texts one is kept; see `TextHashes`.
        bytes: Size of the corpus's files.
        digest: Of the corpus; see `sentray.corpus.identity.digest`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    split_by: Literal["text", "id"]
    test_fraction: float = Field(ge=0, lt=1)
    sampled: int = Field(ge=1, lt=2**63)
    bytes: int
    digest: str


class Calibration(BaseModel):
    """What made a network's probabilities as sure as they are right; its last layer's weights have it in them.

    Attributes:
        temperature: What the mean of the heads' logits was divided by.
        heads: Of each head its share in that mean.
        bias: What was added.
        rows: Held-out rows that it was fitted on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    temperature: float = Field(gt=0)
    heads: dict[str, float]
    bias: float
    rows: int


class GoldenText(BaseModel):
    """A text and the probability of each label, or the number, as the new model gave it; see `ModelSpec.scores`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    text: str
    scores: dict[str, float]


_GOLDEN_TEXTS = TypeAdapter(Annotated[tuple[GoldenText, ...], Field(max_length=MAX_GOLDEN)])


class Manifest(ModelSpec):
    """The content of `bundle.json`. It holds no time and no path: the same content has the same digest."""

    format_version: int = Field(ge=1, le=FORMAT_VERSION, strict=True)
    settings: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    trained_on: TrainedOn | None = None
    calibration: Calibration | None = None
    decision: Decision = MOST_PROBABLE
    files: dict[str, str]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if missing := {MODEL, GOLDEN} - self.files.keys():
            raise ValueError(f"it lists no {min(missing)}")
        if (self.buckets is None) != (VOCABULARY in self.files):
            raise ValueError(f"it must have either buckets or a {VOCABULARY}")
        if (self.trained_on is None) != (TEXTS not in self.files):
            raise ValueError(f"it must have both what it was trained on and {TEXTS}, or neither")
        if (self.grams is None) != (GRAMS not in self.files):
            raise ValueError(f"it must have both n-grams and {GRAMS}, or neither")
        if foreign := [name for name in self.files if name not in MAX_BYTES or name == MANIFEST]:
            raise ValueError(f"it lists a file {foreign[0][:_MAX_SHOWN]!r} that does not belong to a bundle")
        self.decision.require_fits(self.task, len(self.labels))
        coverage = self.metrics.get("coverage")
        if coverage is not None and not (isinstance(coverage, int | float) and 0 <= coverage <= 1):
            raise ValueError("its coverage is no share")
        return self


@dataclass(frozen=True)
class Bundle:
    """A trained model and all that is needed to use it; a value that does not change.

    Attributes:
        path: Path or URI of its folder; empty where it has none yet.
        digest: SHA-256 of `bundle.json`, 64 hexadecimal digits; it covers every file.
        spec: What the model takes and gives.
        vocabulary: How words get their ids: listed, or hashed.
        settings: Settings of the training run.
        metrics: Metrics of the training run and its evaluation.
        versions: Versions of the libraries that made it.
        trained_on: What it was trained on; None where it does not say, as before format 3.
        calibration: How its probabilities were calibrated; None where they are as the network was trained.
        decision: How its probabilities become labels.
        golden: Texts with their scores, compared whenever the bundle is loaded for scoring.
        files: Names and contents of its files, `bundle.json` among them; see `unpack`.
        trusted: Whether the user trusts who made it, so that code of its own may run: that of its custom layers.
    """

    path: str = field(compare=False)
    digest: str
    spec: ModelSpec
    vocabulary: Words
    settings: dict[str, Any]
    metrics: dict[str, Any]
    versions: dict[str, str]
    trained_on: TrainedOn | None
    calibration: Calibration | None
    decision: Decision
    golden: tuple[GoldenText, ...]
    files: dict[str, bytes] = field(repr=False, compare=False)
    trusted: bool = field(default=False, compare=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names; a class is a position in them."""
        return self.spec.labels

    @property
    def split_rule(self) -> dict[str, Any]:
        """How rows were held out that had no split, as settings of a corpus; before format 3 it was by the id."""
        if self.trained_on is None:
            fraction = self.settings.get("test_fraction")
            known = isinstance(fraction, int | float) and 0 <= fraction < 1
            return {"split_by": "id", "test_fraction": fraction if known else 0.1}
        return {"split_by": self.trained_on.split_by, "test_fraction": self.trained_on.test_fraction}

    @property
    def texts(self) -> TextHashes | None:
        """Hashes of the texts it was trained on, where it has them."""
        return None if self.trained_on is None else TextHashes.from_bytes(self.files[TEXTS], self.trained_on.sampled)

    @property
    def grams(self) -> Grams | None:
        """The n-grams it knows, made anew; None where it looks at none."""
        if self.spec.grams is None:
            return None
        words = self.vocabulary if isinstance(self.vocabulary, Vocabulary) else None
        return Grams(self.spec.grams, np.frombuffer(self.files[GRAMS], np.uint64), words)

    @property
    def scoring_files(self) -> dict[str, Any]:
        """The files without what only `evaluate` needs, as they travel to other processes.

        The table of n-grams is an array, since all processes of a machine see the same memory of one. Where the bundle
        is trusted, the code of its own layers is with them, so that no other process has to import it.
        """
        files: dict[str, Any] = {name: content for name, content in self.files.items() if name != TEXTS}
        if GRAMS in files:
            files[GRAMS] = np.frombuffer(files[GRAMS], np.uint8)
        if self.trusted and self.spec.own_code:
            files[_OWN_CODE] = models.packed(self.spec.own_code)
        return files

    @property
    def folded(self) -> bool:
        """Whether it holds the network prepared for the engine `folded`."""
        return set(ENGINE_FILES) <= self.files.keys()

    def __str__(self) -> str:
        return _named(self.path)


def make(
    spec: ModelSpec,
    vocabulary: Words,
    files: Mapping[str, bytes],
    *,
    settings: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    trained_on: TrainedOn | None = None,
    calibration: Calibration | None = None,
    decision: Decision = MOST_PROBABLE,
    golden: Sequence[GoldenText] = (),
) -> Bundle:
    """A new bundle in memory; `publish` puts it into a folder.

    Args:
        spec: What the model takes and gives.
        vocabulary: How words got their ids when the network was trained.
        files: `model.keras`, the network prepared for other engines (see `sentray.inference.folding.fold`), and
            `texts.bin` where it is said what it was trained on, and `grams.bin` where it looks at n-grams.
        settings: Settings of the training run, as JSON values.
        metrics: Metrics, as JSON values.
        trained_on: What it was trained on.
        calibration: How its probabilities were calibrated.
        decision: How they become labels.
        golden: Texts with their scores; see `sentray.inference.scorer.golden_texts`.
    """
    files = {name: files[name] for name in (MODEL, *ENGINE_FILES, TEXTS, GRAMS) if name in files}
    if isinstance(vocabulary, Vocabulary):
        files[VOCABULARY] = vocabulary.to_text().encode()
    files[GOLDEN] = _json([text.model_dump(mode="json") for text in golden])
    manifest = Manifest(
        **dict(spec),
        format_version=FORMAT_VERSION,
        settings=dict(settings or {}),
        metrics=dict(metrics or {}),
        versions={"sentray": __version__, **{library: version(library) for library in LIBRARIES}},
        trained_on=trained_on,
        calibration=calibration,
        decision=decision,
        files={name: _sha256(files[name]) for name in sorted(files)},
    )
    return unpack({MANIFEST: _json(manifest.model_dump(mode="json")), **files})


def update(
    bundle: Bundle,
    *,
    metrics: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    decision: Decision | None = None,
    golden: Sequence[GoldenText] | None = None,
) -> Bundle:
    """The bundle with other values of what is given; its digest changes with them."""
    return make(
        bundle.spec,
        bundle.vocabulary,
        bundle.files,
        settings=bundle.settings,
        metrics=bundle.metrics if metrics is None else metrics,
        trained_on=bundle.trained_on,
        calibration=calibration or bundle.calibration,
        decision=decision or bundle.decision,
        golden=bundle.golden if golden is None else golden,
    )


def load(path: str | Path, trusted: bool = False) -> Bundle:
    """Read a bundle and check every file of it.

    Args:
        path: Its folder, as a path or a URI (`s3://…`, `gs://…`).
        trusted: As the attribute.

    Raises:
        SentrayError: When it is no bundle, is damaged, or has a newer format than this sentray knows.
    """
    path = str(path)
    filesystem, root = locate(path)

    def content(name: str) -> bytes:
        try:
            return read_whole(filesystem, f"{root}/{name}", MAX_BYTES[name])
        except UnsoundError as error:
            raise _damaged(path, f"{name}: {error}") from error
        except OSError as error:
            if name == MANIFEST:
                raise SentrayError(
                    f"{path} is not a bundle (no readable {MANIFEST}); give a folder that `sentray train` wrote"
                ) from error
            raise _damaged(path, f"{name} is missing or cannot be read") from error

    manifest = content(MANIFEST)
    found = _manifest(manifest, path)
    if trusted and found.function is not None:
        _warn_if_changed(found.function, path)
    files = {MANIFEST: manifest, **{name: content(name) for name in found.files}}
    return unpack(files, path, trusted)


def _warn_if_changed(function: Function, path: str) -> None:
    """Say so where the source of a function's module, which is not run, is not what a bundle was trained with."""
    module = function.name.partition(":")[0]
    if function.own_layers and (source := models.source_of(module)) and _sha256(source) != function.digest:
        warnings.warn(
            f"{_named(path)} was trained with another version of {module}: its layers may compute something else, and "
            "its golden texts alone say whether they do",
            SentrayWarning,
            stacklevel=3,
        )


def unpack(files: Mapping[str, bytes], path: str = "", trusted: bool = False) -> Bundle:
    """The bundle that files make up, each of them checked.

    Args:
        files: `Bundle.files` or `Bundle.scoring_files`, for instance of a bundle that another process read.
        path: Path or URI of the folder that they come from.
        trusted: As the attribute.

    Raises:
        SentrayError: As `load`.
    """
    manifest = _manifest(files[MANIFEST], path)
    if trusted and _OWN_CODE in files:
        models.unpack(files[_OWN_CODE])
    names = [name for name in manifest.files if name in files or name != TEXTS]
    for name in names:
        if _sha256(files[name]) != manifest.files[name]:
            raise _damaged(path, f"{name} is not the file that {MANIFEST} describes")
    if len(files.get(TEXTS, b"")) % 8:
        raise _damaged(path, f"{TEXTS} cannot be parsed")
    try:
        if GRAMS in files:
            require_table(files[GRAMS])
        golden = _GOLDEN_TEXTS.validate_json(files[GOLDEN])
        vocabulary = manifest.words(files.get(VOCABULARY))
        if any(text.scores.keys() != set(manifest.scores) for text in golden):
            raise ValueError("a golden text has other labels than the bundle")
    except (ValueError, SentrayError) as error:
        raise _damaged(path, f"{GOLDEN}, {VOCABULARY} or {GRAMS} cannot be parsed") from error
    return Bundle(
        path=path,
        digest=_sha256(files[MANIFEST]),
        spec=ModelSpec(**{name: getattr(manifest, name) for name in ModelSpec.model_fields}),
        vocabulary=vocabulary,
        settings=manifest.settings,
        metrics=manifest.metrics,
        versions=manifest.versions,
        trained_on=manifest.trained_on,
        calibration=manifest.calibration,
        decision=manifest.decision,
        golden=golden,
        files={name: files[name] for name in (MANIFEST, *names)},
        trusted=trusted,
    )


def publish(bundle: Bundle, out: str, records: Mapping[str, bytes] | None = None) -> Bundle:
    """Put a bundle at `out`, replacing one that was there.

    Its `bundle.json`, by which readers know a bundle, is the first file to go and the last to come. Files of no bundle
    stay where they are.

    Args:
        bundle: The bundle.
        out: Folder to make, as a path or a URI of a pyarrow file system.
        records: Further files to put beside the bundle's own, by name; the digest does not cover them.

    Returns:
        The bundle with its new path.

    Raises:
        SentrayError: When `out` holds something that is not a bundle, or cannot be written.
    """
    check_free(out)
    folder, files = Folder(out), {**(records or {}), **bundle.files}
    folder.write(UNFINISHED, b"")
    folder.delete(MANIFEST)
    for name in folder.names():
        if (name in MAX_BYTES and name not in files) or HALF_WRITTEN.fullmatch(name):
            folder.delete(name)
    for name in sorted(files, key=lambda name: name == MANIFEST):
        folder.write(name, files[name])
    folder.delete(UNFINISHED)
    return replace(bundle, path=out)


def check_free(out: str) -> None:
    """Refuse a path or URI for a new bundle that holds something else.

    Raises:
        SentrayError: When `out` cannot be reached, is a file, or has content that is no bundle.
    """
    names = Folder(out).names()
    if names and not {MANIFEST, UNFINISHED}.intersection(names):
        raise SentrayError(f"{out} exists and is not a bundle; choose another --out, or remove it")


def _manifest(content: bytes, path: str) -> Manifest:
    try:
        values = from_json(content)
        found = values["format_version"]
        if not (isinstance(found, int) and FORMAT_VERSION < found <= _MAX_FORMAT):
            return Manifest.model_validate(values)
    except (ValueError, TypeError, KeyError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "it is not the JSON it should be"
        raise _damaged(path, f"{MANIFEST} cannot be parsed ({reason})") from error
    raise SentrayError(
        f"{_named(path)} has the bundle format {found} and this sentray knows formats up to {FORMAT_VERSION}; "
        "use a newer sentray"
    )


def _damaged(path: str, what: str) -> SentrayError:
    return SentrayError(f"{_named(path)} is damaged: {what}; copy it again, or remove it and train anew")


def _named(path: str) -> str:
    """What a sentence calls the bundle at a path; one that comes from another process has none."""
    return f"the bundle {path}".rstrip()


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
