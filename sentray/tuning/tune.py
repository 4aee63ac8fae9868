"""`sentray tune`: trials of settings on held-out rows, by Ray Tune, their table, and a training with the best."""

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sentray import bundle, cluster, models, tables
from sentray.config import TrainSettings, TuneSettings
from sentray.console import Console, count
from sentray.corpus.source import require_apart
from sentray.errors import SentrayError
from sentray.lease import Lease
from sentray.storage import Folder, behind, locate
from sentray.tracking import mlflow_run, tensorboard
from sentray.training import run, training_set
from sentray.training.prepare import prepare, require_files
from sentray.training.progress import shown_on
from sentray.training.run import Tuned, require_same, require_unchanged, train, work_folder
from sentray.tuning.records import Records
from sentray.tuning.space import FITTING, Space, with_

TRIALS_FILE = "trials.json"
TRIALS, MAX_TRIALS = 20, 1000
"""How many there are where neither their number nor a budget is given, and at most within a budget."""
PREPARING = 0.25
"""Share of the budget after which nothing is prepared any more."""
RESUMABLE = run.RESUMABLE | {"trials", "budget", "at_once", "space"}
"""Settings that a command that goes on may change; what the file of the space says it may not."""
_WORK, _REFIT = "/tune", "tune/refit.json"
_QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Else Ctrl-C would end the trials and go on with the last training.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def tune(settings: TuneSettings, console: Console) -> dict[str, Any]:
    """Try settings, print the table of the trials, and train with the best into `settings.out`.

    What was stopped goes on: trials that are at their end are not made again.

    Returns:
        What `trials.json` has, and `metrics`, those of the bundle.

    Raises:
        SentrayError: The corpus cannot be used, no trial came to its end, or `out` is taken.
    """
    models.architecture(settings.model)
    require_files(settings)
    require_apart(settings.corpus, settings.out)
    space = Space.of(settings)
    work = Folder(behind(work_folder(settings.out), _WORK))
    claim = _claim(settings, space)
    figures = _finished(settings, claim)
    if figures is None:
        with cluster.connect(settings.address, verbose=settings.verbose):
            cluster.plan(1, settings.cpus_per_worker, int(settings.gpu))
            cluster.plan(settings.workers.min, settings.cpus_per_worker, int(settings.gpu))
            if work.local:
                cluster.require_shared(Path(work.path("")).parent, f"--out {settings.out}")
            with Lease(work, run.LEASE) as lease:
                figures = _search(settings, space, claim, work, lease, console)
            _drop_other(with_(settings, figures["trials"][0]["settings"]))
            return figures | {"metrics": _refit(settings, figures, console)}
    return figures | {"metrics": _refit(settings, figures, console)}


def _claim(settings: TuneSettings, space: Space) -> dict[str, Any]:
    """What a search that goes on must have in common with the one that began."""
    tried = space["model"].choices if "model" in space else ()
    sources = {name: source for name in (settings.model, *tried) if (source := run.source_of(name))}
    return settings.model_dump(mode="json", exclude=RESUMABLE) | {"function": sources, "space": space.written()}


