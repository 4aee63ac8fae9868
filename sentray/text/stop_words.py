"""`load_stop_words`: none, NLTK's list of a language, a file, or our own English list where NLTK's is missing."""

import importlib.resources
from dataclasses import dataclass
from pathlib import Path

from sentray import nltk_data
from sentray.errors import SentrayError

_OWN = "sentray:english"


@dataclass(frozen=True)
class StopWords:
    """Words that cleaning drops.

    Attributes:
        words: the words, sorted, each once.
        source: where they came from: `none`, `nltk:LANGUAGE`, `sentray:english` or `file:NAME`.
        note: one sentence for the user where another list than the one asked for was taken, else None.
    """

    words: tuple[str, ...]
    source: str
    note: str | None = None


def load_stop_words(source: str) -> StopWords:
    """Load a list of stop words.

    Args:
        source: `none`, `nltk:LANGUAGE` (such as `nltk:english`), `sentray:english` (function words without
            negations, in the package), or the path of a UTF-8 file with one word a line.

    Returns:
        The words. Where NLTK's data can't be had, `nltk:english` gives the list in the package and a note.

    Raises:
        SentrayError: no such language or file, or no list for that language without NLTK's data.
    """
    if source == "none":
        return StopWords((), "none")
    if source == _OWN:
        return StopWords(_own_words(), _OWN)
    if source.startswith("nltk:"):
        return _from_nltk(source.removeprefix("nltk:"))
    path = Path(source)
    try:
        return StopWords(_words(path.read_bytes()), f"file:{path.name}")
    except UnicodeDecodeError as error:
        raise SentrayError(
            f"the stop-word file {source} is not UTF-8 (byte {error.start + 1}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise SentrayError(
            f"the stop-word file {source} can't be read ({error.strerror}); "
            "give none, nltk:LANGUAGE or the path of a file with a word a line"
        ) from error


def _from_nltk(language: str) -> StopWords:
    found = nltk_data.find("corpora/stopwords")
    if found is None:
        if language != "english":
            raise SentrayError(
                f"NLTK's stop words for {language!r} are not on this machine; set NLTK_DATA to a folder that "
                "holds corpora/stopwords, or give a file with a word a line"
            )
        note = (
            "NLTK's stop words could not be had, so sentray's own English list is used; "
            "set NLTK_DATA to a folder that holds corpora/stopwords for NLTK's"
        )
        return StopWords(_own_words(), _OWN, note)
    languages = [name for name in nltk_data.members(found) if name.islower()]
    if language not in languages:
        raise SentrayError(f"NLTK has no stop words for {language!r}; it has {', '.join(languages)}")
    return StopWords(_words(nltk_data.read(found, language)), f"nltk:{language}")


def _own_words() -> tuple[str, ...]:
    return _words(importlib.resources.files("sentray.text").joinpath("stop_words_english.txt").read_bytes())


def _words(content: bytes) -> tuple[str, ...]:
    return tuple(sorted(set(content.decode("utf-8-sig").split())))
