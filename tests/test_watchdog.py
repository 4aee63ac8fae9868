"""A run in which nothing moves says what it waits for, and ends."""

import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

from sentray import watchdog
from sentray.console import Console
from sentray.watchdog import StalledError, watch


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "NOTICE_SECONDS", 0.4)
    monkeypatch.setattr(watchdog, "_LOOK_SECONDS", 0.05)


@pytest.mark.usefixtures("quick")
def test_a_stall_is_noticed_ever_more_rarely_and_ends_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.expect("2 workers wanted, 1 started")
    sentence = r"nothing has moved for \d+ s: 2 workers wanted, 1 started.*--stall-timeout"
    with pytest.raises(StalledError, match=sentence), watch(console, 2):
        time.sleep(60)
    lines = capsys.readouterr().err.splitlines()
    # After 0.4, 0.8 and 1.6 s.
    assert len(lines) == 3
    assert all("2 workers wanted, 1 started" in line for line in lines)


@pytest.mark.usefixtures("quick")
def test_work_that_moves_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(progress_seconds=1000)
    with watch(console, 1):
        for _ in range(15):
            console.progress("a step")
            time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("quick")
def test_a_line_shown_again_is_no_movement() -> None:
    console = Console()

    def wait() -> None:
        for _ in range(600):
            console.progress("10 rows/s", moved=False)
            time.sleep(0.1)

    with pytest.raises(StalledError), watch(console, 1):
        wait()


@pytest.mark.usefixtures("quick")
def test_what_breaks_in_another_thread_ends_the_run() -> None:
    console = Console()
    console.failure = BrokenPipeError("nobody reads")
    with pytest.raises(BrokenPipeError, match="nobody reads"), watch(console, 0):
        time.sleep(60)


@pytest.mark.usefixtures("quick")
def test_a_notice_that_cannot_be_written_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no room")

    console = Console()
    monkeypatch.setattr(console, "note", full)
    with pytest.raises(OSError, match="no room"), watch(console, 30):
        time.sleep(60)


@pytest.mark.usefixtures("quick")
def test_zero_means_never() -> None:
    with watch(Console(), 0):
        time.sleep(1)


def test_an_interrupt_of_the_user_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), watch(Console(), 60):
        raise KeyboardInterrupt


@pytest.mark.usefixtures("ray_session", "quick")
def test_a_stall_says_what_the_cluster_has_free(capsys: pytest.CaptureFixture[str]) -> None:
    import ray

    class Holder:
        def ready(self) -> None: ...

    holder: Any = ray.remote(num_cpus=1)(Holder).remote()
    ray.get(holder.ready.remote())
    waiting = [ray.remote(num_cpus=1)(Holder).remote() for _ in range(2)]
    console = Console()
    console.expect("3 workers wanted")
    try:
        with pytest.raises(StalledError, match=r"3 workers wanted; 0 of 2 CPUs free on 1 node"), watch(console, 2):
            ray.get([worker.ready.remote() for worker in waiting])
    finally:
        for worker in (holder, *waiting):
            ray.kill(worker)


@pytest.mark.usefixtures("quick")
def test_a_program_that_calls_sentray_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 0.05)

    def ends_late() -> None:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(1)
            raise

    with pytest.raises(StalledError, match="nothing has moved"), watch(Console(), 0.5):
        ends_late()


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "lambda *_: None"])
def test_a_run_that_does_not_heed_the_interrupt_is_ended(handler: str) -> None:
    """As in the background of a script, whose shell lets its jobs ignore interrupts."""
    program = f"""
        import signal, time
        from sentray import watchdog
        from sentray.console import Console
        watchdog._GRACE_SECONDS = 0.5
        signal.signal(signal.SIGINT, {handler})
        with watchdog.watch(Console(), 1, end_process=True):
            time.sleep(60)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert done.stderr.startswith("sentray: nothing has moved for 1 s: ")
