"""`compare`: two bundles on the same reviews, by paired intervals, McNemar's test and the reviews that part them.

Of several labels a review is right where it got all its labels and no other; numbers are compared by how far off they
are.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentray import bundle
from sentray.bundle import Bundle
from sentray.config import CompareSettings
from sentray.console import Console
from sentray.corpus.dataset import Tables
from sentray.corpus.identity import TextHashes
from sentray.corpus.rows import numbers_of
from sentray.decision import UNSURE
from sentray.errors import SentrayError
from sentray.evaluation import PackedScorer, measure, thresholds_of
from sentray.inference.scorer import Scores
from sentray.metrics import differences, metrics
from sentray.report.evidence import array_of, column_of, evidence_schema, is_right
from sentray.task import Task, split

MAX_DIFFERING = 100
"""Reviews with other labels that are kept, those whose probabilities differ most."""
EXCERPT = 200
"""Characters that are kept of a review."""

DIFFERING_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("id", "text", "truth", "label_a", "label_b")),
        *(pa.field(name, pa.float32()) for name in ("probability_a", "probability_b", "gap")),
    ]
)
"""A review with other labels: what each bundle gives it, null for none, the probability of that, null where it is not
one label, and half the sum of the probabilities' distances, or the distance of the numbers."""


@dataclass(frozen=True)
class Beside:
    """Scores reviews with the other bundle as well, where they have been scored with the first.

    Attributes:
        packed: the other bundle.
        labels: those of the first.
        excerpts: whether the beginnings of texts are kept.
        task: what is asked of a review.
    """

    packed: PackedScorer
    labels: tuple[str, ...]
    excerpts: bool
    task: Task = "classification"

    def __call__(self, rows: pa.Table, scores: Scores | None) -> Tables:
        """What the `other` bundle gives, of `OTHER_SCHEMA`, and the reviews that are `differing` most."""
        schema = other_schema(self.task)
        if scores is None:
            return {"other": schema.empty_table(), "differing": DIFFERING_SCHEMA.empty_table()}
        scorer = self.packed.scorer()
        found = scorer.score(rows["text"], numbers_of(rows, scorer.bundle.spec.columns))
        ours, theirs = scores.decided, scorer.bundle.labels
        decided = in_order(found.decided, theirs, self.labels)
        probabilities = np.ascontiguousarray(
            found.probabilities[:, [theirs.index(each) for each in self.labels] or [0]]
        )
        gaps = np.abs(scores.probabilities - probabilities).sum(1) / (1 if self.task == "regression" else 2)
        differ = np.flatnonzero(~is_right(ours, decided))
        differ = differ[np.argsort(-gaps[differ], kind="stable")[:MAX_DIFFERING]]
        some = rows.take(pa.array(differ))
        text = pc.utf8_slice_codeunits(some["text"], 0, EXCERPT) if self.excerpts else pa.nulls(len(some), pa.string())
        columns = {"id": some["id"], "text": text.cast(pa.string()), "gap": gaps[differ]}
        columns["truth"] = [", ".join(split(label)) for label in some["label"].to_pylist()]
        for model, given, chances in (("a", ours, scores.probabilities), ("b", decided, probabilities)):
            said = [_said(each, of, self.labels) for each, of in zip(given[differ], chances[differ], strict=True)]
            columns |= {f"label_{model}": [label for label, _ in said], f"probability_{model}": [of for _, of in said]}
        return {
            "other": pa.table([column_of(probabilities), column_of(_stored(decided))], schema=schema),
            "differing": pa.table([columns[name] for name in DIFFERING_SCHEMA.names], schema=DIFFERING_SCHEMA),
        }

    def merged(self, tables: Tables) -> Tables:
        """Of what several blocks gave the reviews that differ most."""
        most = tables["differing"].sort_by([("gap", "descending"), ("id", "ascending")])[:MAX_DIFFERING]
        return {**tables, "differing": most}


def other_schema(task: Task) -> pa.Schema:
    """A row for a scored review: what the other bundle gives it, by the labels of the first, and what it gets."""
    of_row = evidence_schema(task)
    return pa.schema([of_row.field("probabilities"), of_row.field("truth").with_name("decided")])


def in_order(decided: NDArray[Any], theirs: Sequence[str], labels: Sequence[str]) -> NDArray[Any]:
    """What rows got from a bundle, as `Decision.of` gives it, by the labels in another order."""
    if decided.ndim == 2:
        return np.asarray(decided[:, [theirs.index(label) for label in labels]])
    if not labels:
        return decided
    # What is unsure has the last position.
    return np.asarray(np.array([*(labels.index(label) for label in theirs), UNSURE], np.int32)[decided])


