"""`sentray bench score`: the whole job and the baselines, on the same texts."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sentray import cluster
from sentray.bench import processes, reviews
from sentray.bench.baselines import BASELINES, measure
from sentray.bench.settings import BenchScoreSettings
from sentray.bench.tables import Rows, show, with_ratios
from sentray.config import ScoreSettings, TrainSettings
from sentray.console import Console, count
from sentray.errors import SentrayError
from sentray.scoring.job import score
from sentray.training.run import train

WORKERS = (1, 2)
SAMPLE_ROWS = 20_000
"""Reviews that the baselines are measured with; they are the first of those of the whole job."""
OURS = "sentray: whole job, Parquet to Parquet"


def bench_score(settings: BenchScoreSettings, console: Console) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The figures; `mb` are UTF-8 megabytes of text, and what was not measured is missing.

    Raises:
        SentrayError: the reviews or the bundle cannot be used.
    """
    processes.require_own_ray()
    with tempfile.TemporaryDirectory(prefix="sentray-bench-") as scratch:
        folder, corpus = Path(scratch), reviews.corpus()
        labelled, sample, table = folder / "labelled.parquet", folder / "sample.parquet", reviews.labelled(corpus)
        pq.write_table(table, labelled)

        def made(rows: int) -> str:
            console.progress(f"making {rows:,} reviews")
            reviews.write_reviews(table["text"], folder / f"reviews-{rows}", rows, settings.seed)
            # Else the system would write them to the disk while they are scored.
            os.sync()
            return str(folder / f"reviews-{rows}")

        source = settings.reviews or made(settings.rows)
        texts = pa.concat_tables(reviews.good_rows(source, SAMPLE_ROWS)).select(["text"])
        pq.write_table(texts, sample)
        mb_per_row = texts.nbytes / 1e6 / len(texts)
        model = settings.bundle or str(folder / "model")
        if settings.bundle is None:
            console.progress(f"training a model on {corpus}")
            common: dict[str, Any] = {"test_fraction": 0.1, "validation_fraction": 0}
            train(TrainSettings(corpus=str(labelled), out=model, seed=settings.seed, **common), Console())

        def job(source: str, workers: int) -> dict[str, Any]:
            console.progress(f"the whole job, {count(workers, 'worker')}")
            found = _job(model, source, folder / "scored", workers, settings.verbose)
            return {**found, "mb_per_s": found["rows_per_s"] * mb_per_row}

        found = _baselines(labelled, sample, model, console)
        jobs = {f"{count(workers, 'worker')} on as many cores": job(source, workers) for workers in WORKERS}
        for part in (100, 10, 1) if settings.memory_rows else ():
            rows = max(settings.memory_rows // part, 1)
            source = made(rows)
            jobs[f"2 workers, {rows:,} reviews"] = job(source, WORKERS[-1])
            shutil.rmtree(source)
    found[OURS] = {"rows_per_s": next(iter(jobs.values()))["rows_per_s"]}
    tables = {
        "whole job, Parquet to Parquet through Ray": with_ratios(jobs, "rows_per_s"),
        "the same texts, one core": with_ratios(found, "rows_per_s"),
    }
    show(console, tables)
    console.say()
    console.say(f"reviews of {1000 * mb_per_row:.1f} kB; accuracy on the test rows of {corpus}")
    return {"corpus": corpus, "cores": len(os.sched_getaffinity(0)), "kb_per_row": 1000 * mb_per_row, **tables}


def _baselines(labelled: Path, sample: Path, model: str, console: Console) -> Rows:
    """Each baseline in a process of its own, on one core; one that cannot be measured is named."""
    found: Rows = {}
    for title, baseline in BASELINES.items():
        console.progress(f"{title}, one core")
        try:
            with processes.on_cores(1):
                found[title] = processes.run(title, measure, baseline, labelled, sample, model)
        except SentrayError as error:
            console.say(f"{error}; left out (the baselines come with pip install 'sentray[bench]')")
    return found


def _job(model: str, source: str, out: Path, workers: int, verbose: bool) -> dict[str, Any]:
    """A whole job with Ray and all on as many cores as there are workers, so that a core is a core."""
    settings = ScoreSettings(bundle=model, input=source, out=str(out), workers=workers, verbose=verbose)
    began = time.perf_counter()
    with processes.on_cores(workers), cluster.connect(None, cpus=workers, verbose=verbose):
        ray_seconds = time.perf_counter() - began
        summary = score(settings, Console())
    shutil.rmtree(out)
    shown = {name: summary[name] for name in ("rows", "rows_per_s", "peak_rss_mb", "start_workers_seconds")}
    return {**shown, "start_ray_seconds": ray_seconds}
