"""The proof holds for a whole job, and finds every kind of damage."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.config import VerifySettings
from sentray.errors import SentrayError
from sentray.scoring import compaction
from sentray.scoring import verify as module
from sentray.scoring.output import COMPACTIONS, Compacted, Log, OutputFolder
from sentray.scoring.parts import EARLIER_QUARANTINE, Part, part_name, quarantine_name
from sentray.scoring.verify import verify

MakeRun = Callable[..., Any]
ALL = {"rows_per_file": 100, "partition_by": "label"}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def faults(out: Path, console) -> Callable[..., list[str]]:
    """What verify finds wrong with the output."""

    def find(input: Path | None = None) -> list[str]:
        console.lines.clear()
        said = ""
        try:
            verify(VerifySettings(directory=str(out), input=str(input) if input else None), console)
        except SentrayError as error:
            said = str(error)
        found = [line.removeprefix("fault: ") for line in console.lines if line.startswith("fault: ")]
        assert bool(found) == bool(said)
        assert not found or f"has {len(found)} fault" in said
        return found

    return find


@pytest.mark.parametrize("how", [{}, {"rows_per_file": 100}, {"partition_by": "label"}, ALL])
def test_a_whole_job_passes(run: MakeRun, reviews: Path, faults, console, how: dict[str, Any]) -> None:
    run(**how).whole()
    assert faults(reviews) == []
    files = {(): 4, ("rows_per_file",): 4, ("partition_by",): 8}.get(tuple(how))
    assert console.lines[0].startswith("304 planned rows = 300 in ")
    assert files is None or f" in {files} files + 4 quarantined" in console.lines[0]
    assert console.lines[0].endswith("4 of 4 shards committed; every file as recorded")
    assert console.lines[1] == f"304 rows of {reviews} compared, 4 shards"


def test_quarantines_of_earlier_versions_have_no_detail(run: MakeRun, reviews: Path, faults, monkeypatch, out) -> None:
    job = run()
    with monkeypatch.context() as patch:
        patch.setitem(job.files.__func__.__globals__, "QUARANTINE_SCHEMA", EARLIER_QUARANTINE)
        job.score(job.open()[:3])
    assert "detail" not in pq.read_schema(out / quarantine_name(2)).names
    job.score(job.open()[3:])
    job.finish()
    assert faults(reviews) == []
    whole = out / "quarantine.parquet"
    pq.write_table(pq.read_table(whole).drop_columns("detail"), whole)
    assert faults(reviews) == []


def test_the_input_may_have_moved(run: MakeRun, reviews: Path, tmp_path: Path, faults) -> None:
    run().whole()
    shutil.move(reviews, tmp_path / "elsewhere")
    assert faults(tmp_path / "elsewhere") == []


def test_a_file_that_the_copy_lacks_is_not_read_at_its_old_place(
    run: MakeRun, reviews: Path, tmp_path: Path, faults
) -> None:
    run().whole()
    shutil.copytree(reviews, tmp_path / "copy")
    assert faults(tmp_path / "copy") == []
    (tmp_path / "copy/part3.parquet").unlink()
    found = faults(tmp_path / "copy")
    assert found
    assert all(fault.startswith("shard 3 (part3.parquet)") for fault in found)


def test_an_input_of_another_format_is_refused(run: MakeRun, out: Path, console) -> None:
    run().whole()
    with pytest.raises(SentrayError, match="synthetic:9 is synthetic and the job's input parquet"):
        verify(VerifySettings(directory=str(out), input="synthetic:9"), console)


def test_the_comparison_computes_no_splits(run: MakeRun, reviews: Path, faults, monkeypatch) -> None:
    read, fractions = module.read_shard, []
    monkeypatch.setattr(
        module,
        "read_shard",
        lambda *given, **named: (fractions.append(given[2].test_fraction), read(*given, **named))[1],
    )
    run().whole()
    assert faults(reviews) == []
    assert fractions == [0] * 4


@pytest.mark.parametrize("column", ["start", "stop"])
def test_a_plan_that_leaves_out_part_of_a_file_is_found(
    run: MakeRun, reviews: Path, out: Path, faults, column: str
) -> None:
    job = run()
    plan = job.open()
    job.score(plan)
    job.finish()
    table = plan.to_table()
    numbers = pa.array([1, 0, 0, 0] if column == "start" else [None, None, None, 2], pa.int64())
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, numbers), out / "_sentray/plan-000001.parquet")
    if column == "start":
        assert faults()[0] == "the first piece of part0.parquet in the plan does not begin where the file does"
    else:
        assert faults(reviews)[0] == "part3.parquet has 1 row groups and the plan 2"


@pytest.mark.parametrize("how", [{}, ALL])
def test_an_unfinished_job_says_how_to_go_on(run: MakeRun, faults, how: dict[str, Any]) -> None:
    job = run(**how)
    plan = job.open()
    assert faults() == ["4 of 4 shards are not committed; run the same score command again"]
    job.score(plan[:3])
    assert faults() == ["1 of 4 shards are not committed; run the same score command again"]
    job.score(plan[3:])
    found = faults()
    assert ("files of scores are not compacted" in found[0]) == bool(how)
    assert "summary.json is missing; run the same score command again" in found
    job.finish()
    assert faults() == []


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def drop(file: Path, key: str) -> None:
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != key}))


def leave(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text("")


def change(file: Path, do: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(do(pq.read_table(file)), file)


def parts(out: Path) -> list[Path]:
    return sorted((out / "scores").rglob("*.parquet"))


@pytest.mark.parametrize("how", [{}, {"rows_per_file": 100}])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: parts(out)[1].unlink(), r"part-.* is gone; run the same score command again"),
        (
            lambda out: change(parts(out)[0], lambda rows: rows.slice(1)),
            r"not as it was written \(its SHA-256 differs\)",
        ),
        (
            lambda out: shutil.copy(parts(out)[0], out / "scores/copy.parquet"),
            r"scores/copy\.parquet is not in the ledger",
        ),
        (lambda out: (out / "scores/.x").write_text(""), r"scores/\.x is not in the ledger"),
        (lambda out: next(out.glob("_sentray/quarantine/*2.*")).unlink(), r"quarantine/000002\.parquet is gone"),
        (lambda out: (out / "quarantine.parquet").unlink(), r"quarantine\.parquet cannot be read"),
        (lambda out: change(out / "quarantine.parquet", lambda rows: rows.slice(1)), "rows of shard 1 in their place"),
        (
            lambda out: change(out / "quarantine.parquet", lambda rows: pa.concat_tables([rows, rows])),
            "4 rows that no shard has quarantined",
        ),
        (lambda out: edit(out / "summary.json", rows=305), "summary.json says rows 305, the ledger 304"),
        (lambda out: edit(out / "summary.json", labels={"neg": 1}), "summary.json says labels"),
        (lambda out: edit(out / "summary.json", rows_quarantined=3), "rows_quarantined 3, the ledger 4"),
        (lambda out: (out / "summary.json").unlink(), "summary.json is missing"),
        (
            lambda out: (out / "summary.json").write_text(""),
            r"summary\.json cannot be read .*run the same command again",
        ),
        (lambda out: drop(out / "summary.json", "words"), "summary.json says words None"),
        (lambda out: drop(out / "summary.json", "bundle"), "summary.json says bundle None"),
        (lambda out: (out / "notes.txt").write_text(""), r"notes\.txt is not in the ledger"),
        (lambda out: leave(out / "_sentray/staged/part-000009.parquet"), "staged/part-000009.parquet is not in the le"),
        (lambda out: leave(out / "_sentray/quarantine/000009.parquet"), "quarantine/000009.parquet is not in the led"),
    ],
)
def test_damage_is_found(run: MakeRun, out: Path, faults, damage, message: str, how: dict[str, Any]) -> None:
    run(**how).whole()
    damage(out)
    found = faults()
    assert any(re.search(message, fault) for fault in found), found


def relabelled(rows: pa.Table) -> pa.Table:
    return rows.rename_columns(["id", "class", "score"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda rows: rows.slice(1), "holds 75 rows, recorded were 76"),
        (relabelled, "has other columns than the plan says"),
        (lambda rows: rows.cast(rows.schema.set(2, pa.field("score", pa.float64()))), "has other columns"),
        (lambda rows: rows.replace_schema_metadata({"sentray.bundle": "c"}), "names another bundle"),
    ],
)
def test_a_file_that_was_written_wrong_is_found(run: MakeRun, out: Path, faults, make, message: str) -> None:
    job = run().whole()
    record = next(record for record in job.out.records() if record.shard == 0)
    change(out / record.parts[0].name, make)
    new = job.put(record.parts[0].name, (out / record.parts[0].name).read_bytes(), record.parts[0].rows)
    job.record([replace(record, parts=(new,))])
    [fault] = faults()
    assert message in fault


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 77}, "shard 0: 77 rows were read, there should be 76"),
        ({"scored": 75}, "shard 0: 76 rows are in its files of scores, there should be 75"),
        ({"quarantined": {"empty_text": 1}}, "shard 0: 0 rows are in its quarantine, there should be 1"),
    ],
)
def test_counts_that_do_not_fit_are_found(run: MakeRun, faults, changes: dict[str, Any], message: str) -> None:
    job = run().whole()
    record = next(record for record in job.out.records() if record.shard == 0)
    job.record([replace(record, counts=replace(record.counts, **changes))])
    assert message in faults()


def record_compaction(job: Any, *records: Compacted) -> None:
    log = Log(job.out, COMPACTIONS)
    for record in records:
        log.add(record)
    log.flush()


def test_compacted_rows_that_no_shard_has_are_found(run: MakeRun, out: Path, faults) -> None:
    job = run(rows_per_file=100).whole()
    compacted = next(iter(job.out.compacted()))
    name = "scores/part-000009-" + "b" * 12 + ".parquet"
    part = job.put(name, (out / compacted.part.name).read_bytes(), compacted.part.rows)
    record_compaction(job, replace(compacted, part=part))
    assert any("do not hold each shard once and in order: 3 comes after 3" in fault for fault in faults())


def test_compacted_files_that_interleave_are_found(run: MakeRun, out: Path, faults) -> None:
    job = run(rows_per_file=1)
    plan = job.open()
    job.score(plan)
    rows = {record.shard: record.parts[0].rows for record in job.out.records()}
    for shards in ([0, 2], [1, 3]):
        staged = [part_name(shard, job.digest, staged=True) for shard in shards]
        name = part_name(shards[0], job.digest)
        schema = pq.read_schema(out / staged[0])
        part = compaction._concatenate(job.out, name, staged, schema, lambda: None)
        record_compaction(job, Compacted(part, [(shard, rows[shard]) for shard in shards]))
    job.finish()
    assert faults() == ["the files in scores do not hold each shard once and in order: 1 comes after 2"]


def rescore(job: Any, shard: int, do: Callable[[pa.Table], pa.Table]) -> None:
    """Put other rows into a shard's file as if they had been scored."""
    record = next(record for record in job.out.records() if record.shard == shard)
    with job.out.open_file(record.parts[0].name) as stream:
        rows = do(pq.read_table(stream))
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    part: Part = job.put(record.parts[0].name, sink.getvalue(), rows.num_rows)
    job.record([replace(record, parts=(part,))])


