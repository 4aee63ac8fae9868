"""A training run from the corpus to the bundle: plan, prepare, fit, evaluate, publish."""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sentray import bundle, cluster, models
from sentray.bundle import HISTORY_FILE
from sentray.config import SETTINGS_FILE, CorpusSettings, EvaluateSettings, TrainSettings, settings_text
from sentray.console import Console, count
from sentray.corpus.dataset import Corpus
from sentray.corpus.identity import (
    by_name,
    content_in,
    content_of,
    digest,
    files_of,
    first_change,
)
from sentray.corpus.rows import QUARANTINE_FILE
from sentray.corpus.source import require_apart, resolve
from sentray.errors import SentrayError, first_line
from sentray.evaluation import Look, Measured, measure
from sentray.lease import Lease, require_held
from sentray.report.evidence import Evidence
from sentray.storage import Folder, behind, reading
from sentray.task import NO_LABEL
from sentray.tracking import Trackers
from sentray.training import training_set
from sentray.training.checkpoint import HeldOut, NothingToKeepError, State
from sentray.training.continuing import pinned
from sentray.training.held_out import evidence_of
from sentray.training.prepare import prepare, require_files
from sentray.training.training_set import FILES_FILE
from sentray.training.validation import validated

METRICS_FILE = "metrics.json"
DATASET, CLAIM, LEASE = "dataset", "run.json", "lease.json"

RESUMABLE = {
    *("address", "max_bad_rows", "excerpts", "workers", "cpus_per_worker", "gpu", "max_failures", "max_restarts"),
    *("stall_timeout", "log_format", "verbose", "shard_size", "out", "report"),
}
"""Settings that a resumed run may change: they do not change what is learnt, and a folder may have several names."""
_DEFAULTS = TrainSettings(corpus="", out="", model="tutorial-cnn", validation_fraction=0).model_dump(mode="json")
"""What a run of an earlier version did, which does not name a setting."""


def work_folder(out: str) -> str:
    """Where a run keeps what it needs to be resumed, until the bundle is finished: `OUT.work`, an absolute path or URI.

    Raises:
        SentrayError: `out` is a whole bucket.
    """
    if "://" not in out:
        return behind(os.path.abspath(out), ".work")
    if "/" not in out.partition("://")[2].partition("?")[0].rstrip("/"):
        raise SentrayError(f"--out {out} is a whole bucket; name a folder in it")
    return behind(out, ".work")


@dataclass(frozen=True)
class Tuned:
    """That the settings of a training were chosen by held-out rows.

    Attributes:
        trials: Among so many.
        records: Files that say so, to lie beside the bundle.
    """

    trials: int
    records: dict[str, bytes]


def train(settings: TrainSettings, console: Console, tuned: Tuned | None = None) -> dict[str, Any]:
    """Train a model and write its bundle to `settings.out`, with `metrics.json` and the settings beside it.

    A run that was killed goes on from its last checkpoint when it is started again.

    Args:
        settings: Of the run.
        console: Where to say what happens.
        tuned: How the settings were chosen, where `sentray tune` did.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        SentrayError: The corpus cannot be used, the cluster is too small for the plan, or `out` is taken.
    """
    settings = pinned(settings)
    models.architecture(settings.model)
    require_files(settings)
    require_apart(settings.corpus, settings.out)
    work = Folder(work_folder(settings.out))
    if (metrics := _finished(settings, console)) is not None:
        if training_set.exists(behind(work.out, f"/{DATASET}")):
            # A run that was killed at its very end did not tell its trackers.
            with Trackers(settings, work, console) as trackers:
                trackers.begin(metrics.get("fits", 1))
                trackers.finish(bundle.load(settings.out), json.loads(Folder(settings.out).read(HISTORY_FILE) or b"[]"))
        work.delete("")
        return metrics
    with cluster.connect(settings.address, verbose=settings.verbose):
        plan = cluster.plan(settings.workers.min, settings.cpus_per_worker, int(settings.gpu))
        if work.local:
            cluster.require_shared(Path(work.path("")).parent, f"--out {settings.out}")
        with Lease(work, LEASE) as lease, Trackers(settings, work, console) as trackers:
            try:
                metrics = _finished(settings, console)
                if metrics is None:
                    console.say(_describe(settings, plan))
                    metrics = _train(settings, work, lease, trackers, console, tuned)
            except NothingToKeepError:
                lease.discard()
                raise
            lease.discard()
    return metrics


