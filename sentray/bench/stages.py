"""What scoring spends its time on: read, encode, network, write, one after the other in one process.

It is run as a process of its own: `python -m sentray.bench.stages BUNDLE REVIEWS ROWS LABELLED`, and prints one JSON
object.
"""

import json
import sys
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

from sentray import bundle
from sentray.config import ScoreSettings
from sentray.corpus.dataset import Corpus
from sentray.inference.scorer import Scorer, Scores
from sentray.scoring.columns import output_schema, own_columns
from sentray.scoring.output import parquet_options

STAGES = ("read", "encode", "network", "write")


class _Clock:
    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - began


def main(source: str, reviews: str, max_rows: int, labelled: str) -> dict[str, Any]:
    """Score reviews stage by stage.

    Args:
        source: folder of the bundle.
        reviews: URI of the reviews.
        max_rows: no further shard is read after so many rows.
        labelled: Parquet file with `text`, `label` and `split`, whose test rows tell the accuracy.

    Returns:
        `rows`, UTF-8 `bytes` of their texts, `seconds` by stage, `engine`, `accuracy`.
    """
    model = bundle.load(source)
    scorer = Scorer(model, threads=1)
    accuracy = _accuracy(scorer, labelled)
    settings = ScoreSettings(bundle=source, input=reviews, out="")
    corpus = Corpus.plan(reviews, settings, need_label=False)
    schema = output_schema(model.labels, pa.schema([]), model.digest)
    clock, rows, size = _Clock(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for shard in corpus.shards:
            if rows >= max_rows:
                break
            scored, tables = [], corpus.read(shard)
            while (table := _next(tables, clock)) is not None:
                with clock("encode"):
                    encoded = scorer.encoder.encode(table["text"])
                with clock("network"):
                    scores = Scores(scorer.engine.scores(encoded), encoded.words, encoded.known)
                with clock("write"):
                    scored.append(pa.table(own_columns(table["id"], scores, model.labels), schema=schema))
                rows, size = rows + table.num_rows, size + (pc.sum(pc.binary_length(table["text"])).as_py() or 0)
            with clock("write"):
                pq.write_table(pa.concat_tables(scored), Path(folder, "part.parquet"), **parquet_options(schema))
    return {
        "rows": rows,
        "bytes": size,
        "seconds": clock.seconds,
        "engine": scorer.engine.name,
        "accuracy": accuracy,
    }


def _next(tables: Iterator[pa.Table], clock: _Clock) -> pa.Table | None:
    """The good rows of the next table."""
    with clock("read"):
        table = next(tables, None)
        if table is None or table["reason"].null_count == table.num_rows:
            return table
        return table.filter(table["reason"].is_null())


def _accuracy(scorer: Scorer, labelled: str) -> float | None:
    """Share of the test rows that are labelled right; None where the bundle has other labels."""
    rows = pq.read_table(labelled, filters=pc.field("split") == "test")
    wanted = pc.index_in(rows["label"], pa.array(scorer.bundle.labels))
    if wanted.null_count:
        return None
    return float(np.mean(scorer.score(rows["text"]).classes == wanted.to_numpy()))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])))
