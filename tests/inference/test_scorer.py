"""What a text gets by task, from the engines to the Python API."""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

import sentray
from sentray import bundle, task
from sentray.bundle import Bundle
from sentray.decision import Decision
from sentray.errors import SentrayError
from sentray.inference.explain import explain, output_of
from sentray.inference.heaviest import Heaviest
from sentray.inference.predict import predict_texts
from sentray.inference.scorer import ANSWERS, Scorer
from sentray.task import Task

BundleOf = Callable[[Task], Bundle]
MakeReviews = Callable[..., list[str]]
OTHERS = [each for each in get_args(Task) if each != "classification"]


@pytest.mark.parametrize("asked", OTHERS)
def test_the_engines_give_the_same_and_answers_follow(
    bundle_of: BundleOf, make_reviews: MakeReviews, asked: Task
) -> None:
    model, texts = bundle_of(asked), pa.array(make_reviews(60), pa.large_string())
    scores = Scorer(model).score(texts)
    by_keras = Scorer(model, "keras").score(texts)
    assert np.allclose(scores.probabilities, by_keras.probabilities, atol=1e-4, rtol=1e-4)
    assert scores.probabilities.shape == (60, max(len(model.labels), 1))
    answers = scores.answers(model.labels)
    assert {name: values.type for name, values in answers.items()} == ANSWERS[asked]
    chances = scores.probabilities
    if asked == "multilabel":
        wanted = [
            [
                (label, chance)
                for label, chance, least in zip(model.labels, row, (0.4, 0.5, 0.6), strict=True)
                if chance > least
            ]
            for row in chances.tolist()
        ]
        assert answers["labels"].to_pylist() == [[label for label, _ in row] for row in wanted]
        assert answers["scores"].to_pylist() == [[chance for _, chance in row] for row in wanted]
        assert {len(row) for row in wanted} > {0, 1}
    elif asked == "ordinal":
        assert np.allclose(chances.sum(axis=1), 1)
        medians = [model.labels[step] for step in (chances.cumsum(axis=1, dtype=float) < 0.5).sum(axis=1)]
        assert answers["label"].to_pylist() == medians
        assert len(set(medians)) == 3
        assert answers["expected"].to_numpy() == pytest.approx(chances @ [1, 2, 4], abs=1e-6)
        own = [row[model.labels.index(label)] for row, label in zip(chances.tolist(), medians, strict=True)]
        assert answers["score"].to_pylist() == own
    else:
        assert answers["value"].to_numpy().tolist() == chances[:, 0].tolist()
        assert np.ptp(chances) > 0.1


@pytest.mark.parametrize("asked", OTHERS)
def test_the_python_api_answers_each_task(bundle_of: BundleOf, make_reviews: MakeReviews, asked: Task) -> None:
    texts = make_reviews(20)
    model = sentray.load(bundle_of(asked).path)
    answers = model._scorer.score(pa.array(texts, pa.large_string())).answers(model.labels)
    found, shown = model.predict(texts), [str(each) for each in predict_texts(model._scorer, texts)]
    batch = pa.table({"text": [*texts, "  "], "n": range(21)})
    table = sentray.Predictor(model, keep="n")(batch)
    assert table.column_names == ["n", *ANSWERS[asked]]
    for name, values in answers.items():
        assert table[name].to_pylist() == [*values.to_pylist(), None]
    arrays = sentray.Predictor(model)({"text": np.array(texts, object)})
    if asked == "multilabel":
        wanted = [tuple(row) for row in answers["labels"].to_pylist()]
        assert (found.dtype, found.tolist()) == (np.dtype(object), wanted)
        assert [line.partition("\t")[0] for line in shown] == [", ".join(row) or "none" for row in wanted]
        assert [list(row) for row in arrays["labels"]] == answers["labels"].to_pylist()
    elif asked == "ordinal":
        assert (found.dtype.kind, found.tolist()) == ("U", answers["label"].to_pylist())
    else:
        assert (found.dtype, found.tolist()) == (np.dtype(np.float32), answers["value"].to_pylist())
        assert shown[0] == f"value\t{found[0]:.6f}"
        with pytest.raises(SentrayError, match="gives a number and no probabilities"):
            model.predict_proba(texts)


@pytest.mark.parametrize("asked", OTHERS)
def test_words_and_bias_sum_to_what_is_explained(bundle_of: BundleOf, make_reviews: MakeReviews, asked: Task) -> None:
    model, texts = bundle_of(asked), make_reviews(30)
    scorer = Scorer(model)
    logits = scorer.engine.logits(scorer.encoder.encode(pa.array(texts, pa.large_string())))
    scores = scorer.score(pa.array(texts, pa.large_string()))
    found = explain(scorer, texts)
    heaviest = Heaviest(scorer, 100).score(pa.array(texts, pa.large_string()))[1].to_pylist()
    for row, each in enumerate(found):
        label = model.labels[scores.probabilities[row].argmax()] if asked == "multilabel" else each.label
        assert each.label == label
        wanted = {"multilabel": logits[row].max(), "ordinal": logits[row].mean(), "regression": logits[row, 0]}[asked]
        assert each.logit == pytest.approx(wanted, abs=1e-5)
        assert each.bias is not None
        assert sum(word.weight for word in each.words) + each.bias == pytest.approx(each.logit, abs=1e-4)
        of_words = {word.word: word.weight for word in each.heaviest(100)}
        for word in heaviest[row]:
            if word["word"] is not None:
                assert of_words.get(word["word"], 0) == pytest.approx(word["weight"], abs=1e-3)
    assert explain(scorer, texts[:1], "leave-one-out")[0].logit == pytest.approx(found[0].logit, abs=1e-5)
    if asked == "multilabel":
        assert explain(scorer, texts[:1], label="war")[0].logit == pytest.approx(logits[0, 2], abs=1e-5)
        assert explain(scorer, texts[:1], label="war")[0].against == "not war"
    else:
        with pytest.raises(SentrayError, match="leave the label out"):
            explain(scorer, texts[:1], label="1")


def test_what_is_explained_of_a_classification_is_one_output() -> None:
    assert output_of("classification", ("neg", "pos"), "neg").tolist() == [1]
    assert output_of("classification", ("a", "b", "c"), "b").tolist() == [0, 1, 0]
    assert output_of("multilabel", ("a", "b"), "b").tolist() == [0, 1]


def test_a_bundle_with_other_thresholds_than_labels_is_damaged(bundle_of: BundleOf) -> None:
    model = bundle_of("multilabel")
    with pytest.raises(ValueError, match="2 thresholds for 3 labels"):
        bundle.update(model, decision=Decision(thresholds=(0.5, 0.5)))
    manifest = model.files[bundle.MANIFEST].replace(b"0.4,\n", b"")
    assert manifest != model.files[bundle.MANIFEST]
    with pytest.raises(SentrayError, match=r"is damaged.*2 thresholds for 3 labels"):
        bundle.unpack({**model.files, bundle.MANIFEST: manifest}, model.path)


def test_golden_numbers_are_held_to_their_size(bundle_of: BundleOf) -> None:
    model = bundle_of("regression")
    assert all(text.scores.keys() == {task.VALUE} for text in model.golden)
    off = [text.model_copy(update={"scores": {task.VALUE: text.scores[task.VALUE] + 1}}) for text in model.golden]
    with pytest.raises(SentrayError, match="differ from its golden texts'"):
        Scorer(bundle.update(model, golden=off))
