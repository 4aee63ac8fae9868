"""`sentray reproduce --benchmarks`: sentray's default beside other systems, on the same rows of public test sets.

Each training is a folder or file of its own below `--out`; one that is finished is not made again.
"""

import difflib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray import cluster
from sentray.bench.settings import ReproduceSettings
from sentray.config import SETTINGS_FILE, CrossvalidateSettings, TrainSettings, settings_text
from sentray.console import Console, count
from sentray.errors import SentrayError
from sentray.reproduce.baselines import BASELINES, measure
from sentray.storage import write_text
from sentray.training.crossvalidation import folds_in, interval, train_each

TABLE_FILE, FIGURES_FILE = "comparison.md", "comparison.json"
OURS = "sentray"
SYSTEMS: Mapping[str, Mapping[str, Any]] = {
    OURS: {"model": "wide-deep"},
    "tutorial-cnn": {"model": "tutorial-cnn", "epochs": 10, "validation_fraction": 0},
    # Vectors as they are drawn, as in the paper's CNN-rand; a longer review's end is what they see.
    "kim-cnn": {"model": "kim-cnn", "max_length": 400},
    "bilstm": {"model": "bilstm", "max_length": 400},
}
"""Those that `sentray train` trains: settings besides the corpus's."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Benchmark:
    """A public test set.

    Attributes:
        name: What `--only` calls it.
        about: Which rows are tested on.
        corpus: URI, or a file in the folder of `--benchmarks`.
        settings: Of the corpus, for `sentray crossvalidate`; for `train` where it is not folded.
        folded: Whether each row is tested on once, in folds, or the corpus has test rows of its own.
    """

    name: str
    about: str
    corpus: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    folded: bool = True


BENCHMARKS = (
    Benchmark("polarity", "its authors' ten folds, cv0xx to cv9xx", "nltk:movie_reviews", {"fold_column": "fold"}),
    Benchmark("mr", "ten folds, shuffled", "sentences/mr.parquet", {"fold_column": "fold"}),
    Benchmark("cr", "ten folds, shuffled", "sentences/cr.parquet", {"fold_column": "fold"}),
    Benchmark("sst2", "its test sentences; whole sentences alone to train on", "sentences/sst2.parquet", folded=False),
    Benchmark("trec", "its test questions", "sentences/trec.parquet", folded=False),
    Benchmark("trec-train", "its training part in ten folds by a hash of the text", "sentences/trec.parquet"),
    Benchmark(
        "imdb-train",
        "its training half in five folds of blocks of 250 neighbouring ids, since a film's reviews are neighbours; "
        "what sentray holds out to validate is whole blocks, too",
        "imdb_train.parquet",
        {"folds": 5, "group_by": "id-block:250"},
    ),
)


@dataclass(frozen=True)
class Result:
    """A system on a benchmark.

    Attributes:
        accuracies: From 0 to 1; [seeds, folds].
        rows: That were tested on.
    """

    accuracies: Floats
    rows: int

    @property
    def mean(self) -> float:
        """Over folds and seeds."""
        return float(self.accuracies.mean())

    @property
    def half(self) -> float:
        """Half the width of the interval: over folds by Student's t, of one test part by the number of its rows."""
        if (folds := self.accuracies.mean(axis=0)).size > 1:
            return interval(folds)[1] - self.mean
        return 1.96 * float(np.sqrt(self.mean * (1 - self.mean) / self.rows))

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.half:.1f}"

    def to_dict(self) -> dict[str, Any]:
        """As values of JSON."""
        return {"accuracies": self.accuracies.tolist(), "rows": self.rows, "mean": self.mean, "half": self.half}


Results = dict[str, dict[str, Result]]
"""By benchmark and system."""


def compare(settings: ReproduceSettings, console: Console) -> Results:
    """Train the systems on the benchmarks, print the table, and write it and all figures into `settings.out`.

    Raises:
        SentrayError: A name is unknown, a corpus cannot be used, or a training failed.
    """
    benchmarks, systems = _chosen(settings.only)
    if without := [name for name in systems if name in BASELINES and not BASELINES[name].available]:
        console.note(f"left out: {', '.join(without)}; for them pip install 'sentray[reproduce]'")
    systems = [name for name in systems if name not in without]
    folder = Path(settings.out).absolute()
    write_text(str(folder / SETTINGS_FILE), settings_text(settings))
    results: Results = {}
    with cluster.connect(settings.address, verbose=settings.verbose):
        for benchmark in benchmarks:
            names, shared = _folds(benchmark, settings, console)
            for system in systems:
                console.say(f"{benchmark.name}, {system}")
                out = folder / "comparison" / benchmark.name / system
                result = _result(system, names, shared, out, settings, console)
                results.setdefault(benchmark.name, {})[system] = result
                _write(results, settings, folder)
    console.say()
    for header, *rows in (table(results), differences(results)):
        console.table(header, rows)
        console.say()
    for line in notes(results, settings):
        console.say(line)
    console.say(f"written to {settings.out}: {TABLE_FILE}, {FIGURES_FILE}")
    return results