def _stored(decided: NDArray[Any]) -> NDArray[Any]:
    return decided.astype(np.uint8) if decided.ndim == 2 else decided


def _said(decided: Any, chances: NDArray[np.float32], labels: Sequence[str]) -> tuple[str | None, float | None]:
    """What a row got, in words, and its probability where it is one label."""
    if isinstance(decided, np.floating):
        return f"{decided:.6g}", None
    if isinstance(decided, np.ndarray):
        return ", ".join(label for label, has in zip(labels, decided, strict=True) if has), None
    return (None, float(chances.max())) if decided == UNSURE else (labels[decided], float(chances[decided]))


def compare(settings: CompareSettings, console: Console) -> dict[str, Any]:
    """Measure two bundles on the reviews of a corpus that neither was trained on; which these are, `evaluate` says.

    Args:
        settings: Which bundles, which reviews, what is required.
        console: Where to say what happens.

    Returns:
        `a` and `b`, each with what `sentray.metrics.metrics` gives and its `path` and `digest`; `differences`, B - A,
        their `intervals` and `bootstrap`, as `sentray.metrics.differences` gives them; `right`, the difference of the
        shares of all rows that each gets right, and its interval, see `right_difference`, and `mcnemar`, both None
        where the bundles give numbers; `differing`, the reviews with other labels or numbers, at most `MAX_DIFFERING`,
        and `differing_rows`, how many there are; `verdict`, a sentence, and whether what is required is `passed`; and
        which rows these are, as `evaluate` says it.

    Raises:
        SentrayError: When the bundles do not fit together, or one of them or the corpus cannot be used.
    """
    one, other = (bundle.load(path, settings.trust_model) for path in (settings.bundle, settings.other))
    texts = _require_comparable(one, other, settings)
    task = one.spec.task
    packed = PackedScorer(other.digest, settings.engine, other.scoring_files, other.trusted)
    reading = settings.model_copy(update={"numeric": other.spec.columns})
    measured = measure(reading, console, Beside(packed, one.labels, settings.excerpts, task), others=texts)
    found, truth, beside = measured.metrics, measured.truth, measured.kept["other"]
    probabilities, theirs = (array_of(beside[name]) for name in beside.column_names)
    ours = one.decision.of(measured.probabilities, task)
    about = ("rows", "of", "why", "trained_on", "split", "quarantined_rows", "quarantined", "corpus", "labels")
    compared = differences(truth, (measured.probabilities, ours), (probabilities, theirs), one.labels, task)
    ends = {name: compared.pop(name) for name in ("intervals", "bootstrap")}
    right, test = None, None
    if task == "regression":
        name = "mean_absolute_error"
        better = judge_errors(compared[name], ends["intervals"][name], found[name], settings.require, settings.margin)
    else:
        test = mcnemar(is_right(truth, ours), is_right(truth, theirs))
        right = right_difference(test["only_a_right"], test["only_b_right"], len(truth))
        better = judge(*right, settings.require, settings.margin)
    result = {
        **{name: found.pop(name) for name in about},
        "a": {**found, "bundle": settings.bundle, "digest": one.digest},
        "b": {
            **metrics(truth, probabilities, one.labels, theirs, task),
            **thresholds_of(other),
            "bundle": settings.other,
            "digest": other.digest,
        },
        "differences": compared,
        **ends,
        "right": right and dict(zip(("difference", "interval"), right, strict=True)),
        "mcnemar": test,
        "differing_rows": int((~is_right(ours, theirs)).sum()),
        "differing": _differing(measured.kept["differing"]),
        "require": settings.require,
        "margin": settings.margin,
        "passed": better[0],
        "verdict": better[1],
    }
    if settings.html is not None:
        # It takes its time to load.
        from sentray.report.comparison import page
        from sentray.storage import write_text

        write_text(settings.html, page(result))
    return result


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> dict[str, Any]:
    """McNemar's exact test of two models on the same rows (Dietterich 1998): is each as often right alone?

    Where both are equally good, the rows that only one of them gets right are either's with probability 1/2 each.

    Args:
        first: Whether the first model is right; [rows]. What it is unsure of it is not right about.
        second: Whether the second is.

    Returns:
        Rows by who is right, and the two-sided p-value of the binomial test; 1 where the models are never at odds.
    """
    # SciPy takes its time to load.
    from scipy.stats import binomtest

    only = [int((first & ~second).sum()), int((second & ~first).sum())]
    return {
        "both_right": int((first & second).sum()),
        "only_a_right": only[0],
        "only_b_right": only[1],
        "neither_right": int((~first & ~second).sum()),
        "p_value": float(binomtest(only[0], sum(only)).pvalue) if any(only) else 1.0,
    }


