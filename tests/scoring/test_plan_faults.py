"""Real plans tile their input; every gap, overlap and wrong number is found."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import ShardPlan, plan_shards
from sentray.scoring.verify import footer_faults, plan_faults


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Source]:
    """Makes an input of a small file and a large one."""

    def write(format: str) -> Source:
        if format == "synthetic":
            return resolve("synthetic:20000")
        for name, rows in (("a", 1), ("b", 20_000), ("c", 1)):
            file = tmp_path / f"{name}.{format}"
            if format == "csv":
                file.write_text("id,text\n" + "1,fine film\n" * rows)
            elif format == "jsonl":
                file.write_text('{"text": "fine film"}\n\n' * rows)
            else:
                pq.write_table(
                    pa.table({"text": [f"fine film {row}" for row in range(rows)]}), file, row_group_size=5000
                )
        return resolve(str(tmp_path))

    return write


def files(source: Source) -> pa.Table:
    given = [(file.name, file.size) for file in source.files] or [("synthetic", source.rows)]
    return pa.table({"name": [name for name, _ in given], "size": [size for _, size in given]})


def faults(source: Source, change: Callable[[pa.Table], pa.Table] = lambda table: table) -> list[str]:
    table = change(plan_shards(source, 1000).to_table())
    return list(plan_faults(ShardPlan(table, source.format), files(source)))


def moved(column: str, place: int, by: int) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        numbers = table[column].to_pylist()
        numbers[place] += by
        return table.set_column(table.schema.get_field_index(column), column, pa.array(numbers, pa.int64()))

    return change


def without(place: int) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.filter(pa.array(np.arange(table.num_rows) != place))


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "synthetic"])
def test_real_plans_tile_their_input(make: Callable[[str], Source], format: str) -> None:
    source = make(format)
    assert faults(source) == []
    plan = plan_shards(source, 1000)
    assert plan.to_table().num_rows > 3
    root = source.files[0].path.removesuffix(source.files[0].name) if source.files else ""
    assert list(footer_faults(plan, source, root)) == []


@pytest.mark.parametrize("format", ["csv", "jsonl", "synthetic"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (moved("start", 2, 1), "where the one before ends"),
        (moved("stop", 1, -1), "where the one before ends"),
        (moved("row", 2, -20_000), "where the one before ends"),
        (without(2), "where the one before ends"),
    ],
)
def test_gaps_and_overlaps_are_found(make: Callable[[str], Source], format: str, change: Any, message: str) -> None:
    assert any(message in fault for fault in faults(make(format), change))


def test_lost_files_and_ends_are_found(make: Callable[[str], Source]) -> None:
    source = make("csv")
    last = plan_shards(source, 1000).to_table().num_rows - 1
    for change, message in (
        (without(0), "a.csv is not in the plan"),
        (without(last - 1), "the last piece of b.csv in the plan ends at "),
        (moved("stop", last - 1, -1), "the last piece of b.csv in the plan ends at "),
        (moved("start", 0, 1), "the first piece of a.csv in the plan does not begin where the file does"),
        (lambda table: pa.concat_tables([table, table[:1]]), "the plan has a.csv twice, or the input did not have it"),
    ):
        assert faults(source, change)[0].startswith(message)
    other = files(source).slice(1)
    assert list(plan_faults(plan_shards(source, 1000), other)) == [
        "the plan has a.csv twice, or the input did not have it"
    ]


def test_a_lost_row_group_is_found(make: Callable[[str], Source]) -> None:
    source = make("parquet")
    plan = plan_shards(source, 1000).to_table()
    cut = ShardPlan(without(plan.num_rows - 2)(plan), "parquet")
    root = source.files[0].path.removesuffix(source.files[0].name)
    assert list(footer_faults(cut, source, root)) == ["b.parquet has 4 row groups and the plan 3"]
