"""A bundle that scores: `predict`, `evaluate` and `score` share it, and so give the same numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentray import bundle
from sentray.bundle import Bundle, GoldenText
from sentray.decision import MOST_PROBABLE, UNSURE, Decision
from sentray.errors import SentrayError
from sentray.inference.engines import KerasEngine, load_engine
from sentray.task import VALUE, Task
from sentray.text.encoding import Encoded, Encoder
from sentray.text.ngrams import CHARACTERS, MAX_WORD_ID, WORD_BITS, Grams
from sentray.text.vocabulary import Vocabulary

GOLDEN_TOLERANCE = 1e-4
"""Largest difference of a probability from the golden texts', for the arithmetic of another processor."""


LABELS_TYPE, SCORES_TYPE = (pa.list_(pa.field("element", kind)) for kind in (pa.string(), pa.float32()))
"""Of several labels and their scores; a list's values have the name that Parquet gives them."""
ANSWERS: dict[Task, dict[str, pa.DataType]] = {
    "classification": {"label": pa.string(), "score": pa.float32()},
    "ordinal": {"label": pa.string(), "score": pa.float32(), "expected": pa.float32()},
    "multilabel": {"labels": LABELS_TYPE, "scores": SCORES_TYPE},
    "regression": {VALUE: pa.float32()},
}
"""The columns that say what each text got, by task; see `Scores.answers`."""


@dataclass(frozen=True)
class Scores:
    """Scores of a sequence of texts.

    Attributes:
        probabilities: float32 [texts, labels], of each label in the bundle's order; of a regression the numbers,
            [texts, 1].
        words: int32 [texts], words kept by cleaning.
        known: int32 [texts], those of them that have an id of their own or, where words are hashed, all of them.
        spaced: int32 [texts], words as white space separates them in the text as it is.
        decision: How probabilities become labels.
        ids: int32 [total], ids of the texts' words, one text after the other.
        task: What is asked of a text.
    """

    probabilities: NDArray[np.float32]
    words: NDArray[np.int32]
    known: NDArray[np.int32]
    spaced: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    decision: Decision = MOST_PROBABLE
    ids: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    task: Task = "classification"

    @property
    def decided(self) -> NDArray[Any]:
        """What each text gets: its label's position, which labels, or its number; see `Decision.of`."""
        return self.decision.of(self.probabilities, self.task)

    @property
    def best(self) -> NDArray[np.float32]:
        """Probability of each text's label, or of the most probable one where it has none; float32 [texts].

        Multilabel: of the most probable one; regression: the number.
        """
        if self.task in ("multilabel", "regression"):
            return np.asarray(self.probabilities.max(axis=1))
        classes = self.decided
        classes = np.where(classes == UNSURE, np.argmax(self.probabilities, axis=1), classes)
        best: NDArray[np.float32] = np.take_along_axis(self.probabilities, classes[:, None], axis=1)[:, 0]
        return best

    def labels(self, names: Sequence[str]) -> pa.Array:
        """Each text's label, null where it has none; of several labels a list; `VALUE` of a number.

        Args:
            names: Of the bundle's labels.
        """
        if self.task == "regression":
            return pa.repeat(VALUE, len(self.probabilities))
        if self.task == "multilabel":
            return _lists(self.decided, pa.array(names, pa.string()).take(pa.array(np.nonzero(self.decided)[1])))
        classes = self.decided
        return pa.array(names, pa.string()).take(pa.array(classes, mask=classes == UNSURE))

    def answers(self, names: Sequence[str]) -> dict[str, pa.Array]:
        """What each text got, by the names of `ANSWERS`.

        Args:
            names: Of the bundle's labels.

        Returns:
            `label` and `score`, as `labels` and `best` give them; of an ordinal scale also `expected`, the mean of the
            labels' numbers by their probabilities; of several labels `labels` and `scores`, lists in the order of the
            bundle's labels; of a regression `value`.
        """
        if self.task == "regression":
            return {VALUE: pa.array(self.decided, pa.float32())}
        if self.task == "multilabel":
            found = {"labels": self.labels(names), "scores": _lists(self.decided, self.probabilities[self.decided])}
            return {name: values.cast(ANSWERS[self.task][name]) for name, values in found.items()}
        found = {"label": self.labels(names), "score": pa.array(self.best)}
        if self.task == "ordinal":
            found["expected"] = pa.array(self.probabilities @ np.array(names, np.float64), pa.float32())
        return found


def _lists(chosen: NDArray[np.bool_], values: Any) -> pa.ListArray:
    """Values of the chosen labels [texts, labels], a list a text."""
    offsets = np.append(0, chosen.sum(axis=1).cumsum()).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, values)


