"""Vector arithmetic for the folded engine, written as LLVM instructions where Numba's own loops would not be vectors.

Everything goes by addresses, since Numba counts an array's references at every call.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sentray.text.simd import pointer

LANES = 16
"""Floats of a vector; LLVM makes of it what the processor has."""

_FLOAT = ir.FloatType()


def _pieces(count: int) -> list[tuple[int, Any]]:
    """Vectors that cover so many floats: first float and type of each."""
    return [(start, ir.VectorType(_FLOAT, min(LANES, count - start))) for start in range(0, count, LANES)]


def _load(builder: Any, address: Any, offset: int, kind: Any) -> Any:
    return builder.load(pointer(builder, address, kind, offset), align=2)


def _larger(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


@intrinsic(prefer_literal=True)
def pool(
    _: Any,
    rows: Any,
    bias: Any,
    out: Any,
    width: Any,
    filters: Any,
    window: Any,
    average: Any,
    relu: Any,
    gather: Any,
) -> Any:
    """Pool neighbouring windows of words, each window the sum of its words' rows and the bias.

    The first three arguments are addresses, the others constants.

    Args:
        rows: of int64[width + window - 1], the address of each word's row, float32[width, filters].
        bias: of float32[filters].
        out: of float32[filters], written with the result.
        width: words of a window.
        filters: outputs of a window.
        window: windows to pool.
        average: 1 for their sum, 0 for the largest.
        relu: 1 where a window's outputs below 0 count as 0.
        gather: 1 to pool with what is at `out` already.
    """
    constants = (width, filters, window, average, relu, gather)
    width, filters, window, average, relu, gather = (constant.literal_value for constant in constants)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows_at, bias_at, out_at = arguments[:3]
        number = ir.IntType(64)
        addresses = [
            builder.load(pointer(builder, rows_at, number, 8 * word), align=8) for word in range(width + window - 1)
        ]
        for start, kind in _pieces(filters):
            first = _load(builder, bias_at, 4 * start, kind)
            zero = ir.Constant(kind, [0.0] * kind.count)
            result = _load(builder, out_at, 4 * start, kind) if gather else None
            for offset in range(window):
                value = first
                for word in range(width):
                    term = _load(builder, addresses[offset + word], 4 * (word * filters + start), kind)
                    value = builder.fadd(value, term)
                # The largest of rectified outputs is the rectified largest.
                if relu and average:
                    value = _larger(builder, value, zero)
                if result is None:
                    result = value
                else:
                    result = builder.fadd(result, value) if average else _larger(builder, result, value)
            if relu and not average:
                result = _larger(builder, result, zero)
            builder.store(result, pointer(builder, out_at, kind, 4 * start), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, *constants), generate


@intrinsic(prefer_literal=True)
def dense(_: Any, features: Any, count: Any, weights: Any, sums: Any, units: Any) -> Any:
    """Add products of features and weights to sums.

    Args:
        features: address of float32[count, LANES].
        count: vectors of features.
        weights: address of float32[count, units, LANES].
        sums: address of float32[units, LANES]; the products of a lane are added in their order.
        units: a constant.
    """
    sums_count = units.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        features_at, number, weights_at, sums_at = arguments[:4]
        vector, index = ir.VectorType(_FLOAT, LANES), ir.IntType(64)
        before, zero = builder.block, ir.Constant(index, 0)
        first = [_load(builder, sums_at, 4 * LANES * unit, vector) for unit in range(sums_count)]
        head, loop, done = (builder.append_basic_block(f"dense.{name}") for name in ("head", "loop", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        step, totals = builder.phi(index), [builder.phi(vector) for _ in first]
        builder.cbranch(builder.icmp_signed("<", step, number), loop, done)
        builder.position_at_end(loop)
        feature = _load(builder, builder.add(features_at, builder.mul(step, ir.Constant(index, 4 * LANES))), 0, vector)
        row = builder.add(weights_at, builder.mul(step, ir.Constant(index, 4 * LANES * sums_count)))
        products = [
            builder.fmul(feature, _load(builder, row, 4 * LANES * unit, vector), flags=("contract",))
            for unit in range(sums_count)
        ]
        sums = [builder.fadd(*pair, flags=("contract",)) for pair in zip(products, totals, strict=True)]
        following = builder.add(step, ir.Constant(index, 1))
        for phi, start, value in zip((step, *totals), (zero, *first), (following, *sums), strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(value, loop)
        builder.branch(head)
        builder.position_at_end(done)
        for unit, total in enumerate(totals):
            builder.store(total, pointer(builder, sums_at, vector, 4 * LANES * unit), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, units), generate
