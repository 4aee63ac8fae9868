"""Compiled code is kept where it can be, and works where it cannot."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import sentray

USE = "from sentray.text.characters import tag_end; from sentray.text.simd import *; import sentray.text.simd as s; "
USE += "assert tag_end(0, 0) == 0; print(s.CACHED, s.CACHE_NOTE)"


@pytest.fixture
def hardened(tmp_path: Path) -> dict[str, str]:
    """The environment of a container whose packages and home cannot be written, not even by root."""
    package = tmp_path / "packages/sentray"
    shutil.copytree(Path(sentray.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "text/__pycache__").write_bytes(b"")
    (tmp_path / "tmp").mkdir()
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache", "NUMBA_CACHE_DIR": "/dev/null/numba"}
    places = {"PYTHONPATH": str(package.parent), "TMPDIR": str(tmp_path / "tmp")}
    return {**os.environ, **nowhere, **places, "PYTHONDONTWRITEBYTECODE": "1"}


def used(environment: dict[str, str], cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", USE], env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_temporary_folder_keeps_compiled_code(hardened: dict[str, str], tmp_path: Path) -> None:
    kept = tmp_path / f"tmp/sentray-compiled-{os.getuid()}"
    assert used(hardened, tmp_path).startswith(f"True compiled code is kept in {kept}")
    assert kept.stat().st_mode & 0o777 == 0o700
    assert list(kept.rglob("*.nbi"))


def test_a_folder_that_others_may_write_is_not_taken(hardened: dict[str, str], tmp_path: Path) -> None:
    foreign = tmp_path / f"tmp/sentray-compiled-{os.getuid()}"
    foreign.mkdir()
    foreign.chmod(0o777)
    assert used(hardened, tmp_path).startswith("False compiled code cannot be kept")
    assert not list(foreign.iterdir())
