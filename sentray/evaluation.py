"""How good a bundle is on labelled reviews: `predict` scores them where they are read, `evaluate` compares."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentray import bundle, cluster
from sentray.bundle import Bundle
from sentray.config import EvaluateSettings
from sentray.console import Console
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.identity import TextHashes, hashes_of
from sentray.corpus.inspect import Inspection, inspect_rows, mark_unknown, warnings_of
from sentray.corpus.limits import MAX_NAME
from sentray.corpus.readers import require_columns
from sentray.corpus.rows import NO_SPLIT, kept_name, numbers_of
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer, Scores, unpacked_scorer
from sentray.metrics import metrics
from sentray.report.evidence import Evidence, array_of, column_of, evidence_schema, is_right, thin
from sentray.task import Task
from sentray.task import split as split_labels

TEST, ALL = "test", "all"
FRESH, NEITHER, UNSEEN = "fresh", "neither", "unseen"
"""Which rows to measure where no split is asked for: those that are given as test rows, and of those without a split
what was not trained on (`NEITHER`: of the test rows as well); or, where there are none of these, whatever was not
trained on."""

_ALL = " (--split all measures all)"

SEEN_SCHEMA = pa.schema([pa.field("split", pa.string()), pa.field("rows", pa.int64())])
"""Labelled, usable rows by split whose text is one of a bundle's training texts."""
SLICES_SCHEMA = pa.schema([pa.field("value", pa.string()), pa.field("right", pa.bool_()), pa.field("rows", pa.int64())])
"""Measured rows by their value in a column and whether they got the right label."""


@dataclass(frozen=True)
class PackedScorer:
    """A bundle on its way to the processes that score with it.

    Attributes:
        digest: of the bundle.
        engine: its name, or `auto`.
        files: the packed bundle.
        trusted: whether code of its own may run.
    """

    digest: str
    engine: str
    files: dict[str, bytes] = field(compare=False, repr=False)
    trusted: bool = False

    def scorer(self) -> Scorer:
        """The scorer, which a process makes once for all its tasks."""
        return _scorer(self)


# Those of a comparison take turns.
@lru_cache(maxsize=2)
def _scorer(packed: PackedScorer) -> Scorer:
    # A task has one CPU.
    return unpacked_scorer(packed.files, packed.engine, threads=1, trusted=packed.trusted)


class Further(Protocol):
    """What is kept of the rows besides their scores, as tables by name."""

    def __call__(self, rows: pa.Table, scores: Scores | None) -> Tables:
        """What to keep of rows of a table of `ROW_SCHEMA`; without scores there are none."""

    def merged(self, tables: Tables) -> Tables:
        """What to keep of that of several blocks, one behind the other."""


@dataclass(frozen=True)
class Look:
    """Keeps rows to be looked at, as `evidence`, thinned, and `slices` of `SLICES_SCHEMA`.

    Attributes:
        texts: whether texts are kept.
        slice_column: column by whose values the right ones are counted; a number is not right or wrong.
        task: what is asked of a review.
    """

    texts: bool = True
    slice_column: str | None = None
    task: Task = "classification"

    def __call__(self, rows: pa.Table, scores: Scores | None) -> Tables:
        """See `Further`."""
        slices, schema = SLICES_SCHEMA.empty_table(), evidence_schema(self.task)
        if scores is None:
            return {"evidence": schema.empty_table(), "slices": slices}
        truth = rows["truth"]
        evidence = {
            "id": rows["id"],
            "hash": hashes_of(rows),
            "truth": truth,
            "probabilities": column_of(scores.probabilities),
            "words": scores.words,
            "known": scores.known,
            "sampled": pa.nulls(len(rows), pa.bool_()),
            "text": rows["text"] if self.texts else pa.nulls(len(rows), pa.large_string()),
        }
        if self.slice_column is not None:
            values = pc.utf8_slice_codeunits(rows[kept_name(self.slice_column)].cast(pa.string()), 0, MAX_NAME)
            right = pa.array(is_right(array_of(truth), scores.decided))
            counted = pa.table([values, right], ["value", "right"]).group_by(["value", "right"], use_threads=False)
            slices = counted.aggregate([([], "count_all")]).rename_columns(SLICES_SCHEMA.names).cast(SLICES_SCHEMA)
        return {"evidence": thin(pa.table(evidence, schema)), "slices": slices}

    def merged(self, tables: Tables) -> Tables:
        """See `Further`."""
        slices = tables["slices"].group_by(["value", "right"], use_threads=False).aggregate([("rows", "sum")])
        return {"evidence": thin(tables["evidence"]), "slices": slices.rename_columns(SLICES_SCHEMA.names)}


