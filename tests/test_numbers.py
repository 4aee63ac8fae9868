"""Numbers beside the text: read, trained on, kept in the bundle, required and checked at scoring."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sentray
from sentray import bundle, models
from sentray.bundle import ModelSpec, Number
from sentray.errors import SentrayError
from sentray.inference import folding
from sentray.inference.scorer import Scorer, golden_texts
from sentray.models import DeepSpec
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary
from tests.conftest import WORDS, MakeReviews

NUMERIC = (Number(name="price", mean=10, scale=4), Number(name="a, b", mean=-1, scale=1e-3))


@pytest.mark.parametrize("architecture", ["deep.v1", "tutorial-cnn.v1"])
def test_both_engines_take_them(architecture: str, make_reviews: MakeReviews) -> None:
    words, texts = Vocabulary(WORDS), pa.array(make_reviews(30), pa.large_string())
    deep = DeepSpec(widths=(2, 3), filters=8, dimensions=5) if architecture == "deep.v1" else None
    model = models.architecture(architecture).build(words.size, 40, 3, deep=deep, numbers=2)
    chance = np.random.default_rng(0)
    for name in (models.EMBEDDING, models.OUTPUT):
        weights = [chance.normal(size=each.shape) for each in model.get_layer(name).get_weights()]
        # Padding has none.
        weights[0][0] *= name == models.OUTPUT
        model.get_layer(name).set_weights(weights)
    rules, about = preset("reviews")[0], {"max_length": 40, "deep": deep, "numeric": NUMERIC}
    spec = ModelSpec.of(words, architecture=architecture, cleaning=rules, labels=("a", "b", "c"), **about)
    made = bundle.make(spec, words, {bundle.MODEL: models.keras_file(model), **folding.fold(model)})
    made = bundle.update(made, golden=golden_texts(made, ["good film"]))
    numbers = np.column_stack([chance.normal(10, 4, 30), chance.normal(-1, 1e-3, 30)])
    keras, folded = (Scorer(made, engine) for engine in ("keras", "folded"))
    found = folded.score(texts, numbers).probabilities
    np.testing.assert_allclose(found, keras.score(texts, numbers).probabilities, atol=1e-5)
    # In another order, each text's own number goes with it.
    np.testing.assert_array_equal(
        folded.score(texts.take(pa.array(range(29, -1, -1))), numbers[::-1]).probabilities[::-1], found
    )
    assert np.abs(found - folded.score(texts, numbers + np.array([4, 0])).probabilities).max() > 0.01
    with pytest.raises(SentrayError, match="takes numbers besides the text \\(price, a, b\\), and none are given"):
        folded.score(texts)
    # As large as they may be, scores are numbers.
    assert np.isfinite(folded.score(texts, np.full((30, 2), 1e300)).probabilities).all()


@pytest.mark.usefixtures("ray_session")
def test_they_are_learnt_required_and_checked(tmp_path: Path, in_process: Any) -> None:
    chance = np.random.default_rng(0)
    price = chance.normal(100, 20, 400)
    rows = {
        "id": [f"r{number}" for number in range(400)],
        "text": [f"the {word} came" for word in chance.choice(["parcel", "box", "letter"], 400)],
        "label": np.where(price > 100, "dear", "cheap"),
        "price": price,
    }
    corpus = tmp_path / "reviews.parquet"
    pq.write_table(pa.table(rows), corpus)
    in_process()
    kept = {"epochs": 8, "validation_fraction": 0, "report": False, "learning_rate": 0.01}
    model = sentray.train(str(corpus), out=str(tmp_path / "model"), numeric="price", **kept)
    (number,) = model.spec.numeric
    assert (number.name, number.mean, number.scale) == (
        "price",
        pytest.approx(price.mean()),
        pytest.approx(price.std()),
    )
    # The text says nothing.
    assert (model.predict(rows["text"], rows) == rows["label"]).mean() > 0.9
    assert sentray.evaluate(model, str(corpus), split="all")["accuracy"] > 0.9
    values = ['"120"', "80.5", "null", '"many"', "NaN"]
    lines = [f'{{"text": "the box", "price": {value}}}\n' for value in values] + ['{"text": "the box"}\n']
    (tmp_path / "new.jsonl").write_text("".join(lines))
    summary = sentray.score(model, str(tmp_path / "new.jsonl"), out=str(tmp_path / "scored"), max_bad_rows=1)
    assert (summary["rows_scored"], summary["quarantined"]) == (2, {"invalid_number": 4})
    sentray.verify(str(tmp_path / "scored"), input=str(tmp_path / "new.jsonl"))
    details = pq.read_table(tmp_path / "scored" / "quarantine.parquet")["detail"].to_pylist()
    assert details == [
        "price has no number",
        "price 'many' is no number that can be used",
        *["price has no number"] * 2,
    ]
    batch = sentray.Predictor(model, keep=())(pa.table({"text": ["the box"] * 3, "price": [500, None, -500]}))
    assert batch["label"].to_pylist() == ["dear", None, "cheap"]
    (tmp_path / "none.csv").write_text("text\nthe box\n")
    for ask, sentence in (
        (lambda: sentray.score(model, str(tmp_path / "none.csv"), out=str(tmp_path / "no")), "has no column 'price'"),
        (lambda: model.predict(["the box"]), "none are given"),
        (lambda: model.predict(["the box"], {"price": [None]}), "text 0 .* lacks a number of price"),
        (lambda: model.predict(["the box"], {"prize": [1]}), "give the columns price by name"),
        (lambda: sentray.train(str(corpus), out=str(tmp_path / "w"), numeric="price", model="wide"), "take --model"),
    ):
        with pytest.raises(SentrayError, match=sentence):
            ask()
    assert json.loads((tmp_path / "model" / "settings.json").read_text())["numeric"] == ["price"]
