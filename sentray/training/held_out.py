"""Held-out rows to be looked at: `evidence_of` finds in the corpus what training kept of them as numbers alone."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sentray.bundle import Bundle
from sentray.config import TrainSettings
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.identity import hashes_of
from sentray.corpus.rows import Hashes
from sentray.corpus.vocab import training_rows
from sentray.errors import SentrayError
from sentray.report.evidence import MAX_TEXT, Evidence, chosen, column_of, evidence_schema, margin
from sentray.text.encoding import Encoder
from sentray.training.training_set import held_out_hashes

VALIDATION = "validation"
_LOOKED_UP = ("id", "words", "known", "text")
_FOUND = pa.schema([pa.field("position", pa.int64()), *map(evidence_schema("classification").field, _LOOKED_UP)])


def evidence_of(
    prepared: str,
    truth: NDArray[Any],
    probabilities: NDArray[np.float32],
    trained: Bundle,
    settings: TrainSettings,
) -> Evidence:
    """The held-out rows with their ids and, of those to be shown, their texts; reads the corpus once more.

    Args:
        prepared: Folder of the training set.
        truth: What is true of the rows, as the training set has it, in its order.
        probabilities: By fits that did not see the rows, float32 [rows, labels].
        trained: The bundle.
        settings: Of the run.

    Raises:
        SentrayError: The training set has no hashes, or the corpus has other rows than when it was made.
    """
    positions, hashes = held_out_hashes(prepared)
    sampled, shown = chosen(hashes, margin(probabilities, truth))
    kept = np.flatnonzero(sampled | shown)
    splits = ("train", "validation") if settings.validation_fraction else ("train",)
    corpus, found, before = Corpus.open(settings.corpus, settings), [_FOUND.empty_table()], 0
    wanted: dict[str, Any] = {
        "splits": splits,
        "encoder": Encoder(trained.spec.cleaning, trained.vocabulary),
        "wanted": np.unique(hashes[kept]),
        "shown": np.unique(hashes[shown]) if settings.excerpts else hashes[:0],
    }
    for tables in corpus.map_blocks(look_up, **wanted):
        rows = tables["found"]
        found.append(rows.set_column(0, _FOUND.field(0), pc.add(rows["position"], before)))
        before += tables["rows"]["rows"][0].as_py()
    rows = pa.concat_tables(found)
    at = pc.index_in(pa.array(positions[kept]), rows["position"].combine_chunks())
    if at.null_count:
        raise SentrayError(f"{settings.corpus} has other rows than when it was prepared")
    rows = rows.take(at)
    columns = {
        "hash": hashes[kept],
        "truth": column_of(truth[kept]),
        "probabilities": column_of(probabilities[kept]),
        "sampled": sampled[kept],
        "text": pc.if_else(pa.array(shown[kept]), rows["text"], None),
    }
    every = {**{name: rows[name] for name in _LOOKED_UP}, **columns}
    schema = evidence_schema(trained.spec.task)
    return Evidence(pa.table([every[name] for name in schema.names], schema), VALIDATION, len(truth))


def look_up(rows: pa.Table, splits: tuple[str, ...], encoder: Encoder, wanted: Hashes, shown: Hashes) -> Tables:
    """A stage: the training rows whose texts are wanted, by their positions among all of the block, which has `rows`.

    Args:
        rows: A table of `ROW_SCHEMA`.
        splits: Of training rows.
        encoder: Counts words.
        wanted: Hashes of texts.
        shown: Those of texts to give.
    """
    training = training_rows(rows, splits)
    hashes = hashes_of(training)
    positions = np.flatnonzero(np.isin(hashes, wanted))
    mine = training.take(positions)
    encoded = encoder.encode(mine["text"])
    texts = pc.utf8_slice_codeunits(mine["text"], 0, MAX_TEXT)
    texts = pc.if_else(pa.array(np.isin(hashes[positions], shown)), texts, None)
    found = pa.table([positions, mine["id"], encoded.words, encoded.known, texts], _FOUND)
    return {"found": found, "rows": pa.table({"rows": [len(training)]})}
