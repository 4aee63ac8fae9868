"""From a corpus to a training set: one parallel pass counts the words, a second one encodes the reviews.

Where words are hashed there is nothing to count, and one pass does.
"""

import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sentray import cluster
from sentray.bundle import ModelSpec
from sentray.config import TrainSettings
from sentray.console import Console, count
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.inspect import Inspection, inspect_rows
from sentray.corpus.rows import QUARANTINE_FILE
from sentray.corpus.vocab import survey, training_rows
from sentray.embeddings.matrix import centred, coverage, embedding_matrix
from sentray.embeddings.read import dimensions_of, read_vectors
from sentray.errors import SentrayError
from sentray.models import Architecture
from sentray.text.cleaning import CleaningRules, rules_from
from sentray.text.encoding import Encoder
from sentray.text.hashing import MAX_BUCKETS, DistinctCodes, HashedWords, Words
from sentray.text.vocabulary import Vocabulary
from sentray.training import training_set

REVIEWS_SCHEMA = pa.schema([pa.field("ids", pa.list_(pa.int32())), pa.field("label", pa.string())])
"""A row for an encoded training review: its word ids, and its label."""
CODES_SCHEMA = pa.schema([pa.field("code", pa.int32())])
"""The `DistinctCodes` of some training reviews' words; none where words are not hashed."""


@dataclass(frozen=True, eq=False)
class Reviews:
    """Encoded training reviews, whose word ids lie in a file.

    Attributes:
        inspection: of all rows of the corpus.
        lengths: int64 [reviews], how many ids each has.
        labels: the labels that occur, sorted.
        targets: int32 [reviews], positions of the reviews' labels in `labels`.
        codes: the hashes of their words; none where words are not hashed.
    """

    inspection: Inspection
    lengths: NDArray[np.int64]
    labels: list[str]
    targets: NDArray[np.int32]
    codes: DistinctCodes


def prepare(settings: TrainSettings, architecture: Architecture, folder: Path, console: Console) -> None:
    """Read the corpus through Ray Data and write the training set and `quarantine.parquet` into `folder`.

    Raises:
        SentrayError: The corpus cannot be used, see `Inspection.check_trainable`, or the word vectors cannot.
    """
    rules, note = rules_from(settings)
    if note:
        console.say(note)
    dimensions = _dimensions(settings)
    corpus = Corpus.open(settings.corpus, settings)
    console.say(f"corpus: {corpus.describe()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    counts: Counter[str] = Counter()
    words: Words = HashedWords(settings.buckets)
    if settings.encoder == "vocabulary":
        inspection, counts = survey(corpus, rules, console)
        inspection = _checked(inspection, corpus, folder)
        words = Vocabulary.from_counts(counts, settings.min_count, settings.max_words, settings.unknown)
    _require_memory(words, dimensions or architecture.dimensions, settings.freeze)
    reviews = _write_reviews(corpus, rules, words, folder / training_set.IDS_FILE, console)
    if settings.encoder == "hash":
        inspection = _checked(reviews.inspection, corpus, folder)
    longest = int(reviews.lengths.max())
    facts = training_set.Facts(
        spec=ModelSpec.of(
            words,
            architecture=architecture.name,
            cleaning=rules,
            labels=tuple(reviews.labels),
            max_length=max(settings.max_length or longest, architecture.min_length),
        ),
        label_rows=tuple(np.bincount(reviews.targets, minlength=len(reviews.labels)).tolist()),
        longest=longest,
        test_rows=inspection.of_split("test").total(),
        quarantined_rows=inspection.reasons.total(),
        dimensions=dimensions,
        **_word_facts(words, counts, reviews),
    )
    _tell(console, facts, inspection, words)
    vectors = None
    if settings.embedding is not None and isinstance(words, Vocabulary):
        vectors, found = _vectors(settings.embedding, words, counts, settings, console)
        facts = replace(facts, embedding=found)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(reviews.lengths)])
    training_set.write(folder, facts, words, offsets, reviews.targets, vectors)


def _dimensions(settings: TrainSettings) -> int | None:
    """Numbers of a word's vector, where the settings or the word vectors say it.

    The vectors' file is looked at and not read, so that a wrong one is refused before the corpus is read.
    """
    file = settings.embedding
    if file is None:
        return settings.dimensions
    found = dimensions_of(file)
    if settings.dimensions not in (None, found):
        raise SentrayError(
            f"the vectors of {file} have {found} numbers, not the {settings.dimensions} of --dimensions; leave it out, "
            "or give another file"
        )
    return found


def _require_memory(words: Words, dimensions: int, freeze: bool) -> None:
    """Refuse word vectors that no machine of the cluster can hold, where none larger can come.

    A training process holds them twice, in the network that is saved and as they are trained, and Adam's two moments.
    """
    import ray

    if cluster.resources().grows:
        return
    needed = words.size * dimensions * 4 * (2 if freeze else 4)
    living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max(node.get("memory", 0) + node.get("object_store_memory", 0) for node in living)
    if needed > largest:
        option = "--buckets" if isinstance(words, HashedWords) else "--max-words"
        raise SentrayError(
            f"the vectors of {words.size:,} ids with {dimensions:,} numbers each take {needed / 1e9:,.0f} GB in "
            f"training and the largest machine has {largest / 1e9:,.0f} GB: take fewer {option} or fewer --dimensions"
        )


