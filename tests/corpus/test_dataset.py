import logging
import os
import signal
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.util.annotations import RayDeprecationWarning

from sentray.config import CorpusSettings
from sentray.corpus.dataset import Corpus, read_reviews
from sentray.corpus.inspect import Inspection, inspect_rows
from sentray.corpus.rows import ROW_SCHEMA
from sentray.corpus.vocab import clean_and_count, merge_counts
from sentray.errors import SentrayError
from sentray.text.cleaning import preset

pytestmark = pytest.mark.usefixtures("ray_session")


def rows_of(corpus: Corpus) -> pa.Table:
    return pa.concat_tables(corpus.rows().iter_batches(batch_size=None, batch_format="pyarrow"))


def sizes(table):
    return {"sizes": pa.table({"rows": [table.num_rows]})}


def test_rows_come_in_the_order_of_the_files(nltk_polarity, read):
    corpus = Corpus.open(nltk_polarity, CorpusSettings())
    assert len(corpus.shards) > 1
    rows = rows_of(corpus)
    assert rows.schema == ROW_SCHEMA
    assert rows.to_pylist() == read(nltk_polarity).to_pylist()
    assert corpus.name == nltk_polarity
    assert corpus.describe() == f"{nltk_polarity}: 2,000 files (text), 7.8 MB, 16 shards"


def test_usable_reviews_as_a_dataset_of_ray(write):
    rows = "1,good,pos,train\n2,,pos,train\n3,bad,neg,test\n3,bad,neg,test\n4,so so,,unsup\n"
    dataset = read_reviews(str(write("a.csv", "id,text,label,split\n" + rows)))
    assert dataset.take_all() == [
        {"id": "1", "text": "good", "label": "pos", "split": "train"},
        {"id": "3", "text": "bad", "label": "neg", "split": "test"},
        {"id": "4", "text": "so so", "label": None, "split": "unsup"},
    ]
    assert dataset.columns() == ["id", "text", "label", "split"]
    assert read_reviews("synthetic:1000").map_batches(len_of_texts, batch_format="pyarrow").sum("length") > 500_000


def len_of_texts(batch):
    return pa.table({"length": [len(text) for text in batch["text"].to_pylist()]})


def test_a_dataset_of_ray_raises_the_sentence(write):
    path = write("a.csv", "body\nx\n")
    with pytest.raises(SentrayError, match="has no column 'text'"):
        read_reviews(str(path)).take_all()


def test_stages_have_their_names_and_map_where_they_read(monkeypatch):
    stats = []

    def run(dataset):
        stats.append(dataset.materialize().stats())
        return iter(())

    monkeypatch.setattr("sentray.corpus.dataset._run", run)
    monkeypatch.setattr("sentray.corpus.dataset.MERGED", 1)
    corpus = Corpus.plan("synthetic:20000", CorpusSettings())
    list(corpus.map_blocks(clean_and_count, merge_counts, rules=preset("reviews")[0]))
    assert stats[0].startswith("Operator 1 ReadReviews->MapBatches(clean_and_count): 3 tasks executed")
    assert "Operator 2 MapBatches(merge_counts): 1 tasks executed" in stats[0]
    dataset = read_reviews("synthetic:1000").map_batches(len_of_texts, batch_format="pyarrow")
    name = "ReadReviews->MapBatches(good_rows)->MapBatches(len_of_texts)"
    assert dataset.materialize().stats().startswith(f"Operator 1 {name}: 1 tasks executed")


def test_results_of_all_blocks_come_in_order_and_functions_may_be_closures(tmp_path, monkeypatch):
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)
    for number in range(9):
        table = pa.table({"text": [f"text {number}"] * (number + 1), "label": ["pos"] * (number + 1)})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    corpus = Corpus.open(str(tmp_path), CorpusSettings())
    assert len(corpus.shards) == 9
    factor = 3

    def times(table, offset):
        return {"sizes": pa.table({"rows": [table.num_rows * factor + offset]})}

    found = pa.concat_tables(tables["sizes"] for tables in corpus.map_blocks(times, offset=1))
    assert found["rows"].to_pylist() == [3 * rows + 1 for rows in range(1, 10)]


