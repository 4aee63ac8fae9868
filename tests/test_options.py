"""A verb's words become its settings, as on the command line."""

import pytest

from sentray.config import ScoreSettings, Settings, argument
from sentray.options import UsageError, parse


class Wrapping(Settings):
    """A verb that ends in a list of words."""

    words: tuple[str, ...] = argument("words")
    limit: int = 1


def test_words_become_settings() -> None:
    found = parse(ScoreSettings, ["bundle", "--keep", "stars", "in.csv", "--out=o", "--keep", "year", "--gpu"])
    assert (found.bundle, found.input, found.out) == ("bundle", "in.csv", "o")
    assert (found.keep, found.gpu, found.workers) == (("stars", "year"), True, None)


@pytest.mark.parametrize("mark", [[], ["--"]])
def test_no_word_behind_the_first_of_a_list_is_an_option(mark: list[str]) -> None:
    found = parse(Wrapping, ["--limit", "3", *mark, "train", "corpus", "--out", "x", "--limit", "9", "--", "-v"])
    assert found.limit == 3
    assert found.words == ("train", "corpus", "--out", "x", "--limit", "9", "--", "-v")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "WORDS must be given"),
        (["--limits", "3", "a"], "No such option: --limits"),
        (["--limit", "many", "a"], "--limit is 'many'"),
        (["--limit"], "'--limit' requires an argument"),
        (["--help"], "No such option: --help"),
        (["a", "s3://key:secret@bucket/x"], "WORDS has a key in its URI"),
        (["a", ""], "WORDS is empty: a variable of the shell"),
        (["a", "caf\udce9"], r"WORDS is b'caf\xe9', which is not UTF-8: "),
    ],
)
def test_what_the_command_line_would_refuse_is_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(Wrapping, words)
    assert sentence in str(error.value)
    assert error.value.status == 2