def _checked(inspection: Inspection, corpus: Corpus, folder: Path) -> Inspection:
    """The corpus's inspection with test rows set aside that have a label which none to train on has.

    Writes the rows set aside.

    Raises:
        SentrayError: see `Inspection.check_trainable`.
    """
    labels = inspection.classes("train")
    if set(inspection.classes("test")) - set(labels):
        inspection = sum(map(Inspection.of, corpus.map_blocks(inspect_rows, labels=labels)), start=Inspection())
    if inspection.rows:
        pq.write_table(inspection.bad, folder / QUARANTINE_FILE)
    inspection.check_trainable(corpus.name, corpus.settings.max_bad_rows)
    return inspection


def clean_and_encode(rows: pa.Table, encoder: Encoder, words: Words) -> Tables:
    """A stage: `inspect_rows`, the training `reviews` of `REVIEWS_SCHEMA`, and the `codes` of their words.

    Args:
        rows: a table of `ROW_SCHEMA`.
        encoder: gives the ids of a vocabulary's words; where words are hashed, their codes.
        words: the ids.
    """
    chosen = training_rows(rows)
    encoded, codes = encoder.encode(chosen["text"]), DistinctCodes.of([])
    ids = encoded.ids
    if isinstance(words, HashedWords):
        ids, codes = words.ids_of(ids), DistinctCodes.of([ids])
    lists = pa.ListArray.from_arrays(encoded.offsets.astype(np.int32), ids)
    return {
        **inspect_rows(rows),
        "reviews": pa.table([lists, chosen["label"]], REVIEWS_SCHEMA),
        "codes": pa.table([codes.codes], CODES_SCHEMA),
    }


def _write_reviews(corpus: Corpus, rules: CleaningRules, words: Words, path: Path, console: Console) -> Reviews:
    """Encode the training reviews, and write their ids to a file."""
    # The hashes themselves are wanted too, to see which words meet in a bucket.
    encoder = Encoder(rules, HashedWords(MAX_BUCKETS) if isinstance(words, HashedWords) else words)
    inspection, codes = Inspection(), DistinctCodes.of([])
    lengths, chunks = [np.zeros(0, np.int64)], [pa.array([], pa.string()).dictionary_encode()]
    with path.open("wb") as stream:
        for found in corpus.map_blocks(clean_and_encode, encoder=encoder, words=words):
            ids, label = found["reviews"].columns
            stream.write(memoryview(pc.list_flatten(ids).to_numpy()))
            lengths.append(pc.list_value_length(ids).to_numpy().astype(np.int64))
            chunks += label.dictionary_encode().chunks
            inspection += Inspection.of(found)
            codes += DistinctCodes(found["codes"]["code"].to_numpy())
            console.progress(f"encoding: {inspection.rows:,} rows")
    of_reviews = pa.chunked_array(chunks).unify_dictionaries().combine_chunks()
    labels = sorted(of_reviews.dictionary.to_pylist())
    targets = pc.index_in(of_reviews.dictionary, pa.array(labels, pa.string())).take(of_reviews.indices)
    return Reviews(inspection, np.concatenate(lengths), labels, targets.to_numpy(), codes)


def _word_facts(words: Words, counts: Counter[str], reviews: Reviews) -> dict[str, Any]:
    """What the facts of a training set say of its words."""
    if isinstance(words, Vocabulary):
        known = sum(counts[word] for word in words.words)
        return {"distinct": len(counts), "coverage": round(known / counts.total(), 6)}
    codes = reviews.codes
    if not codes.count:
        raise SentrayError(
            f"cleaning leaves no word of the {len(reviews.targets):,} reviews to train on; check --cleaning and "
            "--text-column"
        )
    return {
        "distinct": codes.count,
        "distinct_estimated": not codes.exact,
        "coverage": 1.0,
        "sharing_words": codes.sharing(words.buckets),
    }


def _vectors(
    file: str, words: Vocabulary, counts: Counter[str], settings: TrainSettings, console: Console
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Word vectors as an embedding to start from, float32 [ids, dimensions], and how they cover the vocabulary."""
    vectors, report = read_vectors(file, wanted=words.words)
    found = coverage(words.words, counts, vectors)
    for line in (*report.lines(), *found.lines()):
        console.say(line)
    if settings.center:
        vectors = centred(vectors, counts)
    matrix = embedding_matrix(words.words, words.size, vectors, settings.oov, settings.seed)
    origin = {
        "format": report.format,
        "rows": report.rows,
        "duplicates": report.duplicates,
        "bad_rows": report.bad_rows,
        "oov": settings.oov,
        "center": settings.center,
    }
    return matrix, origin | found.to_dict()


def _tell(console: Console, facts: training_set.Facts, inspection: Inspection, words: Words) -> None:
    shares = ", ".join(f"{label} {rows:,}" for label, rows in zip(facts.spec.labels, facts.label_rows, strict=True))
    others = inspection.usable - sum(facts.label_rows) - facts.test_rows
    console.say(
        f"rows: {inspection.rows:,} read, {sum(facts.label_rows):,} to train on ({shares}), {facts.test_rows:,} to "
        f"test on, {facts.quarantined_rows:,} quarantined"
        + (f", {others:,} unlabelled or of another split, not used" if others else "")
    )
    for reason, rows in inspection.reasons.most_common():
        console.say(f"  quarantined as {reason}: {rows:,}")
    about = "about " if facts.distinct_estimated else ""
    kept = (
        f"hashed into {count(len(words), 'bucket')}, where {about}{facts.sharing_words:,} share theirs"
        if isinstance(words, HashedWords)
        else f"{len(words):,} in the vocabulary"
    )
    console.say(
        f"words: {about}{facts.distinct:,} distinct, {kept}; the longest review has {facts.longest:,}, the network "
        f"takes {facts.spec.max_length:,}"
    )
