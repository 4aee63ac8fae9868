import csv
import gzip
import io
import re
from hashlib import blake2b

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.config import CorpusSettings
from sentray.corpus import csv as module
from sentray.corpus.duplicates import hash_texts
from sentray.corpus.readers import read_ids, read_shard
from sentray.corpus.records import Dialect, Window, read_records
from sentray.corpus.rows import ROW_SCHEMA, TABLE_ROWS
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards
from sentray.errors import SentrayError


def test_columns_by_their_default_names(write, read):
    table = read(
        write("a.csv", 'id,text,label,split,more\nx,"good, really",pos,test,1\ny,bad,neg,,2\n'),
        test_fraction=0,
    )
    assert table.schema == ROW_SCHEMA
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("x", "good, really", "pos", "test", "a.csv", 1, None, None),
        ("y", "bad", "neg", "train", "a.csv", 2, None, None),
    ]


def test_columns_by_other_names_and_kept_ones(write, read):
    path = write("a.csv", "review,sentiment,key,part,stars\ngood,1,k1,Train ,9\n,0,k2,TEST,\n")
    table = read(
        path,
        keep=["stars"],
        text_column="review",
        label_column="sentiment",
        id_column="key",
        split_column="part",
    )
    assert table.select(["id", "label", "split", "stars", "reason"]).to_pylist() == [
        {"id": "k1", "label": "1", "split": "train", "stars": "9", "reason": None},
        {"id": "k2", "label": "0", "split": "test", "stars": "", "reason": "empty_text"},
    ]


def test_ids_are_file_and_row_where_no_column_gives_them(write, read, tmp_path):
    write("b.csv", "text\none\ntwo\n")
    write("in/a.csv", "text\nthree\n")
    assert read(tmp_path)["id"].to_pylist() == ["b.csv:1", "b.csv:2", "in/a.csv:1"]


def test_quoted_line_breaks_and_line_ends_of_all_kinds(write, read):
    content = '\ufefftext,label\r\n"one\ntwo\r\nthree",pos\r\n\r\n"say ""hi""",neg\r\nplain,pos'
    table = read(write("a.csv", content))
    assert table["text"].to_pylist() == ["one\ntwo\r\nthree", 'say "hi"', "plain"]
    assert table["row"].to_pylist() == [1, 2, 3]


def test_characters_at_which_python_would_cut_a_line_stay_within_the_text(write, read):
    text = "a\x0bb\x0cc\x1cd\x1ee\x85f\u2028g\u2029h\x00i😀"
    assert read(write("a.csv", f"text,label\n{text},pos\n"))["text"].to_pylist() == [text]


def test_malformed_rows_are_told_by_number_and_leave_their_neighbours_alone(write, read):
    rows = [
        "text,label",
        "good,pos",
        "lonely",
        '"a\nb",neg',
        "a,b,c",
        "",
        '"x"y,pos',
        "fine,neg",
        '"never closed,pos',
        "z",
    ]
    table = read(write("a.csv", "\n".join(rows)))
    assert list(zip(table["row"].to_pylist(), table["reason"].to_pylist(), table["text"].to_pylist(), strict=True)) == [
        (1, None, "good"),
        (2, "invalid_record", "lonely"),
        (3, None, "a\nb"),
        (4, "invalid_record", "a,b,c"),
        (5, "invalid_record", '"x"y,pos'),
        (6, None, "fine"),
        (7, "invalid_record", '"never closed,pos'),
        (8, "invalid_record", "z"),
    ]
    hint = "where quotes are text, --quote none"
    assert [row for row in table["detail"].to_pylist() if row] == [
        "1 field, the header has 2",
        "3 fields, the header has 2",
        f"text behind a closing quote; {hint}",
        f"a quote is not closed; {hint}",
        "1 field, the header has 2",
    ]
    assert table["id"].to_pylist()[:3] == ["a.csv:1", None, "a.csv:3"]


def test_invalid_utf8_is_told_row_by_row(write, read):
    content = (
        b"id,text,label\n1,caf\xe9 noir,pos\n2,fine,pos\n3\xff,fine,pos\n4,fine,\xfe\nca\xe9\n6,\xf0\x9f\x98\x80,neg\n"
    )
    table = read(write("a.csv", content))
    assert table["reason"].to_pylist() == [
        "invalid_utf8",
        None,
        "invalid_utf8",
        "invalid_utf8",
        "invalid_record",
        None,
    ]
    assert table["text"].to_pylist() == ["caf\ufffd noir", "fine", "fine", "fine", "ca\ufffd", "😀"]


