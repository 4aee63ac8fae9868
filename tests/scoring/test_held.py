import os
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from sentray.errors import SentrayError
from sentray.scoring import held
from sentray.scoring.held import Held

SCHEMA = pa.schema([("id", pa.string()), ("score", pa.float32())], {"made": "by a test"})


@pytest.mark.parametrize("most", [1 << 27, 100])
def test_rows_come_back_as_they_were_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(held, "MAX_BYTES", most)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tables = [
        pa.table({"id": [f"{part}:{row}" for row in range(10)], "score": pa.array([0.5] * 10, pa.float32())}, SCHEMA)
        for part in range(20)
    ]
    with Held(SCHEMA) as rows:
        for table in tables:
            rows.add(table)
        assert has_open(tmp_path) == (most == 100)
        # A process that is killed leaves nothing behind.
        assert not os.listdir(tmp_path)
        whole = rows.table()
        assert whole.equals(pa.concat_tables(tables), check_metadata=True)
        del whole
    assert not has_open(tmp_path)


def has_open(folder: Path) -> bool:
    """Whether this process has a file of the folder open, a nameless one too."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return any(place.startswith(str(folder)) for place in found)


@pytest.mark.parametrize("at", ["open", "write", "map"])
def test_a_temporary_folder_without_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    def fail(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(held, "MAX_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    broken = {
        "open": "tempfile.TemporaryFile",
        "write": "pyarrow.RecordBatchFileWriter.write_table",
        "map": "mmap.mmap",
    }
    table = pa.table({"id": ["a"], "score": pa.array([0.5], pa.float32())}, SCHEMA)
    monkeypatch.setattr(broken[at], fail)
    with Held(SCHEMA) as rows, pytest.raises(SentrayError, match=rf"{tmp_path} of .*No space left .*make room"):  # noqa: PT012
        rows.add(table)
        rows.table()


def test_no_rows() -> None:
    with Held(SCHEMA) as rows:
        assert rows.table().equals(SCHEMA.empty_table(), check_metadata=True)
