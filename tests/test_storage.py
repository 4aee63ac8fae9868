"""Files of the output folder appear whole or not at all, on local file systems and on object stores."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from sentray.errors import SentrayError
from sentray.storage import Folder


def test_says_what_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SentrayError, match=r"summary\.json cannot be written"):
        Folder(str(tmp_path / "file")).write_json("summary.json", {})
    with pytest.raises(SentrayError, match="cannot be opened"):
        Folder("wrong://x")


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
