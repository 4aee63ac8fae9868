"""The log of JSON lines: written when it is due, merged when it is many files, never over another run's."""

from pathlib import Path

from sentray.scoring import segments
from sentray.scoring.records import Record
from sentray.scoring.segments import CommitLog
from sentray.storage import Folder


def record(shard: int, rows: int = 1) -> Record:
    return Record(shard, (), None, {"rows": rows, "scored": rows, "quarantined": {}})


def test_the_log_writes_when_it_is_due(tmp_path: Path) -> None:
    now = [0.0]
    log = CommitLog(Folder(str(tmp_path)), "log", clock=lambda: now[0])
    written = lambda: len(list(tmp_path.glob("log/*")))  # noqa: E731
    log.add(record(0))
    assert written() == 0
    now[0] = 0.6
    log.flush(only_if_due=True)
    assert written() == 1
    # A long run writes rarely, yet not after more than a minute.
    for now[0], files in ((1000.0, 2), (1009.0, 2), (1011.0, 3), (1e6, 4), (1e6 + 59, 4), (1e6 + 61, 5)):
        log.add(record(1))
        assert written() == files
    log.add(record(2))
    log.close()
    log.close()
    assert written() == 6
    lines = list(segments.newest_first(Folder(str(tmp_path)), "log", dict))
    assert [line["shard"] for line in lines] == [2, 1, 1, 1, 1, 1, 1, 0]


def test_two_runs_never_write_the_same_segment(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    logs = [CommitLog(folder, "log") for _ in range(2)]
    for shard, log in enumerate(logs):
        log.add(record(shard))
        log.close()
    assert sorted(line["shard"] for line in segments.newest_first(folder, "log", dict)) == [0, 1]


def test_small_segments_are_merged_and_the_last_line_stays_the_last(tmp_path: Path, monkeypatch) -> None:
    folder = Folder(str(tmp_path))
    with CommitLog(folder, "log") as log:
        for number in range(100):
            log.add(record(number % 7, number))
            log.flush()
    before = list(segments.newest_first(folder, "log", dict))
    monkeypatch.setattr(segments, "MERGED_BYTES", 4000)
    delete = Folder.delete
    monkeypatch.setattr(Folder, "delete", lambda folder, name: None)
    segments.merge(folder, "log")
    # As after a kill between: old files are still there and change nothing.
    last = {line["shard"]: line for line in reversed(list(segments.newest_first(folder, "log", dict)))}
    assert last == {line["shard"]: line for line in reversed(before)}
    monkeypatch.setattr(Folder, "delete", delete)
    segments.merge(folder, "log")
    assert list(segments.newest_first(folder, "log", dict))[:7] == before[:7]
    assert len(segments.segments(folder, "log")) < 10
    CommitLog(folder, "log").add(record(1))
