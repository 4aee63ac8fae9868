"""The scoring job: every row once, resumed, refused, readable."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import sentray
from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer
from sentray.scoring.output import OutputFolder

Score = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.usefixtures("ray_session", "a_shard_a_file")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scored(out: Path) -> pa.Table:
    return ds.dataset(out / "scores").to_table()


def test_every_row_is_scored_or_quarantined(score: Score, out: Path, reviews: Path, small_bundle, console) -> None:
    summary = score(keep=("rating",), workers=2)
    table = scored(out)
    given = pq.read_table(reviews)
    good = [row for row in given.to_pylist() if row["text"] and row["text"].strip()]

    wanted = Scorer(small_bundle).score(pa.array([row["text"] for row in good]))
    assert table["id"].to_pylist() == [row["id"] for row in good]
    np.testing.assert_array_equal(table["positive"].to_numpy(), wanted.probabilities[:, 1])
    np.testing.assert_array_equal(table["score"].to_numpy(), wanted.best)
    assert table["label"].to_pylist() == [small_bundle.labels[place] for place in wanted.decided]
    assert table["words"].to_pylist() == wanted.words.tolist()
    assert table["known_words"].to_pylist() == wanted.known.tolist()
    assert table["rating"].to_pylist() == [row["rating"] for row in good]

    bad = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert [(row["file"], row["row"], row["id"], row["reason"]) for row in bad] == [
        ("part1.parquet", 75, "r150", "null_text"),
        ("part2.parquet", 9, "r160", "empty_text"),
        ("part2.parquet", 19, "r170", "empty_text"),
        ("part2.parquet", 29, "r180", "null_text"),
    ]
    assert summary["rows"] == summary["rows_scored"] + summary["rows_quarantined"] == given.num_rows
    assert summary["rows_quarantined"] == 4
    assert summary["quarantined"] == {"null_text": 2, "empty_text": 2}
    assert sum(summary["labels"].values()) == sum(summary["score_histogram"]) == table.num_rows
    assert summary == json.loads((out / "summary.json").read_text())
    assert f"{given.num_rows} rows in = {table.num_rows} scored + 4 quarantined" in console.lines[-1]
    assert json.loads((out / "settings.json").read_text())["keep"] == ["rating"]


def test_the_output_has_one_explicit_schema(score: Score, out: Path, small_bundle: Bundle) -> None:
    score(keep=("rating",))
    wanted = pa.schema(
        [
            ("id", pa.string()),
            ("label", pa.string()),
            ("score", pa.float32()),
            ("positive", pa.float32()),
            ("words", pa.int32()),
            ("known_words", pa.int32()),
            ("rating", pa.int8()),
        ]
    )
    parts = sorted((out / "scores").iterdir())
    for part in parts:
        schema = pq.read_schema(part)
        assert schema.equals(wanted)
        assert schema.metadata[b"sentray.bundle"].decode() == small_bundle.digest
        assert schema.metadata[b"sentray.version"].decode() == sentray.__version__
        assert small_bundle.digest[:12] in part.name
    column = pq.ParquetFile(parts[0]).metadata.row_group(0).column(1)
    assert "RLE_DICTIONARY" in column.encodings


def test_more_labels_have_no_positive(score: Score, out: Path, make_bundle) -> None:
    score(bundle=make_bundle(("bad", "fine", "good")).path)
    table = scored(out)
    assert table.column_names == ["id", "label", "score", "words", "known_words"]
    assert set(table["label"].to_pylist()) <= {"bad", "fine", "good"}


@pytest.mark.usefixtures("light")
def test_a_finished_run_does_nothing(score: Score, out: Path, console) -> None:
    first = score()
    before = files(out)
    assert score() == first
    assert files(out) == before
    assert "is finished" in console.lines[-1]
    assert "nothing to do" in console.lines[-1]


@pytest.mark.usefixtures("light")
def test_a_finished_run_without_its_quarantine_is_finished_again(
    score: Score, out: Path, reviews: Path, proved
) -> None:
    first = score()
    quarantine = (out / "quarantine.parquet").read_bytes()
    (out / "quarantine.parquet").unlink()
    again = score()
    assert (out / "quarantine.parquet").read_bytes() == quarantine
    # Nothing was scored, and the summary has the same keys all the same.
    assert list(again) == list(first)
    assert (again["workers"], again["rows_per_s"], again["rows"]) == (None, None, first["rows"])
    proved(out, reviews)


@pytest.mark.usefixtures("light")
def test_no_summary_stands_while_a_finished_run_is_mended(score: Score, out: Path, monkeypatch) -> None:
    score()
    next((out / "scores").iterdir()).unlink()
    monkeypatch.setattr("sentray.scoring.tasks.plan_workers", lambda *given, **more: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score()
    assert not (out / "summary.json").exists()


@pytest.mark.usefixtures("light")
def test_goes_on_where_it_was(score: Score, out: Path, tmp_path: Path, proved) -> None:
    score(out=tmp_path / "undisturbed")
    score()
    # As a kill may leave it: a shard without a record, one without its file, one half written.
    parts = sorted((out / "scores").iterdir())
    segments = sorted((out / "_sentray/ledger").iterdir())
    lines = [line for segment in segments for line in segment.read_text().splitlines()]
    for segment in segments:
        segment.unlink()
    segments[0].write_text("".join(f"{line}\n" for line in lines if json.loads(line)["shard"] != 0))
    parts[2].unlink()
    shutil.copy(parts[0], parts[0].with_name(f".{parts[0].name}.{'0' * 32}"))
    (out / "summary.json").unlink()
    untouched = parts[1].stat().st_mtime_ns

    summary = score()
    assert parts[1].stat().st_mtime_ns == untouched
    assert scored(out).equals(scored(tmp_path / "undisturbed"))
    assert sorted((out / "scores").iterdir()) == parts
    assert summary["rows"] == 304
    proved(out, tmp_path / "reviews")
    kept = {"quarantine.parquet", *(str(part.relative_to(out)) for part in parts)}
    undisturbed = files(tmp_path / "undisturbed")
    assert {name: files(out)[name] for name in kept} == {name: undisturbed[name] for name in kept}


@pytest.mark.usefixtures("light")
def test_an_interrupted_run_goes_on(score: Score, out: Path, tmp_path: Path, console, monkeypatch, proved) -> None:
    score(out=tmp_path / "undisturbed")

    def interrupt(line: str, share: float | None = None, *, moved: bool = True) -> None:
        if share and "rows/s" in line:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(console, "progress", interrupt)
        with pytest.raises(KeyboardInterrupt):
            score()
    assert not (out / "summary.json").exists()
    assert not (out / "_sentray/lease.json").exists()
    score()
    # A shard that was done when the run was interrupted is committed with the one before.
    line = next(line for line in console.lines[::-1] if "committed before" in line)
    assert re.search(", [12] of them committed before", line)
    assert scored(out).equals(scored(tmp_path / "undisturbed"))
    proved(out, tmp_path / "reviews")


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda reviews: (reviews / "part3.parquet").unlink(), r"part3\.parquet is gone"),
        (
            lambda reviews: shutil.copy(reviews / "part3.parquet", reviews / "part4.parquet"),
            "part4.parquet is new",
        ),
        (
            lambda reviews: shutil.copy(reviews / "part3.parquet", reviews / "part2.parquet"),
            "part2.parquet has changed",
        ),
    ],
)
def test_refuses_a_changed_input(score: Score, reviews: Path, change: Callable[[Path], Any], message: str) -> None:
    score()
    change(reviews)
    with pytest.raises(SentrayError, match=message):
        score()


@pytest.mark.usefixtures("light")
def test_refuses_another_bundle_and_other_columns(score: Score, out: Path, make_bundle) -> None:
    score()
    before = files(out)
    with pytest.raises(SentrayError, match="was made by another bundle"):
        score(bundle=make_bundle(seed=7).path)
    with pytest.raises(SentrayError, match="other columns"):
        score(keep=("rating",))
    assert files(out) == before


@pytest.mark.usefixtures("light")
def test_refuses_a_folder_of_other_things(score: Score, out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("much work")
    with pytest.raises(SentrayError, match=r"holds thesis\.tex"):
        score()
    with pytest.raises(SentrayError, match=r"thesis\.tex.* cannot be read"):
        score(out=out / "thesis.tex")


@pytest.mark.usefixtures("light")
def test_stops_at_too_many_bad_rows_with_the_reasons(score: Score, out: Path) -> None:
    with pytest.raises(SentrayError, match=r"4 of \d+ rows .*(null_text 2|empty_text 2).*--max-bad-rows 0\.01"):
        score(max_bad_rows=0.01)
    assert not (out / "summary.json").exists()
    assert score(max_bad_rows=0.02)["rows_quarantined"] == 4


@pytest.mark.usefixtures("light")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_column": "review"}, "review"),
        ({"keep": ("label",)}, "--keep label would hide"),
        ({"bundle": "nowhere"}, "not a bundle"),
        ({"engine": "folded", "gpu": True}, "folded uses no GPU"),
        ({"engine": "keras", "gpu": True}, "0 GPUs on 1 node, which cannot hold them"),
        ({"input": "nowhere"}, "nowhere"),
        ({"workers": 16}, "16 workers"),
    ],
)
def test_refuses_before_it_starts(score: Score, reviews: Path, changes: dict[str, Any], message: str) -> None:
    for number in range(20 if "workers" in changes else 0):
        shutil.copy(reviews / "part0.parquet", reviews / f"more{number}.parquet")
    with pytest.raises(SentrayError, match=message) as error:
        score(**changes)
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("light")
def test_small_shards_are_compacted(score: Score, out: Path, reviews: Path, tmp_path: Path, proved) -> None:
    score(out=tmp_path / "plain")
    summary = score(rows_per_file=152)
    parts = sorted((out / "scores").iterdir())
    assert [pq.ParquetFile(part).metadata.num_rows for part in parts] == [151, 149]
    assert scored(out).equals(scored(tmp_path / "plain"))
    assert score(rows_per_file=152) == summary
    proved(out, reviews)


@pytest.mark.usefixtures("light")
def test_new_files_are_scored_when_asked_for(score: Score, out: Path, reviews: Path, proved) -> None:
    score()
    before = files(out / "scores")
    table = pa.table({"id": ["r1", "new"], "text": ["good", "bad"], "label": ["pos", "neg"]})
    pq.write_table(table.append_column("rating", pa.array([1, 2], pa.int8())), reviews / "added.parquet")
    with pytest.raises(SentrayError, match=r"added\.parquet is new.*--new-input"):
        score()
    summary = score(new_input=True)
    assert (summary["rows"], summary["quarantined"]["duplicate_id"]) == (306, 1)
    after = files(out / "scores")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    assert score() == summary
    proved(out, reviews)


@pytest.mark.usefixtures("light")
def test_a_second_run_keeps_out(score: Score, out: Path) -> None:
    with OutputFolder(str(out)).lease(), pytest.raises(SentrayError, match=r"out is being written by another run"):
        score()
    assert score()["rows"] == 304


@pytest.mark.usefixtures("light")
def test_the_plan_is_shown_before_and_the_counts_after(score: Score, console) -> None:
    summary = score()
    plan, workers, *end = [line for line in console.lines if line]
    assert re.search(r"4 files \(parquet\), 0\.\d MB, 4 shards, 0 of them committed before", plan)
    assert re.search(r"1, with 1 CPU each, about \d+ MB of memory each; engine ", workers)
    assert any(re.match(r"scored +300 +98\.7%", line) for line in end)
    assert any(re.match(r"  null_text +2 +0\.7%", line) for line in end)
    assert any(line.startswith("words known: 49") for line in end)
    assert summary["start_seconds"] == pytest.approx(
        summary["start_ray_seconds"] + summary["start_workers_seconds"], abs=0.01
    )
    assert summary["core_hours"] == pytest.approx(summary["worker_seconds"] / 3600, abs=1e-5)
    assert summary["peak_rss_mb"] > 50
    assert summary["bytes"] > summary["unread_bytes"] == 0
    assert any("4 quarantined, 4 of 4 shards" in line for line, _ in console.shown)


@pytest.mark.usefixtures("light")
def test_text_files_and_uris(score: Score, out: Path, tmp_path: Path, make_reviews) -> None:
    folder = tmp_path / "tree"
    for number, text in enumerate(make_reviews(20)):
        file = folder / ("neg", "pos")[number % 2] / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    summary = score(input=folder.as_uri(), out=out.as_uri())
    assert summary["rows_scored"] == 20
    assert sorted(scored(out)["id"].to_pylist())[0] == "neg/0.txt"


@pytest.mark.usefixtures("light")
def test_an_id_that_an_earlier_file_has_is_set_aside(score: Score, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "twice"
    folder.mkdir()
    (folder / "a.csv").write_text("id,text\n1,good\n2,bad\n")
    (folder / "b.csv").write_text("id,text\n2,fine\n3,poor\n")
    summary = score(input=folder, max_bad_rows=0.5)
    assert scored(out)["id"].to_pylist() == ["1", "2", "3"]
    assert summary["quarantined"] == {"duplicate_id": 1}
    bad = pq.read_table(out / "quarantine.parquet").to_pylist()
    assert [(row["file"], row["row"], row["id"], row["text"]) for row in bad] == [("b.csv", 1, "2", "fine")]


@pytest.mark.usefixtures("light")
def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(score: Score, out: Path, console) -> None:
    found = score(dry_run=True, workers=2)
    assert not out.exists()
    assert (found["shards"], found["workers"], found["sample_rows"]) == (4, 2, 76)
    assert found["core_hours"] > 0
    plan, workers, size, hours, nothing = console.lines
    assert ", 4 shards, 0 of them committed before" in plan
    assert workers.startswith("workers that read and score: 2, ")
    assert size == f"to be scored: 4 shards, {found['bytes'] / 1e6:,.1f} MB"
    assert re.fullmatch(
        r"about [\d.e-]+ core-seconds, \d+ s once started: estimated from 76 rows of the first shard.*", hours
    )
    assert nothing == "nothing was written: leave out --dry-run to score"
    score()
    before = files(out)
    assert score(dry_run=True)["shards"] == 0
    assert files(out) == before
    with pytest.raises(SentrayError, match="other columns"):
        score(dry_run=True, keep=("rating",))
