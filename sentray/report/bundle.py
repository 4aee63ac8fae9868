"""The page of a bundle and its model card: `report` makes them, `records_of` those that lie beside a new bundle."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from markupsafe import Markup

from sentray import __version__
from sentray import bundle as bundles
from sentray.bundle import HISTORY_FILE, Bundle, ModelSpec
from sentray.config import ReportSettings, TrainSettings
from sentray.console import Console, count, duration
from sentray.corpus.inspect import warnings_of
from sentray.corpus.limits import MAX_NAME
from sentray.decision import UNSURE
from sentray.errors import SentrayError
from sentray.inference.explain import explain
from sentray.inference.scorer import Scorer
from sentray.models import ARCHITECTURES, WIDE
from sentray.report import figures
from sentray.report.evidence import EVIDENCE_FILE, MAX_TEXT, Evidence, label_errors
from sentray.report.figures import MAX_LABELS, MAX_SLICES, named
from sentray.report.page import BAR, Page, Section, Table, bar, folded, grid, interval, percent, render, text
from sentray.report.subject import Subject
from sentray.storage import Folder, write_text
from sentray.tables import LOWER_IS_BETTER, METRICS, headline, shown
from sentray.text.cleaning import clean
from sentray.text.coverage import Left
from sentray.text.vocabulary import Vocabulary
from sentray.words import heaviest_grams

REPORT_FILE, CARD_FILE = "report.html", "README.md"
_OF_EPOCHS = {"epoch", "loss", "accuracy", "rows_seen", "started_at", "seconds"}
"""What the page shows of each epoch of a training."""
MAX_GRAMS, MAX_ERRORS, MAX_MISTAKES, MAX_UNKNOWN = 15, 50, 10, 30
"""N-grams of a label, likely label errors, mistakes, and words that it does not know, that are shown."""
_HEAVIEST, _WORDS, _BEGINS = 8, 200, 200
"""Of a mistake the words that are named and those that are shown; characters of a likely label error's text."""
_UNBALANCED, _UNCALIBRATED = 10, 0.1
"""How many times as many rows the most frequent label has, and the calibration error, above which a line says so."""


def report(settings: ReportSettings, console: Console) -> Page:
    """Write the page of a bundle, or its model card where the file's name ends in `.md`.

    Raises:
        SentrayError: The bundle or the corpus cannot be used, or the file cannot be written.
    """
    subject = look_at(settings, console)
    page = page_of(subject)
    write_text(settings.out, card_of(subject) if settings.out.endswith(".md") else page.html)
    console.say(f"written to {settings.out}")
    return page


def look_at(settings: ReportSettings, console: Console) -> Subject:
    """The subject of a report: what lies beside the bundle or, with a corpus, what is measured anew."""
    bundle = bundles.load(settings.bundle, settings.trust_model)
    subject = Subject.of(bundle, settings.bundle, history=_history(settings.bundle))
    if settings.corpus is None:
        return replace(subject, evidence=Evidence.beside(bundle, settings.excerpts))
    if settings.slice_column is not None and bundle.spec.task == "regression":
        raise SentrayError(f"--slice is about rows that got their label, and {bundle} gives a number: leave it out")
    # It starts Ray.
    from sentray.evaluation import Look, measure

    column = settings.slice_column
    found = measure(settings, console, Look(settings.excerpts, column, bundle.spec.task))
    return replace(subject, evidence=found.evidence, metrics=found.metrics, slices=found.slices, slice_column=column)


def _history(bundle: str) -> list[dict[str, Any]]:
    """The epochs of a bundle's training, as they lie beside it; none where nothing does.

    Raises:
        SentrayError: They are damaged.
    """
    try:
        # Earlier versions had one fit.
        history = [{"fit": 0, **record} for record in json.loads(Folder(bundle).read(HISTORY_FILE) or b"[]")]
        if not all(record.keys() >= _OF_EPOCHS for record in history):
            raise ValueError("an epoch lacks a figure")
    except (ValueError, TypeError) as error:
        raise SentrayError(f"{bundle}/{HISTORY_FILE} is damaged: remove it, and the report is made without") from error
    return history


