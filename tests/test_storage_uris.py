"""Which file system has a path or a URI."""

import os
from pathlib import Path

import pytest
from pyarrow import fs

from sentray import bundle
from sentray.errors import SentrayError
from sentray.storage import Folder, behind, locate, write_text


def test_paths_and_file_uris_are_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("a/b", "a/b/", (tmp_path / "a" / "b").as_uri(), str(tmp_path / "a" / "b")):
        filesystem, path = locate(place)
        assert isinstance(filesystem, fs.LocalFileSystem)
        assert path == os.fspath(tmp_path / "a" / "b")


def test_a_query_stays_behind_the_path() -> None:
    assert behind("s3://bucket/model/?region=eu", ".work") == "s3://bucket/model.work?region=eu"
    assert behind("what?/model", ".work") == "what?/model.work"


@pytest.mark.parametrize("use", [locate, Folder, bundle.load, lambda place: write_text(place, "")])
@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("nosuch://bucket/a", r"^nosuch://bucket/a cannot be opened \(.*pyarrow knows"),
        ("gs://", r"^gs:// (cannot be opened|names no bucket)"),
        ("s3://", r"^s3:// (cannot be opened|names no bucket)"),
    ],
)
def test_a_place_that_is_none_is_one_sentence(use, place: str, told: str) -> None:
    with pytest.raises(SentrayError, match=told) as error:
        use(place)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for file in (tmp_path / "file" / "more", tmp_path):
        for place in (str(file), file.as_uri()):
            with pytest.raises(SentrayError, match=r"cannot be written \(.*; choose another place"):
                write_text(place, "text")