def _finished(settings: TrainSettings, console: Console) -> dict[str, Any] | None:
    """The metrics of the bundle that this very command left, None where it has still to be made.

    Raises:
        SentrayError: Something else lies there.
    """
    bundle.check_free(settings.out)
    if Folder(settings.out).read(bundle.MANIFEST) is None:
        return None
    found = bundle.load(settings.out)
    kept = _DEFAULTS | found.settings | ({"function": found.spec.function.digest} if found.spec.function else {})
    if any(kept.get(name) != value for name, value in claim_of(settings).items()):
        raise SentrayError(f"{settings.out} holds another bundle; choose another --out, or remove it to train anew")
    if found.trained_on is not None:
        require_unchanged(settings, Folder(settings.out), found.trained_on.digest, settings.out, console)
    # A run that was killed at its very end left it.
    Folder(settings.out).delete(bundle.UNFINISHED)
    console.say(f"{settings.out} is finished: it holds the bundle of this command already; nothing to do")
    return dict(found.metrics)


def claim_of(settings: TrainSettings) -> dict[str, Any]:
    """What a run that goes on in a work folder must have in common with the one that began there."""
    source = source_of(settings.model)
    return settings.model_dump(mode="json", exclude=RESUMABLE) | ({"function": source} if source else {})


def source_of(model: str) -> str:
    """SHA-256 of the source of a user's function; nothing of one of ours, which the version says."""
    architecture = models.architecture(model)
    return architecture.digest if isinstance(architecture, models.Built) and architecture.source else ""


def _describe(settings: TrainSettings, plan: cluster.Plan) -> str:
    # Reading ends before training starts, so both may take the same CPUs.
    reading = plan.cpus_left + plan.workers * plan.cpus_each
    workers, batch = settings.workers, settings.batch_size
    if workers.fixed:
        then = f"{plan.describe()}; batches of {batch}" + (
            f", {-(-batch // workers.max)} a worker" if workers.max > 1 else ""
        )
    else:
        each = count(plan.cpus_each, "CPU") + (", 1 GPU" if settings.gpu else "")
        then = (
            f"{workers.min} to {workers.max} workers, {each} each, as many as there is room for; batches of {batch} "
            "whatever their number, so that the losses compare"
        )
    return f"plan: read with {count(reading, 'CPU')}, then train with {then}"


def _train(
    settings: TrainSettings, work: Folder, lease: Lease, trackers: Trackers, console: Console, tuned: Tuned | None
) -> dict[str, Any]:
    """Prepare, fit, measure on the test rows and publish; the metrics."""
    # What Ray reads when it is imported is set when it is connected.
    from sentray.training.trainer import fit

    prepared, clock = behind(work.out, f"/{DATASET}"), _Clock()
    if training_set.exists(prepared):
        facts = training_set.Facts.read(prepared)
        require_same(work, claim_of(settings))
        require_unchanged(settings, Folder(prepared), facts.trained_on.digest, work.out, console)
        console.say("the corpus is prepared already: going on with it")
    else:
        _prepare(settings, work, prepared, console)
    clock.lap("reading and preparing the corpus")
    still_held = partial(require_held, work, LEASE, lease.owner)
    facts = training_set.Facts.read(prepared)
    trackers.begin(len(facts.held_out) + 1)
    state, trained, held_out = fit(settings, prepared, work.out, console, still_held, trackers.history)
    clock.lap("training")
    trained, validation, chances = validated(trained, state, held_out, settings, console)
    tested = Measured()
    if facts.metrics["test_rows"]:
        tested = _test(settings, trained, console)
    elif held_out is not None:
        console.say("no test rows: the figures are those of the validation rows, by fits that did not see them")
    else:
        console.say("no test rows and none held out: the bundle's accuracy is not measured")
    clock.lap("measuring")
    # What was learnt and what was tested on are one corpus.
    require_unchanged(settings, Folder(prepared), facts.trained_on.digest, work.out, console)
    metrics = _metrics(facts, state, len(trained.vocabulary), validation, tested.metrics, settings, tuned)
    final = bundle.update(trained, metrics=metrics)
    records = {
        SETTINGS_FILE: settings_text(settings).encode(),
        METRICS_FILE: _json(metrics),
        HISTORY_FILE: _json(state.history),
        **{name: _content(prepared, name) for name in (QUARANTINE_FILE, FILES_FILE)},
        **(tuned.records if tuned else {}),
    }
    if settings.report:
        found = partial(_evidence, prepared, held_out, chances, tested, trained, settings)
        records |= _to_look_at(final, list(state.history), found, clock.seconds, settings, console)
    lease.check()
    published = bundle.publish(final, settings.out, records)
    trackers.finish(published, state.history)
    return metrics