def records_of(bundle: Bundle, history: list[dict[str, Any]], evidence: Evidence | None, out: str) -> dict[str, bytes]:
    """The files by which a new bundle is looked at, by their names.

    Args:
        bundle: As it is published.
        history: Of its training.
        evidence: Rows that it was measured on, where there are any.
        out: Where it will lie.
    """
    if evidence is not None:
        evidence = replace(evidence, about={**evidence.about, "bundle": bundle.digest})
    subject = Subject.of(bundle, out, history=history, evidence=evidence)
    kept = {} if evidence is None else {EVIDENCE_FILE: evidence.to_bytes()}
    return {**kept, REPORT_FILE: page_of(subject).html.encode(), CARD_FILE: card_of(subject).encode()}


def page_of(subject: Subject) -> Page:
    """The page of a bundle."""
    metrics, spec = subject.bundle.metrics, subject.bundle.spec
    trained = f"{metrics['train_rows']:,} reviews of " if "train_rows" in metrics else ""
    key, of = [], ""
    if subject.measured:
        which, why, found = subject.measured[0]
        key = [*_key(found), (f"{found['rows']:,}", which)]
        of = f"Measured on {found['rows']:,} {which}" + (f": {why}." if why else ".")
    return Page(
        render(
            "report.html",
            title=subject.name,
            lead=f"{spec.architecture}, {_gives(spec)}, trained on {trained}{subject.corpus}",
            key=key,
            of=of,
            notes=[*_notes(subject), *_missing(subject)],
            sections=[part(subject) for part in (_what, _how_good, _how_learnt, _what_learnt, _how_it_fails)],
            made=f"Made by sentray {__version__}. Intervals hold 95 times in 100.",
        )
    )


