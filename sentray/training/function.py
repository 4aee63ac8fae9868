"""`checked`: a user's function, called for a small network before the corpus is read, and what a bundle keeps of it."""

import dataclasses
import functools
from typing import Any

import numpy as np

from sentray import models
from sentray.bundle import Function
from sentray.config import TrainSettings
from sentray.errors import SentrayError, first_line
from sentray.inference.networks import as_inputs, needs_trust
from sentray.models import FUNCTION, IDS, MIN_PADDED, NUMBERS, OUTPUT, Built, NetworkSpec

_ROWS, _LENGTH = 100, 100
"""Of the small network, where the settings say nothing."""
_READ = {"embedding": "vectors", "dimensions": "dimensions", "freeze": "freeze"}
"""What a function reads of its spec, itself or by `spec.embedding()`, if a setting is of any use."""


class _Noting(NetworkSpec):
    """Notes in `read` what a function reads of it."""

    def __getattribute__(self, name: str) -> Any:
        if name in _READ.values():
            object.__getattribute__(self, "__dict__").setdefault("read", set()).add(name)
        return object.__getattribute__(self, name)


@dataclasses.dataclass(frozen=True)
class _Look:
    """What is known of a function's network.

    Attributes:
        compiled: Whether it has an optimizer of its own.
        half: Whether it is computed in float16.
        layers: Those that need trust; see `needs_trust`.
        read: What the function reads of its spec, of the values of `_READ`.
    """

    compiled: bool
    half: bool
    layers: tuple[str, ...]
    read: frozenset[str]


def checked(settings: TrainSettings) -> Function | None:
    """What is kept of the function of `--model`; None where the model is one of ours.

    Raises:
        SentrayError: There is none, its source cannot be read, it raises, or what it gives breaks the contract of
            `sentray.NetworkSpec` or does not go with the settings.
    """
    name = settings.model
    architecture = models.architecture(name)
    if not isinstance(architecture, Built) or architecture.name != FUNCTION:
        return None
    task = settings.task
    labels = () if task == "regression" else ("a", "b", "c") if task == "multilabel" else ("a", "b")
    spec = NetworkSpec(
        rows=_ROWS,
        length=settings.max_length or _LENGTH,
        classes=len(labels),
        dimensions=settings.dimensions or architecture.dimensions,
        freeze=settings.freeze,
        task=task,
        numbers=len(settings.numeric),
        labels=labels,
    )
    digest = architecture.digest
    look = _looked_at(architecture, digest, spec)
    _require_settings(name, look, settings)
    return Function(name=name, digest=digest, layers=look.layers)


# Trials ask again.
@functools.lru_cache(maxsize=64)
def _looked_at(architecture: Built, digest: str, spec: NetworkSpec) -> _Look:
    """Build a function's network and look at it."""
    name = architecture.source
    models.prepare_tensorflow(1)
    noting = _Noting(**{each.name: getattr(spec, each.name) for each in dataclasses.fields(spec)})
    try:
        model = architecture.function(noting)
    # A user's function may raise anything.
    except Exception as error:
        raise SentrayError(
            f"--model {name} raises {type(error).__name__}: {_one_line(error)}; it is called with a "
            "sentray.NetworkSpec and gives a keras.Model"
        ) from error
    read = frozenset(vars(noting).get("read", ()))
    _require_contract(name, model, spec)
    half = any(layer.compute_dtype == "float16" for layer in model._flatten_layers())
    if model.compiled:
        _require_optimizer(name, model, half)
    layers = needs_trust(model, name.partition(":")[0])
    _require_loads(name, model, Function(name=name, digest=digest, layers=layers).own_layers)
    _require_numbers(name, model, spec)
    return _Look(model.compiled, half, layers, read)


