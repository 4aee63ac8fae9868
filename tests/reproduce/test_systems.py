"""The list of systems: its settings are valid, `--only` finds them, the phrases fit their network."""

import json
from pathlib import Path

import pytest

from sentray import models
from sentray.config import EmbedSettings, TrainSettings
from sentray.errors import SentrayError
from sentray.reproduce.systems import GLOVE, PHRASES, RECIPES, SYSTEMS, System, choose, write_phrases
from sentray.text.cleaning import clean, preset


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: system.name)
def test_settings_of_every_system_are_valid(system: System) -> None:
    if system.vectors in RECIPES:
        EmbedSettings(corpus="corpus", out="vectors.txt", **RECIPES[system.vectors])
    else:
        assert system.vectors in (None, GLOVE)
    if system.train is None:
        assert system.vectors in RECIPES
        return
    file = None if system.vectors is None else "vectors.txt"
    settings = TrainSettings(corpus="corpus", out="out", embedding=file, **system.train)
    assert models.architecture(settings.model)
    assert (settings.epochs, settings.test_fraction) == (50, 0.0) if system.phrases else settings.epochs >= 10
    assert system.figure is None or 0 <= system.figure <= 1


def test_the_tutorials_systems_are_there() -> None:
    by_name = {system.name: system for system in SYSTEMS}
    assert len(by_name) == len(SYSTEMS) >= 7
    assert by_name["tutorial-cnn"].figure == 0.845
    assert {name for name, system in by_name.items() if system.vectors == GLOVE} == {
        "pretrained-cnn-glove-frozen",
        "embedding-mlp-glove",
    }


def test_only_chooses_in_the_order_of_the_table() -> None:
    chosen, left_out = choose(("word2vec", "tutorial-cnn", "word2vec"), None)
    assert [system.name for system in chosen] == ["tutorial-cnn", "word2vec"]
    assert left_out == []


def test_systems_of_glove_are_left_out_where_it_is_not_given() -> None:
    chosen, left_out = choose((), None)
    assert [system.name for system in left_out] == ["pretrained-cnn-glove-frozen", "embedding-mlp-glove"]
    assert len(chosen) + len(left_out) == len(SYSTEMS)
    assert choose((), "glove.txt") == (list(SYSTEMS), [])
    with pytest.raises(SentrayError, match=r"embedding-mlp-glove needs GloVe vectors .* --glove"):
        choose(("embedding-mlp-glove",), None)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SentrayError, match="no system 'tutorial_cnn' for --only; the nearest is 'tutorial-cnn'"):
        choose(("tutorial_cnn",), None)


def test_phrases_are_five_of_each_label_and_fit_the_network(tmp_path: Path) -> None:
    write_phrases(tmp_path / "phrases.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "phrases.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["text"], row["label"]) for row in rows] == list(PHRASES)
    assert sorted(row["label"] for row in rows) == ["neg"] * 5 + ["pos"] * 5
    assert len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == 10
    assert all(1 <= len(clean(row["text"], preset("reviews")[0])) <= 4 for row in rows)
