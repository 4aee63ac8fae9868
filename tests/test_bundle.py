"""A bundle is read back as it was written, or refused in one sentence."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from sentray import bundle
from sentray.bundle import Bundle, GoldenText
from sentray.errors import SentrayError
from sentray.text.cleaning import preset
from sentray.text.hashing import HashedWords, Words
from sentray.text.vocabulary import Vocabulary

RULES, _ = preset("reviews")
LISTED = Vocabulary(["good", "na\u00efve", "bad\x85".strip()], "share")


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    """A bundle whose network is any bytes: what they mean is the engine's matter."""
    return write(tmp_path / "bundle")


@pytest.fixture
def hashed(tmp_path: Path) -> Bundle:
    """A bundle without a vocabulary."""
    return write(tmp_path / "hashed", words=HashedWords(50))


def write(folder: Path, model: bytes = b"a network", words: Words = LISTED) -> Bundle:
    folder.mkdir()
    (folder / bundle.MODEL).write_bytes(model)
    return bundle.write(
        folder,
        architecture="tutorial-cnn.v1",
        rules=RULES,
        vocabulary=words,
        labels=["neg", "pos"],
        max_length=17,
        truncating="post",
        settings={"epochs": 3},
        metrics={"test_accuracy": 0.5, "test_auc": None},
        golden=[GoldenText(text="line\u2028and\nline", scores={"neg": 0.25, "pos": 0.75})],
    )


def test_reads_back_what_was_written(written: Bundle) -> None:
    found = bundle.load(written.path)
    assert found == written
    assert (found.rules, found.labels, found.max_length, found.truncating) == (
        RULES,
        ("neg", "pos"),
        17,
        "post",
    )
    assert found.vocabulary == Vocabulary(["good", "naïve", "bad"], "share")
    assert found.golden[0].text == "line\u2028and\nline"
    assert found.versions["sentray"]
    assert {path.name for path in found.path.iterdir()} == {
        "model.keras",
        "vocabulary.txt",
        "golden.json",
        "bundle.json",
    }


def test_digest_stands_for_the_content(tmp_path: Path) -> None:
    first, again, other = (write(tmp_path / name, name[:1].encode()) for name in ("same1", "same2", "x"))
    assert first.digest == again.digest != other.digest
    assert len(first.digest) == 64
    assert bundle.update(again, metrics={"test_accuracy": 0.6}).digest != first.digest
    assert bundle.load(again.path).metrics == {"test_accuracy": 0.6}


def test_files_of_other_engines_belong_to_it(written: Bundle) -> None:
    (written.path / "folded.npz").write_bytes(b"tables")
    (written.path / "notes.txt").write_bytes(b"not part of it")
    updated = bundle.update(written)
    assert updated.digest != written.digest
    assert set(bundle.pack(updated)) == {
        "model.keras",
        "vocabulary.txt",
        "golden.json",
        "bundle.json",
        "folded.npz",
    }
    (written.path / "folded.npz").write_bytes(b"others")
    with pytest.raises(SentrayError, match=r"folded\.npz is not the file"):
        bundle.load(written.path)


def test_travels_packed(written: Bundle, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    found = bundle.unpack(pickle.loads(pickle.dumps(bundle.pack(written))), target)
    assert (found.digest, found.vocabulary, found.path) == (written.digest, written.vocabulary, target)


def test_loads_from_a_uri(written: Bundle) -> None:
    found = bundle.load(written.path.as_uri())
    assert found.digest == written.digest
    assert found.model_file.read_bytes() == b"a network"


def test_hashed_words_need_no_vocabulary(hashed: Bundle, tmp_path: Path) -> None:
    assert bundle.load(hashed.path) == hashed
    assert hashed.vocabulary == HashedWords(50)
    assert set(bundle.pack(hashed)) == {"model.keras", "golden.json", "bundle.json"}
    (tmp_path / "elsewhere").mkdir()
    assert bundle.unpack(bundle.pack(hashed), tmp_path / "elsewhere").vocabulary == HashedWords(50)
    # A vocabulary that lies there is not part of it.
    (hashed.path / "vocabulary.txt").write_text("good\n")
    updated = bundle.update(hashed, metrics={"test_accuracy": 0.6})
    assert updated.digest != hashed.digest
    assert set(bundle.pack(updated)) == {"model.keras", "golden.json", "bundle.json"}


def test_the_first_format_is_read(written: Bundle) -> None:
    edit(lambda values: (values.pop("buckets"), values.update(format_version=1)))(written.path)
    assert bundle.load(written.path).vocabulary == LISTED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.update(buckets=0), "greater than or equal to 1"),
        (lambda values: values.update(buckets=2**31), "less than or equal to 2147483647"),
        (lambda values: values.update(buckets="many"), "valid integer"),
        (lambda values: values.update(buckets=None), r"either buckets or a vocabulary\.txt"),
        (lambda values: values["files"].update({"vocabulary.txt": "0" * 64}), r"either buckets or a vocabulary\.txt"),
    ],
)
def test_refuses_forged_buckets(hashed: Bundle, change: Callable[[dict], object], message: str) -> None:
    (hashed.path / "vocabulary.txt").write_text("good\n")
    edit(change)(hashed.path)
    with pytest.raises(SentrayError, match=message) as error:
        bundle.load(hashed.path)
    assert "\n" not in str(error.value)


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        values = json.loads((folder / bundle.MANIFEST).read_text())
        change(values)
        (folder / bundle.MANIFEST).write_text(json.dumps(values))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "bundle.json").unlink(), "is not a bundle"),
        (lambda folder: (folder / "model.keras").unlink(), r"model\.keras is missing"),
        (lambda folder: (folder / "model.keras").write_bytes(b"another"), r"model\.keras is not the file"),
        (lambda folder: (folder / "vocabulary.txt").write_text("good\n"), r"vocabulary\.txt is not the file"),
        (lambda folder: (folder / "bundle.json").write_text("{"), r"bundle\.json cannot be parsed"),
        (lambda folder: (folder / "bundle.json").write_text("[]"), r"bundle\.json cannot be parsed"),
        (lambda folder: (folder / "bundle.json").write_bytes(b"\xff\xfe"), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values.update(format_version=3)), "bundle format 3"),
        (edit(lambda values: values.update(format_version=0)), "greater than or equal to 1"),
        (edit(lambda values: values.update(buckets=50)), "either buckets or"),
        (edit(lambda values: values.update(format_version="x")), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values.pop("labels")), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values["files"].pop("golden.json")), r"lists no golden\.json"),
        (edit(lambda values: values["files"].update({"../x": "0"})), "does not belong"),
        (edit(lambda values: values["labels"].append("more")), "golden"),
    ],
)
def test_refuses_in_one_sentence(written: Bundle, spoil: Callable[[Path], None], message: str) -> None:
    spoil(written.path)
    with pytest.raises(SentrayError, match=message) as error:
        bundle.load(written.path)
    assert "\n" not in str(error.value)
    assert str(written.path) in str(error.value)


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    for source in (tmp_path / "nowhere", (tmp_path / "nowhere").as_uri(), "wrong://x/y"):
        with pytest.raises(SentrayError, match=r"not a bundle|cannot be opened"):
            bundle.load(source)
