"""Whether the pieces of a plan make up the files of its input: what the workers and `verify` both go by."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray.corpus.parquet import row_groups
from sentray.corpus.source import Source
from sentray.corpus.splits import ShardPlan

_END = _UNKNOWN = -1
Mask = npt.NDArray[np.bool_]


def plan_faults(plan: ShardPlan, files: pa.Table) -> Iterator[str]:
    """How the plan's pieces differ from each file once, from its start to its end without gap or overlap.

    Where a Parquet file ends is not looked up: see `footer_faults`.

    Args:
        plan: The shards.
        files: `name` and `size` of the files; of synthetic reviews the size is their number.
    """
    table = plan.to_table()
    names = table["name"].cast(pa.string()).combine_chunks()
    file = pc.fill_null(pc.index_in(names, value_set=files["name"]), _UNKNOWN).to_numpy()
    row = table["row"].to_numpy()
    start, stop, rows = (_numbers(table[name]) for name in ("start", "stop", "rows"))
    first = np.diff(file, prepend=-2) != 0
    last, later = np.append(first[1:], True), np.flatnonzero(~first)
    times = np.bincount(file[first & (file >= 0)], minlength=files.num_rows)
    for name in files["name"].filter(pa.array(times != 1))[:1]:
        several = int((times != 1).sum())
        yield f"{several:,} of {files.num_rows:,} input files are not in the plan in one place (the first is {name})"

    begins = ~first | (start == 0)
    begins[later] = start[later] == stop[later - 1]
    counted = ~first | (row == 0)
    counted[later] = (rows[later - 1] == _UNKNOWN) | (row[later] == row[later - 1] + rows[later - 1])
    if plan.format == "jsonl":
        # Blank lines are numbered and are no rows.
        counted[later] |= row[later] > row[later - 1] + rows[later - 1]
    ends = ~last | (stop == _END)
    ends |= True if plan.format == "parquet" else stop == np.append(files["size"].to_numpy(), _UNKNOWN)[file]
    for holds, what in (
        (file >= 0, "are of files that the input did not have"),
        (begins, "do not begin where the one before ends"),
        ((stop == _END) | (stop > start), "end before they begin"),
        (ends, "do not end where their file does"),
        (counted, "do not count their rows from where the one before ends"),
    ):
        if not holds.all():
            yield f"{int((~holds).sum()):,} pieces of the plan {what} (the first is of {names[int(np.argmin(holds))]})"


def footer_faults(plan: ShardPlan, source: Source, root: str) -> Iterator[str]:
    """Parquet files whose last planned row group is not their last; those that cannot be read are passed over.

    Args:
        plan: The shards.
        source: Where the files lie.
        root: What comes before their names.
    """
    if plan.format != "parquet" or source.filesystem is None:
        return
    table = plan.to_table().select(["name", "stop"])
    table = table.filter(pc.is_valid(table["stop"])).cast(pa.schema({"name": pa.string(), "stop": pa.int64()}))
    stops = table.group_by("name").aggregate([("stop", "max")]).to_pylist()
    found = row_groups(source.filesystem, [root + each["name"] for each in stops])
    for planned, groups in zip(stops, found, strict=True):
        if groups and len(groups.rows) != planned["stop_max"]:
            yield f"{planned['name']} has {len(groups.rows):,} row groups and the plan {planned['stop_max']:,}"


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = pc.fill_null(column, _UNKNOWN).to_numpy()
    return numbers