def right_difference(only_a: int, only_b: int, rows: int) -> tuple[float, list[float]]:
    """How much larger the share of rows is that the second model gets right, B - A, and its interval of 95 %.

    The interval is Wald's for paired shares with half a row added to each cell (Agresti and Min 2005). Unlike that of a
    bootstrap it is not a point where few rows say that both are alike.

    Args:
        only_a: Rows that only the first gets right. A row without a label is not right.
        only_b: Rows that only the second does.
        rows: All rows.
    """
    one, other, total = only_a + 0.5, only_b + 0.5, rows + 2
    middle = (other - one) / total
    half = 1.96 * math.sqrt(one + other - (other - one) ** 2 / total) / total
    return (only_b - only_a) / rows, [middle - half, middle + half]


def judge(difference: float, ends: list[float], require: str, margin: float) -> tuple[bool, str]:
    """Whether the second bundle is what it must be, and a sentence about the rows that each gets right.

    Args:
        difference: Of the shares that B and A get right, B - A.
        ends: Of its interval.
        require: `none`; `not-worse`, that the interval lies above minus the margin; or `better`, above 0.
        margin: How many fewer of all rows B may get right, as a share.
    """
    low, high = ends
    seen = f"the shares of rows that are right differ by {difference:+.4f} (B - A), 95 % from {low:+.4f} to {high:+.4f}"
    passed, verdict = _verdict(low, high, require, margin, "is more often right", f"{margin:g}")
    return passed, f"{verdict}: {seen}"


def judge_errors(difference: float, ends: list[float], error: float, require: str, margin: float) -> tuple[bool, str]:
    """As `judge`, of bundles that give numbers, by how far off these are.

    Args:
        difference: Of the mean absolute errors, B - A.
        ends: Of its interval.
        error: That of A.
        require: As for `judge`: `not-worse`, that the interval lies below the margin, or `better`, below 0.
        margin: How much larger B's error may be, as a share of A's.
    """
    low, high = ends
    seen = f"the mean absolute errors differ by {difference:+.4f} (B - A), 95 % from {low:+.4f} to {high:+.4f}"
    # Of errors the smaller one is the better.
    passed, verdict = _verdict(-high, -low, require, margin * error, "is nearer", f"{margin:g} of A's error")
    return passed, f"{verdict}: {seen}"


def _verdict(low: float, high: float, require: str, margin: float, better: str, by: str) -> tuple[bool, str]:
    """Whether B is what it must be, and which of both is better, from the limits of how much better B is."""
    verdict = "neither is shown to be better"
    if low > 0 or high < 0:
        verdict = f"{'B' if low > 0 else 'A'} {better}"
    if require == "not-worse":
        verdict += f"; B {'may be' if low < -margin else 'is not'} worse by more than {by}"
    return {"none": True, "not-worse": low >= -margin, "better": low > 0}[require], verdict


def _require_comparable(one: Bundle, other: Bundle, settings: CompareSettings) -> TextHashes:
    """The texts of the other bundle, where both can be measured on the same rows.

    Raises:
        SentrayError: They have other labels, or it is not known what they were trained on.
    """
    if one.spec.task != other.spec.task:
        raise SentrayError(
            f"{settings.bundle} is for the task {one.spec.task} and {settings.other} for {other.spec.task}: only "
            "bundles of the same task can be compared"
        )
    if set(one.labels) != set(other.labels):
        raise SentrayError(
            f"{settings.bundle} has the labels {', '.join(one.labels)} and {settings.other} {', '.join(other.labels)}: "
            "only bundles with the same labels can be compared"
        )
    if (one.texts is None or other.texts is None) and settings.split is None:
        old = settings.bundle if one.texts is None else settings.other
        raise SentrayError(
            f"{old} is of an earlier format and does not say what it was trained on: name the rows by --split"
        )
    texts = other.texts or TextHashes.of([])
    # Then only the rule says which rows were trained on.
    is_sampled = max(texts.sampled, (one.texts or texts).sampled) > 1
    if is_sampled and settings.split is None and one.split_rule != other.split_rule:
        raise SentrayError(
            f"{settings.bundle} and {settings.other} were trained on so many texts that only the rule of the split "
            "says which, and their rules differ: give a corpus with a column split, and --split test"
        )
    return texts


def _differing(most: pa.Table) -> list[dict[str, Any]]:
    """The reviews that differ most, as JSON values."""
    return [
        {
            **{name: row[name] for name in ("id", "text", "truth")},
            **{
                model: {"label": row[f"label_{model}"], "probability": row[f"probability_{model}"]}
                for model in ("a", "b")
            },
        }
        for row in most.to_pylist()
    ]
