"""The network of the engine `folded` as files of a bundle, and what is checked before anything is computed with them.

The engine's compiled loops go by addresses: a shape that does not fit would read memory that is not the network's, and
a large number in the files would ask for any memory or time to compile. So all of that is settled here.
"""

import io
import json
import math
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from sentray.bundle import FOLDED, FOLDED_WEIGHTS, Bundle
from sentray.errors import SentrayError
from sentray.inference.simd import LANES

Floats = NDArray[np.float32]
Activation = Literal["linear", "relu", "tanh", "sigmoid", "softmax", "normalize"]
"""What follows a dense layer; `normalize` brings a review's values to mean 0 and variance 1 (Ba et al. 2016)."""

MAX_BYTES = 2 << 30
"""Of the tables, which every scoring process holds; a million words with the tutorial's network take half."""
MAX_TERMS = 4096
"""Vectors that are added for an output of a pooling: the compiled code names each of them."""
MAX_UNITS = 1024
"""Units of the first dense layer, for the same reason."""
MAX_PARTS = 64
"""Branches, and dense layers."""
_HEADER = re.compile(rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \(((?:\d{1,12}, ?)*\d{0,12})\), \} *\n")


@dataclass(frozen=True)
class Branch:
    """A convolution over the words and the pooling of its windows.

    Attributes:
        width: words of a window.
        filters: outputs of a window.
        relu: whether outputs of a window below 0 become 0.
        pooling: what pooling does.
        window: windows that are pooled to one; None pools all of them.
        stride: windows from one pooling to the next.
    """

    width: int
    filters: int
    relu: bool
    pooling: Literal["max", "average"]
    window: int | None
    stride: int

    def windows(self, length: int) -> int:
        """Windows of a review of so many words."""
        return length - self.width + 1

    def pools(self, length: int) -> int:
        """Outputs of the pooling, each of `filters` numbers."""
        return 1 if self.window is None else (self.windows(length) - self.window) // self.stride + 1

    @property
    def terms(self) -> int:
        """Vectors that are added for an output of the pooling."""
        return self.width * (self.window or 1) * -(-self.filters // LANES)


@dataclass(frozen=True)
class Spec:
    """A network as this engine computes it: embedding, parallel branches laid side by side, dense layers.

    Attributes:
        length: words a review is padded or cut to.
        branches: in the order of their outputs.
        activations: of the dense layers.
        epsilon: what `normalize` adds to the variance.
    """

    length: int
    branches: tuple[Branch, ...]
    activations: tuple[Activation, ...]
    epsilon: float = 0.0


_SPEC = TypeAdapter(Spec)


Key = tuple[tuple[int, ...], bytes]


def key(kernel: Floats) -> Key:
    """By what branches share a table: those whose kernels are the same, float32 [width, dimensions, filters]."""
    return kernel.shape, kernel.tobytes()


def require_tables(words: int, kernels: Iterable[Floats]) -> None:
    """Refuse what would take more memory than `MAX_BYTES`.

    Args:
        words: rows of the embedding.
        kernels: of the branches.

    Raises:
        ValueError: saying how much.
    """
    size = sum(4 * words * width * filters for (width, _, filters), _ in {key(kernel) for kernel in kernels})
    if size > MAX_BYTES:
        raise ValueError(f"its tables would take {size / 2**30:.1f} GB of memory")


def pack(spec: Spec, weights: Mapping[str, Floats]) -> dict[str, bytes]:
    """The files of a bundle from which `FoldedEngine` computes.

    Args:
        spec: the network's shape.
        weights: `embedding` [words, dimensions]; for each branch `kernel0` [width, dimensions, filters] and
            `bias0` [filters], `kernel1`, …; for each dense layer `weights0` [inputs, units] and `units0` [units], ….
    """
    arrays = io.BytesIO()
    np.savez(arrays, **{name: np.asarray(value, np.float32, "C") for name, value in weights.items()})  # type: ignore[arg-type]
    return {FOLDED: (json.dumps(asdict(spec), indent=1) + "\n").encode(), FOLDED_WEIGHTS: arrays.getvalue()}


def load(bundle: Bundle) -> tuple[Spec, dict[str, Floats]]:
    """The network and its weights, as `pack` takes them: every shape fits, and every size is one that can be served.

    Raises:
        SentrayError: the bundle has no such files, they are damaged, or they do not fit it.
    """
    try:
        spec = _SPEC.validate_json((bundle.path / FOLDED).read_bytes(), strict=True)
        _require_sound(spec, bundle)
        with zipfile.ZipFile(bundle.path / FOLDED_WEIGHTS) as archive:
            weights = _weights(archive, spec, bundle)
    except (OSError, ValueError, KeyError, EOFError, struct.error, zipfile.BadZipFile, NotImplementedError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SentrayError(
            f"the folded network in {bundle.path} is damaged or does not fit the bundle ({told}): train it "
            "again, or score with --engine keras"
        ) from error
    return spec, weights


def load_embedding(bundle: Bundle) -> Floats:
    """The vectors of the words, float32 [words, dimensions].

    Raises:
        SentrayError: as `load`.
    """
    return load(bundle)[1]["embedding"]


def _require_sound(spec: Spec, bundle: Bundle) -> None:
    """Refuse numbers that no network has, or that would take all memory or hours to compile.

    Raises:
        ValueError: saying which.
    """

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(what)

    require(spec.length == bundle.max_length, f"it takes {spec.length:,} words, the bundle {bundle.max_length:,}")
    for parts in (spec.branches, spec.activations):
        require(0 < len(parts) <= MAX_PARTS, f"it has {len(parts)} branches or layers")
    require(math.isfinite(spec.epsilon) and spec.epsilon >= 0, f"its epsilon is {spec.epsilon}")
    for branch in spec.branches:
        require(min(branch.width, branch.filters, branch.stride, branch.window or 1) >= 1, "a branch has a size of 0")
        require(branch.windows(spec.length) >= (branch.window or 1), "a branch is wider than a review")
        require(branch.terms <= MAX_TERMS, f"a branch adds {branch.terms:,} vectors for an output")


def _weights(archive: zipfile.ZipFile, spec: Spec, bundle: Bundle) -> dict[str, Floats]:
    """All weights, each of the shape that the others ask for."""
    words, length = bundle.vocabulary.size, spec.length
    weights = {"embedding": _array(archive, "embedding", words, None)}
    dimensions = weights["embedding"].shape[1]
    inputs, kernels = 0, []
    for number, branch in enumerate(spec.branches):
        kernel = _array(archive, f"kernel{number}", branch.width, dimensions, branch.filters)
        weights |= {f"kernel{number}": kernel, f"bias{number}": _array(archive, f"bias{number}", branch.filters)}
        inputs += branch.filters * branch.pools(length)
        kernels.append(kernel)
    require_tables(words, kernels)
    units = inputs
    for number in range(len(spec.activations)):
        weights[f"weights{number}"] = _array(archive, f"weights{number}", units, None)
        units = weights[f"weights{number}"].shape[1]
        weights[f"units{number}"] = _array(archive, f"units{number}", units)
    if (first := len(weights["units0"])) > MAX_UNITS:
        raise ValueError(f"its first layer has {first:,} units")
    if units not in ((1, 2) if len(bundle.labels) == 2 else (len(bundle.labels),)):
        raise ValueError(f"it gives {units:,} scores for {len(bundle.labels):,} labels")
    return weights


def _array(archive: zipfile.ZipFile, name: str, *wanted: int | None) -> Floats:
    """An array as `numpy.savez` writes it; it is never larger than its part of the file.

    Args:
        archive: holds it.
        name: of the array.
        wanted: its shape, with None for any length.

    Raises:
        ValueError: it has another shape or type, or holds something that is no finite number.
    """
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.file_size > MAX_BYTES:
        raise ValueError(f"{name} is compressed or too large")
    with archive.open(info) as stream:
        magic, size = struct.unpack("<8sH", stream.read(10))
        header = _HEADER.fullmatch(stream.read(size))
        if magic != b"\x93NUMPY\x01\x00" or header is None:
            raise ValueError(f"{name} is no array of 32-bit floats")
        shape = tuple(int(length) for length in header[1].split(b",") if length.strip())
        fits = len(shape) == len(wanted) and all(w in (None, s) and s for s, w in zip(shape, wanted, strict=True))
        if not fits or 4 * math.prod(shape) != info.file_size - 10 - size:
            raise ValueError(f"{name} has the shape {shape}")
        values = np.empty(shape, "<f4")
        if stream.readinto(values.reshape(-1).view(np.uint8)) != values.nbytes:  # type: ignore[attr-defined]
            raise ValueError(f"{name} is cut short")
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds something that is no number")
    return values
