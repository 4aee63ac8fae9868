"""Explanations: paths sum to the logit and are what TensorFlow's gradients say; what is left out is scored again."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import bundle as bundles
from sentray import models
from sentray.bundle import Bundle, ModelSpec
from sentray.config import ExplainSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.inference import explain as explaining
from sentray.inference import folding
from sentray.inference.explain import Contribution, Explanation, explain, explained, found_grams, merged, paths
from sentray.inference.heaviest import WORDS_TYPE, Heaviest
from sentray.inference.scorer import Scorer
from sentray.models import DeepSpec
from sentray.text.cleaning import preset
from sentray.text.encoding import Encoded
from sentray.text.hashing import HashedWords
from sentray.text.ngrams import Grams, GramSpec, character_grams, character_key, make_table, word_grams
from sentray.text.vocabulary import Vocabulary

keras = pytest.importorskip("keras")

NAMES = [f"w{number}" for number in range(1, 24)]
LENGTH = 14
DEEP = DeepSpec(widths=(2, 5), filters=33, dimensions=7)
TEXTS = ["w1 w2 w3 w1 w2 w9 zebra w4", "", "w5", " ".join(NAMES), "w1 zebra w2 w7 w7 w7 w8 quagga w20 w21 w1 w2"]


def some_grams(words: Vocabulary | None, size: int, characters: bool) -> Grams:
    """Half of the n-grams that texts may have."""
    chance, spec = np.random.default_rng(0), GramSpec(characters=characters)
    ids = [words.ids[word] for text in TEXTS for word in text.split() if word in words.ids] if words else []
    ids += chance.integers(1, size, 3000).tolist()
    known = {*word_grams(ids, spec), *(character_key(gram) for name in NAMES for gram in character_grams(name))}
    keys = np.array(sorted(known), np.uint64)
    return Grams(spec, make_table(keys[chance.random(len(keys)) < 0.5]), words)


def random_weights(model: Any, seed: int) -> Any:
    chance = np.random.default_rng(seed)
    for layer in model.layers:
        made = [chance.normal(size=each.shape) for each in layer.get_weights()]
        if (
            made
            and isinstance(layer, keras.layers.Embedding)
            and len(model.inputs) + (model.inputs[0].shape[1] is None) > 1
        ):
            made[0][0] = 0
        elif made and not isinstance(layer, keras.layers.Embedding):
            made[0] *= 1.5 / np.sqrt(np.prod(made[0].shape[:-1]))
        layer.set_weights(made)
    return model


def make(
    name: str,
    classes: int = 2,
    unknown: Any = "drop",
    fold: bool = True,
    characters: bool = False,
    truncating: Any = "pre",
) -> Bundle:
    """A bundle with random weights, in memory."""
    words: Any = HashedWords(40) if unknown == "hash" else Vocabulary(NAMES, unknown)
    listed = None if unknown == "hash" else words
    heads = models.architecture(name).heads
    grams = some_grams(listed, words.size, characters) if "wide" in heads else None
    deep = DEEP if "deep" in heads else None
    model = models.architecture(name).build(
        words.size, LENGTH, classes, 6, gram_rows=grams.rows if grams else 1, deep=deep
    )
    random_weights(model, classes)
    spec = ModelSpec.of(
        words,
        architecture=f"{name}.v1",
        cleaning=preset("reviews")[0],
        labels=("neg", "pos", "odd")[:classes],
        max_length=LENGTH,
        truncating=truncating,
        grams=grams.spec if grams else None,
        deep=deep,
    )
    files = {bundles.MODEL: models.keras_file(model), **(folding.fold(model) if fold else {})}
    return bundles.make(spec, words, files | ({bundles.GRAMS: grams.table.tobytes()} if grams else {}))


def gradients(model: Any, ids: np.ndarray, grams: Grams | None, output: int, padded: int) -> Any:
    """By TensorFlow's gradients: the logit, what each position and n-gram adds to it, and the biases."""
    import tensorflow as tf

    given = {"ids": tf.constant(np.pad(ids, (0, padded - len(ids)))[None])}
    if grams is not None:
        had = grams.of(ids, np.array([0, len(ids)]))
        given |= {
            "grams": tf.constant(np.append(had.rows, 0)[None]),
            "values": tf.constant(np.append(had.values, 0)[None]),
        }
    values = {id(each): given[each.name] for each in model.inputs}
    rows: dict[str, Any] = {}
    biases = []
    with tf.GradientTape(persistent=True) as tape:
        for layer in model.layers:
            if isinstance(layer, keras.layers.InputLayer):
                continue
            tensors = layer.input if isinstance(layer.input, list) else [layer.input]
            inputs = [values[id(each)] for each in tensors]
            if isinstance(layer, keras.layers.LayerNormalization):
                centred = inputs[0] - tf.reduce_mean(inputs[0], axis=1, keepdims=True)
                deviation = tf.sqrt(tf.reduce_mean(centred**2, axis=1, keepdims=True) + layer.epsilon)
                result = centred / tf.stop_gradient(deviation)
            elif layer is model.layers[-1]:
                result = inputs[0] @ layer.kernel + layer.bias
            else:
                result = layer(inputs if len(inputs) > 1 else inputs[0])
            if isinstance(layer, keras.layers.Embedding):
                rows[layer.name] = result
                tape.watch(result)
            if getattr(layer, "use_bias", False):
                biases.append(layer.bias.value)
            values[id(layer.output)] = result
        logit = result[0, output]
    adds = {name: tf.reduce_sum(tape.gradient(logit, each) * each, axis=2).numpy()[0] for name, each in rows.items()}
    bias = sum(float(tf.reduce_sum(tape.gradient(logit, each) * each)) for each in biases)
    return float(logit), adds.get("embedding", np.zeros(padded)), adds.get("wide"), bias


