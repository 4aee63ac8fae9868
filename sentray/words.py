"""`sentray words`: a bundle's word vectors, written for other tools, and the words whose vectors are near a word's."""

import difflib
import os

import numpy as np
import numpy.typing as npt
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

Floats = npt.NDArray[np.float32]

VECTORS_TABLE, METADATA = "vectors.tsv", "metadata.tsv"

_SPELLINGS_AMONG = 100_000
_ROWS_AT_ONCE = 4_096


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
    out = str(settings.out)
    if settings.action == "export":
        write_vectors(out, vectors)
        write_settings_beside(out, settings)
        how = ""
    else:
        write_projector(out, vectors)
        write_text(_within(out, SETTINGS_FILE), settings_text(settings))
        how = f"; load {VECTORS_TABLE} and {METADATA} in TensorBoard's projector"
    console.say(f"{_described(vectors)} in {out}{how}")
    return vectors


def write_projector(folder: str, vectors: Vectors) -> None:
    """Write `vectors.tsv` and `metadata.tsv`, a word a line and without headers, as TensorBoard's projector loads them.

    Raises:
        SentrayError: the folder cannot be written.
    """
    _write_rows(_within(folder, VECTORS_TABLE), vectors.rows)
    # A word of a vocabulary holds no white space, so neither a tab nor the end of a line.
    write_text(_within(folder, METADATA), "".join(f"{word}\n" for word in vectors.words))


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
    rows = folded.load(bundle)[1]["embedding"] if bundle.folded else _network_rows(bundle)
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


def _network_rows(bundle: Bundle) -> Floats:
    # Every architecture begins with its embedding.
    rows: Floats = load_network(bundle).layers[0].get_weights()[0]
    return rows


def _described(vectors: Vectors) -> str:
    return f"{count(len(vectors.words), 'vector')} of {count(vectors.dimensions, 'number')}"


def _within(folder: str, name: str) -> str:
    """A file of a folder; the query of a URI stays after the path."""
    return behind(folder, f"/{name}") if "://" in folder else os.path.join(folder, name)


def _write_rows(file: str, rows: Floats) -> None:
    """Write numbers separated by tabs, each as the shortest decimal that reads back as the same number."""
    schema = pa.schema([(str(column), pa.float32()) for column in range(rows.shape[1])])
    options = csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    with create(file) as stream, csv.CSVWriter(stream, schema, write_options=options) as table:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            columns = np.ascontiguousarray(rows[start : start + _ROWS_AT_ONCE].T)
            table.write_table(pa.table(list(map(pa.array, columns)), schema=schema))
