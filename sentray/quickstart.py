"""`sentray quickstart`: everything on a small corpus, from reviews to a bundle and scored Parquet."""

import json
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from sentray import bundle, cluster, nltk_data, tables
from sentray.cluster import WorkerRange
from sentray.config import CorpusSettings, QuickstartSettings, ScoreSettings, TrainSettings
from sentray.console import Console, count, duration
from sentray.corpus.dataset import Corpus
from sentray.errors import SentrayError
from sentray.scoring.job import score
from sentray.training.run import METRICS_FILE, train

REAL, EMBEDDED = "nltk:movie_reviews", "synthetic:4000"

EXCERPT = 60
"""Characters of a review that are shown."""


def quickstart(settings: QuickstartSettings, console: Console) -> None:
    """Train, evaluate and score; steps that an earlier quickstart in the same folder finished are not repeated.

    Raises:
        SentrayError: the corpus cannot be used, or the folder holds the results of another one.
    """
    started = time.perf_counter()
    if "://" in settings.out:
        raise SentrayError(f"--out {settings.out} is no folder; name a folder, which may be copied afterwards")
    corpus = settings.corpus or _choose(console)
    folder = Path(settings.out)
    with cluster.connect(settings.address, verbose=settings.verbose):
        console.say()
        console.say("1. Train and evaluate")
        metrics = _train(settings, corpus, folder / "bundle", console)
        console.say()
        console.say("2. Score")
        score_settings = ScoreSettings(
            bundle=str(folder / "bundle"),
            input=corpus,
            out=str(folder / "scored"),
            workers=settings.workers,
            verbose=settings.verbose,
        )
        summary = score(score_settings, console)
    console.say()
    console.say("3. Result")
    _show(metrics, summary, folder, console)
    console.say()
    _show_reviews(score_settings, console)
    console.say()
    console.say(f"all in {duration(time.perf_counter() - started)}; for reviews of your own, one a line:")
    console.say(f"  sentray predict {folder / 'bundle'} - < reviews.txt")


def _choose(console: Console) -> str:
    if nltk_data.find("corpora/movie_reviews") is not None:
        console.say(f"corpus: {REAL}, Pang and Lee's 2,000 film reviews, as NLTK has them")
        return REAL
    console.say(
        f"corpus: {EMBEDDED}, made up, because NLTK's movie_reviews cannot be had here; for real reviews: "
        "python -m nltk.downloader movie_reviews"
    )
    return EMBEDDED


def _train(settings: QuickstartSettings, corpus: str, out: Path, console: Console) -> dict[str, Any]:
    if (out / bundle.MANIFEST).exists():
        before = bundle.load(out).settings["corpus"]
        if before != corpus:
            raise SentrayError(f"{out} was trained on {before}, not on {corpus}; choose another --out, or remove it")
        console.say(f"{out} is there already; remove {out.parent} to train anew")
        metrics: dict[str, Any] = json.loads((out / METRICS_FILE).read_text(encoding="utf-8"))
        return metrics
    workers = settings.workers or 1
    return train(
        TrainSettings(
            corpus=corpus,
            out=str(out),
            # The tutorial's rules drop "not" with the stop words, which does little harm on its own corpus.
            cleaning="tutorial" if corpus == REAL else "reviews",
            epochs=settings.epochs,
            seed=settings.seed,
            workers=WorkerRange(min=workers, max=workers),
            verbose=settings.verbose,
        ),
        console,
    )


def _show(metrics: dict[str, Any], summary: dict[str, Any], folder: Path, console: Console) -> None:
    console.say(f"bundle          {folder / 'bundle'}")
    console.say(f"scores          {folder / 'scored' / 'scores'} (Parquet)")
    console.say(
        f"scoring         {summary['rows_per_s']:,.0f} reviews/s with {count(summary['workers'], 'worker')}, "
        f"after {summary['start_seconds']:.0f} s to start"
    )
    if metrics["test_accuracy"] is None:
        return
    console.say(f"test accuracy   {metrics['test_accuracy']:.4f} on {metrics['test_rows']:,} reviews")
    console.say()
    tables.confusion_matrix(console, metrics["test"]["labels"], metrics["test"]["confusion_matrix"])


def _show_reviews(settings: ScoreSettings, console: Console) -> None:
    """Three reviews that training did not see, with their scores from the Parquet."""
    examples = _examples(Corpus.open(settings.input, CorpusSettings(), need_label=False))
    scores = pq.read_table(
        f"{settings.out}/scores",
        columns=["id", "label", "score"],
        filters=pc.field("id").isin(list(examples)),
    )
    rows = [
        [row["id"], examples[row["id"]]["label"] or "", row["label"], row["score"], examples[row["id"]]["text"]]
        for row in scores.to_pylist()
    ]
    console.table(["review", "is", "scored", "score", "text"], rows)


def _examples(corpus: Corpus, count: int = 3) -> dict[str, dict[str, Any]]:
    """Id, text excerpt and label of some test reviews by id: one of each label in turn, as far as there are any."""
    by_label: dict[str | None, list[dict[str, Any]]] = {}
    for shard in corpus.shards:
        for table in corpus.read(shard):
            rows = table.filter(pc.and_(pc.is_null(table["reason"]), pc.equal(table["split"], "test")))
            for row in rows.select(["id", "text", "label"]).to_pylist():
                by_label.setdefault(row["label"], []).append(row)
        if len(by_label) > 1 and all(len(found) >= count for found in by_label.values()):
            break
    in_turn = [found[turn] for turn in range(count) for found in by_label.values() if turn < len(found)]
    return {row["id"]: row | {"text": _excerpt(row["text"])} for row in in_turn[:count]}


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= EXCERPT else f"{line[: EXCERPT - 1]}…"
