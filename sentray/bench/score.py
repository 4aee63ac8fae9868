"""`sentray bench score`: the stages of scoring, the whole job, and the baselines, on the same texts."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import bundle, cluster
from sentray.bench import processes, reviews
from sentray.bench.baselines import BASELINES, Measured, measure
from sentray.bench.settings import BenchScoreSettings
from sentray.config import ScoreSettings, TrainSettings
from sentray.console import Console, count
from sentray.inference.scorer import Scorer, Scores
from sentray.scoring.columns import output_schema, own_columns
from sentray.scoring.job import score
from sentray.training.run import train

WORKERS = (1, 2)
STAGES = ("read", "encode", "network", "write")
SAMPLE_ROWS = 20_000
"""Reviews that the stages and the baselines are measured with; they are the first of those of the whole job."""
TOGETHER = "together"
STORED_BYTES = 2_000
"""Of a made review, with room for what is written beside it."""

Summary = dict[str, Any]
"""What a job says of itself, and `start_ray_seconds`."""


def bench_score(settings: BenchScoreSettings, console: Console) -> dict[str, Any]:
    """Measure and print.

    Returns:
        The figures with stable keys; `mb` are UTF-8 megabytes of text, and what was not measured is None.

    Raises:
        SentrayError: the reviews or the bundle cannot be used, or the disk is too small.
    """
    processes.require_own_ray()
    with tempfile.TemporaryDirectory(prefix="sentray-bench-") as scratch:
        folder, corpus = Path(scratch), reviews.corpus()
        labelled, sample, table = folder / "labelled.parquet", folder / "sample.parquet", reviews.labelled(corpus)
        pq.write_table(table, labelled)

        def made(rows: int) -> str:
            processes.require_room(scratch, rows * STORED_BYTES, f"{rows:,} reviews")
            console.progress(f"making {rows:,} reviews")
            reviews.write_reviews(table["text"], folder / f"reviews-{rows}", rows, settings.seed)
            # Else the system would write them to the disk while they are scored.
            os.sync()
            return str(folder / f"reviews-{rows}")

        source = settings.reviews or made(settings.rows)
        pq.write_table(reviews.first_texts(source, SAMPLE_ROWS), sample)
        model = settings.bundle or str(folder / "model")
        if settings.bundle is None:
            console.progress(f"training a model on {corpus}")
            train(TrainSettings(corpus=str(labelled), out=model, seed=settings.seed), Console())
        console.progress("stages of scoring, one core")
        with processes.on_cores(1):
            by_stage = processes.run("scoring stage by stage", stages, model, source, SAMPLE_ROWS, labelled)
        baselines = {}
        for baseline in BASELINES:
            console.progress(f"{baseline.title}, one core")
            baselines[baseline.key] = measure(baseline, labelled, sample, model)

        def job(source: str, workers: int) -> Summary:
            console.progress(f"the whole job, {count(workers, 'worker')}")
            return _job(model, source, folder / "scored", workers, settings.verbose)

        jobs = [job(source, workers) for workers in WORKERS]
        memory = []
        for part in (100, 10, 1) if settings.memory_rows else ():
            source = made(max(settings.memory_rows // part, 1))
            memory.append(job(source, WORKERS[-1]))
            shutil.rmtree(source)
    figures = {"corpus": corpus, "cores": len(os.sched_getaffinity(0))}
    figures |= _figures(by_stage, baselines, jobs, memory)
    _show(console, figures, jobs, baselines)
    return figures


def _job(model: str, source: str, out: Path, workers: int, verbose: bool) -> Summary:
    """A whole job with Ray and all on as many cores as there are workers, so that a core is a core."""
    settings = ScoreSettings(bundle=model, input=source, out=str(out), workers=workers, verbose=verbose)
    began = time.perf_counter()
    with processes.on_cores(workers), cluster.connect(None, cpus=workers, verbose=verbose):
        ray_seconds = time.perf_counter() - began
        summary = score(settings, Console())
    shutil.rmtree(out)
    return {**summary, "start_ray_seconds": ray_seconds}


def stages(source: str, uri: str, max_rows: int, labelled: Path) -> dict[str, Any]:
    """Score reviews in this process, one stage after the other.

    Args:
        source: folder of the bundle.
        uri: of the reviews.
        max_rows: no further shard is read after so many rows.
        labelled: parquet file with `text`, `label` and `split`, whose test rows give the accuracy.

    Returns:
        `rows`, UTF-8 `bytes` of their texts, `seconds` by stage, `engine`, `accuracy`.
    """
    scorer = Scorer(bundle.load(source), threads=1)
    labels = scorer.bundle.labels
    # Before the clock starts, since the first texts take longest.
    accuracy = _accuracy(scorer, labelled)
    schema = output_schema(labels, pa.schema([]), scorer.bundle.digest)
    seconds, rows, size = dict.fromkeys(STAGES, 0.0), 0, 0

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[stage] += time.perf_counter() - began

    with tempfile.TemporaryDirectory() as folder:
        for shard in reviews.shards(uri):
            if rows >= max_rows:
                break
            scored = []
            while True:
                with timed("read"):
                    table = next(shard, None)
                if table is None:
                    break
                with timed("encode"):
                    encoded = scorer.encoder.encode(table["text"])
                with timed("network"):
                    scores = Scores(scorer.engine.scores(encoded), encoded.words, encoded.known)
                with timed("write"):
                    scored.append(pa.table(own_columns(table["id"], scores, labels), schema=schema))
                rows, size = rows + table.num_rows, size + (pc.sum(pc.binary_length(table["text"])).as_py() or 0)
            with timed("write"):
                repeated = ["label", "words", "known_words"]
                file = Path(folder, "part.parquet")
                pq.write_table(pa.concat_tables(scored), file, compression="zstd", use_dictionary=repeated)
    return {"rows": rows, "bytes": size, "seconds": seconds, "engine": scorer.engine.name, "accuracy": accuracy}


def _accuracy(scorer: Scorer, labelled: Path) -> float | None:
    """Share of the test rows that are labelled right; None where the bundle has other labels."""
    rows = pq.read_table(labelled, filters=pc.field("split") == "test")
    wanted = pc.index_in(rows["label"], pa.array(scorer.bundle.labels))
    if wanted.null_count:
        return None
    return float(np.mean(scorer.score(rows["text"]).classes == wanted.to_numpy()))


def _figures(
    stages: dict[str, Any], baselines: dict[str, Measured], jobs: list[Summary], memory: list[Summary]
) -> dict[str, Any]:
    rows, size = stages["rows"], stages["bytes"] / 1e6
    one, two = jobs
    figures: dict[str, Any] = {
        "rows": one["rows"],
        "kb_per_row": 1000 * size / rows,
        "engine": stages["engine"],
        "rows_per_s_per_core": one["rows_per_s"],
        "rows_per_s_2_workers": two["rows_per_s"],
        "speedup_2_workers": two["rows_per_s"] / one["rows_per_s"],
        "peak_rss_mb": max(job["peak_rss_mb"] for job in jobs),
        "startup_ray_s": two["start_ray_seconds"],
        "startup_workers_s": two["start_workers_seconds"],
        "accuracy": stages["accuracy"],
    }
    for stage, seconds in (stages["seconds"] | {TOGETHER: sum(stages["seconds"].values())}).items():
        figures |= {f"{stage}_rows_per_s": rows / seconds, f"{stage}_mb_per_s": size / seconds}
    for key, baseline in baselines.items():
        figures[f"rows_per_s_{key}"] = baseline.rows_per_s
        figures[f"accuracy_{key}"] = baseline.accuracy
        figures[f"ratio_to_{key}"] = one["rows_per_s"] / baseline.rows_per_s if baseline.rows_per_s else None
    shown = ("rows", "rows_per_s", "peak_rss_mb")
    figures["memory"] = [{name: job[name] for name in shown} for job in memory]
    return figures


def _show(console: Console, figures: dict[str, Any], jobs: list[Summary], baselines: dict[str, Measured]) -> None:
    size = figures["kb_per_row"] / 1000
    console.table(
        [f"one process, one core, engine {figures['engine']}", "reviews/s", "MB/s"],
        [
            [stage, round(figures[f"{stage}_rows_per_s"]), round(figures[f"{stage}_mb_per_s"])]
            for stage in (*STAGES, TOGETHER)
        ],
    )
    console.say()
    runs = [(f"{count(workers, 'worker')} on as many cores", job) for workers, job in zip(WORKERS, jobs, strict=True)]
    runs += [(f"2 workers, {count(job['rows'], 'review')}", job) for job in figures["memory"]]
    console.table(
        ["whole job, Parquet to Parquet through Ray", "reviews/s", "MB/s", "ratio", "worker's peak MB"],
        [
            [
                name,
                round(job["rows_per_s"]),
                round(job["rows_per_s"] * size),
                job["rows_per_s"] / jobs[0]["rows_per_s"],
                round(job["peak_rss_mb"]),
            ]
            for name, job in runs
        ],
    )
    console.say()
    ours = Measured(figures["rows_per_s_per_core"], figures["accuracy"])
    measured = [(each.title, baselines[each.key], figures[f"ratio_to_{each.key}"]) for each in BASELINES]
    console.table(
        ["the same texts, one core", "reviews/s", "MB/s", "sentray is faster", "accuracy"],
        [
            [title, *_cells(found, size, ratio)]
            for title, found, ratio in [("sentray: whole job, Parquet to Parquet", ours, 1.0), *measured]
        ],
    )
    for title, found, _ in measured:
        if found.note:
            console.say(f"{title}: {found.note}")
    console.say()
    console.say(
        f"{figures['rows']:,} reviews of {figures['kb_per_row']:.1f} kB; accuracy on the test rows of "
        f"{figures['corpus']}; start-up apart: Ray {figures['startup_ray_s']:.1f} s, workers "
        f"{figures['startup_workers_s']:.1f} s"
    )


def _cells(found: Measured, size: float, ratio: float | None) -> list[str]:
    if found.rows_per_s is None:
        return ["-", "-", "-", "-"]
    accuracy = "-" if found.accuracy is None else f"{found.accuracy:.3f}"
    return [f"{found.rows_per_s:>9,.0f}", f"{found.rows_per_s * size:>6,.1f}", f"{ratio:>6.2f} times", accuracy]
