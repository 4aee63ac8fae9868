"""`page`: what `sentray compare` found, as a page to look at."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from sentray import __version__
from sentray.compare import EXCERPT
from sentray.report import plots
from sentray.report.page import Section, Table, grid, number, percent, render, text
from sentray.tables import METRICS, compared, headline, judged

_SHARES = (
    *("accuracy", "balanced_accuracy", "exact_match", "r2", "quadratic_kappa", "f1", "micro_f1", "hamming_loss"),
    *("roc_auc", "pr_auc", "log_loss", "brier", "ece", "pearson", "spearman"),
)
"""Metrics that are drawn on one scale."""
LESS = "Of losses and errors less is better, of the others more."


def page(values: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        values: What `sentray.compare.compare` gives.
    """
    first, second, test = values["a"], values["b"], values["mcnemar"]
    name, about = headline(first)
    of = f"Of {values['rows']:,} of {values['of']:,} rows of {values['corpus']}: {values['why']}."
    return render(
        "report.html",
        title="Two models on the same reviews",
        lead=f"A is {first['bundle']}, B is {second['bundle']}: {values['verdict']}",
        key=[
            (number(first[name]), f"{about} of A"),
            (number(second[name]), f"{about} of B"),
            (_signed(values["differences"][name]), "B - A"),
            *([(f"{test['p_value']:.3g}", "p of McNemar's exact test")] if test else []),
        ],
        of=of,
        notes=[] if values["passed"] else [f"--require {values['require']} is not met."],
        sections=[_figures(values), *([_right(values)] if test else []), _reviews(values)],
        made=f"sentray {__version__}; A is {first['digest']}, B is {second['digest']}",
    )


def _figures(values: Mapping[str, Any]) -> Section:
    drawn = {
        about: (values["differences"][name], *values["intervals"][name])
        for name, about in METRICS.items()
        if name in _SHARES and name in values["intervals"]
    }
    resamples = values["bootstrap"]["resamples"]
    table = Table(
        f"Both on the same {values['rows']:,} rows",
        ("", "A", "B", "B - A", "95 %", ""),
        [[*row[:3], row[3] if isinstance(row[3], str) else _signed(row[3]), *row[4:]] for row in compared(values)],
    )
    picture = plots.points(
        drawn,
        "The differences of the metrics with their intervals, around zero.",
        f"B - A with intervals of 95 % by a paired bootstrap, {resamples:,} resamples that serve both.",
        "B - A",
        whole=0,
        whole_name="no difference",
    )
    return Section("figures", "Figures", [LESS, table, picture])


def _right(values: Mapping[str, Any]) -> Section:
    test = values["mcnemar"]
    counts = [[test["both_right"], test["only_a_right"]], [test["only_b_right"], test["neither_right"]]]
    about = (
        f"Of {test['only_a_right'] + test['only_b_right']:,} reviews that only one of them gets right, A has "
        f"{test['only_a_right']:,} and B {test['only_b_right']:,}. Were they equally good, a split at least as uneven "
        f"would come about with a probability of {test['p_value']:.3g} (McNemar's exact test)."
    )
    rows = [["A is right", *counts[0]], ["A is wrong", *counts[1]]]
    table = Table("Reviews by who is right", ("", "B is right", "B is wrong"), rows)
    pictures = [
        plots.matrix(
            values[model]["confusion_matrix"],
            values["labels"],
            f"The confusion matrix of {model.upper()}.",
            f"How many reviews of each label {model.upper()} gave which.",
            f"{model.upper()} says",
            "is",
        )
        for model in ("a", "b")
        if "confusion_matrix" in values[model]
    ]
    return Section("right", "Who is right", [about, table, grid(pictures)])


def _reviews(values: Mapping[str, Any]) -> Section:
    differing = values["differing"]
    got = "labels" if values["mcnemar"] else "numbers"
    about = f"{values['differing_rows']:,} of {values['rows']:,} reviews got other {got}."
    if not differing:
        return Section("reviews", "Where they differ", [about])
    if len(differing) < values["differing_rows"]:
        about += f" The {len(differing):,} that differ most:"
    return Section("reviews", "Where they differ", [about, *map(_review, differing)])


def _review(row: Mapping[str, Any]) -> Markup:
    review, label, *given = (text(value, 80) if isinstance(value, str) else percent(value) for value in judged(row))
    given = [Markup(" ({})").format(each) if at % 2 and each else each for at, each in enumerate(given)]
    about = Markup("{} is <b>{}</b>; A says {}{}, B says {}{}").format(review, label, *given)
    # What was cut ends with an ellipsis.
    excerpt = Markup("<p>{}</p>").format(text(row["text"], EXCERPT - 1)) if row["text"] else ""
    return Markup('<div class="review"><p class="about">{}</p>{}</div>').format(about, excerpt)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.4f}"
