"""From a Keras network to the files of the folded engine, where the network has the shape that this engine computes."""

from typing import Any, NamedTuple

import numpy as np

from sentray.inference.folded import (
    Activation,
    Branch,
    Floats,
    Mean,
    Network,
    Part,
    Pooling,
    Sums,
    Wide,
    checked,
    pack,
)

_IGNORED = ("Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity")
"""Layers that do nothing once training is over."""
_CHANNELS = {"data_format": ("channels_last",)}
_COMPUTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "Embedding": {"mask_zero": (False,)},
    "Conv1D": {
        "padding": ("valid",),
        "strides": ((1,),),
        "dilation_rate": ((1,),),
        "groups": (1,),
        "activation": ("linear", "relu"),
        **_CHANNELS,
    },
    "MaxPooling1D": {"padding": ("valid",), **_CHANNELS},
    "AveragePooling1D": {"padding": ("valid",), **_CHANNELS},
    "GlobalMaxPooling1D": _CHANNELS,
    "GlobalAveragePooling1D": _CHANNELS,
    "Flatten": _CHANNELS,
    "ZeroPadding1D": _CHANNELS,
    "Dot": {"axes": (1, [1, 1]), "normalize": (False,)},
    "Concatenate": {"axis": (-1, 1)},
    "LayerNormalization": {
        "center": (False,),
        "scale": (False,),
        "rms_scaling": (False,),
        "axis": (-1, 1, [-1], [1]),
    },
    "Dense": {"activation": ("linear", "relu", "tanh", "sigmoid", "softmax")},
}
"""The layers that the engine computes, and of each the values of its settings where it does not compute all."""
_Dense = tuple[Floats, Floats, Activation]
"""Weights [inputs, units], bias [units] and activation of a dense layer."""

MAX_NORMALIZED = 512
"""Values of a review that are normalized: they pass through a unit matrix before."""


class Unfoldable(Exception):  # noqa: N818
    """The network has a shape that the folded engine does not compute; the text says what."""


def fold_if_possible(model: Any) -> dict[str, bytes]:
    """As `fold`, and no file for another network."""
    try:
        return fold(model)
    except Unfoldable:
        return {}


def fold(model: Any) -> dict[str, bytes]:
    """The files of the folded engine for a Keras network.

    Args:
        model: As `describe` takes it.

    Raises:
        Unfoldable: it is another network, or too large a one.
    """
    network, weights = describe(model)
    try:
        return pack(network, checked(network, weights.__getitem__))
    except ValueError as error:
        raise Unfoldable(str(error)) from error


def describe(model: Any) -> tuple[Network, dict[str, Floats]]:
    """A Keras network as `pack` takes it, however large.

    Args:
        model: embedding → one or more parallel branches, each of Conv1D and pooling, either of which may be missing →
            perhaps a layer normalization → dense layers, with dropout anywhere. Where a review may have any length, the
            branches are other ones: see `_Graph.part`. What the last dense layer takes may have numbers behind it.

    Raises:
        Unfoldable: it is another network.
    """
    graph = _Graph(model)
    stack: list[_Dense] = []
    weights: dict[str, Floats] = {}
    tensors = [model.outputs[0]]
    kind, layer = graph.maker(tensors[0])
    while kind == "Dense" and len(tensors) == 1:
        kernel = layer.get_weights()[0]
        tensors = graph.parts_of(layer.input)
        if not stack and tensors[-1] is graph.numbers:
            kernel, weights["numbers"] = np.split(kernel, [-graph.numbers.shape[1]])
            tensors.pop()
        stack.insert(0, (kernel, _bias(layer, layer.units), layer.activation.__name__))
        kind, layer = graph.maker(tensors[0])
    if not stack:
        raise Unfoldable(f"it ends with {layer.name}, which is not dense")
    epsilon, length = 0.0, graph.length
    if kind == "LayerNormalization" and length and len(tensors) == 1:
        # A dense layer that leaves its values as they are, and normalizes them.
        size = len(stack[0][0])
        if size > MAX_NORMALIZED:
            raise Unfoldable(f"it normalizes {size:,} values, more than {MAX_NORMALIZED}")
        stack.insert(0, (np.eye(size, dtype=np.float32), np.zeros(size, np.float32), "normalize"))
        epsilon, tensors = float(layer.epsilon), graph.parts_of(layer.input)
    folds = [graph.branch(each) if length else graph.part(each) for each in tensors]
    embeddings = {id(each.embedding): each.embedding for each in folds if each.embedding is not None}
    if len(embeddings) > 1:
        raise Unfoldable("its branches have different embeddings")
    for embedding in embeddings.values():
        weights["embedding"] = embedding.get_weights()[0]
    for number, each in enumerate(folds):
        found = {f"kernel{number}": each.kernel, f"bias{number}": each.bias}
        weights |= {name: values for name, values in found.items() if values is not None}
    for number, (inputs, units, _) in enumerate(stack):
        weights |= {f"weights{number}": inputs, f"units{number}": units}
    branches, activations = tuple(each.branch for each in folds), tuple(activation for _, _, activation in stack)
    return Network(length, branches, activations, epsilon, len(weights.get("numbers", ()))), weights


class _Fold(NamedTuple):
    """A branch with its convolution's weights and the embedding layer below."""

    branch: Branch | Part
    kernel: Floats | None
    bias: Floats | None
    embedding: Any


