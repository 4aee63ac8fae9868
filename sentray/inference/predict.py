"""Scores of single texts, in this process and without Ray."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase

import pyarrow as pa

from sentray import bundle
from sentray.config import STANDARD_INPUT, PredictSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer, Scores

CHUNK_BYTES = 1 << 20
"""Most bytes of lines that are scored together; what is there is scored at once, so that a dialogue flows."""

MAX_TOLD = 5
"""Most lines that are told of one by one, for having no word that the bundle knows."""


@dataclass(frozen=True)
class Prediction:
    """What a text got, and how many words of it the bundle knows.

    Attributes:
        label: Its label, None where the bundle is unsure; of several labels a tuple of them; `value` of a number.
        score: The label's probability, or that of the most probable one where there is none; of several labels a tuple
            of theirs; or the number.
        known_words: Words that the bundle knows.
    """

    label: str | tuple[str, ...] | None
    score: float | tuple[float, ...]
    known_words: int

    def __str__(self) -> str:
        if isinstance(self.score, tuple):
            return f"{', '.join(self.label or ()) or 'none'}\t{', '.join(f'{score:.6f}' for score in self.score)}"
        return f"{self.label or 'unsure'}\t{self.score:.6f}"


def predict(settings: PredictSettings, console: Console, stream: BufferedIOBase | None = None) -> Iterator[Prediction]:
    """Score one text, or with the text `-` each line of a stream, as it comes.

    Args:
        settings: Which bundle, which text.
        console: Where to tell of texts without a word that the bundle knows; who asks prints the predictions.
        stream: Bytes to read the lines from; the standard input where not given.

    Raises:
        SentrayError: When the bundle cannot be used, or a line is not UTF-8.
    """
    scorer = Scorer(bundle.load(settings.bundle, settings.trust_model), settings.engine)
    # A bundle that takes numbers besides the text is refused before a line is read.
    scorer.score(pa.array([], pa.large_string()))
    if settings.text == STANDARD_INPUT:
        with open(0, "rb", closefd=False) if stream is None else stream as lines:
            yield from _told(predict_lines(scorer, lines), "line {:,}", console)
    else:
        yield from _told(predict_texts(scorer, [settings.text]), "the text", console)


def _told(predictions: Iterable[Prediction], which: str, console: Console) -> Iterator[Prediction]:
    """The predictions, telling of texts of which nothing is left: the first few, and at the end how many."""
    unknown = 0
    for number, prediction in enumerate(predictions, 1):
        yield prediction
        if not prediction.known_words:
            unknown += 1
            if unknown <= MAX_TOLD:
                console.note(f"{which.format(number)} has no word that the bundle knows: its score says nothing of it")
    if unknown > MAX_TOLD:
        console.note(f"{unknown:,} of {number:,} lines have no word that the bundle knows")


def predict_texts(scorer: Scorer, texts: Sequence[str]) -> list[Prediction]:
    """Score texts, each on its own."""
    return predictions(scorer.score(pa.array(texts, pa.large_string())), scorer.bundle.labels)


def predictions(scores: Scores, labels: Sequence[str]) -> list[Prediction]:
    """Scores as they are shown, one a text."""
    label, score = scores.labels(labels).to_pylist(), scores.best.tolist()
    if scores.task == "multilabel":
        label, score = (list(map(tuple, values.to_pylist())) for values in scores.answers(labels).values())
    return [Prediction(*row) for row in zip(label, score, scores.known.tolist(), strict=True)]


def predict_lines(scorer: Scorer, stream: BufferedIOBase) -> Iterator[Prediction]:
    r"""Score each line of a stream, an empty one too; only `\n` ends a line, whatever else the text holds.

    Raises:
        SentrayError: When a line is not UTF-8.
    """
    number, rest = 1, b""
    while chunk := stream.read1(CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            yield from predict_texts(scorer, decoded(lines, number))
        number += len(lines)
    if rest:
        yield from predict_texts(scorer, decoded([rest], number))


def decoded(lines: list[bytes], first: int) -> list[str]:
    """Lines of the standard input as texts.

    Args:
        lines: Without what ends them.
        first: Number of the first.

    Raises:
        SentrayError: When one is not UTF-8.
    """
    texts = []
    for number, line in enumerate(lines, first):
        try:
            texts.append(line.decode())
        except UnicodeDecodeError as error:
            raise SentrayError(
                f"line {number} of the standard input is not UTF-8 (byte {error.start + 1}); convert it, for "
                "instance with `iconv -t utf-8`, or use `sentray score`, which sets such rows aside"
            ) from error
    return texts
