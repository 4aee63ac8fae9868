"""Pages in a real browser: no error, no request, every picture there, and hostile reviews harmless."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentray.report.bundle import page_of
from sentray.report.subject import Subject
from tests.report.test_bundle import PICTURES, with_slices

PROGRAMS = ("chromium", "google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is here: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def file(subject: Subject, tmp_path: Path) -> Path:
    page_of(with_slices(subject)).save(f"{tmp_path}/report.html")
    return tmp_path / "report.html"


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_a_page_is_whole_and_quiet(browser: Any, file: Path, size: Any, scheme: str) -> None:
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    said, asked = list[str](), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    pictures = page.get_by_role("img")
    assert pictures.count() == PICTURES
    for at in range(PICTURES):
        box = pictures.nth(at).bounding_box()
        assert box["width"] > 250
        assert box["height"] > 90
        assert pictures.nth(at).get_attribute("aria-label")
    # The page itself never scrolls sideways; a wide table does in its own box.
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    assert page.evaluate("document.querySelectorAll('script, img, iframe, [onmouseover]').length") == 0
    assert page.get_by_text("<script>").count() >= 1
    least = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    )
    assert least > 7
    assert page.screenshot(full_page=True).startswith(b"\x89PNG")
    page.context.close()


def test_a_page_prints(browser: Any, file: Path) -> None:
    page = browser.new_page()
    page.goto(file.as_uri())
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()
