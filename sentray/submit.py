"""`submit` sends a verb to a cluster's job server: checks it here, uploads this folder, follows the log to the end."""

import asyncio
import difflib
import glob
import hashlib
import os
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from sentray import cluster, options
from sentray.config import ARGUMENT, Settings
from sentray.console import Console
from sentray.errors import SentrayError, first_line

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
RUNTIME_ENV = "jobs/runtime_env.yaml"
_END_SECONDS = 1.0
"""How often to ask for the job's status once its log has ended."""
_NAMED = 3
"""How many of the largest files a refusal names."""
READ = ("bundle", "corpus", "directory", "embedding", "glove", "input", "stop_words")
WRITTEN = ("json_file", "out")
"""Settings that may be paths."""


class SubmitSettings(Settings):
    """Run a verb as a job on a Ray cluster; follow its log and end as it ends.

    JOB is a verb with all that belongs to it, as in `sentray submit train s3://BUCKET/reviews --out /shared/model`. Its
    options are checked here. This folder travels along, but for what .rayignore and .gitignore name; the job runs the
    sentray in it, where it is a checkout, or else that of the nodes. Ctrl-C leaves the job running.
    """

    job: tuple[str, ...] = Field(description="verb, arguments and options of the job", json_schema_extra=ARGUMENT)
    address: str | None = Field(
        default=None,
        description="http://HOST:PORT of the cluster's job server; RAY_API_SERVER_ADDRESS, RAY_ADDRESS or "
        f"{DEFAULT_ADDRESS} where not given",
    )
    upload_limit: Annotated[int, Field(ge=1)] = Field(default=10, description="most to upload, in MB")
    install: bool = Field(
        default=False, description=f"install sentray with all it needs for this job on each node; see {RUNTIME_ENV}"
    )
    verbose: bool = Field(default=False, description="show what Ray prints, else it goes to the log")


class JobEndedError(SentrayError):
    """The job ended without success; `status` is that of its command where it has one."""


def submit(settings: SubmitSettings, verbs: Mapping[str, type[Settings]], console: Console) -> None:
    """Submit a job and follow it to its end.

    Args:
        settings: What to submit, and where to.
        verbs: The settings of each verb that has a job.
        console: Where the job's log goes.

    Raises:
        UsageError: The verb or its options would be refused.
        SentrayError: The upload is too large, or no job server takes the job.
        JobEndedError: The job failed or was stopped.
    """
    verb, *words = settings.job
    folder = Path.cwd()
    job = _checked(verb, words, verbs)
    files = uploaded(folder)
    _require_small(files, settings.upload_limit * 1_000_000)
    _require_reachable(job, words, files)
    environment = {"working_dir": str(folder), **(_installing() if settings.install else {})}
    client, address = _connect(settings.address)
    name = f"sentray-{verb}-{console.run}"
    try:
        client.submit_job(
            entrypoint=shlex.join(["python", "-m", "sentray", verb, *words]),
            submission_id=name,
            runtime_env=environment,
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise SentrayError(f"the job server at {address} did not take the job: {first_line(error)}") from error
    console.note(f"job {name}: {sum(files.values()) / 1e6:.1f} MB of files sent to {address}")
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


def uploaded(folder: Path) -> dict[str, int]:
    """The files that Ray sends of a working directory, by their path within it, with their bytes."""
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE
    from ray._private.runtime_env.packaging import _dir_travel

    files: dict[str, int] = {}

    def add(path: Path) -> None:
        if path.is_file():
            files[path.relative_to(folder).as_posix()] = path.stat().st_size

    _dir_travel(folder, [], add, include_gitignore=os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1")
    return files


def _checked(verb: str, words: list[str], verbs: Mapping[str, type[Settings]]) -> Settings:
    if verb not in verbs:
        near = difflib.get_close_matches(verb, verbs, n=1)
        cure = f"did you mean {near[0]}?" if near else f"take one of {', '.join(verbs)}"
        raise options.UsageError(f"no job is called {verb!r}; {cure}")
    try:
        return options.parse(verbs[verb], words)
    except options.UsageError as error:
        raise options.UsageError(f"the job {verb}: {error}") from None


def _require_small(files: Mapping[str, int], limit: int) -> None:
    size = sum(files.values())
    if size > limit:
        largest = sorted(files, key=files.__getitem__, reverse=True)[:_NAMED]
        named = ", ".join(f"{name} ({files[name] / 1e6:.1f} MB)" for name in largest)
        raise SentrayError(
            f"the job would take {size / 1e6:.1f} MB of this folder along, more than --upload-limit "
            f"{limit // 1_000_000} allows; most of it is {named}: name in .rayignore what the job does not need, or "
            "allow more"
        )


def _require_reachable(job: Settings, words: Sequence[str], files: Iterable[str]) -> None:
    """Refuse paths that mean something else where the job runs: in a copy of this folder that does not last."""
    address = getattr(job, "address", None)
    if address and "://" in address:
        raise options.UsageError(
            f"--address {address} stands before the verb where it is the job server's; the job finds its own cluster"
        )
    for option, path in _relative(job, WRITTEN).items():
        raise SentrayError(
            f"{option} {path} lies in the folder that the job runs in, a copy that does not last: give a URI, or "
            "the absolute path of a folder that the nodes share"
        )
    for option, path in _relative(job, READ, _config(words)).items():
        if not _travels(path, files):
            raise SentrayError(
                f"{option} {path} is a path of this machine that does not travel with the job: give a URI, or the "
                "absolute path of a place that the nodes share"
            )


def _relative(job: Settings, names: Sequence[str], others: Mapping[str, str] = {}) -> dict[str, str]:
    """Which of a job's settings of these names, and of others, are relative paths, by their option."""
    given = {name: getattr(job, name, None) for name in names}
    paths = {options.option_name(type(job), name): value for name, value in given.items() if value} | dict(others)
    return {option: path for option, path in paths.items() if "://" not in path and not os.path.isabs(path)}


def _config(words: Sequence[str]) -> dict[str, str]:
    """The config file that a job's words name, by its option; it is read again where the job runs."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--config" or word.startswith("--config="):
            return {"--config": word.partition("=")[2] or following}
    return {}


def _travels(path: str, files: Iterable[str]) -> bool:
    """Whether a relative path, a glob or a member of an archive goes along, as far as it is of this folder."""
    here = glob.glob(path, recursive=True) or glob.glob(path.partition("#")[0])
    sent = {parent for file in files for parent in (file, *map(str, PurePosixPath(file).parents))}
    return sent.issuperset(map(os.path.normpath, here))


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

    address = wish or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or DEFAULT_ADDRESS
    _probe(address)
    # Ray prefers its variables to the argument.
    os.environ["RAY_API_SERVER_ADDRESS"] = address
    try:
        client = JobSubmissionClient(address)
    except AuthenticationError as error:
        raise cluster.refused(f"the job server at {address}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise _unreachable(address, first_line(error)) from error
    return client, client.get_address()


def _probe(address: str) -> None:
    """Refuse an address where nobody listens: Ray would go on trying for minutes."""
    if address == "auto":
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        port = parts.port or {"https": 443}.get(parts.scheme, 80)
        cluster.require_listener(parts.hostname or "", port)
    except (OSError, ValueError) as error:
        raise _unreachable(address, str(error)) from error


def _unreachable(address: str, reason: str) -> SentrayError:
    return SentrayError(
        f"no job server answers at {address} ({reason}): start a cluster with `ray start --head`, forward the port of "
        "its dashboard (8265) to this machine, or say where it is by --address"
    )


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
