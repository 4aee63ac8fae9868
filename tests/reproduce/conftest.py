"""Rows of a table as runs would give them."""

from typing import Any

import pytest

from sentray.reproduce.systems import System
from sentray.reproduce.table import Row, Run

CNN = System("cnn", "a network", "84.5 % test", 0.845, {"model": "tutorial-cnn"})
VECTORS = System("vectors", "the vectors", "58,109 lines", train=None, vectors="word2vec")
PHRASES = System("phrases", "ten | phrases", "100 % in training", 1.0, phrases=True)
OWN = System("own", "ours", "-")


def metrics(accuracy: float | None, **more: Any) -> dict[str, Any]:
    return {"test_accuracy": accuracy, "train_accuracy": 0.75, "restarts": 1, **more}


@pytest.fixture
def rows() -> list[Row]:
    covered = {"embedding": {"words": 1000, "words_found": 217}}
    facts = [{"lines": 58109, "kept": 25767, "mean_norm": norm} for norm in (0.78, 0.8)]
    return [
        Row(CNN, (Run(0, 10.0, metrics(0.8)), Run(1, 20.0, metrics(0.9)), Run(2, None, {}, "no words left"))),
        Row(VECTORS, tuple(Run(seed, 5.0, each) for seed, each in enumerate(facts))),
        Row(PHRASES, (Run(0, 1.0, metrics(None, **covered)),)),
        Row(OWN, (Run(0, None, {}, "it broke\nin two"),)),
    ]
