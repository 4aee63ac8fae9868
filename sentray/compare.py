"""`compare`: two bundles on the same reviews, by paired intervals, McNemar's test and the reviews that part them."""

import math
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
from sentray.evaluation import PackedScorer, measure
from sentray.inference.scorer import Scores
from sentray.metrics import differences, metrics
from sentray.report.evidence import lists

MAX_DIFFERING = 100
"""Reviews with other labels that are kept, those whose probabilities differ most."""
EXCERPT = 200
"""Characters that are kept of a review."""

OTHER_SCHEMA = pa.schema([pa.field("probabilities", pa.list_(pa.float32())), pa.field("class", pa.int32())])
"""A row for a scored review: what the other bundle gives it, by the labels of the first."""
DIFFERING_SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("id", "text", "truth")),
        *(pa.field(name, pa.int32()) for name in ("class_a", "class_b")),
        *(pa.field(name, pa.float32()) for name in ("probability_a", "probability_b", "gap")),
    ]
)
"""A review with other labels: their positions, `UNSURE` for none, the probability of each, and half the sum of the
probabilities' distances."""


@dataclass(frozen=True)
class Beside:
    """Scores reviews with the other bundle as well, where they have been scored with the first.

    Attributes:
        packed: the other bundle.
        labels: those of the first.
        excerpts: whether the beginnings of texts are kept.
    """

    packed: PackedScorer
    labels: tuple[str, ...]
    excerpts: bool

    def __call__(self, rows: pa.Table, scores: Scores | None) -> Tables:
        """What the `other` bundle gives, of `OTHER_SCHEMA`, and the reviews that are `differing` most."""
        if scores is None:
            return {"other": OTHER_SCHEMA.empty_table(), "differing": DIFFERING_SCHEMA.empty_table()}
        scorer = self.packed.scorer()
        found = scorer.score(rows["text"], numbers_of(rows, scorer.bundle.spec.columns))
        theirs = list(scorer.bundle.labels)
        probabilities = found.probabilities[:, [theirs.index(label) for label in self.labels]]
        # What is unsure has the last position.
        classes = np.array([*(self.labels.index(label) for label in theirs), UNSURE], np.int32)[found.classes]
        gaps = np.abs(scores.probabilities - probabilities).sum(1) / 2
        differ = np.flatnonzero(scores.classes != classes)
        differ = differ[np.argsort(-gaps[differ], kind="stable")[:MAX_DIFFERING]]
        some = rows.take(pa.array(differ))
        text = pc.utf8_slice_codeunits(some["text"], 0, EXCERPT) if self.excerpts else pa.nulls(len(some), pa.string())
        columns = [some["id"], text.cast(pa.string()), some["label"].cast(pa.string())]
        columns += [scores.classes[differ].astype(np.int32), classes[differ]]
        columns += [scores.best[differ], found.best[differ], gaps[differ]]
        return {
            "other": pa.table([lists(np.ascontiguousarray(probabilities)), classes], schema=OTHER_SCHEMA),
            "differing": pa.table(columns, schema=DIFFERING_SCHEMA),
        }

    def merged(self, tables: Tables) -> Tables:
        """Of what several blocks gave the reviews that differ most."""
        most = tables["differing"].sort_by([("gap", "descending"), ("id", "ascending")])[:MAX_DIFFERING]
        return {**tables, "differing": most}


def compare(settings: CompareSettings, console: Console) -> dict[str, Any]:
    """Measure two bundles on the reviews of a corpus that neither was trained on; which these are, `evaluate` says.

    Args:
        settings: Which bundles, which reviews, what is required.
        console: Where to say what happens.

    Returns:
        `a` and `b`, each with what `sentray.metrics.metrics` gives and its `path` and `digest`; `differences`, B - A,
        their `intervals` and `bootstrap`, as `sentray.metrics.differences` gives them; `right`, the difference of the
        shares of all rows that each gets right, and its interval, see `right_difference`; `mcnemar`; `differing`, the
        reviews with other labels, at most `MAX_DIFFERING`, and `differing_rows`, how many there are; `verdict`, a
        sentence, and whether what is required is `passed`; and which rows these are, as `evaluate` says it.

    Raises:
        SentrayError: When the bundles do not fit together, or one of them or the corpus cannot be used.
    """
    one, other = (bundle.load(path, settings.trust_model) for path in (settings.bundle, settings.other))
    texts = _require_comparable(one, other, settings)
    packed = PackedScorer(other.digest, settings.engine, other.scoring_files, other.trusted)
    look = Beside(packed, one.labels, settings.excerpts)
    reading = settings.model_copy(update={"numeric": other.spec.columns})
    measured = measure(reading, console, look, others=texts)
    found, beside = measured.metrics, measured.kept["other"]
    probabilities = pc.list_flatten(beside["probabilities"]).to_numpy().reshape(-1, len(one.labels))
    ours, theirs = one.decision.of(measured.probabilities), beside["class"].to_numpy()
    about = ("rows", "of", "why", "trained_on", "split", "quarantined_rows", "quarantined", "corpus", "labels")
    compared = differences(measured.truth, (measured.probabilities, ours), (probabilities, theirs), one.labels)
    ends = {name: compared.pop(name) for name in ("intervals", "bootstrap")}
    test = mcnemar(ours == measured.truth, theirs == measured.truth)
    right = right_difference(test["only_a_right"], test["only_b_right"], len(measured.truth))
    passed, verdict = judge(*right, settings.require, settings.margin)
    result = {
        **{name: found.pop(name) for name in about},
        "a": {**found, "bundle": settings.bundle, "digest": one.digest},
        "b": {
            **metrics(measured.truth, probabilities, one.labels, theirs),
            "bundle": settings.other,
            "digest": other.digest,
        },
        "differences": compared,
        **ends,
        "right": dict(zip(("difference", "interval"), right, strict=True)),
        "mcnemar": test,
        "differing_rows": int((ours != theirs).sum()),
        "differing": _differing(measured.kept["differing"], one.labels),
        "require": settings.require,
        "margin": settings.margin,
        "passed": passed,
        "verdict": verdict,
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
    verdict = "neither is shown to be better"
    if low > 0 or high < 0:
        verdict = f"{'B' if low > 0 else 'A'} is more often right"
    if require == "not-worse":
        verdict += f"; B {'may be' if low < -margin else 'is not'} worse by more than {margin:g}"
    return {"none": True, "not-worse": low >= -margin, "better": low > 0}[require], f"{verdict}: {seen}"


def _require_comparable(one: Bundle, other: Bundle, settings: CompareSettings) -> TextHashes:
    """The texts of the other bundle, where both can be measured on the same rows.

    Raises:
        SentrayError: They have other labels, or it is not known what they were trained on.
    """
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


def _differing(most: pa.Table, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """The reviews that differ most, as JSON values."""
    names = [*labels, None]
    return [
        {
            **{name: row[name] for name in ("id", "text", "truth")},
            **{
                model: {"label": names[row[f"class_{model}"]], "probability": row[f"probability_{model}"]}
                for model in ("a", "b")
            },
        }
        for row in most.to_pylist()
    ]
