"""Pictures have words as words, ids of their own and the page's colours."""

import re

import pytest

from sentray.report import plots
from sentray.report.page import Picture

HOSTILE = "<script>$\\alpha$ _a\u202e" + "x" * 100
DRAWN = {
    "lines": plots.lines({HOSTILE: ([0, 1], [0, 1]), "b": ([0, 1], [1, 0])}, "alt", "c", "x", "y", chosen={"b": 1}),
    "bars": plots.bars({HOSTILE: [1, 2], "b": [2, 1]}, "alt", "c", "x", "y", edges=[0, 0.5, 1]),
    "stacked": plots.bars({HOSTILE: [1, 2], "b": [2, 1]}, "alt", "c", "x", "y", ticks=["a", HOSTILE], stacked=True),
    "points": plots.points({HOSTILE: (0.5, 0.4, 0.6)}, "alt", "c", "x", whole=0.5, whole_name="all"),
    "matrix": plots.matrix([[5, 1], [0, 4]], ["a", HOSTILE], "alt", "c", "x", "y"),
}


@pytest.mark.parametrize("picture", DRAWN.values(), ids=DRAWN)
def test_a_picture_is_harmless_and_takes_the_page_s_colours(picture: Picture) -> None:
    svg = str(picture.svg)
    assert "<script" not in svg
    assert "&lt;script&gt;$\\alpha$" in svg
    assert "\\u202e" in svg or "…" in svg
    assert not re.search(r"https?:|#[0-9a-f]{6}|font-family|<style", svg.replace('href="#', ""))
    assert "var(--ink)" in svg
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    assert ids >= set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)[0:0])
    for used in re.findall(r"url\(#([^)]+)\)", svg) + re.findall(r'href="#([^"]+)"', svg):
        assert used in ids


def test_ids_are_a_picture_s_own_and_always_the_same() -> None:
    ids = [set(re.findall(r'\bid="([^"]+)"', str(picture.svg))) for picture in DRAWN.values()]
    assert len(set().union(*ids)) == sum(map(len, ids))
    again = plots.points({HOSTILE: (0.5, 0.4, 0.6)}, "alt", "c", "x", whole=0.5, whole_name="all")
    assert again == DRAWN["points"]


def test_what_a_picture_shows_is_said() -> None:
    shown = Picture(DRAWN["bars"].svg, 'a "b" <c>', "<d>").__html__()
    assert shown.startswith('<figure><div role="img" aria-label="a &#34;b&#34; &lt;c&gt;">')
    assert shown.endswith("<figcaption>&lt;d&gt;</figcaption></figure>")
