"""An output folder from an untrusted source goes on and is verified, or gives one sentence; nothing else is touched."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import lease
from sentray.config import ScoreSettings, VerifySettings
from sentray.console import Console
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.scoring.compaction import compact, compact_quarantine
from sentray.scoring.output import LEDGER, Columns, Header, Log, OutputFolder, Record
from sentray.scoring.parts import Part, part_name
from sentray.scoring.stats import Counts, Stats
from sentray.scoring.verify import verify

DIGEST = "b" * 64
SCHEMA = pa.schema([("id", pa.string()), ("label", pa.string()), ("score", pa.float32())], {"sentray.bundle": DIGEST})
COUNTS = Counts(1, 1, {}, {"pos": 1}, [1] + [0] * 19, words=3, known_words=2, bytes=5, seconds=0.1, peak_rss_mb=100.0)


class Quiet(Console):
    def say(self, line: str = "") -> None:
        json.dumps(line)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """An input, and the files of a finished output of it."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "in").mkdir()
    for name in "ab":
        (folder / "in" / f"{name}.csv").write_text("id,text\n1,good\n2,\n")
    files: dict[str, bytes] = {}
    for rows_per_file, name in ((None, "plain"), (1, "compacted")):
        out = OutputFolder(str(folder / name))
        with out.lease():
            log = Log(out, LEDGER)
            for shard in out.open(header(folder / "in", rows_per_file), resolve(str(folder / "in"))):
                part = part_name(shard.index, DIGEST, staged=rows_per_file is not None)
                scores = pa.table([["1"], ["pos"], pa.array([0.7], pa.float32())], schema=SCHEMA)
                with out.create(part) as output:
                    pq.write_table(scores, output)
                log.add(Record(shard.index, (Part(part, 1, output.bytes, output.sha256),), None, COUNTS))
            log.flush()
            compact(out)
            compact_quarantine(out)
            out.write_json("summary.json", {"rows": 2, "rows_scored": 2, "rows_quarantined": 0})
        files |= {
            f"{name}/{file.relative_to(folder / name)}": file.read_bytes()
            for file in (folder / name).rglob("*")
            if file.is_file()
        }
    return folder / "in", files


def header(reviews: Path, rows_per_file: int | None) -> Header:
    schema = {column.name: str(column.type) for column in SCHEMA}
    return Header(DIGEST, "folded", str(reviews), 1_000_000, Columns("text", "id"), schema, rows_per_file)


def use(out: Path, reviews: Path, rows_per_file: int | None, our_error: Any) -> None:
    """Do with an output what `score` and `verify` do before and after their work."""
    folder, around = OutputFolder(str(out)), sorted(out.parent.rglob("precious"))
    with our_error, folder.lease():
        settings = ScoreSettings(bundle="b", input=str(reviews), out=str(out))
        plan = folder.open(header(reviews, rows_per_file), resolve(str(reviews)))
        Stats(plan, settings, folder.records())
        folder.summary()
        compact(folder)
        compact_quarantine(folder)
    with our_error:
        verify(VerifySettings(directory=str(out), input=str(reviews)), Quiet())
    assert sorted(out.parent.rglob("precious")) == around


def write(folder: Path, files: dict[str, bytes], which: str) -> Path:
    out = folder / "out"
    (folder / "precious").write_text("mine")
    for old in sorted(out.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    for name, content in files.items():
        if name.startswith(which):
            file = out / name.partition("/")[2]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return out


@pytest.fixture
def attack(finished: Any, our_error: Any, tmp_path: Path) -> Callable[..., None]:
    """Uses an output one of whose files, drawn of those with these ends of their names, was changed."""

    def attack(data: st.DataObject, which: str, change: Callable[[str, bytes], bytes], *ends: str) -> None:
        reviews, files = finished
        names = sorted(name for name in files if name.startswith(which) and name.endswith(ends or ""))
        name = data.draw(st.sampled_from(names))
        out = write(tmp_path, files | {name: change(name, files[name])}, which)
        use(out, reviews, 1 if which == "compacted" else None, our_error)

    return attack


@pytest.mark.parametrize("which", ["plain", "compacted"])
@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_bytes_are_in_it(which: str, attack: Callable[..., None], mutate: Any, data: st.DataObject) -> None:
    attack(data, which, lambda name, content: mutate(data, content))


@pytest.mark.parametrize("which", ["plain", "compacted"])
@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_values_its_json_holds(
    which: str, attack: Callable[..., None], mutate_json: Any, data: st.DataObject
) -> None:
    def change(name: str, content: bytes) -> bytes:
        lines = content.splitlines() if name.endswith("l") else [content]
        return "".join(json.dumps(mutate_json(data, json.loads(line))) + "\n" for line in lines).encode()

    attack(data, which, change, ".json", ".jsonl")


@pytest.mark.parametrize("kind", ["bytes", "values"])
@settings(settings.get_profile("fuzz"), max_examples=5 * settings.get_profile("fuzz").max_examples)
@given(data=st.data())
def test_whatever_its_lease_holds(
    kind: str, mutate: Any, mutate_json: Any, our_error: Any, tmp_path: Path, monkeypatch: Any, data: st.DataObject
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.001)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.01)
    file = tmp_path / "_sentray/lease.json"
    file.parent.mkdir(exist_ok=True)
    now = int(time.time())
    holder = asdict(lease.Holder.me()) | {"owner": "other", "heartbeat": now, "started": now}
    content = json.dumps(holder).encode()
    file.write_bytes(mutate(data, content) if kind == "bytes" else json.dumps(mutate_json(data, holder)).encode())
    with our_error, OutputFolder(str(tmp_path)).lease() as held:
        held.check()


def test_a_ledger_that_names_other_files_has_none_opened(finished: Any, tmp_path: Path, monkeypatch: Any) -> None:
    _, files = finished
    opened, open_file = list[str](), OutputFolder.open_file
    monkeypatch.setattr(OutputFolder, "open_file", lambda out, name: (opened.append(name), open_file(out, name))[1])
    (name,) = (name for name in files if name.startswith("plain/_sentray/ledger/"))
    lines = [json.loads(line) for line in files[name].splitlines()]
    for index, other in ((0, "../precious"), (0, "scores/../../precious"), (None, "../precious")):
        changed = json.loads(json.dumps(lines))
        if index is None:
            changed[0]["quarantine"] = [other, 1, 4, "0" * 64]
        else:
            changed[0]["parts"][index][0] = other
        content = "".join(json.dumps(line) + "\n" for line in changed).encode()
        out = write(tmp_path, files | {name: content}, "plain")
        opened.clear()
        with pytest.raises(SentrayError):
            verify(VerifySettings(directory=str(out)), Quiet())
        assert not any("precious" in name for name in opened)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("path", "/etc/passwd", "names other files than the input's"), ("name", "../../passwd", "has gaps, or numbers")],
)
def test_a_plan_that_names_other_files_is_refused(
    finished: Any, tmp_path: Path, column: str, value: str, message: str
) -> None:
    reviews, files = finished
    out = write(tmp_path, files, "plain")
    (file,) = (out / "_sentray").glob("plan-*.parquet")
    plan = pq.read_table(file)
    index = plan.schema.get_field_index(column)
    pq.write_table(plan.set_column(index, column, pa.array([value] * plan.num_rows)), file)
    with pytest.raises(SentrayError, match=message):
        OutputFolder(str(out)).open(header(reviews, None), resolve(str(reviews)))
