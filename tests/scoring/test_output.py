"""The output folder: attempts become files of it whole, what a killed run left is removed, others are refused."""

import contextlib
import json
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import PLAN_SCHEMA, Shard, ShardPlan
from sentray.errors import SentrayError
from sentray.scoring import output
from sentray.scoring.output import COMPACTIONS, Attempt, Columns, Compacted, Header, Log, OutputFolder, Record
from sentray.scoring.parts import ATTEMPTS, Part, part_name, partition_folder, quarantine_name
from sentray.scoring.stats import Counts
from sentray.storage import Folder

MakeRun = Callable[..., Any]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_goes_on_with_the_stored_plan(run: MakeRun, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run()
    plan = first.open()
    first.score(plan[:2])
    assert first.committed() == [0, 1]
    assert len(plan) == 4

    def never(*_: Any) -> None:
        raise AssertionError("planned again")

    monkeypatch.setattr("sentray.corpus.splits.plan_shards", never)
    again = run(out.as_uri() + "/")
    assert list(again.open()) == list(plan)
    assert again.committed() == [0, 1]
    assert again.out.summary() is None


def test_a_shard_counts_when_all_its_files_are_there(run: MakeRun, out: Path) -> None:
    job = run()
    job.score(job.open())
    (out / part_name(1, job.digest)).unlink()
    assert job.committed() == [0, 2, 3]
    (out / quarantine_name(2)).unlink()
    assert job.committed() == [0, 3]
    assert sorted(record.shard for record in job.out.recorded()) == [0, 1, 2, 3]
    job.score(job.open()[1:2])
    assert job.committed() == [0, 1, 3]


@pytest.mark.parametrize("how", [{}, {"rows_per_file": 10}])
def test_a_file_that_was_cut_short_does_not_count(run: MakeRun, out: Path, how: dict[str, Any]) -> None:
    job = run(**how)
    job.score(job.open())
    for name in (part_name(1, job.digest, staged=bool(how)), quarantine_name(2)):
        (out / name).write_bytes((out / name).read_bytes()[:-1])
    assert job.committed() == [0, 3]


def test_a_compacted_file_that_was_cut_short_does_not_count(run: MakeRun, out: Path) -> None:
    job = run(rows_per_file=150).whole()
    name = out / part_name(0, job.digest)
    name.write_bytes(b"")
    assert job.committed() == [1, 2, 3]


def test_cleans_up_after_a_kill_and_touches_nothing_else(run: MakeRun, out: Path) -> None:
    job = run()
    plan = job.open()
    job.score(plan[:1])
    job.files(plan[2])
    kept = [out / ".gitignore", out / "scores" / "notes.txt", out / "scores" / f"part-000001-{'c' * 12}.parquet"]
    halves = [out / folder / f".x.parquet.{'0' * 32}" for folder in ("", "_sentray", "scores", "_sentray/ledger")]
    for file in (*kept, *halves):
        file.write_text("x")
    loose = [out / part_name(2, job.digest), out / quarantine_name(2)]
    assert all(file.exists() for file in loose)
    job.open()
    assert not any(file.exists() for file in (*halves, *loose))
    assert all(file.exists() for file in kept)
    assert job.committed() == [0]


def attempt(job: Any, shard: Shard) -> Attempt:
    """What a worker leaves of a shard."""
    record = job.files(shard)
    names = tuple(f"{ATTEMPTS}/{shard.index}-{number}" for number in range(len(record.files)))
    for part, name in zip(record.files, names, strict=True):
        job.out.move(part.name, name)
    return Attempt(record, names)


@pytest.mark.parametrize("how", [{}, {"partition_by": "label"}])
def test_attempts_become_files_of_the_output(run: MakeRun, out: Path, how: dict[str, Any]) -> None:
    job = run(**how)
    done: list[int] = []
    with job.out.lease():
        plan = job.open()
        with output.Commits(job.out, lambda record: done.append(record.shard)) as commits:
            for shard in plan:
                commits.add(attempt(job, shard))
        assert not list((out / ATTEMPTS).iterdir())
        job.finish()
    assert sorted(done) == job.committed() == [0, 1, 2, 3]


def test_who_takes_the_lease_deletes_attempts_and_keeps_the_last_holder_from_committing_them(
    run: MakeRun, out: Path
) -> None:
    job, lost = run(), False

    def check() -> None:
        if lost:
            raise SentrayError("taken over")

    plan = job.open()
    job.out._check = check
    left = [attempt(job, shard) for shard in plan]
    commits = output.Commits(job.out, lambda record: None)
    with commits:
        commits.add(left[0])
    with run().out.lease():
        assert not list((out / ATTEMPTS).iterdir())
        # Between its look at the lease and the move.
        with pytest.raises(SentrayError, match=r"attempts/1-0 is gone: another run cleaned the folder"), commits:
            commits.add(left[1])
        lost = True
        with pytest.raises(SentrayError, match="taken over"), commits:
            commits.add(left[2])
        for write in (lambda: job.out.write("summary.json", b"{}"), lambda: job.out.write_json("summary.json", {})):
            with pytest.raises(SentrayError, match="taken over"):
                write()
    assert job.committed() == [0]
    assert sorted(path.name for path in out.iterdir()) == ["_sentray", "scores"]
    assert len(list((out / "scores").iterdir())) == 1


def test_what_is_half_written_when_another_run_cleans_up_is_not_published(run: MakeRun, out: Path) -> None:
    job = run()
    job.open()
    with contextlib.suppress(SentrayError), job.out.create("summary.json") as file, run().out.lease():
        file.write(b"{}")
    assert not (out / "summary.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle": "c" * 64}, "was made by another bundle"),
        ({"input": "other.csv"}, r"from the input .*reviews, and other\.csv is not the same now;"),
        ({"shard_size": 2}, "another --shard-size"),
        ({"columns": Columns("text", "id", ("x",))}, "other columns"),
        ({"schema": {"id": "int64"}}, "another output schema"),
        ({"engine": "keras"}, "another --engine"),
        ({"rows_per_file": 10}, "another --rows-per-file"),
        ({"partition_by": "label"}, "another --partition-by"),
        ({"explain": 3}, "another --explain"),
    ],
)
def test_refuses_another_job(run: MakeRun, change: dict[str, Any], message: str) -> None:
    job = run()
    job.open()
    # Until a shard is written there is nothing to mix up; from then on there is.
    run(**change).open()
    job.score(job.open()[:1])
    with pytest.raises(SentrayError, match=message) as error:
        run(**change).open()
    assert "\n" not in str(error.value)
    assert job.committed() == [0]