def with_ids(rows: pa.Table, change: Callable[[list[str]], list[str]]) -> pa.Table:
    return rows.set_column(0, "id", [change(rows["id"].to_pylist())])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (lambda ids: ids[::-1], "its rows are not in the input's order"),
        (lambda ids: [*ids[:-1], ids[0]], "2 good rows are not scored once (the first has the id r0)"),
        (lambda ids: [*ids[:-1], "x"], "1 scored rows are not in the input"),
    ],
)
def test_other_rows_than_the_input_has_are_found(run: MakeRun, reviews: Path, faults, ids, message: str) -> None:
    job = run().whole()
    rescore(job, 0, lambda rows: with_ids(rows, ids))
    assert faults() == []
    [fault] = faults(reviews)
    assert fault == f"shard 0 (part0.parquet): {message}"


def test_an_input_that_changed_is_found(run: MakeRun, reviews: Path, faults) -> None:
    run().whole()
    change(reviews / "part1.parquet", lambda rows: rows.set_column(1, "text", [["  ", *rows["text"].to_pylist()[1:]]]))
    found = faults(reviews)
    assert len(found) == 2
    assert "1 scored rows are not in the input" in found[0]
    assert "its quarantine holds 1 rows and the input has 2 bad ones" in found[1]
    assert "empty_text" in found[1]


