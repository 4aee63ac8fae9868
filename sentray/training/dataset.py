"""The encoded training reviews as the workers read them: files in the run's work folder, mapped, never copied."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sentray.text.cleaning import CleaningRules
from sentray.text.encoding import Truncating
from sentray.text.hashing import HashedWords, Words
from sentray.text.vocabulary import Unknown, Vocabulary

IDS_FILE = "ids.bin"
"""The reviews' word ids, int32, one after the other."""
_FACTS = "dataset.json"
_VOCABULARY = "vocabulary.txt"
_VECTORS = "embedding.npy"


@dataclass(frozen=True)
class Facts:
    """What is known of a training set besides its rows.

    Attributes:
        architecture: Versioned name of the network it is made for.
        rules: How a text became words.
        unknown: What becomes of words outside the vocabulary.
        labels: Class names; a class is a position in them.
        label_rows: Training rows of each label.
        max_length: Word ids a review is padded and cut to.
        truncating: Which end of a longer review is cut.
        longest: Word ids of the longest training review.
        distinct: Distinct words of the training reviews, in the vocabulary or not.
        coverage: Share of the training reviews' words that have an id, each counted as often as it occurs.
        test_rows: Rows held out for testing.
        quarantined_rows: Rows set aside.
        buckets: Ids that words are hashed to; None where a vocabulary lists them.
        distinct_estimated: Whether `distinct` is an estimate, with a standard error of 0.4 %.
        sharing_words: Distinct words whose bucket another has too, expected ones where `distinct` is an estimate; None
            where words are not hashed.
        dimensions: Numbers of a word's vector; None for what the architecture has.
        embedding: What the word vectors to start from are (`format`, `rows`, `duplicates`, `bad_rows`, `oov`, `center`)
            and how they cover the vocabulary (as `embeddings.placing.Coverage`); None where there are none.
    """

    architecture: str
    rules: CleaningRules
    unknown: Unknown
    labels: tuple[str, ...]
    label_rows: tuple[int, ...]
    max_length: int
    truncating: Truncating
    longest: int
    distinct: int
    coverage: float
    test_rows: int
    quarantined_rows: int
    buckets: int | None = None
    distinct_estimated: bool = False
    sharing_words: int | None = None
    dimensions: int | None = None
    embedding: dict[str, Any] | None = None


@dataclass(frozen=True)
class TrainingSet:
    """Encoded training reviews.

    Attributes:
        facts: What is known of them.
        vocabulary: How their words got ids.
        ids: int32 [total], the reviews' word ids, one review after the other.
        offsets: int64 [rows + 1], where each review starts in `ids`, and the end of the last.
        targets: int32 [rows], positions of the reviews' labels.
        vectors: float32 [ids, dimensions], word vectors to start from; None where there are none.
    """

    facts: Facts
    vocabulary: Words
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    targets: NDArray[np.int32]
    vectors: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [rows]: word ids of each review, before it is cut."""
        return np.diff(self.offsets)

    def review(self, row: int) -> NDArray[np.int32]:
        """Word ids of a review, cut to the network's length; int32 [words]."""
        start, end, longest = int(self.offsets[row]), int(self.offsets[row + 1]), self.facts.max_length
        if self.facts.truncating == "pre":
            return self.ids[max(start, end - longest) : end]
        return self.ids[start : min(end, start + longest)]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map a training set that `write` made."""
        values: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        values["rules"] = CleaningRules.model_validate(values["rules"])
        values |= {name: tuple(values[name]) for name in ("labels", "label_rows")}
        facts = Facts(**values)
        offsets = np.load(folder / "offsets.npy")
        # A file without bytes cannot be mapped.
        ids = np.memmap(folder / IDS_FILE, np.int32, "r") if offsets[-1] else np.empty(0, np.int32)
        words: Words = (
            Vocabulary.load(folder / _VOCABULARY, facts.unknown)
            if facts.buckets is None
            else HashedWords(facts.buckets)
        )
        vectors = np.load(folder / _VECTORS, mmap_mode="r") if facts.embedding is not None else None
        return cls(facts, words, ids, offsets, np.load(folder / "targets.npy"), vectors)


def exists(folder: Path) -> bool:
    """Whether a whole training set lies in the folder."""
    return (folder / _FACTS).exists()


def write(
    folder: Path,
    facts: Facts,
    words: Words,
    offsets: NDArray[np.int64],
    targets: NDArray[np.int32],
    vectors: NDArray[np.float32] | None = None,
) -> None:
    """Finish the training set whose `IDS_FILE` lies in the folder; the facts come last and mark it as whole."""
    np.save(folder / "offsets.npy", offsets)
    np.save(folder / "targets.npy", targets)
    if vectors is not None:
        np.save(folder / _VECTORS, vectors)
    if isinstance(words, Vocabulary):
        words.save(folder / _VOCABULARY)
    values = asdict(facts) | {"rules": facts.rules.model_dump(mode="json")}
    partial = folder / f".{_FACTS}"
    partial.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.rename(folder / _FACTS)