class _Clock:
    """Seconds by stage, as `lap` ends them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage], self._last = round(now - self._last, 1), now


def _evidence(
    prepared: str,
    held_out: HeldOut | None,
    chances: NDArray[np.float32] | None,
    tested: Measured,
    trained: bundle.Bundle,
    settings: TrainSettings,
) -> Evidence | None:
    """The rows to look at: test rows where there are any, else those that were held out."""
    if tested.evidence is not None or held_out is None or chances is None:
        return tested.evidence
    return evidence_of(prepared, held_out.labels, chances, trained, settings)


def _to_look_at(
    final: bundle.Bundle,
    history: list[dict[str, Any]],
    find: Callable[[], Evidence | None],
    seconds: dict[str, float],
    settings: TrainSettings,
    console: Console,
) -> dict[str, bytes]:
    """The records by which a bundle is looked at; where they cannot be made a line says so, and the bundle is whole.

    Args:
        final: The bundle.
        history: Of the run.
        find: Gives the rows to look at.
        seconds: Of each stage.
        settings: Of the run.
        console: Where to say what went wrong.
    """
    from sentray.report.bundle import records_of

    console.expect("the report to be made")
    try:
        if (evidence := find()) is not None:
            evidence = replace(evidence, about={"seconds": seconds})
        return records_of(final, history, evidence, settings.out)
    except Exception as error:
        console.note(f"no report is made ({type(error).__name__}: {first_line(error)[:300]}); the bundle is whole")
        return {}


def require_same(work: Folder, claim: Mapping[str, Any]) -> None:
    """Refuse to go on in a work folder with other settings than those that began there.

    Raises:
        SentrayError: Says which is another.
    """
    before = work.read_json(CLAIM, "remove the folder to start anew") or {}
    for key, value in claim.items():
        if key == "function" and before.get(key) != value:
            raise SentrayError(
                f"the source of the function of the run in {work.out} has changed since it was started: bring it back "
                "to go on, or remove the folder to start anew"
            )
        if before.get(key, _DEFAULTS.get(key)) != value:
            raise SentrayError(
                f"{work.out} holds a run that was started with --{key.replace('_', '-')} {before.get(key)}, not "
                f"{value}; use that setting to go on, or remove the folder to start anew"
            )


def require_unchanged(settings: TrainSettings, folder: Folder, known: str, made: str, console: Console) -> None:
    """Refuse a corpus that is not what was learnt from. Where only a time differs, its rows are read and compared.

    Args:
        settings: Of the run.
        folder: Holds the list of the corpus's files as they were.
        known: The corpus's digest as it was.
        made: What was made of it, for the message.
        console: Where to say what happens.

    Raises:
        SentrayError: It changed.
    """
    # The name of a table in memory is a digest of its content.
    if settings.corpus.startswith(work_folder(settings.out)):
        return
    source = resolve(settings.corpus, settings)
    with reading(f"{folder.out}/{FILES_FILE}"):
        stored = folder.read(FILES_FILE)
        before = by_name(pq.read_table(pa.BufferReader(stored))) if stored else {}
    now = by_name(files_of(source))
    if before == now:
        return
    new = (f"{name} is new" for name in now if name not in before)
    change = (first_change(before, now, sizes_only=True) or next(new, None)) if before else None
    if not change:
        console.expect(f"{settings.corpus} to be read, since a time of change is another")
        with cluster.connect(settings.address, verbose=settings.verbose):
            found = Corpus.open(settings.corpus, settings).map_blocks(content_of)
            if digest(source, map(content_in, found)) == known:
                return
        change = f"{settings.corpus} has changed"
    raise SentrayError(f"{change} since {made} was made; choose another --out, or remove it")


def _prepare(settings: TrainSettings, work: Folder, prepared: str, console: Console) -> None:
    # Before the corpus is read, so that a folder that cannot be written is found at once.
    work.write_json(CLAIM, claim_of(settings))
    console.expect("a block of reviews to be read")
    try:
        prepare(settings, models.architecture(settings.model), prepared, console)
    except SentrayError as error:
        # The rows set aside stay to be looked at; the ids may be gigabytes.
        work.delete(f"{DATASET}/{training_set.IDS_FILE}")
        if f"{DATASET}/{QUARANTINE_FILE}" in work.names(DATASET):
            raise
        raise NothingToKeepError(str(error)) from error


def _metrics(
    facts: training_set.Facts,
    state: State,
    vocabulary_size: int,
    validation: dict[str, Any],
    test: dict[str, Any],
    settings: TrainSettings,
    tuned: Tuned | None,
) -> dict[str, Any]:
    rows, last, held = facts.rows, state.history[-1], facts.held_out
    left_out = [*held, held[0] if held and not settings.refit else 0]
    if any(record["rows_seen"] != rows - left_out[record["fit"]] for record in state.history):
        raise RuntimeError("an epoch did not see every training row of its fit exactly once")
    return {
        **facts.metrics,
        "vocabulary_size": vocabulary_size,
        "buckets": facts.spec.buckets,
        "max_length": facts.spec.max_length,
        "train_rows": rows - left_out[-1],
        "label_rows": dict(zip(facts.spec.labels, facts.label_rows, strict=True)),
        "fits": len(held) + 1,
        "rows_seen_per_epoch": last["rows_seen"],
        "epochs": state.epoch,
        "restarts": state.restarts,
        "seed": state.seed,
        "train_loss": last["loss"],
        "train_accuracy": last.get("accuracy"),
        **{
            f"{which}_{short}": figures.get(name)
            for which, figures in (("validation", validation), ("test", test))
            for short, name in (("accuracy", "accuracy"), ("f1", "f1"), ("auc", "roc_auc"))
        },
        "validation_rows": validation.get("rows", 0),
        "figures": _figures(facts, state, settings, tuned),
        "reference": _reference(facts, validation),
        **({"validation": validation} if validation else {}),
        **({"test": test} if test else {}),
    }


def _reference(facts: training_set.Facts, validation: dict[str, Any]) -> dict[str, Any] | None:
    """What scored reviews are compared with; see `scoring.drift.Reference`."""
    reviews = facts.metrics.get("reference")
    if reviews is None:
        return None
    of = {
        "reviews": f"the {reviews['rows']:,} training rows, with those words known that enough of the other rows have"
    }
    if validation:
        of["scores"] = f"the {validation['rows']:,} held-out rows, by fits that did not see them"
    predicted = validation and dict(zip(facts.spec.labels, validation["predicted"], strict=True))
    if "predicted_none" in validation:
        predicted[NO_LABEL] = validation["predicted_none"]
    return {
        "words": None,
        **reviews,
        "scores": validation.get("score_histogram"),
        "labels": predicted or None,
        "scored_rows": validation.get("rows", 0),
        "of": of,
        **{name: validation[name] for name in ("span",) if name in validation},
    }


def _figures(facts: training_set.Facts, state: State, settings: TrainSettings, tuned: Tuned | None) -> dict[str, str]:
    """Which fit and which rows each figure is of, in words."""
    rows, folds = facts.rows, len(facts.held_out)
    seen = f"all {rows:,} training rows"
    if folds and not settings.refit:
        seen = f"the {rows - facts.held_out[0]:,} training rows that are not held out"
    of = {"train": f"the last fit, on {seen}, while it was trained on them: it says nothing of new reviews"}
    if folds:
        fits = "fit 1, on the rows" if folds == 1 else f"fits 1 to {folds}, each on those of all training rows"
        # The wide half has a fixed schedule.
        thresholds = settings.threshold is not None or facts.spec.task == "multilabel"
        chosen = ["epochs"] * (settings.model != models.WIDE) + ["threshold"] * thresholds
        chosen += [f"settings among {tuned.trials:,} trials"] if tuned else []
        of["validation"] = f"{fits} that it held out and did not see. "
        if chosen:
            of["validation"] += f"These rows chose the {' and the '.join(chosen)}, so that it is a little too good. "
        of["validation"] += "Mix and temperature are chosen for each row by the others"
    if facts.metrics["test_rows"]:
        of["test"] = "the last fit, on the corpus's test rows, which no fit saw"
    return of


def _test(settings: TrainSettings, trained: bundle.Bundle, console: Console) -> Measured:
    shared = {name: getattr(settings, name) for name in CorpusSettings.model_fields}
    with TemporaryDirectory() as scratch:
        path = bundle.publish(trained, f"{scratch}/bundle").path
        asked = EvaluateSettings(bundle=path, corpus=settings.corpus, split="test", trust_model=True, **shared)
        return measure(asked, console, Look(settings.excerpts, task=trained.spec.task) if settings.report else None)


def _content(folder: str, name: str) -> bytes:
    with Folder(folder).open_file(name) as stored:
        return bytes(stored.readall())


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()
