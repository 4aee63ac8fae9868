"""The picture is drawn of the systems that have an accuracy."""

from pathlib import Path

import pytest

from sentray.reproduce import picture
from sentray.reproduce.table import Row


def test_draws_the_systems_with_an_accuracy(rows: list[Row], tmp_path: Path) -> None:
    both, one = tmp_path / "both.png", tmp_path / "one.png"
    assert picture.draw(rows, both)
    assert picture.draw(rows[:2], one)
    heights = [int.from_bytes(file.read_bytes()[20:24], "big") for file in (both, one)]
    assert both.read_bytes().startswith(b"\x89PNG")
    assert heights[0] - heights[1] == pytest.approx(150 * picture.ROW_INCHES, abs=2)


def test_draws_nothing_where_no_system_has_one(rows: list[Row], tmp_path: Path) -> None:
    assert not picture.draw([rows[1], rows[3]], tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()