def copy(reviews: Path, name: str) -> None:
    shutil.copy(reviews / "part3.parquet", reviews / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda reviews: (reviews / "part3.parquet").unlink(), r"\(part3\.parquet is gone\)"),
        (lambda reviews: copy(reviews, "part4.parquet"), r"part4\.parquet is new\); add --new-input"),
        (lambda reviews: copy(reviews, "part2.parquet"), r"\(part2\.parquet has changed\)"),
    ],
)
def test_refuses_a_changed_input(run: MakeRun, reviews: Path, change: Callable[[Path], Any], message: str) -> None:
    job = run()
    job.score(job.open())
    change(reviews)
    with pytest.raises(SentrayError, match=message):
        job.open()


def test_new_input_extends_the_plan(run: MakeRun, reviews: Path, out: Path) -> None:
    job = run().whole()
    before = job.open()
    copy(reviews, "another.parquet")
    plan = job.open(new_input=True)
    assert plan[:4] == before[:]
    assert [piece.name for piece in plan[4].pieces] == ["another.parquet"]
    assert job.out.summary() is None
    assert job.committed() == [0, 1, 2, 3]
    assert list(job.open()) == list(plan)
    assert len(list((out / "_sentray").glob("plan-*"))) == 1
    (reviews / "part0.parquet").unlink()
    with pytest.raises(SentrayError, match=r"part0\.parquet is gone"):
        job.open(new_input=True)


