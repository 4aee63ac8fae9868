"""Helpers of compiled loops over bytes: reading and writing at addresses, and 64 bytes at a time as bit masks.

With masks a loop looks only at the bytes of interest, as simdjson does with JSON (Langdale and Lemire 2019). Arguments
are addresses, since Numba counts an array's references with atomic operations at every call. Numba's cache on disk
looks only at the file of a compiled function: after a change here, delete the `*.nbi` files of a working copy.
"""

from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 64

compiled = njit(cache=True, nogil=True)
inlined = njit(cache=True, nogil=True, inline="always")
"""For what is called for every word, where calls would take a fifth more time; arguments must not be arrays."""


def pointer(builder: Any, address: Any, kind: Any, offset: int = 0) -> Any:
    """LLVM's pointer to what of a kind lies so many bytes behind an address."""
    moved = builder.add(address, ir.Constant(ir.IntType(64), offset)) if offset else address
    return builder.inttoptr(moved, kind.as_pointer())


def _loader(bits: int, wanted: Any) -> Any:
    """An intrinsic that reads a number of that many bits from an address."""

    @intrinsic
    def load(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            number = builder.load(pointer(builder, arguments[0], ir.IntType(bits)), align=1)
            return builder.zext(number, ir.IntType(64)) if bits < 64 else number

        return wanted(types.int64), generate

    return load


byte_at = _loader(8, types.int64)
int32_at = _loader(32, types.int64)
number_at = _loader(64, types.uint64)


@intrinsic
def set_byte(_: Any, address: Any, value: Any) -> Any:
    """Write the low byte of a number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8)
        builder.store(builder.trunc(arguments[1], byte), pointer(builder, arguments[0], byte))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def byte_masks(*sets: bytes) -> Any:
    """Compiled code that finds which of the 64 bytes at an address are in each set: a bit a byte, a number a set."""

    @intrinsic
    def masks(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8), BLOCK)
            block = builder.load(pointer(builder, arguments[0], vector), align=1)

            def splat(byte: int) -> Any:
                return ir.Constant(vector, [byte] * BLOCK)

            found = []
            for members in sets:
                union = ir.Constant(ir.VectorType(ir.IntType(1), BLOCK), [0] * BLOCK)
                for first, last in _ranges(members):
                    above = builder.sub(block, splat(first))
                    union = builder.or_(union, builder.icmp_unsigned("<=", above, splat(last - first)))
                found.append(builder.bitcast(union, ir.IntType(64)))
            return context.make_tuple(builder, signature.return_type, found)

        return types.UniTuple(types.uint64, len(sets))(types.int64), generate

    return masks


@intrinsic
def lowest(_: Any, bits: Any) -> Any:
    """Position of the lowest set bit of a number that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.int64(types.uint64), generate


def _ranges(members: bytes) -> list[tuple[int, int]]:
    """The runs of neighbours among bytes, first and last of each."""
    values = sorted(set(members))
    firsts = [value for value in values if value - 1 not in values]
    lasts = [value for value in values if value + 1 not in values]
    return list(zip(firsts, lasts, strict=True))
