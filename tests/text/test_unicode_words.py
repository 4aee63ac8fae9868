"""Words of text as people write it today, in any script."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray.config import CheckSettings, TextSettings, TrainSettings, VocabSettings
from sentray.text.cleaning import clean, preset, preset_of

RULES, _ = preset("unicode")
REVIEWS, _ = preset("reviews")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GREAT!!!THE film", "great !!! the film"),
        ("it\u2019s not bad, don't go", "it's not bad , don't go"),
        ("'quoted' dogs' rock'n'roll l\u2019homme", "' quoted ' dogs ' rock'n'roll l'homme"),
        ("3.5 of 5, 1,000 times; 10/10 for the 1st.The end", "3.5 of 5 , 1,000 times ; 10 / 10 for the 1st . the end"),
        ("well-made... really?! <b>yes</b>&amp;no", "well - made ... really ?! yes & no"),
        ("love it :) :-( <3 </3 :D :-P XD", "love it :) :-( <3 </3 :d :-p xd"),
        ("a:Dog <3.5 <33", "a : dog < 3.5 < 33"),
        ("so good\u200b go\u00adod \ufeffgo\u2060od", "so good good good"),
        ("the soup ❤️😡😡 ❤", "the soup ❤ 😡 😡 ❤"),
        ("👍🏽👨‍👩‍👧 🇩🇪🇫🇷 ★★☆ \ufe0f", "👍🏽 👨‍👩‍👧 🇩🇪 🇫🇷 ★ ★ ☆"),
        ("ne\u0301cessaire NÉCESSAIRE", "nécessaire nécessaire"),
        ("यह खाना बिल्कुल बेकार था।", "यह खाना बिल्कुल बेकार था ।"),
        ("খাবারটা খুব ভালো ছিল", "খাবারটা খুব ভালো ছিল"),
        ("உணவு மிகவும் நன்றாக இருந்தது", "உணவு மிகவும் நன்றாக இருந்தது"),
        ("كَانَ الطَّعَامُ لَذِيذًا", "كَانَ الطَّعَامُ لَذِيذًا"),
        ("نمی\u200cروم", "نمیروم"),
        ("อาหารอร่อยมาก ไม่ชอบ", "อาหารอร่อยมาก ไม่ชอบ"),
        ("很好吃。カタカナ", "很 好 吃 。 カタカナ"),
        ("İYİ ΟΔΟΣ οδος", "iyi οδοσ οδοσ"),
    ],
)
def test_words(text: str, words: str) -> None:
    assert clean(text, RULES) == [unicodedata.normalize("NFC", word) for word in words.split(" ")]


@given(st.text())
@settings(deadline=None, max_examples=300)
def test_whatever_is_written_gives_clean_words(text: str) -> None:
    for word in clean(text, RULES):
        assert word.split() == [word]
        assert unicodedata.is_normalized("NFC", word)
        assert not {unicodedata.category(character) for character in word.replace("\u200d", "")} & {"Cf", "Cc", "Zs"}


@given(st.text(st.characters(categories=("L", "Zs"), max_codepoint=0x2FF)))
@settings(deadline=None, max_examples=200)
def test_plain_letters_are_words_as_ever(text: str) -> None:
    # What the other presets keep of Latin letters, this one keeps.
    plain = text.replace("\u0130", "i").replace("\u02bc", "")
    assert clean(plain, RULES) == [unicodedata.normalize("NFC", word) for word in clean(plain, REVIEWS)]


def test_the_default_is_the_tutorials_for_its_own_corpus_alone() -> None:
    own = {"corpus": "nltk:movie_reviews", "out": "x"}
    assert preset_of(TrainSettings(model="tutorial-cnn", **own)) == preset_of(VocabSettings(**own)) == "tutorial"
    assert preset_of(TrainSettings(model="wide-deep", **own)) == "unicode"
    assert preset_of(CheckSettings(corpus="synthetic:9")) == "unicode"
    assert preset_of(VocabSettings(cleaning="unicode", **own)) == "unicode"
    assert preset_of(TextSettings()) == "unicode"
