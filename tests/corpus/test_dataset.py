import operator
from collections import Counter
from functools import reduce

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.config import CorpusSettings
from sentray.corpus.dataset import Corpus
from sentray.corpus.inspect import inspect_block
from sentray.corpus.readers import ROW_SCHEMA
from sentray.errors import SentrayError

pytestmark = pytest.mark.usefixtures("ray_session")


def rows_of(corpus: Corpus) -> pa.Table:
    return pa.concat_tables(corpus.map_blocks(lambda table: table))


def test_rows_come_in_the_order_of_the_files(nltk_polarity, read):
    corpus = Corpus.open(nltk_polarity, CorpusSettings())
    assert len(corpus.shards) > 1
    assert rows_of(corpus).to_pylist() == read(nltk_polarity).to_pylist()
    assert corpus.name == nltk_polarity
    assert corpus.describe() == f"{nltk_polarity}: 2,000 files (text), 7.8 MB, 16 shards"


def test_a_dataset_of_all_rows(nltk_polarity):
    dataset = Corpus.open(nltk_polarity, CorpusSettings()).tables()
    table = pa.concat_tables(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    assert table.schema == ROW_SCHEMA
    names = table["id"].to_pylist()
    assert len(names) == 2000
    assert names == sorted(names)


def test_functions_run_once_on_each_table_and_may_be_closures(write):
    path = write("a.csv", "text,label\n" + "word word,pos\n" * 10_000)
    factor = 3
    counts = list(
        Corpus.open(str(path), CorpusSettings()).map_blocks(lambda table: Counter(rows=table.num_rows * factor))
    )
    assert counts == [{"rows": 4096 * 3}, {"rows": 4096 * 3}, {"rows": 1808 * 3}]


def test_ids_that_occur_twice_in_any_two_files_or_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)
    monkeypatch.setattr("sentray.corpus.splits._MIN_WEIGHT", 1)
    ids = [f"r{number % 700}" for number in range(1000)]
    ids[5] = None
    ids[6] = None
    table = pa.table({"id": ids, "text": [f"text {number}" for number in range(1000)], "label": ["a", "b"] * 500})
    pq.write_table(table.slice(0, 600), tmp_path / "1.parquet", row_group_size=100)
    pq.write_table(table.slice(600, 200).drop(["id"]), tmp_path / "2.parquet")
    pq.write_table(table.slice(800), tmp_path / "3.parquet", row_group_size=50)
    corpus = Corpus.open(str(tmp_path), CorpusSettings())
    assert len(corpus.shards) > 4
    rows = rows_of(corpus)
    with_ids = list(range(600)) + list(range(800, 1000))
    seen: set[str] = set()
    expected = {}
    for number in with_ids:
        expected[number] = "missing_id" if ids[number] is None else "duplicate_id" if ids[number] in seen else None
        seen.add(ids[number])
    assert rows["reason"].to_pylist() == [expected.get(number) for number in range(1000)]
    assert list(expected.values()).count("duplicate_id") == 200
    seen_by_parts = reduce(operator.add, corpus.map_blocks(inspect_block))
    assert seen_by_parts.reasons == {"duplicate_id": 200, "missing_id": 2}


def test_duplicates_in_one_csv_keep_the_first(write):
    path = write("a.csv", "id,text,label\n1,a,x\n1,b,y\n2,c,x\nbroken\n1,d,y\n")
    corpus = Corpus.open(str(path), CorpusSettings())
    rows = rows_of(corpus)
    assert rows["reason"].to_pylist() == [None, "duplicate_id", None, "invalid_record", "duplicate_id"]
    assert pa.concat_tables(corpus.read(corpus.shards[0])) == rows


def test_labels_are_needed_where_asked_for(write):
    path = write("a.csv", "text\nx\n")
    assert rows_of(Corpus.open(str(path), CorpusSettings(), need_label=False))["label"].to_pylist() == [None]
    with pytest.raises(SentrayError, match="no column 'label'") as raised:
        rows_of(Corpus.open(str(path), CorpusSettings()))
    assert "\n" not in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_damaged_file_is_named_at_once(write, tmp_path):
    write("1.csv.gz", b"no gzip at all")
    with pytest.raises(SentrayError, match=r"1\.csv\.gz cannot be read .* seems damaged") as raised:
        Corpus.open(str(tmp_path), CorpusSettings())
    assert type(raised.value) is SentrayError


def test_another_error_of_a_function_is_not_hidden():
    corpus = Corpus.open("synthetic:10", CorpusSettings())
    with pytest.raises(Exception, match="division by zero"):
        list(corpus.map_blocks(lambda table: 1 / (table.num_rows - 10)))


def test_a_corpus_without_rows_gives_nothing(write):
    corpus = Corpus.open(str(write("a.csv", "text,label\n")), CorpusSettings())
    assert list(corpus.map_blocks(inspect_block)) == []


def test_stopping_early_is_fine():
    assert next(Corpus.open("synthetic:20000", CorpusSettings()).map_blocks(lambda table: table.num_rows)) == 4096
