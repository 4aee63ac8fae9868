import html
import string
import time
import unicodedata
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentray import nltk_data
from sentray.config import TextSettings
from sentray.text.cleaning import CleaningRules, clean, preset, rules_from


def rules(**changes: object) -> CleaningRules:
    plain = {
        "strip_html": False,
        "lowercase": False,
        "punctuation": "keep",
        "alphabetic_only": False,
        "stop_words": (),
        "stop_words_source": "none",
        "min_token_length": 1,
    }
    return CleaningRules.model_validate(plain | changes)


ALL_RULES = [
    rules(
        strip_html=strip_html,
        lowercase=lowercase,
        punctuation=punctuation,
        alphabetic_only=alphabetic_only,
        stop_words=stop_words,
        min_token_length=length,
    )
    for strip_html, lowercase, punctuation, alphabetic_only, stop_words, length in product(
        [False, True], [False, True], ["keep", "remove", "split"], [False, True], [(), ("a", "it's")], [1, 3]
    )
]

PIECES = (
    "a|it's|don\u2019t|ABC|1st|a_b|é|É|ß|İ|ΑΣ|\U0001d49c|½|²|e\u0301|--|…|€|^|`|<br />|<b|>|<|</i>|<!-- x -->"
    "|< 3|&amp;|&lt;p&gt;|&#65;|&#0065|&#x1F600;|&| |\n|\t|\x85|\u2028|\u00a0|\u3000|\x1c|\u200b|\x00"
)
HOSTILE = st.lists(st.sampled_from(PIECES.split("|"))).map("".join)
TEXTS = st.one_of(st.text(), HOSTILE)


def without_tags(text: str) -> str:
    out, at = "", 0
    while at < len(text):
        end = text.find(">", at + 2)
        opens = text[at] == "<" and text[at + 1 : at + 2] in [*string.ascii_letters, "/", "!"]
        if opens and end > 0 and "<" not in text[at + 1 : end]:
            out, at = out + " ", end + 1
        else:
            out, at = out + text[at], at + 1
    return out


def naive(text: str, rules: CleaningRules) -> list[str]:
    """The definition in words, a rule at a time over the whole text."""
    if rules.strip_html:
        text = html.unescape(without_tags(text))
    if rules.lowercase:
        text = text.lower()
    if rules.punctuation == "remove":
        text = "".join(c for c in text if c not in string.punctuation)
    if rules.punctuation == "split":
        text = "".join(c for c in text if c not in "'\u2019")
        text = "".join(" " if unicodedata.category(c)[0] in "PS" else c for c in text)
    tokens = text.split()
    if rules.alphabetic_only:
        tokens = [token for token in tokens if token.isalpha()]
    tokens = [token for token in tokens if token not in rules.stop_words]
    return [token for token in tokens if len(token) >= rules.min_token_length]


@given(TEXTS, st.sampled_from(ALL_RULES))
@settings(max_examples=400, deadline=None)
@example("a<b<i>c", ALL_RULES[-1])
def test_equals_the_definition(text: str, rules: CleaningRules) -> None:
    assert clean(text, rules) == naive(text, rules)


def test_tutorial_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk_data, "find", lambda *_: None)
    rules, note = preset("tutorial")
    assert note is not None
    text = "the film isn't bad ; it's a 90's re-make by R.E.M. !\nI don't care , Über \x85 ok"
    assert clean(text, rules) == ["film", "isnt", "bad", "remake", "REM", "dont", "care", "Über", "ok"]


def test_reviews_preset_keeps_negations() -> None:
    rules, note = preset("reviews")
    assert note is None
    text = 'It\'s NOT bad...<br /><br />"Très" &quot;good&quot; - I don\u2019t mind 2&#189; <a id="x">hours</a>!'
    assert " ".join(clean(text, rules)) == "its not bad très good i dont mind 2½ hours"


def test_settings_replace_single_rules() -> None:
    chosen = TextSettings(
        cleaning="reviews",
        strip_html=False,
        lowercase=False,
        min_token_length=3,
        stop_words="sentray:english",
    )
    rules, _ = rules_from(chosen)
    assert (rules.strip_html, rules.lowercase, rules.min_token_length) == (False, False, 3)
    assert rules.stop_words_source == "sentray:english"
    assert clean("It was NOT &amp; they moved", rules) == ["NOT", "amp", "moved"]


def test_rules_survive_json() -> None:
    rules, _ = preset("reviews", stop_words="sentray:english")
    again = CleaningRules.model_validate_json(rules.model_dump_json())
    assert again == rules
    assert hash(again) == hash(rules)


@pytest.mark.parametrize("piece", ["<a", "&#", "&", "<!", "&#9", "'", "<a&lt;"])
def test_hostile_text_takes_linear_time(piece: str) -> None:
    rules, _ = preset("reviews")
    text = piece * (1_000_000 // len(piece))
    started = time.perf_counter()
    clean(text, rules)
    assert time.perf_counter() - started < 10


@pytest.mark.parametrize(("digits", "character"), [("9" * 5000, "\ufffd"), ("0" * 5000 + "65", "A")])
def test_endless_numeric_references(digits: str, character: str) -> None:
    assert clean(f"x &#{digits}; &#66;", rules(strip_html=True)) == ["x", character, "B"]
