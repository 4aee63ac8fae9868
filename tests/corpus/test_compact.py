"""Thrift's compact protocol: what Arrow would see differently is refused."""

import pytest

from sentray.corpus.compact import BINARY, I32, I64, Compact, Fields, Many, TooMuchError

FIELDS: Fields = {1: I32, 2: I64, 3: BINARY, 4: Many(I32, 4), 5: {1: I32}}


def read(*content: int, room: int = 100) -> dict[int, object]:
    reader = Compact(memoryview(bytes(content)), room)
    values = reader.struct(FIELDS)
    assert reader.at == len(content)
    return values


def test_fields_that_are_asked_for_and_others() -> None:
    known = (0x15, 3, 0x16, 4, 0x18, 1, 65, 0x19, 0x25, 2, 4, 0x1C, 0x15, 6, 0)
    others = (0x11, 0x13, 9, 0x17, *[0] * 8, 0x19, 0x22, 1, 2, 0x1C, 0x18, 2, 66, 66, 0)
    assert read(*known, *others, 0) == {1: -2, 2: 2, 3: b"A", 4: [1, 2], 5: {1: 3}}
    # Any byte whose low bits are 0 is the end.
    assert read(0x15, 2, 0xF0) == {1: 1}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        pytest.param((0x15, 2, 0x05, 2, 4, 0), "Arrow takes it for", id="twice"),
        pytest.param((0x16, 2, 0), "another type", id="wider"),
        pytest.param((0x15, 2, 0x06, 2, 4, 0), "Arrow takes it for", id="twice and wider"),
        pytest.param((0x49, 0x26, 2, 4, 0), "another type", id="a list of others"),
        pytest.param((0x15, 0x82, 0x80, 0x80, 0x80, 0x10, 0), "too many bits", id="more than 32 bits"),
        pytest.param((0x05, 0x82, 0x80, 0x04, 2, 0), "too many bits", id="a number of a field that wraps"),
        pytest.param((0x6B, 0, 0), "does not use", id="a map"),
        pytest.param((0x49, 0xF5, 0xFF, 0x7F), "longer than its file", id="a long list"),
        pytest.param((0x6C,) * 40, "too deep", id="deep"),
    ],
)
def test_what_is_refused(content: tuple[int, ...], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(*content)


def test_lists_have_the_room_that_they_are_given() -> None:
    content = (0x49, 0x25, 2, 4, 0)
    assert read(*content, room=8) == {4: [1, 2]}
    with pytest.raises(TooMuchError):
        read(*content, room=7)