def _finished(settings: TuneSettings, claim: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the trials of this very command gave, None where they have still to be made.

    Raises:
        SentrayError: Something else lies there.
    """
    bundle.check_free(settings.out)
    folder = Folder(settings.out)
    if folder.read(bundle.MANIFEST) is None:
        return None
    found = folder.read_json(TRIALS_FILE)
    if found is None or found["claim"] != claim:
        raise SentrayError(f"{settings.out} holds another bundle; choose another --out, or remove it to tune anew")
    # A budget may have ended before so many were made.
    if not settings.budget and (made := len(found["trials"])) < (settings.trials or 0):
        raise SentrayError(
            f"{settings.out} holds the best of {count(made, 'trial')}; choose another --out for more, or remove it"
        )
    return found


def _refit(settings: TuneSettings, figures: dict[str, Any], console: Console) -> dict[str, Any]:
    """Train with the best settings; the metrics."""
    best = with_(settings, figures["trials"][0]["settings"])
    content = (json.dumps(figures, indent=1, ensure_ascii=False) + "\n").encode()
    return train(best, console, Tuned(len(figures["trials"]), {TRIALS_FILE: content}))


def _drop_other(best: TrainSettings) -> None:
    """Remove the last training of an earlier start, where more trials have chosen other settings since."""
    from sentray.training.trainer import RUN_NAME

    folder, claim = Folder(work_folder(best.out)), run.claim_of(best)
    before = folder.read_json(_REFIT)
    if before not in (None, claim) and folder.read_json(run.CLAIM) == before:
        with Lease(folder, run.LEASE):
            for name in (RUN_NAME, run.DATASET, run.CLAIM, tensorboard.FOLDER, mlflow_run.RUN_FILE):
                folder.delete(name)
    folder.write_json(_REFIT, claim)


def _search(
    settings: TuneSettings, space: Space, claim: dict[str, Any], work: Folder, lease: Lease, console: Console
) -> dict[str, Any]:
    """Make the trials that are not made yet; what `trials.json` has."""
    if work.read(run.CLAIM) is not None:
        require_same(work, claim)
    work.write_json(run.CLAIM, claim)
    most = settings.trials or (MAX_TRIALS if settings.budget else TRIALS)
    changes = dict(enumerate(itertools.islice(space.changes(settings.seed), most), 1))
    trials = {number: with_(settings, each, settings.space) for number, each in changes.items()}
    records = Records(work, changes, settings.seconds, console)
    console.say(
        f"trials: {f'{most:,}' if settings.trials or not settings.budget else 'as many as there is time for'}"
        + (f" within {settings.budget}" if settings.budget else "")
        + f", of {', '.join(space)}; {len(records.done):,} are made"
    )
    prepared = _prepare(trials, records, work, console)
    left = {number: (trials[number], folder) for number, folder in prepared.items() if number not in records.done}
    if left and records.left() > 0:
        _run(left, records, settings, work, console)
    lease.check()
    ended = [record for record in records.done.values() if record["status"] == "ended"]
    if not ended:
        failed = next((record["error"] for record in records.done.values() if record["error"]), None)
        raise SentrayError(failed or f"no trial came to its end within --budget {settings.budget}: give more time")
    first = _folder(work, changes[1])
    known = training_set.Facts.read(first).trained_on.digest
    require_unchanged(settings, Folder(first), known, work.out, console)
    made = sorted(records.done.values(), key=_order)
    figures = {
        "best": made[0]["number"],
        "of": f"{made[0]['rows']:,} held-out rows, by fits that did not see them. These rows chose among "
        f"{count(len(made), 'trial')}, so that the best is a little too good",
        "trials": made,
        "claim": claim,
    }
    console.say()
    tables.trials(console, figures)
    return figures


def _order(record: Mapping[str, Any]) -> tuple[bool, float, int]:
    """The best first: those that came to their end, by their loss."""
    return record["status"] != "ended", float("inf") if record["loss"] is None else record["loss"], record["number"]


def _folder(work: Folder, changes: Mapping[str, Any]) -> str:
    """Where the training set of a trial lies, which it may share with others."""
    about = {name: value for name, value in changes.items() if name not in FITTING}
    return behind(work.out, f"/prepared-{hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]}")


def _prepare(trials: Mapping[int, TrainSettings], records: Records, work: Folder, console: Console) -> dict[int, str]:
    """By number the folders of the training sets of trials that are not made yet, each prepared once."""
    folders, aside = dict[int, str](), _Aside(console)
    # What is wrong with each that was tried; nothing where it is ready.
    found, late = dict[str, str](), 0
    left = {number: settings for number, settings in trials.items() if number not in records.done}
    for number, settings in left.items():
        folder = _folder(work, records.changes[number])
        try:
            require_files(settings)
        except SentrayError as error:
            records.fail(number, str(error))
            continue
        if folder not in found:
            if training_set.exists(folder):
                found[folder] = ""
            elif number == 1 or records.left() >= (1 - PREPARING) * records.budget:
                try:
                    prepare(settings, models.architecture(settings.model), folder, console if number == 1 else aside)
                    found[folder] = ""
                except SentrayError as error:
                    if number == 1:
                        raise
                    found[folder] = str(error)
            else:
                late += 1
                continue
        if found[folder]:
            records.fail(number, found[folder])
        else:
            folders[number] = folder
    if late:
        console.say(f"left out: {count(late, 'trial')} whose corpus could not be prepared in a quarter of the budget")
    return folders


def _run(
    trials: Mapping[int, tuple[TrainSettings, str]],
    records: Records,
    settings: TuneSettings,
    work: Folder,
    console: Console,
) -> None:
    """Make trials, by number, within the time that is left."""
    # Ray reads its variables when it is imported, and is connected by now.
    import ray
    from ray import tune as ray_tune

    from sentray.training.trainer import code_of
    from sentray.training.worker import Job
    from sentray.tuning.halving import Halving, Watch
    from sentray.tuning.trial import Trial

    resources = {"cpu": settings.cpus_per_worker, "gpu": int(settings.gpu)}
    filesystem, path = locate(work.out)
    work.delete("ray")
    console.expect("a trial to start")
    with cluster.environment(_QUIET), shown_on(_Aside(console, records.line)) as board:
        jobs = {number: Job(each, prepared, code=code_of(prepared)) for number, (each, prepared) in trials.items()}
        made = ray_tune.with_parameters(Trial, trials=jobs, board=board)
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(made, resources),
            param_space={"number": ray_tune.grid_search(list(trials))},
            tune_config=ray_tune.TuneConfig(
                scheduler=Halving(settings, records),
                max_concurrent_trials=settings.at_once,
                time_budget_s=None if settings.budget is None else records.left(),
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name="ray",
                storage_path=path,
                storage_filesystem=filesystem,
                # A trial that is stopped starts anew: it takes less time than a checkpoint each epoch.
                checkpoint_config=ray_tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=ray_tune.FailureConfig(max_failures=settings.max_failures),
                callbacks=[Watch(records)],
                verbose=0,
            ),
        )
        tuner.fit()
    ray.kill(board)


class _Aside(Console):
    """Console of work among other: of it the progress is shown alone.

    Args:
        console: Where to show it.
        before: What to show before it.
    """

    def __init__(self, console: Console, before: Callable[[], str] = lambda: "preparing") -> None:
        super().__init__(silent=True)
        self._shown, self._before = console, before

    def expect(self, what: str) -> None:
        self._shown.expect(what)

    def progress(self, line: str, share: float | None = None, *, moved: bool = True) -> None:
        self._shown.progress(f"{self._before()}; {line}", moved=moved)

    def _write(self, name: str, level: str, line: str, fields: Mapping[str, Any] = {}, moved: bool = True) -> None:
        if moved:
            self._shown.moved_at = time.monotonic()
