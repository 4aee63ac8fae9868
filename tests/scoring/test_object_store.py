"""Scoring from an S3 server to an S3 server, which throttles and breaks connections as a real one does."""

import logging
import os
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from sentray import bundle
from sentray.bundle import Bundle
from sentray.config import ScoreSettings, VerifySettings
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.lease import Lease
from sentray.scoring import job
from sentray.scoring.output import OutputFolder
from sentray.scoring.verify import verify
from sentray.storage import Folder

pytestmark = pytest.mark.usefixtures("ray_session")

INPUT = [f"part{part}.parquet" for part in range(4)]

Request = tuple[str, str]
"""Method and last part of the path of a request."""
Faults = Callable[[Request, int], str | None]
"""What a request is answered with, given how many of its kind came before; None is the right answer."""


def none(request: Request, before: int) -> str | None:
    """Nothing goes wrong."""
    return None


def throttled(request: Request, before: int) -> str | None:
    """Reading a file of the input and writing one of the output come too fast; the client waits 3 s each."""
    slow = request[1] == INPUT[1] if request[0] == "GET" else request[1].startswith("part-000001")
    return "throttle" if slow and before == 0 else None


def reset(request: Request, before: int) -> str | None:
    """Every file of the input breaks off when it is first read."""
    return "reset" if before == 0 and request[0] == "GET" and request[1] in INPUT else None


def reset_often(request: Request, before: int) -> str | None:
    """One file breaks off more often than the S3 client of a worker tries, which is 3 times."""
    return "reset" if before < 8 and request == ("GET", INPUT[2]) else None


class Store:
    """A real S3 server (moto's) on loopback, and what goes wrong with which request.

    Attributes:
        answered: How often each fault happened.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self.misbehave(none)
        self._lock = threading.Lock()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.filesystem = pafs.S3FileSystem(
            access_key="user",
            secret_key="secret",
            region="us-east-1",
            scheme="http",
            endpoint_override=f"127.0.0.1:{self._server.server_port}",
            allow_bucket_creation=True,
        )

    def uri(self, path: str) -> str:
        place = f"endpoint_override=127.0.0.1%3A{self._server.server_port}&scheme=http&region=us-east-1"
        return f"s3://user:secret@{path}?{place}"

    def put(self, folder: Path, path: str) -> str:
        pafs.copy_files(str(folder), path, destination_filesystem=self.filesystem)
        return self.uri(path)

    def misbehave(self, faults: Faults) -> None:
        self._faults = faults
        self._seen: Counter[Request] = Counter()
        self.answered: Counter[str] = Counter()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"].rpartition("/")[2]
        with self._lock:
            fault = self._faults(request, self._seen[request])
            self._seen[request] += 1
            self.answered.update([fault] if fault else [])
        if fault == "throttle":
            # Without a length it would wait for the client to hang up.
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
        answer = self._app(environ, start_response)
        return _cut_short(answer, environ["werkzeug.socket"]) if fault == "reset" else answer


def _cut_short(answer: Iterable[bytes], connection: socket.socket) -> Iterator[bytes]:
    """Half of an answer, and then a reset of the connection."""
    body = b"".join(answer)
    yield body[: len(body) // 2]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
    raise ConnectionResetError


@pytest.fixture(autouse=True)
def a_shard_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)


@pytest.fixture
def reviews(reviews: Path) -> Path:
    """With an id of the file that breaks off most in the next one again."""
    first, second = (pq.read_table(reviews / INPUT[part]) for part in (2, 3))
    ids = pa.concat_arrays([first["id"].chunk(0)[:1], second["id"].chunk(0)[1:]])
    pq.write_table(second.set_column(0, "id", ids), reviews / INPUT[3])
    return reviews


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    pytest.importorskip("moto.server")
    store = Store()
    store.filesystem.create_dir("bucket")
    yield store
    store.close()


@pytest.fixture
def remote(store: Store, reviews: Path, small_bundle: Bundle, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Settings of a job whose bundle, input and output lie in the store."""
    name = f"bucket/{tmp_path.name}"
    yield {
        "bundle": store.put(Path(small_bundle.path), f"{name}/model"),
        "input": store.put(reviews, f"{name}/reviews"),
        "out": store.uri(f"{name}/out"),
    }
    store.misbehave(none)


