"""`submit` sends a verb to a cluster's job server: checks it here, uploads this folder, follows the log to the end."""

import asyncio
import difflib
import hashlib
import os
import shlex
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sentray import cluster, options
from sentray.config import DEFAULT_JOB_SERVER, RUNTIME_ENV, SubmitSettings
from sentray.console import Console
from sentray.errors import SentrayError, first_line

TRACKING = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
"""Variables that a job is given; passwords are not, since the dashboard shows what is."""
_END_SECONDS = 1.0
"""How often to ask for the job's status once its log has ended."""
_AGENT_SECONDS = 120.0
"""How long a job server may have no agent that runs jobs: it is starting."""


class JobEndedError(SentrayError):
    """The job ended without success; `status` is that of its command where it has one."""


def submit(settings: SubmitSettings, console: Console) -> None:
    """Submit a job and follow it to its end.

    Args:
        settings: What to submit, and where to.
        console: Where the job's log goes.

    Raises:
        UsageError: The verb or its options would be refused.
        SentrayError: The output would not last, or no job server takes the job.
        JobEndedError: The job failed or was stopped.
    """
    verb, *words = settings.job
    _check(verb, words)
    environment = {"working_dir": os.getcwd(), **(_installing() if settings.install else {})}
    if tracked := {name: os.environ[name] for name in TRACKING if name in os.environ}:
        environment["env_vars"] = tracked
    client, address = _connect(settings.address)
    name = f"sentray-{verb}-{console.run}"
    try:
        _send(
            client,
            console,
            entrypoint=shlex.join(["python", "-m", "sentray", verb, *words]),
            submission_id=name,
            runtime_env=environment,
        )
    # One is that this folder is too large to send.
    except (OSError, RuntimeError, ValueError) as error:
        raise SentrayError(f"the job server at {address} did not take the job: {first_line(error)}") from error
    console.note(f"job {name}: sent to {address}")
    try:
        asyncio.run(_follow(client, name, console))
        _require_success(client, name)
    # Also where the reader of what is printed here leaves.
    except (KeyboardInterrupt, SystemExit, BrokenPipeError):
        there = f"{name} --address {address}"
        console.note(f"the job goes on: `ray job logs --follow {there}` shows it, `ray job stop {there}` ends it")
        raise
    except (OSError, RuntimeError) as error:
        raise SentrayError(
            f"the connection to {address} was lost ({first_line(error)}), of which the job knows nothing: see how it "
            f"does by `ray job logs --follow {name} --address {address}`"
        ) from error


def _check(verb: str, words: list[str]) -> None:
    """Refuse what the verb would refuse, and an output in the folder that the job runs in, a copy that is deleted."""
    from sentray.api import JOBS

    if verb not in JOBS:
        near = difflib.get_close_matches(verb, JOBS, n=1)
        cure = f"did you mean {near[0]}?" if near else f"take one of {', '.join(JOBS)}"
        raise options.UsageError(f"no job is called {verb!r}; {cure}")
    try:
        job = options.parse(JOBS[verb], words)
    except options.UsageError as error:
        what = str(error).partition("; --help ")[0]
        raise options.UsageError(f"the job {verb}: {what}; `sentray {verb} --help` shows every option") from None
    for field in ("json_file", "out"):
        path = getattr(job, field, None)
        if path and "://" not in path and not os.path.isabs(path):
            raise SentrayError(
                f"{options.flag(JOBS[verb], field)} {path} lies in the folder that the job runs in, a copy "
                "that does not last: give a URI, or the absolute path of a folder that the nodes share"
            )


def _installing() -> dict[str, Any]:
    """The runtime environment that installs sentray, made anew where what it needs has changed."""
    import yaml

    if not Path(RUNTIME_ENV).is_file():
        raise SentrayError(
            f"{Path.cwd()} has no {RUNTIME_ENV}: run this in a checkout of sentray, from which --install installs it"
        )
    environment: dict[str, Any] = yaml.safe_load(Path(RUNTIME_ENV).read_text(encoding="utf-8"))
    # Ray keeps what it installed for the same lines, whatever the uploaded folder holds.
    needs = hashlib.sha256(Path("pyproject.toml").read_bytes()).hexdigest()[:12]
    environment["pip"]["packages"].insert(0, f"# pyproject.toml {needs}")
    return environment


def _connect(wish: str | None) -> tuple[Any, str]:
    """A client of the job server, and the server's address.

    Raises:
        SentrayError: None answers, or it refuses this client.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    address = wish or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or DEFAULT_JOB_SERVER
    # Ray prefers its variables to the argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        if address != "auto":
            # Where nobody listens, Ray would go on trying for minutes.
            parts = urlsplit(address if "://" in address else f"//{address}")
            cluster.require_listener(parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80))
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise cluster.refused(f"the job server at {address}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise SentrayError(
            f"no job server answers at {address} ({first_line(error)}): start a cluster with `ray start --head`, "
            "forward the port of its dashboard (8265) to this machine, or say where it is by --address"
        ) from error
    return client, client.get_address()


def _send(client: Any, console: Console, **job: Any) -> None:
    """Give the job to the server, as soon as there is an agent that runs it: it starts after the server."""
    until = time.monotonic() + _AGENT_SECONDS
    while True:
        try:
            client.submit_job(**job)
            return
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > until:
                raise
            console.progress("the job server's agent is starting")
            time.sleep(_END_SECONDS)


async def _follow(client: Any, job: str, console: Console) -> None:
    """Print the job's log line by line until it ends."""
    from aiohttp import ClientError

    rest = ""
    try:
        async for piece in client.tail_job_logs(job):
            *lines, rest = (rest + piece).split("\n")
            for line in lines:
                console.say(line)
    except ClientError as error:
        raise ConnectionError(str(error)) from error
    if rest:
        console.say(rest)


def _require_success(client: Any, job: str) -> None:
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(_END_SECONDS)
    if info.status == "SUCCEEDED":
        return
    if info.status == "STOPPED":
        raise JobEndedError(f"the job {job} was stopped; to go on with it, give the same command again")
    code = info.driver_exit_code
    why = f"exit status {code}" if code else first_line(RuntimeError(info.message or "no reason given"))
    ended = JobEndedError(f"the job {job} failed: {why}; `ray job logs {job}` and `ray job status {job}` tell more")
    ended.status = code if code and code > 0 else 1
    raise ended
