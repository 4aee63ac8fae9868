"""`sentray bench score`: the whole job and the baselines, on the same texts: long ones and single sentences."""

import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import cluster
from sentray.bench import processes, reviews
from sentray.bench.baselines import BASELINES, Train, measure, sentray
from sentray.bench.settings import BenchScoreSettings
from sentray.bench.tables import Rows, show, with_ratios
from sentray.config import ScoreSettings, TrainSettings
from sentray.console import Console, count
from sentray.errors import SentrayError
from sentray.scoring.job import score
from sentray.training.run import train

WORKERS = (1, 2)
SAMPLE_ROWS = {"reviews": 20_000, "sentences": 400_000}
"""Texts that the baselines are measured with; they are the first of those of the whole job."""
NETWORKS = ("tutorial-cnn", "wide-deep")
GIVEN = "the bundle"
EXPLAINED = 5
"""Words of each text that are named as those that moved its score most."""


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
        labelled, table = folder / "labelled.parquet", reviews.labelled(corpus)
        pq.write_table(table, labelled)
        test_rows = pc.sum(pc.equal(table["split"], "test")).as_py()

        def made(kind: str, rows: int) -> str:
            console.progress(f"making {rows:,} {kind}")
            out = folder / f"{kind}-{rows}"
            reviews.write_reviews(table["text"], out, rows, settings.seed, single=kind == "sentences")
            # Else the system would write them to the disk while they are scored.
            os.sync()
            return str(out)

        def bundle_of(network: str) -> str:
            console.progress(f"training {network} on {corpus}")
            out = str(folder / network)
            common: dict[str, Any] = {"corpus": str(labelled), "out": out, "model": network, "seed": settings.seed}
            common |= {"report": False}
            if network != NETWORKS[-1]:
                # The tutorial trains on all rows for a fixed number of epochs.
                common |= {"validation_fraction": 0, "cleaning": "tutorial"}
            train(TrainSettings(**common), Console())
            return out

        sources = {"reviews": settings.reviews or made("reviews", settings.rows)}
        if settings.reviews is None:
            sources["sentences"] = made("sentences", settings.sentences)
        samples = {kind: folder / f"sample-{kind}.parquet" for kind in sources}
        kilobytes = {
            kind: _write_sample(source, SAMPLE_ROWS[kind], samples[kind]) / 1000 for kind, source in sources.items()
        }
        models = {GIVEN: settings.bundle} if settings.bundle else {name: bundle_of(name) for name in NETWORKS}
        alone = _alone(labelled, samples, models, console)
        tables: dict[str, Rows] = {}
        for kind, source in sources.items():
            jobs: Rows = {}
            for name, model in models.items():
                for workers in WORKERS:
                    title = f"{name}, {count(workers, 'worker')} on as many cores"
                    console.progress(f"{kind}: {title}")
                    found = _job(model, source, folder / "scored", workers, settings.verbose)
                    jobs[title] = {**found, "mb_per_s": found["rows_per_s"] * kilobytes[kind] / 1000}
                    if workers == 1:
                        alone[f"sentray, {name}: whole job, Parquet to Parquet"] = {kind: found["rows_per_s"]}
            speeds = {
                title: {"rows_per_s": row[kind], **{name: row[name] for name in ("accuracy",) if name in row}}
                for title, row in alone.items()
                if kind in row
            }
            found_of_kind = {
                f"{kind}: whole job through Ray": with_ratios(jobs, "rows_per_s"),
                f"{kind} of {kilobytes[kind]:.2g} kB, one core": with_ratios(speeds, "rows_per_s"),
            }
            show(console, found_of_kind)
            tables |= found_of_kind
        memory: Rows = {}
        for part in (100, 10, 1) if settings.memory_rows else ():
            rows = max(settings.memory_rows // part, 1)
            source = made("reviews", rows)
            name, model = list(models.items())[-1]
            memory[f"{name}, {rows:,} reviews"] = _job(model, source, folder / "scored", 2, settings.verbose)
            shutil.rmtree(source)
        if memory:
            tables["memory of 2 workers"] = memory
            show(console, {"memory of 2 workers": memory})
    console.say()
    console.say(f"accuracy: on the {test_rows:,} test rows of {corpus}, of which nothing was trained on")
    return {
        "corpus": corpus,
        "accuracy_rows": test_rows,
        "cores": len(os.sched_getaffinity(0)),
        "kb_per_row": kilobytes,
        **tables,
    }


def _write_sample(source: str, rows: int, file: Path) -> float:
    """Write the first texts to a file; the bytes of one on average."""
    texts = pa.concat_tables(reviews.good_rows(source, rows)).select(["text"])
    pq.write_table(texts, file)
    return float(pc.mean(pc.binary_length(texts["text"])).as_py())


def _alone(labelled: Path, samples: dict[str, Path], models: dict[str, str], console: Console) -> Rows:
    """Each baseline and model in a process of its own, on one core; one that cannot be measured is named."""
    sources = list(models.values())
    # The first baseline is the tutorial's path; others may want the vectors of words.
    runs: list[tuple[str, Train, str]] = [
        (title, baseline, sources[-1 if number else 0]) for number, (title, baseline) in enumerate(BASELINES.items())
    ]
    runs += [(f"sentray, {name}: predict", sentray, model) for name, model in models.items()]
    explained = partial(sentray, explain=EXPLAINED)
    runs += [
        (f"sentray, {name}: predict, {EXPLAINED} words explained", explained, model) for name, model in models.items()
    ]
    found: Rows = {}
    for title, baseline, model in runs:
        console.progress(f"{title}, one core")
        try:
            with processes.on_cores(1):
                found[title] = processes.run(title, measure, baseline, labelled, samples, model)
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
