"""A job whose driver is killed at any moment goes on where it was; two at once are refused."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.bundle import Bundle

FILES = 24

Start = Callable[[Path], "subprocess.Popen[str]"]

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, make_reviews) -> Path:
    """Files of a megabyte, a shard each, with a row in each that cannot be scored."""
    folder = tmp_path_factory.mktemp("large")
    texts = [text * 100 for text in make_reviews(60)]
    for file in range(FILES):
        table = pa.table({"id": [f"{file}-{row}" for row in range(61)], "text": [*texts[file:], None, *texts[:file]]})
        pq.write_table(table, folder / f"{file:02}.parquet", compression="none", use_dictionary=False)
    return folder


@pytest.fixture
def start(small_bundle: Bundle, large: Path, tmp_path: Path) -> Start:
    """Starts `sentray score` on the session's Ray, in a process of its own."""
    import ray

    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}

    def run(out: Path) -> "subprocess.Popen[str]":
        options = ["--workers", "2", "--max-bad-rows", "0.1", "--rows-per-file", "300"]
        return subprocess.Popen(
            [sys.executable, "-m", "sentray", "score", str(small_bundle.path), str(large), "--out", str(out), *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return run


@pytest.mark.parametrize("wanted_kills", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_a_driver_killed_at_random_moments_loses_nothing(
    start: Start, large: Path, tmp_path: Path, proved, wanted_kills: int
) -> None:
    began = time.monotonic()
    output, _ = start(tmp_path / "undisturbed").communicate(timeout=120)
    seconds = time.monotonic() - began
    assert "rows in" in output
    wanted = proved(tmp_path / "undisturbed", large)
    assert wanted.num_rows == 60 * FILES

    chance, jobs, kills, resumed = random.Random(17), 0, 0, 0
    while kills < wanted_kills:
        out = tmp_path / f"out{jobs}"
        run = start(out)
        if kills % 4:
            # When it has begun to write, and a little later.
            written = _written(out)
            while run.poll() is None and _written(out) == written:
                time.sleep(0.01)
            moment = chance.uniform(0, 0.2)
        else:
            # While it starts, too.
            moment = chance.uniform(0.2, 1) * seconds
        try:
            output, _ = run.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            output, _ = run.communicate()
            kills += 1
        resumed += bool(re.search(r"shards, [1-9]\d* of them committed before", output))
        if run.returncode < 0:
            continue
        assert run.returncode == 0, output
        assert proved(out, large).equals(wanted)
        jobs += 1
    output, _ = start(out).communicate(timeout=120)
    assert "rows in" in output
    assert proved(out, large).equals(wanted)
    # The kills came while there was something to lose.
    assert resumed >= wanted_kills / 4


def test_ctrl_c_ends_cleanly_and_says_how_to_go_on(start: Start, large: Path, tmp_path: Path, proved) -> None:
    out = tmp_path / "out"
    run = start(out)
    while run.poll() is None and len(_written(out)) < FILES / 4:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output + Path(f"{out}.log").read_text()
    assert output.splitlines()[-1] == "sentray: interrupted; the same command goes on from here"
    assert not (out / "_sentray" / "lease.json").exists()
    assert list((out / "_sentray" / "ledger").iterdir())
    output, _ = start(out).communicate(timeout=120)
    assert proved(out, large).num_rows == 60 * FILES


def test_the_second_of_two_runs_is_refused(start: Start, large: Path, tmp_path: Path, proved) -> None:
    runs = [start(tmp_path / "out") for _ in range(2)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1]
    (refused,) = (output for run, output in zip(runs, outputs, strict=True) if run.returncode)
    assert "is being written by another run" in refused
    assert proved(tmp_path / "out", large).num_rows == 60 * FILES


def _written(out: Path) -> set[str]:
    staged = out / "_sentray" / "staged"
    return {path.name for path in staged.iterdir()} if staged.is_dir() else set()
