"""What `sentray check` says of a corpus: rows, labels, lengths, duplicates, overlap of train and test."""

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sentray import bundle as bundles
from sentray import cluster
from sentray.config import CheckSettings, CorpusSettings, EvaluateSettings, PoolSettings
from sentray.console import Console
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.duplicates import hash_texts
from sentray.corpus.inspect import Inspection, as_trained, counted, inspect_rows, warnings_of
from sentray.corpus.rows import Hashes, label_order
from sentray.errors import SentrayError
from sentray.report.evidence import Doubt
from sentray.task import Task, split
from sentray.text.cleaning import CleaningRules, rules_from
from sentray.text.coverage import Left
from sentray.text.encoding import Encoder
from sentray.text.hashing import HashedWords

EXAMPLES = 5
"""How many pairs of equal reviews are named."""

REVIEWS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("split", pa.string()),
        pa.field("hash", pa.uint64()),
        pa.field("words", pa.int32()),
    ]
)
"""What is kept of a usable review: `hash` is of its text, `words` counts what white space separates."""

Pairs = tuple[tuple[str, str], ...]
Look = Callable[..., Iterable[Tables]]


@dataclass(frozen=True)
class LabelErrors:
    """Rows whose label a bundle denies.

    Attributes:
        of: which rows were looked at, in words.
        number: how many of them likely have a wrong label.
        rows: the likeliest first.
    """

    of: str
    number: int
    rows: tuple[Doubt, ...]

    def lines(self) -> list[str]:
        """For the report."""
        head = f"labels          {self.number:,} likely wrong of {self.of}"
        return [head, *(f"  {doubt.line()}" for doubt in self.rows)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"of": self.of, "likely_wrong": self.number, "rows": [asdict(doubt) for doubt in self.rows]}


