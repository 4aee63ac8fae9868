"""`sentray vocab`: the words of a corpus's training reviews, counted in parallel."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from sentray import cluster
from sentray.config import VocabSettings, write_settings_beside
from sentray.console import Console
from sentray.corpus.dataset import Corpus
from sentray.corpus.inspect import Inspection, inspect_block
from sentray.errors import SentrayError
from sentray.storage import write_text
from sentray.text.cleaning import CleaningRules, rules_from
from sentray.text.vocabulary import Vocabulary, count_words


def survey(corpus: Corpus, rules: CleaningRules, console: Console) -> tuple[Inspection, Counter[str]]:
    """Count a corpus's rows, and the words of its usable training reviews, in one parallel pass."""

    def work(table: pa.Table) -> tuple[Inspection, Counter[str]]:
        return inspect_block(table), count_words(training_rows(table)["text"], rules)

    inspection, counts = Inspection(), Counter[str]()
    for part, words in corpus.map_blocks(work):
        inspection += part
        counts.update(words)
        console.progress(f"reading: {inspection.rows:,} rows, {len(counts):,} distinct words")
    return inspection, counts


def training_rows(table: pa.Table) -> pa.Table:
    """The usable rows to train on of a table of `ROW_SCHEMA`."""
    return table.filter(pc.and_(pc.is_null(table["reason"]), pc.equal(table["split"], "train")))


def write_vocabulary(settings: VocabSettings, console: Console) -> Vocabulary:
    """Count the words of the usable training reviews, labelled or not, and write those that are kept.

    Raises:
        SentrayError: the corpus cannot be used, has no review to train on, or no word is left.
    """
    rules, note = rules_from(settings)
    if note:
        console.say(note)
    with cluster.connect(settings.address, cpus=settings.workers, verbose=settings.verbose):
        corpus = Corpus.open(settings.corpus, settings, need_label=False)
        console.say(f"corpus: {corpus.describe()}")
        inspection, counts = survey(corpus, rules, console)
    inspection.check_usable(corpus.name, settings.max_bad_rows)
    if all(split != "train" for split, _ in inspection.labels):
        raise SentrayError(
            f"{corpus.name} has no review to train on; name the right column with --split-column, or take a "
            "smaller --test-fraction"
        )
    vocabulary = Vocabulary.from_counts(counts, settings.min_count, settings.max_words, settings.unknown)
    write_text(settings.out, vocabulary.to_text())
    write_settings_beside(settings.out, settings)
    console.say(
        f"{inspection.rows:,} rows read, {inspection.reasons.total():,} quarantined; "
        f"{len(counts):,} distinct words, {len(vocabulary):,} of them in {settings.out}"
    )
    return vocabulary