@pytest.fixture
def undisturbed(small_bundle: Bundle, reviews: Path, tmp_path: Path, console) -> tuple[pa.Table, pa.Table]:
    """Scores and quarantine of the same job on local files."""
    out = tmp_path / "local"
    run(console, bundle=str(small_bundle.path), input=str(reviews), out=str(out))
    return ds.dataset(out / "scores").to_table(), pq.read_table(out / "quarantine.parquet")


def run(console, **settings: Any) -> dict[str, Any]:
    return job.score(ScoreSettings(max_bad_rows=0.05, workers=1, **settings), console)


def result(store: Store, uri: str) -> tuple[pa.Table, pa.Table]:
    scores = ds.dataset(f"{key_of(uri)}/scores", filesystem=store.filesystem).to_table()
    return scores, pq.read_table(f"{key_of(uri)}/quarantine.parquet", filesystem=store.filesystem)


def key_of(uri: str) -> str:
    """Bucket and key of a URI."""
    return uri.partition("@")[2].partition("?")[0]


@pytest.mark.parametrize("faults", [none, throttled, reset, reset_often])
def test_the_store_gives_what_local_files_give(store: Store, remote, undisturbed, console, faults: Faults) -> None:
    store.misbehave(faults)
    summary = run(console, **remote)
    assert bool(store.answered) == (faults is not none)
    store.misbehave(none)
    verify(VerifySettings(directory=remote["out"], input=remote["input"]), console)
    scores, quarantine = result(store, remote["out"])
    assert scores.equals(undisturbed[0])
    assert quarantine.equals(undisturbed[1])
    assert summary["rows"] == 304
    assert summary["quarantined"] == {"null_text": 2, "empty_text": 2, "duplicate_id": 1}


def test_ranges_of_one_file(store: Store, remote, reviews: Path, tmp_path: Path, console) -> None:
    texts = pa.concat_tables([pq.read_table(reviews / name, columns=["id", "text"]) for name in INPUT])
    (tmp_path / "csv").mkdir()
    csv.write_csv(texts, tmp_path / "csv/all.csv")
    uri = store.put(tmp_path / "csv", f"bucket/{tmp_path.name}/csv")
    run(console, bundle=remote["bundle"], input=str(tmp_path / "csv"), out=str(tmp_path / "out"))
    store.misbehave(lambda request, before: "reset" if request == ("GET", "all.csv") and before in (0, 3, 9) else None)
    run(console, **remote | {"input": uri})
    assert store.answered["reset"] == 3
    verify(VerifySettings(directory=remote["out"], input=uri), console)
    scores, _ = result(store, remote["out"])
    assert scores.equals(ds.dataset(tmp_path / "out/scores").to_table())
    assert len(list((tmp_path / "out/scores").iterdir())) > 1


def test_the_same_command_again_does_nothing(store: Store, remote, small_bundle: Bundle, console) -> None:
    assert bundle.load(remote["bundle"]).digest == small_bundle.digest
    assert len(resolve(remote["input"].replace("?", "/*.parquet?")).files) == len(INPUT)
    first = run(console, **remote)
    assert run(console, **remote) == first
    assert "nothing to do" in console.lines[-1]
    settings = f"{key_of(remote['out'])}/settings.json"
    assert store.filesystem.get_file_info(settings).is_file


