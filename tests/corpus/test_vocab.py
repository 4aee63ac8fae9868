"""`sentray vocab` counts what training would count."""

from pathlib import Path

import pytest

from sentray.config import VocabSettings
from sentray.console import Console
from sentray.corpus.vocab import write_vocabulary
from sentray.errors import SentrayError
from sentray.text.vocabulary import Vocabulary

ROWS = "id,text,split\n1,good good film,train\n2,film bad bad good,train\n3,other other other,test\n4,   ,train\n"


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.csv"
    file.write_text(ROWS)
    return file


def test_words_of_usable_training_reviews_by_count_then_alphabet(
    ray_session: None, reviews: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "words" / "vocabulary.txt"
    settings = VocabSettings(corpus=str(reviews), out=str(out), cleaning="reviews", max_bad_rows=0.5)
    vocabulary = write_vocabulary(settings, Console())
    assert vocabulary.words == ["good", "bad", "film"]
    assert Vocabulary.from_text(out.read_text("utf-8")) == vocabulary
    assert (tmp_path / "words" / "vocabulary.txt.settings.json").exists()
    assert "4 rows read, 1 quarantined; 3 distinct words, 3 of them in" in capsys.readouterr().out


def test_too_many_bad_rows_or_nothing_to_train_on_write_nothing(
    ray_session: None, reviews: Path, tmp_path: Path
) -> None:
    out = tmp_path / "vocabulary.txt"
    with pytest.raises(SentrayError, match="1 of 4 rows of"):
        write_vocabulary(VocabSettings(corpus=str(reviews), out=str(out)), Console())
    reviews.write_text("text,split\ngood,test\n")
    with pytest.raises(SentrayError, match="has no review to train on"):
        write_vocabulary(VocabSettings(corpus=str(reviews), out=str(out)), Console())
    assert not out.exists()


def test_the_real_corpus_has_the_tutorials_words(
    ray_session: None, nltk_polarity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = VocabSettings(corpus=nltk_polarity, out=str(tmp_path / "vocabulary.txt"))
    assert len(write_vocabulary(settings, Console())) == 25_767
    assert "44,276 distinct words" in capsys.readouterr().out
