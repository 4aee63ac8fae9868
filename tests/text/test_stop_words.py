import zipfile
from pathlib import Path

import pytest

from sentray import nltk_data
from sentray.errors import SentrayError
from sentray.text.stop_words import load_stop_words


def test_none() -> None:
    assert load_stop_words("none").words == ()


def test_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffthe\r\nälter\n\nthe\n".encode())
    loaded = load_stop_words(str(path))
    assert loaded.words == ("the", "älter")
    assert loaded.source == "file:words.txt"


@pytest.mark.parametrize("source", ["english", "/nowhere/words.txt", "."])
def test_a_file_that_is_none(source: str) -> None:
    with pytest.raises(SentrayError, match="nltk:LANGUAGE"):
        load_stop_words(source)


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"the\n\xe4lter\n")
    with pytest.raises(SentrayError, match=r"latin is not UTF-8 \(byte 5\)"):
        load_stop_words(str(tmp_path / "latin"))


def test_without_nltk_data_english_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk_data, "find", lambda *_: None)
    loaded = load_stop_words("nltk:english")
    assert loaded.source == "sentray:english"
    assert loaded.note is not None
    assert "NLTK_DATA" in loaded.note
    assert {"the", "was", "of"} < set(loaded.words)
    assert not {"not", "no", "never", "nor"} & set(loaded.words)
    with pytest.raises(SentrayError, match="german"):
        load_stop_words("nltk:german")


@pytest.mark.parametrize("packed", [False, True])
def test_nltk_by_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    corpora = tmp_path / "corpora"
    (corpora / "stopwords").mkdir(parents=True)
    (corpora / "stopwords" / "frisian").write_text("de\nit\n")
    (corpora / "stopwords" / "README").write_text("about")
    if packed:
        with zipfile.ZipFile(corpora / "stopwords.zip", "w") as archive:
            for file in (corpora / "stopwords").iterdir():
                archive.write(file, f"stopwords/{file.name}")
                file.unlink()
        (corpora / "stopwords").rmdir()
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    loaded = load_stop_words("nltk:frisian")
    assert (loaded.words, loaded.source, loaded.note) == (("de", "it"), "nltk:frisian", None)
    with pytest.raises(SentrayError, match=r"it has frisian$"):
        load_stop_words("nltk:klingon")


def test_real_nltk_english() -> None:
    if nltk_data.find("corpora/stopwords") is None:
        pytest.skip("NLTK's stop words are not here; set NLTK_DATA to a folder that holds them")
    loaded = load_stop_words("nltk:english")
    assert len(loaded.words) == 179
    assert "wouldn't" in loaded.words