class _Graph:
    """A network's layers, found from the tensors that they make."""

    def __init__(self, model: Any) -> None:
        inputs = {each.name: each for each in model.inputs}
        self.numbers = inputs.pop("numbers", None)
        lengths = {each.shape[1] for each in inputs.values()}
        if len(model.outputs) != 1 or not (len(inputs) == 1 or lengths == {None}):
            raise Unfoldable("it has several inputs of a length, or several outputs")
        self.length: int | None = lengths.pop()
        self._ids = next(iter(inputs.values())) if len(inputs) == 1 else inputs.get("ids")
        self._grams, self._values = inputs.get("grams"), inputs.get("values")
        try:
            self._makers = {id(layer.output): layer for layer in model.layers}
        except AttributeError as error:
            raise Unfoldable("one of its layers is used more than once") from error

    def maker(self, tensor: Any) -> tuple[str, Any]:
        """Kind and layer of what makes a tensor, whatever does nothing left out."""
        layer: Any = self._makers.get(id(tensor))
        while type(layer).__name__ in _IGNORED:
            layer = self._makers.get(id(layer.input))
        if layer is None:
            raise Unfoldable("it is no chain of layers")
        kind, config = type(layer).__name__, layer.get_config()
        if kind not in _COMPUTED:
            raise Unfoldable(f"{layer.name} is a {kind}, which is not computed")
        for name, values in _COMPUTED[kind].items():
            if config.get(name, values[0]) not in values:
                raise Unfoldable(f"{layer.name} has the {name} {config[name]!r}, which is not computed")
        return kind, layer

    def parts_of(self, tensor: Any) -> list[Any]:
        """The tensors that are laid side by side in one, or that itself."""
        kind, layer = self.maker(tensor)
        return list(layer.input) if kind == "Concatenate" else [tensor]

    def branch(self, tensor: Any) -> _Fold:
        """The branch that ends in a tensor.

        Where it has no pooling, every window is pooled alone; words without a convolution are windows of one word with
        the unit matrix as their kernel.
        """
        kind, layer = self.maker(tensor)
        if len(tensor.shape) != 2:
            raise Unfoldable(f"{layer.name} is not flattened")
        if kind == "Flatten":
            kind, layer = self.maker(layer.input)
        pooling: Pooling = "average" if "Average" in kind else "max"
        sizes: tuple[int | None, int] = (1, 1)
        if kind.endswith("Pooling1D"):
            sizes = (None, 1) if kind.startswith("Global") else (layer.pool_size[0], layer.strides[0])
            kind, layer = self.maker(layer.input)
        kernel, bias, relu = None, None, False
        if kind == "Conv1D":
            kernel, bias = layer.get_weights()[0], _bias(layer, layer.filters)
            relu = layer.activation.__name__ == "relu"
            kind, layer = self.maker(layer.input)
        self._require_words(kind, layer)
        if kernel is None or bias is None:
            kernel, bias = np.eye(layer.output_dim, dtype=np.float32)[None], np.zeros(layer.output_dim, np.float32)
        width, _, filters = kernel.shape
        return _Fold(Branch(width, filters, relu, pooling, *sizes), kernel, bias, layer)

    def part(self, tensor: Any) -> _Fold:
        """The branch that ends in a tensor, of a network whose reviews may have any length.

        It is the largest of windows' means times a kernel, where windows reach over both ends of a text; the normalized
        mean of the words; or the sum of the rows of n-grams times their values.
        """
        kind, layer = self.maker(tensor)
        if kind == "Dot":
            return self._wide(layer)
        if kind == "LayerNormalization":
            normalized = layer
            kind, layer = self.maker(layer.input)
            if kind != "GlobalAveragePooling1D":
                raise Unfoldable(f"{normalized.name} does not normalize a mean of words")
            self._require_words(*self.maker(layer.input))
            return _Fold(Mean(float(normalized.epsilon)), None, None, self.maker(layer.input)[1])
        largest = layer
        kind, layer = self.maker(layer.input) if kind == "GlobalMaxPooling1D" else ("", layer)
        rectified = kind == "Conv1D" and layer.kernel_size == (1,) and layer.activation.__name__ == "relu"
        if not rectified or layer.use_bias:
            raise Unfoldable(f"{largest.name} is not the largest of rectified windows without bias")
        kernel, width = layer.get_weights()[0][0], 1
        kind, layer = self.maker(layer.input)
        if kind == "AveragePooling1D":
            pooled, width = layer, layer.pool_size[0]
            kind, layer = self.maker(layer.input)
            if pooled.strides[0] != 1 or kind != "ZeroPadding1D" or tuple(layer.padding) != (width - 1, width - 1):
                raise Unfoldable(f"{pooled.name} does not pool all windows that hold a word")
            kind, layer = self.maker(layer.input)
        self._require_words(kind, layer)
        return _Fold(Sums(width, kernel.shape[1]), kernel, None, layer)

    def _wide(self, dot: Any) -> _Fold:
        makers: list[Any] = [self._makers.get(id(tensor)) for tensor in dot.input]
        tables = [each for each in makers if type(each).__name__ == "Embedding" and each.input is self._grams]
        if len(tables) != 1 or not any(tensor is self._values for tensor in dot.input):
            raise Unfoldable(f"{dot.name} is not the product of n-grams' rows and values")
        self.maker(tables[0].output)
        rows = tables[0].get_weights()[0]
        return _Fold(Wide(rows.shape[1]), rows, None, None)

    def _require_words(self, kind: str, layer: Any) -> None:
        if kind != "Embedding" or layer.input is not self._ids:
            raise Unfoldable(f"{layer.name} is no embedding of the network's input")


def _bias(layer: Any, units: int) -> Floats:
    return layer.get_weights()[1] if layer.use_bias else np.zeros(units, np.float32)
