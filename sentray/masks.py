"""Sixty-four bytes at a time as bit masks, for compiled loops over text that look at the bytes of interest only.

So simdjson reads JSON (Langdale and Lemire 2019). Everything goes by addresses, since Numba counts an array's
references with atomic operations at every call.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 64


def byte_masks(*sets: bytes) -> Any:
    """Compiled code that tells which of the 64 bytes at an address are in each set: a bit a byte, a number a set."""

    @intrinsic
    def masks(_: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            vector = ir.VectorType(ir.IntType(8), BLOCK)
            block = builder.load(builder.inttoptr(arguments[0], vector.as_pointer()), align=1)

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
