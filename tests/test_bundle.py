"""A bundle is read back as it was made, or refused in one sentence; it is published whole, and in place of no other."""

import errno
import itertools
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sentray import bundle
from sentray.bundle import Bundle, GoldenText, ModelSpec
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.storage import Folder
from sentray.text.cleaning import preset
from sentray.text.hashing import HashedWords, Words
from sentray.text.ngrams import GramSpec, key, make_table
from sentray.text.vocabulary import Vocabulary
from sentray.training.run import train

RULES, _ = preset("reviews")
LISTED = Vocabulary(["good", "na\u00efve", "bad\x85".strip()], "share")
TRAINED_ON = {"split_by": "id", "test_fraction": 0.1, "sampled": 1, "bytes": 1, "digest": ""}
DATA = Path(__file__).with_name("data")


def make(model: bytes = b"a network", words: Words = LISTED, accuracy: float = 0.5) -> Bundle:
    """A bundle whose network is any bytes: what they mean is the engine's matter."""
    spec = ModelSpec.of(
        words,
        architecture="tutorial-cnn.v1",
        cleaning=RULES,
        labels=("neg", "pos"),
        max_length=17,
        truncating="post",
    )
    return bundle.make(
        spec,
        words,
        {bundle.MODEL: model},
        settings={"epochs": 3},
        metrics={"test_accuracy": accuracy, "test_auc": None},
        golden=[GoldenText(text="line\u2028and\nline", scores={"neg": 0.25, "pos": 0.75})],
    )


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    return bundle.publish(make(), str(tmp_path / "bundle"))


@pytest.fixture
def hashed(tmp_path: Path) -> Bundle:
    """A bundle without a vocabulary."""
    return bundle.publish(make(words=HashedWords(50)), str(tmp_path / "hashed"))


# --- Made and read


def test_reads_back_what_was_made(written: Bundle) -> None:
    found = bundle.load(written.path)
    assert found == written == make()
    assert found.spec == written.spec
    assert (found.labels, found.spec.max_length, found.spec.truncating) == (("neg", "pos"), 17, "post")
    assert found.spec.cleaning == RULES
    assert found.vocabulary == Vocabulary(["good", "naïve", "bad"], "share")
    assert found.golden[0].text == "line\u2028and\nline"
    assert found.versions["sentray"]
    names = {"model.keras", "vocabulary.txt", "golden.json", "bundle.json"}
    assert {path.name for path in Path(found.path).iterdir()} == names == set(found.files)


def test_digest_stands_for_the_content() -> None:
    first, again, other = make(), make(), make(b"another network")
    assert first.digest == again.digest != other.digest
    assert len(first.digest) == 64
    updated = bundle.update(again, metrics={"test_accuracy": 0.6})
    assert updated.digest != first.digest
    assert (updated.metrics, updated.golden) == ({"test_accuracy": 0.6}, first.golden)


def test_files_of_other_engines_belong_to_it(tmp_path: Path) -> None:
    plain = make()
    files = plain.files | {"folded.npz": b"tables", "notes.txt": b"not part of it"}
    made = bundle.publish(bundle.make(plain.spec, LISTED, files), str(tmp_path / "made"))
    assert set(made.files) == {"model.keras", "vocabulary.txt", "golden.json", "bundle.json", "folded.npz"}
    assert made.digest != plain.digest
    (tmp_path / "made" / "folded.npz").write_bytes(b"others")
    with pytest.raises(SentrayError, match=r"folded\.npz is not the file"):
        bundle.load(made.path)


def test_travels_as_its_files(written: Bundle) -> None:
    found = bundle.unpack(pickle.loads(pickle.dumps(written.files)))
    assert (found, found.path) == (written, "")
    with pytest.raises(SentrayError, match=r"^the bundle is damaged: model\.keras is not the file"):
        bundle.unpack(written.files | {"model.keras": b"another"})


def test_loads_from_a_uri(written: Bundle) -> None:
    uri = Path(written.path).as_uri()
    found = bundle.load(uri)
    assert (found.digest, found.path) == (written.digest, uri)
    assert found.files[bundle.MODEL] == b"a network"


def test_hashed_words_need_no_vocabulary(hashed: Bundle) -> None:
    assert bundle.load(hashed.path) == hashed
    assert hashed.vocabulary == HashedWords(50)
    names = {"model.keras", "golden.json", "bundle.json"}
    assert set(hashed.files) == names
    # A vocabulary that lies there is not part of it.
    Path(hashed.path, "vocabulary.txt").write_text("good\n")
    updated = bundle.update(bundle.load(hashed.path), metrics={"test_accuracy": 0.6})
    assert updated.digest != hashed.digest
    assert set(updated.files) == names


