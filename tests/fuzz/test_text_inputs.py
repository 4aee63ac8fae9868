"""CSV, JSON Lines and reviews that are files, whatever they hold: each row is good or has its reason."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.config import CorpusSettings
from sentray.corpus import limits, splits
from sentray.corpus.readers import read_ids, read_shard
from sentray.corpus.rows import Reason
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards

ROWS = [
    {"id": f"r{row}", "text": text, "label": ("neg", "pos")[row % 2], "more": row}
    for row, text in enumerate(["good film", 'a "quoted", long\nplot', "naïve 😀", " ", "<b>bad</b>"] * 4)
]
CSV = "id,text,label,more\n" + "".join(
    ",".join('"' + str(value).replace('"', '""') + '"' for value in row.values()) + "\n" for row in ROWS
)
JSONL = "".join(json.dumps(row, ensure_ascii=bool(row["more"] % 2)) + "\n" for row in ROWS)
FILES = {"a.csv": CSV.encode(), "a.jsonl": JSONL.encode(), "pos/a.txt": b"good film"}


def read_all(path: Path, size: int, our_error: Any) -> int:
    """Read everything, in every way; gives how many rows there are."""
    source, seen = resolve(str(path)), 0
    keep = ("more",) if source.format != "text" else ()
    for shard in plan_shards(source, size):
        list(read_ids(source.lean(), shard, CorpusSettings(), unread=set()))
        for table in read_shard(source.lean(), shard, CorpusSettings(), keep, on_unreadable="quarantine"):
            table.validate(full=True)
            for row in table.to_pylist():
                seen += 1
                assert row["row"] >= 1
                assert row["file"]
                assert row["reason"] in set(Reason) if row["reason"] else row["id"] and row["text"] and row["split"]
        with our_error:
            list(read_shard(source.lean(), shard, CorpusSettings(), keep))
    return seen


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a few bytes reach, and shards of a few rows."""
    for name, value in (("_MIN_WEIGHT", 1), ("_MIN_SHARD", 1), ("_MIN_SHARDS", 1)):
        monkeypatch.setattr(splits, name, value)
    for name, value in (
        ("MAX_ROW_BYTES", 200),
        ("FREE_ROWS", 100),
        ("BYTES_A_ROW", 1 << 30),
        ("FREE_INFLATION", 3000),
        ("MAX_INFLATION", 2),
    ):
        monkeypatch.setattr(limits, name, value)


@pytest.mark.parametrize("name", FILES)
@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_a_file_holds(
    name: str, mutate: Any, our_error: Any, small: None, tmp_path: Path, data: st.DataObject
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    content = mutate(data, FILES[name])
    file.write_bytes(content)
    with our_error:
        read_all(tmp_path, len(content) // data.draw(st.sampled_from([1, 5])) + 1, our_error)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_a_compressed_file_holds(
    name: str, mutate: Any, our_error: Any, small: None, tmp_path: Path, data: st.DataObject
) -> None:
    content = gzip.compress(FILES[name] * data.draw(st.integers(1, 3)), mtime=0)
    (tmp_path / f"{name}.gz").write_bytes(mutate(data, content))
    with our_error:
        assert read_all(tmp_path, 10_000, our_error) >= 0


@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_values_json_lines_hold(
    mutate_json: Any, our_error: Any, small: None, tmp_path: Path, data: st.DataObject
) -> None:
    rows = [mutate_json(data, row) for row in ROWS[:5]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with our_error:
        # A file without the columns is one row that says so.
        assert read_all(tmp_path, 1_000_000, our_error) in (1, len(rows))
