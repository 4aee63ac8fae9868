"""From a Keras network to the files of the folded engine, where the network has the shape that this engine computes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray.scoring.folded import Branch, Spec, pack

_IGNORED = ("Dropout", "SpatialDropout1D", "GaussianNoise", "GaussianDropout", "AlphaDropout", "Identity")
"""Layers that do nothing once training is over."""
_POOLINGS = {
    "MaxPooling1D": ("max", False),
    "AveragePooling1D": ("average", False),
    "GlobalMaxPooling1D": ("max", True),
    "GlobalAveragePooling1D": ("average", True),
}
_DENSE_ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "softmax")


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
        model: embedding → one or more parallel Conv1D → pooling → dense layers, with dropout anywhere.

    Raises:
        Unfoldable: it is another network.
    """
    graph = _Graph(model)
    dense, tensor = graph.dense_stack(model.outputs[0])
    branches, convolutions = zip(*(graph.branch(part) for part in graph.parts(tensor)), strict=True)
    embeddings = {id(graph.embedding(layer.input)): graph.embedding(layer.input) for layer in convolutions}
    if len(embeddings) != 1:
        raise Unfoldable("its convolutions have different embeddings")
    weights: dict[str, NDArray[np.float32]] = {"embedding": next(iter(embeddings.values())).get_weights()[0]}
    for number, layer in enumerate(convolutions):
        weights |= {f"kernel{number}": layer.get_weights()[0], f"bias{number}": _bias(layer, layer.filters)}
    for number, layer in enumerate(dense):
        weights |= {f"weights{number}": layer.get_weights()[0], f"units{number}": _bias(layer, layer.units)}
    spec = Spec(model.input_shape[1], branches, tuple(_activation(layer) for layer in dense))
    return pack(spec, weights)


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

    def dense_stack(self, tensor: Any) -> tuple[list[Any], Any]:
        """The dense layers at the end, first to last, and the tensor that they begin with."""
        stack: list[Any] = []
        while type(layer := self.maker(tensor)).__name__ == "Dense":
            if _activation(layer) not in _DENSE_ACTIVATIONS:
                raise Unfoldable(f"{layer.name} has the activation {_activation(layer)}")
            stack.insert(0, layer)
            tensor = layer.input
        if not stack:
            raise Unfoldable(f"it ends with {layer.name}, which is not dense")
        return stack, tensor

    def parts(self, tensor: Any) -> list[Any]:
        """The tensors that are laid side by side."""
        layer = self.maker(tensor)
        if type(layer).__name__ != "Concatenate":
            return [tensor]
        if layer.axis not in (-1, 1) or any(len(part.shape) != 2 for part in layer.input):
            raise Unfoldable(f"{layer.name} joins what is not flat")
        return list(layer.input)

    def branch(self, tensor: Any) -> tuple[Branch, Any]:
        """The branch that ends in a tensor, and its convolution."""
        layer = self.maker(tensor)
        flat = type(layer).__name__ == "Flatten"
        pool = self.maker(layer.input) if flat else layer
        kind = type(pool).__name__
        if kind not in _POOLINGS:
            raise Unfoldable(f"{pool.name} is no pooling")
        pooling, everything = _POOLINGS[kind]
        if not everything and (not flat or pool.padding != "valid"):
            raise Unfoldable(f"{pool.name} pads, or is not flattened")
        convolution = self.maker(pool.input)
        plain = type(convolution).__name__ == "Conv1D" and (
            convolution.padding == "valid"
            and tuple(convolution.strides) == (1,)
            and tuple(convolution.dilation_rate) == (1,)
            and convolution.groups == 1
            and _activation(convolution) in ("relu", "linear")
        )
        if not plain or any(layer.data_format != "channels_last" for layer in (pool, convolution)):
            raise Unfoldable(f"{convolution.name} is no plain one-dimensional convolution")
        return (
            Branch(
                width=convolution.kernel_size[0],
                filters=convolution.filters,
                relu=_activation(convolution) == "relu",
                pooling="average" if pooling == "average" else "max",
                window=None if everything else _one(pool.pool_size),
                stride=1 if everything else _one(pool.strides),
            ),
            convolution,
        )

    def embedding(self, tensor: Any) -> Any:
        """The embedding that makes a tensor from the network's input."""
        layer = self.maker(tensor)
        if type(layer).__name__ != "Embedding" or layer.mask_zero:
            raise Unfoldable(f"{layer.name} is no embedding without mask")
        if layer.input is not self._input:
            raise Unfoldable(f"something stands before {layer.name}")
        return layer


def _activation(layer: Any) -> Any:
    return getattr(layer.activation, "__name__", None)


def _bias(layer: Any, units: int) -> NDArray[np.float32]:
    return layer.get_weights()[1] if layer.use_bias else np.zeros(units, np.float32)


def _one(value: Any) -> int:
    return int(value[0] if isinstance(value, tuple | list) else value)
