"""`sentray bench driver`: how many shards a second a scoring job's driver commits when its workers return at once.

What the workers write is there before the clock starts: small files, since a move takes as long whatever their size.
"""

import http.client
import logging
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from sentray import cluster
from sentray.bench import processes
from sentray.bench.settings import BenchDriverSettings
from sentray.config import ScoreSettings
from sentray.console import Console
from sentray.corpus.source import Source, resolve
from sentray.corpus.splits import ShardPlan
from sentray.errors import SentrayError
from sentray.scoring.columns import output_schema
from sentray.scoring.job import Run
from sentray.scoring.output import MAX_MOVES, Attempt, Columns, Commits, Header, OutputFolder, Record
from sentray.scoring.parts import ATTEMPTS, Part, part_name
from sentray.scoring.stats import Counts, Stats
from sentray.scoring.worker import Job, Task
from sentray.storage import locate

DIGEST = "0" * 64
CONTENT = b"scores"
WORKERS = 2
_SHARD_SIZE, _SHARD_ROWS = 1_000_000, 1333
"""Generated reviews are planned in shards of so many rows."""


class InstantScorer:
    """Takes the place of a `ShardScorer`: what it gives is already there.

    Args:
        job: What to do.
        files: The packed bundle.
    """

    def __init__(self, job: Job, files: dict[str, bytes]) -> None:
        pass

    def score(self, task: Task) -> Attempt:
        """The attempt of a shard."""
        return _attempt(task.shard.index)


def _attempt(shard: int) -> Attempt:
    part = Part(part_name(shard, DIGEST), _SHARD_ROWS, len(CONTENT), "0" * 64)
    counts = Counts(_SHARD_ROWS, _SHARD_ROWS, {}, {"neg": 600, "pos": 733}, bytes=_SHARD_SIZE, seconds=0.001)
    return Attempt(Record(shard, (part,), None, counts), (_name(shard),))


def _name(shard: int) -> str:
    return f"{ATTEMPTS}/{shard:06d}"


