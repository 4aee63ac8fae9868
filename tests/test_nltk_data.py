import socket
import time
import zipfile
from pathlib import Path

import pytest

from sentray import nltk_data
from sentray.errors import SentrayError

RESOURCE = "corpora/sentray_test"


@pytest.fixture(autouse=True)
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that has tried nothing yet, with an empty home folder and no server."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "given"))
    monkeypatch.setattr(nltk_data, "_attempted", set())
    monkeypatch.setattr(nltk_data, "_unreachable", False)
    monkeypatch.setattr(nltk_data, "_PACKAGES_URL", (tmp_path / "server").as_uri())
    return tmp_path / "home"


def pack(folder: Path) -> Path:
    path = folder / f"{RESOURCE}.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sentray_test/b/2.txt", "two")
        archive.writestr("sentray_test/a.txt", "one")
    return path


def unpack(folder: Path) -> Path:
    with zipfile.ZipFile(pack(folder)) as archive:
        archive.extractall(folder / "corpora")
    return folder / RESOURCE


@pytest.mark.parametrize("place", ["given", "home/nltk_data"])
@pytest.mark.parametrize("make", [pack, unpack])
def test_finds_and_reads(tmp_path: Path, place: str, make) -> None:
    path = make(tmp_path / place)
    assert nltk_data.find(RESOURCE) == path
    assert nltk_data.members(path) == ["a.txt", "b/2.txt"]
    assert nltk_data.read(path, "b/2.txt") == b"two"
    with pytest.raises(SentrayError, match=r"c\.txt can't be read"):
        nltk_data.read(path, "c.txt")


def test_downloads_into_the_home_folder(tmp_path: Path, fresh_home: Path) -> None:
    pack(tmp_path / "server")
    assert nltk_data.find(RESOURCE, download=False) is None
    path = nltk_data.find(RESOURCE)
    assert path == fresh_home / "nltk_data" / f"{RESOURCE}.zip"
    assert nltk_data.read(path, "a.txt") == b"one"
    assert [file.name for file in path.parent.iterdir()] == ["sentray_test.zip"]


def test_a_failed_download_is_quiet_and_not_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nltk_data.find(RESOURCE) is None
    pack(tmp_path / "server")
    assert nltk_data.find(RESOURCE) is None
    assert nltk_data.find(f"{RESOURCE}_2") is None
    assert capfd.readouterr() == ("", "")


def test_what_is_no_zip_is_not_kept(tmp_path: Path, fresh_home: Path) -> None:
    path = tmp_path / "server" / f"{RESOURCE}.zip"
    path.parent.mkdir(parents=True)
    path.write_text("<html>please log in</html>")
    assert nltk_data.find(RESOURCE) is None
    assert not fresh_home.exists()


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk_data, "_CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(nltk_data, "_PACKAGES_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        started = time.monotonic()
        assert nltk_data.find(RESOURCE) is None
        assert time.monotonic() - started < 3


def test_damaged_zip(tmp_path: Path) -> None:
    path = pack(tmp_path / "given")
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(SentrayError, match="damaged"):
        nltk_data.members(path)
    with pytest.raises(SentrayError, match="download it again"):
        nltk_data.read(path, "a.txt")
