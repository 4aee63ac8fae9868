"""Reviews become lines of the words that training sees."""

import io
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentray.console import Console
from sentray.corpus.dataset import Tables
from sentray.corpus.inspect import inspect_rows
from sentray.corpus.rows import ROW_SCHEMA
from sentray.embeddings.sentences import sentences, write_sentences
from sentray.errors import SentrayError
from sentray.text.cleaning import CleaningRules, clean, preset

RULES = preset("reviews")[0]
WORDS_ALONE = preset("tutorial", stop_words="none", min_token_length=1)[0]
CHARACTERS = st.sampled_from("aBΣİ1 \n\r\t\v\x00\x1c\x85\xa0\u2028\u200b<>/&;#'-éß漢\U0001f600")
TEXTS = st.lists(st.text(CHARACTERS, max_size=40), max_size=8)


def block_of(*texts: str, rules: CleaningRules = RULES) -> Tables:
    return sentences(pa.array(texts, pa.large_string()), rules)


def inspected() -> Tables:
    return inspect_rows(ROW_SCHEMA.empty_table())


def lines_of(block: Tables) -> list[list[str]]:
    return [line.split(" ") if line else [] for line in block["sentences"]["words"].to_pylist()]


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


def test_a_line_is_a_sentence_and_counts_without_a_word_too() -> None:
    block = block_of("good film\n...\n\nbad plot\n", "one\r\ntwo\x85three\u2028four", "\n")
    assert lines_of(block) == [["good", "film"], [], [], ["bad", "plot"], ["one"], ["two", "three", "four"], []]
    assert Counter(good=1, film=1, bad=1, plot=1, one=1, two=1, three=1, four=1) == counts_of(block)


def test_a_file_holds_the_sentences_with_a_word(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    blocks = [{**block_of("good film\n...", "bad"), **inspected()}, {**block_of("!", "good end"), **inspected()}]
    corpus: Any = SimpleNamespace(map_blocks=lambda *_, **__: blocks)
    file = io.BytesIO()
    _, counts, lines = write_sentences(corpus, RULES, "line", file, console)
    assert (counts, lines) == (Counter(good=2, film=1, bad=1, end=1), 5)
    assert file.getvalue() == b"good film\nbad\ngood end\n"


def test_a_disk_that_is_full_is_one_sentence(console: Console) -> None:
    corpus: Any = SimpleNamespace(map_blocks=lambda *_, **__: [{**block_of("a word"), **inspected()}])
    with (
        open("/dev/full", "wb", buffering=0) as file,
        pytest.raises(SentrayError, match=r"cannot be written .*No space left on device\): they take"),
    ):
        write_sentences(corpus, RULES, "line", file, console)


def test_a_whole_review_may_be_a_sentence() -> None:
    rules, _ = preset("reviews")
    texts = pa.array(["good film\nbad end\n", "so so"], pa.large_string())
    block = sentences(texts, rules, "review")
    assert lines_of(block) == [["good", "film", "bad", "end"], ["so", "so"]]
