"""`sentray words`: a bundle's word vectors, for other tools or as neighbours of a word; the n-grams that weigh most."""

import difflib

import numpy as np
import pyarrow as pa
from pyarrow import csv

from sentray import bundle as bundles
from sentray.bundle import Bundle
from sentray.config import SETTINGS_FILE, WordsSettings, settings_text, write_settings_beside
from sentray.console import Console, count
from sentray.embeddings.vectors import Vectors, write_vectors
from sentray.errors import SentrayError
from sentray.inference import folded
from sentray.inference.explain import sides
from sentray.inference.networks import load_network
from sentray.models import ARCHITECTURES, EMBEDDING, WIDE
from sentray.storage import behind, create, write_text
from sentray.text.ngrams import CHARACTERS
from sentray.text.vocabulary import Vocabulary

VECTORS_TABLE, METADATA = "vectors.tsv", "metadata.tsv"

_SPELLINGS_AMONG = 100_000


def words(
    settings: WordsSettings, console: Console
) -> Vectors | list[tuple[str, float]] | list[tuple[str, str, float]]:
    """Do with a bundle's vectors or n-grams what the settings say.

    Returns:
        All of the bundle's vectors; for `neighbours` the words nearest to the word, with their cosines; for `grams`
        what `heaviest_grams` gives.

    Raises:
        SentrayError: the bundle cannot be read or has no words, it does not know the word or its vector is zero, or the
            output cannot be written.
    """
    bundle = bundles.load(settings.bundle, settings.trust_model)
    if settings.action == "grams":
        heaviest = heaviest_grams(bundle, settings.count)
        console.table(("label", "n-gram", "weight"), heaviest)
        return heaviest
    vectors = bundle_vectors(bundle)
    if settings.action == "neighbours":
        found = nearest(vectors, str(settings.word), settings.count)
        console.table(("word", "cosine"), found)
        return found
    out, how = settings.out or ".", ""
    if settings.action == "export":
        write_vectors(out, vectors)
        write_settings_beside(out, settings)
    else:
        write_projector(out, vectors)
        write_text(behind(out, f"/{SETTINGS_FILE}"), settings_text(settings))
        how = f"; load {VECTORS_TABLE} and {METADATA} in TensorBoard's projector"
    console.say(f"{count(len(vectors.words), 'vector')} of {count(vectors.dimensions, 'number')} in {out}{how}")
    return vectors


def write_projector(folder: str, vectors: Vectors) -> None:
    """Write `vectors.tsv` and `metadata.tsv`, a word a line and without headers, as TensorBoard's projector loads them.

    Raises:
        SentrayError: the folder cannot be written.
    """
    columns = [pa.array(column) for column in vectors.rows.T]
    # Arrow writes the shortest decimal that reads back as the same number.
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with create(behind(folder, f"/{VECTORS_TABLE}")) as stream:
        csv.write_csv(pa.table(columns, [str(column) for column in range(len(columns))]), stream, options)
    # A word of a vocabulary holds no white space, so neither a tab nor the end of a line.
    write_text(behind(folder, f"/{METADATA}"), "".join(f"{word}\n" for word in vectors.words))


def bundle_vectors(bundle: Bundle) -> Vectors:
    """The vectors of a bundle's words in the order of their ids; not those of padding and of the id of unknown words.

    They come from the files of the folded engine where the bundle has them, without TensorFlow, else from the network.

    Raises:
        SentrayError: the bundle's words are hashed, or no embedding with a row for each word is found.
    """
    vocabulary = bundle.vocabulary
    if not isinstance(vocabulary, Vocabulary):
        raise SentrayError(
            f"{bundle} has no list of words, since it was trained with --encoder hash: train with "
            "--encoder vocabulary to look at words"
        )
    if bundle.spec.architecture in ARCHITECTURES and ARCHITECTURES[bundle.spec.architecture].heads == (WIDE,):
        raise SentrayError(f"{bundle} has no word vectors but n-grams: `sentray words {bundle.path} grams` shows them")
    network = None if bundle.folded else load_network(bundle)
    rows = network.get_layer(EMBEDDING).get_weights()[0] if network else folded.load(bundle)[1]["embedding"]
    if rows.ndim != 2 or len(rows) != vocabulary.size:
        raise SentrayError(
            f"{bundle} has an embedding of shape {rows.shape} for {len(vocabulary):,} words: train it again"
        )
    return Vectors(vocabulary.words, np.ascontiguousarray(rows[1 : len(vocabulary) + 1], np.float32))


