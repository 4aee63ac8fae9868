"""The systems: what each is, what its tutorial reports of it, and the settings with which it is trained here.

A row of the table is an entry of `SYSTEMS`; to add one is to add an entry. The first tutorial is Jason Brownlee's on a
convolutional network for the polarity corpus, the second his on embedding layers in Keras.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sentray.config import EmbedSettings, TrainSettings
from sentray.errors import SentrayError

CORPUS = "nltk:movie_reviews"
GLOVE: Final = "glove"
"""In place of a recipe: the vectors of `--glove`."""
GLOVE_DIMENSIONS = 100
NO_SOURCE: Final = "-"
"""What a tutorial says of a system of our own."""


@dataclass(frozen=True)
class Recipe:
    """How word vectors are learnt from the training reviews; learnt once a seed for all systems that use it.

    Attributes:
        name: Of their files.
        embed: Settings of `sentray embed` besides the corpus, the file and the seed.
    """

    name: str
    embed: Mapping[str, Any]

    def settings(self, file: str, seed: int, **shared: Any) -> EmbedSettings:
        """The settings that learn the vectors into a file."""
        return EmbedSettings(corpus=CORPUS, out=file, seed=seed, **self.embed, **shared)


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        name: What `--only` calls it.
        what: What it is, in a line.
        source: What its tutorial reports, in words; a dash for a system of our own.
        figure: The accuracy that it reports, from 0 to 1, where it gives a number.
        train: Settings of `sentray train` besides corpus, out, seed and vectors; None where the vectors are the system.
        vectors: Where its word vectors come from; None where it learns its own.
        phrases: Whether it is trained on the ten phrases, and so measured on them, instead of the polarity corpus.
    """

    name: str
    what: str
    source: str
    figure: float | None = None
    train: Mapping[str, Any] | None = field(default_factory=dict)
    vectors: Recipe | Literal["glove"] | None = None
    phrases: bool = False

    @property
    def measure(self) -> str:
        """Which of the metrics is the system's figure."""
        return "train_accuracy" if self.phrases else "test_accuracy"

    def settings(self, out: str, seed: int, corpus: str, vectors: str | None, **shared: Any) -> TrainSettings:
        """The settings that train it.

        Args:
            out: Folder for the bundle.
            seed: Fixes first weights and order of reviews.
            corpus: What to train on.
            vectors: File of its word vectors, or None.
            shared: Where the work runs.
        """
        return TrainSettings(corpus=corpus, out=out, seed=seed, embedding=vectors, **(self.train or {}), **shared)


WORD2VEC = Recipe(
    "word2vec",
    # The tutorial's vectors are of the words that its vocabulary keeps: those that occur twice or more.
    {"algorithm": "cbow", "dimensions": 100, "window": 5, "min_count": 2, "epochs": 5, "workers": 8},
)

SKIP_GRAM = Recipe(
    # The same but for two settings, to show what of a poor accuracy is due to the vectors.
    "skip-gram",
    {"algorithm": "skip-gram", "dimensions": 100, "window": 5, "min_count": 2, "epochs": 15},
)

TOPICAL = Recipe(
    # Neighbours far off, in all of a review, make vectors of what reviews are about and not of parts of speech.
    "skip-gram-wide",
    {
        "algorithm": "skip-gram",
        "sentence": "review",
        "dimensions": 200,
        "window": 10,
        "min_count": 2,
        "epochs": 20,
    },
)

_POLARITY = {"epochs": 10, "batch_size": 32, "learning_rate": 0.001}
_PRETRAINED = _POLARITY | {"model": "pretrained-cnn", "oov": "zero"}
_AVERAGE = _POLARITY | {"model": "embedding-average", "oov": "zero"}
_PHRASES = {
    "model": "embedding-mlp",
    "epochs": 50,
    "batch_size": 32,
    "test_fraction": 0.0,
    "cleaning": "reviews",
    "min_count": 1,
    "max_length": 4,
}

