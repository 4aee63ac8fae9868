"""The README's Python snippet runs as it stands, and the command line takes each command of the documents."""

import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from sentray import api, options

ROOT = Path(__file__).resolve().parents[1]
GOOD, BAD = "a great and moving film", "an awful and boring film"

BEFORE = """
import pyarrow.parquet as pq, ray
from tests.in_process import InProcessTrainer
from sentray.training import trainer
# Ray Train's own processes are the subject of other tests.
trainer.DataParallelTrainer = InProcessTrainer
# The snippet's pipeline has four actors of a CPU each, and Ray Data needs some to read with.
ray.init("local", num_cpus=6, include_dashboard=False, log_to_driver=False, configure_logging=False)
frame = pq.read_table("more.parquet").to_pandas()
dataset = ray.data.from_pandas(frame.rename(columns={"body": "text"})[["text"]]).repartition(4)
"""
AFTER = """
import json
labels, shares, explained, metrics, summary, reviews, scored = _
rows = reviews.take_all()
print(json.dumps({
    "labels": labels.tolist(),
    "shares": [str(shares.dtype), *shares.shape],
    "explained": [word.word for word in explained[0].words],
    "accuracy": metrics["accuracy"],
    "summary": [summary["rows"], summary["rows_scored"]],
    "read": [sorted(rows[0]), len(rows)],
    "mapped": scored.count(),
}))
"""


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An S3 server on loopback with reviews in the bucket `lake`, and the variables by which it is reached."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    store = pafs.S3FileSystem(
        access_key="user",
        secret_key="secret",
        region="us-east-1",
        endpoint_override=f"{host}:{port}",
        scheme="http",
        allow_bucket_creation=True,
    )
    store.create_dir("lake")
    pq.write_table(
        pa.table({"text": [GOOD, BAD] * 5, "label": [1, 0] * 5}), "lake/reviews/one.parquet", filesystem=store
    )
    yield {**keys, "AWS_ENDPOINT_URL_S3": f"http://{host}:{port}", "AWS_EC2_METADATA_DISABLED": "true"}
    server.stop()


def test_the_snippet_runs_as_it_stands(tmp_path: Path, lake: dict[str, str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    rows = {"review": [GOOD, BAD] * 100, "stars": [5, 1] * 100}
    for first, name in ((0, "reviews.csv"), (200, "more.csv")):
        numbered = enumerate(zip(*rows.values(), strict=True), first)
        lines = [f"{text} {number},{stars}" for number, (text, stars) in numbered]
        (tmp_path / name).write_text("\n".join(["review,stars", *lines, ""]))
    table = pa.table({"body": [GOOD, BAD] * 20, "customer": range(40)})
    (tmp_path / "warehouse").mkdir()
    for file in ("warehouse/a.parquet", "warehouse/b.parquet", "more.parquet"):
        pq.write_table(table, tmp_path / file)

    # What each line gives, the way an interactive session keeps it; the lines themselves stay as they are.
    program = textwrap.dedent(
        """
        import ast, sys
        before, snippet, after = sys.argv[1:]
        names = {"_": []}
        exec(before, names)
        for node in ast.parse(snippet).body:
            if isinstance(node, ast.Expr):
                names["_"].append(eval(compile(ast.Expression(node.value), "README.md", "eval"), names))
            else:
                exec(compile(ast.Module([node], []), "README.md", "exec"), names)
        exec(after, names)
        """
    )
    environment = {**os.environ, **lake, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, BEFORE, snippet, AFTER],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["shares"] == ["float32", 40, 2]
    assert found["explained"] == ["not", "bad", "at", "all"]
    assert found["accuracy"] > 0.9
    assert found["summary"] == [80, 80]
    assert found["read"] == [["id", "label", "split", "text"], 10]
    assert found["mapped"] == 40


ROOMS = [f"sentray/{room}/README.md" for room in ("embeddings", "reproduce", "training")]
DOCUMENTS = ["README.md", "jobs/README.md", *ROOMS, ".github/CONTRIBUTING.md"]


def commands() -> list[str]:
    """Each line of the documents' shell blocks that gives sentray something to do."""
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS)
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    jobs = [re.sub(r"^ray job submit .* -- python jobs/(\w+)\.py", r"sentray \1", line) for line in lines]
    return sorted({line for line in jobs if line.startswith("sentray ")})


def test_the_documents_have_commands() -> None:
    verbs = {command.split()[1] for command in commands()}
    assert verbs >= {"check", "train", "evaluate", "score", "verify", "predict", "embed", "words", "submit"}


@pytest.mark.parametrize("command", commands())
def test_the_command_line_takes_each_command_of_the_documents(command: str) -> None:
    _, verb, *words = shlex.split(re.split(r"\s+[#<]\s", command)[0])
    settings = options.parse(api.VERBS[verb].settings, words)
    if verb == "submit":
        verb, *words = settings.job  # type: ignore[attr-defined]
        options.parse(api.JOBS[verb], words)