def heaviest_grams(bundle: Bundle, max_grams: int) -> list[tuple[str, str, float]]:
    """The n-grams that speak most for each label: the label, the n-gram, and its weight times the scale of its kind.

    Of an ordinal scale and of numbers they speak for more or for less.

    A word between two that may be any is `_`; three to five characters between `<` and `>` are of words that have them.

    Args:
        bundle: with a network that looks at n-grams.
        max_grams: how many to return for each label.

    Raises:
        SentrayError: the bundle's network does not, or cannot be loaded.
    """
    grams, spec = bundle.grams, bundle.spec.grams
    if grams is None or spec is None:
        raise SentrayError(f"{bundle} has no n-grams, since its model looks at none: train with --model wide")
    if bundle.folded:
        network, weights = folded.load(bundle)
        part = next(n for n, branch in enumerate(network.branches) if isinstance(branch, folded.Wide))
        table = weights[f"kernel{part}"]
    else:
        table = load_network(bundle).get_layer(WIDE).get_weights()[0]
    scales = np.where(grams.table & np.uint64(CHARACTERS), spec.character_scale, spec.scale)
    scaled = np.where(grams.table > 0, scales, 0)[:, None] * table[1:]
    task, names, columns = bundle.spec.task, list(bundle.labels), scaled.T
    if task in ("ordinal", "regression") or (task == "classification" and len(names) == 2):
        # One weight, or the mean of those of each step, speaks for one side or the other.
        toward, against = sides(task, names)
        mean = scaled.mean(axis=1)
        names, columns = [against, toward], np.stack([-mean, mean])
    found: list[tuple[str, str, float]] = []
    for label, column in zip(names, columns, strict=True):
        first = np.argsort(-column, kind="stable")[: min(max_grams, grams.known)]
        texts = grams.gram_texts((first + 1).tolist())
        found += [(label, text, float(column[row])) for text, row in zip(texts, first, strict=True)]
    return found


def nearest(vectors: Vectors, word: str, max_words: int) -> list[tuple[str, float]]:
    """The words whose vectors are most like a word's, and the cosines; without the word itself and vectors of zeros.

    Args:
        vectors: among which to look.
        word: one of them.
        max_words: how many words to return.

    Raises:
        SentrayError: the word is none of them, or its vector is zero.
    """
    if word not in vectors.words:
        near = difflib.get_close_matches(word, vectors.words[:_SPELLINGS_AMONG], n=3)
        near = near or difflib.get_close_matches(word.lower(), vectors.words[:_SPELLINGS_AMONG], n=3)
        cure = f"near spellings are {', '.join(near)}" if near else "`sentray words … export` writes those it knows"
        raise SentrayError(f"the bundle does not know the word {word!r}; {cure}")
    index = vectors.words.index(word)
    norms = np.linalg.norm(vectors.rows, axis=1)
    if not norms[index] > 0:
        raise SentrayError(f"the vector of {word!r} is zero, so that no word is nearer to it than another; try another")
    others = np.flatnonzero(norms > 0)
    others = others[others != index]
    cosines = vectors.rows[others] @ vectors.rows[index] / (norms[others] * norms[index])
    first = np.argsort(-cosines, kind="stable")[:max_words]
    return [(vectors.words[others[each]], float(cosines[each])) for each in first]