def bench_driver(settings: BenchDriverSettings, console: Console) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The figures with stable keys; what was not measured is missing.

    Raises:
        SentrayError: The disk cannot be written, or moto is missing.
    """
    processes.require_own_ray()
    figures: dict[str, Any] = {"cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory(prefix="sentray-bench-") as folder:
        with cluster.connect(None, cpus=WORKERS, verbose=settings.verbose):
            console.progress("shards on a local disk")
            figures["local_shards_per_s"] = _rate(f"{folder}/out", settings.shards)
            if settings.remote_shards:
                console.progress("shards on a loopback S3 server")
                figures |= _remote(settings.remote_shards)
        if settings.memory_shards:
            console.progress(f"a plan of {settings.memory_shards:,} shards")
            figures["memory"] = processes.run("the memory of a plan", _memory, f"{folder}/plan", settings.memory_shards)
    _show(figures, console)
    return figures


def _show(figures: dict[str, Any], console: Console) -> None:
    rows = [["a local disk", round(figures["local_shards_per_s"]), "-", "-"]]
    if "remote_shards_per_s" in figures:
        remote, bare = figures["remote_shards_per_s"], figures["bare_moves_per_s"]
        requests = f"{figures['requests_per_shard']:.2f}"
        rows.append(["a loopback S3 server", round(remote), requests, f"{remote / bare:.0%}"])
        rows.append(["its copies and deletions alone", round(bare), "2.00", "100%"])
    console.table(["committed by one driver on", "shards/s", "requests a shard", "of the server's rate"], rows)
    if "memory" in figures:
        console.say()
        console.table(["shards committed", "driver's MB"], [[row["shards"], row["mb"]] for row in figures["memory"]])


@contextmanager
def _job(uri: str, shards: int) -> Iterator[tuple[OutputFolder, Source, ShardPlan, Callable[[Console], Run]]]:
    """A job of so many shards with nothing done yet: its folder, its input, its plan, and what works on it."""
    source = resolve(f"synthetic:{shards * _SHARD_ROWS}")
    settings = ScoreSettings(bundle="", input=source.uri, out=uri, workers=WORKERS)
    schema = output_schema(("neg", "pos"), pa.schema([]), DIGEST)
    header = Header(DIGEST, "folded", source.uri, _SHARD_SIZE, Columns("text", "id"), dict.fromkeys(schema.names, ""))
    out = OutputFolder(uri)
    with out.lease() as lease:
        plan = out.open(header, source)
        job = Job(source.lean(), settings, schema, "folded", DIGEST)
        yield out, source, plan, lambda console: Run(job, out, plan, Stats(plan, settings), lease, console)


def _rate(uri: str, shards: int, before: Callable[[], None] = lambda: None) -> float:
    """Shards that a driver commits a second, once its workers have started."""
    with _job(uri, shards) as (out, source, _, run):
        _make_attempts(uri, shards)
        before()
        speed = run(Console()).work(InstantScorer, {}, source)
        if sum(1 for _ in out.records()) != shards:
            raise SentrayError(f"the driver did not commit {shards:,} shards to {uri}")
    return float(shards / speed["seconds"])


def _make_attempts(uri: str, shards: int) -> None:
    filesystem, root = locate(uri)

    def put(shard: int) -> None:
        with filesystem.open_output_stream(f"{root}/{_name(shard)}") as stream:
            stream.write(CONTENT)

    filesystem.create_dir(f"{root}/{ATTEMPTS}")
    with ThreadPoolExecutor(MAX_MOVES) as threads:
        list(threads.map(put, range(shards)))


def _remote(shards: int) -> dict[str, Any]:
    """The same on a loopback S3 server, how many requests that took, and how many moves it can do at all."""
    with _server() as (port, requests):
        query = f"endpoint_override=127.0.0.1%3A{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
        locate(f"s3://user:secret@bench?{query}")[0].create_dir("bench")
        before: list[int] = []
        rate = _rate(f"s3://user:secret@bench/out?{query}", shards, lambda: before.append(requests.value))
        return {
            "remote_shards_per_s": rate,
            "requests_per_shard": (requests.value - before[0]) / shards,
            "bare_moves_per_s": _bare_rate(port, shards),
        }


def _bare_rate(port: int, files: int) -> float:
    """Files that are copied and deleted a second by as many connections as a driver uses, and by nothing else."""
    local = threading.local()

    def request(method: str, path: str, body: bytes = b"", copied: str = "") -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", port)
        # moto asks for no signature, only for the account in one.
        account = "AWS4-HMAC-SHA256 Credential=user/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        headers = {"Authorization": account} | ({"x-amz-copy-source": copied} if copied else {})
        local.connection.request(method, path, body, headers)
        answer = local.connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise SentrayError(f"the S3 server refuses {method} {path} ({answer.status})")

    def move(file: int) -> None:
        request("PUT", f"/bench/to/{file}", copied=f"/bench/from/{file}")
        request("DELETE", f"/bench/from/{file}")

    with ThreadPoolExecutor(MAX_MOVES) as threads:
        list(threads.map(lambda file: request("PUT", f"/bench/from/{file}", CONTENT), range(files)))
        began = time.perf_counter()
        list(threads.map(move, range(files)))
        return files / (time.perf_counter() - began)


@contextmanager
def _server() -> Iterator[tuple[int, Any]]:
    """An S3 server in a process of its own; gives its port, and the number of its requests, which grows."""
    spawn = multiprocessing.get_context("spawn")
    port, sender = spawn.Pipe(duplex=False)
    requests = spawn.Value("q")
    process = spawn.Process(target=_serve, args=(sender, requests), daemon=True)
    process.start()
    sender.close()
    try:
        yield port.recv(), requests
    except EOFError as error:
        cure = "install moto[server], or take --remote-shards 0"
        raise SentrayError(f"the loopback S3 server does not start: {cure}") from error
    finally:
        process.kill()
        process.join()


def _serve(port: Any, requests: Any) -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    app = DomainDispatcherApplication(create_backend_app)

    def counted(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        with requests:
            requests.value += 1
        return app(environ, start_response)

    # Connections are kept, and no request is logged.
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = make_server("127.0.0.1", 0, counted, threaded=True)
    port.send(server.server_port)
    server.serve_forever()


def _memory(uri: str, shards: int) -> list[dict[str, int]]:
    """A driver's memory once its plan is stored and after ever more commits, in MB; no file of a shard is moved."""
    found: list[dict[str, int]] = []

    def measure(committed: int) -> None:
        found.append({"shards": committed, "mb": int(processes.memory_mb("VmRSS"))})

    def move(attempt: str, name: str) -> None:
        if "part-" not in name:
            OutputFolder.commit_file(out, attempt, name)

    with _job(uri, shards) as (out, _, plan, _):
        out.commit_file = move  # type: ignore[method-assign]
        stats = Stats(plan, ScoreSettings(bundle="", input="", out=uri))
        with Commits(out, stats.add) as commits:
            for shard in plan:
                if shard.index in (0, shards // 100, shards // 10):
                    measure(shard.index)
                commits.add(_attempt(shard.index))
        measure(stats.committed)
    return found
