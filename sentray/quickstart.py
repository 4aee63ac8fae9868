"""`sentray quickstart`: everything on a small corpus, from reviews to a bundle and scored Parquet."""

import textwrap
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import cluster, nltk_data, tables
from sentray.cluster import WorkerRange
from sentray.config import CorpusSettings, QuickstartSettings, ScoreSettings, TrainSettings
from sentray.console import Console, count, duration
from sentray.corpus.dataset import Corpus
from sentray.errors import SentrayError
from sentray.scoring.job import score
from sentray.training.run import train

OURS, TUTORIALS = "wide-deep", "tutorial-cnn"
REAL, EMBEDDED = "nltk:movie_reviews", "synthetic:4000"
TEST_FRACTION = 0.1
"""Share of the reviews to test on, where the corpus has no split of its own."""


def quickstart(settings: QuickstartSettings, console: Console) -> None:
    """Train, evaluate and score; steps that an earlier quickstart in the same folder finished are not repeated.

    Raises:
        SentrayError: the corpus cannot be used, or the folder holds the results of another one.
    """
    started = time.perf_counter()
    if "://" in settings.out:
        raise SentrayError(f"--out {settings.out} is no folder; name a folder, which may be copied afterwards")
    out = Path(settings.out)
    corpus = settings.corpus or _choose(console)
    workers = settings.workers or 1
    common: dict[str, Any] = {
        **{"corpus": corpus, "test_fraction": TEST_FRACTION, "epochs": settings.epochs, "seed": settings.seed},
        **{"workers": WorkerRange(min=workers, max=workers), "verbose": settings.verbose},
    }
    ours = TrainSettings(out=f"{out}/bundle", model=OURS, **common)
    tutorials = TrainSettings(out=f"{out}/{TUTORIALS}", model=TUTORIALS, validation_fraction=0, **common)
    score_settings = ScoreSettings(
        bundle=ours.out, input=corpus, out=f"{out}/scored", workers=settings.workers, verbose=settings.verbose
    )
    with cluster.connect(settings.address, verbose=settings.verbose):
        console.say(f"1. Train and test sentray's own network, {OURS}")
        metrics = train(ours, console)
        console.say()
        console.say(f"2. Train and test the tutorial's, {TUTORIALS}, on the same reviews")
        beside = train(tutorials, console)
        console.say()
        console.say("3. Score with the first")
        summary = score(score_settings, console)
    console.say()
    console.say("4. Result")
    console.panel(
        [
            f"bundle          {out}/bundle",
            f"scores          {out}/scored/scores (Parquet)",
            f"to look at      {out}/bundle/report.html, {out}/scored/report.html",
            f"scoring         {summary['rows_per_s']:,.0f} reviews/s with {count(summary['workers'], 'worker')}, "
            f"after {summary['start_seconds']:.0f} s to start",
        ]
    )
    console.say()
    if metrics["test_accuracy"] is not None:
        header = [f"{metrics['test_rows']:,} test reviews", "accuracy", "95 %", "calibration error"]
        console.table(header, [_row(OURS, metrics), _row(TUTORIALS, beside)])
        console.say()
        tables.confusion_matrix(console, metrics["test"]["labels"], metrics["test"]["confusion_matrix"])
        console.say()
    _show_reviews(score_settings, console)
    console.say()
    console.say(f"all in {duration(time.perf_counter() - started)}; for reviews of your own, one a line:")
    console.say(f"  sentray predict {out}/bundle - < reviews.txt")


def _row(model: str, metrics: dict[str, Any]) -> list[Any]:
    test = metrics["test"]
    return [model, test["accuracy"], "{:.4f} to {:.4f}".format(*test["intervals"]["accuracy"]), test["ece"]]


def _choose(console: Console) -> str:
    if nltk_data.find("corpora/movie_reviews") is not None:
        console.say(f"corpus: {REAL}, Pang and Lee's 2,000 film reviews, as NLTK has them")
        return REAL
    console.say(
        f"corpus: {EMBEDDED}, made up, because NLTK's movie_reviews cannot be had here; for real reviews: "
        "python -m nltk.downloader movie_reviews"
    )
    return EMBEDDED


def _show_reviews(settings: ScoreSettings, console: Console) -> None:
    """A review of each label that training did not see, with its score from the Parquet."""
    examples = _examples(Corpus.open(settings.input, CorpusSettings(test_fraction=TEST_FRACTION), need_label=False))
    # A corpus may have been split into training reviews alone.
    if not examples:
        return
    scores = pq.read_table(
        f"{settings.out}/scores", columns=["id", "label", "score"], filters=pc.field("id").isin(list(examples))
    )
    rows = []
    for row in scores.to_pylist():
        review = examples[row["id"]]
        text = textwrap.shorten(review["text"], 60, placeholder="…")
        rows.append([row["id"], review["label"] or "", row["label"], row["score"], text])
    console.table(["review", "is", "scored", "score", "text"], rows)


def _examples(corpus: Corpus) -> dict[str, dict[str, Any]]:
    """A test review of each label of the first shard in which there are two, by id."""
    by_label: dict[str | None, dict[str, Any]] = {}
    for shard in corpus.shards:
        for table in corpus.read(shard):
            rows = table.filter(pc.and_(pc.is_null(table["reason"]), pc.equal(table["split"], "test")))
            for row in rows.select(["id", "text", "label"]).to_pylist():
                by_label.setdefault(row["label"], row)
        if len(by_label) > 1:
            break
    return {row["id"]: row for row in by_label.values()}