class Scorer:
    """Scores texts with a bundle.

    Args:
        model: Bundle to score with.
        engine: `auto`, or the name of an engine.
        threads: CPU threads to use; all of the machine's where not given.

    Raises:
        SentrayError: When the bundle's network does not load or does not give the bundle's golden scores.
    """

    def __init__(self, model: Bundle, engine: str = "auto", threads: int | None = None) -> None:
        # The engine has what it needs of the files, which may be gigabytes.
        self.bundle = replace(model, files={})
        self.engine = load_engine(engine, model, threads)
        self.encoder = Encoder(model.spec.cleaning, model.vocabulary)
        self._check_golden()

    def encode(self, texts: pa.Array | pa.ChunkedArray, numbers: NDArray[np.float64] | None = None) -> Encoded:
        """What the engine takes of texts and their numbers; see `score`."""
        columns, encoded = self.bundle.spec.numeric, self.encoder.encode(texts)
        if not columns:
            return encoded
        if numbers is None:
            raise SentrayError(
                f"{self.bundle} takes numbers besides the text ({', '.join(self.bundle.spec.columns)}), and none "
                "are given: score a file or table that has these columns with `sentray score`, or in Python give "
                "model.predict(texts, numbers=...)"
            )
        return replace(encoded, numbers=bundle.standardised(columns, numbers))

    def score(self, texts: pa.Array | pa.ChunkedArray, numbers: NDArray[np.float64] | None = None) -> Scores:
        """Score texts, each on its own.

        Args:
            texts: `string` or `large_string`, null as empty.
            numbers: Where the bundle takes numbers, those of each text as they are in a corpus, float64
                [texts, columns].

        Raises:
            SentrayError: The bundle takes numbers, and there are none.
        """
        encoded = self.encode(texts, numbers)
        probabilities = self.engine.scores(encoded)
        return self.scores(probabilities, encoded)

    def scores(self, probabilities: NDArray[np.float32], encoded: Encoded) -> Scores:
        """Scores of encoded texts whose probabilities are known."""
        about = self.bundle.decision, encoded.ids, self.bundle.spec.task
        return Scores(probabilities, encoded.words, encoded.known, encoded.spaced, *about)

    def _check_golden(self) -> None:
        golden = self.bundle.golden
        if not golden:
            return
        found = _golden(self, [text.text for text in golden])
        wanted = np.array([[text.scores[name] for name in self.bundle.spec.scores] for text in golden], np.float32)
        # Numbers may be as large as their corpus's are.
        relative = GOLDEN_TOLERANCE if self.bundle.spec.task == "regression" else 0
        if not np.allclose(found, wanted, rtol=relative, atol=GOLDEN_TOLERANCE):
            made_with = ", ".join(f"{library} {version}" for library, version in self.bundle.versions.items())
            raise SentrayError(
                f"{self.bundle} gives scores here that differ from its golden texts' by "
                f"{np.abs(found - wanted).max():.2g}; install what it was made with ({made_with}) or retrain"
            )


def unpacked_scorer(
    files: Mapping[str, bytes], engine: str = "auto", threads: int | None = None, trusted: bool = False
) -> Scorer:
    """A scorer from the files of a bundle that another process read; see `Bundle.files`."""
    return Scorer(bundle.unpack(files, trusted=trusted), engine, threads)


def _of_neighbours(grams: Grams) -> str:
    """A text that has some of the known grams of neighbouring words."""
    word = np.uint64(MAX_WORD_ID)
    second = (grams.table >> np.uint64(WORD_BITS)) & word
    known = np.flatnonzero((grams.table < CHARACTERS) & (second > 0)) + 1
    return " ".join(grams.gram_texts(known[:: max(len(known) // 30, 1)].tolist()))


def _golden(scorer: Scorer, texts: Sequence[str]) -> NDArray[np.float32]:
    """Probabilities of golden texts, whose numbers are a deviation above the mean, so that their weights count."""
    numbers = np.array([[each.mean + each.scale for each in scorer.bundle.spec.numeric]] * len(texts))
    return scorer.score(pa.array(texts, pa.large_string()), numbers).probabilities


def golden_texts(model: Bundle, texts: Sequence[str]) -> list[GoldenText]:
    """Texts with the scores that Keras gives them, to be kept in a new bundle by `sentray.bundle.update`.

    Whatever engine loads the bundle is held to them. Where it knows n-grams, a text made of some of these is added.
    """
    if model.grams and isinstance(model.vocabulary, Vocabulary):
        texts = [*texts, _of_neighbours(model.grams)]
    # Who makes a bundle has built its network.
    scores = _golden(Scorer(replace(model, trusted=True), KerasEngine.name), texts)
    return [
        GoldenText(text=text, scores=dict(zip(model.spec.scores, row, strict=True)))
        for text, row in zip(texts, scores.tolist(), strict=True)
    ]