def test_a_kill_while_the_plan_is_extended_is_harmless(run: MakeRun, reviews: Path, monkeypatch) -> None:
    job = run()
    plan = job.open()
    job.score(plan)
    copy(reviews, "another.parquet")
    write = OutputFolder.write

    def killed(ledger: OutputFolder, name: str, content: bytes) -> None:
        if name.endswith("plan.json"):
            raise KeyboardInterrupt
        write(ledger, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            job.open(new_input=True)
    with pytest.raises(SentrayError, match="is new"):
        job.open()
    assert len(job.open(new_input=True)) == 5
    assert job.committed() == [0, 1, 2, 3]


@pytest.mark.parametrize("content", ["{", "[]", '{"header": {}}', '{"header": {"bundle": 1}}'])
def test_refuses_a_damaged_plan(run: MakeRun, out: Path, content: str) -> None:
    run().open()
    (out / "_sentray" / "plan.json").write_text(content)
    with pytest.raises(SentrayError, match=r"plan\.json cannot be read"):
        run().open()


@pytest.mark.parametrize("name", ["plan-000001.parquet", "files-000001.parquet"])
def test_refuses_damaged_tables(run: MakeRun, out: Path, name: str) -> None:
    job = run()
    job.score(job.open())
    file = out / "_sentray" / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(SentrayError, match=name) as error:
        job.open()
    assert "\n" not in str(error.value)
    file.unlink()
    with pytest.raises(SentrayError, match=name):
        job.open()


@pytest.mark.parametrize(
    "line",
    [
        '{"shard',
        '{"shard": 1}',
        "[]",
        '{"shard": 99, "parts": [], "quarantine": null, "counts": {"rows": 1, "scored": 1, "quarantined": {}}}',
    ],
)
def test_names_a_damaged_ledger(run: MakeRun, out: Path, line: str) -> None:
    job = run()
    job.score(job.open())
    with next(out.glob("_sentray/ledger/000000-*.jsonl")).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SentrayError, match=r"_sentray/ledger.* cannot be read .*delete it"):
        job.committed()


@pytest.mark.parametrize("members", [[(-1, 1)], [(0, -1)], [(0,)], None])
def test_names_a_damaged_line_about_compacted_files(run: MakeRun, members: list[tuple[int, int]]) -> None:
    job = run(rows_per_file=150).whole()
    compacted = next(iter(job.out.compacted()))
    log = Log(job.out, COMPACTIONS)
    log.add(replace(compacted, members=members))
    log.flush()
    with pytest.raises(SentrayError, match=r"_sentray/gathered.* cannot be read .*delete it"):
        job.committed()


@pytest.mark.parametrize("content", ["", "{"])
def test_a_damaged_summary_is_written_again(run: MakeRun, out: Path, content: str) -> None:
    job = run().whole()
    (out / "summary.json").write_text(content)
    with pytest.raises(
        SentrayError, match=r"summary\.json cannot be read .*; delete it and run the same command again$"
    ):
        job.out.summary()