CASES = [(name.removesuffix(".v1"), 2) for name in models.ARCHITECTURES if name != "bilstm.v1"]
CASES += [("tutorial-cnn", 3), ("embedding-average", 3), ("wide-deep", 3)]


@pytest.mark.parametrize(("name", "classes"), CASES)
def test_paths_are_what_gradients_say_and_sum_to_the_logit(name: str, classes: int) -> None:
    scorer = Scorer(make(name, classes), "keras")
    engine = scorer.engine
    network, weights = engine.description
    for row, text in enumerate(TEXTS):
        ids = scorer.encoder.encode(pa.array([text])).ids[-LENGTH:]
        for output in range(engine._model.output_shape[1]):
            padded = network.length or len(ids) + 3
            logit, words, grams, bias = gradients(engine._model, ids, engine.grams, output, padded)
            found = found_grams(engine.grams, ids, [NAMES[each - 1] for each in ids])
            parts = paths(network, weights, ids, found, np.eye(engine._model.output_shape[1])[output])
            assert parts.words.sum() + parts.bias == pytest.approx(logit, abs=1e-4)
            assert parts.bias == pytest.approx(bias + words[len(ids) :].sum(), abs=1e-4), text
            own = parts.words.copy()
            if found is not None:
                of_grams = [each.weight for each in parts.grams]
                np.testing.assert_allclose(of_grams, grams[:-1][~found.single], atol=1e-5)
                shares = grams[:-1] / np.bincount(found.owners)
                own -= np.bincount(found.positions, shares[found.owners], len(ids))
            # Where windows are alike, TensorFlow shares the gradient among them: their words are the same.
            wanted, of_words = (np.bincount(ids, each, 99) for each in (words[: len(ids)], own))
            np.testing.assert_allclose(of_words, wanted, atol=1e-4, err_msg=f"{row}")


def test_an_n_gram_gives_equal_shares_to_the_words_of_all_its_occurrences() -> None:
    words = Vocabulary(["not", "good", "very"])
    grams = some_grams(None, 4, False)
    keys = np.array([1, 2, 3, 1 | 2 << 21, 1 | 2 << 42], np.uint64)
    grams = Grams(GramSpec(), make_table(keys), words)
    found = found_grams(grams, np.array([1, 2, 1, 3, 2], np.int32), ["not", "good", "not", "very", "good"])
    assert found is not None
    named: dict[str, list[int]] = {}
    for owner, place in zip(found.owners.tolist(), found.positions.tolist(), strict=True):
        named.setdefault(found.names[owner], []).append(place)
    assert {name: sorted(places) for name, places in named.items()} == {
        "not": [0, 2],
        "good": [1, 4],
        "very": [3],
        "not good": [0, 1],
        "not _ good": [2, 4],
    }
    assert dict(zip(found.names, found.single.tolist(), strict=True))["not good"] is False


