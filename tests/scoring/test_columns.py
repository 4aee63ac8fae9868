"""The kept columns have one type for all files, found out before anything is scored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sentray.config import ScoreSettings
from sentray.corpus import limits
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.scoring.columns import kept_columns

pytestmark = pytest.mark.usefixtures("ray_session", "a_shard_a_file", "light")


def test_a_kept_column_takes_its_type_from_the_first_file_that_has_values(
    score: Callable[..., dict[str, Any]], out: Path, tmp_path: Path, proved
) -> None:
    folder = tmp_path / "nulls"
    folder.mkdir()
    for name, stars in (("a", pa.nulls(2)), ("b", pa.array([4, None], pa.int8()))):
        table = pa.table({"text": ["good", "bad"], "stars": stars, "never": pa.nulls(2)})
        pq.write_table(table, folder / f"{name}.parquet")
    score(input=folder, keep=("stars", "never"))
    scored = ds.dataset(out / "scores").to_table()
    assert scored["stars"].to_pylist() == [None, None, 4, None]
    assert scored.schema.field("stars").type == pa.int8()
    assert scored.schema.field("never").type == pa.string()
    proved(out, folder)


def test_no_row_of_parquet_is_read_for_the_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": ["good"] * 30, "stars": pa.array([4] * 30, pa.int8())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    monkeypatch.setattr(limits, "FREE_ROWS", 10)
    monkeypatch.setattr(limits, "BYTES_A_ROW", 1 << 30)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("it was read"))
    settings = ScoreSettings(bundle="b", input=str(tmp_path), out=str(tmp_path / "out"), keep=("stars",))
    assert kept_columns(resolve(str(tmp_path)), settings) == ({"stars": "stars"}, pa.schema([("stars", pa.int8())]))


def test_a_column_that_no_file_has_is_refused_before_anything_starts(score: Callable[..., Any], out: Path) -> None:
    with pytest.raises(SentrayError, match="stars"):
        score(keep=("stars",))
    assert not (out / "_sentray/plan.json").exists()