@dataclass(frozen=True)
class Report:
    """A corpus at a glance.

    Attributes:
        corpus: one line about where it is and how large.
        inspection: rows by split and label, and the bad ones.
        words: least, mean, median, 95th percentile and most words of a review; empty where there is none.
        duplicates: usable reviews whose text an earlier one has.
        duplicate_examples: ids of such a review and of the first with its text.
        overlap: test reviews whose text is in train too.
        overlap_examples: ids of such a review and of one in train.
        problem: why training would refuse the corpus, or None.
        left: what the cleaning leaves of the usable reviews.
        cleaning: which cleaning that is, and how much it leaves, in words.
        label_errors: rows whose label is likely wrong, where a bundle was given to find them.
        task: what is asked of a review.
    """

    corpus: str
    inspection: Inspection
    words: dict[str, float] = field(default_factory=dict)
    duplicates: int = 0
    duplicate_examples: Pairs = ()
    overlap: int = 0
    overlap_examples: Pairs = ()
    problem: str | None = None
    left: Left = field(default_factory=Left)
    cleaning: tuple[str, ...] = ()
    label_errors: "LabelErrors | None" = None
    task: Task = "classification"

    def lines(self) -> list[str]:
        """The report as plain text."""
        counts, w = self.inspection, self.words
        lines = [self.corpus, f"rows            {counts.rows:,}, usable {counts.usable:,}"]
        for part, labels in self._labels().items():
            total = sum(rows for (of, _), rows in counts.labels.items() if of == part)
            shares = counted({label or "no label": rows for label, rows in labels.items()}, total)
            unused = "" if part in ("train", "validation", "test") else "; neither trained on nor tested"
            lines.append(f"{part:<16}{total:,}: {shares}{unused}")
            lines += [f"  {line}" for line in (warnings_of(counts.of_split(part)) if part == "test" else ())]
        if w:
            lines.append(
                f"words a review  least {w['min']:,.0f}, mean {w['mean']:,.1f}, median {w['median']:,.0f}, "
                f"95 % up to {w['p95']:,.0f}, most {w['max']:,.0f}"
            )
        lines += self.cleaning
        bad = ", ".join(f"{reason} {count:,}" for reason, count in counts.reasons.most_common())
        lines.append(f"bad rows        {bad or 'none'}")
        lines += [f"  {row['file']} row {row['row']}: {_why(row)}" for row in self._first_bad()]
        for what, count, says, examples in (
            ("same text", self.duplicates, "reviews repeat an earlier one", self.duplicate_examples),
            ("test in train", self.overlap, "test reviews are in train too", self.overlap_examples),
        ):
            lines.append(f"{what:<16}{count:,} {says}")
            lines += [f"  {one} is {other}" for one, other in examples]
        if self.label_errors is not None:
            lines += self.label_errors.lines()
        train = counts.classes("train")
        what = (
            f"numbers from {train[0]} to {train[-1]}"
            if self.task == "regression" and train
            else f"{len(train):,} labels"
        )
        says = f"training would learn {what} from {counts.of_split('train').total():,} reviews"
        return [*lines, f"training would stop: {self.problem}" if self.problem else says]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values with stable keys."""
        labels = self._labels()
        return {
            "corpus": self.corpus,
            "rows": self.inspection.rows,
            "usable_rows": self.inspection.usable,
            "unlabelled_rows": sum(rows.get("", 0) for rows in labels.values()),
            "labels": labels,
            "words": self.words,
            "cleaning_left": asdict(self.left),
            "bad_rows": dict(self.inspection.reasons),
            "first_bad_rows": self._first_bad(),
            "duplicate_texts": self.duplicates,
            "duplicate_examples": [list(pair) for pair in self.duplicate_examples],
            "train_test_overlap": self.overlap,
            "overlap_examples": [list(pair) for pair in self.overlap_examples],
            "problem": self.problem,
            **({} if self.label_errors is None else {"label_errors": self.label_errors.to_dict()}),
        }

    def _labels(self) -> dict[str, dict[str, int]]:
        """Usable rows by split and label, sorted; the last label is "", of those without one.

        A row of several labels counts for each of them.
        """
        found = Counter[tuple[str, str]]()
        for (part, labels), rows in self.inspection.labels.items():
            for label in split(labels or "") or [""]:
                found[part, label] += rows
        by_split: dict[str, dict[str, int]] = {}
        for part, label in sorted(found, key=lambda key: (key[0], not key[1], label_order(key[1]))):
            by_split.setdefault(part, {})[label] = found[part, label]
        return by_split

    def _first_bad(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = (
            self.inspection.bad[:EXAMPLES].select(["file", "row", "reason", "detail"]).to_pylist()
        )
        return rows


def _why(bad: dict[str, Any]) -> str:
    return f"{bad['reason']} ({bad['detail']})" if bad["detail"] else f"{bad['reason']}"


def check(settings: CheckSettings, console: Console) -> Report:
    """Look at every row of a corpus, in parallel; labels need not be there.

    Raises:
        SentrayError: there is no such corpus, or a file cannot be read.
    """
    rules, about = rules_from(settings)
    with cluster.connect(settings.address, cpus=settings.workers, verbose=settings.verbose):
        corpus = Corpus.open(settings.corpus, settings, need_label=False)
        look = functools.partial(corpus.map_blocks, inspect_rows, need_label=True)
        blocks = corpus.map_blocks(look_at, rules=rules)
        found = report(corpus.describe(), blocks, settings, console, look)
        doubtful = (
            None if settings.label_errors is None else find_label_errors(settings.label_errors, settings, console)
        )
        return replace(found, cleaning=(*about, *found.left.lines(rules, False)), label_errors=doubtful)


def find_label_errors(bundle: str, settings: CheckSettings, console: Console) -> LabelErrors:
    """Rows of the corpus that a bundle was not trained on and whose label it denies.

    Where it was trained on all of them, or on too many to say on which, the rows that its training held out, by the
    fits that did not see them.

    Raises:
        SentrayError: the bundle cannot be used, does not say what it was trained on, or no row is left to look at.
    """
    from sentray.evaluation import UNSEEN, Look, NothingLeftError, measure
    from sentray.report.evidence import Evidence, label_errors

    shared = {name: getattr(settings, name) for name in {*CorpusSettings.model_fields, *PoolSettings.model_fields}}
    asked = EvaluateSettings(bundle=bundle, corpus=settings.corpus, trust_model=settings.trust_model, **shared)
    model = bundles.load(bundle)
    if model.spec.task in ("multilabel", "regression"):
        raise SentrayError(
            f"--label-errors finds rows that have another label than a bundle says, and {bundle} is for the task "
            f"{model.spec.task}, where no label is the only one: leave it out"
        )
    if model.texts is None:
        raise SentrayError(
            f"{bundle} is of an earlier format and does not say what it was trained on: train it again to find label "
            "errors by it"
        )
    kept, of = None, "rows that the bundle was not trained on"
    if model.texts.sampled == 1:
        with contextlib.suppress(NothingLeftError):
            kept = measure(asked, Console(silent=True), Look(settings.excerpts), UNSEEN).evidence
    if kept is None:
        kept = Evidence.beside(model, settings.excerpts)
        of = "rows that its training held out, by the fits that did not see them"
        if kept is None or kept.which != "validation":
            raise SentrayError(
                f"{bundle} was trained on every labelled row of {settings.corpus}, or on too many to know, and keeps "
                "no held-out rows: give a bundle that was trained on others"
            )
    found, number = label_errors(kept, model.labels)
    seen = f"a sample of {len(kept.sample):,} of {kept.of:,}" if kept.is_part else f"{kept.of:,}"
    return LabelErrors(f"{seen} {of}", number, tuple(found))


def look_at(rows: pa.Table, rules: CleaningRules) -> Tables:
    """A stage: `inspect_rows`, the usable `reviews` of `REVIEWS_SCHEMA`, and what cleaning has `left` of them."""
    good = rows.filter(pc.is_null(rows["reason"]))
    texts = good["text"].combine_chunks()
    words = [len(text.split()) for text in texts.to_pylist()]
    reviews = pa.table([good["id"], good["split"], hash_texts(texts), words], schema=REVIEWS_SCHEMA)
    # As many ids as there are words is all that is asked for.
    left = Left.of(Encoder(rules, HashedWords(1)).encode(texts), good["text"])
    return {**inspect_rows(rows), "reviews": reviews, "left": left.table()}


def report(
    name: str,
    blocks: Iterable[Tables],
    settings: CheckSettings,
    console: Console,
    look: Look,
) -> Report:
    """Put together what `look_at` found.

    Args:
        name: one line about the corpus.
        blocks: of all its rows, in order.
        settings: for the share of bad rows that training allows.
        console: for the progress.
        look: `inspect_rows` of all rows with the labels that it is given.
    """
    inspection, tables, left = Inspection(), [REVIEWS_SCHEMA.empty_table()], Left()
    for found in blocks:
        inspection += Inspection.of(found)
        tables.append(found["reviews"])
        left += Left.sum(found["left"])
        console.progress(f"{inspection.rows:,} rows looked at")
    problem, inspection = None, as_trained(inspection, lambda labels: look(labels=labels), task=settings.task)
    try:
        inspection.check_trainable(settings.corpus, settings.max_bad_rows, settings.task)
    except SentrayError as error:
        problem = str(error)
    if not inspection.usable:
        return Report(name, inspection, problem=problem, task=settings.task)
    reviews = pa.concat_tables(tables)
    hashes, words, ids = reviews["hash"].to_numpy(), reviews["words"].to_numpy(), reviews["id"]
    train, test = (np.flatnonzero(pc.equal(reviews["split"], split).to_numpy()) for split in ("train", "test"))
    everything = np.arange(len(hashes))
    first = _first_equal(hashes, everything, everything)
    later = np.flatnonzero(first < everything)
    twin = _first_equal(hashes, test, train)
    both = twin >= 0
    shares = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
    lengths = np.quantile(words, list(shares.values()), method="inverted_cdf").astype(int).tolist()
    return Report(
        name,
        inspection,
        {**dict(zip(shares, lengths, strict=True)), "mean": float(words.sum() / len(words))},
        len(later),
        _pairs(ids, later, first[later]),
        int(both.sum()),
        _pairs(ids, test[both], twin[both]),
        problem,
        left,
        task=settings.task,
    )


Positions = npt.NDArray[np.intp]


def _first_equal(hashes: Hashes, wanted: Positions, among: Positions) -> Positions:
    """For each position `wanted`, the first `among` others with the same hash, or -1."""
    if not len(among):
        return np.full(len(wanted), -1)
    known, first = np.unique(hashes[among], return_index=True)
    at = np.searchsorted(known, hashes[wanted]).clip(max=len(known) - 1)
    return np.where(known[at] == hashes[wanted], among[first[at]], -1)


def _pairs(ids: pa.ChunkedArray, left: Positions, right: Positions) -> Pairs:
    sides = (ids.take(pa.array(side[:EXAMPLES])).to_pylist() for side in (left, right))
    return tuple(zip(*sides, strict=True))
