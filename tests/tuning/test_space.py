"""What is tried: values within what a file or the model says, the same for the same number, and wrong ones refused."""

import inspect
import re
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import models
from sentray.config import TuneSettings
from sentray.errors import SentrayError
from sentray.training import prepare
from sentray.tuning.space import FITTING, Space, Values, with_

SETTINGS = TuneSettings(corpus="reviews.csv", out="out")


@settings(max_examples=50, deadline=None)
@given(
    share=st.floats(0, 1, exclude_max=True),
    low=st.integers(1, 10**6),
    more=st.integers(1, 10**6),
    log=st.booleans(),
    whole=st.booleans(),
)
def test_a_value_lies_in_its_range(share: float, low: int, more: int, log: bool, whole: bool) -> None:
    values = Values(low=low, high=low + more, log=log, whole=whole)
    assert low <= values.at(share) <= low + more
    assert isinstance(values.at(share), int) or not whole
    assert [values.at(0), values.at(1 - 1e-9)] == pytest.approx([low, low + more], rel=0.01)


def test_all_whole_numbers_and_choices_are_drawn_alike_often() -> None:
    shares = [(at + 0.5) / 60 for at in range(60)]
    between, choices = Values(low=2, high=4, whole=True), Values(("a", "b", "c"))
    assert [sum(between.at(share) == value for share in shares) for value in (2, 3, 4)] == [20, 20, 20]
    assert [sum(choices.at(share) == value for share in shares) for value in "abc"] == [20, 20, 20]


@pytest.mark.parametrize("model", [*models.ARCHITECTURES])
def test_what_suits_a_model_can_be_trained_and_the_first_trial_is_the_command_itself(model: str) -> None:
    mine = SETTINGS.model_copy(update={"model": model})
    space = Space.suiting(mine)
    first, *others = islice(space.changes(0), 30)
    assert first == {}
    for changes in others:
        assert changes.keys() == space.keys()
        prepare.require_files(with_(mine, changes))
    # More trials, or a later start, do not change those before.
    assert [*islice(space.changes(0), 5)] == [first, *others[:4]]
    assert next(islice(space.changes(1), 1, None)) != others[0]


def test_a_prepared_set_does_not_depend_on_the_settings_that_trials_of_it_may_differ_in() -> None:
    source = inspect.getsource(prepare).replace(inspect.getsource(prepare.require_files), "")
    used = {*re.findall(r"settings\.(\w+)", source)}
    assert "min_count" in used
    # Whether the vectors move says how much memory they take, and no more.
    assert used & {*FITTING} == {"freeze"}


def test_a_file_says_the_space(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text("learning-rate.log = [1e-4, 1e-2]\nbatch_size = [16, 32]\n[max_grams]\nbetween = [1000, 2000]\n")
    space = Space.of(SETTINGS.model_copy(update={"space": str(file)}))
    assert space == {
        "learning_rate": Values(low=1e-4, high=1e-2, log=True),
        "batch_size": Values((16, 32)),
        "max_grams": Values(low=1000, high=2000, whole=True),
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("lerning_rate = [1]", r"has 'lerning_rate', which is no setting to try; did you mean 'learning_rate'\?"),
        ("validation_fraction = [0.2, 0.3]", "has 'validation_fraction', which is no setting to try; it may set "),
        ("learning_rate = 0.1", r"^learning_rate in \S+ is 0.1: give a list of values, as in "),
        ("learning_rate = []", r"^learning_rate in \S+ is \[\]: give a list"),
        ("learning_rate.log = [0, 1]", "^learning_rate in .* of which log wants LOW above 0"),
        ("learning_rate.between = [0, 1, 2]", "^learning_rate in .*: give a list"),
        ("cleaning.between = [1, 2]", "^cleaning in .*: give a list"),
        ("batch_size = [16, 'many']", r"^--batch-size is 'many' in \S+: input should be a valid integer"),
        ("learning_rate.between = [-1, 1]", r"^--learning-rate is -1 in \S+: input should be greater than 0"),
        ("model = ['nowhere:build']", "^model in .*: .*the module 'nowhere' cannot be imported"),
        ("freeze = [true]", "^--freeze is about the word vectors of a file; name it with --embedding"),
        ("", "has no setting: give one, as in"),
        ("batch_size = [", "is not valid: "),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "space.toml"
    file.write_text(content)
    with pytest.raises(SentrayError, match=sentence) as refused:
        Space.of(SETTINGS.model_copy(update={"space": str(file)}))
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(SentrayError, match=r"^--space nowhere.toml cannot be read: No such file"):
        Space.of(SETTINGS.model_copy(update={"space": "nowhere.toml"}))


def test_a_setting_that_the_model_does_not_have_is_refused_before_the_search(tmp_path: Path) -> None:
    file = tmp_path / "space.toml"
    file.write_text("embedding_learning_rate.log = [1e-4, 1e-2]\n")
    with pytest.raises(SentrayError, match=r"^embedding_learning_rate in \S+: .* which --model wide does not have"):
        Space.of(SETTINGS.model_copy(update={"model": "wide", "space": str(file)}))