def test_n_grams_are_part_of_it(tmp_path: Path) -> None:
    plain, table = make(), make_table(np.array([key(1), key(3), key(3, 1)], np.uint64))
    spec = plain.spec.model_copy(update={"grams": GramSpec(skip=False)})
    made = bundle.make(spec, LISTED, {**plain.files, bundle.GRAMS: table.tobytes()})
    assert (plain.grams, plain.spec.grams) == (None, None)
    found = bundle.load(bundle.publish(made, str(tmp_path / "made")).path)
    # Whoever scores has it in memory that is shared.
    for each in (found, bundle.unpack(found.scoring_files)):
        assert each.grams is not None
        assert each.spec.grams == GramSpec(skip=False)
        rows = each.grams.of(np.array([3, 1], np.int32), np.array([0, 2])).rows
        assert each.grams.gram_texts(rows.tolist()) == ["bad", "bad good", "good"]
    for content, message in ((b"1234567", "cannot be parsed"), (bytes([1]) * 64, "cannot be parsed")):
        with pytest.raises(SentrayError, match=message):
            bundle.make(spec, LISTED, {**plain.files, bundle.GRAMS: content})
    with pytest.raises(ValueError, match=r"both n-grams and grams\.bin, or neither"):
        bundle.make(spec, LISTED, plain.files)


def test_a_bundle_knows_what_it_was_trained_on(tmp_path: Path) -> None:
    found = bundle.load(DATA / "format-3")
    assert found.split_rule == {"split_by": "text", "test_fraction": 0.1}
    column = pa.chunked_array([pa.array(["a good film", "another", "a bad film"], pa.large_string())])
    assert found.texts is not None
    assert found.texts.among(column).tolist() == [True, False, True]
    assert bundle.update(found, metrics={}).trained_on == found.trained_on
    # Whoever scores needs none of it, and whoever loads the whole has it checked.
    packed = bundle.unpack(found.scoring_files)
    assert (packed.digest, "texts.bin" in packed.files) == (found.digest, False)
    copy = bundle.publish(found, str(tmp_path / "copy"))
    Path(copy.path, "texts.bin").write_bytes(found.files["texts.bin"][:-8])
    with pytest.raises(SentrayError, match=r"texts\.bin is not the file"):
        bundle.load(copy.path)


def test_earlier_bundles_held_rows_out_by_their_ids() -> None:
    found = bundle.load(DATA / "format-2")
    assert (found.trained_on, found.texts) == (None, None)
    assert found.split_rule == {"split_by": "id", "test_fraction": 0.1}
    assert replace(found, settings={"test_fraction": 0.25}).split_rule["test_fraction"] == 0.25
    assert replace(found, settings={"test_fraction": "much"}).split_rule["test_fraction"] == 0.1


@pytest.mark.parametrize("engine", ["folded", "keras"])
@pytest.mark.parametrize("format", ["format-1", "format-2", "format-2-hashed", "format-3", "format-4", "format-5"])
def test_bundles_of_earlier_versions_score_as_they_did(format: str, engine: str) -> None:
    """Made by the code of November 2026, the first of them with the manifest of a version before that.

    That of format 4 is a `wide-deep` of 160 made up sentences, with characters, a temperature and a threshold. That of
    format 5 has several labels, a column of numbers and random weights; a function of a module that is gone built it.
    """
    from sentray.inference.scorer import Scorer

    found = bundle.load(DATA / format)
    assert json.loads(found.files[bundle.MANIFEST])["format_version"] == int(format.split("-")[1])
    texts = pa.array([text.text for text in found.golden], pa.large_string())
    wanted = [[text.scores[label] for label in found.labels] for text in found.golden]
    assert len(wanted) == {"format-4": 5, "format-5": 4}.get(format, 8)
    # A deviation above the mean.
    numbers = np.array([[each.mean + each.scale for each in found.spec.numeric]] * len(wanted))
    scores = Scorer(found, engine).score(texts, numbers).probabilities
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-6)


def test_the_form_of_a_bundle_stays() -> None:
    """What older versions of sentray read: an unchanged model has an unchanged manifest, but for what came since."""
    found = bundle.load(DATA / "format-3")
    stored, again = json.loads(found.files[bundle.MANIFEST]), json.loads(bundle.update(found).files[bundle.MANIFEST])
    assert stored.pop("versions").keys() == again.pop("versions").keys()
    decision = {"threshold": None, "unsure": None, "thresholds": None}
    new = {"format_version": 5, "grams": None, "deep": None, "calibration": None, "decision": decision}
    new |= {"task": "classification", "numeric": [], "function": None}
    assert stored | new == again


