"""DuckDB, Polars and pandas read the output, however it is laid out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

COLUMNS = ["id", "label", "positive", "rating"]

Row = tuple[Any, ...]

pytestmark = pytest.mark.usefixtures("ray_session", "a_shard_a_file", "light")


def by_duckdb(scores: Path) -> list[Row]:
    duckdb = pytest.importorskip("duckdb")
    chosen = f"SELECT {', '.join(COLUMNS)} FROM read_parquet('{scores}/**/*.parquet', hive_partitioning = true)"
    rows: list[Row] = duckdb.sql(chosen).fetchall()
    return rows


def by_polars(scores: Path) -> list[Row]:
    polars = pytest.importorskip("polars")
    rows: list[Row] = (
        polars.scan_parquet(f"{scores}/**/*.parquet", hive_partitioning=True).select(COLUMNS).collect().rows()
    )
    return rows


def by_pandas(scores: Path) -> list[Row]:
    pandas = pytest.importorskip("pandas")
    return list(pandas.read_parquet(scores)[COLUMNS].itertuples(index=False, name=None))


@pytest.mark.parametrize(
    "layout",
    [{}, {"rows_per_file": 152}, {"partition_by": "label"}, {"partition_by": "rating", "rows_per_file": 20}],
    ids=["plain", "compacted", "by label", "by rating"],
)
def test_others_read_the_same_rows(score: Callable[..., Any], out: Path, layout: dict[str, Any]) -> None:
    score(keep=("rating",), **layout)
    table = ds.dataset(out / "scores", partitioning="hive").to_table(columns=COLUMNS)
    wanted = sorted(zip(*(table[name].to_pylist() for name in COLUMNS), strict=True))
    assert len(wanted) == 300
    for read in (by_duckdb, by_polars, by_pandas):
        assert sorted(read(out / "scores")) == wanted, read.__name__
