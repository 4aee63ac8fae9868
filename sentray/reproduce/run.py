"""`sentray reproduce`: train every system through the ordinary code, then the table and the picture.

Each run is a folder or file of its own below `--out`; one that is finished is not made again, so that a stopped
`reproduce` goes on when the same command is given again.
"""

import json
import os
import traceback
from pathlib import Path
from typing import Any

from sentray import bundle, cluster
from sentray.bench.settings import ReproduceSettings
from sentray.config import SETTINGS_FILE, Settings, settings_text
from sentray.console import Console, count
from sentray.embeddings.learn import embed
from sentray.embeddings.read import dimensions_of
from sentray.errors import SentrayError
from sentray.reproduce import picture, systems, table
from sentray.reproduce.systems import GLOVE, Recipe, System, write_phrases
from sentray.reproduce.table import Row, Run
from sentray.storage import write_text
from sentray.training.run import HISTORY_FILE, METRICS_FILE, RESUMABLE, train

TABLE_FILE, FIGURES_FILE, PICTURE_FILE = "reproduce.md", "reproduce.json", "reproduce.png"
_PHRASES_FILE = "phrases.jsonl"
_FACTS = ".facts.json"
"""Suffix of the file beside learnt vectors with what `embed` reports."""
_MAY_CHANGE = {"out", *RESUMABLE}
"""Settings that do not change what a finished run found."""


def reproduce(settings: ReproduceSettings, console: Console) -> list[Row]:
    """Train the systems, print the table, and write it with the picture into `settings.out`.

    Raises:
        SentrayError: a name or the GloVe file cannot be used, which is said at once; or a system failed, which is said
            when the others are done.
    """
    if "://" in settings.out:
        raise SentrayError(f"--out {settings.out} is no folder; name a folder, which may be copied afterwards")
    chosen, left_out = systems.choose(settings.only, settings.glove)
    if any(system.vectors == GLOVE for system in chosen):
        _check_glove(str(settings.glove))
    if not picture.available():
        console.note(picture.MISSING)
    folder = Path(settings.out).absolute()
    write_text(str(folder / SETTINGS_FILE), settings_text(settings))
    write_phrases(folder / _PHRASES_FILE)
    notes = table.notes(settings.seeds, left_out)
    rows: list[Row] = []
    with cluster.connect(settings.address, verbose=settings.verbose):
        runs = _Runs(settings, folder, console)
        for system in chosen:
            rows.append(Row(system, tuple(runs.attempt(system, seed) for seed in range(settings.seeds))))
            _write(folder, rows, notes)
    console.say()
    table.show(console, rows)
    for note in notes:
        console.say(note)
    drawn = picture.draw(rows, folder / PICTURE_FILE)
    files = [TABLE_FILE, FIGURES_FILE, *([PICTURE_FILE] if drawn else [])]
    console.say(f"written to {settings.out}: {', '.join(files)}")
    failed = [row.system.name for row in rows if len(row.done) < len(row.runs)]
    if failed:
        raise SentrayError(
            f"{count(len(failed), 'system')} of {len(rows)} failed ({', '.join(failed)}); the table in "
            f"{folder / TABLE_FILE} says why"
        )
    return rows


class _Runs:
    """Makes the runs of the systems, or finds them made.

    Args:
        settings: of `reproduce`.
        folder: where each run has a folder of its own.
        console: for what the runs say.
    """

    def __init__(self, settings: ReproduceSettings, folder: Path, console: Console) -> None:
        local = settings.glove is not None and "://" not in settings.glove
        self._glove = os.path.abspath(str(settings.glove)) if local else settings.glove
        self._folder, self._console = folder, console
        self._shared = {"address": settings.address, "verbose": settings.verbose}

    def attempt(self, system: System, seed: int) -> Run:
        """One system with one seed; a failure is reported and kept, so that the next system gets its turn."""
        self._console.say()
        self._console.say(f"{system.name}, seed {seed}")
        try:
            return self._run(system, seed)
        except Exception as error:
            mistake = cluster.user_error(error)
            if mistake is None:
                # Into the log, where there is one.
                traceback.print_exception(error)
            # Ray's text is a traceback, which ends with the sentence.
            last = next(reversed(str(error).strip().splitlines()), "")
            why = str(mistake or f"unexpected {type(error).__name__}: {last[:300]} (its traceback is in the log)")
            self._console.error(f"{system.name}, seed {seed}: {why}")
            return Run(seed, None, {}, why)

    def _run(self, system: System, seed: int) -> Run:
        vectors = self._glove if system.vectors == GLOVE else None
        if isinstance(system.vectors, Recipe):
            vectors, facts = self._learn(system.vectors, seed)
            if system.train is None:
                return Run(seed, facts["seconds"], facts)
        out = self._folder / "runs" / system.name / f"seed{seed}"
        corpus = str(self._folder / _PHRASES_FILE) if system.phrases else systems.CORPUS
        settings = system.settings(str(out), seed, corpus, vectors, **self._shared)
        if not self._is_done(out, out / bundle.MANIFEST, out / SETTINGS_FILE, settings):
            train(settings, self._console)
        history = _read(out / HISTORY_FILE)
        return Run(seed, sum(epoch["seconds"] for epoch in history), _read(out / METRICS_FILE))

    def _learn(self, recipe: Recipe, seed: int) -> tuple[str, dict[str, Any]]:
        """The file of a recipe's vectors, and what `embed` found."""
        file = self._folder / "vectors" / f"{recipe.name}-seed{seed}.txt"
        found = file.with_name(file.name + _FACTS)
        settings = recipe.settings(str(file), seed, **self._shared)
        if not self._is_done(file, found, file.with_name(f"{file.name}.{SETTINGS_FILE}"), settings):
            write_text(str(found), json.dumps(embed(settings, self._console), indent=1) + "\n")
        return str(file), _read(found)

    def _is_done(self, made: Path, last: Path, before: Path, settings: Settings) -> bool:
        """Whether a run is finished.

        Args:
            made: what it makes.
            last: what it writes last.
            before: the file of the settings that it was made with.
            settings: those that it would be made with now.

        Raises:
            SentrayError: it was made with others.
        """
        if not (made.exists() and last.exists()):
            return False
        old = _read(before)
        for key, value in json.loads(settings_text(settings)).items():
            if key not in _MAY_CHANGE and old.get(key) != value:
                raise SentrayError(
                    f"{before} tells of a run with --{key.replace('_', '-')} {old.get(key)}, not {value}; choose "
                    "another --out, or remove that run"
                )
        self._console.say(f"{made} is there already")
        return True


def _write(folder: Path, rows: list[Row], notes: list[str]) -> None:
    write_text(str(folder / TABLE_FILE), table.markdown(rows, notes))
    figures = {"systems": [row.to_dict() for row in rows], "notes": notes}
    write_text(str(folder / FIGURES_FILE), json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


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
