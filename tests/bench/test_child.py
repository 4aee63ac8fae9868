"""Processes of their own, on the cores they are given."""

import os
from pathlib import Path

import pytest

from sentray.bench import child
from sentray.errors import SentrayError


def test_gives_the_last_line_and_keeps_to_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import json, os, sys\nprint('noise')\nprint(json.dumps([len(os.sched_getaffinity(0)), sys.argv[1:]]))\n"
    (tmp_path / "told.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = os.sched_getaffinity(0)
    with child.on_cores(1):
        assert child.run("the test", "told", 1, tmp_path) == [1, ["1", str(tmp_path)]]
    assert os.sched_getaffinity(0) == before
    assert child.run("the test", "told") == [len(before), []]


def test_a_failure_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.py").write_text("raise ValueError('no such thing')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SentrayError, match=r"^the test failed: ValueError: no such thing$"):
        child.run("the test", "broken")