def test_empty_text_label_and_id(write, read):
    content = 'id,text,label\n1,,pos\n2," \t\u2003",pos\n3,ok,\n,ok,pos\n5,ok," "\n,"",\n'
    table = read(write("a.csv", content), need_label=True)
    assert table["reason"].to_pylist() == [
        "empty_text",
        "empty_text",
        "missing_label",
        "missing_id",
        "missing_label",
        "empty_text",
    ]


def test_a_bad_rows_text_is_cut_and_a_good_ones_is_not(write, read):
    table = read(write("a.csv", f"id,text\n,{'é' * 500}\n1,{'é' * 500}\n"))
    assert pc.utf8_length(table["text"]).to_pylist() == [200, 500]


def test_a_review_longer_than_any_buffer(write, read):
    text = "long " * 1_000_000
    table = read(write("a.csv", f'text,label\na,b\n"{text}",pos\nc,d\n'))
    assert [len(text) for text in table["text"].to_pylist()] == [1, 5_000_000, 1]


@pytest.mark.parametrize("members", [1, 3])
def test_gzip_with_one_or_several_members(write, read, members):
    content = b"".join(gzip.compress(part.encode()) for part in ["text\n", "one\n", "two\n"])
    content = content if members == 3 else gzip.compress(b"text\none\ntwo\n")
    assert read(write("a.csv.gz", content))["text"].to_pylist() == ["one", "two"]


def test_gzip_that_is_cut_short(write, read):
    text = "".join(f"{number} some words\n" for number in range(100_000))
    path = write("a.csv.gz", gzip.compress(f"text\n{text}".encode())[:-2000])
    with pytest.raises(SentrayError, match=r"a\.csv\.gz cannot be read .*: it seems damaged"):
        read(path)


def test_a_header_may_be_as_long_as_a_row(write, read):
    # Python's own limit is 131,072 characters of a field, and the process keeps it.
    csv.field_size_limit(131_072)
    assert read(write("a.csv", f"text,{'x' * 200_000}\ngood,1\n"))["text"].to_pylist() == ["good"]


def test_a_header_that_python_refuses_is_none(write, read, monkeypatch):
    monkeypatch.setattr(Dialect, "reader", lambda *_: csv.reader(['"a"b'], strict=True))
    with pytest.raises(SentrayError, match=r"a\.csv has no header: its first line must name the columns"):
        read(write("a.csv", "text\nfine\n"))


@pytest.mark.parametrize("content", ["\n", "\n\n", '"'])
def test_a_file_without_header(write, read, content):
    with pytest.raises(SentrayError, match=r"a\.csv has no header: its first line must name the columns"):
        read(write("a.csv", content))


@pytest.mark.parametrize(
    ("encoding", "told"), [("utf-16", None), ("utf-16-le", "utf-16le"), ("cp1252", "cp1252"), ("utf-8", "utf-8")]
)
def test_a_file_in_another_encoding(write, read, encoding, told, monkeypatch):
    monkeypatch.setattr("sentray.corpus.files._TRANSCODED", 3)
    content = 'text,label\n"\u201ccafé\u201d, a\nb",x\nno,y\n'
    table = read(write("a.csv", content.encode(encoding)), encoding=told)
    assert table["text"].to_pylist() == ["\u201ccafé\u201d, a\nb", "no"]
    assert table["row"].to_pylist() == [1, 2]


def test_what_is_invalid_in_another_encoding_is_told(write, read):
    odd = write("a.csv", "text\nx\ny\n".encode("utf-16") + b"z")
    assert read(odd)["reason"].to_pylist() == [None, None, "invalid_utf8"]
    undefined = write("b.csv", b"text\nx\n\x81\n")
    assert read(undefined, encoding="cp1252")["reason"].to_pylist() == [None, "invalid_utf8"]


