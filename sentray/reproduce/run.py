"""`sentray reproduce`: train every system through the ordinary code, then the table and the picture.

Each run is a folder or file of its own below `--out`; one that is finished is not made again, so that a stopped
`reproduce` goes on when the same command is given again.
"""

import json
import os
import traceback
from pathlib import Path
from typing import Any

from sentray import cluster
from sentray.bench.settings import ReproduceSettings
from sentray.bundle import HISTORY_FILE
from sentray.config import SETTINGS_FILE, EmbedSettings, TrainSettings, settings_text
from sentray.console import Console, count
from sentray.embeddings.learn import embed
from sentray.embeddings.read import dimensions_of
from sentray.errors import SentrayError
from sentray.reproduce import picture, systems, table
from sentray.reproduce.comparison import Results, compare
from sentray.reproduce.systems import GLOVE, System, write_phrases
from sentray.reproduce.table import Row, Run
from sentray.storage import write_text
from sentray.training.run import train

TABLE_FILE, FIGURES_FILE, PICTURE_FILE = "reproduce.md", "reproduce.json", "reproduce.png"
_PHRASES_FILE = "phrases.jsonl"


def reproduce(settings: ReproduceSettings, console: Console) -> list[Row] | Results:
    """Train the systems, print the table, and write it with the picture into `settings.out`.

    With `settings.benchmarks` it is the comparison, by benchmark and system.

    Raises:
        SentrayError: a name or the GloVe file cannot be used, which is said at once; or a system failed, which is said
            when the others are done.
    """
    if "://" in settings.out:
        raise SentrayError(f"--out {settings.out} is no folder; name a folder, which may be copied afterwards")
    if settings.benchmarks is not None:
        return compare(settings, console)
    chosen, left_out = systems.choose(settings.only, settings.glove)
    if settings.glove and any(system.vectors == GLOVE for system in chosen):
        _check_glove(settings.glove)
    folder = Path(settings.out).absolute()
    write_text(str(folder / SETTINGS_FILE), settings_text(settings))
    write_phrases(folder / _PHRASES_FILE)
    notes = table.notes(settings.seeds, left_out)
    rows: list[Row] = []
    with cluster.connect(settings.address, verbose=settings.verbose):
        for system in chosen:
            runs = [_attempt(system, seed, settings, folder, console) for seed in range(settings.seeds)]
            rows.append(Row(system, tuple(runs)))
            write_text(str(folder / TABLE_FILE), table.markdown(rows, notes))
            figures = {"systems": [row.to_dict() for row in rows], "notes": notes}
            write_text(str(folder / FIGURES_FILE), json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    console.say()
    table.show(console, rows, notes)
    drawn = picture.draw(rows, folder / PICTURE_FILE)
    files = [TABLE_FILE, FIGURES_FILE, *([PICTURE_FILE] if drawn else [])]
    console.say(f"written to {settings.out}: {', '.join(files)}")
    if failed := [row.system.name for row in rows if len(row.done) < len(row.runs)]:
        raise SentrayError(
            f"{count(len(failed), 'system')} of {len(rows)} failed ({', '.join(failed)}); the table in "
            f"{folder / TABLE_FILE} says why"
        )
    return rows


def _attempt(system: System, seed: int, settings: ReproduceSettings, folder: Path, console: Console) -> Run:
    """One system with one seed; a failure is reported and kept, so that the next system gets its turn."""
    console.say()
    console.say(f"{system.name}, seed {seed}")
    try:
        return _run(system, seed, settings, folder, console)
    except Exception as error:
        mistake = cluster.user_error(error)
        if mistake is None:
            # Into the log, where there is one.
            traceback.print_exception(error)
        # Ray's text is a traceback, which ends with the sentence.
        last = next(reversed(str(error).strip().splitlines()), "")
        why = str(mistake or f"unexpected {type(error).__name__}: {last[:300]} (its traceback is in the log)")
        console.error(f"{system.name}, seed {seed}: {why}")
        return Run(seed, None, {}, why)


def _run(system: System, seed: int, settings: ReproduceSettings, folder: Path, console: Console) -> Run:
    where: dict[str, Any] = {"address": settings.address, "verbose": settings.verbose}
    vectors = None
    if system.vectors == GLOVE:
        glove = str(settings.glove)
        vectors = glove if "://" in glove else os.path.abspath(glove)
    elif system.vectors is not None:
        vectors, facts = _learn(system.vectors, seed, folder, console, where)
        if system.train is None:
            return Run(seed, facts["seconds"], facts)
    out = folder / "runs" / system.name / f"seed{seed}"
    corpus = str(folder / _PHRASES_FILE) if system.phrases else systems.CORPUS
    given: dict[str, Any] = {"corpus": corpus, "out": str(out), "seed": seed, "embedding": vectors, "report": False}
    metrics = train(TrainSettings(**given, **system.train or {}, **where), console)
    return Run(seed, sum(epoch["seconds"] for epoch in _read(out / HISTORY_FILE)), metrics)


def _learn(recipe: str, seed: int, folder: Path, console: Console, where: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The file of a recipe's vectors, and what `embed` found."""
    file = folder / "vectors" / f"{recipe}-seed{seed}.txt"
    found = Path(f"{file}.facts.json")
    options = systems.RECIPES[recipe]
    if found.exists():
        before = _read(Path(f"{file}.{SETTINGS_FILE}"))
        if any(before.get(name) != value for name, value in options.items()):
            raise SentrayError(f"{file} was learnt with other settings; choose another --out, or remove {found}")
        console.say(f"{file} is there already")
    else:
        settings = EmbedSettings(corpus=systems.CORPUS, out=str(file), seed=seed, **options, **where)
        write_text(str(found), json.dumps(embed(settings, console), indent=1) + "\n")
    return str(file), _read(found)


def _check_glove(file: str) -> None:
    """Refuse a file that cannot be used before anything is trained."""
    dimensions = dimensions_of(file)
    if dimensions != systems.GLOVE_DIMENSIONS:
        raise SentrayError(
            f"--glove {file} has vectors of {dimensions} dimensions; the tutorials' systems take those of "
            f"{systems.GLOVE_DIMENSIONS}, as in glove.6B.100d.txt"
        )


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
