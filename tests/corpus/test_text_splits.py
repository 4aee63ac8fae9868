"""However CSV and JSON Lines are cut, the ranges give the rows of the whole file."""

import gzip
import re
from itertools import accumulate, pairwise

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sentray.config import CorpusSettings
from sentray.corpus import limits, records, splits
from sentray.corpus.readers import read_ids, read_shard
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
    data, at = content.decode("utf-8-sig", "surrogateescape").encode(errors="surrogateescape").decode("latin-1"), 0
    found: list[tuple[int, str | None, str, bool]] = []
    while at < len(data):
        end, fields = record_at(data, at, longest, 2 if found else 0)
        line, at = data[at:end], end
        is_long = len(line) > longest
        if line.rstrip("\r\n"):
            fine = fields is not None and len(fields) == 2 and not is_long
            text, more = fields if fine and fields else (line[: longest if is_long else None].rstrip("\r\n"), None)
            found.append((len(found), more and as_utf8(more), as_utf8(text), is_long))
    return found[1:]


def record_at(data: str, start: int, longest: int, width: int) -> tuple[int, list[str] | None]:
    """Where the record ends that begins somewhere, and its fields; None where it is none."""
    fields, at = [], start
    while True:
        field = re.compile(r'"(?:[^"]|"")*("?)|[^,\r\n]*').match(data, at)
        assert field is not None
        breaks = [start + each.end() for each in re.finditer(r"\r\n|\r|\n", data[start : field.end()])]
        breaks = [each for each in breaks if each > at]
        lines = [data[one:two].rstrip("\r\n") for one, two in pairwise(breaks)]
        whole = [line.count(",") == width - 1 for line in lines if line]
        alike = [line.count(",") == 1 and ", " not in line and line[-1] != "," for line in lines if line]
        at, quoted = field.end(), field[0].startswith('"')
        follows = data[at : at + 1] in ("", ",", "\r", "\n")
        if quoted and breaks:
            is_prose = max(accumulate(1 - 2 * each for each in whole), default=0) > 2
            is_table = 2 <= sum(alike) >= 4 * (len(alike) - sum(alike))
            is_table |= len(whole) >= 20 and sum(whole) >= 19 * (len(whole) - sum(whole)) and "" not in lines
            is_table &= width > 1 and not is_prose
            if not field[1] or not follows or is_table or at - start > longest:
                return breaks[0], None
        if quoted and not (field[1] and follows):
            behind = re.compile(r"[^\r\n]*(\r\n|\r|\n|)").match(data, at)
            assert behind is not None
            return behind.end(), None
        fields.append(field[0][1:-1].replace('""', '"') if quoted else field[0])
        if data[at : at + 1] != ",":
            return at + (2 if data[at : at + 2] == "\r\n" else 1), fields
        at += 1


def as_utf8(text: str) -> str:
    return text.encode("latin-1").decode(errors="replace")


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


bits = [
    b'"',
    b'""',
    b",",
    b"a,b\n",
    b"\n",
    b"\r",
    b"\r\n",
    b"a",
    b" ",
    b"word word",
    b'"a\nb"',
    b"\xff",
    "é😀".encode(),
    b"\x00",
]
csv_bytes = st.lists(st.sampled_from(bits), min_size=1, max_size=60).map(b"".join)
headers = st.sampled_from([b"text,more\n", b"\xef\xbb\xbftext,more\r\n", b'"text",more\r', b"\n\r\ntext,more\n"])


@often
@given(headers, csv_bytes, st.integers(5, 40), st.sampled_from([3, 64, 65, 1 << 20]), st.sampled_from([16, 1 << 24]))
@example(b"text,more\n", b'"x"y,b\r\nfine,a\n', 5, 1 << 20, 1 << 24)
@example(b"text,more\n", b'""""""","a\nb"\nword word', 12, 3, 16)
@example(b"text,more\n", b"a,b\r\n" * 20, 5, 3, 1 << 24)
@example(b"text,more\n", b'"open\n' + b"a, b\r\n" * 20 + b'word",b\n', 40, 64, 1 << 24)
@example(b"text,more\n", b'"open\n' + b"a,\r" * 19 + b'word",b\n', 40, 64, 1 << 24)
@example(b"text,more\n", b'"one\n' + b"a, b\r\n" * 19 + b'\r\na, b\r\nword",b\n', 40, 64, 1 << 24)
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


def test_a_quote_that_is_closed_too_far_away_ends_with_its_line(check):
    content = b"text,more\n" + b"a,b\n" * 50 + b'"' + b"word\n" * 100 + b'",d\n' + b"e,f\n" * 50
    plan = check(content, "a.csv", 50, 64, 90)
    assert sum(shard.rows for shard in plan) == 50 + 100 + 1 + 50


@pytest.mark.parametrize(("name", "header"), [("a.csv", "text,more\n"), ("a.jsonl", "")])
def test_a_file_that_lost_its_end_after_the_plan(write, name, header, monkeypatch, check):
    content = header + '{"text":1,"more":2}\n' * 20
    plan = check(content.encode(), name, 100)
    source = resolve(plan[0].pieces[0].path)
    write(name, content[:-30])
    with pytest.raises(SentrayError, match="is shorter than when the run was planned"):
        list(read_shard(source, plan[-1], CorpusSettings()))
    assert pa.concat_tables(read_shard(source, plan[0], CorpusSettings())).num_rows == plan[0].rows


@pytest.mark.parametrize("column", ["id", "2", "none"])
def test_planning_finds_the_ids_that_reading_finds(tmp_path, monkeypatch, column):
    monkeypatch.setattr(splits, "_MIN_WEIGHT", 1)
    monkeypatch.setattr(splits, "_MIN_SHARD", 1)
    ids = ["a", "", " ", '"two\nlines"', "a", "more,fields"]
    lines = ["text,id", *(f"word{row},{ids[row % 6]}{row // 40 or ''}" for row in range(600))]
    (tmp_path / "large.csv").write_text("\n".join(lines))
    (tmp_path / "small.csv").write_text("id,text\nx,good\n")
    settings = CorpusSettings(id_column=column)
    source = resolve(str(tmp_path), settings)
    plan = plan_shards(source, 2000, settings)
    known = plan.take_ids()
    assert plan.take_ids() == {}
    # The small file is not cut, and shares the last shard.
    assert sorted(known) == ([] if column == "none" else list(range(len(plan) - 1)))
    for shard in plan[:-1]:
        found = list(read_ids(source, shard, settings))
        for which in (1, 2) if column != "none" else ():
            assert [n for ids in known[shard.index] for n in ids[which]] == [n for ids in found for n in ids[which]]


def test_compressed_files_stay_whole(check, tmp_path):
    assert len(check(gzip.compress(b"text,more\n" + bytes(range(48, 58)) * 500 + b",x\n"), "a.csv.gz", 20)) == 1
