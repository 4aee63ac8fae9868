"""The page beside a scoring job's summary: labels over files or days, scores, words, drift, quarantine, speed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from markupsafe import Markup

from sentray import profile
from sentray.bundle import Bundle
from sentray.config import ScoreSettings
from sentray.console import core_time, count
from sentray.corpus.rows import QUARANTINE_FILE
from sentray.report import plots
from sentray.report.page import MAX_NAME, Picture, harmless, percent, render, text
from sentray.scoring import by, drift
from sentray.scoring.drift import Reference
from sentray.scoring.output import OutputFolder
from sentray.scoring.parts import open_part
from sentray.scoring.stats import Counts
from sentray.tables import WITHOUT_LABEL, binned
from sentray.task import Task
from sentray.text.vocabulary import Vocabulary

MAX_VALUES, MAX_LABELS = 60, plots.MAX_SERIES
"""Files, days or values that are shown, and labels; the rest is added up."""
MAX_EXAMPLES, MAX_BATCHES, BATCH_ROWS = 3, 200, 5000
"""Quarantined rows of a reason that are shown, and how many batches of so many rows are looked through for them."""
MAX_WORDS = 12
"""Words whose share differs most that are shown."""


def page(
    out: OutputFolder,
    summary: Mapping[str, Any],
    counts: Counts,
    model: Bundle,
    reference: Reference | None,
    settings: ScoreSettings,
) -> str:
    """The page as HTML.

    Args:
        out: The finished output, but for its summary.
        summary: What the summary will be.
        counts: Of all shards.
        model: The bundle.
        reference: What it is compared by, if anything.
        settings: Of the job.
    """
    return render(
        "scoring.html",
        title=harmless(settings.input, MAX_NAME),
        summary=summary,
        settings=settings,
        digest=model.digest,
        notes=_notes(summary, reference),
        key=_key(summary),
        labels=_labels(counts, model, reference),
        groups=_groups(counts, settings.by, model.spec.task),
        pictures=_pictures(counts, model, reference),
        drift=_drift(summary["drift"] or {}),
        words=_words(counts, model, reference),
        of=[f"{name[0].upper()}{name[1:]}: {rows}." for name, rows in reference.of.items()] if reference else [],
        reasons=[
            [reason, rows, percent(rows / counts.rows, 2)] for reason, rows in Counter(counts.quarantined).most_common()
        ],
        examples=_examples(out, counts.quarantined, settings.excerpts) if counts.bad else [],
        speed=_speed(summary),
    )


def _notes(summary: Mapping[str, Any], reference: Reference | None) -> list[str]:
    if summary["drift"] is None:
        return [drift.UNKNOWN if reference is None else drift.COUNTED_BEFORE]
    line = drift.sentence(summary["drift"])
    return [line] if line else []


def _key(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    figures = [
        (f"{summary['rows_scored']:,}", "rows scored"),
        (f"{summary['rows_quarantined']:,}", "rows set aside"),
        (percent(summary["coverage"]), "of their words known"),
    ]
    if summary["rows_per_s"]:
        figures.append((f"{summary['rows_per_s']:,.0f}", "reviews a second"))
    return figures


def _labels(counts: Counts, model: Bundle, reference: Reference | None) -> list[list[Any]]:
    """Label, rows, share, and the share in training."""
    columns = [drift.labelled(counts.labels, counts.scored, model.labels)]
    if reference is not None and reference.labels is not None:
        columns.append(drift.labelled(reference.labels, reference.scored_rows, model.labels))
    if model.spec.task == "regression":
        return []
    # Of several labels a row counts for each.
    totals = [sum(column) for column in columns]
    if model.spec.task == "multilabel":
        totals = [counts.scored, *([reference.scored_rows] if reference else [])]
    without = WITHOUT_LABEL[model.spec.task]
    table = [
        [name, rows[0], *(percent(number / max(1, total)) for number, total in zip(rows, totals, strict=False))]
        for name, *rows in zip([*model.labels, without], *columns, strict=True)
        if name != without or any(rows)
    ]
    # Of very many the commonest.
    return table if len(table) <= MAX_VALUES else sorted(table, key=lambda row: -row[1])[:MAX_VALUES]


def _groups(counts: Counts, column: str | None, task: Task) -> dict[str, Any] | None:
    """The labels over files or values: a table, and of days a picture too; None where nothing was counted."""
    without, several = WITHOUT_LABEL[task], task == "multilabel"
    # A row counts for each of its labels.
    counted, what_rows = ("labels given", "Labels given") if several else ("rows", "Scored rows")
    unit, found = by.coarser(counts.by, MAX_VALUES)
    if not found:
        return None
    if unit == "value":
        found = by.bounded(found, MAX_VALUES)
    total: Counter[str] = Counter()
    for of_value in found.values():
        total.update(of_value)
    shown = [label for label, _ in total.most_common(MAX_LABELS)]
    if len(total) > MAX_LABELS:
        shown = shown[:-1]
    shown.sort()
    names = [harmless(label, MAX_NAME) or without for label in shown] + ["other labels"] * (len(total) > MAX_LABELS)
    parts = {
        value: [*(of_value.get(label, 0) for label in shown), sum(of_value.values())]
        for value, of_value in found.items()
    }
    for numbers in parts.values():
        # The sum of all labels leaves room for those that are not shown.
        numbers[-1] -= sum(numbers[:-1])
    order = sorted(parts, key=lambda value: (value in by.SPECIAL, value))
    days = [value for value in order if value not in by.SPECIAL]
    what = "file" if column is None else unit
    return {
        "picture": None
        if unit == "value" or column is None
        else plots.bars(
            {name: [parts[day][index] for day in days] for index, name in enumerate(names)},
            f"{what_rows} of each {unit} by label, from {days[0]} to {days[-1]}; the table has the numbers",
            f"{what_rows} by {unit}{' (its Monday)' if unit == 'week' else ''} and label",
            unit,
            counted,
            ticks=days,
            stacked=True,
        ),
        "caption": f"{what_rows} by {what} and label"
        + ("; what was rare in a part of the input is among the others there" if by.OTHERS in counts.by else ""),
        "head": [what, counted, *(_named(index, name) for index, name in enumerate(names))],
        "rows": [
            [
                _over_bar(by.SPECIAL.get(value, value), parts[value]),
                sum(parts[value]),
                *(percent(number / sum(parts[value])) for number in parts[value][: len(names)]),
            ]
            for value in order
        ],
    }


def _named(index: int, name: str) -> Markup:
    return Markup('<span class="swatch" style="background:var(--c{})"></span>{}').format(index, text(name, MAX_NAME))


def _over_bar(name: str, parts: Sequence[int]) -> Markup:
    """A name, and below it a bar of several parts, whose numbers stand beside it."""
    whole = sum(parts) or 1
    pieces = [
        Markup('<i style="width:{:.1f}%;background:var(--c{})"></i>').format(100 * part / whole, index)
        for index, part in enumerate(parts)
        if part
    ]
    return Markup('<span class="wide">{}<span class="stack" aria-hidden="true">{}</span></span>').format(
        text(name, MAX_NAME), Markup("").join(pieces)
    )


def _pictures(counts: Counts, model: Bundle, reference: Reference | None) -> list[Picture]:
    """Histograms of scores, lengths and shares of known words, beside those of training where these are known."""
    if not counts.scored:
        return []
    low, high = (reference.span if reference else None) or (0.0, 1.0)
    pictures = []
    if any(counts.histogram):
        pictures.append(
            _beside(
                counts.histogram,
                reference.scores if reference else None,
                "Scores",
                "training, held out",
                harmless(binned(model.labels, model.spec.task), 50),
                edges=[low + (high - low) * index / profile.SCORE_BINS for index in range(profile.SCORE_BINS + 1)],
            )
        )
    if any(counts.lengths):
        lengths = [0, *profile.LENGTHS]
        known = [0, *profile.KNOWN]
        pictures.append(
            _beside(
                counts.lengths,
                reference.lengths if reference else None,
                "Lengths",
                "training",
                "words, at least",
                ticks=[f"{length:,}" for length in lengths],
            )
        )
        pictures.append(
            _beside(
                counts.known_shares,
                reference.known if reference else None,
                "Words known",
                "training",
                "share of a review's words, at least",
                ticks=[f"{100 * share:g} %" for share in known],
            )
        )
    return pictures


def _beside(
    found: Sequence[int], expected: Sequence[int] | None, name: str, those: str, x: str, **bins: Any
) -> Picture:
    series, caption = {"these reviews": _shares(found)}, f"{name} of {count(sum(found), 'row')}"
    if expected and sum(expected):
        series[those] = _shares(expected)
        caption += f" (filled), and of {count(sum(expected), 'row')} of training (outline)"
    return plots.bars(series, f"Histogram: {caption}", caption, x, "share of rows", **bins)


def _shares(rows: Sequence[int]) -> list[float]:
    return [number / (sum(rows) or 1) for number in rows]


def _drift(found: drift.Drift) -> list[list[Any]]:
    return [
        [drift.NAMES[name], figures["differs"], *(figures[key] for key in ("psi", "by_chance", "jensen_shannon"))]
        for name, figures in found.items()
    ]


def _words(counts: Counts, model: Bundle, reference: Reference | None) -> list[list[Any]]:
    """The words whose shares differ most: the word, its share here and in training."""
    if reference is None or not reference.words or not any(counts.commonest):
        return []
    assert isinstance(model.vocabulary, Vocabulary)
    here, there = _shares(counts.commonest), _shares(reference.words)
    words = ["", *model.vocabulary.words[: profile.COMMONEST]]
    parts = drift.psi_parts(reference.words, counts.commonest)
    order = sorted(range(1, len(words)), key=lambda index: -parts[index])[:MAX_WORDS]
    return [[words[index], percent(here[index], 2), percent(there[index], 2)] for index in order]


def _examples(out: OutputFolder, reasons: Mapping[str, int], excerpts: bool) -> list[dict[str, Any]]:
    """Some quarantined rows of each reason, as far as they are among the first batches."""
    left, found = dict.fromkeys(reasons, MAX_EXAMPLES), list[dict[str, Any]]()
    with open_part(out, QUARANTINE_FILE) as file:
        for batch in islice(file.iter_batches(BATCH_ROWS), MAX_BATCHES):
            for index, reason in enumerate(batch["reason"].to_pylist()):
                if left.get(reason, 0):
                    left[reason] -= 1
                    (row,) = batch.slice(index, 1).to_pylist()
                    found.append({"detail": None, **row, "text": row["text"] if excerpts else None})
            if not any(left.values()):
                break
    return sorted(found, key=lambda row: -reasons[row["reason"]])


def _speed(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [("work of all workers", core_time(summary["core_hours"])), ("input", f"{summary['bytes'] / 1e6:,.1f} MB")]
    if summary["core_hours_per_million"] is not None:
        lines.append(("a million reviews", core_time(summary["core_hours_per_million"])))
    if summary["peak_rss_mb"]:
        lines.append(("most memory of a worker", f"{summary['peak_rss_mb']:,.0f} MB"))
    if summary["rows_per_s"]:
        lines += [
            ("workers at the last start", f"{summary['workers']:,}"),
            ("its seconds to start", f"{summary['start_seconds']:,.1f}"),
            ("its seconds to score", f"{summary['seconds']:,.1f}"),
            ("its reviews a second", f"{summary['rows_per_s']:,.0f}"),
            ("its MB a second", f"{summary['mb_per_s']:,.1f}"),
        ]
    return lines
