"""The output folder: files appear whole, what a killed run left is cleaned up, other jobs are refused."""

import json
import pickle
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sentray.corpus.source import Source, SourceFile
from sentray.corpus.splits import PLAN_SCHEMA, ShardPlan
from sentray.errors import SentrayError
from sentray.scoring.ledger import Gathered, Header, Ledger, Part, Record, partition_folder

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
    assert again.open() == plan
    assert again.committed() == [0, 1]
    assert again.ledger.summary() is None


def test_a_shard_counts_when_all_its_files_are_there(run: MakeRun, out: Path) -> None:
    job = run()
    job.score(job.open())
    (out / job.ledger.part_name(1, job.digest)).unlink()
    assert job.committed() == [0, 2, 3]
    (out / job.ledger.quarantine_name(2)).unlink()
    assert job.committed() == [0, 3]
    assert sorted(record.shard for record in job.ledger.recorded()) == [0, 1, 2, 3]
    job.score(job.open()[1:2])
    assert job.committed() == [0, 1, 3]


@pytest.mark.parametrize("how", [{}, {"rows_per_file": 10}])
def test_a_file_that_was_cut_short_does_not_count(run: MakeRun, out: Path, how: dict[str, Any]) -> None:
    job = run(**how)
    job.score(job.open())
    for name in (job.ledger.part_name(1, job.digest, staged=bool(how)), job.ledger.quarantine_name(2)):
        (out / name).write_bytes((out / name).read_bytes()[:-1])
    assert job.committed() == [0, 3]


def test_a_gathered_file_that_was_cut_short_does_not_count(run: MakeRun, out: Path) -> None:
    job = run(rows_per_file=150).whole()
    name = out / job.ledger.part_name(0, job.digest)
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
    loose = [out / job.ledger.part_name(2, job.digest), out / job.ledger.quarantine_name(2)]
    assert all(file.exists() for file in loose)
    job.open()
    assert not any(file.exists() for file in (*halves, *loose))
    assert all(file.exists() for file in kept)
    assert job.committed() == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle": "c" * 64}, "was made by another bundle"),
        ({"input": "other.csv"}, r"from the input .*reviews, and other\.csv is not the same now;"),
        ({"shard_size": 2}, "another --shard-size"),
        ({"columns": {"text": "text", "id": "id", "keep": ("x",)}}, "other columns"),
        ({"schema": {"id": "int64"}}, "another output schema"),
        ({"engine": "keras"}, "another --engine"),
        ({"rows_per_file": 10}, "another --rows-per-file"),
        ({"partition_by": "label"}, "another --partition-by"),
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
    assert job.ledger.summary() is None
    assert job.committed() == [0, 1, 2, 3]
    assert job.open() == plan
    assert len(list((out / "_sentray").glob("plan-*"))) == 1
    (reviews / "part0.parquet").unlink()
    with pytest.raises(SentrayError, match=r"part0\.parquet is gone"):
        job.open(new_input=True)


def test_a_kill_while_the_plan_is_extended_is_harmless(run: MakeRun, reviews: Path, monkeypatch) -> None:
    job = run()
    plan = job.open()
    job.score(plan)
    copy(reviews, "another.parquet")
    write = Ledger.write

    def killed(ledger: Ledger, name: str, content: bytes) -> None:
        if name.endswith("plan.json"):
            raise KeyboardInterrupt
        write(ledger, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "write", killed)
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
        json.dumps(Record(99, (), None, {"rows": 1, "scored": 1, "quarantined": {}}).to_json()),
    ],
)
def test_names_a_damaged_ledger(run: MakeRun, out: Path, line: str) -> None:
    job = run()
    job.score(job.open())
    with next(out.glob("_sentray/ledger/000000-*.jsonl")).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(SentrayError, match=r"_sentray/ledger.* cannot be read .*delete it"):
        job.committed()


@pytest.mark.parametrize("members", [[[4, 1]], [[-1, 1]], [[0, -1]], []])
def test_names_a_damaged_line_about_gathered_files(run: MakeRun, members: list[list[int]]) -> None:
    job = run(rows_per_file=150).whole()
    gathered = next(iter(job.ledger.gathered()))
    with job.ledger.gatherings() as log:
        log.add(gathered._replace(members=members))
    with pytest.raises(SentrayError, match=r"_sentray/gathered.* cannot be read .*delete it"):
        job.committed()


@pytest.mark.parametrize("content", ["", "{"])
def test_a_damaged_summary_is_written_again(run: MakeRun, out: Path, content: str) -> None:
    job = run().whole()
    (out / "summary.json").write_text(content)
    with pytest.raises(
        SentrayError, match=r"summary\.json cannot be read .*; delete it and run the same command again$"
    ):
        job.ledger.summary()


def test_refuses_a_folder_of_other_things(run: MakeRun, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("much work")
    for start in (run().open, run().ledger.lease):
        with pytest.raises(SentrayError, match=r"holds thesis\.tex"):
            start()
    with pytest.raises(SentrayError, match=r"thesis\.tex.* cannot be read"):
        run(out / "thesis.tex").open()


def test_travels_to_workers(run: MakeRun, out: Path) -> None:
    job = run()
    job.open()
    content = pickle.dumps(job.ledger)
    assert len(content) < 1000
    pickle.loads(content).write(job.ledger.part_name(7, job.digest), b"scores")
    assert (out / f"scores/part-000007-{'b' * 12}.parquet").read_bytes() == b"scores"


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
    """Opened and resumed in seconds; the rows lie in one gathered file, so that no million files are needed here."""
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
    columns = {"text": "text", "id": "id", "keep": []}
    header = Header("b" * 64, "folded", "reviews", 64, columns, {}, rows_per_file=10**9)
    ledger = Ledger(str(tmp_path))

    began = time.perf_counter()
    ledger.open(header, source)
    opened = time.perf_counter() - began
    counts = {"rows": 1, "scored": 1, "quarantined": {}, "labels": {"neg": 1}, "histogram": [0] * 20}
    line = json.dumps(
        Record(123456, (Part(ledger.part_name(123456, "b" * 64, True), 1, 1, "0" * 64),), None, counts).to_json(),
        separators=(",", ":"),
    )
    half = count // 4
    (tmp_path / "_sentray/ledger").mkdir()
    for number in range(0, half, 25_000):
        some = "\n".join(
            line.replace("123456", f"{shard:06d}".lstrip("0") or "0", 1).replace("123456", f"{shard:06d}")
            for shard in range(number, number + 25_000)
        )
        (tmp_path / f"_sentray/ledger/{number:06d}.jsonl").write_text(some)
    part = Part(ledger.part_name(0, "b" * 64), half, 1, "0" * 64)
    ledger.write(part.name, b"x")
    with ledger.gatherings() as log:
        log.add(Gathered(part, [[shard, 1] for shard in range(half)]))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    again = ledger.open(header, source)
    resumed = time.perf_counter() - began
    began = time.perf_counter()
    done = np.zeros(count, bool)
    for record in ledger.records():
        done[record.shard] = True
    read = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"opened {opened:.1f} s, resumed {resumed:.1f} s, read {read:.1f} s, {peak / 1e3:.0f} MB more")
    assert len(again) == count
    assert done.sum() == half
    assert opened + resumed + read < 60
    assert peak < 400_000
