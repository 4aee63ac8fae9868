"""What others wrote is harmless on a page and in a model card."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

from sentray.report.page import Page, Section, Table, cell, harmless, markdown, render, text

VALUES = {"title": "t", "lead": "l", "key": [], "of": "", "notes": [], "sections": [], "made": "m"}


@given(st.text(max_size=300))
@settings(max_examples=50, deadline=None)
def test_no_text_gets_out_of_its_place(value: str) -> None:
    shown = str(text(value))
    assert shown.startswith("<bdi>")
    assert not re.search(r"[<>\"'\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x1f]", shown[5:-6])
    assert "\n" not in markdown(value)


def test_a_text_is_cut_and_its_marks_are_seen() -> None:
    assert harmless("a\u202eb\nc\x1b[0m") == "a\\u202eb c\\x1b[0m"
    assert harmless("x" * 3000) == "x" * 2000 + "…"
    assert harmless("\U0001f468\u200d\U0001f469") == "\U0001f468\u200d\U0001f469"
    assert str(markdown("[a](http://b) <i>")) == r"\[a\]\(http://b\) \<i\>"


def test_cells_are_numbers_texts_or_markup() -> None:
    cells = [str(cell(value)) for value in (None, 12345, 0.25, "<", Markup("<b>"))]
    assert cells == ["-", "12,345", "0.2500", "<bdi>&lt;</bdi>", "<b>"]


def test_a_page_escapes_whatever_it_is_given() -> None:
    table = Table("<i>", ("<u>", "n"), [("<s>", 1)], of="<small>")
    page = render(
        "report.html",
        **VALUES | {"title": "<h1>", "notes": ["<p>"], "sections": [Section("a", "<h2>", ["<q>", table])]},
    )
    for sign in ("<i>", "<u>", "<s>", "<q>", "<h2>", "<p>&"):
        assert sign not in page
    assert '<th scope="col" class="n">' in page
    assert '<th scope="row"><bdi>&lt;s&gt;</bdi></th>' in page
    assert "<title>&lt;h1&gt;</title>" in page
    assert "default-src 'none'" in page


def test_a_value_that_is_not_given_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="lead"):
        render("report.html", **{name: value for name, value in VALUES.items() if name != "lead"})


def test_a_notebook_gets_the_whole_page(tmp_path: object) -> None:
    page = Page('<p title="&amp;">')
    assert 'srcdoc="&lt;p title=&#34;&amp;amp;&#34;&gt;"' in page._repr_html_()
    page.save(f"{tmp_path}/page.html")
