"""Memory is bounded while something is read, and what kills its process kills no other."""

import errno
import importlib
import os
import resource
import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from sentray.config import CorpusSettings
from sentray.corpus import limits, parquet, readers, sandbox
from sentray.corpus.parquet import read_footer, read_table, row_groups
from sentray.corpus.readers import read_shard
from sentray.corpus.rows import TABLE_ROWS
from sentray.corpus.source import resolve
from sentray.corpus.splits import Piece, plan_shards
from sentray.errors import SentrayError
from sentray.storage import reading

LIMIT = sandbox.MAX_READ_BYTES
SCHEMA = pa.schema([("name", pa.dictionary(pa.int32(), pa.string())), ("more", pa.string()), ("size", pa.int64())])


def test_too_much_is_refused_and_nothing_is_left_behind() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA), pa.default_memory_pool().backend_name
    for _ in range(3):
        with sandbox.bounded_memory():
            assert len(bytearray(LIMIT // 2)) == LIMIT // 2
            with pytest.raises(MemoryError):
                pa.allocate_buffer(LIMIT * 2)
            with sandbox.bounded_memory(), pytest.raises(MemoryError):
                bytearray(LIMIT * 2)
    assert (resource.getrlimit(resource.RLIMIT_DATA), pa.default_memory_pool().backend_name) == before
    values = sandbox.bounded(iter("ab"))
    assert next(values) == "a"
    assert resource.getrlimit(resource.RLIMIT_DATA) == before[0]
    assert list(values) == ["b"]


def test_what_a_function_gives_and_raises() -> None:
    assert sandbox.run("a", os.getpid) == sandbox.run("a", os.getpid) != os.getpid()
    with pytest.raises(SentrayError, match="tests/nothing is not there"):
        sandbox.run("a", parquet._groups, fs.LocalFileSystem(), "tests/nothing")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        sandbox.run("a", divmod, 1, 0)
    with pytest.raises(sandbox.TooMuchError, match="a takes more than 800,000,000 bytes of memory at once"):
        sandbox.run("a", bytearray, 2 * LIMIT)


@pytest.mark.parametrize("end", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_process_that_dies_is_replaced(end: signal.Signals) -> None:
    pid = sandbox.run("a", os.getpid)
    # Nobody knows why a process is killed.
    error, why = (MemoryError, "was killed") if end == signal.SIGKILL else (sandbox.CrashError, f"dies: {end.name}")
    with pytest.raises(error, match=why):
        sandbox.run("a.parquet", signal.raise_signal, end)
    assert sandbox.run("a", os.getpid) != pid


def test_a_process_that_cannot_start_blames_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for program in ("/bin/false", "/nothing/python"):
        sandbox._stop()
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(MemoryError, match="process to read files in"):
            sandbox.run("a", os.getpid)
        with (
            pytest.raises(SentrayError, match=r"not enough memory to read a .*; end other programs .* same command"),
            sandbox.memory_explained("a"),
        ):
            sandbox.run("a", os.getpid)
    monkeypatch.undo()
    assert sandbox.run("a", os.getpid) != os.getpid()


def child_module(program: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that a new reading process can import too."""
    (folder / f"{name}.py").write_text(textwrap.dedent(program))
    monkeypatch.syspath_prepend(str(folder))
    sandbox._stop()
    return importlib.import_module(name)


def test_a_process_that_is_killed_once_is_replaced_unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
        import os, pathlib
        def once(mark):
            if not os.path.exists(mark):
                pathlib.Path(mark).touch()
                os.kill(os.getpid(), 9)
            return 7
    """
    dying = child_module(program, "dying", tmp_path, monkeypatch)
    assert sandbox.run("a", dying.once, str(tmp_path / "mark")) == 7


def test_a_process_that_gives_no_answer_and_lives_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = r"""
        import contextlib, os, time
        def garble():
            for number in range(3, 30):
                with contextlib.suppress(OSError):
                    os.write(number, b'\xff')
            time.sleep(300)
    """
    garbling = child_module(program, "garbling", tmp_path, monkeypatch)
    begin = time.monotonic()
    with pytest.raises(MemoryError, match="was killed"):
        sandbox.run("a", garbling.garble)
    assert time.monotonic() - begin < 100


def test_the_process_lets_ray_unpickle_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox._stop()
    monkeypatch.setenv(name := "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA", "1")
    assert sandbox.run("a", os.getenv, name) == "0"
    sandbox._stop()


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN])
def test_what_the_machine_lacks_is_no_fault_of_a_file(code: int) -> None:
    with pytest.raises(MemoryError), reading("a"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(SentrayError, match="a cannot be read"), reading("a"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_fork_has_a_process_of_its_own() -> None:
    theirs = sandbox.run("a", os.getpid)
    if not (child := os.fork()):
        os._exit(sandbox.run("a", os.getpid) == theirs)
    assert os.waitpid(child, 0)[1] == 0
    assert sandbox.run("a", os.getpid) == theirs


@pytest.fixture
def killing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files of which the second kills whatever process of its own reads it."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "killing.py").write_text(
        "import os\n"
        "def read_all(source, shard, piece, columns):\n    'b.parquet' in piece.path and os.abort()\n"
        "def groups(filesystem, paths):\n"
        "    any('b.parquet' in path for path in paths) and os.abort()\n"
        "    return [([1], [2]) for path in paths]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    sandbox._stop()
    import killing  # type: ignore[import-not-found]

    monkeypatch.setattr(readers, "_read_all", killing.read_all)
    monkeypatch.setattr(parquet, "_row_groups", killing.groups)
    for name in "abcde":
        pq.write_table(pa.table({"text": [name] * 3}), tmp_path / f"{name}.parquet")
    yield tmp_path
    sandbox._stop()
    del sys.modules["killing"]


def test_a_file_that_kills_its_reader_is_set_aside(killing: Path) -> None:
    source = resolve(str(killing / "*.parquet"))
    (shard,) = plan_shards(source, 64_000_000)
    tables = read_shard(source.lean(), shard, CorpusSettings(), on_unreadable="quarantine", isolated=True)
    rows = pa.concat_tables(tables)
    assert rows["reason"].to_pylist() == [None] * 3 + ["unreadable_file"] + [None] * 9
    assert "b.parquet cannot be read (the process that reads it dies: SIGABRT)" in rows["text"][3].as_py()
    with pytest.raises(SentrayError, match=r"b\.parquet cannot be read"):
        list(read_shard(source.lean(), shard, CorpusSettings(), isolated=True))


def test_a_footer_that_kills_its_reader_is_found_among_others(killing: Path) -> None:
    paths = [str(killing / f"{name}.parquet") for name in "abcde"]
    found = row_groups(resolve(str(killing / "a.parquet")).filesystem, paths)
    assert found == [([1], [2]), None, *[([1], [2])] * 3]


def test_files_that_do_no_harm_are_read_in_isolation_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\ngood\nbad\n")
    (tmp_path / "b.csv").write_text("")
    source = resolve(str(tmp_path))
    (shard,) = plan_shards(source, 64_000_000)
    tables = [
        pa.concat_tables(read_shard(source, shard, CorpusSettings(), on_unreadable="quarantine", isolated=isolated))
        for isolated in (False, True)
    ]
    assert tables[0] == tables[1]
    assert tables[0]["reason"].to_pylist() == [None, None, "unreadable_file"]


def test_a_table_of_the_expected_columns(tmp_path: Path) -> None:
    table = pa.table({"name": ["a", "b"], "more": ["c", None], "size": [1, 2]}).cast(SCHEMA)
    path, filesystem = str(tmp_path / "a.parquet"), fs.LocalFileSystem()
    pq.write_table(table.append_column("other", pa.array([[1], [2]])), path)
    assert read_table(filesystem, path, SCHEMA) == table
    rows, schema = read_footer(filesystem, path)
    assert (rows, schema.names) == (2, ["name", "more", "size", "other"])


@pytest.mark.parametrize("name", [pa.array([["a"]]), pa.array([1]), pa.array([b"a"], pa.binary(1)), None])
def test_a_table_of_other_columns(tmp_path: Path, name: pa.Array | None) -> None:
    path = str(tmp_path / "a.parquet")
    columns = {"more": ["a"], "size": [1]} | ({} if name is None else {"name": name})
    pq.write_table(pa.table(columns), path)
    with pytest.raises(SentrayError, match=r"a\.parquet has other columns than it should"):
        read_table(fs.LocalFileSystem(), path, SCHEMA)


def test_a_table_that_would_take_too_much(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 9, pa.int32()), pa.array(["a" * 100_000_000]))
    table = pa.table({"name": ["a"] * 9, "more": long, "size": [1] * 9})
    pq.write_table(table, path, compression="zstd", write_statistics=False, store_schema=False)
    with pytest.raises(SentrayError, match=r"a\.parquet takes more than 800,000,000 bytes of memory"):
        read_table(fs.LocalFileSystem(), path, SCHEMA)


def test_a_table_of_many_row_groups_may_be_larger_than_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"name": list("abcde"), "more": list("fgh") + [None] * 2, "size": range(5)}).cast(SCHEMA)
    path, filesystem, read = str(tmp_path / "a.parquet"), fs.LocalFileSystem(), []
    pq.write_table(table, path, row_group_size=2)
    run = sandbox.run

    def note(*given: Any) -> Any:
        found = run(*given)
        if isinstance(found, pa.Table):
            read.append(found.num_rows)
        return found

    monkeypatch.setattr(sandbox, "run", note)
    assert read_table(filesystem, path, SCHEMA).to_pylist() == table.to_pylist()
    assert read == [2, 2, 1]
    # All of them together are bounded by what is stored.
    monkeypatch.setattr(limits, "FREE_INFLATION", 1)
    monkeypatch.setattr(limits, "MAX_INFLATION", 0)
    with pytest.raises(SentrayError, match="becomes more than 0 times as large"):
        read_table(filesystem, path, SCHEMA)
    monkeypatch.undo()
    pq.write_table(table, path, row_group_size=1)
    monkeypatch.setattr(parquet, "_MAX_TABLE_GROUPS", 4)
    with pytest.raises(SentrayError, match="has more than 4 row groups"):
        read_table(filesystem, path, SCHEMA)


def test_ten_thousand_footers_are_planned_by_one_process(tmp_path: Path) -> None:
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), path, row_group_size=2)
    pid = sandbox.run("a", os.getpid)
    found = row_groups(resolve(path).filesystem, [path] * 10_000)
    assert {tuple(groups.rows) for groups in found if groups} == {(2, 1)}
    assert len(found) == 10_000
    assert sandbox.run("a", os.getpid) == pid


def test_a_process_of_its_own_reads_a_file_once_memory_was_scarce(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), path)
    tried = []

    def scarce(source: object, piece: Piece, columns: object, at_once: int, done: int) -> None:
        tried.append(at_once)
        raise MemoryError

    monkeypatch.setattr(parquet, "_blocks", scarce)
    source = resolve(str(path))
    (shard,) = plan_shards(source, 64_000_000)
    with pytest.raises(MemoryError, match=r"a\.parquet was read in little memory alone, and not here"):
        list(read_shard(source, shard, CorpusSettings(), on_unreadable="quarantine"))
    assert tried == [TABLE_ROWS, 64, 1]
