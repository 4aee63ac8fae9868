"""How good a bundle is on labelled reviews: `predict` scores them where they are read, `evaluate` compares."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentray import bundle, cluster
from sentray.bundle import Bundle
from sentray.config import EvaluateSettings
from sentray.console import Console
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.inspect import Inspection, inspect_rows, mark_unknown
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer, unpacked_scorer
from sentray.metrics import metrics

TEST, ALL = "test", "all"

PREDICTIONS_SCHEMA = pa.schema([pa.field("truth", pa.int32()), pa.field("probabilities", pa.list_(pa.float32()))])
"""A row for a scored review: the position of its label among the bundle's, and the probability of each of these."""


@dataclass(frozen=True)
class PackedScorer:
    """A bundle on its way to the processes that score with it.

    Attributes:
        digest: of the bundle.
        engine: its name, or `auto`.
        files: the packed bundle.
    """

    digest: str
    engine: str
    files: dict[str, bytes] = field(compare=False, repr=False)

    def scorer(self) -> Scorer:
        """The scorer, which a process makes once for all its tasks."""
        return _scorer(self)


@lru_cache(maxsize=1)
def _scorer(packed: PackedScorer) -> Scorer:
    # A task has one CPU.
    return unpacked_scorer(packed.files, packed.engine, threads=1)


def predict(rows: pa.Table, packed: PackedScorer, split: str) -> Tables:
    """A stage: `inspect_rows` by the bundle's labels, and `predictions` for some reviews, of `PREDICTIONS_SCHEMA`.

    Args:
        rows: a table of `ROW_SCHEMA`.
        packed: the bundle.
        split: which of the labelled, usable rows to score: `train`, `test`, or `all`.
    """
    scorer = packed.scorer()
    labels = scorer.bundle.labels
    rows = mark_unknown(rows, labels)
    chosen = pc.and_(pc.is_null(rows["reason"]), pc.is_valid(rows["label"]))
    scored = rows.filter(chosen if split == ALL else pc.and_(chosen, pc.equal(rows["split"], split)))
    predictions = PREDICTIONS_SCHEMA.empty_table()
    if scored.num_rows:
        truth = pc.index_in(scored["label"], pa.array(labels, pa.string()))
        probabilities = scorer.score(scored["text"]).probabilities
        ends = np.arange(0, probabilities.size + 1, len(labels), dtype=np.int32)
        predictions = pa.table([truth, pa.ListArray.from_arrays(ends, probabilities.ravel())], PREDICTIONS_SCHEMA)
    return {**inspect_rows(rows), "predictions": predictions}


def evaluate(settings: EvaluateSettings, console: Console) -> dict[str, Any]:
    """Score the labelled reviews of a corpus and compare.

    Where no split is asked for, the corpus's rows for testing are used, or all of them when there are none.

    Args:
        settings: Which bundle, which reviews.
        console: Where to say what happens.

    Returns:
        What `sentray.metrics.metrics` gives, with `bundle`, `corpus`, `split`, `quarantined_rows` and `quarantined`
        (rows by reason, of the whole corpus).

    Raises:
        SentrayError: When the bundle or the corpus cannot be used, or too many rows are bad.
    """
    model = bundle.load(settings.bundle)
    with cluster.connect(settings.address, verbose=settings.verbose):
        workers = settings.workers or max(1, int(cluster.resources().max_cpus))
        placement = cluster.plan(workers, cpus_each=1)
        corpus = Corpus.open(settings.corpus, settings, workers=settings.workers)
        console.say(f"{corpus.describe()}; {placement.describe()}")
        split = settings.split or TEST
        inspection, truth, probabilities = _predictions(model, corpus, split, settings, console)
        inspection.check_usable(settings.corpus, settings.max_bad_rows)
        if not len(truth) and settings.split is None:
            split = ALL
            inspection, truth, probabilities = _predictions(model, corpus, split, settings, console)
    if not len(truth):
        raise SentrayError(
            f"{settings.corpus} has no labelled review whose split is {split}; choose another --split, or "
            "name the right columns with --label-column and --split-column"
        )
    return {
        **metrics(truth, probabilities, model.labels),
        "split": split,
        "quarantined_rows": inspection.bad.num_rows,
        "quarantined": dict(inspection.reasons.most_common()),
        "bundle": model.digest,
        "corpus": settings.corpus,
    }


def _predictions(
    model: Bundle, corpus: Corpus, split: str, settings: EvaluateSettings, console: Console
) -> tuple[Inspection, NDArray[np.int32], NDArray[np.float32]]:
    """Inspection of the corpus; true labels [reviews] and probabilities [reviews, labels] of a split."""
    packed = PackedScorer(model.digest, settings.engine, model.files)
    inspection, tables, scored = Inspection(), [PREDICTIONS_SCHEMA.empty_table()], 0
    for found in corpus.map_blocks(predict, packed=packed, split=split):
        inspection += Inspection.of(found)
        tables.append(found["predictions"])
        scored += len(found["predictions"])
        console.progress(f"{inspection.rows:,} rows read, {scored:,} scored")
    predictions = pa.concat_tables(tables)
    probabilities = pc.list_flatten(predictions["probabilities"]).to_numpy()
    return inspection, predictions["truth"].to_numpy(), probabilities.reshape(-1, len(model.labels))
