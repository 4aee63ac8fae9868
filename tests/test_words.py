"""The word vectors of a bundle: the network's own, readable by others, with neighbours by cosine."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sentray import bundle as bundles
from sentray import models
from sentray.bundle import Bundle, ModelSpec
from sentray.config import SETTINGS_FILE, WordsSettings
from sentray.console import Console
from sentray.embeddings.vectors import Vectors
from sentray.errors import SentrayError
from sentray.inference.folded import Branch, Network, Wide, pack
from sentray.options import UsageError, resolve
from sentray.text.cleaning import preset
from sentray.text.hashing import HashedWords
from sentray.text.ngrams import Grams, GramSpec, character_key, key, make_table
from sentray.text.vocabulary import Unknown, Vocabulary
from sentray.words import bundle_vectors, nearest, words

WORDS = ["good", "bad", "great", "naïve", '"quoted"', "zero\u200b"]
DIMENSIONS = 3


def rows_for(words: int) -> np.ndarray:
    rows = np.random.default_rng(0).normal(size=(words, DIMENSIONS)).astype(np.float32)
    rows[0] = 100  # padding
    rows[1:4] = [[1, 0, 0], [-1, 0.5, 0], [2, 0.1, 0]]
    rows[6] = 0
    return rows


def write_bundle(
    folder: Path, unknown: Unknown = "drop", network: bytes = b"no network", folded: bool = True
) -> Bundle:
    vocabulary = Vocabulary(WORDS, unknown)
    weights = {"embedding": rows_for(vocabulary.size), "kernel0": np.ones((1, DIMENSIONS, 1)), "bias0": np.zeros(1)}
    weights |= {"weights0": np.ones((1, 1)), "units0": np.zeros(1)}
    spec = ModelSpec.of(
        vocabulary,
        architecture="embedding-mlp.v1",
        cleaning=preset("reviews")[0],
        labels=("neg", "pos"),
        max_length=5,
    )
    shape = Network(5, (Branch(1, 1, True, "max", None, 1),), ("sigmoid",))
    files = {bundles.MODEL: network, **(pack(shape, weights) if folded else {})}
    return bundles.publish(bundles.make(spec, vocabulary, files), str(folder))


@pytest.fixture
def written(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("unknown", ["drop", "share"])
def test_rows_of_words_without_padding_and_the_unknown(tmp_path: Path, unknown: Unknown) -> None:
    vectors = bundle_vectors(write_bundle(tmp_path / "bundle", unknown))
    assert vectors.words == WORDS
    np.testing.assert_array_equal(vectors.rows, rows_for(8 if unknown == "share" else 7)[1:7])


@pytest.mark.parametrize("unknown", ["drop", "share"])
def test_the_network_gives_them_where_no_folded_files_do(tmp_path: Path, unknown: Unknown) -> None:
    size = Vocabulary(WORDS, unknown).size
    network = models.architecture("embedding-mlp").build(size, 5, 2, rows_for(size))
    made = write_bundle(tmp_path / "bundle", unknown, models.keras_file(network), folded=False)
    np.testing.assert_array_equal(bundle_vectors(made).rows, rows_for(size)[1:7])


def test_tensorflow_is_left_alone_where_the_folded_files_have_them(written: Bundle) -> None:
    program = (
        "import sys; from sentray import bundle; from sentray.words import bundle_vectors; "
        "bundle_vectors(bundle.load(sys.argv[1])); print(sorted({'keras', 'tensorflow', 'ray'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program, written.path], capture_output=True, text=True, timeout=60)
    assert result.stdout == "[]\n", result.stderr


def test_export_loads_in_gensim_bit_by_bit(written: Bundle, tmp_path: Path) -> None:
    from gensim.models import KeyedVectors

    out = tmp_path / "out" / "vectors.txt"
    vectors = words(WordsSettings(bundle=str(written.path), action="export", out=str(out)), Console())
    loaded = KeyedVectors.load_word2vec_format(out)
    assert loaded.index_to_key == WORDS
    np.testing.assert_array_equal(loaded.vectors, vectors.rows)
    assert (out.parent / f"vectors.txt.{SETTINGS_FILE}").exists()


def test_neighbours_by_cosine_without_the_word_and_zeros(written: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    words(WordsSettings(bundle=str(written.path), action="neighbours", word="good", count=10), Console())
    found = nearest(bundle_vectors(written), "good", 10)
    assert (found[0][0], found[-1][0]) == ("great", "bad")
    assert {word for word, _ in found} == {"great", "bad", "naïve", '"quoted"'}
    assert dict(found)["great"] == pytest.approx(2 / np.sqrt(4.01))
    assert dict(found)["bad"] == pytest.approx(-1 / np.sqrt(1.25))
    assert capsys.readouterr().out.splitlines()[:2] == ["word       cosine", "great      0.9988"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"action": "neighbours"}, "neighbours needs a WORD"),
        ({"action": "grams", "word": "good"}, "grams needs neither"),
        ({"action": "export"}, "export needs --out"),
        ({"action": "projector", "out": "x", "word": "good"}, "projector needs --out and no WORD"),
        ({"action": "sing"}, "ACTION is 'sing'"),
    ],
)
def test_what_an_action_needs_is_told(given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(WordsSettings, {"bundle": "b", **given})


def test_neighbours_agree_with_gensim() -> None:
    from gensim.models import KeyedVectors

    rows = np.random.default_rng(1).normal(size=(300, 20)).astype(np.float32)
    words = [f"w{number}" for number in range(300)]
    gensim = KeyedVectors(20)
    gensim.add_vectors(words, rows)
    ours, theirs = nearest(Vectors(words, rows), "w7", 10), gensim.most_similar("w7", topn=10)
    assert [word for word, _ in ours] == [word for word, _ in theirs]
    np.testing.assert_allclose([cosine for _, cosine in ours], [cosine for _, cosine in theirs], rtol=1e-5)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("grate", "does not know the word 'grate'; near spellings are great$"),
        ("GOOD", "does not know the word 'GOOD'; near spellings are good$"),
        ("xyzzy", "does not know the word 'xyzzy'; `sentray words … export` writes those it knows$"),
        ("zero\u200b", "is zero, so that no word is nearer to it than another"),
    ],
)
def test_a_word_without_neighbours_is_one_sentence(written: Bundle, word: str, message: str) -> None:
    with pytest.raises(SentrayError, match=message):
        words(WordsSettings(bundle=str(written.path), action="neighbours", word=word), Console())


def test_projector_files_have_a_line_a_word_and_no_header(written: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "projector"
    vectors = words(WordsSettings(bundle=str(written.path), action="projector", out=str(out)), Console())
    assert (out / "metadata.tsv").read_text(encoding="utf-8").split("\n") == [*WORDS, ""]
    lines = (out / "vectors.tsv").read_text().split("\n")
    assert lines.pop() == ""
    np.testing.assert_array_equal(np.array([line.split("\t") for line in lines], np.float32), vectors.rows)
    assert {path.name for path in out.iterdir()} == {"metadata.tsv", "vectors.tsv", SETTINGS_FILE}


def test_projector_files_come_into_this_folder_where_none_is_named(
    written: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words(WordsSettings(bundle=str(written.path), action="projector", out=""), Console())
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "metadata.tsv", "vectors.tsv", SETTINGS_FILE}


def test_a_place_that_cannot_be_written_is_one_sentence(written: Bundle, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "vectors.tsv").mkdir(parents=True)
    for out in ("file", "taken"):
        with pytest.raises(SentrayError, match=r"cannot be written \(.*\); choose another"):
            words(WordsSettings(bundle=str(written.path), action="projector", out=str(tmp_path / out)), Console())


@pytest.mark.parametrize("labels", [("neg", "pos"), ("bad", "fair", "good")])
def test_the_heaviest_n_grams_of_each_label(
    tmp_path: Path, labels: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    vocabulary, spec = Vocabulary(WORDS), GramSpec(characters=True, scale=10, character_scale=5)
    keys = [key(1), key(2), key(1, 2), key(1, 0, 3), character_key("<go")]
    grams = Grams(spec, make_table(np.array(keys, np.uint64)), vocabulary)
    columns = 1 if len(labels) == 2 else len(labels)
    kernel = np.full((grams.rows, columns), 9, np.float32)
    kernel[grams.find(np.array(keys, np.uint64))] = (
        np.array([1, -2, -3, 4, 7])[:, None] * np.array([-1, 0.5, 1])[-columns:]
    )
    kernel[0] = 0
    weights = {"kernel0": kernel, "weights0": np.eye(columns), "units0": np.zeros(columns)}
    made = ModelSpec.of(
        vocabulary, architecture="wide.v1", cleaning=preset("reviews")[0], labels=labels, max_length=5, grams=spec
    )
    shape = Network(None, (Wide(columns),), ("sigmoid" if columns == 1 else "softmax",))
    files = {bundles.MODEL: b"", bundles.GRAMS: grams.table.tobytes(), **pack(shape, weights)}
    bundle = bundles.publish(bundles.make(made, vocabulary, files), str(tmp_path / "bundle"))
    found = words(WordsSettings(bundle=bundle.path, action="grams", count=2), Console())
    against, good = [("bad", 20), ("good bad", 30)], [("good _ great", 40), ("<go", 35)]
    wanted = {labels[0]: against[::-1], labels[-1]: good}
    if columns == 3:
        wanted["fair"] = [(text, weight / 2) for text, weight in good]
    assert found == [(label, text, weight) for label in labels for text, weight in wanted[label]]
    assert "good _ great" in capsys.readouterr().out
    with pytest.raises(SentrayError, match="has no word vectors but n-grams"):
        bundle_vectors(bundle)


def test_a_bundle_without_n_grams_says_so(written: Bundle) -> None:
    with pytest.raises(SentrayError, match="has no n-grams, since its model looks at none"):
        words(WordsSettings(bundle=str(written.path), action="grams"), Console())


def _hashed(made: Bundle) -> Bundle:
    return replace(made, vocabulary=HashedWords(6))


def _short(made: Bundle) -> Bundle:
    return replace(made, vocabulary=Vocabulary([*WORDS, "more"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_hashed, "has no list of words, since it was trained with --encoder hash"),
        (_short, r"does not fit it \(it knows 7 words, the bundle 8\): train it again"),
    ],
)
def test_a_bundle_without_rows_for_words_is_refused(
    written: Bundle, change: Callable[[Bundle], Bundle], message: str
) -> None:
    with pytest.raises(SentrayError, match=message):
        bundle_vectors(change(written))


def test_a_network_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SentrayError, match=r"the network in model\.keras of .*damaged cannot be used"):
        bundle_vectors(write_bundle(tmp_path / "damaged", folded=False))
