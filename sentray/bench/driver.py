"""`sentray bench driver`: how many shards a second a scoring job's driver commits when its workers return at once.

What the workers write is there before the clock starts: small files, since a move takes as long whatever their size.
"""

import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from sentray import cluster
from sentray.bench import processes
from sentray.bench.settings import BenchDriverSettings
from sentray.bench.tables import Rows, show, with_ratios
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

DRIVER = "committed by one driver"
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
        The figures; what was not measured is missing.

    Raises:
        SentrayError: The disk cannot be written, or moto is missing.
    """
    processes.require_own_ray()
    tables: dict[str, Rows] = {}
    with tempfile.TemporaryDirectory(prefix="sentray-bench-") as folder:
        with cluster.connect(None, cpus=WORKERS, verbose=settings.verbose):
            console.progress("shards on a local disk")
            tables["local disk"] = {DRIVER: _rate(f"{folder}/out", settings.shards)}
            if settings.remote_shards:
                console.progress("shards on a loopback S3 server")
                tables["loopback S3 server"] = with_ratios(_remote(settings.remote_shards), "shards_per_s")
        if settings.memory_shards:
            console.progress(f"a plan of {settings.memory_shards:,} shards")
            tables["memory of a plan"] = processes.run(
                "the memory of a plan", _memory, f"{folder}/plan", settings.memory_shards
            )
    show(console, tables)
    return {"cores": len(os.sched_getaffinity(0)), **tables}


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


def _rate(uri: str, shards: int, requests: Any = None) -> dict[str, float]:
    """Shards that a driver commits a second, once its workers have started, and the requests to a server for each."""
    with _job(uri, shards) as (out, source, _, run):
        _make_attempts(uri, shards)
        before = requests.value if requests else 0
        speed = run(Console()).work(InstantScorer, {}, source)
        asked = {"requests_per_shard": (requests.value - before) / shards} if requests else {}
        if sum(1 for _ in out.records()) != shards:
            raise SentrayError(f"the driver did not commit {shards:,} shards to {uri}")
    return {"shards_per_s": shards / speed["seconds"], **asked}


def _make_attempts(uri: str, shards: int) -> None:
    filesystem, root = locate(uri)

    def put(shard: int) -> None:
        with filesystem.open_output_stream(f"{root}/{_name(shard)}") as stream:
            stream.write(CONTENT)

    filesystem.create_dir(f"{root}/{ATTEMPTS}")
    with ThreadPoolExecutor(MAX_MOVES) as threads:
        list(threads.map(put, range(shards)))


def _remote(shards: int) -> Rows:
    """The same on a loopback S3 server, beside the copies and deletions alone, by as many threads as a driver uses."""
    import obstore

    with _server() as (port, requests):
        query = f"endpoint_override=127.0.0.1%3A{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
        locate(f"s3://user:secret@bench?{query}")[0].create_dir("bench")
        key: Any = {"access_key_id": "user", "secret_access_key": "secret", "region": "us-east-1"}
        endpoint = f"http://127.0.0.1:{port}"
        store = obstore.store.S3Store("bench", endpoint=endpoint, client_options={"allow_http": True}, **key)

        def move(shard: int) -> None:
            obstore.copy(store, f"bare/{_name(shard)}", f"bare/{shard}")
            obstore.delete(store, f"bare/{_name(shard)}")

        _make_attempts(f"s3://user:secret@bench/bare?{query}", shards)
        before, began = requests.value, time.perf_counter()
        with ThreadPoolExecutor(MAX_MOVES) as threads:
            list(threads.map(move, range(shards)))
        rate, asked = shards / (time.perf_counter() - began), (requests.value - before) / shards
        return {
            "copies and deletions alone": {"shards_per_s": rate, "requests_per_shard": asked},
            DRIVER: _rate(f"s3://user:secret@bench/out?{query}", shards, requests),
        }


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


def _memory(uri: str, shards: int) -> Rows:
    """A driver's memory once its plan is stored and after ever more commits; no file of a shard is moved."""
    found: Rows = {}

    def measure(committed: int) -> None:
        found[f"{committed:,} committed"] = {"mb": processes.memory_mb("VmRSS")}

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
