import json
import urllib.parse

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.corpus.names import keys_of, labels_of, split_of
from sentray.corpus.source import require_apart, resolve
from sentray.errors import SentrayError

ROWS = "text,label\nfine,pos\nbad,neg\n"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.csv", "train"),
        ("data/train-00000-of-00001.parquet", "train"),
        ("Test.csv", "test"),
        ("testset.csv", "test"),
        ("twitter-2013test-A.txt", "test"),
        ("labeledTrainData.tsv", "train"),
        ("cooking.valid", "validation"),
        ("sst/dev.tsv", "validation"),
        ("unsupervised-00000-of-00001.parquet", "unsup"),
        ("archive.zip#eval.csv", "test"),
        ("test/part-0.parquet", "test"),
        ("my_test/en/part-0.parquet", "test"),
        ("split=test/part-0.parquet", "test"),
        ("split=dev/train.csv", "validation"),
        # The file's own name and the inner folder are nearer.
        ("dev/train.csv", "train"),
        ("train/dev/a.csv", "validation"),
        # Two splits in one name say nothing.
        ("train_test.csv", None),
        ("test/train_and_dev.csv", "test"),
        ("testimonials.csv", None),
        ("topic=test/a.csv", None),
        ("split=fold_1/train.csv", None),
        ("reviews.csv", None),
    ],
)
def test_the_split_that_a_name_says(name, split):
    assert split_of(name) == split


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_keys_are_those_that_pyarrow_reads(keys):
    folders = [f"{urllib.parse.quote(key, '')}={urllib.parse.quote(value, '')}" for key, value in keys.items()]
    found = ds.HivePartitioning(pa.schema([(key, pa.string()) for key in keys])).parse("/".join([*folders, "a.csv"]))
    assert ds.get_partition_keys(found) == keys_of("/".join([*folders, "x=y.csv"])) == keys


def test_the_folder_of_a_null():
    assert keys_of("stars=__HIVE_DEFAULT_PARTITION__/=x/a.csv") == {"stars": None}


def test_labels_are_the_words_by_which_names_differ():
    assert labels_of(["rt-polarity.neg", "rt-polarity.pos"], "x") == ["neg", "pos"]
    assert labels_of(["train_pos_0.txt", "train_neg_0.txt", "test-pos.txt"], "x") == ["pos", "neg", "pos"]
    assert labels_of(["pos/reviews.csv", "very neg/reviews.csv"], "x") == ["pos", "very-neg"]
    with pytest.raises(SentrayError, match=r"--label-from name: a.pos has no word in its name that not all files of x"):
        labels_of(["a.pos"], "x")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "arrow"])
def test_splits_labels_and_other_keys_in_every_format(write, read, tmp_path, suffix):
    table = pa.table({"text": ["fine", "good"]})
    content = {
        "csv": lambda: write("x.csv", "text\nfine\ngood\n"),
        "jsonl": lambda: write("x.jsonl", '{"text": "fine"}\n{"text": "good"}\n'),
        "parquet": lambda: pq.write_table(table, tmp_path / "x.parquet"),
        "arrow": lambda: feather.write_feather(table, str(tmp_path / "x.arrow")),
    }
    content[suffix]()
    file = tmp_path / f"x.{suffix}"
    for name in ("test/stars=5/day=2024-01-01/a", "train/stars=__HIVE_DEFAULT_PARTITION__/day=1%2F2/b"):
        write(f"in/{name}.{suffix}", file.read_bytes())
    rows = read(tmp_path / "in", keep=["day"], label_column="stars", need_label=True)
    assert rows["split"].to_pylist() == ["test"] * 2 + ["train"] * 2
    assert rows["label"].to_pylist() == ["5"] * 2 + [None] * 2
    assert rows["day"].to_pylist() == ["2024-01-01"] * 2 + ["1/2"] * 2
    assert rows["reason"].to_pylist() == [None] * 2 + ["missing_label"] * 2
    assert rows.schema.field("day").type == pa.large_string()


def test_one_file_whose_name_says_train_is_all_train(write, read):
    assert set(read(write("train.csv", "text\n" + "x\n" * 100))["split"].to_pylist()) == {"train"}


def test_a_column_goes_before_a_word_in_a_name(write, read):
    path = write("train.csv", "text,split\na, Dev\nb,\nc,test\nd,fold\n")
    assert read(path)["split"].to_pylist() == ["validation", "train", "test", "fold"]


def test_a_column_that_says_the_same_as_its_folder_or_nothing(write, read, tmp_path):
    write("label=pos/a.csv", "text,label\nfine,pos\ngood,\n")
    pq.write_table(pa.table({"text": ["bad"], "stars": [5]}), write("label=neg/stars=5/b.parquet", ""))
    (tmp_path / "label=neg/stars=5/b.parquet").rename(tmp_path / "stars=5.parquet")
    write("forms/label=1/split=test/a.csv", "text,label,split\nfine,1.0,Testing\ngood,1,\n")
    rows = read(tmp_path / "forms")
    assert (rows["label"].to_pylist(), rows["split"].to_pylist()) == (["1", "1"], ["test", "test"])
    write("stars/stars=5/b.parquet", (tmp_path / "stars=5.parquet").read_bytes())
    assert read(tmp_path / "label=pos/../*/a.csv")["label"].to_pylist() == ["pos", "pos"]
    kept = read(tmp_path / "stars", keep=["stars"])["stars"]
    assert (kept.to_pylist(), kept.type) == ([5], pa.int64())