@pytest.fixture(scope="module")
def scorers() -> dict[str, Scorer]:
    """Of each kind one: networks, labels, unknown words, cut ends, engines."""
    return {
        "tutorial-cnn": Scorer(make("tutorial-cnn")),
        "three labels": Scorer(make("pretrained-cnn", 3, truncating="post")),
        "mlp": Scorer(make("embedding-mlp", unknown="share")),
        "average": Scorer(make("embedding-average")),
        "characters": Scorer(make("wide-deep", characters=True)),
        "wide-deep": Scorer(make("wide-deep", 3, unknown="share", truncating="post")),
        "hashed": Scorer(make("wide-deep", unknown="hash")),
        "not folded": Scorer(make("tutorial-cnn", 3, fold=False)),
    }


@pytest.mark.parametrize("name", ["tutorial-cnn", "characters"])
def test_both_engines_explain_alike(name: str, scorers: dict[str, Scorer]) -> None:
    folded = scorers[name]
    for fold in (True, False):
        other = Scorer(
            make(name if name == "tutorial-cnn" else "wide-deep", characters=name == "characters", fold=fold), "keras"
        )
        for one, two in zip(explain(folded, TEXTS), explain(other, TEXTS), strict=True):
            assert (one.words, one.grams, one.bias) == (two.words, two.grams, two.bias)
            assert one.logit == pytest.approx(two.logit, abs=1e-4)
            assert sum(word.weight for word in two.words) + (two.bias or 0) == pytest.approx(two.logit, abs=1e-4)
        assert Heaviest(folded, 4).score(pa.array(TEXTS))[1] == Heaviest(other, 4).score(pa.array(TEXTS))[1]


def test_words_left_out_are_scored_again(scorers: dict[str, Scorer]) -> None:
    for name in ("tutorial-cnn", "characters"):
        reference = Scorer(make({"characters": "wide-deep"}.get(name, name), characters=name == "characters"), "keras")
        for text, each in zip(TEXTS, explain(scorers[name], TEXTS, "leave-one-out"), strict=True):
            encoded = reference.encoder.encode(pa.array([text]))
            ids, seen = encoded.ids[-LENGTH:], [word for word in each.words if word.known][-LENGTH:]
            logit = reference.engine.logits(encoded)[0, 0]
            for place in range(len(ids)):
                changed = np.where(np.arange(len(ids)) == place, 0, ids).astype(np.int32)
                size = np.array([len(ids)], np.int32)
                without = reference.engine.logits(Encoded(changed, np.array([0, len(ids)]), size, size, size))[0, 0]
                assert seen[place].weight == pytest.approx(logit - without, abs=1e-5)
            assert each.bias is None
            assert all(word.weight == 0 for word in each.words if not word.known)


def test_every_word_is_there_as_the_model_sees_it(scorers: dict[str, Scorer]) -> None:
    text = "W1, <b>zebra</b> w2 " + "w3 " * LENGTH + "quagga"
    tokens = ["w1", "zebra", "w2", *["w3"] * LENGTH, "quagga"]
    for name, known, seen in (
        ("tutorial-cnn", [0, *range(2, LENGTH + 3)], range(3, LENGTH + 3)),
        ("mlp", [0, *range(2, LENGTH + 3)], range(4, LENGTH + 4)),
        ("wide-deep", [0, *range(2, LENGTH + 3)], range(LENGTH)),
        ("hashed", range(LENGTH + 4), range(4, LENGTH + 4)),
    ):
        (each,) = explain(scorers[name], [text])
        assert [word.word for word in each.words] == tokens
        assert [number for number, word in enumerate(each.words) if word.known] == [*known]
        assert {number for number, word in enumerate(each.words) if word.weight} <= {*seen}, name
    # Unknown words that share an id have a weight.
    assert explain(scorers["mlp"], [text])[0].words[-1].weight


def test_the_label_that_is_explained(scorers: dict[str, Scorer]) -> None:
    (own,), (odd,) = explain(scorers["wide-deep"], TEXTS[:1]), explain(scorers["wide-deep"], TEXTS[:1], label="odd")
    assert (
        own.label
        == own.toward
        == max(("neg", "pos", "odd"), key=lambda label: explain(scorers["wide-deep"], TEXTS[:1], label=label)[0].score)
    )
    assert (odd.label, odd.toward, odd.against) == ("odd", "odd", "other labels")
    (neg,), (pos,) = (explain(scorers["tutorial-cnn"], TEXTS[:1], label=label) for label in ("neg", "pos"))
    assert (neg.logit, neg.words, neg.toward) == (pos.logit, pos.words, "pos")
    assert neg.score + pos.score == pytest.approx(1)
    with pytest.raises(SentrayError, match="has no label 'bad'; it has neg, pos"):
        explain(scorers["tutorial-cnn"], TEXTS, label="bad")


