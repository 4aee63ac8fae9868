"""`sentray words`: a bundle's word vectors, written for other tools, and the words whose vectors are near a word's."""

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
from sentray.inference.networks import load_network
from sentray.storage import behind, create, write_text
from sentray.text.vocabulary import Vocabulary

VECTORS_TABLE, METADATA = "vectors.tsv", "metadata.tsv"

_SPELLINGS_AMONG = 100_000


def words(settings: WordsSettings, console: Console) -> Vectors | list[tuple[str, float]]:
    """Do with a bundle's vectors what the settings say.

    Returns:
        All of the bundle's vectors; for `neighbours` the words nearest to the word, with their cosines.

    Raises:
        SentrayError: the bundle cannot be read or has no words, it does not know the word or its vector is zero, or the
            output cannot be written.
    """
    vectors = bundle_vectors(bundles.load(settings.bundle))
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
    # Every architecture begins with its embedding.
    network = None if bundle.folded else load_network(bundle)
    rows = network.layers[0].get_weights()[0] if network else folded.load(bundle)[1]["embedding"]
    if rows.ndim != 2 or len(rows) != vocabulary.size:
        raise SentrayError(
            f"{bundle} has an embedding of shape {rows.shape} for {len(vocabulary):,} words: train it again"
        )
    return Vectors(vocabulary.words, np.ascontiguousarray(rows[1 : len(vocabulary) + 1], np.float32))


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
