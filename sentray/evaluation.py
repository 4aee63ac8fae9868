"""How good a bundle is on labelled reviews: each shard is tallied where it is read, tallies are merged."""

from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sentray import bundle, cluster
from sentray.config import EvaluateSettings
from sentray.console import Console, count
from sentray.corpus.dataset import Corpus, Rows, mark_duplicates
from sentray.corpus.inspect import Inspection, inspect_block, mark_unknown
from sentray.corpus.readers import read_shard
from sentray.corpus.source import Source
from sentray.corpus.splits import Shard
from sentray.errors import SentrayError
from sentray.inference.scorer import unpacked_scorer
from sentray.metrics import Tally
from sentray.scoring import pool
from sentray.scoring.pool import Lost, Pool, died
from sentray.scoring.reading import ShardReader, duplicates, moved, note_retry, size_of

TEST, ALL = "test", "all"

Files = dict[str, bytes]


@dataclass(frozen=True)
class ShardResult:
    """What a shard adds to an evaluation.

    Attributes:
        shard: Its index.
        inspection: Of all its rows.
        tally: Of its labelled, usable rows of the split in question.
    """

    shard: int
    inspection: Inspection
    tally: Tally


class ShardEvaluator(ShardReader):
    """Tallies shards; the worker of the pool.

    Args:
        source: Where the shards lie.
        settings: Columns, engine.
        files: The packed bundle.
    """

    def __init__(self, source: Source, settings: EvaluateSettings, files: Files) -> None:
        super().__init__(source, settings)
        self._scorer = unpacked_scorer(files, settings.engine, pool.WORKER_CPUS)

    def tally(self, item: tuple[Shard, Rows, str]) -> ShardResult:
        """Read, score and tally a shard.

        Args:
            item: The shard, those of its rows whose id an earlier row has, and the split: `train`, `test`, or `all`
                for every labelled row.
        """
        shard, repeated, split = item
        labels = self._scorer.bundle.labels
        inspections, tallies = [Inspection()], [_tally_of_none(len(labels))]
        for table in read_shard(self._source, shard, self._settings, need_label=True):
            marked = mark_unknown(mark_duplicates(table, repeated), labels)
            inspections.append(inspect_block(marked))
            rows = marked.filter(_chosen(marked, split))
            if rows.num_rows:
                truth = pc.index_in(rows["label"], pa.array(labels, pa.string())).to_numpy()
                tallies.append(Tally.of(truth, self._scorer.score(rows["text"]).probabilities))
        return ShardResult(shard.index, reduce(add, inspections), Tally.merge(tallies))


def _chosen(rows: pa.Table, split: str) -> pa.ChunkedArray:
    labelled = pc.and_(pc.is_null(rows["reason"]), pc.is_valid(rows["label"]))
    return labelled if split == ALL else pc.and_(labelled, pc.equal(rows["split"], split))


def evaluate(settings: EvaluateSettings, console: Console) -> dict[str, Any]:
    """Score the labelled reviews of a corpus and compare.

    Where no split is asked for, the corpus's rows for testing are used, or all of them when there are none.

    Args:
        settings: Which bundle, which reviews.
        console: Where to say what happens.

    Returns:
        The metrics of `sentray.metrics.Tally.metrics`, with `bundle`, `corpus`, `split`, `quarantined_rows`
        and `quarantined` (rows by reason, of the whole corpus).

    Raises:
        SentrayError: When the bundle or the corpus cannot be used, or too many rows are bad.
    """
    model = bundle.load(settings.bundle)
    with cluster.connect(settings.address, verbose=settings.verbose):
        corpus = Corpus.plan(settings.corpus, settings)
        workers = pool.place(settings.workers, len(corpus.shards))
        console.say(f"{corpus.describe()}; {pool.describe(workers)}")
        make = partial(ShardEvaluator, corpus.source.lean(), settings, model.files)
        with Pool(make, workers, size=size_of, on_retry=partial(note_retry, console)) as actors:
            progress = partial(_show, actors, console, len(corpus.shards), "looking for ids that occur twice")
            corpus = replace(corpus, duplicates=duplicates(actors, corpus.source, corpus.shards, progress).rows)
            split = settings.split or TEST
            inspection, tally = _measure(actors, corpus, split, console)
            inspection.check_usable(settings.corpus, settings.max_bad_rows)
            if not tally.rows and settings.split is None:
                split = ALL
                inspection, tally = _measure(actors, corpus, split, console)
    if not tally.rows:
        raise SentrayError(
            f"{settings.corpus} has no labelled review whose split is {split}; choose another --split, or "
            "name the right columns with --label-column and --split-column"
        )
    return {
        **tally.metrics(model.labels),
        "split": split,
        "quarantined_rows": inspection.rows - inspection.usable,
        "quarantined": dict(inspection.reasons.most_common()),
        "bundle": model.digest,
        "corpus": settings.corpus,
    }


def _measure(actors: Pool, corpus: Corpus, split: str, console: Console) -> tuple[Inspection, Tally]:
    """Inspection of the corpus and tally of a split, summed in the order of the shards."""
    results: list[ShardResult] = []
    items = ((shard, rows, split) for shard, rows in corpus.items())

    def show() -> None:
        rows = sum(done.tally.rows for done in results)
        _show(actors, console, len(corpus.shards), f"{rows:,} rows scored", len(results))

    for result in actors.map("tally", items, tick=show):
        if isinstance(result, Lost):
            raise SentrayError(died(1))
        results.append(result)
        show()
    results.sort(key=lambda result: result.shard)
    return (
        reduce(add, (result.inspection for result in results), Inspection()),
        Tally.merge([result.tally for result in results]),
    )


def _show(actors: Pool, console: Console, shards: int, what: str, done: int) -> None:
    console.progress(f"{what}, {done:,} of {count(shards, 'shard')}", done / shards, moved=moved(actors, console))


def _tally_of_none(labels: int) -> Tally:
    return Tally.of(np.zeros(0, np.int64), np.zeros((0, labels), np.float32))
