"""Pages as one file of HTML: `render` fills a template, in which a `Picture` and hostile text are harmless.

Templates escape whatever is not `Markup`. In them `{{ value | text }}` shows what a review, a label or a file name
holds, `{{ value | cell }}` any value of a table, and `parts.html` has macros for tables and notes.
"""

import re
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
_FIRM = "\N{NO-BREAK SPACE}"
_KEPT = f"\u200c\u200d{_FIRM}"
"""Nothing can be read of them, but letters of several scripts and emoji are wrong without the first two."""


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


@dataclass(frozen=True)
class Table:
    """A table with its words; a template shows it by `{{ table }}`.

    Attributes:
        caption: What it is of.
        head: Names of the columns.
        rows: Values as for `cell`, the first of each naming the row.
        left: So many columns hold words, the others numbers.
        of: More about what it is of, in a smaller script.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    left: int = 1
    of: str = ""

    def __html__(self) -> str:
        made: Any = _environment().get_template("parts.html").module
        return Markup(made.table(self.caption, self.head, self.rows, self.left, self.of))


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        name: For links to it.
        title: Its heading.
        blocks: Text, which becomes a paragraph, or what makes HTML of itself.
    """

    name: str
    title: str
    blocks: Sequence[Any]


@dataclass(frozen=True)
class Page:
    """A page that a notebook shows by itself.

    Attributes:
        html: The whole of it.
    """

    html: str

    def save(self, file: str) -> None:
        """Write it to a file, local or a URI.

        Raises:
            SentrayError: The file cannot be written.
        """
        from sentray.storage import write_text

        write_text(file, self.html)

    def _repr_html_(self) -> str:
        frame = '<iframe srcdoc="{}" sandbox style="width: 100%; height: 40rem; border: 0" title="report"></iframe>'
        return Markup(frame).format(self.html)


BAR = Markup('<span class="hidden">as a bar</span>')
"""Head of a column of bars."""


def bar(share: float) -> Markup:
    """A share from 0 to 1 as a bar in a table."""
    return Markup('<span class="bar" style="width: {:.2f}rem"></span>').format(8 * min(max(share, 0.0), 1.0))


def grid(blocks: Sequence[Any]) -> Markup:
    """Blocks beside each other where there is room."""
    return Markup('<div class="grid">{}</div>').format(Markup("").join(blocks))


def folded(summary: str, *blocks: Any) -> Markup:
    """Blocks that are shown when somebody asks for them."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, Markup("").join(blocks))


_SIGNS = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$])")


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
        " " if c.isspace() and c != _FIRM else c if c.isprintable() or c in _KEPT else ascii(c)[1:-1]
        for c in text[:max_characters]
    )
    return f"{shown}…" if len(text) > max_characters else shown


def text(value: str, max_characters: int = MAX_TEXT) -> Markup:
    """A text of others for a page: harmless, escaped, and apart from the direction of what stands around it."""
    return Markup("<bdi>{}</bdi>").format(harmless(value, max_characters))


def markdown(value: str) -> Markup:
    """A text of others for Markdown: harmless, on one line, and without a sign that means something there."""
    return Markup(_SIGNS.sub(r"\\\1", harmless(value)))


def percent(share: float | None, digits: int = 1) -> str:
    """A share as `87.3 %`."""
    return "-" if share is None else f"{100 * share:.{digits}f}{_FIRM}%"


def interval(ends: Sequence[float] | None, as_percent: bool = False) -> str:
    """An interval as `0.8590 to 0.8863` or `85.9 to 88.6 %`; empty where there is none."""
    if ends is None:
        return ""
    low, high = ends
    return f"{100 * low:.1f} to {100 * high:.1f}{_FIRM}%" if as_percent else f"{low:.4f} to {high:.4f}"


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
    made.filters |= {"markdown": markdown, "harmless": harmless}
    return made
