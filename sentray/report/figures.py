"""The pictures of a bundle's page, each of a `Subject`: what is taken for what, how sure it is, how it learnt."""

from collections.abc import Iterator

import numpy as np

from sentray.console import count
from sentray.corpus.limits import MAX_NAME
from sentray.metrics import calibration_curve
from sentray.profile import span_of
from sentray.report import plots
from sentray.report.evidence import Evidence, array_of
from sentray.report.page import Picture, Table, interval
from sentray.report.subject import Subject
from sentray.tables import binned

MAX_LABELS, MAX_SLICES = 20, 50
"""Labels and values that a picture has room for, and values that a table lists."""
_BINS, _LENGTHS, _POINTS = 20, 6, 100
"""Of a histogram, of lengths, and half the points of a curve."""
_PAIRS, _NUMBERED = 12, 8
"""Mistakes that are listed where the picture has more labels than it can show numbers of."""
_TRUTHS = 10
"""Of a regression, by how many ranges of its numbers the rows are shown."""
_Z = 1.96

Interval = tuple[float, float, float]


def named(evidence: Evidence) -> str:
    """Which rows these are, in words."""
    all_rows = f"the {evidence.of:,} {'held-out' if evidence.which == 'validation' else 'measured'} rows"
    return f"a sample of {len(evidence.sample):,} of {all_rows}" if evidence.is_part else all_rows


def wilson(right: int, rows: int) -> Interval:
    """A share and its interval of 95 %, by Wilson's score (1927)."""
    share, scale = right / rows, 1 + _Z**2 / rows
    middle, half = share + _Z**2 / (2 * rows), _Z * np.sqrt(share * (1 - share) / rows + _Z**2 / (4 * rows**2))
    return share, float(max(0, (middle - half) / scale)), float(min(1, (middle + half) / scale))


def confusion(subject: Subject) -> Iterator[Picture | Table]:
    """Which labels are taken for which."""
    for which, _, found in subject.measured[:1]:
        if "confusion_matrix" not in found:
            return
        labels, matrix = found["labels"], np.array(found["confusion_matrix"])
        wrong = matrix - np.diag(np.diag(matrix))
        order = [divmod(at, len(labels)) for at in np.argsort(-wrong, axis=None, kind="stable")[:_PAIRS].tolist()]
        pairs = [(labels[row], labels[column], int(wrong[row, column])) for row, column in order if wrong[row, column]]
        worst = f"; most often {pairs[0][0]} scored as {pairs[0][1]}, {pairs[0][2]:,} times" if pairs else ""
        alt = f"{np.trace(matrix):,} of {matrix.sum():,} rows got their own label{worst}"
        caption = f"Labels of the {found['rows']:,} {which}, and the labels they got"
        if len(labels) <= MAX_LABELS:
            yield plots.matrix(matrix.tolist(), labels, alt, caption, "scored as", "is")
        if len(labels) > _NUMBERED:
            yield Table(f"The commonest mistakes on the {which}", ("is", "scored as", "rows"), pairs, left=2)