words = st.lists(st.sampled_from([*NAMES[:8], "zebra", "quagga"]), max_size=2 * LENGTH).map(" ".join)


@pytest.fixture(scope="module")
def heaviest(scorers: dict[str, Scorer]) -> dict[str, tuple[Heaviest, Heaviest]]:
    """For each scorer what finds all words and what finds two."""
    return {name: (Heaviest(scorer, 100), Heaviest(scorer, 2)) for name, scorer in scorers.items()}


@settings(max_examples=30, deadline=None)
@given(data=st.data(), texts=st.lists(words, min_size=1, max_size=4))
def test_the_heaviest_words_are_those_of_the_explanations(
    data: st.DataObject,
    texts: list[str],
    scorers: dict[str, Scorer],
    heaviest: dict[str, tuple[Heaviest, Heaviest]],
) -> None:
    name = data.draw(st.sampled_from(sorted(scorers)))
    scorer, (every, two) = scorers[name], heaviest[name]
    scores, column = every.score(pa.array(texts))
    np.testing.assert_array_equal(scores.probabilities, scorer.score(pa.array(texts)).probabilities)
    assert_same(column, explain(scorer, texts), scorer)
    few = two.score(pa.array(texts))[1].to_pylist()
    assert few == [each[:2] for each in column.to_pylist()]


def assert_same(column: pa.Array, explanations: list[Explanation], scorer: Scorer) -> None:
    """Whether a column has the words of explanations; those that share an id are one in it."""
    assert column.type == WORDS_TYPE
    vocabulary = scorer.bundle.vocabulary
    for found, each in zip(column.to_pylist(), explanations, strict=True):
        sizes = [abs(word["weight"]) for word in found]
        assert sizes == sorted(sizes, reverse=True)
        wanted: dict[Any, float] = {}
        names: dict[int, str] = {}
        for word in each.words:
            name: str | None = word.word if word.known else None
            if isinstance(vocabulary, HashedWords) and word.weight:
                code = int(scorer.encoder.encode(pa.array([word.word])).ids[0])
                name = names.setdefault(code, word.word)
            wanted[name] = wanted.get(name, 0) + word.weight
        given = {word["word"]: word["weight"] for word in found}
        assert len(given) == len(found)
        for name in wanted.keys() | given.keys():
            assert given.get(name, 0) == pytest.approx(wanted.get(name, 0), abs=1e-4)


def test_tables_that_are_too_large_are_not_needed(scorers: dict[str, Scorer], monkeypatch: pytest.MonkeyPatch) -> None:
    from sentray.inference import folded

    wanted = Heaviest(scorers["not folded"], 5).score(pa.array(TEXTS))[1].to_pylist()
    monkeypatch.setattr(folded, "MAX_BYTES", 10)
    without = Heaviest(scorers["not folded"], 5)
    assert without._folded is None
    for one, two in zip(wanted, without.score(pa.array(TEXTS))[1].to_pylist(), strict=True):
        assert [word["word"] for word in one] == [word["word"] for word in two]
        np.testing.assert_allclose([word["weight"] for word in one], [word["weight"] for word in two], atol=1e-5)


def parallel(*branches: tuple[int, int, str | None, Any]) -> Any:
    layers, ids = keras.layers, keras.Input((LENGTH,), dtype="int32", name="ids")
    embedded, outputs = layers.Embedding(24, 11, name="embedding")(ids), []
    for width, filters, activation, pooling in branches:
        tensor = pooling(layers.Conv1D(filters, width, activation=activation)(embedded))
        outputs.append(layers.Flatten()(tensor) if len(tensor.shape) == 3 else tensor)
    hidden = layers.Dense(6, activation="relu")(layers.Concatenate()(outputs))
    hidden = layers.Dense(5, activation="relu")(hidden)
    return random_weights(keras.Model(ids, layers.Dense(1, activation="sigmoid")(hidden)), seed=3)


