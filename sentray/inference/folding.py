"""From a Keras network to the files of the folded engine, where the network has the shape that this engine computes."""

from typing import Any, NamedTuple

import numpy as np

from sentray.inference.folded import Activation, Branch, Floats, Network, Pooling, checked, pack

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
        model: embedding → one or more parallel branches, each of Conv1D and pooling, either of which may be missing →
            perhaps a layer normalization → dense layers, with dropout anywhere.

    Raises:
        Unfoldable: it is another network, or too large a one.
    """
    graph, tensor = _Graph(model), model.outputs[0]
    stack: list[_Dense] = []
    kind, layer = graph.maker(tensor)
    while kind == "Dense":
        stack.insert(0, (layer.get_weights()[0], _bias(layer, layer.units), layer.activation.__name__))
        tensor = layer.input
        kind, layer = graph.maker(tensor)
    if not stack:
        raise Unfoldable(f"it ends with {layer.name}, which is not dense")
    epsilon = 0.0
    if kind == "LayerNormalization":
        # A dense layer that leaves its values as they are, and normalizes them.
        size = len(stack[0][0])
        if size > MAX_NORMALIZED:
            raise Unfoldable(f"it normalizes {size:,} values, more than {MAX_NORMALIZED}")
        stack.insert(0, (np.eye(size, dtype=np.float32), np.zeros(size, np.float32), "normalize"))
        epsilon, tensor = float(layer.epsilon), layer.input
        kind, layer = graph.maker(tensor)
    folds = [graph.branch(part) for part in (layer.input if kind == "Concatenate" else [tensor])]
    embedding = folds[0].embedding
    if any(each.embedding is not embedding for each in folds):
        raise Unfoldable("its branches have different embeddings")
    weights: dict[str, Floats] = {"embedding": embedding.get_weights()[0]}
    for number, each in enumerate(folds):
        weights |= {f"kernel{number}": each.kernel, f"bias{number}": each.bias}
    for number, (inputs, units, _) in enumerate(stack):
        weights |= {f"weights{number}": inputs, f"units{number}": units}
    branches, activations = tuple(each.branch for each in folds), tuple(activation for _, _, activation in stack)
    network = Network(model.input_shape[1], branches, activations, epsilon)
    try:
        return pack(network, checked(network, weights.__getitem__))
    except ValueError as error:
        raise Unfoldable(str(error)) from error


class _Fold(NamedTuple):
    """A branch with its convolution's weights and the embedding layer below."""

    branch: Branch
    kernel: Floats
    bias: Floats
    embedding: Any


class _Graph:
    """A network's layers, found from the tensors that they make."""

    def __init__(self, model: Any) -> None:
        if len(model.inputs) != 1 or len(model.outputs) != 1 or model.input_shape[1] is None:
            raise Unfoldable("it has several inputs or outputs, or no fixed length")
        self._input = model.inputs[0]
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
        if kind != "Embedding" or layer.input is not self._input:
            raise Unfoldable(f"{layer.name} is no embedding of the network's input")
        if kernel is None or bias is None:
            kernel, bias = np.eye(layer.output_dim, dtype=np.float32)[None], np.zeros(layer.output_dim, np.float32)
        width, _, filters = kernel.shape
        return _Fold(Branch(width, filters, relu, pooling, *sizes), kernel, bias, layer)


def _bias(layer: Any, units: int) -> Floats:
    return layer.get_weights()[1] if layer.use_bias else np.zeros(units, np.float32)
