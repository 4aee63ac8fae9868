"""With `--explain` a worker writes the words that moved each score beside it, and nothing else changes."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sentray.bundle import Bundle
from sentray.config import ScoreSettings
from sentray.corpus.source import resolve
from sentray.corpus.splits import plan_shards
from sentray.inference.heaviest import Heaviest
from sentray.inference.scorer import Scorer
from sentray.scoring.columns import output_schema
from sentray.scoring.worker import Job, ShardScorer, Task


def test_words_are_written_beside_scores(small_bundle: Bundle, reviews: Path, out: Path) -> None:
    source, found = resolve(str(reviews)), dict[int | None, pa.Table]()
    (task,) = (Task(shard) for shard in plan_shards(source, 1_000_000))
    for count in (None, 3):
        settings = ScoreSettings(bundle="", input=str(reviews), out=str(out), keep=("text",), explain=count)
        schema = output_schema(
            small_bundle.labels, pa.schema([("text", pa.string())]), small_bundle.digest, explained=count is not None
        )
        job = Job(source, settings, schema, "folded", small_bundle.digest, {"text": "text"})
        name = ShardScorer(job, small_bundle.scoring_files).score(task).names[0]
        found[count] = pq.read_table(out / name)
        assert [(field.name, str(field.type)) for field in found[count].schema] == [
            (field.name, str(field.type)) for field in schema
        ]
    explained = found[3]["explained"].combine_chunks()
    assert found[3].drop_columns("explained").equals(found[None])
    assert explained.to_pylist() == Heaviest(Scorer(small_bundle), 3).score(found[3]["text"])[1].to_pylist()
    assert set(map(len, explained.to_pylist())) <= {0, 1, 2, 3}
    assert len(explained.flatten()) > 300
