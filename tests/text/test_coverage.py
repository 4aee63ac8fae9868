"""What the cleaning and the vocabulary leave is told, and warned of where it is little."""

from collections.abc import Sequence

import pyarrow as pa

from sentray.text.cleaning import CleaningRules, preset
from sentray.text.coverage import Left
from sentray.text.encoding import Encoder
from sentray.text.vocabulary import Vocabulary

TUTORIAL, UNICODE = preset("tutorial", stop_words="none")[0], preset("unicode")[0]


def left(texts: list[str], rules: CleaningRules = UNICODE, words: Sequence[str] = ("good", "film")) -> Left:
    column = pa.chunked_array([texts])
    return Left.of(Encoder(rules, Vocabulary(list(words))).encode(column), column)


def test_counts_what_is_left_and_adds_up() -> None:
    found = left(["a good film", "...", "bad &amp; dull"]) + left(["", "film"])
    assert found == Left(5, 8, 8, 3, 1, 3, letters=23, unspaced=0)
    assert Left.sum(pa.concat_tables([found.table(), Left().table()])) == found
    assert found.lines(UNICODE, True)[:2] == [
        "warning: the cleaning leaves 100.0% of the words and 1 of 5 reviews without any; look at --text-column, "
        "--stop-words and --min-token-length",
        "the vocabulary has 37.5% of the words; 3 of 5 reviews have none of it",
    ]


def test_all_is_well() -> None:
    assert left(["good film"] * 9).lines(UNICODE, True) == [
        "the vocabulary has 100.0% of the words; 0 of 9 reviews have none of it",
    ]


def test_the_tutorials_rules_drop_words_with_vowel_signs() -> None:
    lines = left(["यह खाना बिल्कुल बेकार था", "कमरा साफ था", "खाना है"], TUTORIAL, ["x"]).lines(TUTORIAL, True)
    assert lines[0].startswith("warning: the cleaning leaves ")
    assert lines[0].endswith("; --cleaning unicode keeps them")
    assert any(line.startswith("warning: the vocabulary has so few") for line in lines)


def test_scripts_without_spaces_are_told() -> None:
    lines = left(["今天天气真好", "film"], words=["今"]).lines(UNICODE, False)
    assert lines[-1].startswith("warning: 60% of the letters are of scripts that put no spaces between words")
