"""Decimals to float32, compiled, as Python and numpy read them to the last bit.

Digits are taken eight at a time (Lemire 2021, "Number parsing at a gigabyte per second") and multiplied by a power of
ten. That float64 may be off by a few units of its last place, which shows in the float32 only where it lies next to the
middle between two of them: such numbers, and whatever is no plain decimal, are left to Python.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sentray.text.simd import byte_at, compiled, inlined, lowest, number_at

_U0 = np.uint64(0)
_SPACE, _TAB = b" \t"
_PLUS, _MINUS, _POINT, _ZERO, _SMALL_E = b"+-.0e"

# Powers of ten as Python rounds them, and the greatest mantissa to which so many digits may still be added.
_MIN_POWER = -64
_POWERS = np.array([float(f"1e{power}") for power in range(_MIN_POWER, 65)])
_DIGITS = 18
_ROOM = np.array([10 ** (_DIGITS - digits) for digits in range(9)], np.int64)
_TENS = np.array([10**digits for digits in range(9)], np.int64)
# A float64's bits that float32 does not have; a little before the middle between two float32; how much is too near it.
_REST, _BEFORE, _NEAR = np.uint64(0x1FFFFFFF), np.uint64(0x10000000 - 16), np.uint64(32)
_MIN_NORMAL = float(np.finfo(np.float32).tiny)


@intrinsic
def _bits_of(_: Any, number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.uint64(types.float64), generate


@intrinsic
def _put_float32(_: Any, address: Any, number: Any) -> Any:
    """Write a float64 as a float32, rounded to the nearest."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], ir.FloatType().as_pointer())
        builder.store(builder.fptrunc(arguments[1], ir.FloatType()), pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float64), generate


@inlined
def is_blank(byte: int) -> bool:
    """Whether a byte parts fields."""
    return byte in (_SPACE, _TAB)


@inlined
def _digits(place: int) -> Any:
    """How many of the 8 bytes at an address are digits before the first that is none, and their value."""
    taken = number_at(place) ^ np.uint64(0x3030303030303030)
    above = (taken & np.uint64(0x7F7F7F7F7F7F7F7F)) + np.uint64(0x7676767676767676)
    others = (above | taken) & np.uint64(0x8080808080808080)
    count = 8 if others == _U0 else lowest(others) >> 3
    if count == 0:
        return 0, 0
    taken <<= np.uint64(64 - 8 * count)
    taken = taken * np.uint64(10) + (taken >> np.uint64(8))
    low = (taken & np.uint64(0x000000FF000000FF)) * np.uint64(0x000F424000000064)
    high = ((taken >> np.uint64(16)) & np.uint64(0x000000FF000000FF)) * np.uint64(0x0000271000000001)
    return count, np.int64((low + high) >> np.uint64(32))


@compiled
def _exponent(place: int) -> Any:
    """The number behind an `e`, and where it ends; the same place where there is none."""
    sign = byte_at(place)
    start = place + (1 if sign in (_PLUS, _MINUS) else 0)
    count, value = _digits(start)
    # Eight digits are beyond any table.
    return (-value if sign == _MINUS else value), (start + count if count else place)


@inlined
def _past_digits(place: int) -> int:
    while 0 <= byte_at(place) - _ZERO <= 9:
        place += 1
    return place


@compiled
def is_decimal(place: int, end: int) -> bool:
    """Whether the bytes between two addresses are a decimal, also one that is left to Python."""
    place += int(byte_at(place) in (_PLUS, _MINUS))
    after = _past_digits(place)
    digits, place = after - place, after
    if byte_at(place) == _POINT:
        after = _past_digits(place + 1)
        digits, place = digits + after - place - 1, after
    if digits and byte_at(place) | 0x20 == _SMALL_E:
        start = place + 1 + int(byte_at(place + 1) in (_PLUS, _MINUS))
        place = _past_digits(start)
        digits = place - start
    return digits > 0 and place == end


@compiled
def read_decimals(place: int, end: int, dimensions: int, target: int) -> bool:
    """Read the decimals of a row into float32 at an address; whether nothing is left to Python."""
    for _ in range(dimensions):
        while is_blank(byte_at(place)):
            place += 1
        # Every second number has a sign, which a branch would guess wrong every other time.
        first = byte_at(place)
        negative = int(first == _MINUS)
        start = place + negative + int(first == _PLUS)
        mantissa, power, place = 0, 0, start
        digit = byte_at(place) - _ZERO
        while 0 <= digit <= 9:
            mantissa, place = mantissa * 10 + digit, place + 1
            digit = byte_at(place) - _ZERO
        if place - start > _DIGITS:
            return False
        seen = place - start
        if byte_at(place) == _POINT:
            place += 1
            point = place
            while True:
                count, value = _digits(place)
                if mantissa >= _ROOM[count]:
                    return False
                mantissa, place, seen = mantissa * _TENS[count] + value, place + count, seen + count
                if count < 8:
                    break
            power = point - place
        if byte_at(place) | 0x20 == _SMALL_E:
            more, after = _exponent(place + 1)
            if after == place + 1:
                return False
            power, place = power + more, after
        if seen == 0 or (place < end and not is_blank(byte_at(place))):
            return False
        number = 0.0
        if mantissa:
            if power < _MIN_POWER or power > -_MIN_POWER:
                return False
            number = np.float64(mantissa) * _POWERS[power - _MIN_POWER]
            if number < _MIN_NORMAL or number > 3.4e38:
                return False
            if (_bits_of(number) & _REST) - _BEFORE <= _NEAR:
                return False
        _put_float32(target, number * (1.0 - 2.0 * negative))
        target += 4
    return True