def _require_contract(name: str, model: Any, spec: NetworkSpec) -> None:
    """Refuse what is no model, or has other inputs or another end than the spec's."""
    import keras

    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise SentrayError(
            f"--model {name} gives a {type(model).__name__}, not a keras.Model of inputs and outputs; end it with "
            "return keras.Model(ids, spec.output()(features))"
        )
    wanted = {IDS: "spec.ids()"} | ({NUMBERS: "spec.numbers_input()"} if spec.numbers else {})
    found = [each.name for each in model.inputs]
    if sorted(found) != sorted(wanted):
        raise SentrayError(
            f"the network of --model {name} has the inputs {', '.join(found)}, not {', '.join(wanted)}: make them with "
            f"{' and '.join(wanted.values())}"
        )
    last = next((layer for layer in model.layers if layer.name == OUTPUT), None)
    if (
        not isinstance(last, keras.layers.Dense)
        or [id(each) for each in model.outputs] != [id(last.output)]
        or last.output.shape != (None, spec.outputs)
    ):
        raise SentrayError(
            f"the last layer of the network of --model {name} is not spec.output() on the features of a review: end "
            "it with return keras.Model(ids, spec.output()(features))"
        )


def _require_optimizer(name: str, model: Any, half: bool) -> None:
    """Refuse what the model's own optimizer may not do."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if optimizer.use_ema and not optimizer.ema_overwrite_frequency:
        raise SentrayError(
            f"the optimizer of --model {name} has use_ema=True without ema_overwrite_frequency, so that what is "
            "measured on held-out rows is not what is kept: set ema_overwrite_frequency"
        )
    if half and optimizer is model.optimizer:
        raise SentrayError(
            f"--model {name} trains in float16 without loss scaling, so that small gradients become 0: leave out "
            "auto_scale_loss=False, or take mixed_bfloat16"
        )


def _require_settings(name: str, look: _Look, settings: TrainSettings) -> None:
    """Refuse settings of which a network makes no use, or that do not go with its numbers."""
    if look.compiled:
        for option in ("learning_rate", "embedding_learning_rate", "warmup", "decay"):
            if getattr(settings, option) != TrainSettings.model_fields[option].default:
                raise SentrayError(
                    f"--model {name} compiles its model with an optimizer of its own, which --"
                    f"{option.replace('_', '-')} does not change: leave one of both out"
                )
    elif look.half and settings.embedding_learning_rate is not None:
        raise SentrayError(
            f"--embedding-learning-rate does not go with the float16 of --model {name}: leave it out, or take "
            "mixed_bfloat16"
        )
    for option, value in _READ.items():
        if getattr(settings, option) and value not in look.read:
            raise SentrayError(
                f"the network of --model {name} makes no use of --{option}: take spec.embedding() for its words' "
                f"vectors, or spec.{value}, or leave the option out"
            )


def _require_loads(name: str, model: Any, own: list[str]) -> None:
    """Refuse a network that its own description does not give again, as it must when the bundle is loaded."""
    from keras.saving import deserialize_keras_object, serialize_keras_object

    if ":lambda" in own:
        raise SentrayError(
            f"the network of --model {name} has a Lambda layer with code of its own, which no file can hold safely: "
            "write it as a layer, class Mine(keras.layers.Layer)"
        )
    try:
        described = serialize_keras_object(model) | {"compile_config": None}
        deserialize_keras_object(described, custom_objects=models.custom_objects(own))
    except Exception as error:
        raise SentrayError(
            f"the network of --model {name} cannot be loaded again ({type(error).__name__}: {_one_line(error)}): a "
            "layer of your own needs get_config with the arguments of its __init__, at the top of a module"
        ) from error


def _require_numbers(name: str, model: Any, spec: NetworkSpec) -> None:
    """Refuse a network that gives no number for a review without a known word, or of one."""
    ids = np.zeros((2, model.inputs[[each.name for each in model.inputs].index(IDS)].shape[1] or MIN_PADDED), np.int32)
    ids[1, 0] = 1
    given = {IDS: ids, NUMBERS: np.zeros((2, spec.numbers), np.float32)}
    found = np.asarray(model(as_inputs([given[each.name] for each in model.inputs]), training=False))
    for row, about in zip(found, ("without a known word", "of one word"), strict=True):
        if not np.isfinite(row).all():
            raise SentrayError(
                f"the network of --model {name} gives no number for a review {about}: a mean over masked words, as of "
                "GlobalAveragePooling1D, divides by 0 there; take spec.embedding() without mask=True before it, or "
                "where a layer of yours divides, divide by something above 0"
            )


def _one_line(error: Exception) -> str:
    """The first line of an error; of Keras's long ones the first that says something."""
    lines = [line.strip("\x1b[1m0 ") for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return (said[0].rstrip(".") if said else first_line(error))[:300]
