"""The table: what each tutorial reports beside what its systems gave here, on the console, as Markdown and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentray.console import Console, count, duration
from sentray.reproduce.systems import System

_NONE = "-"
_HEADER = ("system", "source", "ours", "least", "greatest", "in training", "dead starts", "time", "words covered")


@dataclass(frozen=True)
class Run:
    """One system with one seed.

    Attributes:
        seed: the seed that was asked for.
        seconds: of training or learning alone, without start-up, reading and testing; of the seed that learnt.
        figures: the metrics as in `metrics.json`, or what `embed` found; empty where it failed.
        error: why it failed, or None.
    """

    seed: int
    seconds: float | None
    figures: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class Row:
    """A system and its runs, one a seed."""

    system: System
    runs: tuple[Run, ...]

    @property
    def done(self) -> list[Run]:
        """The runs that did not fail."""
        return [run for run in self.runs if run.error is None]

    def values(self, name: str) -> list[Any]:
        """A figure of each run that has it."""
        return [value for run in self.done if (value := run.figures.get(name)) is not None]

    @property
    def accuracies(self) -> list[float]:
        """The system's figure in each run, from 0 to 1."""
        return self.values(self.system.measure)

    def to_dict(self) -> dict[str, Any]:
        """The row with every run's figures, in values of JSON."""
        system, accuracies = self.system, self.accuracies
        return {
            "name": system.name,
            "what": system.what,
            "source": system.source,
            "source_accuracy": system.figure,
            "measure": None if system.train is None else system.measure,
            "mean": _mean(accuracies),
            "least": min(accuracies, default=None),
            "greatest": max(accuracies, default=None),
            "train_accuracy": _mean(self.values("train_accuracy")),
            "restarts": sum(self.values("restarts")),
            "seconds": _mean([run.seconds for run in self.done if run.seconds is not None]),
            "words_covered": _mean([found["words_found"] / found["words"] for found in self.values("embedding")]),
            "runs": [asdict(run) for run in self.runs],
        }

    def cells(self) -> list[str]:
        """The row as text, in the order of the columns."""
        row = self.to_dict()
        ours, restarts = _percent(row["mean"]), str(row["restarts"])
        if not self.done:
            ours, restarts = "failed", _NONE
        elif self.system.train is None:
            # Lines and words are the same with every seed.
            facts, norm = self.done[0].figures, _mean(self.values("mean_norm"))
            ours, restarts = f"{facts['lines']:,} lines, {facts['kept']:,} words, mean norm {norm:.2f}", _NONE
        return [
            *(row["name"], row["source"], ours),
            *(_percent(row[name]) for name in ("least", "greatest", "train_accuracy")),
            *(restarts, _NONE if row["seconds"] is None else duration(row["seconds"])),
            _percent(row["words_covered"]),
        ]


def show(console: Console, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Print the table, the reasons of failures, and the notes."""
    console.table(_HEADER, [row.cells() for row in rows])
    for line in (*failures(rows), *notes):
        console.say(line)


def markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table as Markdown, with the reasons of failures and the notes below it."""
    grid = [[_HEADER[0], "what it is", *_HEADER[1:]], ["---"] * (len(_HEADER) + 1)]
    for row in rows:
        name, *cells = row.cells()
        grid.append([f"`{name}`", row.system.what, *cells])
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |" for cells in grid]
    return "\n".join([*lines, "", *(f"- {line}" for line in (*failures(rows), *notes))]) + "\n"


def failures(rows: Sequence[Row]) -> list[str]:
    """A line for each run that failed."""
    failed = [(row.system.name, run) for row in rows for run in row.runs if run.error is not None]
    return [" ".join(f"{name}, seed {run.seed}: {run.error}".split()) for name, run in failed]


def notes(seeds: int, left_out: Sequence[System]) -> list[str]:
    """What a reader of the table has to know: the seeds, the measure, and what is left out."""
    lines = [
        f"{count(seeds, 'seed')} from 0; accuracies are of the test reviews, for the ten phrases in training",
        "a dead start is noticed after an epoch and made again with the next seed, which another run may have too; the "
        "time is the mean of training alone, without start-up",
    ]
    if left_out:
        lines.append(f"left out, for want of --glove: {', '.join(system.name for system in left_out)}")
    return lines


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f} %"
