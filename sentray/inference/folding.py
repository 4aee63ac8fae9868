"""From a Keras network to the files of the folded engine, where the network has the shape that this engine computes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from sentray.inference.folded import Activation, Branch, Floats, Network, Pooling, checked, pack

_IGNORED = ("Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity")
"""Layers that do nothing once training is over."""
_POOLINGS = ("MaxPooling1D", "AveragePooling1D", "GlobalMaxPooling1D", "GlobalAveragePooling1D")
_Dense = tuple[Floats, Floats, Activation]
"""Weights [inputs, units], bias [units] and activation of a dense layer."""
_DENSE_ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "softmax")

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
    graph = _Graph(model)
    stack, tensor = graph.dense_stack(model.outputs[0])
    epsilon, tensor = graph.normalization(tensor)
    folds = [graph.branch(part) for part in graph.parts(tensor)]
    embedding = folds[0].embedding
    if any(each.embedding is not embedding for each in folds):
        raise Unfoldable("its branches have different embeddings")
    weights: dict[str, Floats] = {"embedding": embedding.get_weights()[0]}
    for number, each in enumerate(folds):
        weights |= {f"kernel{number}": each.kernel, f"bias{number}": each.bias}
    if epsilon is not None:
        stack.insert(0, _normalizing(len(stack[0][0])))
    for number, (inputs, units, _) in enumerate(stack):
        weights |= {f"weights{number}": inputs, f"units{number}": units}
    branches, activations = tuple(each.branch for each in folds), tuple(activation for _, _, activation in stack)
    network = Network(model.input_shape[1], branches, activations, epsilon or 0.0)
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


def _normalizing(size: int) -> _Dense:
    """A dense layer that leaves its values as they are, and normalizes them."""
    if size > MAX_NORMALIZED:
        raise Unfoldable(f"it normalizes {size:,} values, more than {MAX_NORMALIZED}")
    return np.eye(size, dtype=np.float32), np.zeros(size, np.float32), "normalize"


class _Graph:
    """A network's layers, found from the tensors that they make."""

    def __init__(self, model: Any) -> None:
        if len(model.inputs) != 1 or len(model.outputs) != 1 or model.input_shape[1] is None:
            raise Unfoldable("it has several inputs or outputs, or no fixed length")
        self._input = model.inputs[0]
        try:
            self._makers: Mapping[int, Any] = {id(layer.output): layer for layer in model.layers}
        except AttributeError as error:
            raise Unfoldable("one of its layers is used more than once") from error

    def maker(self, tensor: Any) -> Any:
        """The layer that makes a tensor, whatever does nothing left out."""
        layer = self._makers.get(id(tensor))
        while layer is not None and type(layer).__name__ in _IGNORED:
            layer = self._makers.get(id(layer.input))
        if layer is None:
            raise Unfoldable("it is no chain of layers")
        return layer

    def dense_stack(self, tensor: Any) -> tuple[list[_Dense], Any]:
        """The dense layers at the end, first to last, and the tensor that they begin with."""
        stack: list[_Dense] = []
        while type(layer := self.maker(tensor)).__name__ == "Dense":
            if _activation(layer) not in _DENSE_ACTIVATIONS:
                raise Unfoldable(f"{layer.name} has the activation {_activation(layer)}")
            stack.insert(0, (layer.get_weights()[0], _bias(layer, layer.units), _activation(layer)))
            tensor = layer.input
        if not stack:
            raise Unfoldable(f"it ends with {layer.name}, which is not dense")
        return stack, tensor

    def normalization(self, tensor: Any) -> tuple[float | None, Any]:
        """The epsilon of the normalization that makes a tensor, None where there is none, and what is normalized."""
        layer = self.maker(tensor)
        if type(layer).__name__ != "LayerNormalization":
            return None, tensor
        last = layer.axis in (-1, 1, [-1], [1]) and len(tensor.shape) == 2
        if layer.center or layer.scale or layer.rms_scaling or not last:
            raise Unfoldable(f"{layer.name} does more than bring a review's values to mean 0 and variance 1")
        return float(layer.epsilon), layer.input

    def parts(self, tensor: Any) -> list[Any]:
        """The tensors that are laid side by side."""
        layer = self.maker(tensor)
        if type(layer).__name__ != "Concatenate":
            return [tensor]
        if layer.axis not in (-1, 1) or any(len(part.shape) != 2 for part in layer.input):
            raise Unfoldable(f"{layer.name} joins what is not flat")
        return list(layer.input)

    def branch(self, tensor: Any) -> _Fold:
        """The branch that ends in a tensor; where it has no pooling, every window is pooled alone."""
        layer = self.maker(tensor)
        if len(tensor.shape) != 2:
            raise Unfoldable(f"{layer.name} is not flattened")
        if type(layer).__name__ == "Flatten":
            _require_channels_last(layer)
            tensor = layer.input
            layer = self.maker(tensor)
        pools = type(layer).__name__ in _POOLINGS
        kernel, bias, relu, embedding = self.windows(layer.input if pools else tensor)
        width, _, filters = kernel.shape
        pooling, window, stride = _pooling(layer) if pools else ("max", 1, 1)
        return _Fold(Branch(width, filters, relu, pooling, window, stride), kernel, bias, embedding)

    def windows(self, tensor: Any) -> tuple[Floats, Floats, bool, Any]:
        """Kernel, bias, whether outputs are rectified, and embedding of the windows in a tensor.

        Words without a convolution are windows of one word with the unit matrix as their kernel.
        """
        layer = self.maker(tensor)
        if type(layer).__name__ == "Embedding":
            size = layer.output_dim
            return np.eye(size, dtype=np.float32)[None], np.zeros(size, np.float32), False, self.embedding(tensor)
        plain = type(layer).__name__ == "Conv1D" and (
            layer.padding == "valid"
            and tuple(layer.strides) == (1,)
            and tuple(layer.dilation_rate) == (1,)
            and layer.groups == 1
            and _activation(layer) in ("relu", "linear")
        )
        if not plain:
            raise Unfoldable(f"{layer.name} is neither embedding nor plain one-dimensional convolution nor pooling")
        _require_channels_last(layer)
        relu = _activation(layer) == "relu"
        return layer.get_weights()[0], _bias(layer, layer.filters), relu, self.embedding(layer.input)

    def embedding(self, tensor: Any) -> Any:
        """The embedding that makes a tensor from the network's input."""
        layer = self.maker(tensor)
        if type(layer).__name__ != "Embedding" or layer.mask_zero:
            raise Unfoldable(f"{layer.name} is no embedding without mask")
        if layer.input is not self._input:
            raise Unfoldable(f"something stands before {layer.name}")
        return layer


def _pooling(layer: Any) -> tuple[Pooling, int | None, int]:
    """What a pooling does, how many windows it pools (None: all) and its stride."""
    _require_channels_last(layer)
    pooling: Pooling = "average" if "Average" in type(layer).__name__ else "max"
    if type(layer).__name__.startswith("Global"):
        return pooling, None, 1
    if layer.padding != "valid":
        raise Unfoldable(f"{layer.name} pads")
    return pooling, _one(layer.pool_size), _one(layer.strides)


def _require_channels_last(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise Unfoldable(f"{layer.name} takes channels first")


def _activation(layer: Any) -> Any:
    return getattr(layer.activation, "__name__", None)


def _bias(layer: Any, units: int) -> Floats:
    return layer.get_weights()[1] if layer.use_bias else np.zeros(units, np.float32)


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple | list) else value)
