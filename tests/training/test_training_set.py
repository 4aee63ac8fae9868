"""A training set is read from where it lies, by its path or from another file system, and is whole or not there."""

import mmap
import socket
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentray.bundle import ModelSpec, TrainedOn
from sentray.corpus.identity import TextHashes
from sentray.corpus.source import resolve
from sentray.errors import SentrayError
from sentray.storage import Folder
from sentray.text.cleaning import preset
from sentray.text.hashing import HashedWords, Words
from sentray.text.vocabulary import Vocabulary
from sentray.training import training_set
from sentray.training.training_set import Facts, TrainingSet

TRAINED_ON = TrainedOn(split_by="text", test_fraction=0.1, sampled=1, bytes=0, digest="")
TEXTS = TextHashes(np.array([3, 7], np.uint64))
VECTORS = np.arange(8, dtype=np.float32).reshape(4, 2)


@pytest.fixture(params=["listed", "hashed"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two reviews, of the words 3 1 and 2, in a folder with a name that is no URI's."""
    folder = tmp_path / "a set?100 %"
    folder.mkdir()
    (folder / training_set.IDS_FILE).write_bytes(np.array([3, 1, 2], np.int32).tobytes())
    listed = request.param == "listed"
    words: Words = Vocabulary(["good", "naïve", "bad"]) if listed else HashedWords(3)
    spec = ModelSpec.of(
        words, architecture="embedding-mlp.v1", cleaning=preset("reviews")[0], labels=("neg", "pos"), max_length=5
    )
    facts = Facts(spec, 2, (1, 1), (1,), None, {"embedding": {"rows": 3} if listed else None}, TRAINED_ON)
    vectors, weights = (VECTORS, np.array([0.5, 2], np.float32)) if listed else (None, None)
    held = np.array([255, 0], np.uint8)
    offsets, targets = np.array([0, 2, 3]), np.array([1, 0], np.int32)
    source = resolve("synthetic:2")
    training_set.write(
        Folder(str(folder)), facts, words, offsets, targets, held, TEXTS, source, vectors, weights=weights
    )
    return folder


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Lets every folder pass for one that this machine cannot map; gives where temporary files lie."""
    made = Folder.__init__

    def init(folder: Folder, out: str) -> None:
        made(folder, out)
        folder.local = False

    monkeypatch.setattr(Folder, "__init__", init)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


def is_mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


def check(found: TrainingSet) -> None:
    assert [review.tolist() for review in found.reviews(np.arange(2))] == [[3, 1], [2]]
    assert (found.targets.tolist(), found.held.tolist()) == ([1, 0], [255, 0])
    assert found.texts.values.tolist() == [3, 7]
    assert found.facts.spec.labels == ("neg", "pos")
    assert is_mapped(found.ids)
    if found.facts.spec.buckets is None:
        assert found.vocabulary == Vocabulary(["good", "naïve", "bad"])
        assert found.vectors is not None
        assert is_mapped(found.vectors)
        assert np.array_equal(found.vectors, VECTORS)
        assert found.weights is not None
        assert found.weights.tolist() == [0.5, 2]
    else:
        assert (found.vocabulary, found.vectors) == (HashedWords(3), None)


def test_a_local_set_is_mapped_where_it_lies(written: Path) -> None:
    assert training_set.exists(str(written))
    check(TrainingSet.load(str(written)))


def test_a_remote_set_is_copied_and_leaves_no_file(written: Path, remote: Path) -> None:
    found = TrainingSet.load(str(written))
    assert list(remote.iterdir()) == []
    check(found)


def test_a_set_that_is_not_seen_is_one_sentence(written: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert not training_set.exists(str(nowhere))
    sentence = rf"nowhere cannot be read on {socket.gethostname()} \(.*No such file.*\); choose an --out that"
    for read in (TrainingSet.load, Facts.read):
        with pytest.raises(SentrayError, match=sentence):
            read(str(nowhere))
    (written / training_set.IDS_FILE).unlink()
    with pytest.raises(SentrayError, match=r"cannot be read on .*No such file"):
        TrainingSet.load(str(written))


def test_a_set_of_another_version_is_refused(written: Path) -> None:
    facts = written / "dataset.json"
    facts.write_text(facts.read_text().replace('"spec"', '"rules"'))
    with pytest.raises(SentrayError, match="made by another version of sentray; remove the folder to start anew"):
        TrainingSet.load(str(written))