@pytest.mark.parametrize(
    ("names", "need_label", "message"),
    [
        (
            {"text_column": "Text"},
            False,
            r"no column 'Text' \(it has: id, text, sentiment\): .* as in --text-column text",
        ),
        ({}, True, r"no column 'label' \(it has: id, text, sentiment\): name the right one with --label-column$"),
        ({"id_column": "key"}, False, r"no column 'key' .* --id-column$"),
        ({"split_column": "fold"}, False, r"no column 'fold' .* --split-column$"),
    ],
)
def test_a_missing_column_is_named_with_its_option(write, read, names, need_label, message):
    path = write("a.csv", "id,text,sentiment\n1,x,pos\n")
    with pytest.raises(SentrayError, match=message):
        read(path, need_label=need_label, **names)


def test_a_column_that_is_there_twice(write, read):
    with pytest.raises(SentrayError, match="more than one column 'text'"):
        read(write("a.csv", "text,text\na,b\n"))
    assert read(write("b.csv", "text,x,x\na,b,c\n")).num_rows == 1


def test_kept_columns_hide_none_of_the_rows_own(write, read):
    content = "text,label,row,sentiment\na,x,7,True\n"
    table = read(write("a.csv", content), keep=["label", "text", "row", "sentiment", "gone"], label_column="sentiment")
    assert (
        table.select(ROW_SCHEMA.names).to_pylist()[0] | {"label": "true", "row": 1}
        == table.select(ROW_SCHEMA.names).to_pylist()[0]
    )
    kept = {name: table[name].to_pylist() for name in table.column_names[len(ROW_SCHEMA) :]}
    assert kept == {"kept label": ["x"], "kept text": ["a"], "kept row": ["7"], "sentiment": ["True"], "gone": [None]}


def test_a_header_alone_gives_no_row(write):
    source = resolve(str(write("a.csv", "text,label\n")))
    (shard,) = plan_shards(source, 1_000)
    assert list(read_shard(source, shard, CorpusSettings())) == []


def test_a_file_of_malformed_rows_alone(write, read):
    table = read(write("a.csv", "text,label,stars\none\ntwo\n"), keep=["stars"])
    assert table["reason"].to_pylist() == ["invalid_record"] * 2
    assert table["text"].to_pylist() == ["one", "two"]
    assert table["stars"].to_pylist() == [None, None]


@pytest.mark.parametrize("longest", [100, 1 << 24])
def test_a_quote_that_is_never_closed_costs_one_row(write, read, monkeypatch, longest):
    monkeypatch.setattr("sentray.corpus.limits.MAX_ROW_BYTES", longest)
    table = read(write("a.csv", 'text,label\n"open,pos\n' + "word word,neg\n" * 20))
    assert table["reason"].to_pylist() == ["invalid_record", *[None] * 20]
    assert table["text"][0].as_py() == '"open,pos'


def test_tables_are_bounded_in_rows_and_bytes(write, read, monkeypatch):
    path = write("a.csv", "text\n" + "word\n" * (2 * TABLE_ROWS + 1808))
    assert [len(chunk) for chunk in read(path)["text"].chunks] == [TABLE_ROWS, TABLE_ROWS, 1808]
    monkeypatch.setattr("sentray.corpus.records.CHUNK", 4_000)
    monkeypatch.setattr("sentray.corpus.csv._SNIFFED_BYTES", 100)
    assert max(len(chunk) for chunk in read(path)["text"].chunks) == 800


def test_a_kept_column_that_is_no_utf8_is_a_string_all_the_same(write, read):
    table = read(write("a.csv", b"text,kept\nx,caf\xe9\n"), keep=["kept"])
    assert table["kept"].to_pylist() == ["caf\ufffd"]


def test_any_table_comes_back_as_it_was_written(write, read):
    texts = ["a,b", '"', '""', "\n", "x\r\ny", "'", " lead", "trail ", "é\u2028", "\\", "a\tb", "#", "=1+1"]
    stream = io.StringIO()
    csv.writer(stream).writerows([["text", "label"], *([text, "x"] for text in texts)])
    table = read(write("a.csv", stream.getvalue()))
    assert table["text"].to_pylist() == texts
    assert table["reason"].to_pylist() == [None if text.strip() else "empty_text" for text in texts]