def test_networks_of_other_shapes() -> None:
    layers = keras.layers
    model = parallel(
        (3, 7, "relu", layers.GlobalMaxPooling1D()),
        (2, 5, None, layers.GlobalMaxPooling1D()),
        (4, 16, "relu", layers.GlobalAveragePooling1D()),
        (2, 20, None, layers.MaxPooling1D(3, 2)),
        (3, 17, "relu", layers.AveragePooling1D(2, 3)),
    )
    made = make("tutorial-cnn")
    files = made.files | folding.fold(model)
    scorer = Scorer(bundles.make(made.spec, made.vocabulary, files))
    texts = [" ".join(NAMES[:count]) for count in range(LENGTH + 3)]
    found = explain(scorer, texts)
    for text, each in zip(texts, found, strict=True):
        ids = scorer.encoder.encode(pa.array([text])).ids[-LENGTH:]
        padded = np.pad(ids, (0, LENGTH - len(ids)))
        probability = float(model(padded[None])[0, 0])
        assert each.logit == pytest.approx(np.log(probability / (1 - probability)), abs=1e-3)
        assert sum(word.weight for word in each.words) + (each.bias or 0) == pytest.approx(each.logit, abs=1e-4)
        _, words, _, bias = gradients(model, ids, None, 0, LENGTH)
        assert each.bias == pytest.approx(bias + float(words[len(ids) :].sum()), abs=1e-4)
    assert_same(Heaviest(scorer, 100).score(pa.array(texts))[1], found, scorer)


def test_a_network_without_straight_paths_is_told() -> None:
    network = SimpleNamespace(activations=("tanh", "sigmoid"))
    with pytest.raises(SentrayError, match="with tanh between its layers has no paths: take --method leave-one-out"):
        explaining.require_paths(network)  # type: ignore[arg-type]


def test_html_is_ours_alone_and_marks_by_more_than_colour() -> None:
    words = ["<script>alert(1)</script>", "\u202eevil", "a" * 100_000, "dull", "zebra"]
    weights = [1.0, 0.5, 0.0, -2.0, 0.0]
    each = Explanation(
        "text", "pos", 0.7, 1.0, 1.5, tuple(map(Contribution, words, weights, [True] * 4 + [False])), (), "pos", "neg"
    )
    html = str(each.to_html())
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html
    assert "\u202e" not in html
    assert len(html) < 2000
    assert html.count("solid") == 2
    assert html.count("dotted") == 1
    assert 'title="-2.0000">dull<' in html
    assert 'title="unknown, +0.0000">zebra<' in html
    assert each._repr_html_().count("dull") == 2
    many = Explanation("", None, 0.5, 0.0, 0.0, (Contribution("x", 1.0),) * 3000, (), "pos", "neg")
    assert "and 1,000 more words" in many.to_html()


def test_words_that_are_alike_are_one() -> None:
    words = [Contribution(*each) for each in (("a", 1.0), ("b", -3.0), ("a", 2.0), ("c", 0.0), ("d", 3.0))]
    assert [(each.word, each.weight) for each in merged(words)] == [("a", 3.0), ("b", -3.0), ("d", 3.0)]


def test_the_verb_prints_and_writes(small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    given = ExplainSettings(bundle=small_bundle.path, text="-", count=1, html=str(page))
    found = explained(given, Console(), io.BytesIO("good film\n\nnaïve zebra".encode()))
    said = capsys.readouterr().out
    assert [each.text for each in found] == ["good film", "", "naïve zebra"]
    assert [line for line in said.splitlines() if line.startswith("line ")] == ["line 1", "line 2", "line 3"]
    (heaviest,) = found[0].heaviest(1)
    assert f"{heaviest.word}" in said
    assert f"{heaviest.weight:.4f}" in said
    assert "\x1b" not in said
    assert json.loads(json.dumps(found.to_dict()))[2]["words"][1] == {"word": "zebra", "weight": 0.0, "known": False}
    html = page.read_text()
    assert html.startswith("<!doctype html>")
    assert html.count("<details>") == 3
    assert "zebra" in html
    with pytest.raises(SentrayError, match="line 2 of the standard input is not UTF-8"):
        explained(given, Console(), io.BytesIO(b"good\n\xff\n"))


def test_colours_are_for_terminals_that_have_them(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdout", shown := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    Console().coloured([("good\x1b[2J", "blue"), ("film", "")])
    assert "\x1b[34mgood\\x1b[2J\x1b[0m film" in shown.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("sys.stdout", plain := Terminal())
    Console().coloured([("good", "blue")])
    assert plain.getvalue() == ""