SYSTEMS: tuple[System, ...] = (
    System(
        "tutorial-cnn",
        "learned 100-d embedding, Conv1D 32x8, pool, Flatten, Dense 10, Dense 1",
        "84.5 % test, 100 % in training",
        0.845,
        _POLARITY | {"model": "tutorial-cnn"},
    ),
    System(
        "word2vec",
        "the vectors themselves: CBOW, 100-d, window 5, 8 threads",
        "58,109 lines, 25,767 words",
        train=None,
        vectors=WORD2VEC,
    ),
    System(
        "pretrained-cnn-word2vec-frozen",
        "word2vec, frozen; Conv1D 128x5, pool, Flatten, Dense 1",
        "just above 50 %",
        0.5,
        _PRETRAINED | {"freeze": True},
        WORD2VEC,
    ),
    System(
        "pretrained-cnn-word2vec-trainable",
        "word2vec, trained on; Conv1D 128x5, pool, Flatten, Dense 1",
        "slightly better, still poor",
        None,
        _PRETRAINED,
        WORD2VEC,
    ),
    System(
        "pretrained-cnn-glove-frozen",
        "GloVe 100-d, frozen, zeros for words it lacks; Conv1D 128x5, pool, Flatten, Dense 1",
        "76 %",
        0.76,
        _PRETRAINED | {"freeze": True},
        GLOVE,
    ),
    System(
        "embedding-mlp-hashed",
        "ten phrases, words hashed to 50 ids; Embedding 8, Flatten, Dense 1, 50 epochs",
        "100 % in training",
        1.0,
        _PHRASES | {"encoder": "hash", "buckets": 50, "dimensions": 8},
        phrases=True,
    ),
    System(
        "embedding-mlp-glove",
        "ten phrases; GloVe 100-d, frozen, Flatten, Dense 1, 50 epochs",
        "100 % in training",
        1.0,
        _PHRASES | {"freeze": True},
        GLOVE,
        phrases=True,
    ),
    System(
        "pretrained-cnn-skip-gram-frozen",
        "the tutorial's network; skip-gram, 15 epochs, frozen",
        NO_SOURCE,
        None,
        _PRETRAINED | {"freeze": True},
        SKIP_GRAM,
    ),
    System(
        "pretrained-cnn-skip-gram-trainable",
        "the tutorial's network; skip-gram, 15 epochs, trained on",
        NO_SOURCE,
        None,
        _PRETRAINED,
        SKIP_GRAM,
    ),
    System(
        "embedding-average-frozen",
        "mean of a review's vectors, normalized, Dense 1; skip-gram 200-d, window 10, reviews as sentences, 20 epochs; "
        "centred, frozen",
        NO_SOURCE,
        None,
        _AVERAGE | {"freeze": True, "center": True, "epochs": 20, "learning_rate": 0.003},
        TOPICAL,
    ),
    System(
        "embedding-average-trainable",
        "mean of a review's vectors, normalized, Dense 1; the same vectors, not centred, trained on",
        NO_SOURCE,
        None,
        _AVERAGE,
        TOPICAL,
    ),
)


def choose(only: Sequence[str], glove: str | None) -> tuple[list[System], list[System]]:
    """The systems to train, in the table's order, and those that are left out for want of GloVe vectors.

    Args:
        only: Names of systems; all where empty.
        glove: File of GloVe vectors, or None.

    Raises:
        SentrayError: There is no such system, or one that is asked for by name needs the GloVe vectors.
    """
    names = [system.name for system in SYSTEMS]
    for name in only:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1, cutoff=0)
            raise SentrayError(f"there is no system {name!r} for --only; the nearest is {near[0]!r}")
    chosen = [system for system in SYSTEMS if not only or system.name in only]
    without = [system for system in chosen if system.vectors == GLOVE and glove is None]
    if only and without:
        raise SentrayError(
            f"the system {without[0].name} needs GloVe vectors of {GLOVE_DIMENSIONS} dimensions: name their file with "
            "--glove"
        )
    return [system for system in chosen if system not in without], without
