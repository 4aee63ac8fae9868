"""Input that cannot be read and output that cannot be written: the rest is scored, and the job goes on when mended."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.scoring import job

AS_NOBODY = """
import contextlib, os, sys
import sentray.cli
# A first refusal loads all there is to load, which may lie where only root can read.
with contextlib.suppress(SystemExit):
    sentray.cli.main([*sys.argv[1:-1], "file:///dev/null/out"])
if os.geteuid() == 0:
    os.seteuid(65534)
sentray.cli.main(sys.argv[1:])
"""
"""The command line without root's right to write everywhere."""

pytestmark = pytest.mark.usefixtures("ray_session", "a_shard_a_file", "light")


def test_truncated_and_empty_files_are_set_aside_and_the_others_scored(score, out: Path, reviews: Path, proved) -> None:
    score(out=out.parent / "undisturbed")
    wanted = proved(out.parent / "undisturbed", reviews).to_pylist()
    content = (reviews / "part2.parquet").read_bytes()
    (reviews / "part2.parquet").write_bytes(content[: len(content) // 2])
    (reviews / "part4.parquet").touch()
    with pytest.raises(SentrayError, match=r"MB of .*reviews are in files that cannot be read") as error:
        score()
    assert "\n" not in str(error.value)
    assert not (out / "summary.json").exists()

    summary = score(max_bad_rows=0.5)
    assert summary["quarantined"] == {"unreadable_file": 2, "null_text": 1}
    assert summary["unread_bytes"] == len(content) // 2
    assert _unreadable(out) == [("part2.parquet", 1), ("part4.parquet", 1)]
    # The damaged file held the rows 152 to 227.
    assert proved(out, reviews).to_pylist() == [row for row in wanted if not 152 <= int(row["id"][1:]) < 228]


def test_rows_before_the_damage_are_scored(score, out: Path, tmp_path: Path, make_reviews, proved) -> None:
    # So much that several megabytes come before the damage: what is read at once with it is lost too.
    lines = [json.dumps({"id": str(row), "text": 30 * text}) for row, text in enumerate(make_reviews(3000))]
    folder = tmp_path / "packed"
    folder.mkdir()
    for name, chosen in (("a.jsonl.gz", lines[:2000]), ("b.jsonl.gz", lines[2000:])):
        (folder / name).write_bytes(gzip.compress("\n".join(chosen).encode()))
    score(input=folder, out=tmp_path / "undisturbed")
    wanted = proved(tmp_path / "undisturbed", folder).to_pylist()
    content = (folder / "a.jsonl.gz").read_bytes()
    (folder / "a.jsonl.gz").write_bytes(content[: len(content) // 2])

    summary = score(input=folder, max_bad_rows=0.9)
    ((name, first_lost),) = _unreadable(out)
    assert (name, 100 < first_lost < 1900) == ("a.jsonl.gz", True)
    assert summary["rows_scored"] == first_lost - 1 + 1000
    assert proved(out, folder).to_pylist() == wanted[: first_lost - 1] + wanted[2000:]


def test_a_file_that_vanishes_after_planning_is_set_aside(
    score, out: Path, reviews: Path, proved, console, monkeypatch
) -> None:
    score(out=out.parent / "undisturbed")
    wanted = proved(out.parent / "undisturbed", reviews).to_pylist()
    with monkeypatch.context() as patch:
        _move_when_planned(console, patch, [reviews / "part1.parquet"], out.parent)
        score(max_bad_rows=0.5)
    assert _unreadable(out) == [("part1.parquet", 1)]
    assert proved(out, reviews).to_pylist() == [row for row in wanted if not 76 <= int(row["id"][1:]) < 152]
    # From now on the input is another than the plan's.
    with pytest.raises(SentrayError, match=r"part1\.parquet is gone"):
        score()


def test_a_file_that_changes_while_it_is_scored_is_told(score, reviews: Path, monkeypatch) -> None:
    usual = job.ShardScorer

    class Meddler(usual):
        def score(self, task):
            os.utime(reviews / "part3.parquet", ns=(1, 1))
            return super().score(task)

    monkeypatch.setattr(job, "ShardScorer", Meddler)
    with pytest.raises(SentrayError, match=r"part3\.parquet has changed while .* was scored"):
        score()


def test_half_of_the_files_that_vanish_are_not_passed_over(
    score, out: Path, reviews: Path, proved, console, monkeypatch
) -> None:
    # All files make one shard.
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1_000_000)
    with monkeypatch.context() as patch:
        _move_when_planned(console, patch, [reviews / "part1.parquet", reviews / "part2.parquet"], out.parent)
        with pytest.raises(
            SentrayError, match=r"MB of .*reviews are in files.*put the files back as they were and run"
        ):
            score()
    for name in ("part1.parquet", "part2.parquet"):
        shutil.move(out.parent / name, reviews / name)
    # The sentence is true.
    assert score()["quarantined"] == {"null_text": 2, "empty_text": 2}
    assert proved(out, reviews).num_rows == 300


def test_what_could_not_be_read_is_scored_when_it_is_back(
    score, out: Path, reviews: Path, proved, console, monkeypatch
) -> None:
    lines = pq.read_table(reviews / "part3.parquet").to_pylist()
    # Its id is also in the file that vanishes, and so this row must give way when that one is back.
    lines[0]["id"] = "r80"
    pq.write_table(pa.Table.from_pylist(lines), reviews / "part3.parquet")
    score(out=out.parent / "undisturbed")
    with monkeypatch.context() as patch:
        _move_when_planned(console, patch, [reviews / "part1.parquet"], out.parent)
        # All shards are committed when the job stops.
        patch.setattr("sentray.scoring.job.compact", lambda *given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            score(max_bad_rows=0.5)
    shutil.move(out.parent / "part1.parquet", reviews / "part1.parquet")
    assert score()["quarantined"] == {"null_text": 2, "empty_text": 2, "duplicate_id": 1}
    assert proved(out, reviews).equals(proved(out.parent / "undisturbed", reviews))


def test_a_committed_file_that_cannot_lend_its_ids_stops_the_job(
    score, out: Path, reviews: Path, proved, console, monkeypatch
) -> None:
    score(out=out.parent / "undisturbed")
    usual = job.Run._committed

    def stop(run: job.Run, record: object) -> None:
        usual(run, record)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job.Run, "_committed", stop)
        with pytest.raises(KeyboardInterrupt):
            score()
    committed = min(int(path.name[5:11]) for path in (out / "scores").iterdir())
    file = reviews / f"part{committed}.parquet"
    with monkeypatch.context() as patch:
        _move_when_planned(console, patch, [file], out.parent)
        with pytest.raises(SentrayError, match=rf"^{file.name} was scored and cannot be read now.*the same command"):
            score(max_bad_rows=0.5)
    shutil.move(out.parent / file.name, file)
    score()
    assert proved(out, reviews).equals(proved(out.parent / "undisturbed", reviews))


def test_a_file_beside_one_that_was_set_aside_must_lend_its_ids_too(
    score, out: Path, reviews: Path, console, monkeypatch
) -> None:
    # All files make one shard, which stays as it is once it is compacted.
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1_000_000)
    (reviews / "part2.parquet").write_bytes(b"damaged")
    score(max_bad_rows=0.5, rows_per_file=1000)
    shutil.copy(reviews / "part1.parquet", reviews / "part5.parquet")
    with monkeypatch.context() as patch:
        _move_when_planned(console, patch, [reviews / "part1.parquet"], out.parent)
        with pytest.raises(SentrayError, match=r"^part1\.parquet was scored and cannot be read now"):
            score(max_bad_rows=0.5, rows_per_file=1000, new_input=True)
    shutil.move(out.parent / "part1.parquet", reviews / "part1.parquet")
    assert score(max_bad_rows=0.5, rows_per_file=1000)["quarantined"]["duplicate_id"] == 75


def _move_when_planned(console, patch: pytest.MonkeyPatch, files: list[Path], to: Path) -> None:
    def say(line: str = "") -> None:
        if "committed before" in line:
            for file in files:
                if file.exists():
                    shutil.move(file, to / file.name)

    patch.setattr(console, "say", say)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs rights that this user has not")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("room", [0, 12, 24, 36])
def test_a_full_disk_stops_the_job_and_nothing_is_lost(
    score, out: Path, reviews: Path, proved, small_disk: Path, room: int
) -> None:
    score(out=out.parent / "undisturbed")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((512 - 4 - room) * 1024))
    with pytest.raises(SentrayError, match=r"No space left on device.*run the same command again to go on") as error:
        score(out=small_disk / "out")
    assert "\n" not in str(error.value)
    assert not (small_disk / "out" / "summary.json").exists()
    ballast.unlink()
    score(out=small_disk / "out")
    assert proved(small_disk / "out", reviews).equals(proved(out.parent / "undisturbed", reviews))


@pytest.mark.parametrize("mode", [0o000, 0o555])
def test_an_output_folder_without_rights_is_refused_in_one_line(small_bundle: Bundle, reviews: Path, mode: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(small_bundle.path, folder / "bundle")
        shutil.copytree(reviews, folder / "reviews")
        (folder / "out").mkdir(mode=mode)
        for each in (folder, folder / "bundle", folder / "reviews"):
            each.chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, "score", "bundle", "reviews", "--out", "out"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        (folder / "out").chmod(0o777)
        assert list((folder / "out").iterdir()) == []
    assert done.returncode == 1
    _, line = done.stderr.splitlines()
    assert line.startswith("sentray: out")
    assert "cannot be" in line
    assert "ermission" in line


def _unreadable(out: Path) -> list[tuple[str, int]]:
    bad = pq.read_table(out / "quarantine.parquet").to_pylist()
    return [(row["file"], row["row"]) for row in bad if row["reason"] == "unreadable_file"]
