"""What a corpus is known again by: its texts, what its rows hold, its files."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.corpus import identity
from sentray.corpus.duplicates import hash_texts
from sentray.corpus.identity import TextHashes, content_in, content_of, digest, first_change
from sentray.corpus.source import Source, SourceFile

texts = st.lists(st.text(max_size=3), max_size=12)


def column(values: list[str]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.large_string())])


@settings(deadline=None, max_examples=50)
@given(st.lists(texts, max_size=3), texts)
def test_texts_are_known_again(blocks: list[list[str]], others: list[str]) -> None:
    made = TextHashes.of(hash_texts(pa.array(block, pa.large_string())) for block in blocks)
    found = TextHashes.from_bytes(made.to_bytes(), made.sampled)
    known = {text for block in blocks for text in block}
    assert found.among(column(others)).tolist() == [text in known for text in others]


def test_of_very_many_texts_a_sample_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "MAX_HASHES", 100)
    words = [f"review {number}" for number in range(3000)]
    found = TextHashes.of([hash_texts(pa.array(words, pa.large_string()))])
    assert 50 < len(found.values) <= 100
    kept = found.among(column(words))
    assert kept.sum() == len(found.values)
    assert found.sampled * kept.sum() == pytest.approx(3000, rel=0.3)
    assert not found.among(column([f"other {number}" for number in range(3000)])).any()
    assert len(found.to_bytes()) == 8 * len(found.values)


ROWS = [("good film", "pos", "train"), ("bad film", "neg", "train"), ("so so", None, "test"), ("", "neg", "train")]


def content(*rows: tuple[str | None, ...]) -> int:
    columns = [list(values) for values in zip(*rows, strict=True)]
    reasons = [None if row[0] else "empty_text" for row in rows]
    return content_in(content_of(pa.table([*columns, reasons], names=["text", "label", "split", "reason"])))


def test_the_content_is_that_of_the_usable_rows_in_any_order() -> None:
    files = Source("a.csv", "csv", (SourceFile("/x/a.csv", "a.csv", 10, 1),))
    whole = digest(files, [content(*ROWS)])
    assert digest(files, [content(*ROWS[2:]), content(*ROWS[:2])]) == whole
    assert digest(files, [content(*ROWS[::-1])]) == digest(files, [content(*ROWS[:3])]) == whole
    others = [(*ROWS, ROWS[0]), ROWS[:2], (("good film", "neg", "train"), *ROWS[1:]), (("pos", "good film", "train"),)]
    changed = [digest(files, [content(*rows)]) for rows in others]
    changed.append(digest(replace(files, files=(SourceFile("/x/a.csv", "a.csv", 11, 1),)), [content(*ROWS)]))
    assert len({whole, *changed}) == 6
    # A file that was touched or moved is the same.
    assert digest(replace(files, files=(SourceFile("/y/a.csv", "a.csv", 10, 2),)), [content(*ROWS)]) == whole


@pytest.mark.parametrize(
    ("now", "change", "by_size"),
    [
        ({"a": ("/a", 1, 5), "b": ("/b", 1, 5)}, None, None),
        ({"a": ("/a", 2, 5)}, "a has changed", "a has changed"),
        ({"a": ("/a", 1, 6)}, "a has changed", None),
        ({"a": ("/x/a", 1, 5)}, "a lies elsewhere", None),
        ({"b": ("/b", 1, 5)}, "a is gone", "a is gone"),
    ],
)
def test_changes_of_files(now: identity.Files, change: str | None, by_size: str | None) -> None:
    before: identity.Files = {"a": ("/a", 1, 5)}
    assert (first_change(before, now), first_change(before, now, sizes_only=True)) == (change, by_size)


def test_hashes_are_stored_little_endian() -> None:
    assert TextHashes(np.array([1, 258], np.uint64)).to_bytes() == bytes([1, *[0] * 7, 2, 1, *[0] * 6])
