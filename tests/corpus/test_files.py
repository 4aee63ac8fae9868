"""Files of word vectors and corpora wherever they are and however they are compressed."""

import bz2
import gzip
import io
import lzma
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import fs

from sentray.corpus import limits
from sentray.corpus.files import opened
from sentray.corpus.source import resolve
from sentray.embeddings.read import read_vectors
from sentray.errors import SentrayError

TEXT = b"".join(b"word%d %d 0.5\n" % (index, index) for index in range(20_000))


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as writer:
        for name, content in members.items():
            writer.writestr(name, content)
    return archive.getvalue()


def _zstd(content: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(content)
    return packed.getvalue().to_pybytes()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": _zstd,
    "zip": lambda content: _zip({"vectors": content}),
}


@pytest.mark.parametrize("kind", PACKED)
def test_what_a_file_is_its_content_says(tmp_path: Path, kind: str) -> None:
    # The name says something else.
    file = tmp_path / "vectors.bin.gz"
    file.write_bytes(PACKED[kind](TEXT))
    for name in (str(file), f"file://{file}"):
        vectors, report = read_vectors(name)
        assert (report.compression, report.rows, report.dimensions) == (kind, 20_000, 2)
        assert vectors.rows[:, 0].tolist() == list(range(20_000))


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd"])
def test_several_streams_in_one_file_are_one(tmp_path: Path, kind: str) -> None:
    # More zeros than are read at once.
    padding = bytes(9 << 20) if kind == "xz" else b""
    (tmp_path / "vectors").write_bytes(PACKED[kind](TEXT[:1000]) + padding + PACKED[kind](TEXT[1000:]) + padding)
    assert len(read_vectors(str(tmp_path / "vectors"))[0].words) == 20_000


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd", "zip"])
def test_a_damaged_archive_is_refused(tmp_path: Path, kind: str) -> None:
    whole, file = PACKED[kind](TEXT), tmp_path / "vectors"
    turned = bytearray(whole)
    for index in range(len(whole) // 2, len(whole) // 2 + 8):
        turned[index] ^= 0xFF
    for content in (whole[: len(whole) // 2], bytes(turned), whole[:12]):
        file.write_bytes(content)
        with pytest.raises(
            SentrayError, match=r"^\S+ (cannot be read \(.+\): it seems damaged or out of reach|holds no byte)"
        ):
            read_vectors(str(file))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_whatever_is_wrong_with_a_zip_archive_is_one_sentence(tmp_path: Path, method: int) -> None:
    whole, file, drawn = (
        _zip({"vectors": TEXT[: TEXT.index(b"word20 ")]}, method),
        tmp_path / "vectors",
        random.Random(method),
    )
    file.write_bytes(whole)
    good = read_vectors(str(file))[0]
    for _ in range(300):
        content = bytearray(whole)
        content[drawn.randrange(len(whole))] = drawn.randrange(256)
        content[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
        file.write_bytes(content)
        try:
            assert read_vectors(str(file))[0].words == good.words
        except SentrayError:
            continue


def test_a_member_of_a_zip_archive(tmp_path: Path) -> None:
    file = tmp_path / "glove.zip"
    file.write_bytes(_zip({"glove.50d.txt": TEXT, "more/glove.100d.txt": b"a 1 2 3\n", "__MACOSX/x": b"x"}))
    with pytest.raises(
        SentrayError, match=r"several files \(glove.50d.txt, more/glove.100d.txt\): name one, as in .*zip#glove.50d.txt"
    ):
        read_vectors(str(file))
    assert read_vectors(f"{file}#more/glove.100d.txt")[0].words == ["a"]
    assert read_vectors(f"file://{file}#glove.50d.txt")[1].rows == 20_000
    with pytest.raises(SentrayError, match=r"has no member glove.300d.txt, but glove.50d.txt, "):
        read_vectors(f"{file}#glove.300d.txt")
    (tmp_path / "vectors.zip").write_bytes(b"a 1 2 3\n")
    with pytest.raises(SentrayError, match="is no zip archive, so that it has no member x"):
        read_vectors(f"{tmp_path}/vectors.zip#x")
    (tmp_path / "c#.txt").write_bytes(b"a 1 2 3\n")
    assert read_vectors(f"{tmp_path}/c#.txt")[0].words == ["a"]


def test_an_archive_of_one_file_among_folders(tmp_path: Path) -> None:
    file = tmp_path / "vectors.zip"
    file.write_bytes(_zip({"folder/": b"", "folder/vectors.txt": TEXT, "__MACOSX/folder/._vectors.txt": b"x"}))
    assert read_vectors(str(file))[1].rows == 20_000
    file.write_bytes(_zip({"folder/": b""}))
    with pytest.raises(SentrayError, match="without a file in it"):
        read_vectors(str(file))


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    content = bytearray(_zip({"vectors": TEXT}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "vectors.zip").write_bytes(content)
    with pytest.raises(SentrayError, match="is encrypted: unzip it"):
        read_vectors(str(tmp_path / "vectors.zip"))


def test_compressed_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_bytes(gzip.compress(lzma.compress(TEXT)))
    with pytest.raises(SentrayError, match="compressed twice"):
        read_vectors(str(tmp_path / "vectors"))


def test_a_bomb_is_read_piece_by_piece(tmp_path: Path) -> None:
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"a 1 2\nb 3 4\n" + bytes(200 << 20), 9))
    with pytest.raises(SentrayError, match="no end of line 3 is found"):
        read_vectors(str(tmp_path / "bomb.gz"))


def test_a_row_that_begins_like_an_archive_is_text(tmp_path: Path) -> None:
    (tmp_path / "vectors").write_bytes(b"BZh9 1 2\nPK 3 4\n")
    assert read_vectors(str(tmp_path / "vectors"))[0].words == ["BZh9", "PK"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder: name a file"),
        ("absent.txt", "there is no file .*absent.txt: check the path"),
        ("absent.zip#member", "there is no file .*absent.zip#member: check the path"),
        ("/dev/null", "is no regular file"),
        ("nosuch://bucket/vectors.txt", "cannot be opened .*pyarrow knows"),
    ],
)
def test_what_is_not_a_file_is_refused(tmp_path: Path, name: str, message: str) -> None:
    path = name if name.startswith(("/", "nosuch")) else f"{tmp_path}/{name}"
    with pytest.raises(SentrayError, match=message), opened(path):
        pass


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "tsv"])
def test_a_corpus_compressed_in_any_way(write, read, kind: str, suffix: str) -> None:
    content = b'{"text": "fine"}\n' * 10_000 if suffix == "jsonl" else b"text\n" + b"fine\n" * 10_000
    ends = {"none": "", "gzip": ".gz", "bzip2": ".bz2", "xz": ".xz", "zstd": ".zst", "zip": ".zip"}
    for name in (f"a.{suffix}{ends[kind]}", f"b.{suffix}"):
        # A part of a file that is compressed cannot be read alone.
        assert read(write(name, PACKED[kind](content)), size=1000)["row"].to_pylist() == list(range(1, 10_001))