@pytest.mark.parametrize("how", [{}, ALL])
def test_unreadable_files_and_crashes_are_accounted_for(run: MakeRun, reviews: Path, faults, how) -> None:
    job = run(**how)
    plan = job.open()
    content = (reviews / "part1.parquet").read_bytes()
    (reviews / "part1.parquet").write_bytes(content[: len(content) // 2])
    (reviews / "part3.parquet").unlink()
    job.crashes = {("part0.parquet", 5)}
    job.score(plan)
    job.finish()
    assert faults(reviews) == []
    assert json.loads(job.out.read("summary.json"))["quarantined"] == {
        "unreadable_file": 2,
        "empty_text": 2,
        "null_text": 1,
        "crash": 1,
    }


def test_a_reader_that_kept_duplicates_is_found(run: MakeRun, reviews: Path, faults) -> None:
    for part in (0, 1):
        change(
            reviews / f"part{part}.parquet", lambda rows: rows.set_column(0, "id", [[f"d{row}" for row in range(76)]])
        )
    run().whole()
    assert faults() == []
    found = faults(reviews)
    assert "shard 1" in found[0]
    assert "duplicate_id" in found[-1]


def test_only_the_first_faults_are_listed(run: MakeRun, out: Path, faults, console, monkeypatch) -> None:
    monkeypatch.setattr(module, "MAX_SHOWN", 2)
    run().whole()
    for number in range(5):
        (out / "scores" / f"{number}.txt").write_text("")
    with pytest.raises(SentrayError, match="has 5 faults; the first 2 are listed above"):
        verify(VerifySettings(directory=str(out)), console)
    assert sum(line.startswith("fault") for line in console.lines) == 2


def test_refuses_what_is_no_output(tmp_path: Path, run: MakeRun, out: Path, console) -> None:
    with pytest.raises(SentrayError, match="is not the output of a scoring job"):
        verify(VerifySettings(directory=str(tmp_path)), console)
    run().whole()
    next(out.glob("_sentray/plan-*")).write_bytes(b"PAR1")
    with pytest.raises(SentrayError, match=r"plan-000001\.parquet cannot be read"):
        verify(VerifySettings(directory=str(out)), console)
    assert OutputFolder(str(out)).summary()
