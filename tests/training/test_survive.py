"""Training on three raylets, with one of them lost, the driver lost, and a full object store."""

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sentray.training.run import work_folder

SECONDS = 240

FILLER = """
import sys
import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.init(sys.argv[1], log_to_driver=False)


@ray.remote(num_cpus=0)
class Hoard:
    def fill(self):
        self.kept = [ray.put(np.zeros(9 * 2**20, np.uint8)) for _ in range(11)]


hoards = [
    Hoard.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote()
    for node in ray.nodes()
    if node["Alive"]
]
ray.get([hoard.fill.remote() for hoard in hoards])
print("full", flush=True)
sys.stdin.read()
"""


class Run:
    """A process whose output is followed.

    Attributes:
        lines: What it printed so far.
    """

    def __init__(self, command: list[str], environment: dict[str, str], **options: Any) -> None:
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def until(self, text: str) -> None:
        """Wait for a line that holds the text."""
        self._read(lambda line: text in line)
        assert text in self.lines[-1], "\n".join(self.lines)

    def end(self) -> int:
        self._read(lambda line: False)
        return self.process.wait(timeout=SECONDS)

    def _read(self, enough: Any) -> None:
        deadline = time.monotonic() + SECONDS
        while (line := self._queue.get(timeout=max(deadline - time.monotonic(), 0))) is not None:
            self.lines.append(line)
            if enough(line):
                return

    def saw(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@contextmanager
def running(command: list[str], environment: dict[str, str], **options: Any) -> Iterator[Run]:
    run = Run(command, environment, **options)
    try:
        yield run
    finally:
        run.process.kill()
        run.process.wait()


def train(raylets, out: Path, *words: object):
    return running(
        raylets.sentray("train", "synthetic:300", "--out", out, "--epochs", EPOCHS, *ALL, *words), raylets.client
    )


EPOCHS = 30
ALL = ("--validation-fraction", "0")


def wait_for_a_checkpoint(run: Run, out: Path) -> None:
    snapshot = Path(work_folder(str(out)), "train", "checkpoint_manager_snapshot.json")
    deadline = time.monotonic() + SECONDS
    while not snapshot.exists():
        assert run.process.poll() is None, "\n".join(run.lines)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def epochs(out: Path) -> list[int]:
    return [epoch["epoch"] for epoch in json.loads((out / "history.json").read_text())]


@pytest.mark.slow
def test_a_range_of_workers_survives_a_lost_machine(raylets, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with train(raylets, out, "--workers", "1:3") as run:
        run.until("training with 3 workers of 1:3")
        wait_for_a_checkpoint(run, out)
        raylets.kill()
        run.until("1 training worker lost")
        run.until("training with 2 workers of 1:3")
        run.until("going on after epoch")
        assert run.end() == 0, "\n".join(run.lines)
    assert epochs(out) == list(range(1, EPOCHS + 1))
    assert json.loads((out / "settings.json").read_text())["workers"] == "1:3"


@pytest.mark.slow
def test_a_run_survives_full_object_stores_and_a_killed_driver(raylets, tmp_path: Path) -> None:
    out = tmp_path / "model"
    filler, both = [sys.executable, "-c", FILLER, raylets.address], ("--model", "wide-deep")
    with running(filler, raylets.client, stdin=subprocess.PIPE) as hoard:
        hoard.until("full")
        with train(raylets, out, "--workers", "1:3", *both) as run:
            run.until("training with 3 workers of 1:3")
            wait_for_a_checkpoint(run, out)
            os.kill(run.process.pid, signal.SIGKILL)
    # What the killed run had reserved would be free after three minutes.
    with train(raylets, out, "--workers", "1:3", "--stall-timeout", 150, *both) as run:
        run.until("training with 3 workers of 1:3")
        run.until("going on after epoch")
        assert run.end() == 0, "\n".join(run.lines)
    assert "the corpus is prepared already: going on with it" in run.lines
    assert epochs(out) == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_a_fixed_number_of_workers_waits_for_another_machine(raylets, tmp_path: Path) -> None:
    out = tmp_path / "model"
    with train(raylets, out, "--workers", 3) as run:
        wait_for_a_checkpoint(run, out)
        raylets.kill()
        run.until("1 training worker lost")
        raylets.add()
        run.until("training with 3 workers")
        run.until("going on after epoch")
        assert run.end() == 0, "\n".join(run.lines)
    assert epochs(out) == list(range(1, EPOCHS + 1))


def test_a_corpus_that_the_nodes_do_not_see_is_refused(raylets, tmp_path: Path) -> None:
    here, out = tmp_path / "here", tmp_path / "model"
    here.mkdir()
    done = raylets.alone(here, "train", here / "in.csv", "--out", out)
    assert done.returncode == 1
    refusal = (
        rf"^sentray: the corpus {here}/in.csv is of this machine, and \d nodes? of the cluster \(127.0.0.1\) cannot see"
    )
    assert re.search(refusal, done.stderr, re.MULTILINE), done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"here", "model.log"}
