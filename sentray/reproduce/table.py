"""The table: what each tutorial reports beside what its systems gave here, on the console, as Markdown and as JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentray.console import Console, count, duration
from sentray.reproduce.systems import System

_NONE = "-"
_HEADER = ("system", "source", "ours", "least", "greatest", "in training", "dead starts", "time", "words covered")
_WHAT = "what it is"


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

    def values(self, of: Callable[[Run], Any]) -> list[float]:
        """A figure of each run that has it."""
        return [value for run in self.done if (value := of(run)) is not None]

    @property
    def accuracies(self) -> list[float]:
        """The system's figure in each run, from 0 to 1."""
        return self.values(lambda run: run.figures.get(self.system.measure))

    def to_dict(self) -> dict[str, Any]:
        """The row with every run's figures, in values of JSON."""
        accuracies = self.accuracies
        return {
            "name": self.system.name,
            "what": self.system.what,
            "source": self.system.source,
            "source_accuracy": self.system.figure,
            "measure": None if self.system.train is None else self.system.measure,
            "mean": _mean(accuracies),
            "least": min(accuracies, default=None),
            "greatest": max(accuracies, default=None),
            "train_accuracy": _mean(self.values(lambda run: run.figures.get("train_accuracy"))),
            "restarts": sum(run.figures.get("restarts", 0) for run in self.done),
            "seconds": _mean(self.values(lambda run: run.seconds)),
            "words_covered": _mean(self.values(covered)),
            "runs": [asdict(run) for run in self.runs],
        }

    def cells(self) -> list[str]:
        """The row as text, in the order of the columns."""
        if not self.done:
            return [self.system.name, self.system.source, "failed", *[_NONE] * (len(_HEADER) - 3)]
        values = self.to_dict()
        return [
            self.system.name,
            self.system.source,
            self._vectors() if self.system.train is None else _percent(values["mean"]),
            *(_percent(values[name]) for name in ("least", "greatest", "train_accuracy")),
            _NONE if self.system.train is None else str(values["restarts"]),
            _NONE if values["seconds"] is None else duration(values["seconds"]),
            _percent(values["words_covered"]),
        ]

    def _vectors(self) -> str:
        """The result of learning vectors: lines and words, the same with every seed, and their mean norm."""
        facts, norms = self.done[0].figures, self.values(lambda run: run.figures["mean_norm"])
        return f"{facts['lines']:,} lines, {facts['kept']:,} words, mean norm {sum(norms) / len(norms):.2f}"


def covered(run: Run) -> float | None:
    """The share of the vocabulary's words that have a vector, where the run was given vectors."""
    coverage = run.figures.get("embedding")
    return None if coverage is None else float(coverage["words_found"] / coverage["words"])


def show(console: Console, rows: Sequence[Row]) -> None:
    """Print the table, and the reasons of failures."""
    console.table(_HEADER, [row.cells() for row in rows])
    for line in failures(rows):
        console.say(line)


def markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table as Markdown.

    Args:
        rows: the systems.
        notes: lines to put below it, after the failures.
    """
    header = [_HEADER[0], _WHAT, *_HEADER[1:]]
    lines = [_line(header), _line(["---"] * len(header))]
    for row in rows:
        name, *cells = row.cells()
        lines.append(_line([f"`{name}`", row.system.what, *cells]))
    below = [*failures(rows), *notes]
    return "\n".join([*lines, *([""] if below else []), *(f"- {line}" for line in below)]) + "\n"


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


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in cells)} |"


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f} %"
