import os
from pathlib import Path

import pytest
from pyarrow import fs

from sentray import bundle
from sentray.errors import SentrayError
from sentray.storage import Folder, UnsoundError, parse_json, read_whole


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a": "\\ud800"}', b"\xff", b"{", b"", b"1" * 5000])
def test_what_is_no_sound_json(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(content)


def test_half_a_pair_may_be_escaped_where_the_other_half_follows() -> None:
    assert parse_json(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_pipes_and_large_files_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/zero")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(50 << 30)
    for name, message in (("pipe", "no regular file"), ("null", "no regular file"), ("large", "more than 1,000")):
        with pytest.raises(UnsoundError, match=message):
            read_whole(fs.LocalFileSystem(), str(tmp_path / name), 1000)


@pytest.mark.parametrize("name", ["bundle.json", "model.keras", "golden.json"])
def test_a_bundle_with_a_pipe_does_not_wait(small_files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    for each, content in small_files.items():
        if each == name:
            os.mkfifo(tmp_path / each)
        else:
            (tmp_path / each).write_bytes(content)
    with pytest.raises(SentrayError, match=f"is damaged: {name}: it is no regular file"):
        bundle.load(tmp_path)


@pytest.fixture
def small_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    from sentray.text.cleaning import preset
    from sentray.text.vocabulary import Vocabulary

    folder = tmp_path_factory.mktemp("whole")
    (folder / bundle.MODEL).write_bytes(b"a network")
    made = bundle.write(
        folder,
        architecture="a.v1",
        rules=preset("reviews")[0],
        vocabulary=Vocabulary(["good"]),
        labels=["neg", "pos"],
        max_length=5,
    )
    return bundle.pack(made)


def test_a_pipe_in_an_output_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.json")
    folder = Folder(str(tmp_path))
    with pytest.raises(SentrayError, match=r"plan\.json cannot be read \(it is no regular file\)"):
        folder.read_json("plan.json")
    with pytest.raises(OSError, match="no regular file"):
        folder.open_file("plan.json")
