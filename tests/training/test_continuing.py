"""Going on with a bundle: it starts as the bundle is, rehearses old rows, and does not forget."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import sentray
from sentray import bundle, models
from sentray.bundle import Function
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.inference.scorer import Scorer
from sentray.models import OUTPUT, WIDE
from sentray.training.allreduce import AllReduce
from sentray.training.calibration import Mix
from sentray.training.continuing import pinned
from sentray.training.folds import NEVER
from sentray.training.heads import new_network
from sentray.training.prepare import prepare
from sentray.training.training_set import TrainingSet
from sentray.training.wide import Wide
from tests.training.test_wide import GRAMS, REVIEWS, TARGETS, matrix

PLACES = ["Ulm", "Rome", "Oslo", "Bonn", "Kyiv", "Lima"]


def rows(good: str, bad: str, start: int, count: int = 120) -> pa.Table:
    """Reviews that one word tells apart, each with others beside it, and with a number that says nothing."""
    chance = np.random.default_rng(start)
    label = chance.choice(["neg", "pos"], count)
    text = [
        f"in {chance.choice(PLACES)} a {good if each == 'pos' else bad} meal number {start + number}"
        for number, each in enumerate(label)
    ]
    names, split = [f"{start}-{number}" for number in range(count)], ["train"] * 100 + ["validation"] * 20
    columns = {"id": names, "text": text, "label": label, "price": chance.normal(size=count), "split": split[:count]}
    return pa.table(columns)


OLD, NEW = rows("great", "awful", 0), rows("crisp", "soggy", 1000)
# Its words are known before, and say nothing yet.
KNOWN = rows("crisp", "crisp", 2000, 8).set_column(2, "label", pa.array(["neg", "pos"] * 4))
KNOWN = pa.concat_tables([KNOWN, rows("soggy", "soggy", 3000, 8).set_column(2, "label", pa.array(["neg", "pos"] * 4))])


@pytest.fixture(scope="module")
def base(ray_session: None, trains_in_process: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("base") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        trains_in_process(patch)
        table, kept = pa.concat_tables([OLD, KNOWN]), {"epochs": 3, "report": False, "numeric": "price"}
        sentray.train(table, out=str(out), **kept)
    return out


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """New rows, and a quarter of the old ones."""
    pq.write_table(pa.concat_tables([NEW, OLD[:30]]), tmp_path / "new.parquet")
    return tmp_path / "new.parquet"


def test_each_head_starts_as_it_was(base: Path, corpus: Path, tmp_path: Path, console: Any) -> None:
    settings = pinned(TrainSettings(corpus=str(corpus), out=str(tmp_path / "out"), continue_from=str(base)))
    prepare(settings, models.architecture(settings.model), str(tmp_path / "set"), console)
    found, before = TrainingSet.load(str(tmp_path / "set")), bundle.load(base)
    assert found.facts.spec == before.spec
    every = np.arange(len(found))
    network = new_network(settings, found, every, 0, AllReduce())
    about = before.calibration
    assert about is not None
    mix = Mix(tuple(about.heads[head] / about.temperature for head in network.heads), about.bias)
    mixed = mix.of(network.logits(network.pack(found.reviews(every), found.numbers)))
    scorer, table = Scorer(before), pq.read_table(corpus)
    numbers = table["price"].to_numpy()[:, None]
    np.testing.assert_allclose(mixed, scorer.engine.logits(scorer.encode(table["text"], numbers)), atol=1e-4)
    # Old rows count as all of them did, and none is held out.
    assert found.weights is not None
    assert set(found.weights[:120]) == {1.0}
    assert found.weights[120:].sum() == pytest.approx(len(OLD) + len(KNOWN))
    assert set(found.held[120:]) == {NEVER}
    assert (found.held[:120] != NEVER).sum() == 20
    assert before.texts is not None
    assert len(found.texts.values) == len(before.texts.values) + len(NEW)
    assert any("120 rows are new and count 1 each, 30 of its 136 rows are rehearsed" in line for line in console.lines)


def test_new_things_are_learnt_and_old_ones_kept(base: Path, corpus: Path, tmp_path: Path, in_process: Any) -> None:
    in_process()
    asked: dict[str, Any] = {"out": str(tmp_path / "out"), "continue_from": str(base), "epochs": 3, "report": False}
    before, after = sentray.load(base), sentray.train(str(corpus), **asked)
    kept = after.metrics["continued"]
    assert (kept["from"], kept["rows"], kept["new_rows"]) == (before.digest, 256, 120)
    fresh = rows("great", "awful", 4000), rows("crisp", "soggy", 5000)
    right = [
        [float((model.predict(some["text"], some) == np.array(some["label"])).mean()) for some in fresh]
        for model in (before, after)
    ]
    assert right[0][0] > 0.95
    assert right[0][1] < 0.8
    assert min(right[1]) > 0.95
    # The same command again has nothing to do; after another bundle it is another command.
    assert sentray.train(str(corpus), **asked).digest == after.digest
    with pytest.raises(SentrayError, match="holds another bundle; choose another --out"):
        sentray.train(str(corpus), **asked | {"continue_from": str(tmp_path / "out")})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"corpus": "old"}, "was trained on each of these 120 rows: give new ones"),
        (
            {"corpus": "three"},
            "knows the labels 'neg', 'pos', and the corpus has 'mixed' as well: leave these rows out",
        ),
        ({"model": "tutorial-cnn"}, "is a wide-deep.v1, not a tutorial-cnn: leave out --model"),
        ({"numeric": "stars"}, "takes price besides the text: leave out --numeric"),
        ({"task": "regression"}, "answers --task classification, not regression"),
        ({"continue_from": f"#{'0' * 64}"}, "holds another bundle than the one that was continued from"),
    ],
)
def test_what_contradicts_is_refused(base: Path, tmp_path: Path, change: dict[str, str], sentence: str) -> None:
    mixed = NEW.set_column(2, "label", pc.replace_with_mask(NEW["label"], pa.array([True] + [False] * 119), "mixed"))
    for name, table in (("old", OLD), ("three", mixed), ("new", NEW)):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    values = {"corpus": "new", "continue_from": ""} | change
    values |= {"corpus": f"{tmp_path}/{values['corpus']}.parquet", "continue_from": f"{base}{values['continue_from']}"}

    def start() -> None:
        settings = pinned(TrainSettings(out=str(tmp_path / "out"), **values))
        prepare(settings, models.architecture(settings.model), str(tmp_path / "set"), Console(silent=True))

    with pytest.raises(SentrayError, match=sentence):
        start()


@pytest.mark.parametrize(
    ("spec", "given", "sentence"),
    [
        ({"task": "multilabel"}, {"class_weight": "balanced"}, "--class-weight is about --task classification"),
        ({"task": "multilabel"}, {"unsure": "0.4:0.6"}, "--unsure is about --task classification, not multilabel"),
        ({"task": "regression", "labels": ()}, {"threshold": "0.5"}, "--threshold needs labels that a review has or"),
        ({"architecture": "function"}, {"model": "tests.training.own_networks:build"}, "put that version back, or tr"),
    ],
)
def test_the_bundles_task_and_source_are_checked(
    base: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], given: dict[str, Any], sentence: str
) -> None:
    found = bundle.load(base)
    if "model" in given:
        spec = spec | {"function": Function(name=given["model"], digest="0" * 64)}
    changed = replace(found, spec=found.spec.model_copy(update=spec))
    monkeypatch.setattr(bundle, "load", lambda path: changed)
    with pytest.raises(SentrayError, match=sentence):
        pinned(TrainSettings(corpus="new.csv", out="out", continue_from=str(base), **given))


def test_no_row_is_held_out_whose_group_is_rehearsed(base: Path, tmp_path: Path, console: Any) -> None:
    table = pa.concat_tables([NEW, OLD[:30]]).drop_columns("split")
    groups = [f"g{number % 12}" for number in range(120)] + ["g0"] * 30
    pq.write_table(table.append_column("film", pa.array(groups)), tmp_path / "new.parquet")
    given: dict[str, Any] = {"corpus": str(tmp_path / "new.parquet"), "group_column": "film"}
    settings = pinned(TrainSettings(out=str(tmp_path / "out"), continue_from=str(base), **given))
    prepare(settings, models.architecture(settings.model), str(tmp_path / "set"), console)
    held = TrainingSet.load(str(tmp_path / "set")).held
    np.testing.assert_array_equal(held != NEVER, [group != "g0" for group in groups])
    assert any(line.startswith("10 new rows are never held out, since the bundle") for line in console.lines)
    pq.write_table(table.append_column("film", pa.array(["g0"] * 150)), tmp_path / "new.parquet")
    with pytest.raises(SentrayError, match=r"each new row is of a group .* none can be held out"):
        prepare(settings, models.architecture(settings.model), str(tmp_path / "set"), console)


def test_wide_weights_are_learnt_on_top_of_those_before() -> None:
    base, bias = np.random.default_rng(0).normal(size=(GRAMS.rows, 3)).astype(np.float32), np.ones(3, np.float32)
    head = Wide(GRAMS, np.ones((GRAMS.rows, 4), np.float32), 10)
    head.start({WIDE: [base], OUTPUT: [np.eye(3, dtype=np.float32), bias]})
    packed = head.pack(REVIEWS)
    np.testing.assert_allclose(head.logits(packed), matrix(REVIEWS) @ base + bias, atol=1e-5)
    np.testing.assert_array_equal(head.layers()[WIDE][0], base)
    # The penalty is of what is added, so that without a loss nothing moves.
    step = head.gradients(packed, TARGETS, np.zeros(len(REVIEWS), np.float32), len(REVIEWS))
    assert not step.values.any()


def test_settings_that_are_the_bundles_to_say_are_refused() -> None:
    with pytest.raises(ValidationError, match="--max-length is the bundle's to say with --continue-from: leave it out"):
        TrainSettings(corpus="new.csv", out="out", continue_from="base", max_length=100)