def test_a_member_of_an_archive_as_a_corpus(write, read, archive, tmp_path: Path) -> None:
    content = archive({"in/train.csv": b"text\nfine\n", "in/test.jsonl": b'{"text": "bad"}\n'})
    path = write("a.zip", content)
    with pytest.raises(
        SentrayError, match=r"several files \(in/train.csv, in/test.jsonl\): name one, as in .*a.zip#in/t"
    ):
        resolve(str(path))
    for uri in (f"{path}#in/test.jsonl", f"file://{path}#in/test.jsonl"):
        table = read(uri)
        assert table.select(["id", "text", "split"]).to_pylist() == [
            {"id": "a.zip#in/test.jsonl:1", "text": "bad", "split": "test"}
        ]
    assert resolve(f"{path}#in/test.jsonl").local_file == str(path)
    with pytest.raises(SentrayError, match=r"has no member x.csv, but in/train.csv"):
        read(f"{path}#x.csv")
    named = write("named", content)
    with pytest.raises(SentrayError, match=r"test.jsonl\): give it a name in .zip, and name one"):
        resolve(str(named))
    with pytest.raises(SentrayError, match=r"c.zip is no zip archive, so that it has no member b.csv: leave out #b"):
        read(f"{write('c.zip', 'text')}#b.csv")
    with pytest.raises(SentrayError, match=r"d.zip#a.parquet is read only as a file of its own: unzip it first"):
        resolve(f"{write('d.zip', archive({'a.parquet': b'PAR1'}))}#a.parquet")
    (alone := tmp_path / "one.zip").write_bytes(archive({"train.csv": b"text\nfine\n"}))
    assert [(file.name, file.split) for file in resolve(str(alone)).files] == [("one.zip#train.csv", "train")]


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zstd", "zip"])
def test_a_bomb_ends_a_corpus(write, read, monkeypatch, kind: str) -> None:
    monkeypatch.setattr(limits, "FREE_INFLATION", 1 << 20)
    with pytest.raises(SentrayError, match=r"a\.csv becomes more than 200 times as large as it is stored"):
        read(write("a.csv", PACKED[kind](b"text\n" + b"x\n" * (2 << 20))))


