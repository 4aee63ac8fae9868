"""Pages as one file of HTML: `render` fills a template, in which a `Picture` and hostile text are harmless.

Templates escape whatever is not `Markup`. In them `{{ value | text }}` shows what a review, a label or a file name
holds, `{{ value | cell }}` any value of a table, and `parts.html` has macros for tables and notes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

MAX_TEXT = 2000
"""Characters that are shown of a review."""
MAX_NAME = 80
"""Characters that are shown of a label, a word or a file name in a table."""
_JOINERS = "\u200c\u200d"
"""Nothing can be read of them, but letters of several scripts and emoji are wrong without."""


@dataclass(frozen=True)
class Picture:
    """A drawing with its words; a template shows it by `{{ picture }}`.

    Attributes:
        svg: An `<svg>` element without ids that another picture has.
        alt: What there is to see, for who cannot.
        caption: What it is of, below it.
    """

    svg: Markup
    alt: str
    caption: str

    def __html__(self) -> str:
        return Markup('<figure><div role="img" aria-label="{}">{}</div><figcaption>{}</figcaption></figure>').format(
            self.alt, self.svg, self.caption
        )


def render(template: str, **values: Any) -> str:
    """A page as HTML.

    Args:
        template: Its name in `sentray/report/templates`; it extends `base.html`.
        **values: What it shows. One that it names and is not given is an error.
    """
    return _environment().get_template(template).render(**values)


def harmless(text: str, max_characters: int = MAX_TEXT) -> str:
    """A text without what moves, hides or turns letters: white space as a space, control and bidi characters in ASCII.

    Args:
        text: Any.
        max_characters: After so many it is cut, and ends with an ellipsis.
    """
    shown = "".join(
        " " if c.isspace() else c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in text[:max_characters]
    )
    return f"{shown}…" if len(text) > max_characters else shown


def text(value: str, max_characters: int = MAX_TEXT) -> Markup:
    """A text of others for a page: harmless, escaped, and apart from the direction of what stands around it."""
    return Markup("<bdi>{}</bdi>").format(harmless(value, max_characters))


def percent(share: float | None, digits: int = 1) -> str:
    """A share as `87.3 %`."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def interval(ends: Sequence[float] | None, as_percent: bool = False) -> str:
    """An interval as `0.8590 to 0.8863` or `85.9 to 88.6 %`; empty where there is none."""
    if ends is None:
        return ""
    low, high = ends
    return f"{100 * low:.1f} to {100 * high:.1f} %" if as_percent else f"{low:.4f} to {high:.4f}"


def number(value: float | None) -> str:
    """A number: whole ones with their thousands parted, others with four decimals."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def cell(value: Any) -> Markup:
    """What a table shows of a value: markup as it is, a text harmless, a number as `number`."""
    if hasattr(value, "__html__"):
        return escape(value)
    if isinstance(value, str):
        return text(value, MAX_NAME)
    return escape(number(value))


@lru_cache(maxsize=1)
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("sentray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"text": text, "percent": percent, "interval": interval, "number": number, "cell": cell}
    return made
