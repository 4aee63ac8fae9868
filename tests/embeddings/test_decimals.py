"""Decimals are read as Python and numpy read them, to the last bit."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentray.embeddings.decimals import is_decimal, read_decimals
from sentray.embeddings.formats import NUMBER

DECIMALS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e38, max_value=1e38).map(repr),
    st.from_regex(r"[+-]?[0-9]{1,22}(\.[0-9]{0,22})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"[+-]?\.[0-9]{1,22}", fullmatch=True),
    # The middle between two float32, and what lies next to it.
    st.tuples(st.integers(0x00800000, 0x7F000000), st.integers(-3, 3)).map(lambda drawn: repr(_next_to_middle(*drawn))),
)


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode() + b"\n" + bytes(64), np.uint8)


def _next_to_middle(bits: int, steps: int) -> float:
    lower, upper = np.array([bits, bits + 1], np.uint32).view(np.float32).astype(np.float64)
    middle = np.array([(lower + upper) / 2])
    return float((middle.view(np.int64) + steps).view(np.float64)[0])


def _read(text: str, count: int) -> np.ndarray | None:
    """The numbers of a text, None where they are left to Python."""
    content = _bytes(text)
    numbers = np.full(count, 77, np.float32)
    start = content.ctypes.data
    return numbers if read_decimals(start, start + len(text), count, numbers.ctypes.data) else None


@settings(max_examples=600, deadline=None)
@given(st.lists(DECIMALS, min_size=1, max_size=4), st.sampled_from([" ", "\t", "  "]))
def test_equals_python(decimals: list[str], blank: str) -> None:
    numbers = _read(blank + blank.join(decimals) + blank, len(decimals))
    if numbers is not None:
        with np.errstate(over="ignore"):
            expected = np.array([float(text) for text in decimals]).astype(np.float32)
        assert numbers.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "text",
    ["0", "-0.0", "+1", "1.", ".5", "-1e5", "1E+05", "2e-30", "0.0007369244245224787", "-8.269973595356034e-05",
     "123456789012345678", "0.000000000000000012345678", "3.3999e38"],
)  # fmt: skip
def test_plain_decimals_are_not_left_to_python(text: str) -> None:
    numbers = _read(text, 1)
    assert numbers is not None
    assert numbers.tobytes() == np.float32(float(text)).tobytes()


@pytest.mark.parametrize(
    "text",
    [".", "-", "", "e5", "1e", "1e+", "1.2.3", "--1", "1_0", "0x1", "nan", "inf", "1,5", "1e9999999999",
     "12345678901234567890", "1e39", "1e-40", "16777217", "\u0661"],
)  # fmt: skip
def test_others_are_left_to_python(text: str) -> None:
    assert _read(text, 1) is None


@settings(max_examples=600, deadline=None)
@given(st.one_of(DECIMALS, st.text("0123456789.+-eE_ ", max_size=8)))
@example("12345678901234567890")
@example("1e-99")
def test_every_decimal_is_known_as_one(text: str) -> None:
    content = _bytes(text)
    start = content.ctypes.data
    assert is_decimal(start, start + len(text)) == (NUMBER.fullmatch(text.encode()) is not None)
