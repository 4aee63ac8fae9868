"""What `sentray submit` refuses before anything is sent, and how it follows a job; test_jobs has a real job server."""

import asyncio
import contextlib
import importlib
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from aiohttp import ClientError

from sentray.cli import main
from sentray.console import Console

ROOT = Path(__file__).resolve().parents[1]
# `sentray.submit` is the function.
submit: Any = importlib.import_module("sentray.submit")
MORE = "; `ray job logs name` and `ray job status name` tell more"
TRAIN = ("train", "synthetic:400", "--out", "/shared/model")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this process works in, and that would be sent."""
    # Ray reads this when it is imported, and later tests start a cluster.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """An HTTP server that is no job server: it answers everything with one status, and keeps what it is asked."""
    found = SimpleNamespace(status=404, asked=[], address="")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            self.send_response(found.status)
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, *_: object) -> None: ...

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    found.address = f"http://127.0.0.1:{listening.server_port}"
    threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True).start()
    yield found
    listening.shutdown()


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["submit", *words])
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("sentray: ")
    assert shown.err.count("\n") == 1
    return int(ended.value.code or 0), shown.err.removeprefix("sentray: ").rstrip()


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("trian", "c"), 2, "no job is called 'trian'; did you mean train?"),
        (("submit", "train"), 2, "no job is called 'submit'; "),
        (("--", "train", "c", "--epoch", "3"), 2, "the job train: No such option: --epoch"),
        (("--", "train", "c"), 2, "the job train: --out must be given; `sentray train --help` shows every option"),
        (("train", "--help"), 2, "; `sentray train --help` shows every option"),
        (("train", "c", "--out", "/o", "--epochs", "0"), 2, "the job train: --epochs is '0': input should be greater"),
        (("--install", *TRAIN), 1, "has no jobs/runtime_env.yaml: run this in a checkout of sentray, from which"),
        (("train", "c", "--out", "model"), 1, "--out model lies in the folder that the job runs in, a copy"),
    ],
)
def test_what_cannot_work_is_not_sent(
    words: tuple[str, ...], status: int, sentence: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _refused(capsys, *words)
    assert found[0] == status
    assert sentence in found[1]


def test_what_is_called_as_a_folder_is_no_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "reviews").mkdir()
    words = ("--address", "http://127.0.0.1:1", *TRAIN, "--cleaning", "reviews", "--text-column", "reviews")
    assert "no job server answers" in _refused(capsys, *words)[1]


def test_what_a_job_writes_must_last(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("check", "c", "--json", "x.json"), ("train", "--config", "t.json")):
        (folder / "t.json").write_text('{"corpus": "synthetic:50", "out": "o"}')
        status, sentence = _refused(capsys, *words)
        assert status == 1
        assert "lies in the folder that the job runs in, a copy that does not last" in sentence


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_refuses_this_client_is_named(
    status: int,
    folder: Path,
    server: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.status = status
    # The option wins over the variable, unlike with Ray.
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    assert _refused(capsys, "--address", server.address, *TRAIN) == (
        1,
        f"the job server at {server.address} refuses this client: set RAY_AUTH_MODE=token and give the cluster's token "
        "in RAY_AUTH_TOKEN or ~/.ray/auth_token",
    )


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "127.0.0.1:1", "http://[", "http://127.0.0.1:99999"])
@pytest.mark.parametrize("variable", [None, "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
def test_nobody_at_the_address_is_one_sentence(
    variable: str | None,
    address: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if variable:
        monkeypatch.setenv(variable, address)
    status, sentence = _refused(capsys, *(() if variable else ("--address", address)), *TRAIN)
    assert status == 1
    assert sentence.startswith(f"no job server answers at {address} (")


def test_what_is_installed_is_made_anew_when_its_needs_change(folder: Path) -> None:
    from ray.runtime_env import RuntimeEnv

    (folder / "jobs").mkdir()
    for name in ("jobs/runtime_env.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    plain = yaml.safe_load((ROOT / "jobs" / "runtime_env.yaml").read_text())
    first = submit._installing()
    assert first["pip"]["packages"][1:] == plain["pip"]["packages"] == ["${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"]
    assert submit._installing() == first
    with (folder / "pyproject.toml").open("a") as file:
        file.write("# more\n")
    changed = submit._installing()
    assert RuntimeEnv(**changed).pip_uri() != RuntimeEnv(**first).pip_uri() != RuntimeEnv(**plain).pip_uri()


class Jobs:
    """A client of the Jobs API for one job, whose log comes in pieces."""

    def __init__(self, pieces: list[str], *ends: tuple[str, int | None]) -> None:
        self._pieces, self._ends = pieces, list(ends)

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        for piece in self._pieces:
            yield piece

    def get_job_info(self, job: str) -> Any:
        from ray.job_submission import JobStatus

        status, code = self._ends.pop(0) if len(self._ends) > 1 else self._ends[0]
        return SimpleNamespace(status=JobStatus(status), driver_exit_code=code, message="it broke\nfor good")


def test_the_log_is_followed_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Jobs(["first\nsec", "ond\n", "\x1b[2Jthi", "rd"], ("SUCCEEDED", 0))
    asyncio.run(submit._follow(jobs, "job", Console()))
    assert capsys.readouterr().out == "first\nsecond\n\\x1b[2Jthird\n"


@pytest.mark.parametrize(
    ("end", "status", "sentence"),
    [
        (("SUCCEEDED", 0), None, ""),
        (("FAILED", 3), 3, f"the job name failed: exit status 3{MORE}"),
        (("FAILED", None), 1, f"the job name failed: it broke{MORE}"),
        (("FAILED", -9), 1, f"the job name failed: exit status -9{MORE}"),
        (("STOPPED", None), 1, "the job name was stopped; to go on with it, give the same command again"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_ends_as_the_job_ends(
    end: tuple[str, int | None], status: int | None, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_END_SECONDS", 0)
    jobs = Jobs([], ("RUNNING", None), ("RUNNING", None), end)
    ended = pytest.raises(submit.JobEndedError) if status else contextlib.nullcontext()
    with ended as error:
        submit._require_success(jobs, "name")
    if error:
        assert (error.value.status, str(error.value)) == (status, sentence)


class Leaving(Jobs):
    """A job that goes on while following it ends with an error."""

    def __init__(self, error: BaseException) -> None:
        super().__init__([], ("RUNNING", None))
        self._error = error

    def submit_job(self, **job: Any) -> None:
        self.sent = job

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        yield "started\n"
        raise self._error


@pytest.fixture
def left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[BaseException], tuple[Any, int, list[str]]]:
    """Submits a job whose log cannot be followed to its end; gives the job, the exit status, standard error."""

    def leave(error: BaseException) -> tuple[Any, int, list[str]]:
        jobs = Leaving(error)
        monkeypatch.setattr(submit, "_connect", lambda address: (jobs, address))
        with pytest.raises(SystemExit) as ended:
            main(["submit", "--address", "http://head:8265", *TRAIN, "--epochs", "3"])
        shown = capsys.readouterr()
        assert shown.out == "started\n"
        sent, *errors = shown.err.splitlines()
        assert sent == f"job {jobs.sent['submission_id']}: sent to http://head:8265"
        return jobs.sent, int(ended.value.code or 0), errors

    return leave


def test_a_job_is_tracked_where_this_shell_says(left: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = {"MLFLOW_TRACKING_URI": "http://mlflow:5000", "MLFLOW_EXPERIMENT_NAME": "reviews"}
    for name, value in {**shell, "MLFLOW_TRACKING_PASSWORD": "secret"}.items():
        monkeypatch.setenv(name, value)
    job, *_ = left(KeyboardInterrupt())
    assert job["runtime_env"]["env_vars"] == shell


def test_an_interrupt_leaves_the_job_running(folder: Path, left: Any) -> None:
    job, status, errors = left(KeyboardInterrupt())
    assert job["entrypoint"] == "python -m sentray train synthetic:400 --out /shared/model --epochs 3"
    assert job["runtime_env"] == {"working_dir": str(folder)}
    there = f"{job['submission_id']} --address http://head:8265"
    assert status == 130
    assert errors == [
        f"the job goes on: `ray job logs --follow {there}` shows it, `ray job stop {there}` ends it",
        "sentray: interrupted",
    ]


def test_waits_for_an_agent_that_is_starting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [RuntimeError("status code 500: No available agent to submit job, please try again later."), None]
    sent = []

    def submit_job(**job: Any) -> None:
        sent.append(job)
        if (answer := answers.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(submit, "_END_SECONDS", 0)
    server: Any = SimpleNamespace(submit_job=submit_job)
    submit._send(server, Console(), entrypoint="x")
    assert sent == [{"entrypoint": "x"}] * 2
    for error, seconds in ((RuntimeError("status code 400: too large"), 120), (RuntimeError("No available agent"), -1)):
        monkeypatch.setattr(submit, "_AGENT_SECONDS", seconds)
        answers[:] = [error]
        with pytest.raises(RuntimeError, match=str(error)):
            submit._send(server, Console(), entrypoint="x")


@pytest.mark.parametrize("error", [RuntimeError("gone.\nfor good"), ConnectionError("gone"), ClientError("gone")])
def test_a_lost_connection_is_no_traceback(error: Exception, left: Any) -> None:
    job, status, errors = left(error)
    assert status == 1
    assert errors == [
        "sentray: the connection to http://head:8265 was lost (gone), of which the job knows nothing: see how it does "
        f"by `ray job logs --follow {job['submission_id']} --address http://head:8265`"
    ]