def test_a_model_that_no_bundle_can_hold_is_refused() -> None:
    for labels, reason in (((str(number) for number in range(10_001)), "labels: "), (("a", "a"), "a label twice")):
        with pytest.raises(SentrayError, match=f"no bundle can hold this model .*{reason}") as error:
            ModelSpec.of(LISTED, architecture="a.v1", cleaning=RULES, labels=tuple(labels), max_length=5)
        assert "\n" not in str(error.value)


# --- Damaged and hostile


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        values = json.loads((folder / bundle.MANIFEST).read_text())
        change(values)
        (folder / bundle.MANIFEST).write_text(json.dumps(values))

    return spoil


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
    Path(hashed.path, "vocabulary.txt").write_text("good\n")
    edit(change)(Path(hashed.path))
    with pytest.raises(SentrayError, match=message) as error:
        bundle.load(hashed.path)
    assert "\n" not in str(error.value)


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
        (edit(lambda values: values.update(format_version=6)), "bundle format 6"),
        (
            edit(lambda values: values.update(format_version=10**30)),
            r"cannot be parsed \(Input.*or equal to 5",
        ),
        (edit(lambda values: values.update(format_version=1.5)), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values.update(format_version=1e400)), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values.update(format_version=True)), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values["metrics"].update(coverage="x")), "its coverage is no share"),
        (edit(lambda values: values["metrics"].update(coverage=[1])), "its coverage is no share"),
        (edit(lambda values: values["metrics"].update(coverage=float("nan"))), "its coverage is no share"),
        (edit(lambda values: values.update(format_version=0)), "greater than or equal to 1"),
        (edit(lambda values: values.update(buckets=50)), "either buckets or"),
        (edit(lambda values: values.update(decision={"threshold": 2})), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values.update(calibration={"temperature": 0})), r"bundle\.json cannot be parsed"),
        (
            edit(lambda values: values.update(labels=["a", "b", "c"], decision={"threshold": 0.4})),
            "it has a threshold, which only two labels can have",
        ),
        (edit(lambda values: values.update(format_version="x")), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values.pop("labels")), r"bundle\.json cannot be parsed"),
        (edit(lambda values: values["files"].pop("golden.json")), r"lists no golden\.json"),
        (edit(lambda values: values["files"].update({"../x": "0"})), "does not belong"),
        (edit(lambda values: values["labels"].append("more")), "golden"),
        (edit(lambda values: values.update(trained_on=TRAINED_ON)), r"and texts\.bin, or neither"),
        (edit(lambda values: values["files"].update({"texts.bin": "0" * 64})), r"and texts\.bin, or neither"),
    ],
)
def test_refuses_in_one_sentence(written: Bundle, spoil: Callable[[Path], None], message: str) -> None:
    spoil(Path(written.path))
    with pytest.raises(SentrayError, match=message) as error:
        bundle.load(written.path)
    assert "\n" not in str(error.value)
    assert written.path in str(error.value)


@pytest.mark.parametrize("name", ["bundle.json", "model.keras", "golden.json"])
def test_a_bundle_with_a_pipe_does_not_wait(written: Bundle, name: str) -> None:
    file = Path(written.path, name)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(SentrayError, match=f"is damaged: {name}: it is no regular file"):
        bundle.load(written.path)


