"""Reviews become lines that gensim reads as the words that training sees."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentray.corpus.dataset import Tables
from sentray.embeddings import sentences as module
from sentray.embeddings.sentences import SentenceFiles, sentences
from sentray.errors import SentrayError
from sentray.text.cleaning import CleaningRules, clean, preset

RULES = preset("reviews")[0]
WORDS_ALONE = preset("tutorial", stop_words="none", min_token_length=1)[0]
CHARACTERS = st.sampled_from("aBΣİ1 \n\r\t\v\x00\x1c\x85\xa0\u2028\u200b<>/&;#'-éß漢\U0001f600")
TEXTS = st.lists(st.text(CHARACTERS, max_size=40), max_size=8)


def block_of(*texts: str, rules: CleaningRules = RULES) -> Tables:
    return sentences(pa.array(texts, pa.large_string()), rules)


def pieces_of(block: Tables) -> list[tuple[str, int]]:
    return [(piece["lines"], piece["words"]) for piece in block["pieces"].to_pylist()]


def lines_of(block: Tables) -> list[list[str]]:
    return [line.split() for lines, _ in pieces_of(block) for line in lines.split("\n")[:-1]]


def counts_of(block: Tables) -> Counter[str]:
    return Counter({row["word"]: row["count"] for row in block["words"].to_pylist()})


@given(TEXTS)
@example(["a <b\nc='d'> e &amp\n; &#10; f", "\n\n", "x"])
@settings(deadline=None)
def test_the_words_are_those_of_the_whole_review(texts: list[str]) -> None:
    for rules in (RULES, WORDS_ALONE):
        expected = [word for text in texts for word in clean(text, rules)]
        block = block_of(*texts, rules=rules)
        assert [word for line in lines_of(block) for word in line] == expected
        assert counts_of(block) == Counter(expected)
        assert sum(words for _, words in pieces_of(block)) == len(expected)


@given(TEXTS)
@settings(deadline=None)
def test_gensim_parts_lines_and_words_as_we_do(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    from gensim.models.word2vec_corpusfile import CythonLineSentence

    block = block_of(*texts)
    file = tmp_path_factory.getbasetemp() / "sentences.txt"
    file.write_bytes("".join(lines for lines, _ in pieces_of(block)).encode())
    read = [[word.decode() for word in line] for line in CythonLineSentence(str(file))]
    assert read == [line for line in lines_of(block) if line]


def test_a_line_is_a_sentence_and_counts_without_a_word_too() -> None:
    block = block_of("good film\n...\n\nbad plot\n", "one\r\ntwo\x85three\u2028four", "\n")
    assert block["sentences"].to_pylist() == [{"count": 4 + 2 + 1}]
    assert lines_of(block) == [["good", "film"], [], [], ["bad", "plot"], ["one"], ["two", "three", "four"], []]
    assert Counter(good=1, film=1, bad=1, plot=1, one=1, two=1, three=1, four=1) == counts_of(block)


def test_pieces_are_whole_reviews_and_none_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE_WORDS", 4)
    block = block_of("a b\nc d e f g", "...", "h", "...")
    assert pieces_of(block) == [("a b \n c d e f g \n", 7), ("\n h \n \n", 1)]
    assert pieces_of(block_of("...", "!")) == []


def test_files_are_filled_in_turn_and_a_small_last_one_joins_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILE_WORDS", 10)
    monkeypatch.setattr(module, "_PIECE_WORDS", 4)
    files = SentenceFiles(tmp_path)
    for number in range(7):
        files.add(block_of(*(f"w{number}\nb c d",) * 2))
    assert [words for _, words in files.files] == [12, 12, 12, 12, 8]
    files.add(block_of())
    files.finish()
    assert [words for _, words in files.files] == [12, 12, 12, 12, 8]
    files.files[-1][0].write_bytes(b"last one\n")
    files.files[-1] = files.files[-1][0], 2
    files.finish()
    assert [words for _, words in files.files] == [12, 12, 12, 14]
    assert sorted(tmp_path.iterdir()) == [path for path, _ in files.files]
    assert files.files[-1][0].read_bytes().endswith(b"d \nlast one\n")
    assert files.lines == 28
    assert files.counts.total() == 56


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SentrayError, match=r"the sentences cannot be written to .*: they take about as much room"):
        SentenceFiles(tmp_path / "gone").add(block_of("a word"))


def test_a_whole_review_may_be_a_sentence() -> None:
    rules, _ = preset("reviews")
    texts = pa.array(["good film\nbad end\n", "so so"], pa.large_string())
    block = sentences(texts, rules, "review")
    assert block["sentences"].to_pylist() == [{"count": 2}]
    assert lines_of(block)[0] == ["good", "film", "bad", "end"]
