"""Compiled code is kept wherever this user alone may write."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from numba.core import config

from sentray import jit


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for compiled code in the temporary folder, where Numba finds no other."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(jit, "_finds_place", lambda: bool(config.CACHE_DIR))
    return tmp_path / f"sentray-compiled-{os.getuid()}"


def test_the_temporary_folder_is_taken_where_there_is_no_other(temporary: Path) -> None:
    assert jit.caches()
    assert str(temporary) == config.CACHE_DIR
    assert temporary.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_write_to_is_not_trusted(temporary: Path, tmp_path: Path) -> None:
    temporary.mkdir()
    temporary.chmod(0o777)
    assert not jit.caches()
    temporary.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    temporary.symlink_to(tmp_path / "elsewhere")
    assert not jit.caches()
    assert not config.CACHE_DIR


def test_without_any_place_a_verb_works_and_says_so(tmp_path: Path) -> None:
    program = (
        "import numba.core.caching as caching, tempfile\n"
        "caching.CacheImpl._locator_classes = []\n"
        "tempfile.tempdir = '/nowhere'\n"
        "from sentray import api\n"
        "import sentray.inference.predict as p, sentray.corpus.duplicates as d\n"
        "import pyarrow as pa\n"
        "assert len(d.hash_texts(pa.array(['a'], pa.large_string()))) == 1\n"
        "p.predict = lambda settings, console: []\n"
        "from sentray.console import Console\n"
        "api.run(api.VERBS['predict'], api.VERBS['predict'].settings(bundle='b', text='t'), Console())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.startswith("compiled code can be kept nowhere")
