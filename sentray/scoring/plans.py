"""The plan as the output folder keeps it: written once, read at every later start, extended by new input.

`plan.json` names the generation whose files count. It is written last, so that a kill between leaves the older one.
"""

import json
from dataclasses import dataclass, replace
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter

from sentray.corpus import splits
from sentray.corpus.parquet import read_table
from sentray.corpus.source import Format, Source
from sentray.errors import SentrayError
from sentray.scoring.records import Header
from sentray.storage import Folder, locate

OWN = "_sentray"
_PLAN = f"{OWN}/plan.json"
_CURE = "choose another --out, or remove it"
_FILES_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string()),
        pa.field("path", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("modified", pa.int64()),
    ]
)
_WHAT_DIFFERS = {
    "engine": "with another --engine",
    "columns": "with other columns",
    "shard_size": "with another --shard-size",
    "rows_per_file": "with another --rows-per-file",
    "partition_by": "with another --partition-by",
    "schema": "with another output schema (other types of kept columns, or other labels)",
}


MAX_SHARDS = 10**8


@dataclass(frozen=True)
class Stored:
    """What `plan.json` says.

    Attributes:
        header: What the job is.
        format: Of the input's files.
        generation: Number in the names of the files that hold the plan.
        shards: How many the plan has; a record of all is kept in memory.
    """

    header: Header
    format: Format
    generation: Annotated[int, Field(ge=0, lt=10**9)]
    shards: Annotated[int, Field(ge=0, le=MAX_SHARDS)]

    @property
    def plan_name(self) -> str:
        """File with the shards."""
        return f"{OWN}/plan-{self.generation:06d}.parquet"

    @property
    def files_name(self) -> str:
        """File with name, path, size and time of change of each input file."""
        return f"{OWN}/files-{self.generation:06d}.parquet"


_STORED = TypeAdapter(Stored)


def load(folder: Folder) -> Stored | None:
    """What the folder's job is; None where there is none.

    Raises:
        SentrayError: When the plan is damaged.
    """
    values = folder.read_json(_PLAN)
    if values is None:
        return None
    try:
        stored = _STORED.validate_python(values)
        columns = stored.header.columns
        if not (isinstance(columns.get("text"), str) and isinstance(columns.get("id"), str)):
            raise ValueError("it does not name the columns")
        if not (isinstance(columns.get("keep"), list) and all(isinstance(name, str) for name in columns["keep"])):
            raise ValueError("it does not name the columns to keep")
        # What the input is, `verify` looks up for generated reviews.
        if (stored.format == "synthetic") != stored.header.input.startswith("synthetic:"):
            raise ValueError("its input has another format")
    except ValueError as error:
        raise folder.damaged(_PLAN, error) from error
    return stored


def load_plan(folder: Folder, stored: Stored) -> "splits.ShardPlan":
    """The shards.

    Raises:
        SentrayError: When they cannot be read or are not those that `plan.json` was written for.
    """
    try:
        plan = splits.ShardPlan.from_table(_load_table(folder, stored.plan_name, splits.PLAN_SCHEMA), stored.format)
        if len(plan) != stored.shards:
            raise ValueError(f"it has {len(plan):,} shards, not {stored.shards:,}")
    except (ValueError, KeyError, pa.ArrowException) as error:
        raise folder.damaged(stored.plan_name, error) from error
    return plan


def load_files(folder: Folder, stored: Stored) -> pa.Table:
    """The input's files as they were: name, path, size and time of change.

    Raises:
        SentrayError: When they cannot be read.
    """
    try:
        return _load_table(folder, stored.files_name, _FILES_SCHEMA).cast(_FILES_SCHEMA)
    except (ValueError, pa.ArrowException) as error:
        raise folder.damaged(stored.files_name, error) from error


def start(folder: Folder, header: Header, source: Source, generation: int) -> "splits.ShardPlan":
    """Plan a new job and write the plan.

    Raises:
        SentrayError: When the input cannot be read or the folder not be written.
    """
    plan = splits.plan_shards(source, header.shard_size)
    _store(folder, Stored(header, source.format, generation, len(plan)), plan, _files(source))
    return plan


def require_same(folder: Folder, stored: Stored, header: Header) -> None:
    """Refuse to go on with another job than the folder's.

    Raises:
        SentrayError: When anything but the content of the input differs.
    """
    was, now = stored.header.to_json(), json.loads(json.dumps(header.to_json()))
    if was["bundle"] != now["bundle"]:
        raise SentrayError(
            f"{folder.out} was made by another bundle ({was['bundle'][:12]}, this one is {now['bundle'][:12]}); {_CURE}"
        )
    if was["input"] != now["input"]:
        raise SentrayError(_other_input(folder, stored, header.input, ""))
    for name, what in _WHAT_DIFFERS.items():
        if was[name] != now[name]:
            raise SentrayError(f"{folder.out} was made {what}; {_CURE}")