def test_a_column_that_contradicts_its_folder_is_refused(write, read, tmp_path):
    write("in/label=pos/a.csv", "text,label\nfine,pos\nbad,neg\n")
    with pytest.raises(
        SentrayError,
        match=r"label=pos/a\.csv has 'neg' as label in row 2, and its folder says 'pos': leave out the col",
    ):
        read(tmp_path / "in")
    assert read(tmp_path / "in/label=pos")["label"].to_pylist() == ["pos", "neg"]


def test_class_folders_below_split_and_key_folders(write, read, tmp_path):
    write("in/split=test/label=po%20s/1.txt", "good")
    write("in/lang=en/train/neg/2.txt", "bad")
    rows = read(tmp_path / "in", need_label=True)
    assert rows.select(["label", "split"]).to_pylist() == [
        {"label": "neg", "split": "train"},
        {"label": "po s", "split": "test"},
    ]
    # A review's own name says nothing where others' do not.
    write("plain/pos/my-test.txt", "good")
    write("plain/pos/other.txt", "good")
    assert [file.split for file in resolve(str(tmp_path / "plain")).files] == [None, None]


def test_splits_and_classes_in_one_name(write, tmp_path):
    for name in ("train-pos", "train_neg", "testPos", "test-5star", "unsup"):
        write(f"folders/{name}/1.txt", "fine")
    assert [(file.label, file.split) for file in resolve(str(tmp_path / "folders")).files] == [
        ("5star", "test"),
        ("Pos", "test"),
        ("pos", "train"),
        ("neg", "train"),
        (None, "unsup"),
    ]
    for name in ("about.txt", "pos/train_1.txt", "pos/test_1.txt", "dev/neg/train_2.txt"):
        write(f"files/{name}", "fine")
    assert [(file.name, file.label, file.split) for file in resolve(str(tmp_path / "files")).files] == [
        ("dev/neg/train_2.txt", "neg", "validation"),
        ("pos/test_1.txt", "pos", "test"),
        ("pos/train_1.txt", "pos", "train"),
    ]


def test_what_was_taken_from_names_is_said(write, tmp_path):
    for name in ("train-0.csv", "train-1.csv", "test.csv", "lang=en/more.csv", "a.md", "b.py", "c.png", "d.pdf"):
        write(name, ROWS)
    assert (
        resolve(str(tmp_path))
        .describe()
        .endswith(
            "4 files (csv), 0.0 MB, split from names, unless a column says it: train 2 files, none 1, test 1, "
            "columns from folders: lang, "
            "4 others ignored (a.md, b.py, c.png, …)"
        )
    )


@pytest.mark.parametrize(
    ("uri", "out", "message"),
    [
        ("in", "in/model", "--out .*in/model lies in the input .*in, where the next run"),
        ("in/**/*.csv", "in/model", "lies in the input"),
        ("in/*", "in/words.txt", "lies in the input"),
        ("in", "in", "the input .*in lies in --out .*in: give the output"),
        ("in/a.csv", ".", "the input .*a.csv lies in --out"),
        ("link", "in/model", "lies in the input"),
        ("in/*.csv", "in", "the input .* lies in --out"),
        ("in/*.csv", "in/model", None),
        ("in/a.csv", "in/model", None),
        ("in", "input", None),
        ("in", "in.work", None),
        ("synthetic:10", ".", None),
    ],
)
def test_neither_output_nor_input_lies_in_the_other(write, tmp_path, uri, out, message):
    write("in/a.csv", ROWS)
    (tmp_path / "link").symlink_to("in")
    uri = uri if uri.startswith("synthetic") else f"{tmp_path}/{uri}"
    if message is None:
        require_apart(uri, f"{tmp_path}/{out}")
        return
    with pytest.raises(SentrayError, match=message):
        require_apart(uri, f"{tmp_path}/{out}")


def test_what_datasets_writes_beside_its_files_is_no_review(write, tmp_path):
    write("dataset_dict.json", json.dumps({"splits": ["train"]}))
    table = pa.table({"text": ["good"], "label": ["pos"]})
    for split in ("train", "test"):
        write(f"{split}/state.json", "{}")
        with pa.ipc.new_stream(tmp_path / split / "data-00000-of-00001.arrow", table.schema) as stream:
            stream.write_table(table)
    write("train/cache-0123abcd.arrow", (tmp_path / "train/data-00000-of-00001.arrow").read_bytes())
    source = resolve(str(tmp_path))
    assert [(file.name, file.split) for file in source.files] == [
        ("test/data-00000-of-00001.arrow", "test"),
        ("train/data-00000-of-00001.arrow", "train"),
    ]
    assert len(source.ignored) == 4
