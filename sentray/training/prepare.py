"""From a corpus to a training set: one parallel pass counts the words, a second one encodes the reviews."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sentray.config import TrainSettings
from sentray.console import Console
from sentray.corpus.dataset import Corpus
from sentray.corpus.inspect import Inspection, inspect_block
from sentray.corpus.vocab import survey, training_rows
from sentray.models import Architecture
from sentray.quarantine import QUARANTINE_FILE
from sentray.text.cleaning import CleaningRules, rules_from
from sentray.text.encoding import Encoder
from sentray.text.vocabulary import Vocabulary
from sentray.training import dataset

Block = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]
"""Word ids of some reviews, how many each has, and the positions of their labels."""


def prepare(settings: TrainSettings, architecture: Architecture, folder: Path, console: Console) -> None:
    """Read the corpus through Ray Data and write the training set and `quarantine.parquet` into `folder`.

    Raises:
        SentrayError: The corpus cannot be used; see `Inspection.check_trainable`.
    """
    rules, note = rules_from(settings)
    if note:
        console.say(note)
    corpus = Corpus.open(settings.corpus, settings)
    console.say(f"corpus: {corpus.describe()}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    inspection, counts = survey(corpus, rules, console)
    labels = inspection.classes("train")
    if set(inspection.classes("test")) - set(labels):
        parts = corpus.map_blocks(partial(inspect_block, labels=labels))
        inspection = sum(parts, start=Inspection())
    if inspection.rows:
        pq.write_table(inspection.bad, folder / QUARANTINE_FILE)
    inspection.check_trainable(corpus.name, settings.max_bad_rows)
    vocabulary = Vocabulary.from_counts(counts, settings.min_count, settings.max_words, settings.unknown)
    offsets, targets = _write_reviews(corpus, rules, vocabulary, labels, folder / dataset.IDS_FILE)
    longest = int(np.diff(offsets).max())
    facts = dataset.Facts(
        architecture=architecture.name,
        rules=rules,
        unknown=vocabulary.unknown,
        labels=tuple(labels),
        label_rows=tuple(np.bincount(targets, minlength=len(labels)).tolist()),
        max_length=max(settings.max_length or longest, architecture.least_length),
        truncating="pre",
        longest=longest,
        distinct=len(counts),
        coverage=round(sum(counts[word] for word in vocabulary.words) / counts.total(), 6),
        test_rows=inspection.of_split("test").total(),
        quarantined_rows=inspection.reasons.total(),
    )
    dataset.write(folder, facts, vocabulary, offsets, targets)
    _tell(console, facts, inspection, vocabulary)


def _write_reviews(
    corpus: Corpus, rules: CleaningRules, vocabulary: Vocabulary, labels: list[str], path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    encoder = Encoder(rules, vocabulary)

    def work(table: pa.Table) -> Block:
        rows = training_rows(table)
        encoded = encoder.encode(rows["text"])
        targets = pc.index_in(rows["label"], pa.array(labels, pa.string()))
        return encoded.ids, encoded.lengths, targets.to_numpy().astype(np.int32)

    lengths, targets = [np.zeros(1, np.int64)], []
    with path.open("wb") as stream:
        for ids, block_lengths, block_targets in corpus.map_blocks(work):
            stream.write(ids.tobytes())
            lengths.append(block_lengths)
            targets.append(block_targets)
    return np.cumsum(np.concatenate(lengths)), np.concatenate(targets)


def _tell(console: Console, facts: dataset.Facts, inspection: Inspection, vocabulary: Vocabulary) -> None:
    shares = ", ".join(f"{label} {rows:,}" for label, rows in zip(facts.labels, facts.label_rows, strict=True))
    others = inspection.usable - sum(facts.label_rows) - facts.test_rows
    console.say(
        f"rows: {inspection.rows:,} read, {sum(facts.label_rows):,} to train on ({shares}), {facts.test_rows:,} to "
        f"test on, {facts.quarantined_rows:,} quarantined"
        + (f", {others:,} unlabelled or of another split, not used" if others else "")
    )
    for reason, count in inspection.reasons.most_common():
        console.say(f"  quarantined as {reason}: {count:,}")
    console.say(
        f"words: {facts.distinct:,} distinct, {len(vocabulary):,} in the vocabulary; the longest review has "
        f"{facts.longest:,}, the network takes {facts.max_length:,}"
    )
