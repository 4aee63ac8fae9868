"""Parquet made to do harm: it is set aside with its reason, other files are read, and no process takes over 1.5 GB."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

READ = """
import collections, json, sys
from sentray.config import CorpusSettings
from sentray.corpus import sandbox
from sentray.corpus.parquet import row_groups
from sentray.corpus.readers import read_schema, read_shard
from sentray.corpus.splits import Piece, plan_shards
from sentray.corpus.source import resolve
from sentray.errors import SentrayError

def peak(pid="self"):
    # Not ru_maxrss, which begins with that of the process that started this one.
    return int(next(line for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM")).split()[1]) >> 10

settings = CorpusSettings(test_fraction=0)
for file in json.loads(sys.argv[1]):
    source = resolve(file)
    keep = [name for name in ("kept",) if "kept" in file.rpartition("/")[2]]
    reasons = collections.Counter()
    for shard in plan_shards(source, 64_000_000):
        for table in read_shard(source, shard, settings, keep, on_unreadable="quarantine"):
            reasons.update(map(str, table["reason"].to_pylist()))
            text = table["text"][-1].as_py()[:200]
    row_groups(source.filesystem, [file])
    try:
        read_schema(source, Piece(file, "a"), settings, keep)
        mistake = None
    except SentrayError as error:
        mistake = str(error)
    print(json.dumps([reasons, text, mistake, peak(), peak(sandbox._child.pid)]), flush=True)
"""
KERAS = """
import numpy as np
from sentray.models import architecture
network = architecture("tutorial-cnn").build(1000, 40, 2)
print(network.predict(np.ones((5000, 40), np.int32), verbose=0).shape, peak())
"""


def stored(path: Path, table: pa.Table, **how: Any) -> Path:
    pq.write_table(table, path, write_statistics=False, store_schema=False, **how)
    return path


def repeated(path: Path, value: str, rows: int) -> Path:
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))
    return stored(path, pa.table({"text": column}), dictionary_pagesize_limit=1 << 30)


def number(value: int) -> bytes:
    """A number as Thrift and Parquet's encodings have it, seven bits a byte."""
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def lengths(path: Path, encoding: str) -> Path:
    """A page of 3,000 values that begins with 400 million lengths of 0 in a few bytes."""
    texts = pa.array(["ab" * (row % 300) + str(row) for row in range(3000)])
    table = pa.table([texts], schema=pa.schema([pa.field("text", pa.string(), nullable=False)]))
    how = {"use_dictionary": False, "compression": "none", "column_encoding": {"text": encoding}}
    content = stored(path, table, **how).read_bytes()
    block, count = 1 << 20, 400_000_000
    forged = number(block) + b"\x04" + number(count) + b"\0" + bytes(5) * (count // block + 1)
    at = content.index(b"\x80\x01\x04" + number(3000))
    path.write_bytes(content[:at] + forged + content[at + len(forged) :])
    return path


def listed(count: int, element: bytes) -> bytes:
    """Thrift's list of so many of a structure."""
    return b"\xfc" + number(count) + element * count


WIDE_ROOT = b"\x48\x01r\x15" + number(600_000) + b"\0"
"""Of 300,000 columns."""
ROOT, LEAF = b"\x48\x01r\x15\x02\x00", b"\x15\x0c\x38\x01a\x00"


def footer(path: Path, schema: bytes, groups: bytes = listed(0, b"")) -> Path:
    content = b"\x15\x02\x19" + schema + b"\x16\x00\x19" + groups + b"\x00"
    path.write_bytes(b"PAR1" + content + len(content).to_bytes(4, "little") + b"PAR1")
    return path


def large_columns(path: Path) -> Path:
    """A footer of two columns that are together larger than the file."""
    column = b"\x26\0\x1c\x15\x0c\x35\0\x16\0\x26" + number(130 << 1) + b"\x26\x08\0\0"
    groups = listed(1, b"\x19\x2c" + 2 * column + b"\x16\0\x16\0\0")
    return footer(path, b"\x3c" + b"\x48\x01r\x15\x04\x00" + 2 * LEAF, groups)


def references(rows: int, values: int, size: int) -> pa.ListArray:
    """Lists of one long value, stored once."""
    places = pa.array(np.zeros(rows * values, np.int32))
    column = pa.DictionaryArray.from_arrays(places, pa.array(["a" * size]))
    return pa.ListArray.from_arrays(pa.array(range(0, (rows + 1) * values, values), pa.int32()), column)


UNREADABLE = {"unreadable_file": 1}
CASES: dict[str, tuple[Callable[[Path], Path], dict[str, int] | None, str]] = {
    "a value of 300 MB for 2,000 rows": (
        lambda path: repeated(path, "a" * 300_000_000, 2_000),
        UNREADABLE,
        "takes more than 800,000,000 bytes of memory at once",
    ),
    "a value of 30 MB for 200 rows": (lambda path: repeated(path, "a" * 30_000_000, 200), {"too_large": 200}, "aaa"),
    "a value of 1 MB for two million rows": (
        lambda path: repeated(path, "word " * 200_000, 2_000_000),
        None,
        "becomes more than 200 times as large as it is stored",
    ),
    "a short value for 100 million rows": (
        lambda path: repeated(path, "good", 100_000_000),
        UNREADABLE,
        "more than 67,108,864 rows in one piece",
    ),
    "kept: a list of 700 MB in a row": (
        lambda path: stored(path, pa.table({"text": ["fine"], "kept": references(1, 1_000_000, 700)})),
        UNREADABLE,
        "takes more than 800,000,000 bytes of memory at once",
    ),
    "kept: lists of 70 MB in three rows": (
        lambda path: stored(path, pa.table({"text": ["fine"] * 3, "kept": references(3, 100_000, 700)})),
        {"too_large": 3},
        "fine",
    ),
    "kept: nulls of 1 MB each": (
        lambda path: stored(path, pa.table({"text": ["fine"] * 500, "kept": pa.nulls(500, pa.binary(1 << 20))})),
        {"None": 500},
        "fine",
    ),
    "more lengths than values": (lambda path: lengths(path, "DELTA_LENGTH_BYTE_ARRAY"), UNREADABLE, ""),
    "more prefixes than values": (lambda path: lengths(path, "DELTA_BYTE_ARRAY"), UNREADABLE, ""),
    "a footer of 500,000 columns of row groups": (
        lambda path: footer(path, listed(2, ROOT), listed(1, b"\x19" + listed(500_000, b"\x26\0\0"))),
        UNREADABLE,
        "cannot be read",
    ),
    "a footer of 300,000 columns": (
        lambda path: footer(
            path, b"\xfc" + number(300_001) + b"\x48\x01r\x15" + number(600_000) + b"\0" + LEAF * 300_000
        ),
        UNREADABLE,
        "has no column 'text'",
    ),
    "a footer of leaves without a root": (lambda path: footer(path, listed(300_000, LEAF)), UNREADABLE, ""),
    "a footer of two million row groups": (
        lambda path: footer(path, listed(1, ROOT), listed(2_000_000, b"\0")),
        UNREADABLE,
        "cannot be read",
    ),
    "a deep schema": (lambda path: footer(path, b"\xfc\x66" + ROOT + ROOT * 100 + LEAF), UNREADABLE, ""),
    "a structure in a structure without end": (lambda path: footer(path, b"\x6c" * 40), UNREADABLE, "cannot be read"),
    "a list longer than its file": (lambda path: footer(path, b"\xfc\xff\xff\x7f"), UNREADABLE, "cannot be read"),
    "columns larger than the file": (large_columns, UNREADABLE, ""),
}


def run(files: list[Path], more: str = "") -> list[str]:
    arguments = [sys.executable, "-c", READ + more, json.dumps(list(map(str, files)))]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.splitlines()


def test_each_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    good = stored(tmp_path / "good.parquet", pa.table({"text": ["good", "bad"]}))
    names = [f"{name.partition(':')[0]} {index}.parquet" for index, name in enumerate(CASES)]
    hostile = [make(tmp_path / name) for name, (make, _, _) in zip(names, CASES.values(), strict=True)]
    lines = iter(map(json.loads, run([each for file in hostile for each in (file, good)])))
    for name, (_, reasons, says) in CASES.items():
        (told, text, _, *peaks), (after, *_) = next(lines), next(lines)
        print(f"{name}: {told}, {text[60:160]}, {peaks} MB")
        assert told == reasons or reasons is None, name
        assert says in text, name
        assert max(peaks) < 1500, name
        assert after == {"None": 2}, name


def test_a_hostile_file_then_a_good_one_and_keras_in_one_process(tmp_path: Path) -> None:
    bad = repeated(tmp_path / "bad.parquet", "a" * 300_000_000, 2_000)
    good = stored(tmp_path / "good.parquet", pa.table({"text": ["good"] * 10_000}))
    *lines, shape = run([bad, good], KERAS)
    assert [json.loads(line)[0] for line in lines] == [UNREADABLE, {"None": 10_000}]
    print(f"peaks in MB: {[json.loads(line)[3:] for line in lines]}, with Keras {shape}")
    assert shape.startswith("(5000, 1)")
    assert int(shape.split()[-1]) < 1500