def resume(folder: Folder, stored: Stored, source: Source, new_input: bool) -> "splits.ShardPlan":
    """The stored plan, when the input is as it was then; with `new_input` extended by new files.

    Raises:
        SentrayError: When a planned file changed or is gone, or there are new ones and they are not wanted.
    """
    plan = load_plan(folder, stored)
    before, now = load_files(folder, stored), _files(source)
    if before.num_rows:
        plan.require_files(before["path"], before["name"])
    if before.equals(now):
        return plan
    place = pc.index_in(now["name"], value_set=before["name"])
    is_new = pc.is_null(place)
    changed = _first_change(before, now.filter(pc.is_valid(place)), before.take(place.drop_null()))
    if changed:
        raise SentrayError(_other_input(folder, stored, source.uri, f" ({changed})"))
    if not new_input:
        name = now.filter(is_new)["name"][0]
        raise SentrayError(
            f"{folder.out} was made when {source.uri} held fewer files ({name} is new); add --new-input to score the "
            "new ones too, or choose another --out"
        )
    added = replace(
        source, files=tuple(file for file, new in zip(source.files, is_new.to_pylist(), strict=True) if new)
    )
    plan = plan.extended(splits.plan_shards(added, stored.header.shard_size))
    # What was written at the job's end holds for the old input only.
    folder.delete("summary.json")
    _store(folder, replace(stored, generation=stored.generation + 1, shards=len(plan)), plan, now)
    return plan


def require_unchanged(folder: Folder, stored: Stored, source: Source) -> None:
    """Make sure that no file became another while it was scored; one that is gone was set aside.

    Raises:
        SentrayError: When one did, so that the output may hold rows of both.
    """
    before, now = load_files(folder, stored), _files(source)
    place = pc.index_in(now["name"], value_set=before["name"])
    then = before.take(place.drop_null())
    if changed := _first_change(then, now.filter(pc.is_valid(place)), then):
        raise SentrayError(
            f"{changed} while {source.uri} was scored, so that {folder.out} may hold rows of both versions; score the "
            "input again to another --out when it is complete"
        )


def _store(folder: Folder, stored: Stored, plan: "splits.ShardPlan", files: pa.Table) -> None:
    for name, table in ((stored.plan_name, plan.to_table()), (stored.files_name, files)):
        content = pa.BufferOutputStream()
        pq.write_table(table, content, compression="zstd")
        folder.write(name, content.getvalue())
    values = {
        "header": stored.header.to_json(),
        "format": stored.format,
        "generation": stored.generation,
        "shards": stored.shards,
        "files": files.num_rows,
    }
    folder.write_json(_PLAN, values)
    for name in folder.names(OWN):
        if name.endswith(".parquet") and name not in (stored.plan_name, stored.files_name):
            folder.delete(name)


def _load_table(folder: Folder, name: str, schema: pa.Schema) -> pa.Table:
    try:
        return read_table(locate(folder.out)[0], folder.path(name), schema)
    except SentrayError as error:
        raise folder.damaged(name, error) from error


def _files(source: Source) -> pa.Table:
    columns = [[getattr(file, name) for file in source.files] for name in _FILES_SCHEMA.names]
    return pa.table(columns, schema=_FILES_SCHEMA).combine_chunks()


def _first_change(before: pa.Table, now: pa.Table, then: pa.Table) -> str:
    """What happened to the first planned file that is not as it was; `now` and `then` are the same files' facts."""
    gone = before.filter(pc.invert(pc.is_in(before["name"], value_set=now["name"])))
    if gone.num_rows:
        return f"{gone['name'][0]} is gone"
    for column, what in (("size", "has changed"), ("modified", "has changed"), ("path", "lies elsewhere")):
        same = pc.fill_null(pc.equal(now[column], then[column]), False)
        both_null = pc.and_(pc.is_null(now[column]), pc.is_null(then[column]))
        other = now.filter(pc.invert(pc.or_(same, both_null)))
        if other.num_rows:
            return f"{other['name'][0]} {what}"
    return ""


def _other_input(folder: Folder, stored: Stored, uri: str, how: str) -> str:
    return f"{folder.out} was made from the input {stored.header.input}, and {uri} is not the same now{how}; {_CURE}"
