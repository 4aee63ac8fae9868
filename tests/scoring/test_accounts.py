"""What is committed is compared with its files, whatever their size, and taken back where they differ."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentray.scoring.accounts import is_intact, withdraw


def test_files_of_any_size_are_compared_to_the_last_byte(
    run: Callable[..., Any], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = run().whole()
    records = {record.shard: record for record in job.ledger.records()}
    # Of files that are read whole.
    monkeypatch.setattr("sentray.storage._MAX_BYTES", 10)
    monkeypatch.setattr("sentray.storage._CHUNK", 7)
    assert all(is_intact(job.ledger, record) for record in records.values())
    first, second, third = (out / records[shard].parts[0].name for shard in (0, 1, 2))
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    second.unlink()
    third.unlink()
    third.mkdir()
    assert [is_intact(job.ledger, records[shard]) for shard in range(4)] == [False, False, False, True]


def test_the_shards_that_are_taken_back_are_told(run: Callable[..., Any]) -> None:
    job = run()
    job.score(job.open())
    assert sorted(withdraw(job.ledger, lambda record: record.shard > 1)) == [2, 3]
    assert job.committed() == [0, 1]
