"""Tables of figures, and the ratios to their first row."""

from typing import Any

from sentray.bench.tables import show, with_ratios


def test_the_first_row_is_the_baseline(console: Any) -> None:
    rows = with_ratios({"slow": {"rows_per_s": 10.0}, "fast": {"rows_per_s": 1234.5, "accuracy": 0.5}}, "rows_per_s")
    assert [row["ratio"] for row in rows.values()] == [1, 123.45]
    show(console, {"models": rows})
    assert [line.split() for line in console.lines] == [
        [],
        ["models", "rows_per_s", "ratio", "accuracy"],
        ["slow", "10.0000", "1.0000", "-"],
        ["fast", "1,234", "123", "0.5000"],
    ]
