"""Training into an S3 server: the run's work folder, its checkpoints and its bundle lie there."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pytest

from sentray import bundle
from sentray.config import ScoreSettings, TrainSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.scoring.job import score
from sentray.tracking.tensorboard import event_files
from sentray.training.run import train, work_folder

CORPUS, EPOCHS = "synthetic:300", 6

DRIVER = """
import json, sys
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.training.run import train

train(TrainSettings.model_validate_json(sys.argv[1]), Console())
"""


class Store:
    """A real S3 server (moto's) on loopback, with one bucket."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.query = f"endpoint_override=127.0.0.1%3A{self._server.server_port}&scheme=http&region=us-east-1"
        self.filesystem, _ = pafs.FileSystem.from_uri(f"{self.uri('bucket')}&allow_bucket_creation=true")
        self.filesystem.create_dir("bucket")

    def uri(self, path: str) -> str:
        return f"s3://user:secret@{path}?{self.query}"

    def names(self, folder: str) -> set[str]:
        selector = pafs.FileSelector(folder, recursive=True, allow_not_found=True)
        found = self.filesystem.get_file_info(selector)
        return {info.path.removeprefix(f"{folder}/") for info in found if info.is_file}

    def read(self, path: str) -> Any:
        with self.filesystem.open_input_file(path) as stream:
            return json.loads(stream.readall())

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    pytest.importorskip("moto.server")
    store = Store()
    yield store
    store.close()


def settings(out: str | Path, **values: Any) -> TrainSettings:
    defaults: dict[str, Any] = {"corpus": CORPUS, "out": str(out), "epochs": EPOCHS, "seed": 1}
    defaults |= {"test_fraction": 0.1, "validation_fraction": 0}
    return TrainSettings(**defaults | values)


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_a_killed_run_goes_on_elsewhere_and_ends_as_one_on_local_disks(
    store: Store, tmp_path: Path, console: Any
) -> None:
    train(settings(tmp_path / "model"), Console())
    asked = settings(store.uri("bucket/model"))
    _kill_after_a_checkpoint(asked, store)
    assert store.names("bucket/model") == set()
    kept = store.names("bucket/model.work")
    assert {"run.json", "dataset/dataset.json", "dataset/ids.bin", "train/checkpoint_manager_snapshot.json"} < kept

    with pytest.raises(SentrayError, match="holds a run that was started with --batch-size 32, not 64"):
        train(asked.model_copy(update={"batch_size": 64}), Console())
    # This Ray is another one, and knows of the killed run what lies in the store.
    train(settings(store.uri("bucket/model")), console)
    assert "the corpus is prepared already: going on with it" in console.lines
    assert any(line.startswith("going on after epoch") for line in console.lines)
    assert store.names("bucket/model.work") == set()
    local, remote = bundle.load(tmp_path / "model"), bundle.load(store.uri("bucket/model"))
    records = {"settings.json", "metrics.json", "history.json", "quarantine.parquet", "files.parquet"}
    records |= {"evidence.parquet", "report.html", "README.md"}
    histories = json.loads((tmp_path / "model" / "history.json").read_text()), store.read("bucket/model/history.json")
    assert _losses(histories[0]) == _losses(histories[1])
    events = event_files(histories[1], 1, remote.metrics)
    assert store.names("bucket/model") == {*remote.files, *records, *events}
    for name, content in events.items():
        with store.filesystem.open_input_file(f"bucket/model/{name}") as stream:
            assert stream.readall() == content
    mine, theirs = (np.load(io.BytesIO(each.files[bundle.FOLDED_WEIGHTS])) for each in (local, remote))
    assert mine.files == theirs.files
    for name in mine.files:
        np.testing.assert_array_equal(mine[name], theirs[name])
    assert remote.golden == local.golden

    scores = []
    for source, out in ((local.path, str(tmp_path / "scored")), (asked.out, store.uri("bucket/scored"))):
        score(ScoreSettings(bundle=source, input=CORPUS, out=out, workers=1), Console())
        filesystem, path = pafs.FileSystem.from_uri(out)
        scores.append(ds.dataset(f"{path}/scores", filesystem=filesystem).to_table())
    assert scores[0].num_rows == 300
    np.testing.assert_array_equal(*(table["positive"].to_numpy() for table in scores))

    assert train(asked, Console())["test_rows"] == remote.metrics["test_rows"]
    with pytest.raises(SentrayError, match=r"holds another bundle; choose another --out, or remove it to train anew"):
        train(asked.model_copy(update={"epochs": 3}), Console())


def _kill_after_a_checkpoint(asked: TrainSettings, store: Store) -> None:
    command = [sys.executable, "-c", DRIVER, asked.model_dump_json()]
    running = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 180
    while "train/checkpoint_manager_snapshot.json" not in store.names("bucket/model.work"):
        assert running.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()


def _losses(history: list[dict[str, Any]]) -> list[float]:
    return [epoch["loss"] for epoch in history]


@pytest.mark.usefixtures("ray_session")
def test_an_out_that_cannot_be_used_is_refused_before_the_corpus_is_read(store: Store, tmp_path: Path) -> None:
    with store.filesystem.open_output_stream("bucket/thesis/chapter1.tex") as stream:
        stream.write(b"much work")
    dead = "endpoint_override=127.0.0.1%3A9&scheme=http&region=us-east-1"
    for out, message in {
        store.uri("bucket/thesis"): "exists and is not a bundle",
        store.uri("nowhere/model"): "cannot be written .*bucket does not exist",
        store.uri("bucket"): "is a whole bucket; name a folder in it",
        f"s3://user:secret@bucket/model?{dead}": "cannot be read .*onnect to server",
        "s3a://bucket/model": "cannot be opened .Unrecognized filesystem",
    }.items():
        with pytest.raises(SentrayError, match=message) as refused:
            train(settings(out, corpus=str(tmp_path / "no corpus")), Console())
        assert "\n" not in str(refused.value)
    assert store.names("bucket/thesis") == {"chapter1.tex"}


def test_the_work_folder_lies_beside_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert work_folder("models/a/") == str(tmp_path / "models/a.work")
    assert work_folder("s3://bucket/a/?region=x") == "s3://bucket/a.work?region=x"
    assert work_folder("s3://user:secret@bucket/b/a") == "s3://user:secret@bucket/b/a.work"


@pytest.mark.usefixtures("ray_session")
def test_a_refused_corpus_leaves_the_rows_set_aside_in_the_store(store: Store, tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text("text,label\ngood,pos\n,pos\nbad,neg\nfine,pos\n")
    with pytest.raises(SentrayError, match="more than --max-bad-rows"):
        train(settings(store.uri("bucket/refused"), corpus=str(tmp_path / "reviews.csv")), Console())
    assert store.names("bucket/refused.work") - {"dataset"} == {"run.json", "dataset/quarantine.parquet"}