def _chosen(only: Sequence[str]) -> tuple[list[Benchmark], list[str]]:
    """The benchmarks and systems to compare; all of a kind of which none is named."""
    benchmarks, systems = {each.name: each for each in BENCHMARKS}, [*SYSTEMS, *BASELINES]
    for name in only:
        if name not in (known := [*benchmarks, *systems]):
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise SentrayError(f"there is no benchmark or system {name!r} for --only; the nearest is {near[0]!r}")
    return (
        [benchmarks[name] for name in benchmarks if name in only] or list(BENCHMARKS),
        [name for name in systems if name in only] or systems,
    )


def _folds(
    benchmark: Benchmark, settings: ReproduceSettings, console: Console
) -> tuple[list[str | None], dict[str, Any]]:
    """The folds of a benchmark, or None for its own test part, and the settings that its trainings share."""
    corpus = benchmark.corpus
    if ":" not in corpus:
        corpus = os.path.abspath(f"{settings.benchmarks}/{corpus}")
    given = {"corpus": corpus, "address": settings.address, "verbose": settings.verbose, **benchmark.settings}
    if not benchmark.folded:
        return [None], given
    names = folds_in(CrossvalidateSettings(out="", **given), console)
    given.pop("folds", None)
    return list[str | None](names)[: settings.max_folds], given


def _result(
    system: str,
    folds: Sequence[str | None],
    shared: Mapping[str, Any],
    out: Path,
    settings: ReproduceSettings,
    console: Console,
) -> Result:
    baseline = BASELINES.get(system)
    seeds = settings.seeds if baseline is None or baseline.seeded else 1
    jobs = {}
    for seed in range(seeds):
        for number, fold in enumerate(folds, 1):
            name = f"seed {seed}" + (f", fold {fold}" if fold else "")
            path = str(out / f"seed{seed}") + (f"-fold{number}" if fold else "")
            own = {"out": path, "seed": seed, "test_fold": fold, "report": False, **SYSTEMS.get(system, {})}
            jobs[name] = TrainSettings(**shared, **own)
    found = train_each(jobs, settings.at_once, console, partial(measure, system) if baseline else None)
    tests = [metrics["test"] for metrics in found.values()]
    accuracies = np.array([test["accuracy"] for test in tests]).reshape(seeds, len(folds))
    return Result(accuracies, sum(test["rows"] for test in tests[: len(folds)]))


def table(results: Results) -> list[list[str]]:
    """Header and rows: a row a system, with mean and interval on each benchmark, in percent."""
    systems = list(dict.fromkeys(system for of_systems in results.values() for system in of_systems))
    rows = [["accuracy, %", *results]]
    for system in systems:
        rows.append([system, *(str(of_systems.get(system, "")) for of_systems in results.values())])
    return rows


def differences(results: Results) -> list[list[str]]:
    """Header and rows: how much better ours is than each other system on the same rows, and the paired interval."""
    systems = list(dict.fromkeys(system for of_systems in results.values() for system in of_systems if system != OURS))
    rows = [[f"{OURS} minus", *results]]
    for system in systems:
        pairs = [(of_systems.get(OURS), of_systems.get(system)) for of_systems in results.values()]
        rows.append([system, *(_difference(*pair) for pair in pairs)])
    return rows if any(OURS in of_systems for of_systems in results.values()) else rows[:1]


def _difference(ours: Result | None, other: Result | None) -> str:
    if ours is None or other is None:
        return ""
    gaps = ours.accuracies.mean(axis=0) - other.accuracies.mean(axis=0)
    paired = " to ".join(f"{100 * end:+.1f}" for end in interval(gaps)) if gaps.size > 1 else ""
    return f"{100 * gaps.mean():+.1f}" + (f" ({paired})" if paired else "")


def notes(results: Results, settings: ReproduceSettings) -> list[str]:
    """What a reader of the tables has to know."""
    lines = [
        f"{count(settings.seeds, 'seed')} from 0 of systems that have one; means of folds and seeds",
        "intervals of 95 %: with folds of their mean by Student's t (training rows overlap: a little too narrow), the "
        "differences' over the same folds; of one test part by the number of its rows, binomial",
    ]
    for benchmark in BENCHMARKS:
        if of_systems := results.get(benchmark.name):
            result = next(iter(of_systems.values()))
            folds = result.accuracies.shape[1]
            some = f"; the first {folds} alone" if benchmark.folded and settings.max_folds else ""
            lines.append(f"{benchmark.name}: {result.rows:,} rows, {benchmark.about}{some}")
    return lines


def _write(results: Results, settings: ReproduceSettings, folder: Path) -> None:
    blocks = []
    for rows in (table(results), differences(results)):
        grid = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
        blocks.append("".join(f"| {' | '.join(cells)} |\n" for cells in grid) if len(rows) > 1 else "")
    lines = "".join(f"- {line}\n" for line in notes(results, settings))
    write_text(str(folder / TABLE_FILE), "\n".join([*filter(None, blocks), lines]))
    figures = {name: {system: each.to_dict() for system, each in found.items()} for name, found in results.items()}
    write_text(str(folder / FIGURES_FILE), json.dumps(figures, indent=1) + "\n")
