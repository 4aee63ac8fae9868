"""An output folder that an earlier sentray began is finished as it is; `data` holds some of commit c1454f7."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from sentray import bundle
from sentray.bundle import Bundle
from sentray.config import VerifySettings
from sentray.errors import SentrayError
from sentray.scoring.verify import verify

DATA = Path(__file__).with_name("data")
DIGEST = "e" * 64
REFERENCE = {"lengths": [1] * 25, "known": [1] * 7, "words": None, "scores": None, "labels": None}
REFERENCE |= {"rows": 1, "scored_rows": 0, "of": {}}

pytestmark = pytest.mark.usefixtures("ray_session", "light")


@pytest.fixture
def go_on(score: Callable[..., Any], small_bundle: Bundle, out: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Gives the same command again; scores follow from the texts' lengths, as they did then."""
    metrics = {"reference": REFERENCE}
    monkeypatch.setattr(bundle, "load", lambda source, trusted: replace(small_bundle, digest=DIGEST, metrics=metrics))
    # The run that was killed renews its lease no more.
    monkeypatch.setattr("sentray.lease.STALE_SECONDS", 0.01)

    def run(name: str | None, **changes: Any) -> Any:
        if name is not None:
            shutil.copytree(DATA / name, out)
        return score(input="synthetic:5000", shard_size=1, **changes)

    return run


def scores(folder: Path) -> pa.Table:
    return ds.dataset(folder / "scores").to_table()


def test_a_finished_one_is_finished(go_on: Any, out: Path, console) -> None:
    summary = go_on("finished")
    assert summary == json.loads((DATA / "finished/summary.json").read_text())
    assert "nothing to do" in console.lines[-1]
    with pytest.raises(SentrayError, match=r"^drift is not known: an earlier version .* \(--fail-on-drift\)$"):
        go_on(None, fail_on_drift=True)
    verify(VerifySettings(directory=str(out), input="synthetic:5000"), console)


@pytest.mark.parametrize(
    ("name", "changes", "committed"), [("halfway", {}, 1), ("compacting", {"rows_per_file": 2000}, 4)]
)
def test_one_that_was_killed_is_finished(
    go_on: Any, out: Path, console, name: str, changes: dict[str, Any], committed: int
) -> None:
    summary = go_on(name, **changes)
    assert any(f"4 shards, {committed:,} of them committed before" in line for line in console.lines)
    assert summary["rows"] == 5000
    # The shards that were there did not count lengths.
    assert summary["drift"] is None
    assert any(line.startswith("drift is not known: an earlier version scored a part") for line in console.lines)
    verify(VerifySettings(directory=str(out), input="synthetic:5000"), console)
    assert scores(out).equals(scores(DATA / "finished"))