def numbers(subject: Subject) -> Iterator[Picture]:
    """Of a regression what rows of each number got."""
    if subject.bundle.spec.task != "regression" or (evidence := subject.evidence) is None:
        return
    truth, values = (array_of(evidence.sample[name]).reshape(-1) for name in ("truth", "probabilities"))
    if len(ends := np.unique(truth)) > _TRUTHS:
        ends = np.unique(np.quantile(truth, np.linspace(0, 1, _TRUTHS + 1)[1:], method="inverted_cdf"))
    bins = np.searchsorted(ends, truth)
    found = dict[str, Interval]()
    for bin in np.unique(bins):
        mine = bins == bin
        low, high = truth[mine].min(), truth[mine].max()
        middle, *band = np.percentile(values[mine], [50, 10, 90]).tolist()
        found[f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"] = (middle, band[0], band[1])
    yield plots.points(
        found,
        "The numbers that rows got, by the number that they have",
        f"What rows got by the number that they have: the median, and what eight of ten lie between; {named(evidence)}",
        "number that they got",
    )


def curves(subject: Subject) -> Iterator[Picture]:
    """ROC and precision by recall, for any threshold."""
    if (evidence := subject.evidence) is None or not subject.bundle.labels:
        return
    rows, labels, two = evidence.sample, subject.bundle.labels, _has_second(subject)
    truth, chances = array_of(rows["truth"]), array_of(rows["probabilities"])
    has = truth.astype(bool) if truth.ndim == 2 else truth[:, None] == np.arange(len(labels))
    common = np.argsort(-has.sum(axis=0), kind="stable")[: plots.MAX_SERIES]
    ranked = [1] if two else sorted(common.tolist())
    receiver, precision = {}, {}
    for label in ranked:
        positive, order = has[:, label], np.argsort(-chances[:, label], kind="stable")
        if not positive.any() or positive.all():
            continue
        # Rows that score alike are above a threshold together.
        ends = np.append(np.flatnonzero(np.diff(chances[order, label])), len(order) - 1)
        right, above = np.cumsum(positive[order])[ends], ends + 1
        # Evenly by rows, and by its own rows, which may be few.
        own, every = np.linspace(0, right[-1], _POINTS), np.linspace(0, len(ends) - 1, _POINTS).astype(int)
        some = np.unique(np.append(np.searchsorted(right, own), every))
        right, above = right[some], above[some]
        recall, others = right / positive.sum(), (above - right) / (~positive).sum()
        receiver[labels[label]] = [0.0, *others.tolist()], [0.0, *recall.tolist()]
        precision[labels[label]] = recall.tolist(), (right / above).tolist()
    if not receiver:
        return
    more = f", of the {len(ranked)} most frequent labels" if len(labels) > len(ranked) > 1 else ""
    what = f"of {labels[1][:MAX_NAME]!r}" if two else f"of each label against the others{more}"
    yield plots.lines(
        receiver,
        f"ROC curve {what}",
        f"ROC curve {what}, on {named(evidence)}",
        "share of the others above the threshold",
        "share of its rows above",
        unit=True,
        diagonal=True,
    )
    yield plots.lines(
        precision,
        f"Precision by recall {what}",
        f"Precision by recall {what}, on {named(evidence)}",
        "recall",
        "precision",
        unit=True,
    )


def calibration(subject: Subject) -> Iterator[Picture]:
    """Whether probabilities are as sure as they are right."""
    validation, evidence = subject.bundle.metrics.get("validation"), subject.evidence
    if subject.bundle.spec.task == "regression":
        return
    if subject.metrics is None and validation:
        of = f"the {validation['rows']:,} held-out rows"
        bins = {
            "before calibration": validation.get("before_calibration", {}).get("calibration_curve", []),
            "after": validation.get("calibration_curve", []),
        }
    elif evidence is not None:
        of, rows = named(evidence), evidence.sample
        bins = {"measured": calibration_curve(array_of(rows["truth"]), array_of(rows["probabilities"]))}
    else:
        return
    series = {
        name: ([bin["probability"] for bin in found], [bin["right"] for bin in found])
        for name, found in bins.items()
        if found
    }
    if series:
        yield plots.lines(
            series,
            "How often the most probable label is right, by its probability; on the diagonal both are equal",
            f"Calibration: how often rows are right, by the probability of their label, on {of}",
            "probability",
            "share right",
            unit=True,
            diagonal=True,
            marks=True,
        )


def histogram(subject: Subject) -> Iterator[Picture]:
    """How the scores lie."""
    if (evidence := subject.evidence) is None:
        return
    rows, labels, task = evidence.sample, subject.bundle.labels, subject.bundle.spec.task
    truth, chances, x = array_of(rows["truth"]), array_of(rows["probabilities"]), binned(labels, task)
    low, high = span_of(chances) if task == "regression" and len(rows) else (0, 1)
    edges, many = np.linspace(low, high, _BINS + 1), not _has_second(subject) and task != "regression"
    if task == "regression":
        values, parts = np.clip(chances[:, 0], low, high), {"rows": np.ones(len(rows), bool)}
    elif many:
        values, right = chances.max(axis=1, initial=0), subject.right(rows)
        parts = {"right": right, "wrong": ~right}
    else:
        values, parts = chances[:, 1], {f"is {label}": truth == at for at, label in enumerate(labels)}
    heights = {name: np.histogram(values[part], edges)[0].tolist() for name, part in parts.items()}
    alt, caption = f"Histogram of the {x}", f"How the scores lie, on {named(evidence)}"
    y = "rows, logarithmic" if many else "rows"
    yield plots.bars(heights, alt, caption, x, y, edges=edges.tolist(), logarithmic=many)


def _has_second(subject: Subject) -> bool:
    """Whether the probability of the second of two classes says all."""
    return subject.bundle.spec.task == "classification" and len(subject.bundle.labels) == 2


def lengths(subject: Subject) -> Iterator[Picture]:
    """How good it is for short and for long reviews; a number is not right or wrong."""
    if (evidence := subject.evidence) is None or not len(evidence.sample) or not subject.bundle.labels:
        return
    words, right = evidence.sample["words"].to_numpy(), subject.right(evidence.sample)
    ends = np.unique(np.quantile(words, np.linspace(0, 1, _LENGTHS + 1), method="inverted_cdf"))
    bins, figures = np.searchsorted(ends[1:-1], words), dict[str, Interval]()
    for bin in np.unique(bins):
        mine = bins == bin
        figures[f"{words[mine].min():,} to {words[mine].max():,}"] = wilson(int(right[mine].sum()), int(mine.sum()))
    yield plots.points(
        figures,
        f"{_share(subject)} by the number of words, with intervals",
        f"{_share(subject)} by words of the review, about as many rows each, with intervals of 95 in 100, on "
        f"{named(evidence)}",
        _share(subject).lower(),
        whole=float(right.mean()),
        whole_name="all",
    )


def slices(subject: Subject) -> Iterator[Picture | Table]:
    """How good it is for each value of a column, the worst first."""
    if (name := subject.slice_column) is None:
        return
    figures = {value: wilson(*numbers) for value, numbers in subject.slices.items()}
    order = sorted(figures, key=lambda value: (figures[value][0], -subject.slices[value][1]))
    right, total = (sum(each) for each in zip(*subject.slices.values(), strict=True))
    yield plots.points(
        {str(value)[:MAX_NAME]: figures[value] for value in order[:MAX_LABELS]},
        f"{_share(subject)} by {name}, the worst first, with intervals",
        f"{_share(subject)} by {name}, the worst of {count(len(order), 'value')} first, with intervals of 95 in 100",
        _share(subject).lower(),
        whole=right / total,
        whole_name="all",
    )
    more = f"; {len(order) - MAX_SLICES:,} better ones are not listed" if len(order) > MAX_SLICES else ""
    rows = [
        ("none" if value is None else value, subject.slices[value][1], figures[value][0], interval(figures[value][1:]))
        for value in order[:MAX_SLICES]
    ]
    yield Table(
        f"{_share(subject)} by {name}, the worst first{more}", (name, "rows", _share(subject).lower(), "95 %"), rows
    )


def _share(subject: Subject) -> str:
    """What the share of the rows that are right is called."""
    return "Exact match" if subject.bundle.spec.task == "multilabel" else "Accuracy"


def learning(subject: Subject) -> Iterator[Picture]:
    """Loss and accuracy by epoch; where the last fit ends is circled."""
    judged = [record for record in subject.history if "held_out" in record] or subject.history
    chosen = subject.bundle.metrics.get("validation", {}).get("epochs", {})
    heads, fits = list(judged[0].get("held_out", {})), len({record["fit"] for record in judged})
    of = f"mean of {count(fits, 'fit')}, as long as each trains" if fits > 1 else "of one fit"

    def mean(name: str, head: str | None = None) -> tuple[list[float], list[float]]:
        found: dict[float, list[float]] = {}
        for record in judged:
            if name in record:
                found.setdefault(record["epoch"], []).append(record[name] if head is None else record[name][head])
        across = sorted(found)
        return across, [sum(found[epoch]) / len(found[epoch]) for epoch in across]

    for what, held in (("loss", "held_out"), ("accuracy", "held_out_accuracy")):
        series, circles = {"training": mean(what)}, {}
        for head in heads if held in judged[0] else ():
            name = f"held out, {head} half" if len(heads) > 1 else "held out"
            series[name] = mean(held, head)
            if chosen.get(head) in series[name][0]:
                circles[name] = chosen[head]
        how = "; circled: when the last fit ends" if circles else ""
        together = ", its halves' mean" if len(heads) > 1 else ""
        caption = f"{what.capitalize()} by epoch, {of}{how}. Training{together}: while it is trained on the rows"
        yield plots.lines(series, f"{what} by epoch", caption, "epoch", what, marks=True, whole=True, chosen=circles)
