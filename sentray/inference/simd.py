"""Vector arithmetic for the folded engine, written as LLVM instructions where Numba's own loops would not be vectors.

Everything goes by addresses, since Numba counts an array's references at every call.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from sentray.text.simd import ask_for, pointer

LANES = 16
"""Floats of a vector; LLVM makes of it what the processor has."""

BLOCK = 32
"""Floats of a row that are added at once: their sums and the largest of them stay in the registers of AVX2, too."""

AHEAD = 24
"""So many rows before it is added a row is asked for, since the next ones are all over the table."""

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


def _repeat(builder: Any, count: Any, first: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """A loop of `count` steps; `body` gets a step's number and what the step before made, at first `first`."""
    index, before = ir.IntType(64), builder.block
    head, loop, done = (builder.append_basic_block(name) for name in ("head", "loop", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    step, values = builder.phi(index), [builder.phi(value.type) for value in first]
    builder.cbranch(builder.icmp_signed("<", step, count), loop, done)
    builder.position_at_end(loop)
    made = [builder.add(step, ir.Constant(index, 1)), *body(step, values)]
    for phi, start, value in zip([step, *values], [ir.Constant(index, 0), *first], made, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(value, builder.block)
    builder.branch(head)
    builder.position_at_end(done)
    return values


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
        vector = ir.VectorType(_FLOAT, LANES)

        def add(step: Any, totals: list[Any]) -> list[Any]:
            feature = _load(builder, _behind(builder, features_at, step, 4 * LANES), 0, vector)
            row = _behind(builder, weights_at, step, 4 * LANES * sums_count)
            products = [
                builder.fmul(feature, _load(builder, row, 4 * LANES * unit, vector), flags=("contract",))
                for unit in range(sums_count)
            ]
            return [builder.fadd(*pair, flags=("contract",)) for pair in zip(products, totals, strict=True)]

        first = [_load(builder, sums_at, 4 * LANES * unit, vector) for unit in range(sums_count)]
        for unit, total in enumerate(_repeat(builder, number, first, add)):
            builder.store(total, pointer(builder, sums_at, vector, 4 * LANES * unit), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, units), generate


def _behind(builder: Any, address: Any, number: Any, size: int) -> Any:
    """The address of one of many values of a size."""
    return builder.add(address, builder.mul(number, ir.Constant(ir.IntType(64), size)))


@intrinsic
def add_rows(_: Any, ids: Any, count: Any, table: Any, sums: Any) -> Any:
    """Add rows of a table to sums.

    Args:
        ids: address of int32[count + AHEAD], the numbers of the rows; those behind `count` are only asked for.
        count: rows to add.
        table: address of float32[rows, BLOCK].
        sums: address of float32[BLOCK].
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ids_at, number, table_at, sums_at = arguments
        pieces = _pieces(BLOCK)

        def add(step: Any, totals: list[Any]) -> list[Any]:
            _ask_for_row(builder, table_at, ids_at, step)
            row = _row(builder, table_at, ids_at, step)
            terms = [_load(builder, row, 4 * start, kind) for start, kind in pieces]
            return [builder.fadd(*pair) for pair in zip(totals, terms, strict=True)]

        first = [_load(builder, sums_at, 4 * start, kind) for start, kind in pieces]
        for (start, kind), total in zip(pieces, _repeat(builder, number, first, add), strict=True):
            builder.store(total, pointer(builder, sums_at, kind, 4 * start), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@intrinsic
def slide(_: Any, ids: Any, width: Any, steps: Any, table: Any, sums: Any, best: Any) -> Any:
    """Move a window over rows of a table and keep the largest of its sums.

    Args:
        ids: address of int32[steps + AHEAD], the numbers of the rows that come into the window; those behind `steps`
            are only asked for, and before them are those of the rows that leave it.
        width: rows of the window.
        steps: how far it moves, a row at a time.
        table: address of float32[rows, BLOCK].
        sums: address of float32[BLOCK], of the window before and after.
        best: address of float32[BLOCK], of the windows so far.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _slide(builder, *arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def slide_and_note(
    _: Any, ids: Any, width: Any, steps: Any, table: Any, sums: Any, best: Any, first: Any, where: Any
) -> Any:
    """As `slide`, and note which window has the largest sum, the first of several.

    Further arguments are `first`, the number of the window after the first step, and `where`, address of int32[BLOCK],
    the numbers of the windows with the largest sums so far.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _slide(builder, *arguments)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


def _slide(
    builder: Any, ids: Any, wide: Any, number: Any, table: Any, sums: Any, best: Any, first: Any = None, at: Any = None
) -> None:
    """The instructions of `slide`, and where there is an `at`, of `slide_and_note`."""
    pieces, whole = _pieces(BLOCK), ir.IntType(32)
    slots = [(sums, 4 * start, kind) for start, kind in pieces] + [(best, 4 * start, kind) for start, kind in pieces]
    if at is not None:
        slots += [(at, 4 * start, ir.VectorType(whole, kind.count)) for start, kind in pieces]

    def move(step: Any, values: list[Any]) -> list[Any]:
        _ask_for_row(builder, table, ids, step)
        new, old = (_row(builder, table, ids, each) for each in (step, builder.sub(step, wide)))
        totals, largest, numbers = [], [], []
        for piece, (start, kind) in enumerate(pieces):
            change = builder.fsub(_load(builder, new, 4 * start, kind), _load(builder, old, 4 * start, kind))
            totals.append(builder.fadd(values[piece], change))
            most = values[len(pieces) + piece]
            if at is not None:
                is_more = builder.fcmp_ordered(">", totals[-1], most)
                here = _splat(builder, builder.trunc(builder.add(first, step), whole), kind.count)
                numbers.append(builder.select(is_more, here, values[2 * len(pieces) + piece]))
            largest.append(_larger(builder, totals[-1], most))
        return totals + largest + numbers

    values = _repeat(builder, number, [_load(builder, *each) for each in slots], move)
    for (where, start, kind), value in zip(slots, values, strict=True):
        builder.store(value, pointer(builder, where, kind, start), align=4)


def _splat(builder: Any, value: Any, count: int) -> Any:
    kind = ir.VectorType(value.type, count)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), _mask([0] * count))


def _mask(numbers: list[int]) -> Any:
    return ir.Constant(ir.VectorType(ir.IntType(32), len(numbers)), numbers)


@intrinsic(prefer_literal=True)
def spread(
    _: Any,
    rows: Any,
    bias: Any,
    counts: Any,
    sums: Any,
    width: Any,
    filters: Any,
    window: Any,
    average: Any,
    relu: Any,
) -> Any:
    """Take the way back through `pool`: add to each word's sum what its rows add to the pooled outputs.

    The first four arguments are addresses, the others constants, both as `pool` has them. Of windows that are the
    largest alike, the first counts.

    Args:
        rows: of int64[width + window - 1], the address of each word's row.
        bias: of float32[filters].
        counts: of float32[filters], how much each output counts; of an average, of a window's share.
        sums: of float32[width + window - 1].
        width: words of a window.
        filters: outputs of a window.
        window: windows that are pooled.
        average: 1 for their sum, 0 for the largest.
        relu: 1 where a window's outputs below 0 count as 0.
    """
    constants = (width, filters, window, average, relu)
    width, filters, window, average, relu = (constant.literal_value for constant in constants)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows_at, bias_at, counts_at, sums_at = arguments[:4]
        number = ir.IntType(64)
        words = [
            builder.load(pointer(builder, rows_at, number, 8 * word), align=8) for word in range(width + window - 1)
        ]
        totals: list[Any] = [None] * len(words)
        for start, kind in _pieces(filters):
            zero = ir.Constant(kind, [0.0] * kind.count)

            def term(offset: int, word: int, start: int = start, kind: Any = kind) -> Any:
                return _load(builder, words[offset + word], 4 * (word * filters + start), kind)

            first, count = _load(builder, bias_at, 4 * start, kind), _load(builder, counts_at, 4 * start, kind)
            values = []
            for offset in range(window):
                value = first
                for word in range(width):
                    value = builder.fadd(value, term(offset, word))
                values.append(value)
            most = values[0]
            for value in values[1:]:
                most = _larger(builder, most, value)
            for offset, value in enumerate(values):
                passes = builder.fcmp_ordered(">", value, zero) if relu else None
                if not average:
                    largest = builder.fcmp_ordered(">=", value, most)
                    passes = builder.and_(passes, largest) if relu else largest
                share = builder.select(passes, count, zero) if passes is not None else count
                if not average:
                    count = builder.select(largest, zero, count)
                for word in range(width):
                    product = builder.fmul(term(offset, word), share, flags=("contract",))
                    if kind.count < LANES:
                        lanes = [*range(kind.count), *[kind.count] * (LANES - kind.count)]
                        product = builder.shuffle_vector(product, zero, _mask(lanes))
                    before = totals[offset + word]
                    totals[offset + word] = (
                        product if before is None else builder.fadd(before, product, flags=("contract",))
                    )
        for word, total in enumerate(totals):
            half = LANES // 2
            while half:
                parts = [builder.shuffle_vector(total, total, _mask([*range(at, at + half)])) for at in (0, half)]
                total, half = builder.fadd(*parts), half // 2
            sum_at = pointer(builder, sums_at, _FLOAT, 4 * word)
            one = builder.extract_element(total, ir.Constant(ir.IntType(32), 0))
            builder.store(builder.fadd(builder.load(sum_at, align=4), one), sum_at, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4, *constants), generate


@intrinsic(prefer_literal=True)
def dense_back(_: Any, gates: Any, count: Any, weights: Any, counts: Any, units: Any) -> Any:
    """Take the way back through `dense`: how much each feature counts, from how much each unit does.

    Args:
        gates: address of float32[units].
        count: vectors of features.
        weights: address of float32[count, units, LANES].
        counts: address of float32[count, LANES], written.
        units: a constant.
    """
    gates_count = units.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        gates_at, number, weights_at, counts_at = arguments[:4]
        vector = ir.VectorType(_FLOAT, LANES)
        gates = [
            _splat(builder, builder.load(pointer(builder, gates_at, _FLOAT, 4 * unit), align=4), LANES)
            for unit in range(gates_count)
        ]

        def mix(step: Any, _: list[Any]) -> list[Any]:
            row = _behind(builder, weights_at, step, 4 * LANES * gates_count)
            total = ir.Constant(vector, [0.0] * LANES)
            for unit, gate in enumerate(gates):
                product = builder.fmul(_load(builder, row, 4 * LANES * unit, vector), gate, flags=("contract",))
                total = builder.fadd(total, product, flags=("contract",))
            builder.store(total, pointer(builder, _behind(builder, counts_at, step, 4 * LANES), vector), align=4)
            return []

        _repeat(builder, number, [], mix)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, units), generate


def _row(builder: Any, table: Any, ids: Any, number: Any) -> Any:
    """The address of the row that an id names."""
    row = builder.load(pointer(builder, _behind(builder, ids, number, 4), ir.IntType(32)), align=4)
    return _behind(builder, table, builder.zext(row, ir.IntType(64)), 4 * BLOCK)


def _ask_for_row(builder: Any, table: Any, ids: Any, number: Any) -> None:
    """Ask for the row that comes `AHEAD` steps later."""
    index = ir.IntType(64)
    row = _row(builder, table, ids, builder.add(number, ir.Constant(index, AHEAD)))
    for start in range(0, 4 * BLOCK, 64):
        ask_for(builder, builder.add(row, ir.Constant(index, start)))
