"""The README's cluster way against a real head: start it with a token, submit training, submit scoring."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent
START_SECONDS, JOB_SECONDS = 90, 300


@dataclass(frozen=True)
class Head:
    """A running head: its address, that of its job server, and the environment of a client with its token."""

    address: str
    dashboard: str
    client: Mapping[str, str]

    def submit(self, *entrypoint: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAMS / "ray", "job", "submit", "--address", self.dashboard, "--working-dir", "."]
        return subprocess.run(
            [*command, "--", "python", *entrypoint],
            cwd=ROOT,
            env=self.client,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=JOB_SECONDS,
        )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as open_sockets:
        sockets = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_until_it_answers(dashboard: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"{dashboard}/api/version", timeout=5)
        except urllib.error.HTTPError:
            return  # It asks for the token: it is up.
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"the head did not start:\n{log.read_text()[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the head; it waits half a minute for processes that served jobs, so their group is killed before."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # A short path: Ray's sockets lie in it, and the system limits their names to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="head-", dir="/tmp"))
    gcs, dashboard, client, agent = _free_ports(4)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Ray's own switch for staying on the loopback address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    command = [PROGRAMS / "ray", "start", "--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1"]
    command += [f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}", "--disable-usage-stats"]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{dashboard}", process, folder / "head.log")
        yield Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", environment)
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def test_train_and_score_as_jobs(head: Head, tmp_path: Path) -> None:
    bundle, scored = tmp_path / "bundle", tmp_path / "scored"
    trained = head.submit(
        "jobs/train.py", "synthetic:400", "--out", str(bundle), "--epochs", "1", "--cleaning", "reviews"
    )
    assert trained.returncode == 0, trained.stdout
    assert "succeeded" in trained.stdout
    assert (bundle / "bundle.json").exists()

    done = head.submit("jobs/score.py", str(bundle), "synthetic:400", "--out", str(scored))
    assert done.returncode == 0, done.stdout
    assert "400 rows in = 400 scored + 0 quarantined" in done.stdout
    assert pq.read_table(scored / "scores").num_rows == 400

    failed = head.submit("jobs/score.py", str(tmp_path / "nothing"), "synthetic:400", "--out", str(scored))
    assert failed.returncode != 0
    assert f"sentray: {tmp_path / 'nothing'}" in failed.stdout


def test_a_client_needs_the_token(head: Head) -> None:
    without = {**head.client, "RAY_AUTH_TOKEN": "f" * 64}
    command = [sys.executable, "-m", "sentray", "check", "synthetic:50", "--address", head.address]
    refused = subprocess.run(command, env=without, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 1, refused.stderr
    assert refused.stderr.startswith(f"sentray: the Ray cluster at {head.address} refuses this client: ")
    assert refused.stderr.count("\n") == 1

    welcome = subprocess.run(command, env=head.client, capture_output=True, text=True, timeout=120)
    assert welcome.returncode == 0, welcome.stderr
    assert "rows            50, usable 50" in welcome.stdout
