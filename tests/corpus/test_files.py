"""Files of word vectors wherever they are and however they are compressed."""

import bz2
import gzip
import io
import lzma
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sentray.corpus.files import opened
from sentray.embeddings.read import read_vectors
from sentray.errors import SentrayError

TEXT = b"".join(b"word%d %d 0.5\n" % (index, index) for index in range(20_000))


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method) as writer:
        for name, content in members.items():
            writer.writestr(name, content)
    return archive.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "none": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
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


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
def test_several_streams_in_one_file_are_one(tmp_path: Path, kind: str) -> None:
    # More zeros than are read at once.
    padding = bytes(9 << 20) if kind == "xz" else b""
    (tmp_path / "vectors").write_bytes(PACKED[kind](TEXT[:1000]) + padding + PACKED[kind](TEXT[1000:]) + padding)
    assert len(read_vectors(str(tmp_path / "vectors"))[0].words) == 20_000


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "zip"])
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
    (tmp_path / "vectors.txt").write_bytes(b"a 1 2 3\n")
    with pytest.raises(SentrayError, match="is no zip archive, so that it has no member x"):
        read_vectors(f"{tmp_path}/vectors.txt#x")
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
