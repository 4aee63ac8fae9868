"""The output by the values of a column: a folder each, and few of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sentray.errors import SentrayError

Score = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.usefixtures("ray_session", "a_shard_a_file", "light")


def test_the_output_can_be_partitioned(score: Score, out: Path, reviews: Path, tmp_path: Path, proved) -> None:
    score(out=tmp_path / "plain", keep=("rating",))
    wanted = {row["id"]: row for row in ds.dataset(tmp_path / "plain/scores").to_table().to_pylist()}

    score(partition_by="label")
    names = {path.parent.name for path in (out / "scores").rglob("*.parquet")}
    assert names == {"label=neg", "label=pos"}
    part = next((out / "scores" / "label=neg").iterdir())
    assert "label" not in pq.ParquetFile(part).schema_arrow.names
    found = ds.dataset(out / "scores", partitioning="hive").to_table().to_pylist()
    assert {row["id"]: row["label"] for row in found} == {id_: row["label"] for id_, row in wanted.items()}
    proved(out, reviews)

    score(out=tmp_path / "by_rating", partition_by="rating", keep=("rating",), rows_per_file=20)
    folders = sorted((tmp_path / "by_rating" / "scores").iterdir())
    assert [folder.name for folder in folders] == [f"rating={rating}" for rating in range(10)]
    found = ds.dataset(tmp_path / "by_rating" / "scores", partitioning="hive").to_table().to_pylist()
    assert {row["id"]: row["rating"] for row in found} == {id_: row["rating"] for id_, row in wanted.items()}
    proved(tmp_path / "by_rating", reviews)


def test_a_partition_needs_a_column_of_few_values(score: Score, tmp_path: Path, proved) -> None:
    with pytest.raises(SentrayError, match="--partition-by rating is no column"):
        score(partition_by="rating")
    table = pa.table({"text": ["good"] * 1002, "city": [None, "", *map(str, range(1000))]})
    pq.write_table(table, tmp_path / "many.parquet")
    with pytest.raises(SentrayError, match="1,001 values of city"):
        score(input=tmp_path / "many.parquet", keep=("city",), partition_by="city")
    pq.write_table(table.slice(0, 5), tmp_path / "few.parquet")
    score(input=tmp_path / "few.parquet", keep=("city",), partition_by="city", out=tmp_path / "few")
    folders = {
        path.name: pq.ParquetFile(next(path.iterdir())).metadata.num_rows
        for path in (tmp_path / "few/scores").iterdir()
    }
    assert folders == {"city=__HIVE_DEFAULT_PARTITION__": 2, "city=0": 1, "city=1": 1, "city=2": 1}
    proved(tmp_path / "few", tmp_path / "few.parquet")


def test_partitions_are_counted_over_all_shards(score: Score, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentray.scoring.stats.MAX_PARTITIONS", 1)
    with pytest.raises(SentrayError, match=r"rows hold 2 values of label, and --partition-by makes a folder of each"):
        score(partition_by="label")


@pytest.mark.parametrize("column", [pa.array([["a"]]), pa.array([{"a": 1}])])
def test_a_partition_needs_single_values(score: Score, tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"text": ["good"], "tags": column}), tmp_path / "a.parquet")
    with pytest.raises(SentrayError, match=r"--partition-by tags: the column holds (list|struct)"):
        score(input=tmp_path / "a.parquet", keep=("tags",), partition_by="tags")
