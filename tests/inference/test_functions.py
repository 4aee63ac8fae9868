"""Networks of users' functions: stock layers load within bounds, others where the user trusts them."""

import functools
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sentray
from sentray import bundle, models
from sentray.bundle import Bundle, Function, ModelSpec
from sentray.errors import SentrayError, SentrayWarning
from sentray.inference import folding
from sentray.inference.networks import load_network, needs_trust
from sentray.inference.scorer import Scorer, golden_texts
from sentray.task import Task
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary
from tests.conftest import LENGTH, WORDS
from tests.inference.test_networks import forge, weights_of

Make = Callable[..., Bundle]
LAYERS = ("tests.nets:Weigh",)


@pytest.fixture(scope="module")
def of_function() -> Make:
    """Makes a bundle of one of `tests.nets`, with random weights."""

    @functools.cache
    def make(name: str, task: Task = "classification", labels: tuple[str, ...] = ("neg", "pos")) -> Bundle:
        words, built = Vocabulary(WORDS), models.resolve(f"tests.nets:{name}")
        model = built.build(words.size, LENGTH, len(labels), 6, task=task, labels=labels)
        chance = np.random.default_rng(0)
        for each in model.weights:
            each.assign(chance.uniform(0.1 if "variance" in each.path else -0.9, 0.9, each.shape))
        made_by = Function(name=built.source, digest=built.digest, layers=LAYERS if name == "lstm" else ())
        facts = {"labels": labels, "max_length": LENGTH, "task": task, "function": made_by}
        spec = ModelSpec.of(words, architecture=models.FUNCTION, cleaning=preset("reviews")[0], **facts)
        made = bundle.make(spec, words, {bundle.MODEL: models.keras_file(model), **folding.fold_if_possible(model)})
        return bundle.update(made, golden=golden_texts(made, ["good film", "not a good film", ""]))

    return make


# --- Without trust


def test_stock_layers_load_with_their_weights_and_score_alike_in_any_company(
    of_function: Make, make_reviews: Any
) -> None:
    made = of_function("recurrent")
    scorer = Scorer(made)
    texts = pa.array([*make_reviews(300), ""])
    together = scorer.score(texts).probabilities
    assert np.ptp(together) > 0.01
    some = [0, 7, 300, 150]
    for row in some:
        np.testing.assert_array_equal(scorer.score(texts.slice(row, 1)).probabilities[0], together[row])
    np.testing.assert_array_equal(scorer.score(texts.take(pa.array(some))).probabilities, together[some])


def test_stock_layers_of_fewer_users_load_without_trust(of_function: Make) -> None:
    found = load_network(of_function("wider"))
    assert needs_trust(found, "tests.nets") == ()
    assert len(found.weights) == 7


