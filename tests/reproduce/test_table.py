"""The table says mean, least and greatest of the runs that ended, and why the others did not."""

import json

import pytest

from sentray.console import Console
from sentray.reproduce import table
from sentray.reproduce.systems import SYSTEMS
from sentray.reproduce.table import Row


def test_figures_are_of_the_runs_that_ended(rows: list[Row]) -> None:
    cnn, vectors, phrases, own = (row.to_dict() for row in rows)
    assert (cnn["mean"], cnn["least"], cnn["greatest"]) == (pytest.approx(0.85), 0.8, 0.9)
    assert (cnn["restarts"], cnn["seconds"], cnn["words_covered"]) == (2, 15.0, None)
    assert (cnn["source_accuracy"], cnn["measure"]) == (0.845, "test_accuracy")
    assert (phrases["mean"], phrases["measure"], phrases["words_covered"]) == (0.75, "train_accuracy", 0.217)
    assert (vectors["mean"], vectors["measure"], vectors["seconds"]) == (None, None, 5.0)
    assert (own["mean"], own["seconds"], own["runs"][0]["error"]) == (None, None, "it broke\nin two")
    assert [run["seed"] for run in cnn["runs"]] == [0, 1, 2]
    json.dumps([cnn, vectors, phrases, own], allow_nan=False)


def test_cells(rows: list[Row]) -> None:
    assert [row.cells() for row in rows] == [
        ["cnn", "84.5 % test", "85.0 %", "80.0 %", "90.0 %", "75.0 %", "2", "0:15", "-"],
        ["vectors", "58,109 lines", "58,109 lines, 25,767 words, mean norm 0.79", "-", "-", "-", "-", "0:05", "-"],
        ["phrases", "100 % in training", "75.0 %", "75.0 %", "75.0 %", "75.0 %", "1", "0:01", "21.7 %"],
        ["own", "-", "failed", *["-"] * 6],
    ]


def test_markdown_is_one_table_with_its_notes_below(rows: list[Row]) -> None:
    lines = table.markdown(rows, table.notes(3, [SYSTEMS[0]])).splitlines()
    grid, below = lines[: lines.index("")], lines[lines.index("") + 1 :]
    assert len(grid) == 2 + len(rows)
    assert {line.count("|") for line in grid} == {11}
    assert grid[2].startswith("| `cnn` | a network | 84.5 % test | 85.0 % | 80.0 % | 90.0 % |")
    assert "ten / phrases" in grid[4]
    assert below[:2] == ["- cnn, seed 2: no words left", "- own, seed 0: it broke in two"]
    assert below[2].startswith("- 3 seeds from 0")
    assert below[-1] == f"- left out, for want of --glove: {SYSTEMS[0].name}"


def test_the_console_shows_the_same(rows: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    table.show(Console(), rows, ["a note"])
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 + len(rows) + 3
    assert shown[1].split("  ")[0] == "cnn"
    assert "85.0 %" in shown[1]
    assert shown[-3:] == ["cnn, seed 2: no words left", "own, seed 0: it broke in two", "a note"]
