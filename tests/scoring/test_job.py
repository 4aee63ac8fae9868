"""The scoring job: every row once, resumed, refused, readable."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import sentray
from sentray.bundle import Bundle
from sentray.config import ScoreSettings
from sentray.errors import SentrayError
from sentray.scoring import job
from sentray.scoring.scorer import Scorer, Scores
from sentray.scoring.worker import Job

Score = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(autouse=True)
def a_shard_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files make a shard each."""
    monkeypatch.setattr("sentray.corpus.shards._LEAST_SHARD", 1)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors without TensorFlow, which start in a tenth of the time."""

    class LightScorer:
        def __init__(self, labels: list[str]) -> None:
            self.bundle, self.engine = SimpleNamespace(labels=labels), SimpleNamespace(name="light")

        def score(self, texts: pa.ChunkedArray) -> Scores:
            length = np.array([len(text) for text in texts.to_pylist()], np.int32)
            positive = (length % 101 / 101).astype(np.float32)
            return Scores(np.stack([1 - positive, positive], axis=1), length, length // 2)

    class LightShardScorer(job.ShardScorer):
        def __init__(self, work: Job, files: dict[str, bytes]) -> None:
            self._job, self._scorer = work, LightScorer(json.loads(files["bundle.json"])["labels"])

    monkeypatch.setattr(job, "ShardScorer", LightShardScorer)


@pytest.fixture
def score(small_bundle: Bundle, reviews: Path, tmp_path: Path, console) -> Score:
    def run(**changes: Any) -> dict[str, Any]:
        values = {
            "bundle": small_bundle.path,
            "input": reviews,
            "out": tmp_path / "out",
            "workers": 1,
        } | changes
        values |= {name: str(values[name]) for name in ("bundle", "input", "out")}
        return job.score(ScoreSettings(**{"max_bad_rows": 0.05} | values), console)

    return run


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


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
    assert table["label"].to_pylist() == [small_bundle.labels[place] for place in wanted.classes]
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
def test_goes_on_where_it_was(score: Score, out: Path, tmp_path: Path) -> None:
    score(out=tmp_path / "undisturbed")
    score()
    # As a kill may leave it: a shard without a commit record, one without its file, one half written.
    parts = sorted((out / "scores").iterdir())
    (out / "_sentray/committed/000000.json").unlink()
    parts[2].unlink()
    shutil.copy(parts[0], parts[0].with_name(f".{parts[0].name}.{'0' * 32}"))
    (out / "summary.json").unlink()
    untouched = parts[1].stat().st_mtime_ns

    summary = score()
    assert parts[1].stat().st_mtime_ns == untouched
    assert scored(out).equals(scored(tmp_path / "undisturbed"))
    assert sorted((out / "scores").iterdir()) == parts
    assert summary["rows"] == 304
    kept = {"quarantine.parquet", *(str(part.relative_to(out)) for part in parts)}
    undisturbed = files(tmp_path / "undisturbed")
    assert {name: files(out)[name] for name in kept} == {name: undisturbed[name] for name in kept}


@pytest.mark.usefixtures("light")
def test_a_killed_worker_costs_nothing(score: Score, out: Path, tmp_path: Path, monkeypatch) -> None:
    score(out=tmp_path / "undisturbed")
    trace = tmp_path / "killed"

    class Fragile(job.ShardScorer):
        """Dies once, when it has written a shard's file and not yet recorded it, and once before a shard."""

        def __call__(self, item):
            shard, _ = item
            deaths = len(list(tmp_path.glob("killed*")))
            if deaths < 2 and shard.index == 1 + deaths:
                trace.with_suffix(f".{deaths}").touch()
                if deaths == 0:
                    super().__call__(item)
                    (out / f"_sentray/committed/{shard.index:06d}.json").unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(item)

    monkeypatch.setattr(job, "ShardScorer", Fragile)
    summary = score()
    assert len(list(tmp_path.glob("killed*"))) == 2
    assert summary["rows"] == summary["rows_scored"] + summary["rows_quarantined"] == 304
    assert scored(out).equals(scored(tmp_path / "undisturbed"))


@pytest.mark.usefixtures("light")
def test_a_shard_that_always_kills_stops_the_job(score: Score, out: Path, monkeypatch) -> None:
    class Deadly(job.ShardScorer):
        def __call__(self, item):
            if item[0].index == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(item)

    usual = job.ShardScorer
    monkeypatch.setattr(job, "ShardScorer", Deadly)
    with pytest.raises(SentrayError, match="died, 4 of them"):
        score()
    monkeypatch.setattr(job, "ShardScorer", usual)
    assert not (out / "summary.json").exists()
    assert score()["rows"] == 304


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
        ({"keep": ("stars",)}, "stars"),
        ({"keep": ("label",)}, "--keep label would hide"),
        ({"bundle": "nowhere"}, "not a bundle"),
        ({"engine": "gpu"}, "no engine 'gpu'"),
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
def test_a_damaged_file_is_named_and_what_was_committed_stays(score: Score, out: Path, reviews: Path) -> None:
    content = (reviews / "part2.parquet").read_bytes()
    (reviews / "part2.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(SentrayError, match=r"part2\.parquet") as error:
        score()
    assert "\n" not in str(error.value)
    assert not (out / "summary.json").exists()


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
