"""Fixtures shared by the whole run: one local Ray, three raylets, and the real data where it can be had."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentray.console import Console

SHARED = Path(__file__).resolve().parents[2] / "shared"

if "NLTK_DATA" not in os.environ and (SHARED / "nltk_data").is_dir():
    os.environ["NLTK_DATA"] = str(SHARED / "nltk_data")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background jobs ignore it, and so would the processes that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# First, since what divides the tests among processes reads the marks as soon as it comes to its own.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Keep what shares something in one process: the whole run's Ray session or raylets, or a file's own fixtures."""
    for item in items:
        shared = [fixture for fixture in ("ray_session", "raylets") if fixture in item.fixturenames]
        item.add_marker(pytest.mark.xdist_group(shared[0] if shared else str(item.path)))


class Recorder(Console):
    """A console that keeps its lines, and what it shows of the progress with the share done."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.shown: list[tuple[str, float | None]] = []

    def say(self, line: str = "") -> None:
        self.lines.append(line)

    def progress(self, line: str, share: float | None = None, *, moved: bool = True) -> None:
        self.shown.append((line, share))


@pytest.fixture
def console() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"the folder of real data {SHARED} is not here")
    return SHARED


@pytest.fixture(scope="session")
def nltk_polarity() -> str:
    from sentray import nltk_data

    if nltk_data.find("corpora/movie_reviews") is None:
        pytest.skip("NLTK's movie_reviews is not here; set NLTK_DATA to a folder that holds it")
    return "nltk:movie_reviews"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    from sentray import cluster

    with cluster.connect(address=None, cpus=2):
        yield


class Raylets:
    """A Ray cluster of three raylets with a CPU each, and more or fewer of them later.

    Attributes:
        address: Of its head.
        client: Environment of a process that may reach it.
        processes: Of the raylets, the head's first; a driver connects to the head's.
        count: How many there were at first.
    """

    def __init__(self) -> None:
        self.client = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.client |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        # Ray's own switch for staying on the loopback address; a lost raylet is missed after 5 s and not after 15.
        self.client |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_health_check_period_ms": "1000"}
        self._holder = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("raylets.py")],
            env=self.client,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started = json.loads(self._answer())
        self.address: str = started["address"]
        self.processes: list[int] = started["processes"]
        self.count = len(self.processes)

    def sentray(self, *words: object) -> list[str]:
        """The command that does something on this cluster, to be run with the environment `client`."""
        return [sys.executable, "-m", "sentray", *map(str, words), "--address", self.address]

    def alone(self, folder: Path, *words: object) -> "subprocess.CompletedProcess[str]":
        """Run sentray where a folder is a disk of its own, which the nodes do not see; in it lies a file in.csv."""
        if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
            pytest.skip("this user may not mount anything")
        script = 'mount -t tmpfs tmpfs "$0" && printf "id,text,label\n1,good,1\n2,bad,0\n" > "$0/in.csv" && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", script, str(folder), *self.sentray(*words)]
        return subprocess.run(command, env=self.client, capture_output=True, text=True, timeout=120)

    def kill(self) -> None:
        """Lose the machine that came last: the raylet, and with it all that it runs."""
        os.kill(self.processes.pop(), signal.SIGKILL)

    def add(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.write("\n")
        self._holder.stdin.flush()
        self.processes.append(int(self._answer()))

    def close(self) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(timeout=60)

    def _answer(self) -> str:
        assert self._holder.stdout is not None
        return self._holder.stdout.readline()


@pytest.fixture(scope="session")
def raylets_of_session() -> Iterator[Raylets]:
    raylets = Raylets()
    try:
        yield raylets
    finally:
        raylets.close()


@pytest.fixture
def raylets(raylets_of_session: Raylets) -> Iterator[Raylets]:
    """Three raylets for each test, of a cluster that all tests share."""
    yield raylets_of_session
    while len(raylets_of_session.processes) < raylets_of_session.count:
        raylets_of_session.add()
