import functools
import hashlib
import socket
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sentray import nltk_data
from sentray.errors import SentrayError

RESOURCE = "corpora/sentray_test"


class Server:
    """A server of NLTK packages on the loopback address."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        handler = functools.partial(QuietHandler, directory=str(folder))
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def offer(self, content: bytes) -> None:
        """Put a package and the list that names it on the server."""
        name = RESOURCE.rpartition("/")[2]
        (self.folder / f"{name}.zip").write_bytes(content)
        checksums = (
            f'checksum="{hashlib.md5(content).hexdigest()}" sha256_checksum="{hashlib.sha256(content).hexdigest()}"'
        )
        (self.folder / "index.xml").write_text(
            f'<nltk_data><packages><package id="{name}" name="{name}" subdir="corpora" unzip="0" '
            f'url="{self.url}/{name}.zip" size="{len(content)}" unzipped_size="6" {checksums}/>'
            "</packages><collections/></nltk_data>"
        )


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A process that has tried nothing yet, with an empty home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NLTK_DATA", str(tmp_path / "given"))
    nltk_data._downloaded.cache_clear()
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    monkeypatch.setattr("nltk.downloader.Downloader.DEFAULT_URL", f"{server.url}/index.xml")
    # NLTK refuses servers on the loopback address.
    monkeypatch.setattr("nltk.downloader.urlopen", urllib.request.urlopen)
    yield server
    server.http.shutdown()
    server.http.server_close()


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
    assert list(nltk_data.members(path).items()) == [("a.txt", 3), ("b/2.txt", 3)]
    assert nltk_data.read(path, "b/2.txt") == b"two"
    with pytest.raises(SentrayError, match=r"c\.txt can't be read"):
        nltk_data.read(path, "c.txt")


def test_downloads_into_the_home_folder(tmp_path: Path, fresh_home: Path, server: Server) -> None:
    server.offer(pack(tmp_path / "packed").read_bytes())
    path = nltk_data.find(RESOURCE)
    assert path == fresh_home / "nltk_data" / RESOURCE
    assert nltk_data.read(path, "a.txt") == b"one"


def test_a_failed_download_is_quiet_and_not_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], server: Server
) -> None:
    assert nltk_data.find(RESOURCE) is None
    server.offer(pack(tmp_path / "packed").read_bytes())
    assert nltk_data.find(RESOURCE) is None
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_answers_with_a_page_is_quiet(capfd: pytest.CaptureFixture[str], server: Server) -> None:
    (server.folder / "index.xml").write_text("<!doctype html><html><body><p>Sign in<br></body></html>")
    assert nltk_data.find(RESOURCE) is None
    assert "".join(capfd.readouterr()) == ""


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk_data, "_CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/index.xml"
        monkeypatch.setattr("nltk.downloader.Downloader.DEFAULT_URL", url)
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