def predict(rows: pa.Table, packed: PackedScorer, texts: TextHashes, split: str, look: Further | None = None) -> Tables:
    """A stage: `inspect_rows` by the bundle's labels, `predictions` for some reviews, and `seen` of those with labels.

    Args:
        rows: a table of `ROW_SCHEMA`.
        packed: the bundle.
        texts: those that it was trained on.
        split: which of the labelled, usable rows to score: of `train`, `test` or `validation`, or `all`, `FRESH`,
            `NEITHER` or `UNSEEN`.
        look: gives further tables, if any, of the scored rows with what is true of them as `truth`.
    """
    scorer = packed.scorer()
    labels, task = scorer.bundle.labels, scorer.bundle.spec.task
    rows = rows if task == "regression" else mark_unknown(rows, labels)
    labelled = rows.filter(pc.and_(pc.is_null(rows["reason"]), pc.is_valid(rows["label"])))
    splits, seen = labelled["split"], pa.array(texts.among(labelled["text"]))
    fresh = pc.or_(pc.equal(splits, TEST), pc.and_not(pc.equal(splits, NO_SPLIT), seen))
    chosen = {
        ALL: pc.is_valid(splits),
        UNSEEN: pc.invert(seen),
        FRESH: fresh,
        NEITHER: pc.and_not(fresh, seen),
    }
    scored = labelled.filter(chosen[split] if split in chosen else pc.equal(splits, split))
    predictions, scores = predictions_schema(task).empty_table(), None
    if scored.num_rows:
        truth = column_of(truths(scored["label"], labels, task))
        scores = scorer.score(scored["text"], numbers_of(scored, scorer.bundle.spec.columns))
        predictions = pa.table([truth, column_of(scores.probabilities)], predictions.schema)
        scored = scored.append_column("truth", truth)
    counted = labelled.filter(seen).group_by("split", use_threads=False).aggregate([([], "count_all")])
    return {
        **inspect_rows(rows),
        "predictions": predictions,
        "seen": counted.rename_columns(SEEN_SCHEMA.names).cast(SEEN_SCHEMA),
        **(look(scored, scores) if look is not None else {}),
    }


def truths(given: pa.ChunkedArray, labels: Sequence[str], task: Task) -> NDArray[Any]:
    """What is true of rows, as a training set has it, by what the column of labels holds of them.

    Args:
        given: of each row the label, or the labels as `sentray.task.join` has them, or the number; none is null.
        labels: of the bundle.
        task: what is asked.

    Returns:
        Positions of the labels, int32 [rows]; multilabel: 1 for each that a row has, uint8 [rows, labels]; regression:
        float32 [rows].
    """
    if task == "regression":
        return np.asarray(given.cast(pa.float32()).to_numpy())
    encoded, at = given.combine_chunks().dictionary_encode(), {label: position for position, label in enumerate(labels)}
    distinct = encoded.dictionary.to_pylist()
    if task == "multilabel":
        found = np.zeros((len(distinct), len(labels)), np.uint8)
        for row, joined in zip(found, distinct, strict=True):
            row[[at[label] for label in split_labels(joined)]] = 1
    else:
        found = np.array([at[label] for label in distinct], np.int32)
    return np.asarray(found[encoded.indices.to_numpy()])


def rows_by_label(truth: NDArray[Any], labels: Sequence[str]) -> dict[str, int]:
    """Rows of each label, of several labels for each that they have; none of a regression.

    Args:
        truth: as `truths` gives it.
        labels: of the bundle.
    """
    of_label = truth.sum(0) if truth.ndim == 2 else np.bincount(truth, minlength=len(labels)) if labels else ()
    return {label: int(rows) for label, rows in zip(labels, of_label, strict=True) if rows}


