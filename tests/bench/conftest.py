"""A small labelled corpus and a bundle with random weights that knows its words."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentray import bundle, models
from sentray.bundle import Bundle, ModelSpec
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary

GOOD = ["a lovely film .\nwarm and witty .", "great fun , great cast .", "lovely , warm and great fun ."]
BAD = ["a dull film .\nflat and weak .", "dull plot , weak cast .", "flat , dull and a weak plot ."]


@pytest.fixture(scope="session")
def labelled() -> pa.Table:
    """120 reviews, every second one `pos`, the last 20 to test on."""
    texts = [(GOOD if row % 2 else BAD)[row // 2 % 3] for row in range(120)]
    return pa.table(
        {
            "text": texts,
            "label": [("neg", "pos")[row % 2] for row in range(120)],
            "split": ["train" if row < 100 else "test" for row in range(120)],
        }
    )


@pytest.fixture(scope="session")
def labelled_file(labelled: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("labelled") / "labelled.parquet"
    pq.write_table(labelled, file)
    return file


@pytest.fixture(scope="session")
def small_bundle(labelled: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    import keras

    words = sorted({word for text in labelled["text"].to_pylist() for word in text.split() if word.isalpha()})
    keras.utils.set_random_seed(0)
    spec = ModelSpec(
        architecture="tutorial-cnn.v1",
        cleaning=preset("tutorial", stop_words="none", min_token_length=1)[0],
        labels=("neg", "pos"),
        max_length=20,
    )
    network = models.keras_file(models.architecture("tutorial-cnn").build(len(words) + 1, 20, 2))
    made = bundle.make(spec, Vocabulary(words), {bundle.MODEL: network})
    return bundle.publish(made, str(tmp_path_factory.mktemp("bundle")))
