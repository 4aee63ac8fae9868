"""Helpers of compiled loops over bytes: reading and writing at addresses, and 64 bytes at a time as bit masks.

With masks a loop looks only at the bytes of interest, as simdjson does with JSON (Langdale and Lemire 2019). Arguments
are addresses, since Numba counts an array's references with atomic operations at every call. Numba's cache on disk
looks only at the file of a compiled function: after a change here, delete the `*.nbi` files of a working copy.
"""

import contextlib
import os
import stat
import tempfile
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, config
from numba.extending import intrinsic

BLOCK = 64
_U1, _ALL = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)


def _cache_folder() -> str | None:
    """A folder of ours alone for compiled code in the temporary one; None where there cannot be one.

    Whoever may write there may run code as us, so that another's folder is not taken.
    """
    try:
        folder = os.path.join(tempfile.gettempdir(), f"sentray-compiled-{os.getuid()}")
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
        return folder if is_ours and os.access(folder, os.W_OK) else None
    except OSError:
        return None


def _keep_code() -> tuple[bool, str | None]:
    """Whether Numba can keep compiled code, and what to tell where that is not where it usually does."""
    for folder in (None, _cache_folder):
        if folder and (found := folder()):
            config.CACHE_DIR = found
        with contextlib.suppress(RuntimeError):
            njit(cache=True)(_cache_folder)
            cure = "set NUMBA_CACHE_DIR to a folder that lasts"
            return True, folder and f"compiled code is kept in {found}, as no usual folder can be written; {cure}"
    cure = "set NUMBA_CACHE_DIR to a folder that can be written"
    return False, f"compiled code cannot be kept, so that each process compiles anew, for half a minute; {cure}"


CACHED, CACHE_NOTE = _keep_code()
"""Whether the next process finds the code that this one compiles, and a sentence for the user where it may not."""
compiled = njit(cache=CACHED, nogil=True)
contracted = njit(nogil=True, cache=CACHED, fastmath={"contract", "nsz"}, error_model="numpy")
"""For arithmetic of floats: a product and a sum may be rounded once, and nothing is added in another order."""
inlined = njit(cache=CACHED, nogil=True, inline="always")
"""For what is called for every word, where calls would take a fifth more time; then arguments must not be arrays."""


@inlined
def address(array: Any) -> Any:
    """Where an array's memory begins, int64: `ctypes` gives an unsigned number, and Numba adds those as floats."""
    return np.int64(array.ctypes.data)


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
int64_at = _loader(64, types.int64)
number_at = _loader(64, types.uint64)


def _storer(bits: int) -> Any:
    """An intrinsic that writes the low so many bits of a number to an address."""

    @intrinsic
    def store(_: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.IntType(bits)
            value = builder.trunc(arguments[1], kind) if bits < 64 else arguments[1]
            builder.store(value, pointer(builder, arguments[0], kind), align=1)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    return store


set_byte = _storer(8)
set_int32 = _storer(32)
set_int64 = _storer(64)


def ask_for(builder: Any, address: Any) -> None:
    """Ask for the cache line of an address, which is read soon; any address will do."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    read, near, data = (ir.Constant(number, value) for value in (0, 3, 1))
    builder.call(fetch, [builder.inttoptr(address, byte), read, near, data])


@intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """Ask for the cache line of an address, which is read soon; any address will do."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ask_for(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def which_equal(_: Any, address: Any, number: Any) -> Any:
    """Which of the 8 64-bit numbers at an address, a multiple of 8, are a number, and which are 0: a bit each."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(64), 8)
        block = builder.load(pointer(builder, arguments[0], vector), align=8)
        wanted = ir.Constant(vector, ir.Undefined)
        for lane in range(8):
            wanted = builder.insert_element(wanted, arguments[1], ir.Constant(ir.IntType(32), lane))
        found = []
        for against in (wanted, ir.Constant(vector, [0] * 8)):
            bits = builder.bitcast(builder.icmp_unsigned("==", block, against), ir.IntType(8))
            found.append(builder.zext(bits, ir.IntType(64)))
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(types.uint64, 2)(types.int64, types.uint64), generate


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
def set_bits(_: Any, bits: Any) -> Any:
    """How many bits of a number are set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic
def lowest(_: Any, bits: Any) -> Any:
    """Position of the lowest set bit of a number that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], cgutils.true_bit)

    return types.int64(types.uint64), generate


@inlined
def run(first: int, stop: int) -> np.uint64:
    """Bits from one position to another, exclusive; the latter may be beyond the block."""
    upto = _ALL if stop >= BLOCK else (_U1 << np.uint64(stop)) - _U1
    return upto & ~((_U1 << np.uint64(first)) - _U1)


def _ranges(members: bytes) -> list[tuple[int, int]]:
    """The runs of neighbours among bytes, first and last of each."""
    values = sorted(set(members))
    firsts = [value for value in values if value - 1 not in values]
    lasts = [value for value in values if value + 1 not in values]
    return list(zip(firsts, lasts, strict=True))
