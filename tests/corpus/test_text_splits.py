"""However CSV and JSON Lines are cut, the ranges give the rows of the whole file."""

import csv
import gzip
import io
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sentray.config import CorpusSettings
from sentray.corpus import limits, records, splits
from sentray.corpus.readers import read_shard
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import Piece, Shard, plan_shards
from sentray.errors import SentrayError

often = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(source: Source, shard_list: list[Shard]) -> list[dict[str, object]] | str:
    """All rows, or what is wrong with the file."""
    try:
        tables = [table for shard in shard_list for table in read_shard(source, shard, CorpusSettings(), ["more"])]
    except SentrayError as error:
        return str(error)
    return [row for table in tables for row in table.to_pylist()]


def by_python(content: bytes, longest: int) -> list[tuple[int, str | None, str, bool]]:
    """Row, kept column, text and whether it is too large, of each record of a CSV file with two columns."""
    lines = iter(io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", errors="surrogateescape", newline=""))
    record: list[str] = []

    def is_long() -> bool:
        return len("".join(record).encode(errors="surrogateescape")) > longest

    def of_record() -> Iterator[str]:
        """Lines, as long as the record may go on."""
        while not is_long() and (line := next(lines, None)) is not None:
            record.append(line)
            yield line

    found: list[tuple[int, str | None, str, bool]] = []
    while True:
        record.clear()
        try:
            fields = next(csv.reader(of_record(), strict=True), [])
        except csv.Error:
            fields = record[:1]
        if not record:
            return found[1:]
        text, more = fields if len(fields) == 2 and not is_long() else ("".join(record).rstrip("\r\n"), None)
        whole = text.encode(errors="surrogateescape")
        text = whole[: longest if is_long() else None].decode(errors="replace")
        if fields:
            found.append((len(found), more and replaced(more), text, is_long()))


def replaced(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="replace")


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Reads a file whole and in parts, and compares."""
    monkeypatch.setattr(splits, "_MIN_WEIGHT", 1)
    monkeypatch.setattr(splits, "_MIN_SHARD", 1)
    monkeypatch.setattr(splits, "_MIN_SHARDS", 1)

    def check(content: bytes, name: str, size: int, chunk: int = 1 << 20, longest: int = 1 << 24) -> list[Shard]:
        monkeypatch.setattr(records, "CHUNK", chunk)
        monkeypatch.setattr(records, "HEAD", chunk)
        monkeypatch.setattr(limits, "MAX_ROW_BYTES", longest)
        path = tmp_path / name
        path.write_bytes(content)
        source = resolve(str(path))
        plan = list(plan_shards(source, size))
        whole = rows(source, [Shard(0, source.format, (Piece(str(path), name),), len(content))])
        assert rows(source, plan) == whole
        if name == "a.csv" and isinstance(whole, list):
            found = [(row["row"], row["more"], row["text"], row["reason"] == "too_large") for row in whole]
            assert found == by_python(content, longest)
        assert sum(shard.bytes for shard in plan) == len(content)
        for shard in plan:
            if isinstance(whole, list) and shard.rows is not None:
                assert len(rows(source, [shard])) == shard.rows
        return plan

    return check


bits = [b'"', b'""', b",", b"\n", b"\r", b"\r\n", b"a", b" ", b"word word", b'"a\nb"', b"\xff", "é😀".encode(), b"\x00"]
csv_bytes = st.lists(st.sampled_from(bits), min_size=1, max_size=60).map(b"".join)
headers = st.sampled_from([b"text,more\n", b"\xef\xbb\xbftext,more\r\n", b'"text",more\r', b"\n\r\ntext,more\n"])


@often
@given(headers, csv_bytes, st.integers(5, 40), st.sampled_from([3, 64, 65, 1 << 20]), st.sampled_from([16, 1 << 24]))
@example(b"text,more\n", b'"x"y,b\r\nfine,a\n', 5, 1 << 20, 1 << 24)
@example(b"text,more\n", b'""""""","a\nb"\nword word', 12, 3, 16)
@example(b"text,more\n", b"a,b\r\n" * 20, 5, 3, 1 << 24)
def test_csv_in_parts(check, header, content, size, chunk, longest):
    check(header + content, "a.csv", size, chunk, longest)


@often
@given(csv_bytes, st.integers(5, 40))
def test_csv_without_a_proper_header_in_parts(check, content, size):
    check(content, "a.csv", size)


good = [
    b'{"text": "a", "more": 1}\n',
    b'{"text": "b"}\r\n',
    b"\n",
    b" \x0b\t\r\n",
    b"\xef\xbb\xbf",
    b"\x1c\n",
    b"{",
    b'"',
]


@often
@given(
    st.lists(st.sampled_from(good), min_size=1, max_size=30).map(b"".join),
    st.integers(5, 60),
    st.sampled_from([64, 65, 1 << 20]),
    st.sampled_from([20, 1 << 24]),
)
@example(b'{"text": "a", "more": 1}\n' + b'{"other": 2}\n' * 400, 40, 1 << 20, 1 << 24)
@example(b' \x0b\t\r\n{"text": "a", "more": 1}\n', 5, 64, 1 << 24)
def test_json_lines_in_parts(check, content, size, chunk, longest):
    check(content, "a.jsonl", size, chunk, longest)


def test_parts_are_about_as_large_as_asked(check):
    plan = check(b"text,more\n" + b'"some, ""quoted""\ntext",x\r\n' * 1000, "a.csv", 2_000)
    assert len(plan) == 14
    assert {shard.bytes for shard in plan[:-1]} <= set(range(1_900, 2_100))
    assert sum(shard.rows for shard in plan) == 1000
    plan = check(b'{"text": "a", "more": 1}\n' * 1000, "a.jsonl", 2_500)
    assert [shard.pieces[0].row for shard in plan] == list(range(0, 1000, 100))


def test_a_record_longer_than_a_part(check):
    plan = check(b"text,more\na,b\n" + b"c" * 500 + b",d\ne,f\n", "a.csv", 100)
    assert [shard.rows for shard in plan] == [2, 1]


def test_a_record_that_is_too_long_is_one_row_of_one_part(check):
    content = b"text,more\n" + b"a,b\n" * 50 + b'"' + b"word\n" * 100 + b'",d\n' + b"e,f\n" * 50
    plan = check(content, "a.csv", 50, 64, 90)
    # What closes the quote opens one then, which is never closed.
    assert sum(shard.rows for shard in plan) == 50 + 1 + (100 - 18) + 1 + (50 - 22)


@pytest.mark.parametrize(("name", "header"), [("a.csv", "text,more\n"), ("a.jsonl", "")])
def test_a_file_that_lost_its_end_after_the_plan(write, name, header, monkeypatch, check):
    content = header + '{"text":1,"more":2}\n' * 20
    plan = check(content.encode(), name, 100)
    source = resolve(plan[0].pieces[0].path)
    write(name, content[:-30])
    with pytest.raises(SentrayError, match="is shorter than when the run was planned"):
        list(read_shard(source, plan[-1], CorpusSettings()))
    assert pa.concat_tables(read_shard(source, plan[0], CorpusSettings())).num_rows == plan[0].rows


def test_compressed_files_stay_whole(check, tmp_path):
    assert len(check(gzip.compress(b"text,more\n" + bytes(range(48, 58)) * 500 + b",x\n"), "a.csv.gz", 20)) == 1
