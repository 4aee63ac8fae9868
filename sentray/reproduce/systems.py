"""`SYSTEMS`: what each is, what its tutorial reports of it, and the settings with which it is trained here.

A row of the table is an entry of `SYSTEMS`; add one to add a system. The first tutorial is Jason Brownlee's on a
convolutional network for the polarity corpus, the second his on embedding layers in Keras.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sentray.errors import SentrayError
from sentray.storage import write_text

CORPUS = "nltk:movie_reviews"
GLOVE: Final = "glove"
"""In place of a recipe's name: the vectors of `--glove`."""
GLOVE_DIMENSIONS = 100
NO_SOURCE: Final = "-"
"""What a tutorial says of a system of our own."""


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        name: what `--only` calls it.
        what: what it is, in a line.
        source: what its tutorial reports, in words; a dash for a system of our own.
        figure: the accuracy that it reports, from 0 to 1, where it gives a number.
        train: settings of `sentray train` besides corpus, out, seed and vectors; None where the vectors are the system.
        vectors: where its word vectors come from: a name of `RECIPES`, or `GLOVE`; None where it learns its own.
        phrases: whether it is trained on the ten phrases, and so measured on them, instead of the polarity corpus.
    """

    name: str
    what: str
    source: str
    figure: float | None = None
    train: Mapping[str, Any] | None = field(default_factory=dict)
    vectors: str | None = None
    phrases: bool = False

    @property
    def measure(self) -> str:
        """Which of the metrics is the system's figure."""
        return "train_accuracy" if self.phrases else "test_accuracy"


# The tutorial's vectors are of the words that its vocabulary keeps: those that occur twice or more.
_VECTORS = {"dimensions": 100, "window": 5, "min_count": 2}

RECIPES: Mapping[str, Mapping[str, Any]] = {
    "word2vec": _VECTORS | {"algorithm": "cbow", "epochs": 5, "workers": 8},
    # The same but for two settings, to show what of a poor accuracy is due to the vectors.
    "skip-gram": _VECTORS | {"algorithm": "skip-gram", "epochs": 15},
    # Neighbours far off, in all of a review, make vectors of what reviews are about and not of parts of speech.
    "skip-gram-wide": {
        "algorithm": "skip-gram", "sentence": "review", "dimensions": 200, "window": 10, "min_count": 2, "epochs": 20,
    },
}  # fmt: skip
"""How word vectors are learnt from the training reviews, once a seed for all systems that use them: settings of
`sentray embed` besides corpus, out and seed."""

_POLARITY = {"epochs": 10, "batch_size": 32, "learning_rate": 0.001, "validation_fraction": 0.0}
_PRETRAINED = _POLARITY | {"model": "pretrained-cnn", "oov": "zero"}
_AVERAGE = _POLARITY | {"model": "embedding-average", "oov": "zero"}
_PHRASES = {
    "model": "embedding-mlp", "epochs": 50, "batch_size": 32, "validation_fraction": 0.0,
    "cleaning": "reviews", "min_count": 1, "max_length": 4,
}  # fmt: skip
_FROZEN = {"freeze": True}

SYSTEMS: tuple[System, ...] = (
    System(
        "tutorial-cnn", "learned 100-d embedding, Conv1D 32x8, pool, Flatten, Dense 10, Dense 1",
        "84.5 % test, 100 % in training", 0.845, _POLARITY | {"model": "tutorial-cnn"},
    ),
    System(
        "word2vec", "the vectors themselves: CBOW, 100-d, window 5, 8 threads",
        "58,109 lines, 25,767 words", train=None, vectors="word2vec",
    ),
    System(
        "pretrained-cnn-word2vec-frozen", "word2vec, frozen; Conv1D 128x5, pool, Flatten, Dense 1",
        "just above 50 %", 0.5, _PRETRAINED | _FROZEN, "word2vec",
    ),
    System(
        "pretrained-cnn-word2vec-trainable", "word2vec, trained on; Conv1D 128x5, pool, Flatten, Dense 1",
        "slightly better, still poor", None, _PRETRAINED, "word2vec",
    ),
    System(
        "pretrained-cnn-glove-frozen",
        "GloVe 100-d, frozen, zeros for words it lacks; Conv1D 128x5, pool, Flatten, Dense 1",
        "76 %", 0.76, _PRETRAINED | _FROZEN, GLOVE,
    ),
    System(
        "embedding-mlp-hashed", "ten phrases, words hashed to 50 ids; Embedding 8, Flatten, Dense 1, 50 epochs",
        "100 % in training", 1.0, _PHRASES | {"encoder": "hash", "buckets": 50, "dimensions": 8}, phrases=True,
    ),
    System(
        "embedding-mlp-glove", "ten phrases; GloVe 100-d, frozen, Flatten, Dense 1, 50 epochs",
        "100 % in training", 1.0, _PHRASES | _FROZEN, GLOVE, phrases=True,
    ),
    System(
        "pretrained-cnn-skip-gram-frozen", "the tutorial's network; skip-gram, 15 epochs, frozen",
        NO_SOURCE, None, _PRETRAINED | _FROZEN, "skip-gram",
    ),
    System(
        "pretrained-cnn-skip-gram-trainable", "the tutorial's network; skip-gram, 15 epochs, trained on",
        NO_SOURCE, None, _PRETRAINED, "skip-gram",
    ),
    System(
        "embedding-average-frozen",
        "mean of a review's vectors, normalized, Dense 1; skip-gram 200-d, window 10, reviews as sentences, 20 epochs; "
        "centred, frozen",
        NO_SOURCE, None, _AVERAGE | _FROZEN | {"center": True, "epochs": 20, "learning_rate": 0.003}, "skip-gram-wide",
    ),
    System(
        "embedding-average-trainable",
        "mean of a review's vectors, normalized, Dense 1; the same vectors, not centred, trained on",
        NO_SOURCE, None, _AVERAGE, "skip-gram-wide",
    ),
)  # fmt: skip

PHRASES = (
    ("A joy to watch", "pos"),
    ("Warm and funny", "pos"),
    ("Wonderful cast", "pos"),
    ("Wonderful performance", "pos"),
    ("I loved it", "pos"),
    ("Terrible script", "neg"),
    ("Do not bother", "neg"),
    ("Slow and empty", "neg"),
    ("I hated it", "neg"),
    ("Boring!", "neg"),
)
"""Ten phrases of our own, text and label, for the systems that a tutorial trains on ten phrases of its own.

Ten rows are one step an epoch, and 50 steps of Adam move no number by more than 0.05: not every run learns phrases of
which most is padding, or whose words share a bucket with words of the other label. Every run learns these.
"""


def write_phrases(file: Path) -> None:
    """Write the phrases as JSON Lines with `id`, `text` and `label`."""
    rows = [{"id": str(number), "text": text, "label": label} for number, (text, label) in enumerate(PHRASES, 1)]
    write_text(str(file), "".join(json.dumps(row) + "\n" for row in rows))


def choose(only: Sequence[str], glove: str | None) -> tuple[list[System], list[System]]:
    """The systems to train, in the table's order, and those that are left out for want of GloVe vectors.

    Args:
        only: names of systems; all where empty.
        glove: file of GloVe vectors, or None.

    Raises:
        SentrayError: there is no such system, or one that is asked for by name needs the GloVe vectors.
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
