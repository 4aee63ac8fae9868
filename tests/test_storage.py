"""Which file system has a path, what is read of untrusted files, and files that appear whole or not at all."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from sentray import bundle
from sentray.errors import SentrayError
from sentray.storage import Folder, UnsoundError, behind, locate, read_whole, write_text

# --- Paths and URIs


def test_paths_and_file_uris_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("a/b", "a/b/", (tmp_path / "a" / "b").as_uri(), str(tmp_path / "a" / "b")):
        file_system, path = locate(uri)
        assert isinstance(file_system, fs.LocalFileSystem)
        assert path == os.fspath(tmp_path / "a" / "b")


def test_a_query_stays_behind_the_path() -> None:
    assert behind("s3://bucket/model/?region=eu", ".work") == "s3://bucket/model.work?region=eu"
    assert behind("what?/model", ".work") == "what?/model.work"


@pytest.mark.parametrize("use", [locate, Folder, bundle.load, lambda uri: write_text(uri, "")])
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nosuch://bucket/a", r"^nosuch://bucket/a cannot be opened \(.*pyarrow knows"),
        ("gs://", r"^gs:// (cannot be opened|names no bucket)"),
        ("s3://", r"^s3:// (cannot be opened|names no bucket)"),
    ],
)
def test_a_uri_that_names_nothing_is_one_sentence(use, uri: str, message: str) -> None:
    with pytest.raises(SentrayError, match=message) as error:
        use(uri)
    assert "\n" not in str(error.value)


# --- Bounded reads


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": "\\ud800"}', b"\xff", b"{", b"", b"1" * 5000, b"[]"])
def test_what_is_no_sound_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(SentrayError, match=r"plan\.json cannot be read \(.+\); mend it") as error:
        Folder(str(tmp_path)).read_json("plan.json", "mend it")
    assert "\n" not in str(error.value)


def test_half_a_pair_may_be_escaped_where_the_other_half_follows(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(b'{"a": "\\ud83d\\ude00"}')
    assert Folder(str(tmp_path)).read_json("plan.json") == {"a": "\U0001f600"}


def test_pipes_and_large_files_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/zero")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(50 << 30)
    for name, message in (("pipe", "no regular file"), ("null", "no regular file"), ("large", "more than 1,000")):
        with pytest.raises(UnsoundError, match=message):
            read_whole(fs.LocalFileSystem(), str(tmp_path / name), 1000)


def test_a_pipe_in_an_output_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    folder = Folder(str(tmp_path))
    with pytest.raises(SentrayError, match=r"plan\.json cannot be read \(it is no regular file\)"):
        folder.read_json("plan.json")


# --- Writing


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for file in (tmp_path / "file" / "more", tmp_path):
        for uri in (str(file), file.as_uri()):
            with pytest.raises(SentrayError, match=r"cannot be written \(.*; choose another place"):
                write_text(uri, "text")


def test_says_what_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SentrayError, match=r"summary\.json cannot be written"):
        Folder(str(tmp_path / "file")).write_json("summary.json", {})


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a/b", b"old")
    with pytest.raises(TypeError), folder.create("a/b") as output:
        output.write("no bytes")
    assert [path.read_bytes() for path in (tmp_path / "a").iterdir()] == [b"old"]
    folder.write("a/b", b"new")
    assert folder.read("a/b") == b"new"
    assert folder.read("a/c") is None


def test_an_object_is_replaced_by_a_whole_one_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(str(tmp_path))
    folder.write("b", b"old")
    monkeypatch.setattr(folder, "local", False)

    def write() -> None:
        with folder.create("b") as output:
            output.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert folder.read("b") == b"old"

    class Full:
        def open_output_stream(self, path: str) -> None:
            raise OSError("the store is full")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_filesystem", Full())
        with pytest.raises(SentrayError, match=r"b cannot be written \(the store is full"):
            folder.write("b", b"new")
    assert folder.read("b") == b"old"
    for content in (b"new", b"", pa.py_buffer(b"newer")):
        folder.write("b", content)
        assert folder.read("b") == bytes(content)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    for name in ("fsync", "replace"):
        do = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, name=name, do=do: (steps.append(name), do(*given)))
    Folder(str(tmp_path)).write("a/b", b"x")
    assert steps == ["fsync", "replace"]
