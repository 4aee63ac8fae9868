"""Scoring stage by stage: every row goes through every stage."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray.bench.stages import STAGES, main
from sentray.bundle import Bundle
from sentray.inference.scorer import Scorer


def test_counts_good_rows_and_times_all_stages(
    labelled: pa.Table, labelled_file: Path, small_bundle: Bundle, tmp_path: Path
) -> None:
    texts = [*labelled["text"].to_pylist(), None, "naïve"]
    for name in ("one", "two"):
        pq.write_table(pa.table({"text": texts}), tmp_path / f"{name}.parquet")
    found = main(str(small_bundle.path), str(tmp_path), 200, str(labelled_file))
    assert found["rows"] == 242
    assert found["bytes"] == 2 * sum(len(text.encode()) for text in texts if text)
    assert set(found["seconds"]) == set(STAGES)
    assert min(found["seconds"].values()) > 0
    test = labelled.slice(100)
    classes = Scorer(small_bundle).score(test["text"]).classes
    right = [small_bundle.labels[place] for place in classes] == test["label"].to_numpy()
    assert found["accuracy"] == pytest.approx(right.mean())