def test_a_folder_that_is_not_there_is_no_bundle(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", (tmp_path / "nowhere").as_uri(), "wrong://x/y"):
        with pytest.raises(SentrayError, match=r"not a bundle|cannot be opened"):
            bundle.load(path)


# --- Published


@pytest.fixture
def finished() -> Bundle:
    return make()


@pytest.fixture
def newer() -> Bundle:
    return make(b"a better network", accuracy=0.9)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every folder pass for one that cannot rename, as an object store cannot."""
    usual = Folder.__init__

    def init(folder: Folder, out: str) -> None:
        usual(folder, out)
        folder.local = False

    monkeypatch.setattr(Folder, "__init__", init)


@pytest.fixture(params=["renamed", "uploaded"])
def way(request: pytest.FixtureRequest) -> str:
    if request.param == "uploaded":
        request.getfixturevalue("remote")
    return request.param


def test_a_bundle_is_replaced_whole(finished: Bundle, tmp_path: Path, way: str) -> None:
    out = tmp_path / "models" / "mine"
    out.parent.mkdir()
    out.mkdir()
    first = bundle.publish(finished, str(out), {"metrics.json": b"[]"})
    assert first.digest == finished.digest
    # What the old one had and the new one has not, what a killed writer left, and what somebody put there.
    (out / bundle.FOLDED).write_bytes(b"old")
    (out / f".{bundle.MODEL}.{'0' * 32}").write_bytes(b"half")
    (out / "thesis").mkdir()
    (out / "thesis" / "chapter1.tex").write_text("much work")
    newer = bundle.publish(bundle.update(finished, metrics={}), str(out), {"metrics.json": b"{}"})
    assert newer.path == str(out)
    assert bundle.load(out) == newer
    assert newer.metrics == {}
    assert {path.name for path in out.iterdir()} == {*newer.files, "metrics.json", "thesis"}
    assert (out / "metrics.json").read_bytes() == b"{}"
    assert (out / "thesis" / "chapter1.tex").read_text() == "much work"
    assert [path.name for path in out.parent.iterdir()] == ["mine"]


def test_what_is_no_bundle_is_spared(finished: Bundle, tmp_path: Path, way: str) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("much work")
    with pytest.raises(SentrayError, match=r"thesis exists and is not a bundle; choose another --out, or remove it$"):
        bundle.publish(finished, str(out))
    assert (out / "chapter1.tex").read_text() == "much work"


def test_a_file_is_spared(finished: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("much work")
    with pytest.raises(SentrayError, match=r"thesis cannot be read .*; choose another --out"):
        bundle.publish(finished, str(tmp_path / "thesis"))


def test_a_marker_beside_a_whole_bundle_goes_when_training_is_called_again(finished: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = TrainSettings(corpus="unused", out=str(out))
    made = bundle.make(finished.spec, LISTED, finished.files, settings=settings.model_dump(mode="json"))
    bundle.publish(made, str(out))
    (out / bundle.UNFINISHED).touch()
    train(settings, Console(silent=True))
    assert {path.name for path in out.iterdir()} == set(made.files)


def test_a_damaged_bundle_where_training_writes_has_a_cure_that_works(written: Bundle) -> None:
    Path(written.path, bundle.MODEL).unlink()
    with pytest.raises(SentrayError, match=r"is damaged: model\.keras is missing .*; copy it again, or remove it and"):
        train(TrainSettings(corpus="unused", out=written.path), Console(silent=True))


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.usefixtures("way")
def test_no_moment_shows_half_a_bundle(
    finished: Bundle, newer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after each change: there is the old bundle, none, or the new one, and publishing can be done again."""
    seen = []
    for moment in itertools.count():
        out = tmp_path / f"out{moment}"
        out.mkdir()
        bundle.publish(finished, str(out), {"old.json": b"{}"})
        try:
            _publish_until(moment, newer, out, monkeypatch)
            break
        except Killed:
            seen.append(_accuracy(out))
            assert bundle.publish(newer, str(out)).digest == newer.digest
            assert not (out / bundle.UNFINISHED).exists()
    assert [accuracy for accuracy, _ in itertools.groupby(seen)] == [0.5, None, 0.9]


def _publish_until(moment: int, newer: Bundle, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish, and be killed after so many changes of the folder."""
    changes = iter(range(moment))

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def then(*arguments: object) -> None:
            if next(changes, None) is None:
                raise Killed
            change(*arguments)

        return then

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "write", counted(Folder.write))
        patched.setattr(Folder, "delete", counted(Folder.delete))
        bundle.publish(newer, str(out))


def _accuracy(out: Path) -> float | None:
    return bundle.load(str(out)).metrics["test_accuracy"] if (out / bundle.MANIFEST).exists() else None


def test_a_full_disk_is_one_sentence(
    finished: Bundle, newer: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    bundle.publish(finished, str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(SentrayError, match=r"cannot be written \(.*No space left on device.*; make room"):
            bundle.publish(newer, str(tmp_path / "out"))
    assert bundle.publish(newer, str(tmp_path / "out")) == bundle.load(tmp_path / "out")


def test_a_folder_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SentrayError, match=r"nosuch://x cannot be opened"):
        bundle.check_free("nosuch://x")
    bundle.check_free(str(tmp_path / "nothing"))
    bundle.check_free((tmp_path / "nothing").as_uri())


def test_a_value_does_not_change_with_its_folder(written: Bundle) -> None:
    Path(written.path, bundle.MODEL).write_bytes(b"another")
    assert bundle.publish(written, written.path).files[bundle.MODEL] == b"a network"
    assert bundle.load(written.path) == written


@pytest.mark.parametrize("labels", [("a", "b", "c"), ("10", "2"), ("1", "1.0"), ("1", "inf")])
def test_steps_are_ascending_numbers(labels: tuple[str, ...]) -> None:
    about = {"architecture": "a.v1", "cleaning": RULES, "max_length": 5, "task": "ordinal"}
    assert ModelSpec.of(LISTED, labels=("-1", "0.5", "10"), **about).labels[1] == "0.5"
    with pytest.raises(SentrayError, match="its labels are no numbers in ascending order"):
        ModelSpec.of(LISTED, labels=labels, **about)