def test_the_split_is_a_hash_of_the_id(write, read):
    path = write("a.csv", "id,text\n" + "".join(f"r{number},x\n" for number in range(2000)))
    table = read(path, test_fraction=0.25, split_by="id")
    hashes = (blake2b(b"r%d" % number, digest_size=8).digest() for number in range(2000))
    expected = ["test" if int.from_bytes(hash, "big") / 2**64 < 0.25 else "train" for hash in hashes]
    assert table["split"].to_pylist() == expected
    assert 400 < expected.count("test") < 600
    assert set(read(path, test_fraction=0)["split"].to_pylist()) == {"train"}


def test_the_split_is_a_hash_of_the_text(write, read):
    texts = [f"review {number % 1500}" for number in range(2000)]
    first = read(write("a.csv", "text\n" + "\n".join(texts)), test_fraction=0.25)
    again = read(write("b.csv", "id,text\n" + "\n".join(f"x{text},{text}" for text in texts[::-1])), test_fraction=0.25)
    drawn = dict(zip(*(first[name].to_pylist() for name in ("text", "split")), strict=True))
    assert [drawn[text] for text in texts] == first["split"].to_pylist() == again["split"].to_pylist()[::-1]
    assert 300 < list(drawn.values()).count("test") < 450
    lines = write("a.jsonl", "\n".join(f'{{"text": "{text}"}}' for text in texts))
    assert read(lines, test_fraction=0.25)["split"].equals(first["split"])


def test_a_split_that_is_given_stays(write, read):
    path = write("a.csv", "text,split\na,VAL\na,dev \na,valid\na,test\na,\n")
    for fraction, last in ((0.0, "train"), (None, "")):
        splits = read(path, test_fraction=fraction)["split"].to_pylist()
        assert splits == ["validation", "validation", "validation", "test", last]


def test_ids_are_read_alone(write):
    path = write("a.csv", 'id,text\nx,"a\nb"\n,c\nbroken\ny,d\n')
    source = resolve(str(path))
    ((file, rows, hashes),) = read_ids(source, plan_shards(source, 100)[0], CorpusSettings())
    assert (file, rows.tolist(), hashes.tolist()) == (
        "a.csv",
        [1, 4],
        hash_texts(pa.array(["x", "y"], pa.large_string())).tolist(),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Review #,Body Text\n1,fine\n", r"as in --text-column 'Body Text'$"),
        ("Review;Stars\nfine\n", r"it seems to be separated by ';', so add --delimiter ';'$"),
        ("Review\tStars\nfine\n", r"it seems to be separated by tab, so add --delimiter tab$"),
        ("5,fine soup\n1,bad soup\n", r"it seems to have no header, so add --no-header"),
        ("Review,Stars\n", r"\(it has: Review, Stars\): name the right one with --text-column$"),
        (
            "Review;Stars\nfine;5\n",
            r"a\.csv \(separated by semicolons\) has no column 'text' \(it has: Review, Stars\)",
        ),
    ],
)
def test_a_hint_is_pasted_as_it_is_or_not_given(write, read, content, message):
    with pytest.raises(SentrayError, match=message):
        read(write("a.csv", content))


ROWS = [f"{number},some words,{'pos' if number % 2 else 'neg'}" for number in range(1000)]


def with_rows(**changed: str) -> str:
    lines = list(ROWS)
    for number, line in changed.items():
        lines[int(number[1:])] = line
    return "\n".join(["id,text,label", *lines]) + "\n"


@pytest.mark.parametrize(
    ("changed", "bad"),
    [
        ({"r100": '100,"never closed,pos'}, [101]),
        ({"r100": '"100,never closed,pos'}, [101]),
        ({"r100": '100,"never closed,pos', "r700": '700,"nor this,neg'}, [101, 701]),
        ({"r100": '100,"closed by a later one,pos', "r700": '700,a "quoted" word,neg'}, [101]),
        ({"r100": '100,"closed by a lone one,pos', "r700": '700,a screen of 5",neg'}, [101]),
        ({"r100": '100,"closed by a well quoted one,pos', "r700": '700,"a, ""b""",neg'}, [101]),
        ({"r100": '100,"doubled at the end"",pos', "r101": '101,"",pos'}, [101]),
        ({"r100": '100,a "word" within,pos', "r101": '101,a lone one",pos'}, []),
    ],
)
@pytest.mark.parametrize("size", [64_000_000, 2_000])
def test_a_stray_quote_costs_its_line(write, read, monkeypatch, changed, bad, size):
    for name in ("_MIN_WEIGHT", "_MIN_SHARD", "_MIN_SHARDS"):
        monkeypatch.setattr(f"sentray.corpus.splits.{name}", 1)
    table = read(write("a.csv", with_rows(**changed)), size=size)
    assert table["row"].to_pylist() == list(range(1, 1001))
    reasons = table["reason"].to_pylist()
    assert [row for row, reason in enumerate(reasons, 1) if reason == "invalid_record"] == bad
    assert reasons.count("empty_text") == ("r101" in changed and changed["r101"] == '101,"",pos')
    for row in bad:
        assert table["text"][row - 1].as_py() == changed[f"r{row - 1}"]
        assert table["detail"][row - 1].as_py().startswith("a quote is not closed")