def part(module: str | None, name: str, values: Any = None, **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": values or {}, "registered_name": None, **more}


def layer(number: int, **changes: Any) -> Callable[[Any], object]:
    return lambda config: config["config"]["layers"][number].update(changes)


def setting(number: int, **changes: Any) -> Callable[[Any], object]:
    return lambda config: config["config"]["layers"][number]["config"].update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (layer(2, class_name="Lambda"), r"a part 'keras\.layers\.Lambda', which needs --trust-model"),
        (layer(2, class_name="TFSMLayer"), "needs --trust-model"),
        (layer(2, class_name="StringLookup"), "needs --trust-model"),
        (layer(2, module="os", class_name="system"), "needs --trust-model"),
        (layer(2, module="tests.nets", class_name="Weigh", registered_name="Weigh"), "needs --trust-model"),
        (layer(2, module="keras.src.utils.file_utils", class_name="get_file"), "needs --trust-model"),
        (layer(2, module=None), "needs --trust-model"),
        (lambda config: config["config"]["layers"][2].pop("module"), "needs --trust-model"),
        (layer(2, registered_name="evil>Dropout"), "registered or compiled"),
        (layer(2, compile_config={"optimizer": part("os", "system")}), "registered or compiled"),
        (setting(1, dtype=part("keras", "QuantizedDTypePolicy", {"mode": "int8"})), "needs --trust-model"),
        (setting(-1, activation=part("builtins", "function", "exec")), "needs --trust-model"),
        (setting(-1, activation=part("builtins", "__lambda__", {"value": "x"})), "needs --trust-model"),
        (
            setting(-1, activation=part(None, "__numpy__", {"value": ["x"], "dtype": "S999999"})),
            "needs --trust-model",
        ),
        (setting(-1, activation="exec"), "cannot be used"),
        (setting(1, input_dim=10**9), "knows 1,000,000,000 words, the bundle"),
        (setting(1, output_dim=10**9), "cannot be used"),
        (setting(0, batch_shape=[None, 7]), r"its input 'ids' of int32 has the shape \(None, 7\)"),
        (setting(0, dtype="string"), "cannot be used"),
        (setting(-1, units=2), r"another shape than \(None, 1\)"),
        (lambda config: [config.clear(), config.update(part("keras.layers", "Dense", {"units": 1}))], "no model"),
        (lambda config: config.clear(), "cannot be used"),
    ],
)
def test_what_a_description_may_not_say(
    of_function: Make, change: Callable[[Any], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SentrayError, match=message) as error:
        load_network(forge(of_function("cnn"), change))
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_what_only_training_needs_is_not_looked_at(of_function: Make) -> None:
    made = of_function("cnn")
    changed = forge(made, setting(1, embeddings_initializer=part("os", "system"), embeddings_constraint=part("x", "y")))
    for mine, theirs in zip(weights_of(load_network(changed)), weights_of(load_network(made)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_step_between_layers_that_takes_gigabytes_is_refused(of_function: Make) -> None:
    """Attention compares each word with each, which no layer gives."""
    made = of_function("recurrent")
    with pytest.raises(SentrayError, match=r"its step .* gives [\d,]+ numbers for a review"):
        load_network(bundle.make(made.spec.model_copy(update={"max_length": 1 << 14}), made.vocabulary, made.files))


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("classification", ("neg", "pos")),
        ("multilabel", ("acting", "plot", "sound")),
        ("ordinal", ("1", "2", "3", "4")),
        ("regression", ()),
    ],
)
def test_a_function_of_foldable_shape_is_folded(
    of_function: Make, make_reviews: Any, task: Task, labels: tuple[str, ...]
) -> None:
    made = of_function("cnn", task, labels)
    assert made.folded
    texts = pa.array(make_reviews(50))
    found = [Scorer(made, name).score(texts).probabilities for name in ("folded", "keras")]
    np.testing.assert_allclose(*found, rtol=0, atol=1e-5)
    assert found[0].shape == (50, max(len(labels), 1))
    assert np.ptp(found[0]) > 0.001


def test_scores_that_are_no_numbers_are_refused(of_function: Make) -> None:
    words, built = Vocabulary(WORDS), models.resolve("tests.training.own_networks:masked_mean")
    made, model = of_function("recurrent"), built.build(Vocabulary(WORDS).size, LENGTH, 2, 6, labels=("neg", "pos"))
    masked = bundle.make(made.spec, words, {bundle.MODEL: models.keras_file(model)})
    with pytest.raises(SentrayError, match="the bundle gives no number for 1 of 2 texts"):
        Scorer(masked).score(pa.array(["good film", ""]))


# --- With trust


def test_layers_of_its_own_need_trust(of_function: Make, make_reviews: Any, tmp_path: Path) -> None:
    path = bundle.publish(of_function("lstm"), str(tmp_path / "bundle")).path
    with pytest.raises(SentrayError, match=r"not Keras's own \(tests\.nets:Weigh\), so that .* give --trust-model"):
        sentray.load(path)
    model = sentray.load(path, trust_model=True)
    texts = make_reviews(5)
    found = model.predict_proba(texts)
    assert np.ptp(found) > 0.001
    np.testing.assert_array_equal(sentray.load(model).predict_proba(texts), found)


def test_a_function_whose_layers_are_not_told_of_is_refused(of_function: Make) -> None:
    made = of_function("lstm")
    assert made.spec.function is not None
    silent = made.spec.model_copy(update={"function": made.spec.function.model_copy(update={"layers": ()})})
    with pytest.raises(SentrayError, match=r"bundle has a part 'tests\.nets\.Weigh', which needs --trust-model"):
        load_network(bundle.make(silent, made.vocabulary, made.files))


@pytest.mark.parametrize("missing", ["tests.nets:Gone", "nothing_like_it:Weigh"])
def test_a_layer_that_is_no_longer_there_is_named(of_function: Make, missing: str) -> None:
    made = of_function("lstm")
    assert made.spec.function is not None
    function = made.spec.function.model_copy(update={"layers": (missing,)})
    gone = bundle.make(made.spec.model_copy(update={"function": function}), made.vocabulary, made.files)
    with pytest.raises(SentrayError, match=f"the bundle needs its own layers: .*{missing.replace(':', '.*')}"):
        load_network(bundle.unpack(gone.files, trusted=True))


def test_another_version_of_the_module_is_told_and_loads(of_function: Make, tmp_path: Path) -> None:
    made = of_function("lstm")
    assert made.spec.function is not None
    function = made.spec.function.model_copy(update={"digest": "0" * 64})
    changed = bundle.make(
        made.spec.model_copy(update={"function": function}), made.vocabulary, made.files, golden=made.golden
    )
    path = bundle.publish(changed, str(tmp_path / "bundle")).path
    with pytest.warns(SentrayWarning, match=r"another version of tests\.nets: its layers may compute something else"):
        sentray.load(path, trust_model=True)


@pytest.mark.slow
def test_a_network_with_layers_of_its_own_is_trained_scored_and_verified(
    ray_session: None, in_process: Callable[[], None], tmp_path: Path
) -> None:
    in_process()
    words = {"pos": "a great and moving film", "neg": "an awful and boring film"}
    rows = [{"text": f"{words[label]} {number}", "label": label} for number in range(60) for label in words]
    bundle_path, reviews = str(tmp_path / "bundle"), tmp_path / "reviews.jsonl"
    reviews.write_text("".join(f"{json.dumps({'text': row['text'], 'id': str(n)})}\n" for n, row in enumerate(rows)))
    settings = {"epochs": 3, "learning_rate": 0.05, "cleaning": "reviews", "validation_fraction": 0, "report": False}
    sentray.train(pa.Table.from_pylist(rows), out=bundle_path, model="tests.nets:lstm", dimensions=6, **settings)
    made = bundle.load(bundle_path)
    assert made.spec.function is not None
    assert made.spec.function.layers == LAYERS
    assert not made.folded
    with pytest.raises(SentrayError, match=r"give --trust-model \(in Python trust_model=True, "):
        sentray.score(bundle_path, str(reviews), out=str(tmp_path / "refused"))
    summary = sentray.score(bundle_path, str(reviews), out=str(tmp_path / "scored"), trust_model=True, workers=1)
    assert summary["engine"] == "keras"
    assert summary["rows"] == len(rows)
    sentray.verify(str(tmp_path / "scored"), input=str(reviews))
    scored = pq.read_table(tmp_path / "scored" / "scores").sort_by("id")
    truth = dict(zip(map(str, range(len(rows))), (row["label"] for row in rows), strict=True))
    ids, labels = (scored[name].to_pylist() for name in ("id", "label"))
    right = [truth[number] == label for number, label in zip(ids, labels, strict=True)]
    assert np.mean(right) > 0.9
    figures = sentray.evaluate(sentray.load(bundle_path, trust_model=True), pa.Table.from_pylist(rows), split="all")
    assert figures["accuracy"] == np.mean(right)
