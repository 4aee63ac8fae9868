"""A table in memory becomes a Parquet file that its content names, from whatever library it comes."""

import errno
import gzip
import io
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.corpus.memory import GROUP_ROWS, is_table, stored
from sentray.corpus.source import resolve
from sentray.errors import SentrayError

ROWS = GROUP_ROWS + 100
COLUMNS = {"text": ["good", None, "naïve"] * (ROWS // 3), "stars": list(range(ROWS // 3 * 3))}
TABLE = pa.table(COLUMNS)


class Blocks:
    """What a Ray Dataset of these blocks offers, and whether it would keep their order and show progress."""

    def __init__(self, blocks: list[pa.Table]) -> None:
        self.context = SimpleNamespace(
            execution_options=SimpleNamespace(preserve_order=False), enable_progress_bars=True
        )
        self._blocks = blocks
        self.seen: set[tuple[bool, bool]] = set()

    @property
    def state(self) -> tuple[bool, bool]:
        return self.context.execution_options.preserve_order, self.context.enable_progress_bars

    def iter_batches(self, **_: Any) -> Iterator[pa.Table]:
        for block in self._blocks:
            self.seen.add(self.state)
            yield block


def name_of(table: Any) -> str:
    with stored(table) as file:
        return Path(file).name


@pytest.mark.parametrize(
    "make",
    [
        lambda: pd.DataFrame(COLUMNS),
        lambda: pl.DataFrame(COLUMNS),
        lambda: duckdb.from_arrow(TABLE),
        lambda: pa.concat_tables([TABLE.slice(0, 7), TABLE.slice(7, 20_000), TABLE.slice(20_007)]),
        lambda: TABLE.cast(pa.schema({"text": pa.large_string(), "stars": pa.int64()})),
        lambda: TABLE.set_column(0, "text", TABLE["text"].dictionary_encode()),
        lambda: pl.DataFrame(COLUMNS).cast({"text": pl.Categorical}),
        lambda: TABLE.to_reader(max_chunksize=1_000),
        lambda: TABLE.replace_schema_metadata({"made": "elsewhere"}),
    ],
    ids=[
        "pandas",
        "Polars",
        "DuckDB",
        "other pieces",
        "large strings",
        "a dictionary",
        "Categorical",
        "a reader",
        "metadata",
    ],
)
def test_the_same_rows_give_the_same_file(make: Callable[[], Any]) -> None:
    table = make()
    assert is_table(table)
    assert name_of(table) == name_of(TABLE)


@pytest.mark.parametrize(
    "other",
    [
        TABLE.slice(1),
        TABLE.rename_columns(["text", "star"]),
        TABLE.cast(pa.schema({"text": pa.string(), "stars": pa.int32()})),
        TABLE.set_column(1, "stars", pa.array([*range(TABLE.num_rows - 1), 0])),
    ],
    ids=["a row less", "a name", "a type", "a value"],
)
def test_other_rows_give_another_file(other: pa.Table) -> None:
    assert name_of(other) != name_of(TABLE)


def test_a_ray_dataset_in_its_order(ray_session: None) -> None:
    import ray

    dataset = ray.data.from_arrow([TABLE.slice(0, 5_000), TABLE.slice(5_000)]).map_batches(
        lambda batch: batch, batch_format="pyarrow", batch_size=1_000
    )
    assert is_table(dataset)
    with stored(dataset) as file:
        assert pq.read_table(file).equals(TABLE)
        assert Path(file).name == name_of(TABLE)


def test_a_dataset_is_read_in_order_without_progress_bars_and_left_as_it_was() -> None:
    large = pa.schema({"text": pa.large_string(), "stars": pa.int64()})
    dataset = Blocks([TABLE.slice(0, 5), TABLE.slice(5).cast(large)])
    assert name_of(dataset) == name_of(TABLE)
    assert dataset.seen == {(True, False)}
    assert dataset.state == (False, True)


def test_blocks_without_columns_and_rows_say_nothing_of_the_others() -> None:
    nothing = pa.table({})
    assert name_of(Blocks([nothing, nothing, TABLE.slice(0, 5), nothing, TABLE.slice(5)])) == name_of(TABLE)
    with pytest.raises(SentrayError, match="has no row"):
        name_of(Blocks([nothing]))


def test_a_parquet_file_is_no_table(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "x.parquet")
    assert not is_table(pq.ParquetFile(tmp_path / "x.parquet"))


def test_the_file_holds_the_rows_and_a_temporary_one_goes() -> None:
    with stored(TABLE) as file:
        assert pq.read_table(file).equals(TABLE)
        assert pq.ParquetFile(file).metadata.num_row_groups == 2
    assert not Path(file).parent.exists()


def test_in_a_work_folder_it_is_written_once_and_stays(tmp_path: Path) -> None:
    work = tmp_path / "out.work"
    with stored(TABLE, str(work)) as file:
        assert Path(file).parent == work
    before = Path(file).stat()
    with stored(pl.DataFrame(COLUMNS), str(work)) as again:
        assert again == file
    after = Path(file).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [*work.iterdir()] == [Path(file)]


def _refused(table: pa.Table, work: Path, out: Path | None = None) -> None:
    with stored(table, str(work), str(out) if out else None) as file:
        assert Path(file).exists()
        raise SentrayError("other data")


def test_a_table_refused_before_anything_was_begun_leaves_nothing(tmp_path: Path) -> None:
    work, out = tmp_path / "out.work", tmp_path / "out"
    with pytest.raises(SentrayError, match="other data"):
        _refused(TABLE, work, out)
    assert not [*work.iterdir()]
    out.mkdir()
    (out / "plan").touch()
    with pytest.raises(SentrayError, match="other data"):
        _refused(TABLE, work, out)
    # The job that has begun asks for the same file, with the same time.
    assert len([*work.iterdir()]) == 1


def test_what_shall_not_be_added_is_there_already_or_temporary(tmp_path: Path) -> None:
    with stored(TABLE, str(tmp_path / "new"), add=False) as file:
        assert tmp_path not in Path(file).parents
    assert not Path(file).exists()
    assert not (tmp_path / "new").exists()
    with stored(TABLE, str(tmp_path)) as kept, stored(TABLE, str(tmp_path), add=False) as file:
        assert file == kept


def test_a_refused_table_leaves_nothing_beside_that_of_another_run(tmp_path: Path) -> None:
    with stored(TABLE, str(tmp_path)) as file:
        pass
    # Its own stays, since the same call goes on with it.
    for table in (TABLE.slice(1), TABLE):
        with pytest.raises(SentrayError, match="other data"):
            _refused(table, tmp_path)
        assert [*tmp_path.iterdir()] == [Path(file)]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (TABLE.slice(0, 0), "the table in memory has no row: give one that has some"),
        (pa.table({"bad": pa.array([(1, 2, 3)], pa.month_day_nano_interval())}), "the table in memory cannot be"),
        (pd.DataFrame({"text": ["good", 1, b"bad"]}), "the table in memory cannot be written as Parquet"),
        (pd.Series(["good"]), "the table in memory cannot be written as Parquet"),
        (
            pl.DataFrame({"tags": [["a"]]}, schema={"tags": pl.List(pl.Categorical)}),
            "the table in memory cannot be written as Parquet",
        ),
        (pa.table([["a"], ["b"]], ["text", "text"]), "the table in memory has several columns 'text'"),
        (
            Blocks([pa.table({"text": ["a"]}), pa.table({"body": ["a"]})]),
            "a block of the dataset has the columns body, and the first has text",
        ),
        (
            Blocks([pa.table({"text": ["a"]}), pa.table({"text": ["b"], "id": ["1"]})]),
            "a block of the dataset has the columns text, id, and the first has text",
        ),
        (
            Blocks([pa.table({"stars": [1]}), pa.table({"stars": [1.5]})]),
            "the column 'stars' is int64 in the first block of the dataset and double in another: give it one type",
        ),
        (
            Blocks([pa.table({"id": [1]}), pa.table({"id": ["007"]})]),
            "the column 'id' is int64 in the first block of the dataset and string in another: give it one type",
        ),
    ],
)
def test_what_cannot_be_stored_is_one_sentence(table: pa.Table, sentence: str) -> None:
    with pytest.raises(SentrayError, match=f"^{sentence}"), stored(table):
        pass


