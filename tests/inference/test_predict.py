"""Single texts and lines of a stream."""

import io

import numpy as np
import pyarrow as pa
import pytest

from sentray import bundle
from sentray.bundle import Bundle
from sentray.config import PredictSettings
from sentray.console import Console
from sentray.decision import Decision
from sentray.errors import SentrayError
from sentray.inference.predict import Prediction, _told, predict, predict_lines, predict_texts
from sentray.inference.scorer import Scorer
from sentray.scoring.stats import Counts


@pytest.fixture(scope="module")
def scorer(small_bundle: Bundle) -> Scorer:
    return Scorer(small_bundle)


def test_one_text(small_bundle: Bundle, scorer: Scorer) -> None:
    (found,) = predict(PredictSettings(bundle=small_bundle.path, text="a good film"), Console())
    assert found == predict_texts(scorer, ["a good film"])[0]
    assert found.label in small_bundle.labels
    assert 0.5 <= found.score <= 1
    assert str(found) == f"{found.label}\t{found.score:.6f}"


def test_each_line_is_a_review_whatever_else_it_holds(small_bundle: Bundle, scorer: Scorer) -> None:
    lines = ["good\u2028bad", "", "slow\x85film", "fast\rplot", "naïve ending without a line break"]
    settings = PredictSettings(bundle=small_bundle.path, text="-")
    stream = io.BytesIO("\n".join(lines).encode())
    assert list(predict(settings, Console(), stream)) == predict_texts(scorer, lines)


class Dialogue(io.BytesIO):
    """Gives what is typed piece by piece."""

    def __init__(self, *typed: bytes) -> None:
        super().__init__()
        self.typed = list(typed)

    def read1(self, size: int = -1) -> bytes:
        return self.typed.pop(0) if self.typed else b""


def test_answers_as_soon_as_a_line_is_there(scorer: Scorer) -> None:
    stream = Dialogue(b"good fi", b"lm\nbad", b" plot\n\n", "naïve".encode()[:3], "naïve".encode()[3:])
    answers = predict_lines(scorer, stream)
    assert next(answers) == predict_texts(scorer, ["good film"])[0]
    assert len(stream.typed) == 3
    assert list(answers) == predict_texts(scorer, ["bad plot", "", "naïve"])


def test_names_the_line_that_is_not_utf8(scorer: Scorer) -> None:
    with pytest.raises(SentrayError, match="line 3 of the standard input is not UTF-8"):
        list(predict_lines(scorer, Dialogue(b"good\n", b"bad\n\xff\xfe\n")))


def test_texts_of_which_nothing_is_left_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = [Prediction("pos", 0.5, known) for known in (0, 2, *[0] * 6)]
    assert list(_told(found, "line {:,}", Console())) == found
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == [f"line {n} has no word that the bundle knows: its score says nothing of it" for n in (1, 3)]
    assert told[5:] == ["7 of 8 lines have no word that the bundle knows"]


def test_a_threshold_and_a_range_without_a_label(small_bundle: Bundle, scorer: Scorer) -> None:
    texts = ["a good film", "bad plot", "never slow", "great music but a boring ending"]
    second = scorer.score(pa.array(texts)).probabilities[:, 1]
    low, middle = np.sort(second)[:2].astype(float)
    decision = Decision(threshold=middle, unsure=(low, middle))
    decided = Scorer(bundle.update(small_bundle, decision=decision))
    assert decided.bundle.decision == decision
    found = predict_texts(decided, texts)
    for prediction, probability in zip(found, second.tolist(), strict=True):
        if low <= probability <= middle:
            assert (prediction.label, prediction.score) == (None, pytest.approx(max(probability, 1 - probability)))
            assert str(prediction).startswith("unsure\t")
        else:
            assert (prediction.label, prediction.score) == (small_bundle.labels[1], probability)
    scores, counts = decided.score(pa.array(texts)), Counts.none()
    counts.add_scores(scores, small_bundle.labels)
    assert scores.labels(small_bundle.labels).null_count == 2
    assert (counts.scored, counts.labels) == (4, {small_bundle.labels[1]: 2})