def test_a_dictionary_that_takes_a_machine(write, read) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    with pytest.raises(SentrayError, match=r"a\.csv cannot be read \(Memory usage limit exceeded\)"):
        read(write("a.csv", lzma.compress(b"text\nx\n", filters=filters)))


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.jsonl", "a.jsonl.gz", "a.csv", "a.arrow", "a.zip", "nosuffix", "pos/a.txt"]
)
def test_a_pointer_of_git_lfs_is_named(write, read, name: str) -> None:
    path = write(name, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(SentrayError, match=rf"{name} is a Git LFS pointer, not the file: run `git lfs pull`"):
        read(path.parent if name.startswith("pos/") else path)


@pytest.mark.parametrize("name", ["a.xlsx", "a.csv", "nosuffix"])
def test_excel_is_refused_with_the_cure(write, read, archive, name: str) -> None:
    for content in (archive({"[Content_Types].xml": b"", "xl/workbook.xml": b""}), b"\xd0\xcf\x11\xe0" + bytes(100)):
        if name != "a.csv" or content.startswith(b"PK"):
            with pytest.raises(SentrayError, match=rf"{name} is an Excel file: save its sheet as CSV \(UTF-8\)"):
                read(write(name, content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"text,label\nfine,pos\n", "csv"),
        (b'\xef\xbb\xbf {"text": "fine"}\n', "jsonl"),
        (b"__label__pos fine\n", "lines"),
        (gzip.compress(b'{"text": "fine"}\n', mtime=0), "jsonl"),
    ],
)
def test_a_file_without_a_suffix_by_its_content(write, read, tmp_path: Path, content: bytes, expected: str) -> None:
    write("in/part-0", content)
    write("in/LICENSE", "as it is")
    source = resolve(str(tmp_path / "in"))
    assert (source.format, source.ignored) == (expected, ("LICENSE",))
    assert read(tmp_path / "in")["text"].to_pylist() == ["fine"]


def test_an_object_store_is_asked_for_bucket_and_key(tmp_path: Path, monkeypatch) -> None:
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    monkeypatch.setattr("sentray.corpus.source.locate", lambda uri: (store, uri.partition("://")[2]))
    monkeypatch.setattr("sentray.corpus.files.locate", lambda uri: (store, uri.partition("://")[2]))
    with pytest.raises(SentrayError, match=r"there is no file or folder s3://b/a: check the bucket and the key$"):
        resolve("s3://b/a")
    with pytest.raises(SentrayError, match=r"s3://b/\*\.csv names no file: no key begins so; check bucket and key$"):
        resolve("s3://b/*.csv")
    with (
        pytest.raises(SentrayError, match=r"there is no file s3://b/a: check the bucket and the key$"),
        opened("s3://b/a"),
    ):
        pass
