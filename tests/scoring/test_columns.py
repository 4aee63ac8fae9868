"""The kept columns have one type for all files, found out before anything is scored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from sentray.config import ScoreSettings
from sentray.corpus import limits
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.scoring.columns import kept_columns, kept_inputs, output_schema

pytestmark = pytest.mark.usefixtures("ray_session", "a_shard_a_file", "light")


def test_a_kept_column_takes_its_type_from_the_first_file_that_has_values(
    score: Callable[..., dict[str, Any]], out: Path, tmp_path: Path, proved
) -> None:
    folder = tmp_path / "nulls"
    folder.mkdir()
    for name, stars in (("a", pa.nulls(2)), ("b", pa.array([4, None], pa.int8()))):
        table = pa.table({"text": ["good", "bad"], "stars": stars, "never": pa.nulls(2)})
        pq.write_table(table, folder / f"{name}.parquet")
    score(input=folder, keep=("stars", "never"))
    scored = ds.dataset(out / "scores").to_table()
    assert scored["stars"].to_pylist() == [None, None, 4, None]
    assert scored.schema.field("stars").type == pa.int8()
    assert scored.schema.field("never").type == pa.string()
    proved(out, folder)


def test_no_row_of_parquet_is_read_for_the_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": ["good"] * 30, "stars": pa.array([4] * 30, pa.int8())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10)
    monkeypatch.setattr(limits, "FREE_ROWS", 10)
    monkeypatch.setattr(limits, "BYTES_A_ROW", 1 << 30)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("it was read"))
    settings = ScoreSettings(bundle="b", input=str(tmp_path), out=str(tmp_path / "out"), keep=("stars",))
    assert kept_columns(resolve(str(tmp_path)), settings) == ({"stars": "stars"}, pa.schema([("stars", pa.int8())]))


def test_columns_are_kept_under_other_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label,a:b,id\nx,pos,1,7\n")
    (tmp_path / "b.csv").write_text("text,label\ny,neg\n")
    (tmp_path / "c.csv").write_text("text,label\n")
    said: list[str] = []

    def kept(*keep: str) -> Any:
        settings = ScoreSettings(bundle="b", input=str(tmp_path), out="o", keep=keep)
        return kept_columns(resolve(str(tmp_path)), settings, said.append)

    inputs, types = kept("label:truth", "a:b", "id:product")
    assert inputs == {"truth": "label", "a:b": "a:b", "product": "id"}
    assert types.names == list(inputs)
    assert said == [
        "a:b is in 1 of 2 files with rows; null in the others",
        "id is in 1 of 2 files with rows; null in the others",
    ]
    with pytest.raises(SentrayError, match=r"a\.csv has no column 'labl' .*--keep label"):
        kept("labl:truth")
    with pytest.raises(SentrayError, match="gives two columns one name"):
        kept("label:x", "a:b", "id:x")
    assert ScoreSettings(bundle="b", input="i", out="o", keep={"label": "truth"}).keep == ("label:truth",)
    names = {"truth", "a:b", "product"}
    assert kept_inputs(("label:truth", "a:b", "id:product"), names) == inputs


def test_a_column_for_each_label() -> None:
    labels = ("neg", "so so", "so-so", "положительно")
    schema = output_schema(labels, pa.schema([]), "d", every=True)
    names = ["score_neg", "score_so_so", "score_so_so_2", "score_положительно"]
    assert schema.names == ["id", "label", "score", *names, "words", "known_words"]
    assert {schema.field(name).type for name in names} == {pa.float32()}
    with pytest.raises(SentrayError, match="another name, as in --keep label:input_label"):
        output_schema(labels, pa.schema([("label", pa.string())]), "d")


def test_what_is_kept_and_scored_is_written_and_proved(score: Any, out: Path, tmp_path: Path, proved: Any) -> None:
    (tmp_path / "in").mkdir()
    for name, more in (("a", {"date": ["x", "y"]}), ("b", {})):
        table = pa.table({"text": ["good", "bad"], "label": [["pos"], []], **more})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    keep = ("label:truth", "date", "text")
    score(input=tmp_path / "in", keep=keep, scores="all", rows_per_file=10, partition_by="date")
    found = proved(out, tmp_path / "in").sort_by("id")
    assert found["truth"].to_pylist() == [["pos"], [], ["pos"], []]
    assert found["text"].to_pylist() == ["good", "bad"] * 2
    assert found["score_pos"].equals(found["positive"])
    assert sorted(path.name for path in (out / "scores").iterdir()) == [
        "date=__HIVE_DEFAULT_PARTITION__",
        "date=x",
        "date=y",
    ]


def test_a_column_that_no_file_has_is_refused_before_anything_starts(score: Callable[..., Any], out: Path) -> None:
    with pytest.raises(SentrayError, match="stars"):
        score(keep=("stars",))
    assert not (out / "_sentray/plan.json").exists()