def test_tasks_read_several_shards_where_there_are_many(tmp_path, monkeypatch):
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)
    monkeypatch.setattr("sentray.corpus.splits._MIN_WEIGHT", 1)
    monkeypatch.setattr("sentray.corpus.dataset.MAX_READ_TASKS", 4)
    for number in range(11):
        (tmp_path / f"{number:02}.txt").write_text(f"review {number}")
    corpus = Corpus.open(str(tmp_path), CorpusSettings(), need_label=False)
    assert len(corpus.shards) == 11
    dataset = corpus.rows().materialize()
    assert "4 tasks executed" in dataset.stats()
    assert [row["text"] for row in dataset.take_all()] == [f"review {number}" for number in range(11)]


def test_results_are_merged_by_tasks_before_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr("sentray.corpus.splits._MIN_SHARD", 1)
    monkeypatch.setattr("sentray.corpus.dataset.MERGED", 4)
    for number in range(8):
        pq.write_table(pa.table({"text": [f"text {number}"], "label": ["pos"]}), tmp_path / f"{number}.parquet")

    def texts(table):
        return {"found": table.select(["text"])}

    def join(tables):
        return {"found": pa.table({"text": ["+".join(tables["found"]["text"].to_pylist())]})}

    corpus = Corpus.open(str(tmp_path), CorpusSettings())
    found = pa.concat_tables(tables["found"] for tables in corpus.map_blocks(texts, join))
    assert found["text"].to_pylist() == [f"text {number}+text {number + 1}" for number in range(0, 8, 2)]


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
    seen_by_parts = sum(map(Inspection.of, corpus.map_blocks(inspect_rows)), start=Inspection())
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
        list(Corpus.open(str(path), CorpusSettings()).map_blocks(inspect_rows))
    assert type(raised.value) is SentrayError
    assert "\n" not in str(raised.value)
    assert "Traceback" not in str(raised.value)


def test_a_damaged_file_is_named_at_once(write, tmp_path):
    write("1.csv.gz", b"\x1f\x8b and no gzip at all")
    with pytest.raises(SentrayError, match=r"1\.csv\.gz cannot be read .* seems damaged") as raised:
        Corpus.open(str(tmp_path), CorpusSettings())
    assert type(raised.value) is SentrayError


def test_what_a_stage_refuses_is_one_sentence():
    def refuse(table):
        raise SentrayError("the review 7 is odd; mend it")

    with pytest.raises(SentrayError, match=r"^the review 7 is odd; mend it$") as raised:
        list(Corpus.open("synthetic:10", CorpusSettings()).map_blocks(refuse))
    assert type(raised.value) is SentrayError


def test_a_stage_that_kills_its_process_each_time_is_one_sentence():
    def die(table):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(
        SentrayError, match=r"^the processes that worked on one shard died, 4 of them .* fewer --workers"
    ):
        list(Corpus.open("synthetic:10", CorpusSettings()).map_blocks(die))


def test_another_error_of_a_stage_is_not_hidden():
    def divide(table):
        return {"result": pa.table({"number": [1 / (table.num_rows - 10)]})}

    with pytest.raises(Exception, match="division by zero"):
        list(Corpus.open("synthetic:10", CorpusSettings()).map_blocks(divide))


def test_a_corpus_without_rows_gives_nothing(write):
    corpus = Corpus.open(str(write("a.csv", "text,label\n")), CorpusSettings())
    assert sum(map(Inspection.of, corpus.map_blocks(inspect_rows)), start=Inspection()) == Inspection()
    assert read_reviews(str(write("b.csv", "text,label\n"))).take_all() == []


def test_rays_logger_is_left_as_it_was_and_no_warning_reaches_the_user():
    logger = logging.getLogger("ray.data")
    corpus = Corpus.open("synthetic:50", CorpusSettings())
    list(corpus.map_blocks(inspect_rows))
    # Ray has set the level that it likes by now.
    before = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("error", RayDeprecationWarning)
        assert sum(1 for _ in corpus.map_blocks(inspect_rows)) == 1
    assert logger.level == before


def test_stopping_early_is_fine():
    found = Corpus.open("synthetic:20000", CorpusSettings()).map_blocks(sizes_of_numbers)
    assert next(found)["numbers"]["row"].to_pylist()[:2] == [1, 2]
    found.close()


def sizes_of_numbers(table):
    return {"numbers": table.select(["row"])}


def test_what_the_driver_keeps_is_its_own():
    """A slice of a block of Ray's object store would keep all of it there."""
    tables = next(Corpus.open("synthetic:10", CorpusSettings()).map_blocks(sizes_of_numbers))
    assert np.array(tables["numbers"]["row"]).tolist() == list(range(1, 11))
