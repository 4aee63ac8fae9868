"""`sentray vocab`: `survey` counts a corpus's rows and the words of its training reviews, `WordCounts` adds them up."""

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sentray import cluster
from sentray.config import VocabSettings, write_settings_beside
from sentray.console import Console
from sentray.corpus.dataset import MERGED, Corpus, Tables
from sentray.corpus.inspect import Inspection, inspect_rows
from sentray.corpus.source import require_apart
from sentray.errors import SentrayError
from sentray.storage import write_text
from sentray.text.cleaning import CleaningRules, rules_from
from sentray.text.vocabulary import Vocabulary, count_words

WORDS_SCHEMA = pa.schema([pa.field("word", pa.large_string()), pa.field("count", pa.int64())])
"""How often each word occurs."""


def survey(
    corpus: Corpus, rules: CleaningRules, console: Console, splits: Sequence[str] = ("train",)
) -> tuple[Inspection, Counter[str]]:
    """Count a corpus's rows, and the words of its usable training reviews, in one parallel pass."""
    inspection, words = Inspection(), WordCounts()
    for counted in corpus.map_blocks(clean_and_count, merge_counts, rules=rules, splits=splits):
        inspection += Inspection.of(counted)
        words.add(counted["words"])
        console.progress(f"reading: {inspection.rows:,} rows")
    return inspection, words.total()


def clean_and_count(rows: pa.Table, rules: CleaningRules, splits: Sequence[str] = ("train",)) -> Tables:
    """A stage: `inspect_rows`, and the `words` of the usable training reviews, of `WORDS_SCHEMA`."""
    return {**inspect_rows(rows), "words": words_table(count_words(training_rows(rows, splits)["text"], rules))}


def merge_counts(tables: Tables) -> Tables:
    """The counts of several blocks with each word once."""
    return {**tables, "words": _summed(tables["words"])}


def training_rows(rows: pa.Table, splits: Sequence[str] = ("train",)) -> pa.Table:
    """The usable rows to train on of a table of `ROW_SCHEMA`."""
    return rows.filter(pc.and_(pc.is_null(rows["reason"]), pc.is_in(rows["split"], pa.array(splits))))


def words_table(counts: Mapping[str, int]) -> pa.Table:
    """Counts as a table of `WORDS_SCHEMA`."""
    return pa.table([list(counts), list(counts.values())], schema=WORDS_SCHEMA)


class WordCounts:
    """A sum of tables of `WORDS_SCHEMA`."""

    def __init__(self) -> None:
        self._tables = [WORDS_SCHEMA.empty_table()]

    def add(self, words: pa.Table) -> None:
        """Count the words of a table too."""
        self._tables.append(words)
        # Few enough to hold, many enough that words are not summed again and again.
        if len(self._tables) > MERGED:
            self._tables = [_summed(pa.concat_tables(self._tables))]

    def total(self) -> Counter[str]:
        """How often each word occurs, in the order in which they were met."""
        words, counts = (column.to_pylist() for column in _summed(pa.concat_tables(self._tables)).columns)
        return Counter(dict(zip(words, counts, strict=True)))


def _summed(words: pa.Table) -> pa.Table:
    # One thread keeps the order in which the words were met.
    sums = words.group_by("word", use_threads=False).aggregate([("count", "sum")])
    return sums.select(["word", "count_sum"]).rename_columns(WORDS_SCHEMA.names)


def write_vocabulary(settings: VocabSettings, console: Console) -> Vocabulary:
    """Count the words of the usable training reviews, labelled or not, and write those that are kept.

    Raises:
        SentrayError: the corpus cannot be used, has no review to train on, or no word is left.
    """
    require_apart(settings.corpus, settings.out)
    rules, about = rules_from(settings)
    for line in about:
        console.say(line)
    with cluster.connect(settings.address, cpus=settings.workers, verbose=settings.verbose):
        corpus = Corpus.open(settings.corpus, settings, need_label=False)
        console.say(f"corpus: {corpus.describe()}")
        inspection, counts = survey(corpus, rules, console)
    inspection.check_usable(corpus.name, settings.max_bad_rows)
    if all(split != "train" for split, _ in inspection.labels):
        raise SentrayError(
            f"{corpus.name} has no review to train on; name the right column with --split-column, rename a file "
            "whose name says another split, or take a smaller --test-fraction"
        )
    vocabulary = Vocabulary.from_counts(counts, settings.min_count, settings.max_words, settings.unknown)
    write_text(settings.out, vocabulary.to_text())
    write_settings_beside(settings.out, settings)
    console.say(
        f"{inspection.rows:,} rows read, {inspection.bad.num_rows:,} quarantined; "
        f"{len(counts):,} distinct words, {len(vocabulary):,} of them in {settings.out}"
    )
    return vocabulary
