"""A training on a real MLflow server: the extra `mlflow` in an environment of its own, the server in another."""

import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300

READ_BACK = """
import json, sys
import mlflow, pandas as pd
import numpy as np

out, texts = sys.argv[1], ["a fine film that I liked", "a dull film that I hated"]
(run,) = mlflow.search_runs(experiment_names=["reviews"], output_format="list")
client = mlflow.MlflowClient()
model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
listed, framed = model.predict(texts), model.predict(pd.DataFrame({"body": [*texts, None, " "]}))
foreign = {"tensorflow", "keras", "ray"} & set(sys.modules)

import sentray

loaded = sentray.load(out)
assert listed["label"].tolist() == loaded.predict(texts).tolist() == framed["label"].tolist()[:2]
np.testing.assert_array_equal(listed["score"], loaded.predict_proba(texts).max(axis=1))
assert framed["label"].isna().tolist() == framed["score"].isna().tolist() == [False, False, True, True]
files = mlflow.artifacts.download_artifacts(run_id=run.info.run_id)
with open(f"{files}/history.json") as stream:
    history = json.load(stream)
losses = {
    name: [[point.step, point.value, point.timestamp] for point in client.get_metric_history(run.info.run_id, name)]
    for name in run.data.metrics
    if name.endswith("/loss")
}
print(json.dumps({
    "status": run.info.status,
    "name": run.info.run_name,
    "params": run.data.params,
    "metrics": run.data.metrics,
    "tags": run.data.tags,
    "losses": losses,
    "history": history,
    "artifacts": sorted(file.path for file in client.list_artifacts(run.info.run_id)),
    "requirements": mlflow.pyfunc.get_model_dependencies(f"runs:/{run.info.run_id}/model"),
    "signature": [str(model.metadata.signature.inputs), str(model.metadata.signature.outputs)],
    "digests": [loaded.digest, model.metadata.metadata["sentray.digest"]],
    "foreign": sorted(foreign),
}))
"""

GO_ON = """
import json, os, socket, sys, tempfile, time
import mlflow

from sentray.config import TrainSettings
from sentray.console import Console
from sentray.storage import Folder
from sentray.tracking import Trackers
from tests.tracking.test_tensorboard import FITS

work, settings = Folder(tempfile.mkdtemp()), TrainSettings(corpus="c", out="killed", test_fold="1/2")
for known in (FITS[:1], FITS):
    with Trackers(settings, work, Console(silent=True)) as trackers:
        trackers.begin(2)
        trackers.history(known)
        run = mlflow.active_run().info.run_id
client = mlflow.MlflowClient()
steps = [point.step for point in client.get_metric_history(run, "fit-1/held_out_loss/wide")]
found = {"steps": steps, "fold": client.get_run(run).data.tags["sentray.test_fold"]}

# Of the caller.
with mlflow.start_run() as mine, Trackers(settings, Folder(tempfile.mkdtemp()), Console(silent=True)) as trackers:
    trackers.begin(2)
found["mine"] = mlflow.get_run(mine.info.run_id).data.params["out"]

mute = socket.create_server(("127.0.0.1", 0))
uri = f"http://me:secret@127.0.0.1:{mute.getsockname()[1]}"
mlflow.set_tracking_uri(uri)
os.environ |= {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}
console, said, began = Console(silent=True), [], time.monotonic()
console.note = said.append
with Trackers(settings, Folder(tempfile.mkdtemp()), console) as trackers:
    trackers.begin(2)
    trackers.history(FITS)
print(json.dumps(found | {"said": said, "seconds": time.monotonic() - began}))
"""


def environment(folder: Path, packages: list[str]) -> str:
    """The Python of a new environment that has what the tests' has, and packages before that."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "tests.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    python = str(folder / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--retries", "1", *packages]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=SECONDS)
    if done.returncode:
        pytest.skip(f"{' '.join(packages)} cannot be installed: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> str:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return environment(tmp_path_factory.mktemp("client"), extras["mlflow"])


@pytest.fixture(scope="module")
def variables(client: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a process that a server tracks."""
    folder = tmp_path_factory.mktemp("server")
    python = environment(folder / "environment", ["mlflow>=3,<4"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    plain = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    plain["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    command = [python, "-m", "mlflow", "server", "--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/runs.db"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", address[10:]]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env=plain, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        deadline = time.monotonic() + SECONDS
        while True:
            assert server.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            try:
                direct.open(f"http://{address}/health").close()
                break
            except OSError:
                time.sleep(0.5)
        yield plain | {"MLFLOW_TRACKING_URI": f"http://{address}", "MLFLOW_EXPERIMENT_NAME": "reviews"}
    finally:
        # It has processes of its own, and takes its time to end.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def run(*command: str, env: dict[str, str]) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_training_is_a_run_and_its_bundle_a_model_without_tensorflow(
    client: str, variables: dict[str, str], tmp_path: Path
) -> None:
    out = str(tmp_path / "stars")
    asked = ["synthetic:200", "--model", "wide", "--test-fraction", "0.2", "--epochs", "3", "--out", out]
    said = run(client, "-m", "sentray", "train", *asked, env=variables)
    assert "MLflow: run stars, " in said
    assert "warning: tracking" not in said
    found: dict[str, Any] = json.loads(run(client, "-c", READ_BACK, out, env=variables))
    metrics = json.loads(Path(out, "metrics.json").read_text())
    assert (found["status"], found["name"], found["foreign"]) == ("FINISHED", "stars", [])
    assert {"corpus": "synthetic:200", "model": "wide", "epochs": "3"}.items() <= found["params"].items()
    assert found["metrics"]["test/accuracy"] == metrics["test"]["accuracy"]
    assert found["metrics"]["validation/log_loss"] == metrics["validation"]["log_loss"]
    assert found["history"] == json.loads(Path(out, "history.json").read_text())
    fits = max(record["fit"] for record in found["history"])
    for number in range(fits + 1):
        ended = [
            [record["epoch"], record["loss"], int(1000 * (record["started_at"] + record["seconds"]))]
            for record in found["history"]
            if record["fit"] == number
        ]
        assert found["losses"]["last/loss" if number == fits else f"fit-{number + 1}/loss"] == ended
    assert {"metrics.json", "history.json", "settings.json"} <= set(found["artifacts"])
    assert found["digests"] == [found["tags"]["sentray.digest"]] * 2
    assert found["signature"] == ["[string (required)]", "['label': string (optional), 'score': float (optional)]"]
    assert {line.partition("==")[0] for line in Path(found["requirements"]).read_text().split()} == {
        "mlflow-skinny",
        "sentray",
    }


@pytest.mark.slow
def test_a_run_goes_on_and_a_server_that_does_not_answer_is_left(client: str, variables: dict[str, str]) -> None:
    found: dict[str, Any] = json.loads(
        run(client, "-c", GO_ON, env=variables | {"MLFLOW_EXPERIMENT_NAME": "killed"}).splitlines()[-1]
    )
    assert (found["steps"], found["fold"], found["mine"]) == ([1, 2], "1/2", "killed")
    (line,) = found["said"]
    assert line.startswith("warning: tracking by MLflow failed (")
    assert "the training goes on without; check the server and MLFLOW_TRACKING_URI (http://127.0.0.1:" in line
    assert "timed out" in line
    assert "secret" not in line
    assert found["seconds"] < 30
