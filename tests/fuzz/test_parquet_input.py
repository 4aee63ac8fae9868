"""Parquet, whatever it holds: read by a process of its own, which no file may kill, Arrow or not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = int(os.environ.get("SENTRAY_FUZZ_EXAMPLES", "40"))

CHILD = """
import random, sys
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from sentray.config import CorpusSettings
from sentray.corpus.readers import read_ids, read_shard
from sentray.corpus.splits import plan_shards
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.corpus.rows import Reason

folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
KEEP = ["more", "tags", "key"]
rows = 30
table = pa.table({
    "id": [f"r{row}" for row in range(rows)],
    "text": (["good film", None, "naïve", "a longer text about a film " * 20, ""] * rows)[:rows],
    "label": pa.array((["neg", "pos"] * rows)[:rows]).dictionary_encode(),
    "more": pa.array(range(rows), pa.int16()),
    "tags": pa.array(([["a", "long tag " * 30], [], None, ["b"]] * rows)[:rows]),
    "key": pa.array([bytes([row] * 16) for row in range(rows)], pa.uuid()),
})
kinds = [
    dict(compression=compression, use_dictionary=dictionary, data_page_version=version, row_group_size=size, **more)
    for compression in ("zstd", "snappy", "none", "gzip")
    for dictionary, more in ((True, {}), (False, {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}}), (False, {}))
    for version in ("1.0", "2.0")
    for size in (7, 1000)
]
for seed in range(first, last):
    chance = random.Random(seed)
    file = folder / "a.parquet"
    pq.write_table(table, file, **chance.choice(kinds))
    content = bytearray(file.read_bytes())
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(4, footer) if chance.random() < 0.5 else chance.randrange(footer, len(content))
        what = chance.choice(("flip", "flip", "byte", "byte", "cut", "insert", "copy"))
        if what == "flip":
            content[at] ^= 1 << chance.randrange(8)
        elif what == "byte":
            content[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif what == "cut":
            del content[at : at + chance.choice((1, 4, 50))]
        elif what == "insert":
            content[at:at] = chance.randbytes(chance.choice((1, 4, 50)))
        else:
            start = chance.randrange(len(content))
            content[at : at + 20] = content[start : start + 20]
    file.write_bytes(content)
    print(seed, flush=True)
    try:
        source = resolve(str(folder))
        plan = plan_shards(source, chance.choice((100, 1_000_000)))
        for shard in plan:
            list(read_ids(source, shard, CorpusSettings(), unread=set()))
            for found in read_shard(source, shard, CorpusSettings(), KEEP, on_unreadable="quarantine"):
                found.validate(full=True)
                for row in found.to_pylist():
                    assert row["reason"] in set(Reason) if row["reason"] else row["id"] and row["text"], row
            try:
                list(read_shard(source, shard, CorpusSettings(), KEEP))
            except SentrayError:
                pass
    except SentrayError as mistake:
        assert "\\n" not in str(mistake), mistake
"""


@pytest.fixture
def child(tmp_path: Path) -> str:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "in").mkdir()
    return str(tmp_path / "child.py")


def test_whatever_a_parquet_file_holds(child: str, tmp_path: Path) -> None:
    arguments = [sys.executable, child, str(tmp_path / "in"), "0", str(EXAMPLES)]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=60 + EXAMPLES, check=False)
    assert ran.returncode == 0, f"seed {ran.stdout.split()[-1]}: {ran.returncode} {ran.stderr[-3000:]}"