def test_a_stream_is_kept_as_it_came_and_named_by_its_content(tmp_path: Path) -> None:
    content, work = b"id,text\n1,good\n", str(tmp_path / "out.work")
    with stored(io.BytesIO(content)) as file:
        assert Path(file).read_bytes() == content
    assert not Path(file).exists()
    with stored(io.BytesIO(content), work) as kept:
        assert Path(kept).name == Path(file).name
    assert re.fullmatch("input-[0-9a-f]{16}", Path(kept).name)
    modified = Path(kept).stat().st_mtime_ns
    with stored(io.BytesIO(content), work) as again:
        assert (again, Path(again).stat().st_mtime_ns) == (kept, modified)
    with stored(io.BytesIO(b"other"), work) as other:
        assert other != kept


def test_the_content_of_a_stream_tells_its_format() -> None:
    parquet = io.BytesIO()
    pq.write_table(TABLE.slice(0, 3), parquet)
    for content, kind in (
        (b"id,text\n1,good\n", "csv"),
        (b'{"text": "good"}\n', "jsonl"),
        (gzip.compress(b"id,text\n1,good\n", mtime=0), "csv"),
        (parquet.getvalue(), "parquet"),
    ):
        with stored(io.BytesIO(content)) as file:
            assert resolve(file).format == kind


def test_an_empty_stream_is_refused() -> None:
    with pytest.raises(SentrayError, match="the piped input is empty: pipe reviews in"), stored(io.BytesIO()):
        pass


def test_a_stream_that_does_not_fit_says_where_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(SentrayError, match=r"No space left on device.*TMPDIR"), stored(io.BytesIO(b"text")):
        pass