def _key(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The figures at the head of the page."""
    if "accuracy" in found:
        yield percent(found["accuracy"]), f"accuracy ({interval(found['intervals'].get('accuracy'), True)})"
        most = max(of_label["rows"] for of_label in found["classes"].values()) / max(found["rows"], 1)
        yield percent(most), "if it always said the most frequent label"
    if found.get("exact_match") is not None:
        yield percent(found["exact_match"]), "of rows got all their labels and no other"
    names = ("mean_absolute_error", "r2", "micro_f1", "roc_auc", "ece")
    yield from ((f"{found[name]:.3f}", METRICS[name]) for name in names if found.get(name) is not None)


def _gives(spec: ModelSpec) -> str:
    """What a bundle gives for a review."""
    if spec.task == "regression":
        return "a number"
    several = {"ordinal": " of a scale", "multilabel": ", several a review"}.get(spec.task, "")
    return f"{count(len(spec.labels), 'label')}{several}"


def card_of(subject: Subject) -> str:
    """The model card: Markdown, with the head in YAML that the Hugging Face Hub reads."""
    trained = subject.bundle.metrics.get("label_rows", {})
    return render(
        "card.md",
        bundle=subject.bundle,
        name=subject.name,
        corpus=subject.corpus,
        labels=subject.bundle.labels,
        trained=[(label, trained[label]) for label in subject.bundle.labels[:MAX_SLICES] if label in trained],
        measured=subject.measured,
        notes=[*_notes(subject)],
        gives=_gives(subject.bundle.spec),
        metrics=METRICS,
        when=_when(subject),
    )


def _notes(subject: Subject) -> Iterator[str]:
    """What somebody should know before they trust the figures."""
    metrics, trained = subject.bundle.metrics, subject.bundle.metrics.get("label_rows", {})
    for _, _, found in subject.measured[:1]:
        rows = {label: of_label["rows"] for label, of_label in found["classes"].items() if of_label["rows"]}
        yield from warnings_of(rows, found["rows"])
        most = max(rows, key=lambda label: rows[label], default="")
        if "accuracy" in found and rows and found["intervals"].get("accuracy", (1, 1))[0] <= rows[most] / found["rows"]:
            yield f"It is hardly better than to say {most[:MAX_NAME]!r} of every review."
        if found.get("r2") is not None and found["intervals"].get("r2", (1, 1))[0] <= 0:
            yield "It is hardly better than to say the mean of every review."
        if (found.get("ece") or 0) > _UNCALIBRATED:
            yield f"Its probabilities are off by {found['ece']:.2f} on average: do not take them at their word."
    if trained and max(trained.values()) > _UNBALANCED * min(trained.values()) and len(trained) > 1:
        rare, often = (choose(trained, key=lambda label: trained[label]) for choose in (min, max))
        yield (
            f"Unbalanced: {trained[often]:,} training rows are {often[:MAX_NAME]!r} and {trained[rare]:,} are "
            f"{rare[:MAX_NAME]!r}; look at the labels' own figures, not at those of all alone."
        )
    if left := metrics.get("cleaning_left"):
        lines = Left(**left).lines(subject.bundle.spec.cleaning, subject.bundle.spec.buckets is None)
        yield from (line.removeprefix("warning: ") for line in lines if line.startswith("warning: "))


def _missing(subject: Subject) -> Iterator[str]:
    cure = f"`sentray report {subject.bundle.path or 'BUNDLE'} CORPUS --out FILE` measures it"
    if not subject.measured:
        yield f"No row was held out or tested on, so that nothing is known of how good this bundle is: {cure}."
    elif subject.evidence is None:
        yield (
            "No measured rows are kept beside this bundle, so that curves, lengths, label errors and mistakes are not "
            f"shown: {cure} anew."
        )


def _what(subject: Subject) -> Section:
    bundle, metrics, spec = subject.bundle, subject.bundle.metrics, subject.bundle.spec
    facts = {"trained on": subject.corpus}
    if bundle.trained_on is not None:
        facts["its files"] = f"{bundle.trained_on.bytes / 1e6:,.1f} MB, digest {bundle.trained_on.digest[:16]}…"
    if "train_rows" in metrics:
        facts["rows"] = ", ".join(
            [
                f"{metrics['train_rows']:,} to train on",
                *(f"{found['rows']:,} {which}" for which, _, found in subject.measured),
                f"{metrics['quarantined_rows']:,} set aside",
            ]
        )
    facts["network"] = spec.architecture
    if "vocabulary_size" in metrics:
        known = f"{percent(metrics['coverage'])} of what the training reviews hold"
        facts["words"] = f"{metrics['vocabulary_size']:,} that it knows, {known}"
    if metrics.get("grams"):
        facts["n-grams"] = f"{metrics['grams']['known']:,}"
    facts["length"] = f"{spec.max_length:,} words; of a longer review its {_KEPT[spec.truncating]} counts"
    if bundle.calibration is not None:
        of = f"fitted on {bundle.calibration.rows:,} held-out rows"
        facts["calibration"] = f"temperature {bundle.calibration.temperature:.3g}, {of}"
    if bundle.decision.threshold is not None:
        facts["threshold"] = f"{bundle.decision.threshold:.3g} for {spec.labels[1]}"
    if bundle.decision.thresholds is not None:
        facts["thresholds"] = "one a label, beside its figures"
    if bundle.decision.unsure is not None:
        facts["unsure"] = "no label where the probability is from {} to {}".format(*bundle.decision.unsure)
    facts |= {"trained": _when(subject), "digest": bundle.digest}
    facts["made with"] = ", ".join(f"{name} {version}" for name, version in bundle.versions.items())
    anywhere = Markup('<span class="any">{}</span>')
    rows = [(name, anywhere.format(text(value, 300))) for name, value in facts.items() if value]
    return Section(
        "what", "What it is", [Table("The bundle", ("what", "value"), rows, left=2), *_labels(subject), *_set(bundle)]
    )


_KEPT = {"pre": "end", "post": "beginning"}


def _when(subject: Subject) -> str:
    if not (history := subject.history):
        return ""
    first, last = history[0]["started_at"], history[-1]["started_at"] + history[-1]["seconds"]
    return f"{datetime.fromtimestamp(first, UTC):%Y-%m-%d %H:%M} UTC, for {duration(last - first)}"


def _labels(subject: Subject) -> Iterator[Table]:
    trained = subject.bundle.metrics.get("label_rows", {})
    nothing: tuple[str, str, dict[str, Any]] = ("measured", "", {"classes": {}, "rows": 0})
    which, _, found = subject.measured[0] if subject.measured else nothing
    measured = {label: of["rows"] for label, of in found["classes"].items()}
    counts = trained or measured
    labels = sorted(counts, key=lambda label: -counts[label])
    total, most = sum(counts.values()), max(counts.values(), default=1)
    if subject.bundle.spec.task == "multilabel":
        # A row counts for each of its labels.
        total = subject.bundle.metrics.get("train_rows", total) if trained else found["rows"]
    rows = [
        (label, trained.get(label), measured.get(label), percent(counts[label] / total), bar(counts[label] / most))
        for label in labels[:MAX_SLICES]
    ]
    more = f"; {len(labels) - MAX_SLICES:,} rarer ones are not listed" if len(labels) > MAX_SLICES else ""
    if rows:
        yield Table(f"Rows by label{more}", ("label", "training", which, "share", BAR), rows)


def _set(bundle: Bundle) -> Iterator[Any]:
    usual = TrainSettings(corpus=bundle.settings.get("corpus", ""), out=bundle.settings.get("out", ""))
    defaults, every = usual.model_dump(mode="json"), sorted(bundle.settings.items())
    rows = [(f"--{name.replace('_', '-')}", str(value)) for name, value in every]
    given = [row for row, (name, value) in zip(rows, every, strict=True) if value != defaults.get(name)]
    if given:
        yield Table("Settings other than the defaults", ("setting", "value"), given, left=2)
    if rows:
        yield folded("All settings", Table("All settings of the training", ("setting", "value"), rows, left=2))


def _how_good(subject: Subject) -> Section:
    if not subject.measured:
        return Section("good", "How good it is", ["It was not measured."])
    metrics, labels = list[Table](), list[Table]()
    for which, why, found in subject.measured:
        rows = [(about, found[name], interval(found["intervals"].get(name))) for name, about in shown(found).items()]
        metrics.append(Table(f"On {found['rows']:,} {which}", ("metric", "value", "95 %"), rows, of=why))
        metrics += _beside(which, found)
        labels += _of_labels(which, found)
    parts = (
        figures.confusion,
        figures.numbers,
        figures.curves,
        figures.calibration,
        figures.histogram,
        figures.lengths,
        figures.slices,
    )
    pictures = [block for part in parts for block in part(subject)]
    return Section(
        "good",
        "How good it is",
        [grid(metrics), *labels[:1], grid(pictures), *(folded(table.caption, table) for table in labels[1:])],
    )


def _of_labels(which: str, found: Mapping[str, Any]) -> Iterator[Table]:
    """The figures of each label, the worst first."""
    worst = sorted(found["classes"].items(), key=lambda item: item[1]["f1"] or 0)
    thresholds = found.get("thresholds", {})
    head = ["label", "rows", "precision", "95 %", "recall", "95 %", "F1", "95 %"]
    rows = [[label, of["rows"], *_with_ends(of)] for label, of in worst[:MAX_SLICES]]
    if thresholds:
        head, rows = [*head, "threshold"], [[*row, thresholds[row[0]]] for row in rows]
    more = f"; {len(worst) - MAX_SLICES:,} better ones are not listed" if len(worst) > MAX_SLICES else ""
    if rows:
        yield Table(f"Labels of the {which}, the worst first{more}", head, rows)


def _beside(which: str, found: Mapping[str, Any]) -> Iterator[Table]:
    """The bundle beside what it should be better than."""
    if not (others := found.get("baselines")):
        return
    first, about = headline(found)
    sign = 1 if first in LOWER_IS_BETTER else -1
    compared = [("this bundle", found), *sorted(others.items(), key=lambda item: sign * (item[1][first] or 0))]
    second = next((name for name in ("f1", "r2") if name in found and all(name in of for of in others.values())), None)
    rows = [
        (name, of[first], interval(of["intervals"].get(first)), *([of[second]] if second else []))
        for name, of in compared
    ]
    head = ("model", about, "95 %", *([{"f1": "F1"}.get(second, METRICS[second])] if second else []))
    yield Table(f"Beside it, on the {found['rows']:,} {which}", head, rows, of="what it should be better than")


def _with_ends(of_label: Mapping[str, Any]) -> Iterator[Any]:
    for name in ("precision", "recall", "f1"):
        yield of_label[name]
        yield interval(of_label["intervals"].get(name))


def _how_learnt(subject: Subject) -> Section:
    if not subject.history:
        return Section("learning", "How it learnt", ["The history of its training does not lie beside the bundle."])
    stages = subject.evidence.about.get("seconds", {}) if subject.evidence is not None else {}
    rows: list[Any] = [(name, "", duration(seconds)) for name, seconds in stages.items()]
    last = max(record["fit"] for record in subject.history)
    for fit in range(last + 1):
        if records := [record for record in subject.history if record["fit"] == fit]:
            name = f"{'the last fit' if fit == last else f'fit {fit + 1}'}, on {records[0]['rows_seen']:,} rows"
            rows.append((name, len(records), duration(sum(record["seconds"] for record in records))))
    time = Table(
        "Time by stage of the last start, and by fit its epochs" if stages else "Time by fit",
        ("stage", "epochs", "time"),
        rows,
    )
    return Section("learning", "How it learnt", [grid([*figures.learning(subject)]), time])


def _what_learnt(subject: Subject) -> Section:
    bundle, spec, blocks = subject.bundle, subject.bundle.spec, list[Any]()
    architecture = ARCHITECTURES.get(bundle.spec.architecture)
    if bundle.folded and architecture is not None and WIDE in architecture.heads:
        heaviest, tables = heaviest_grams(bundle, MAX_GRAMS), []
        most = max((weight for _, _, weight in heaviest), default=1.0)
        for label in list(dict.fromkeys(of for of, _, _ in heaviest))[:MAX_LABELS]:
            rows = [(gram, f"{weight:.2f}", bar(weight / most)) for of, gram, weight in heaviest if of == label]
            tables.append(Table(f"For {label[:MAX_NAME]}", ("word or n-gram", "weight", BAR), rows))
        more = len(bundle.labels) - MAX_LABELS
        blocks += [
            "The words and n-grams that weigh most for each label: a word between two that may be any is “_”, letters "
            f"between “<” and “>” are of words that have them.{f' {more:,} more labels are not shown.' * (more > 0)}",
            grid(tables),
        ]
    else:
        blocks.append("This network looks at no n-grams, so that no word has a weight of its own.")
    head, unknown = ("word", "times"), bundle.metrics.get("unknown_words") or []
    tables = [Table("Words that it does not know, and how often the training reviews have them", head, unknown)]
    if subject.evidence is not None and isinstance(bundle.vocabulary, Vocabulary):
        texts, known = subject.evidence.shown["text"].drop_null().to_pylist(), set(bundle.vocabulary.words)
        words = Counter(word for text in texts for word in clean(text, spec.cleaning) if word not in known)
        of = f"the {len(texts)} rows whose label it denies most"
        tables.append(Table(f"Words that it does not know of {of}", head, words.most_common(MAX_UNKNOWN)))
    if tables := [table for table in tables if table.rows]:
        blocks.append(folded("The commonest words that it does not know", *tables))
    if subject.evidence is not None and spec.task in ("classification", "ordinal"):
        blocks += _doubtful(subject, subject.evidence)
    return Section("learnt", "What it learnt", blocks)


def _doubtful(subject: Subject, evidence: Evidence) -> Iterator[Any]:
    found, number = label_errors(evidence, subject.bundle.labels)
    by = "fits that did not see them" if evidence.which == "validation" else "the bundle"
    yield Markup("<h3>Labels to check</h3>")
    yield (
        f"Of {named(evidence)}, scored by {by}, {number:,} likely have a wrong label: another one is as probable as it "
        "is for its own rows on average (the confident joint of Northcutt et al. 2021). Some are hard reviews and no "
        "errors, so read them before you change a label."
    )
    shown = found[:MAX_ERRORS]
    texts = any(doubt.text for doubt in shown)
    head = ("row", "label", "likely", *(["review"] if texts else []), "probability", "of the likely")
    rows = [
        (each.id, each.label, each.likely, *([_begins(each.text)] if texts else []), each.own, each.other)
        for each in shown
    ]
    if rows:
        table = Table("Likely label errors, the likeliest first", head, rows, left=3 + texts)
        yield folded(f"The likeliest {len(rows)}", table)


def _begins(review: str | None) -> Markup:
    return Markup('<span class="wide">{}</span>').format(text(review or "", _BEGINS))


def _how_it_fails(subject: Subject) -> Section:
    evidence, title = subject.evidence, "Where it fails"
    if evidence is None:
        return Section("fails", title, ["The measured rows are not kept, so that no mistakes can be shown."])
    wrong = evidence.shown.filter(~subject.right(evidence.shown)).slice(0, MAX_MISTAKES).to_pylist()
    of_number = subject.bundle.spec.task == "regression"
    if not wrong:
        return Section("fails", title, [f"No measured row got a wrong {'number' if of_number else 'label'}."])
    said = f"The {'largest errors' if of_number else 'surest mistakes'} among the {evidence.of:,} measured rows."
    if not any(row["text"] for row in wrong):
        reviews = [_review(subject, row, Markup("")) for row in wrong]
        return Section("fails", title, [f"{said} Their texts are not kept.", *reviews])
    texts = [row["text"] or "" for row in wrong]
    if not subject.bundle.folded:
        reviews = [_review(subject, row, text(shown, _WORDS * 6)) for row, shown in zip(wrong, texts, strict=True)]
        return Section("fails", title, [said, *reviews])
    since = ", which was since trained on these rows too" if evidence.which == "validation" else ""
    what = "whether it speaks for more or less" if of_number else "for which label it speaks"
    said += f" A word's colour says {what} in the finished model{since}."
    reviews = []
    for row, each in zip(wrong, explain(Scorer(subject.bundle, threads=1), texts), strict=True):
        heaviest = ", ".join(f"“{word}” {weight:+.2f}" for word, weight in each.rows(_HEAVIEST)) or "none"
        more = len(each.words) - _WORDS
        cut = f" Of its first {MAX_TEXT:,} characters." if len(each.text) == MAX_TEXT else ""
        shown = Markup('<p>{}{}</p><p class="about">{}</p>').format(
            replace(each, words=each.words[:_WORDS]).to_html(),
            f" … and {more:,} more words" if more > 0 else "",
            text(f"Heaviest, + for {each.toward} and - for {each.against}: {heaviest}.{cut}"),
        )
        reviews.append(_review(subject, row, shown))
    return Section("fails", title, [said, *reviews])


def _review(subject: Subject, row: Mapping[str, Any], shown: Markup) -> Markup:
    """A row that got a wrong label, with its text."""
    spec, chances, truth = subject.bundle.spec, np.array(row["probabilities"], np.float32), row["truth"]
    decided = subject.bundle.decision.of(chances[None], spec.task)[0]
    if spec.task == "multilabel":
        is_said, got = (_named(spec.labels, has) for has in (truth, decided))
    elif spec.task == "regression":
        is_said, got = f"{truth:.4g}", f"{decided:.4g}"
    else:
        got = "no label" if decided == UNSURE else f"{spec.labels[decided]} ({percent(float(chances[decided]))})"
        is_said = f"{spec.labels[truth]} ({percent(float(chances[truth]))})"
    about = Markup("is <b>{}</b>, scored <b>{}</b>").format(text(is_said, MAX_NAME), text(got, MAX_NAME))
    html = Markup('<article class="review"><p class="about">{}: {}</p>{}</article>')
    return html.format(text(row["id"] or "", 120), about, shown)


def _named(labels: Sequence[str], has: Sequence[Any]) -> str:
    """The labels that a row has."""
    return ", ".join(label for label, each in zip(labels, has, strict=True) if each) or "none"
