import os
from pathlib import Path

import pyarrow as pa
import pytest

from sentray.scoring import held
from sentray.scoring.held import Held

SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float32())], {"made": "by a test"})


@pytest.mark.parametrize("most", [1 << 27, 100])
def test_rows_come_back_as_they_were_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(held, "MOST_BYTES", most)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tables = [
        pa.table({"id": [f"{part}:{row}" for row in range(10)], "score": pa.array([0.5] * 10, pa.float32())}, SCHEMA)
        for part in range(20)
    ]
    with Held(SCHEMA) as rows:
        for table in tables:
            rows.add(table)
        assert bool(os.listdir(tmp_path)) == (most == 100)
        whole = rows.table()
        assert whole.equals(pa.concat_tables(tables), check_metadata=True)
        del whole
    assert not os.listdir(tmp_path)


def test_no_rows() -> None:
    with Held(SCHEMA) as rows:
        assert rows.table().equals(SCHEMA.empty_table(), check_metadata=True)