def test_refuses_a_folder_of_other_things(run: MakeRun, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("much work")
    with pytest.raises(SentrayError, match=r"holds thesis\.tex"):
        run().open()
    with pytest.raises(SentrayError, match=r"holds thesis\.tex"), run().out.lease():
        pass
    with pytest.raises(SentrayError, match=r"thesis\.tex.* cannot be read"):
        run(out / "thesis.tex").open()


@pytest.mark.parametrize("value", ["a b", "x/y=z", "ä", "50%", "", None, 7, ".."])
def test_partition_folders_are_read_back(tmp_path: Path, value: object) -> None:
    folder = tmp_path / partition_folder("my col", value)
    assert folder.parent == tmp_path
    folder.mkdir()
    pq.write_table(pa.table({"id": ["1"]}), folder / "part.parquet")
    table = ds.dataset(
        tmp_path, partitioning=ds.partitioning(pa.schema([("my col", pa.string())]), flavor="hive")
    ).to_table()
    assert table["my col"].to_pylist() == [str(value) if value not in (None, "") else None]


def test_a_million_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened and resumed in seconds; the rows lie in one compacted file, so that no million files are needed here."""
    count = 1_000_000
    names = pa.array([f"part{number}.parquet" for number in range(1000)])
    index = pa.array(np.arange(count) // 1000, pa.int32())
    of_file = pa.DictionaryArray.from_arrays(index, names)
    nothing = pa.nulls(count, pa.dictionary(pa.int32(), pa.string()))
    start = np.arange(count) % 1000
    columns = [
        of_file,
        of_file,
        start,
        start + 1,
        start,
        nothing,
        nothing,
        np.arange(count),
        start,
        np.ones(count, int),
    ]
    plan = ShardPlan(pa.table(columns, schema=PLAN_SCHEMA), "parquet")
    monkeypatch.setattr("sentray.corpus.splits.plan_shards", lambda *_: plan)
    files = tuple(SourceFile(name, name, 1000, 5) for name in names.to_pylist())
    source = Source("reviews", "parquet", files)
    header = Header("b" * 64, "folded", "reviews", 64, Columns("text", "id"), {}, rows_per_file=10**9)
    out = OutputFolder(str(tmp_path))

    began = time.perf_counter()
    out.open(header, source)
    opened = time.perf_counter() - began
    record = Record(123456, (Part(part_name(123456, "b" * 64, True), 1, 1, "0" * 64),), None, Counts(1, 1, {}))
    line = json.dumps(asdict(record), separators=(",", ":"))
    half = count // 4
    (tmp_path / "_sentray/ledger").mkdir()
    for number in range(0, half, 25_000):
        some = "\n".join(
            line.replace("123456", f"{shard:06d}".lstrip("0") or "0", 1).replace("123456", f"{shard:06d}")
            for shard in range(number, number + 25_000)
        )
        (tmp_path / f"_sentray/ledger/{number:06d}.jsonl").write_text(some)
    part = Part(part_name(0, "b" * 64), half, 1, "0" * 64)
    out.write(part.name, b"x")
    log = Log(out, COMPACTIONS)
    log.add(Compacted(part, [(shard, 1) for shard in range(half)]))
    log.flush()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    again = out.open(header, source)
    resumed = time.perf_counter() - began
    began = time.perf_counter()
    done = np.zeros(count, bool)
    for record in out.records():
        done[record.shard] = True
    read = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"opened {opened:.1f} s, resumed {resumed:.1f} s, read {read:.1f} s, {peak / 1e3:.0f} MB more")
    assert len(again) == count
    assert done.sum() == half
    assert opened + resumed + read < 60
    assert peak < 400_000


def record(shard: int, rows: int = 1) -> Record:
    return Record(shard, (), None, Counts(rows, rows, {}))


def lines(folder: Path) -> list[Record]:
    return [line for _, line in output.read_log(Folder(str(folder)), "log", Record)]


def test_the_log_writes_when_it_is_due(tmp_path: Path) -> None:
    now = [0.0]
    log = output.Log(Folder(str(tmp_path)), "log", clock=lambda: now[0])
    written = lambda: len(list(tmp_path.glob("log/*")))  # noqa: E731
    log.add(record(0))
    assert written() == 0
    now[0] = 0.6
    log.flush(only_if_due=True)
    assert written() == 1
    # A long run writes rarely, yet not after more than a minute.
    for now[0], files in ((1000.0, 2), (1009.0, 2), (1011.0, 3), (1e6, 4), (1e6 + 59, 4), (1e6 + 61, 5)):
        log.add(record(1))
        log.flush(only_if_due=True)
        assert written() == files
    log.add(record(2))
    log.flush()
    log.flush()
    assert written() == 6
    assert [line.shard for line in lines(tmp_path)] == [2, 1, 1, 1, 1, 1, 1, 0]


def test_two_runs_never_write_the_same_segment(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    logs = [output.Log(folder, "log") for _ in range(2)]
    for shard, log in enumerate(logs):
        log.add(record(shard))
        log.flush()
    assert sorted(line.shard for line in lines(tmp_path)) == [0, 1]


def test_nothing_is_deleted_in_a_folder_that_another_run_took_over(out: Path) -> None:
    folder = OutputFolder(str(out))
    folder.write("_sentray/staged/part", b"")

    def lost() -> None:
        raise SentrayError("taken over")

    folder._check = lost
    with pytest.raises(SentrayError, match="taken over"):
        folder.delete("_sentray/staged")
    assert (out / "_sentray/staged/part").exists()