@pytest.mark.parametrize("header", ["text", "text,label", "id,text,label"])
def test_reviews_of_many_lines_are_read_whole(write, read, header):
    lines = ["Good, really good", "", 'I said, "no",', "1,000 times", "Dear all,", "Preis: 3,50", "a,b,c", "so, so"]
    texts = ["\n".join(lines[start:] + lines[:start]) for start in range(len(lines))] * 20
    rows = [{"id": str(number), "text": text, "label": "pos"} for number, text in enumerate(texts)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, header.split(","), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    table = read(write("a.csv", stream.getvalue()))
    assert table["text"].to_pylist() == texts
    assert table["reason"].null_count == len(texts)


LIST = [f"{name}, the {name.lower()}'s friend" for name in ("Anna", "Bo", "Cy", "Di")] * 4
LYRICS = ["and I went down to the river", "where the water is wide", "Oh my love, my love"] * 20


@pytest.mark.parametrize(
    ("header", "row", "name"),
    [
        ("id,label,text", "{},1, @user some words", "a.csv"),
        ("id\tlabel\ttext", "{}\t1\t @user some words", "a.tsv"),
        ("text,label", "text number {} here,", "a.csv"),
        ("label,text", "1, @user some words {}", "a.csv"),
        ("text", "text number {} here", "a.csv"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_two_stray_quotes_cost_a_line_in_files_that_say_little(write, read, header, row, name, end):
    rows = [row.format(number) for number in range(1000)]
    sign = "\t" if name == "a.tsv" else ","
    text = header.split(sign).index("text")
    for number, cell in ((5, '"hello world'), (900, ' bye"')):
        rows[number] = sign.join([*rows[number].split(sign)[:text], cell, *rows[number].split(sign)[text + 1 :]])
    table = read(write(name, end.join([header, *rows]) + end))
    bad = [row for row, reason in zip(*(table[each].to_pylist() for each in ("row", "reason")), strict=True) if reason]
    assert (table.num_rows, bad) == (1000, [6])


@pytest.mark.parametrize("header", ["text", "text,label", "id,text,label"])
@pytest.mark.parametrize(
    "lines",
    [
        ["I liked it, on the whole, but the end is weak.", "The cast is fine, the music less so."] * 20,
        ["One thing, then another.", "", "And one more, that is all."] * 30,
        ["It was dear.", "Prices rose:", "soup,3", "fish,12", "cake,4", "And not good."],
        ["It was dear.", "Prices rose:", "a,soup,3", "b,fish,12", "c,cake,4", "And not good."],
        ["The cast:", *LIST, "and others."],
        LYRICS,
        ["word"] * 40,
    ],
)
def test_prose_lists_and_tables_within_a_review_stay(write, read, header, lines):
    stream = io.StringIO()
    writer = csv.DictWriter(stream, header.split(","), extrasaction="ignore")
    writer.writeheader()
    texts = ["\n".join(lines), "next", "\r\n".join(lines)]
    writer.writerows({"id": str(row), "text": text, "label": "pos"} for row, text in enumerate(texts))
    assert read(write("a.csv", stream.getvalue()))["text"].to_pylist() == texts


def test_many_stray_quotes_take_no_longer(write, read):
    table = read(write("a.csv", "text,label\n" + '"open,pos\nfine,neg\n' * 20_000))
    assert table["reason"].to_pylist() == ["invalid_record", None] * 20_000


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([Dialect(), Dialect(";"), Dialect("\t", None, "\\"), Dialect("|", "'", "\\")]),
    st.lists(st.tuples(*[st.text(st.sampled_from(";\t|\"'\\ab, \n"), max_size=12)] * 2), min_size=1, max_size=9),
    st.sampled_from([4, 100]),
)
def test_what_is_written_in_any_dialect_is_read(dialect, rows, chunk):
    if dialect.quote is None:
        rows = [[text.replace("\n", " ") for text in row] for row in rows]
    stream = io.StringIO()
    options = {"doublequote": dialect.escape is None, "escapechar": dialect.escape, "lineterminator": "\n"}
    quoting = {"quotechar": dialect.quote} if dialect.quote else {"quoting": csv.QUOTE_NONE, "quotechar": None}
    csv.writer(stream, delimiter=dialect.delimiter, **options, **quoting).writerows(rows)
    window = Window(io.BytesIO(stream.getvalue().encode()), chunk)
    found = [some.fields for some in read_records(window, dialect, 2, [0, 1])]
    texts = [text for fields in found for text in zip(*(field.to_pylist() for field in fields), strict=True)]
    assert [[*map(bytes.decode, text)] for text in texts] == [list(row) for row in rows]


@pytest.mark.parametrize("delimiter", [";", "\t", "|", ","])
def test_a_delimiter_is_found_out(write, read, delimiter):
    content = "text,label\n".replace(",", delimiter) + "fine,pos\nbad,neg\n".replace(",", delimiter)
    path = write("a.csv", content)
    assert read(path)["text"].to_pylist() == ["fine", "bad"]
    told = module.separated(resolve(str(path)), CorpusSettings())
    assert told == ("" if delimiter == "," else f", separated by {module.DELIMITERS[delimiter]}")


def test_a_part_that_is_only_a_header_is_divided_as_its_neighbours(write, read, tmp_path):
    write("in/part-0.csv", "text;label\na;pos\nb;neg\n")
    write("in/part-1.csv", "text;label")
    assert read(tmp_path / "in")["label"].to_pylist() == ["pos", "neg"]
    line = write("b.csv", "fine; good\n")
    assert read(line, header=False, text_column="1")["text"].to_pylist() == ["fine; good"]


def test_a_delimiter_is_not_made_up(write, read):
    content = "text\nfine; good\nbad; worse\n"
    assert read(write("a.csv", content))["text"].to_pylist() == ["fine; good", "bad; worse"]
    mixed = "text,a;b\nfine,x;y\n"
    assert read(write("b.csv", mixed), delimiter=";", text_column="text,a")["text"].to_pylist() == ["fine,x"]


def test_columns_without_a_header(write, read):
    path = write("a.csv", "5,fine soup\n1,bad soup\n1\n")
    by_number = read(path, header=False, text_column="2", label_column="1")
    by_name = read(path, header=False, columns="label,text")
    assert by_number["text"].to_pylist() == by_name["text"].to_pylist() == ["fine soup", "bad soup", "1"]
    assert by_number["label"].to_pylist() == by_name["label"].to_pylist() == ["5", "1", None]
    assert by_number["id"].to_pylist()[:2] == ["a.csv:1", "a.csv:2"]
    assert by_number["detail"][2].as_py() == "1 field, the first row has 2"
    assert by_name["detail"][2].as_py() == "1 field, --columns names 2"
    with pytest.raises(SentrayError, match=r"it has: 1, 2\): give --text-column the column's number, or name all"):
        read(path, header=False)
    assert read(write("b.csv", "label,text\n5,fine soup\n"), text_column="2")["text"].to_pylist() == ["fine soup"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("café noir", "cp1252"),
        ("хороший фильм мне нравится", "cp1251"),
        ("とても良い映画でした。", "shift_jis"),
        ("这部电影很好看我喜欢", "gb18030"),
    ],
)
def test_invalid_bytes_are_counted_and_their_encoding_is_named(write, read, text, encoding):
    path = write("a.csv", f"text,label\n{text},pos\n".encode(encoding))
    (detail,) = read(path)["detail"].to_pylist()
    assert re.fullmatch(rf"\d+ bytes? invalid in UTF-8; likeliest is --encoding {encoding}", detail)
    assert read(path, encoding=encoding)["text"].to_pylist() == [text]
