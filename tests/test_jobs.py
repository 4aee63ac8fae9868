"""The README's cluster way against a real head: start it with a token, submit training, submit scoring."""

import asyncio
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sentray.bundle import Bundle

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = Path(sys.executable).parent
START_SECONDS, JOB_SECONDS = 120, 600
LARGE, SMALL = "nltk:movie_reviews", "synthetic:400"


@dataclass(frozen=True)
class Head:
    """A running head: its folder, its address, those of job server and metrics, and the environment of a client."""

    folder: Path
    address: str
    dashboard: str
    metrics: str
    client: Mapping[str, str]

    def start(self, *command: object) -> subprocess.Popen[str]:
        """Start a program beside Ray's, on this checkout and with the cluster's token."""
        program, *words = map(str, command)
        # This checkout's sentray, whichever is installed.
        started = [sys.executable, "-m", "sentray"] if program == "sentray" else [PROGRAMS / program]
        return subprocess.Popen(
            [*started, *words],
            cwd=ROOT,
            env={**self.client, "RAY_ADDRESS": self.dashboard},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        process = self.start(*command)
        out, _ = process.communicate(timeout=JOB_SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out)

    @property
    def jobs(self) -> Any:
        """A client of the Jobs API."""
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self.dashboard, headers={"Authorization": f"Bearer {self.client['RAY_AUTH_TOKEN']}"})

    def series(self) -> dict[str, dict[str, float]]:
        """What the Prometheus endpoint shows of each run: `name`, `name:reason` or `name:what`, without buckets."""
        with urllib.request.urlopen(self.metrics, timeout=30) as answer:
            lines = re.findall(r"^ray_sentray_(\w+)\{(.*)\} (\S+)$", answer.read().decode(), re.MULTILINE)
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for name, labels, value in lines:
            label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if "le" not in label:
                more = [label[key] for key in ("reason", "what") if key in label]
                found[label["run"]][":".join([name, *more])] = float(value)
        return found


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _wait_until_it_answers(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # It asks for the token: it is up.
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the head did not start:\n{log.read_text()[-3000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the head; it waits half a minute for processes that served jobs, so their group is killed before."""
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)


@contextmanager
def _running_head(programs: Path) -> Iterator[Head]:
    # A short path: Ray's sockets lie in it, and the system limits their names to 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="head-", dir="/tmp"))
    gcs, dashboard, ray_client, agent, metrics = _free_ports(5)
    command = [programs / "python", "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    command += [f"--ray-client-server-port={ray_client}", f"--dashboard-agent-listen-port={agent}"]
    command += [f"--metrics-export-port={metrics}", f"--temp-dir={folder}", "--disable-usage-stats"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))}
    environment |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # Ray's own switch for staying on the loopback address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        served = f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{metrics}/metrics"
        for address in served:
            _wait_until_it_answers(address, process, folder / "head.log")
        yield Head(folder, f"127.0.0.1:{gcs}", *served, environment)
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with _running_head(PROGRAMS) as head:
        yield head


@pytest.fixture
def readme(tmp_path: Path) -> list[list[str]]:
    """The commands of jobs/README.md that submit training and scoring: small reviews, a folder of this machine."""
    text = (ROOT / "jobs" / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ray job submit .*$", text, re.MULTILINE)
    return [shlex.split(line.replace(LARGE, SMALL).replace("/shared/", f"{tmp_path}/")) for line in lines]


def _out(command: Sequence[str]) -> Path:
    return Path(command[command.index("--out") + 1])


async def _whole(log: AsyncIterator[str]) -> str:
    return "".join([piece async for piece in log])


def _run_of(out: Path) -> str:
    """The id of the last run whose log lies beside an output."""
    return re.findall(r"^sentray \S+, run (\S+): ", Path(f"{out}.log").read_text(), re.MULTILINE)[-1]


def _wait(until: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What a condition gives once it is met, while a process runs."""
    end = time.monotonic() + JOB_SECONDS
    while not (found := until()) and time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
    if not found:
        process.kill()
        pytest.fail(f"it never came: {process.communicate()[0][-3000:]}")
    return found


def _committed(out: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in out.glob("_sentray/ledger/*.jsonl"))


@pytest.mark.slow
def test_trains_as_the_readme_says(head: Head, readme: list[list[str]]) -> None:
    process, seen = head.start(*readme[0]), dict[str, float]()
    # A gauge goes when nothing sets it any more.
    while process.poll() is None:
        for series in head.series().values():
            seen |= series
        time.sleep(0.5)
    shown, _ = process.communicate()
    assert process.returncode == 0, shown
    bundle = _out(readme[0])
    assert f"the bundle is in {bundle}" in shown
    (name,) = re.findall(r"Job '(\w+)' succeeded", shown)
    assert head.jobs.get_job_status(name) == "SUCCEEDED"
    epochs = json.loads((bundle / "history.json").read_text())
    seen |= head.series()[_run_of(bundle)]
    assert seen["epochs_total"] == len(epochs)
    assert seen["rows_trained_total"] == sum(epoch["rows_seen"] for epoch in epochs)
    assert seen["rows_per_second"] > 0


def test_scores_as_the_readme_says_and_counts_what_it_does(
    head: Head, small_bundle: Bundle, readme: list[list[str]]
) -> None:
    shutil.copytree(small_bundle.path, _out(readme[0]))
    jobs, before = head.jobs, {job.submission_id for job in head.jobs.list_jobs()}
    process = head.start(*readme[1])
    (name,) = _wait(lambda: {job.submission_id for job in jobs.list_jobs()} - before, process)
    followed = asyncio.run(_whole(jobs.tail_job_logs(name)))
    shown, _ = process.communicate(timeout=JOB_SECONDS)
    assert process.returncode == 0, shown
    assert jobs.get_job_status(name) == "SUCCEEDED"
    assert "400 rows in = 400 scored + 0 quarantined" in followed
    assert followed.splitlines()[-1] in shown

    out = _out(readme[1])
    summary = json.loads((out / "summary.json").read_text())
    assert pq.read_table(out / "scores").num_rows == summary["rows_scored"] == 400
    assert summary["run"] == _run_of(out)
    counted = head.series()[summary["run"]]
    assert counted.pop("shard_seconds_count") == summary["shards"]
    assert counted.pop("shard_seconds_sum") > 0
    assert counted.pop("worker_seconds_total") == pytest.approx(summary["worker_seconds"], abs=1e-3)
    # Gauges go soon after the job.
    for name in [name for name in counted if name.startswith("drift:")]:
        assert counted.pop(name) == pytest.approx(summary["drift"][name.partition(":")[2]]["psi"], abs=1e-6)
    assert counted == {"rows_read_total": 400, "rows_scored_total": 400, "bytes_read_total": summary["bytes"]}


@pytest.mark.slow
def test_a_failed_job_fails_and_is_counted_all_the_same(head: Head, small_bundle: Bundle, tmp_path: Path) -> None:
    reviews, out = tmp_path / "reviews.csv", tmp_path / "scored"
    reviews.write_text("id,text\n1,a fine film\n2,\n3,dull\n3,dull again\n")
    done = head.run("sentray", "submit", "score", small_bundle.path, reviews, "--out", out, "--log-format", "json")
    assert done.returncode == 1, done.stdout
    (name,) = re.findall(r"the job (sentray-score-\S+) failed: exit status 1;", done.stdout)
    info = head.jobs.get_job_info(name)
    assert (info.status, info.driver_exit_code) == ("FAILED", 1)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {line["verb"] for line in lines} == {"score"}
    assert {line["run"] for line in lines} == {_run_of(out)}
    assert lines[-1]["level"] == "error"
    assert "more than --max-bad-rows 0.01 allows" in lines[-1]["message"]
    (commit,) = (line for line in lines if "shard" in line)
    assert (commit["shard"], commit["rows"], commit["scored"]) == (0, 4, 2)
    assert commit["quarantined"] == {"empty_text": 1, "duplicate_id": 1}
    counted = head.series()[_run_of(out)]
    assert counted["rows_scored_total"] == 2
    assert counted["rows_quarantined_total:empty_text"] == counted["rows_quarantined_total:duplicate_id"] == 1


@pytest.mark.slow
def test_rays_own_submit_ends_as_the_job_does(head: Head, tmp_path: Path) -> None:
    failed = head.run(
        *("ray", "job", "submit", "--working-dir", ".", "--", "python", "jobs/score.py", tmp_path / "nothing"),
        *(SMALL, "--out", tmp_path / "none"),
    )
    assert failed.returncode == 1
    assert f"sentray: {tmp_path / 'nothing'}" in failed.stdout


@pytest.mark.slow
def test_scoring_that_was_stopped_goes_on(head: Head, small_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "scored"
    command = ["sentray", "submit", "score", small_bundle.path, "synthetic:300000", "--shard-size", "1", "--out", out]
    process = head.start(*command)
    _wait(lambda: _committed(out) > 2, process)
    (name,) = (job.submission_id for job in head.jobs.list_jobs() if job.status == "RUNNING")
    assert head.jobs.stop_job(name)
    shown, _ = process.communicate(timeout=JOB_SECONDS)
    assert (process.returncode, head.jobs.get_job_status(name)) == (1, "STOPPED")
    assert "sentray: stopped; the same command goes on from here" in shown
    assert f"sentray: the job {name} was stopped" in shown
    assert not (out / "_sentray" / "lease.json").exists()
    before = _committed(out)
    assert not (out / "summary.json").exists()

    done = head.run(*command)
    assert done.returncode == 0, done.stdout
    (already,) = re.findall(r"([0-9]+) of them committed before", done.stdout)
    assert int(already) >= before
    assert head.run("sentray", "verify", out).returncode == 0
    assert json.loads((out / "summary.json").read_text())["rows_scored"] == 300_000


@pytest.mark.slow
def test_training_that_was_stopped_goes_on(head: Head, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    command = [
        "sentray",
        "submit",
        "train",
        SMALL,
        "--out",
        out,
        "--epochs",
        "30",
        "--cleaning",
        "reviews",
        "--validation-fraction",
        "0",
    ]
    process = head.start(*command)
    _wait(lambda: [*Path(f"{out}.work").glob("train/checkpoint_*/state.json")], process)
    (name,) = (job.submission_id for job in head.jobs.list_jobs() if job.status == "RUNNING")
    assert head.jobs.stop_job(name)
    shown, _ = process.communicate(timeout=JOB_SECONDS)
    assert (process.returncode, head.jobs.get_job_status(name)) == (1, "STOPPED")
    assert "sentray: stopped; the same command goes on from here" in shown
    assert not out.exists()
    assert not Path(f"{out}.work", "lease.json").exists()

    done = head.run(*command)
    assert done.returncode == 0, done.stdout
    assert re.search(r"going on after epoch [1-9][0-9]* of 30", done.stdout)
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 30


@pytest.mark.slow
def test_a_client_needs_the_token(head: Head) -> None:
    check = ["check", "synthetic:50", "--address", head.address]
    for words, refusal in (
        (check, f"sentray: the Ray cluster at {head.address} refuses this client: "),
        (["submit", "--address", head.dashboard, *check[:2]], f"sentray: the job server at {head.dashboard} refuses "),
    ):
        refused = _sentray(words, {**head.client, "RAY_AUTH_TOKEN": "f" * 64})
        assert refused.returncode == 1, refused.stderr
        assert refused.stderr.splitlines()[-1].startswith(refusal)
        assert "Traceback" not in refused.stderr

    welcome = _sentray(check, head.client)
    assert welcome.returncode == 0, welcome.stderr
    assert "rows            50, usable 50" in welcome.stdout


def _sentray(words: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sentray", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=JOB_SECONDS)


@pytest.fixture
def bare_head(tmp_path: Path) -> Iterator[Head]:
    """A head whose Python has Ray and all that sentray needs, but not sentray."""
    get = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "setuptools>=77,<83", "-d", tmp_path / "x"]
    if subprocess.run(get, capture_output=True, timeout=120).returncode:
        pytest.skip("pip cannot reach the registry, from which it builds sentray with setuptools")
    packages = tmp_path / "packages"
    packages.mkdir()
    for package in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "sentray" not in package.name:
            (packages / package.name).symlink_to(package)
    venv.create(tmp_path / "python", symlinks=True)
    (site,) = (tmp_path / "python").glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(f"{packages}\n")
    with _running_head(tmp_path / "python" / "bin") as head:
        yield head


@pytest.mark.slow
def test_nodes_that_lack_sentray_install_it_from_the_upload(bare_head: Head, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = bare_head.run("sentray", "submit", "--install", "train", SMALL, "--out", out, "--epochs", "1")
    assert done.returncode == 0, done.stdout
    assert json.loads((out / "bundle.json").read_text())["versions"]["sentray"] == "0.1.0"
    (made,) = bare_head.folder.glob("session_2*/runtime_resources/pip/*/virtualenv/lib/python*/site-packages")
    assert [*made.glob("sentray-0.1.0.dist-info")]
