"""The output folder: files appear whole, what a killed run left is cleaned up, other jobs are refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from sentray.errors import SentrayError
from sentray.scoring.ledger import Ledger, Plan

PLAN = Plan(
    bundle="b" * 64,
    input="reviews.csv",
    files=[["reviews.csv", 10, 1]],
    shards=[{"index": 0}, {"index": 1}],
    columns={"keep": []},
    schema={"id": "string"},
)


def commit(ledger: Ledger, shard: int) -> None:
    part = ledger.part(shard, PLAN.bundle)
    ledger.write(part, b"scores")
    ledger.commit(shard, {"shard": shard, "part": part})


def test_remembers_what_is_committed_and_still_there(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"))
    ledger.open(PLAN)
    for shard in (0, 1):
        commit(ledger, shard)
    (tmp_path / "out" / ledger.part(1, PLAN.bundle)).unlink()
    again = Ledger((tmp_path / "out").as_uri() + "/")
    again.open(PLAN)
    assert list(again.committed()) == [0]
    assert again.summary() is None


def test_cleans_up_after_a_kill_and_touches_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "_sentray").mkdir(parents=True)
    halves = [out / "_sentray" / f".plan.json.{'0' * 32}", out / f".summary.json.{'a' * 32}"]
    halves[0].write_text("{")
    Ledger(str(out)).open(PLAN)
    halves[1].write_text("{")
    (out / ".gitignore").write_text("*")
    Ledger(str(out)).open(PLAN)
    assert not any(half.exists() for half in halves)
    assert (out / ".gitignore").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bundle": "c" * 64}, "was made by another bundle"),
        ({"input": "other.csv"}, r"from the input reviews\.csv, and other\.csv is not the same now;"),
        ({"files": [["reviews.csv", 10, 2]]}, r"reviews\.csv has changed"),
        ({"files": [["more.csv", 1, 1], ["reviews.csv", 10, 1]]}, r"more\.csv is new"),
        ({"files": []}, r"reviews\.csv is gone"),
        ({"shards": [{"index": 0}]}, "another --shard-size"),
        ({"columns": {"keep": ["x"]}}, "other columns"),
    ],
)
def test_refuses_another_job(tmp_path: Path, change: dict, message: str) -> None:
    ledger = Ledger(str(tmp_path / "out"))
    ledger.open(PLAN)
    Ledger(str(tmp_path / "out")).open(replace(PLAN, **change))
    ledger.open(PLAN)
    # Until a shard is written there is nothing to mix up; from then on there is.
    ledger.write(ledger.part(0, PLAN.bundle), b"")
    with pytest.raises(SentrayError, match=message):
        Ledger(str(tmp_path / "out")).open(replace(PLAN, **change))


def test_says_what_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SentrayError, match=r"summary\.json cannot be written"):
        Ledger(str(tmp_path / "file")).write_summary({})
    with pytest.raises(SentrayError, match="cannot be reached"):
        Ledger("wrong://x")


def test_refuses_a_damaged_plan(tmp_path: Path) -> None:
    Ledger(str(tmp_path)).open(PLAN)
    (tmp_path / "_sentray" / "plan.json").write_text("{")
    with pytest.raises(SentrayError, match=r"plan\.json cannot be read"):
        Ledger(str(tmp_path)).open(PLAN)
