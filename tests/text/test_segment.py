"""Words of languages that are written without spaces."""

import sys

import pyarrow as pa
import pytest

from sentray.errors import SentrayError
from sentray.text import segment
from sentray.text.cleaning import CleaningRules, clean, preset, rules_from
from sentray.text.encoding import Encoder
from sentray.text.vocabulary import Vocabulary

INSTALLED = "icu4py 1.2.0 (ICU 78.3)"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "segmenter", lambda: INSTALLED)


def test_icu_parts_words_and_the_compiled_code_agrees() -> None:
    pytest.importorskip("icu4py", reason="the extra `segment` is not installed")
    rules = preset("unicode", segment=segment.segmenter())[0]
    texts = ["今天天气真好,我很喜欢。", "อาหารอร่อยมาก", "plain ภาษา 😀 e\u0323\u0302", "<b>映画</b>は&amp;とても", ""]
    words = [clean(text, rules) for text in texts]
    assert words[0] == ["今天", "天气", "真好", ",", "我", "很喜欢", "。"]
    assert words[1] == ["อาหาร", "อร่อย", "มาก"]
    vocabulary = Vocabulary(dict.fromkeys(word for row in words for word in row))
    got = Encoder(rules, vocabulary).encode(pa.array(texts))
    assert got.ids.tolist() == [vocabulary.ids[word] for row in words for word in row]


def test_rules_name_the_version(installed: None) -> None:
    segment.require_segmenter(INSTALLED)
    # Another binding of the same ICU parts the same words.
    segment.require_segmenter("icu4py 1.1.0 (ICU 78.3)")
    with pytest.raises(SentrayError, match=r"icu4py 1.0.1 \(ICU 77.1\) here, .*otherwise: pip install icu4py==1.0.1"):
        segment.require_segmenter("icu4py 1.0.1 (ICU 77.1)")


def test_without_icu_the_cure_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icu4py", None)
    with pytest.raises(SentrayError, match="pip install 'sentray\\[segment\\]'"):
        segment.segmenter()
    with pytest.raises(SentrayError, match=r"not installed: pip install icu4py==1\.2\.0"):
        segment.require_segmenter(INSTALLED)


def test_only_a_version_is_a_segmenter() -> None:
    rules = preset("unicode")[0]
    with pytest.raises(ValueError, match="segment"):
        CleaningRules.model_validate(dict(rules) | {"segment": "x; rm -rf ~ (ICU 1)"})


def test_settings_ask_for_it(installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentray.config import TextSettings
    from sentray.text import cleaning

    monkeypatch.setattr(cleaning, "segmenter", lambda: INSTALLED)
    rules, lines = rules_from(TextSettings(segment="icu"))
    assert rules.segment == INSTALLED
    assert lines == [f"cleaning: unicode, words parted by {INSTALLED}"]


def test_counts_letters_of_scripts_without_spaces() -> None:
    assert segment.count_letters(pa.chunked_array([["很好 ok", "มาก!", "हाँ"]])) == (8, 5)