@dataclass(frozen=True)
class Measured:
    """What a pass over a corpus found.

    Attributes:
        metrics: what `evaluate` gives.
        inspection: of all rows.
        seen: labelled rows by split that were trained on.
        truth: what is true of the reviews, as `truths` gives it.
        probabilities: float32 [reviews, labels]; of a regression the numbers, [reviews, 1].
        kept: what a look keeps of these reviews.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    inspection: Inspection = field(default_factory=Inspection)
    seen: Counter[str] = field(default_factory=Counter)
    truth: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.int32))
    probabilities: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    kept: Tables = field(default_factory=dict)

    @property
    def evidence(self) -> Evidence | None:
        """Of the measured rows, where it was asked for."""
        return Evidence(self.kept["evidence"], TEST, len(self.truth)) if "evidence" in self.kept else None

    @property
    def slices(self) -> dict[str | None, tuple[int, int]]:
        """Right and all reviews by their value in a column, where one was asked for."""
        found: dict[str | None, tuple[int, int]] = {}
        if "slices" in self.kept:
            for value, right, rows in zip(*(column.to_pylist() for column in self.kept["slices"].columns), strict=True):
                before = found.get(value, (0, 0))
                found[value] = before[0] + rows * bool(right), before[1] + rows
        return found


class NothingLeftError(SentrayError):
    """All labelled reviews were trained on."""


def evaluate(settings: EvaluateSettings, console: Console) -> dict[str, Any]:
    """The metrics that `measure` gives."""
    return measure(settings, console).metrics


def measure(
    settings: EvaluateSettings,
    console: Console,
    look: Further | None = None,
    split: str | None = None,
    others: TextHashes | None = None,
) -> Measured:
    """Score the labelled reviews of a corpus and compare.

    Where no split is asked for, what the bundle was trained on is left out: of a corpus that gives splits the test
    rows are used, of any other all rows whose text was not trained on. Rows that are given no split are drawn by the
    bundle's rule, where that matters.

    Args:
        settings: Which bundle, which reviews.
        console: Where to say what happens.
        look: What to keep of the rows besides their scores; None for nothing.
        split: As for `predict`, in place of the settings'.
        others: Texts that count as trained on besides the bundle's own; then none of these is measured, unless a split
            is asked for.

    Returns:
        As metrics what `sentray.metrics.metrics` gives, with `bundle`, `corpus`, `split`, `of` (rows of the corpus),
        `why` (these `rows` are measured), `trained_on` (labelled rows of the corpus whose text the bundle was trained
        on; None where it does not say), `quarantined_rows` and `quarantined` (rows by reason, of the whole corpus).

    Raises:
        SentrayError: When the bundle or the corpus cannot be used, or too many rows are bad.
    """
    model = bundle.load(settings.bundle, settings.trust_model)
    task = model.spec.task
    settings = settings.model_copy(update={"task": task})
    texts = (model.texts or TextHashes.of([])) | (others or TextHashes.of([]))
    if columns := (*settings.numeric, *model.spec.columns):
        settings = settings.model_copy(update={"numeric": tuple(dict.fromkeys(columns))})
        require_columns(settings.corpus, settings, need_label=True)
    with cluster.connect(settings.address, verbose=settings.verbose):
        workers = settings.workers or max(1, int(cluster.resources().max_cpus))
        cluster.plan(workers, cpus_each=1)
        corpus = Corpus.open(settings.corpus, settings, workers=settings.workers)

        def measured(split: str) -> Measured:
            # Where the bundle's rule does not matter, it shall not be mistaken for a split that was given.
            rule = {"test_fraction": None} if split in (FRESH, NEITHER, UNSEEN) else model.split_rule
            chosen = replace(corpus, settings=settings.model_copy(update=rule))
            found = _measure(model, texts, chosen, split, settings, console, look)
            found.inspection.check_usable(settings.corpus, settings.max_bad_rows)
            return found

        # A bundle that does not say what it was trained on knows its corpus by name alone.
        by_name = model.texts is None and model.settings.get("corpus") == settings.corpus
        asked = split or settings.split
        split = asked or (TEST if by_name else FRESH if others is None else NEITHER)
        found = measured(split)
        if asked is None and (other := _instead(split, found, texts)):
            split, found = other, measured(other)
    inspection, rows = found.inspection, len(found.truth)
    why = _why(split, bool(settings.split), found, None if model.texts is None else texts)
    if not rows:
        if found.seen and settings.split is None:
            held_out = (
                " look in its metrics.json for the figures of held-out rows," if "validation" in model.metrics else ""
            )
            raise NothingLeftError(
                f"all {found.seen.total():,} labelled reviews of {settings.corpus} were trained on: give others,"
                f"{held_out} or take --split all to see how well these were learnt"
            )
        which = f" of --split {split}" if settings.split else ""
        raise SentrayError(
            f"{settings.corpus} has no labelled review{which}: choose another --split, or name the right columns with "
            "--label-column and --split-column"
        )
    console.say(f"{rows:,} of {inspection.rows:,} rows: {why}")
    for line in warnings_of(rows_by_label(found.truth, model.labels), rows):
        console.say(f"warning: {line}")
    console.say(corpus.describe())
    whole = rows == sum(count for (_, label), count in inspection.labels.items() if label is not None)
    decided = model.decision.of(found.probabilities, task)
    figures = {
        **metrics(found.truth, found.probabilities, model.labels, decided, task),
        **thresholds_of(model),
        "of": inspection.rows,
        "why": why,
        "trained_on": None if model.texts is None else found.seen.total() * texts.sampled,
        "split": settings.split or (ALL if whole else TEST),
        "quarantined_rows": inspection.bad.num_rows,
        "quarantined": dict(inspection.reasons.most_common()),
        "bundle": model.digest,
        "corpus": settings.corpus,
    }
    return replace(found, metrics=figures)


def thresholds_of(model: Bundle) -> dict[str, dict[str, float]]:
    """The threshold of each label, as `thresholds`, where the bundle has any."""
    found = model.decision.thresholds
    return {} if found is None else {"thresholds": dict(zip(model.labels, found, strict=True))}


def _instead(split: str, found: Measured, texts: TextHashes) -> str | None:
    """Which rows to measure after all, where no split is asked for; None where it is as it should be."""
    if split in (FRESH, NEITHER) and texts.sampled > 1 and found.seen:
        # Which of the others were trained on, only the rule can say.
        return TEST
    if not len(found.truth):
        return ALL if split == TEST else UNSEEN
    return None


def _why(split: str, asked: bool, found: Measured, texts: TextHashes | None) -> str:
    """Which rows are measured, and why."""
    known = "the bundle is of an earlier format and does not say what it was trained on"
    if texts is not None:
        number = f"{found.seen.total() * texts.sampled:,} of {found.inspection.rows:,} rows were trained on"
        known = (f"about {number}" if texts.sampled > 1 else number) if found.seen else "none of them was trained on"
    if asked:
        return f"those of --split {split}; {known}"
    may_be_given = split in (FRESH, NEITHER)
    if may_be_given and (given := found.inspection.of_split(TEST).total()):
        tested = "those whose given split is test"
        if found.seen[TEST] and split == NEITHER:
            given -= found.seen[TEST]
            tested += " and that were not trained on"
        elif found.seen[TEST]:
            known += f", {found.seen[TEST]:,} test rows among them"
        others = " or that were given none and not trained on" if len(found.truth) > given else ""
        return f"{tested}{others}; {known}{_ALL}"
    if split == TEST and texts is None:
        return f"those whose split is test; {known}, so that the corpus counts as its own by its name"
    which = {TEST: "those held out by the bundle's rule", ALL: "all that have a label, since none is held out"}
    given_others = may_be_given and any(name != NO_SPLIT and label for name, label in found.inspection.labels)
    usual = f"those{' without a given split' * given_others}{' that were not trained on' * bool(found.seen)}"
    usual = "all that have a label" if usual == "those" else usual
    return f"{which.get(split, usual)}; {known}{_ALL if found.seen or given_others else ''}"


def _measure(
    model: Bundle,
    texts: TextHashes,
    corpus: Corpus,
    split: str,
    settings: EvaluateSettings,
    console: Console,
    look: Further | None,
) -> Measured:
    packed = PackedScorer(model.digest, settings.engine, model.scoring_files, model.trusted)
    schema = predictions_schema(model.spec.task)
    inspection, seen, tables, scored = Inspection(), Counter[str](), [schema.empty_table()], 0
    kept = {} if look is None else look(pa.table({}), None)
    for found in corpus.map_blocks(predict, packed=packed, texts=texts, split=split, look=look):
        inspection += Inspection.of(found)
        for of_split, rows in zip(*(column.to_pylist() for column in found["seen"].columns), strict=True):
            seen[of_split] += rows
        tables.append(found["predictions"])
        scored += len(found["predictions"])
        if look is not None:
            kept = look.merged({name: pa.concat_tables([table, found[name]]) for name, table in kept.items()})
        console.progress(f"{inspection.rows:,} rows read, {scored:,} scored")
    predictions = pa.concat_tables(tables)
    truth, probabilities = (array_of(predictions[name]) for name in schema.names)
    return Measured({}, inspection, seen, truth, probabilities, kept)


def predictions_schema(task: Task) -> pa.Schema:
    """A row for a scored review: what is true of it, as `truths` gives it, and its probabilities."""
    return pa.schema([evidence_schema(task).field(name) for name in ("truth", "probabilities")])