def test_a_move_may_take_longer_than_a_look_at_the_lease(store: Store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("sentray.lease.REQUEST_TIMEOUT", timedelta(seconds=2))
    out = OutputFolder(store.uri(f"bucket/{tmp_path.name}/out"))

    def slow(request: Request, before: int) -> str | None:
        if request == ("PUT", "moved"):
            time.sleep(3)
        return None

    # That takes another copy.
    monkeypatch.setattr(Folder, "move", lambda *given: 1 / 0)
    with out.lease() as lease:
        assert lease.store is not None
        Folder.write(out, "large", b"x")
        store.misbehave(slow)
        out.move("large", "moved")
        store.misbehave(none)
        assert out.read("moved") == b"x"


@pytest.fixture(params=["local", "store"])
def either(request: pytest.FixtureRequest, remote, reviews: Path, small_bundle: Bundle, tmp_path: Path) -> Any:
    """Settings of a job whose output lies on a disk or in the store, by the columns' values in folders."""
    given = remote if request.param == "store" else {"bundle": str(small_bundle.path), "input": str(reviews)}
    return given | {"out": remote["out"] if request.param == "store" else str(tmp_path / "out")}


BY_RATING: dict[str, Any] = {"keep": ("rating",), "partition_by": "rating"}


def content(store: Store, uri: str) -> dict[str, bytes]:
    """All files of an output but the lease."""
    system, root = (store.filesystem, key_of(uri)) if "://" in uri else (pafs.LocalFileSystem(), uri)
    infos = system.get_file_info(pafs.FileSelector(root, recursive=True))
    names = [info.path for info in infos if info.is_file and not info.path.endswith("lease.json")]
    return {name: system.open_input_file(name).readall() for name in names}


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize("moved", [0, 2])
def test_a_driver_that_stood_still_before_a_move_publishes_nothing(
    store: Store, either, console, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """Another one takes over meanwhile and finishes."""
    usual, moves, finished = OutputFolder.move, [], []

    def stand_still(folder: Folder, source: str, target: str) -> None:
        if target.startswith("scores/") and not finished:
            moves.append(target)
            if len(moves) > moved:
                finished.append({})
                # Its lease is stale by now.
                folder.delete("_sentray/lease.json")
                run(console, **either, **BY_RATING)
                finished.append(content(store, either["out"]))
        usual(folder, source, target)

    monkeypatch.setattr(OutputFolder, "move", stand_still)
    # As on a file system that knows no locks: elsewhere nobody takes a folder over whose holder lives.
    monkeypatch.setattr(Lease, "_lock_folder", lambda lease: None)
    with pytest.raises(SentrayError, match=r"was taken over by|is gone: another run cleaned the folder"):
        run(console, **either, **BY_RATING)
    assert len(moves) == moved + 1
    assert content(store, either["out"]) == finished[1]
    verify(VerifySettings(directory=either["out"], input=either["input"]), console)


@pytest.mark.usefixtures("light")
def test_a_kill_between_the_moves_of_a_shard_leaves_nothing_of_it(
    store: Store, either, console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = either | {"out": str(tmp_path / "undisturbed")}
    run(console, **undisturbed, **BY_RATING)
    moves: list[str] = []

    def after_death(usual: Callable[..., Any]) -> Callable[..., Any]:
        def act(folder: Folder, *names: str) -> Any:
            if usual is move and names[1].startswith("scores/"):
                moves.append(names[1])
            # Half of the first shard's ten files are moved.
            if len(moves) > 5:
                raise KeyboardInterrupt
            return usual(folder, *names)

        return act

    move = OutputFolder.move
    with monkeypatch.context() as patch:
        patch.setattr(OutputFolder, "move", after_death(move))
        for name in ("create", "delete"):
            patch.setattr(Folder, name, after_death(getattr(Folder, name)))
        with pytest.raises(KeyboardInterrupt):
            run(console, **either, **BY_RATING)
    assert any("/scores/rating=" in name for name in content(store, either["out"]))
    # Where its process is gone, its lease lasts half a minute more.
    Folder(either["out"]).delete("_sentray/lease.json")
    run(console, **either, **BY_RATING)
    assert ", 0 of them committed before" in [line for line in console.lines if "committed before" in line][-1]
    verify(VerifySettings(directory=either["out"], input=either["input"]), console)
    found, wanted = (
        {name.rpartition("/scores/")[2]: bytes_ for name, bytes_ in content(store, out).items() if "/scores/" in name}
        for out in (either["out"], undisturbed["out"])
    )
    assert found == wanted
