"""`segmented`: spaces between the words of languages that are written without, found by ICU's dictionaries."""

import re
from importlib.metadata import PackageNotFoundError, version

import pyarrow as pa

from sentray.errors import SentrayError

# Han, kana, Thai, Lao, Myanmar, Khmer; the marks and vowel signs of each lie among its letters.
_SCRIPTS = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1050-\u109f\u1780-\u17d3\u3005-\u3007\u3041-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
UNSPACED = re.compile(f"[{_SCRIPTS}]+")
"""A run of letters of scripts in which no space stands between words."""
_SAMPLE, _SAMPLE_CHARACTERS = 100, 1000
VERSIONS = r"icu4py [0-9.]+ \(ICU [0-9.]+\)"
"""What `segmenter` gives."""


def segmenter() -> str:
    """The name and version of what is installed, such as `icu4py 1.2.0 (ICU 78.3)`.

    Raises:
        SentrayError: Nothing is.
    """
    try:
        from icu4py import icu_version

        return f"icu4py {version('icu4py')} (ICU {icu_version})"
    except (ImportError, PackageNotFoundError) as error:
        raise SentrayError(
            "--segment needs ICU, which is not installed here: pip install 'sentray[segment]'"
        ) from error


def require_segmenter(wanted: str | None) -> None:
    """Refuse rules whose words would be other words here.

    Args:
        wanted: what `segmenter` gave when the rules were made; None where they part no words.

    Raises:
        SentrayError: Another ICU is installed, or none.
    """
    if wanted is None:
        return
    package, _, icu = wanted.partition(" ")[2].partition(" ")
    cure = f"pip install icu4py=={package}"
    try:
        found = segmenter()
    except SentrayError as error:
        raise SentrayError(f"words are parted by {wanted} here, which is not installed: {cure}") from error
    # The dictionaries come with ICU; what calls it may be of any version.
    if found.rpartition(" (")[2] != icu.removeprefix("("):
        raise SentrayError(f"words are parted by {wanted} here, and {found} would part them otherwise: {cure}")


def segmented(text: str) -> str:
    """A text with spaces between the words of each run of `UNSPACED`; all else is left as it is."""
    from icu4py.breakers import WordBreaker

    return UNSPACED.sub(lambda run: " ".join(WordBreaker(run[0], "root")), text)


def count_letters(texts: pa.ChunkedArray) -> tuple[int, int]:
    """Letters of a sample of texts, and those of them that `UNSPACED` finds."""
    sample = "".join(text[:_SAMPLE_CHARACTERS] for text in texts.slice(0, _SAMPLE).to_pylist())
    unspaced = sum(map(len, UNSPACED.findall(sample)))
    # Vowel signs are no letters to Python.
    return max(unspaced, sum(map(str.isalpha, sample))), unspaced
