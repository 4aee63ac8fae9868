"""A bundle with rows that it was measured on, some of them hostile."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sentray import bundle
from sentray.report.evidence import Evidence, column_of, evidence_schema, thin
from sentray.report.subject import Subject

HOSTILE = (
    "<script>console.error('ran')</script> a bad film",
    "\u202ered\u2066 eht \u200fnrut\u0000 \x1b[31ma good film",
    "w" * 100_000,
    '" onmouseover="fetch(\'http://127.0.0.1:9/\')" <img src=http://127.0.0.1:9/x.png> </span></p></main>',
    "{{ 7 * 7 }} {% raw %} &lt; &amp; ]]> <!--",
)


def rows(number: int, labels: int = 2, seed: int = 0, texts: bool = True) -> pa.Table:
    """Rows of which about every seventh is scored wrongly, thinned."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, labels, number).astype(np.int32)
    logits = chance.normal(0, 1, (number, labels)) + 2.5 * np.eye(labels)[truth]
    chances = np.exp(logits)
    chances = (chances / chances.sum(1, keepdims=True)).astype(np.float32)
    # The hostile ones are the surest mistakes.
    for at in range(min(len(HOSTILE), number)):
        chances[at] = np.where(np.arange(labels) == truth[at], 0.001, 0.999 / (labels - 1))
    written = [HOSTILE[at] if at < len(HOSTILE) else f"a good and bad film {at}" for at in range(number)]
    columns: dict[str, Any] = {
        "id": [f"<b>{at}</b>\u202e" if at == 0 else f"row {at}" for at in range(number)],
        "hash": chance.integers(0, 2**63, number).astype(np.uint64),
        "truth": truth,
        "probabilities": column_of(chances),
        "words": chance.integers(1, 400, number).astype(np.int32),
        "known": chance.integers(1, 300, number).astype(np.int32),
        "sampled": pa.nulls(number, pa.bool_()),
        "text": pa.array(written if texts else [None] * number, pa.large_string()),
    }
    return thin(pa.table(columns, evidence_schema("classification")))


HISTORY = [
    {
        **{"fit": fit, "epoch": epoch, "loss": 1 / epoch, "accuracy": 1 - 0.5 / epoch, "rows_seen": 160},
        **{"started_at": 1.7e9 + 10 * epoch, "seconds": 9.0},
        **(
            {"held_out": {"wide": 0.5, "deep": 0.6}, "held_out_accuracy": {"wide": 0.8, "deep": 0.7}} if fit < 2 else {}
        ),
    }
    for fit in range(3)
    for epoch in range(1, 4)
]


@pytest.fixture
def subject() -> Subject:
    model = bundle.load(Path(__file__).parents[1] / "data" / "format-4")
    about = {"seconds": {"training": 42.0}, "bundle": model.digest}
    return Subject(model, "stars", HISTORY, Evidence(rows(300), "validation", 300, about))
