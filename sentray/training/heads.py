"""`Heads`: a network in training, whose heads learn beside each other from the same batches, each by its own loss.

No gradient crosses from one head to another, so that a network of several heads is several networks, and only the Keras
model that comes out of them is one: its last layer mixes their logits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sentray import models
from sentray.bundle import ModelSpec
from sentray.config import TrainSettings
from sentray.models import OUTPUT
from sentray.training import wide, window_sums
from sentray.training.adam import Rate, schedule
from sentray.training.allreduce import AllReduce
from sentray.training.batches import Reviews
from sentray.training.calibration import Mix
from sentray.training.continuing import layers_of
from sentray.training.gradients import Floats, Gradients, clipped
from sentray.training.training_set import TrainingSet

State = dict[str, NDArray[Any]]


class Head(Protocol):
    """What is trained by one loss."""

    def pack(self, reviews: Reviews, numbers: Floats | None = None) -> Any:
        """Lay reviews out for `gradients` and `logits`.

        Args:
            reviews: int32 [words] each, cut to the network's length.
            numbers: Of the reviews besides their texts, float32 [reviews, columns]; None where they have none.
        """

    def gradients(self, packed: Any, wanted: NDArray[Any], weights: Floats, batch_rows: int) -> Gradients:
        """Loss of this worker's rows and what they add to the global batch's gradients.

        Args:
            packed: This worker's reviews.
            wanted: What the outputs should be; see `sentray.task.wanted`.
            weights: float32 [reviews], weights of their losses.
            batch_rows: Rows of the global batch, over which the loss is averaged.
        """

    def apply(self, gradients: Gradients) -> bool:
        """Take a step with the global batch's gradients; whether the head can still learn."""

    def logits(self, packed: Any) -> Floats:
        """The outputs before the last activation, without dropout; float32 [reviews, outputs]."""

    def layers(self) -> dict[str, list[Floats]]:
        """The weights as of now, by the names of the Keras model's layers.

        Those of `OUTPUT` are the last layer's kernel of this head's features, [features, outputs], and its bias.
        """

    def constants(self) -> list[NDArray[Any]]:
        """What training does not change and every worker must have alike."""

    def state(self) -> State:
        """All that training changes, by name."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go back to a state that `state` gave."""


class Packs(dict[str, Any]):
    """Reviews as each head wants them, by the heads' names; for a head that learns no more only when asked for."""

    def __init__(self, heads: Mapping[str, Head], reviews: Reviews, numbers: Floats | None = None) -> None:
        self._heads, self._reviews, self._numbers = heads, reviews, numbers

    def __missing__(self, name: str) -> Any:
        """Lay the reviews out for a head."""
        self[name] = packed = self._heads[name].pack(self._reviews, self._numbers)
        return packed


class Heads:
    """A network in training.

    Args:
        heads: The heads by their names.
        model: Makes the Keras model that their weights go into.
        fixed: The epochs of those heads whose schedule is fixed.
        max_norm: The largest norm of a head's gradients; larger ones are made so small.

    Attributes:
        heads: The heads' names, in the order of `logits`.
        fixed: The epochs of those heads whose schedule is fixed: they are trained to its end, whatever held-out rows
            say.
    """

    def __init__(
        self,
        heads: Mapping[str, Head],
        model: Callable[[], Any],
        fixed: Mapping[str, int] | None = None,
        max_norm: float | None = None,
    ) -> None:
        self._all, self._learning, self._model, self._max_norm = dict(heads), dict(heads), model, max_norm
        self.heads, self.fixed = tuple(heads), dict(fixed or {})

    @property
    def learning(self) -> tuple[str, ...]:
        """The heads that are trained on, in the order of `gradients`."""
        return tuple(self._learning)

    def pack(self, reviews: Reviews, numbers: Floats | None = None) -> "Packs":
        """Lay reviews out for `gradients` and `logits`; see `Head.pack`."""
        packs = Packs(self._all, reviews, numbers)
        for name in self._learning:
            packs[name]
        return packs

    def gradients(self, packed: "Packs", wanted: NDArray[Any], weights: Floats, batch_rows: int) -> list[Gradients]:
        """`Head.gradients` of each head that still learns."""
        return [head.gradients(packed[name], wanted, weights, batch_rows) for name, head in self._learning.items()]

    def apply(self, gradients: Sequence[Gradients]) -> bool:
        """Take a step with the global batch's gradients; whether every head can still learn."""
        both = zip(self._learning.values(), gradients, strict=True)
        can_learn = [head.apply(clipped(part, self._max_norm)) for head, part in both]
        return all(can_learn)

    def logits(self, packed: "Packs") -> Floats:
        """Each head's logits, without dropout; float32 [reviews, heads, outputs]."""
        return np.stack([head.logits(packed[name]) for name, head in self._all.items()], axis=1)

    def rest(self, name: str) -> None:
        """Train a head no more, whatever the others do."""
        self._learning.pop(name, None)

    def keras_model(self, mix: Mix | None = None) -> Any:
        """The Keras model with the weights as of now.

        Args:
            mix: How the heads' logits become the network's, to be part of the last layer's weights; their plain mean
                where not given.
        """
        count = len(self._all)
        factors = np.array(mix.weights if mix else (1 / count,) * count, np.float32)
        layers = [head.layers() for head in self._all.values()]
        kernels, biases = zip(*(each.pop(OUTPUT) for each in layers), strict=True)
        model = self._model()
        for name, weights in (item for each in layers for item in each.items()):
            model.get_layer(name).set_weights(weights)
        kernel = np.concatenate([factor * part for factor, part in zip(factors, kernels, strict=True)])
        bias = np.tensordot(factors, np.stack(biases), 1) + np.float32(mix.bias if mix else 0)
        model.get_layer(OUTPUT).set_weights([kernel, bias])
        return model

    def constants(self) -> list[NDArray[Any]]:
        """What training does not change and every worker must have alike."""
        return [values for head in self._all.values() for values in head.constants()]

    def state(self) -> State:
        """All that training changes, by name."""
        return {f"{name}.{key}": values for name, head in self._all.items() for key, values in head.state().items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go back to a state that `state` gave."""
        for name, head in self._all.items():
            start = f"{name}."
            head.restore({key.removeprefix(start): state[key] for key in state if key.startswith(start)})


def new_network(
    settings: TrainSettings, dataset: TrainingSet, rows: NDArray[np.int64], seed: int, among: AllReduce
) -> Heads:
    """The network to train, with its first weights.

    Args:
        settings: Of the run.
        dataset: The training reviews.
        rows: Those of them that it is trained on.
        seed: Fixes the first weights.
        among: The connection to the other workers, who must call it too.
    """
    facts, words = dataset.facts, dataset.vocabulary.size
    spec, classes, architecture = facts.spec, len(facts.spec.labels), models.architecture(facts.spec.network)
    steps = settings.epochs * -(-len(rows) // settings.batch_size)
    scheduled = partial(schedule, steps=steps, warmup=settings.warmup, decay=settings.decay == "linear")

    def rates(pace: float) -> tuple[Rate, Rate]:
        """Of the network and of the word vectors."""
        own, of_vectors = settings.learning_rate, settings.embedding_learning_rate or settings.learning_rate
        return scheduled(pace * own), scheduled(pace * of_vectors)

    if not isinstance(architecture, models.Halves):
        vectors = facts.dimensions if dataset.vectors is None else dataset.vectors
        build = partial(architecture.build, words, spec.max_length, classes, vectors, settings.freeze)
        build = partial(build, task=spec.task, numbers=len(spec.numeric), labels=spec.labels)
        if (start := dataset.start) is not None:
            build = partial(_started, build, [start[key] for key in sorted(start)])
        network = _keras_network(settings, spec, build, seed, among, rates(1))
        return Heads({architecture.heads[0]: network}, network.keras_model, max_norm=settings.max_norm)
    heads: dict[str, Head] = {}
    gram_rows, fixed = 1, {}
    if (grams := dataset.grams) is not None:
        counts = wide.presences(grams, dataset.reviews, rows, lambda some: facts.hits(dataset.targets[some]), among)
        if len(rows) < len(dataset) and dataset.start is None:
            # A held-out review shall know no n-gram that it has alone, as a new one knows none.
            known = counts[:, 0] >= facts.metrics["grams"]["min_reviews"]
            grams, counts = grams.only(known), counts * known[:, None]
        gram_rows, fixed[models.WIDE] = grams.rows, min(wide.EPOCHS, settings.epochs)
        wide_steps = fixed[models.WIDE] * -(-len(rows) // settings.batch_size)
        heads[models.WIDE] = half = wide.Wide(grams, counts, wide_steps, spec.task)
        if dataset.start is not None:
            half.start(layers_of(dataset.start, models.WIDE))
    if spec.deep is not None:
        lengths = np.minimum(dataset.lengths, spec.max_length)
        # As the corpus asks for, whatever part of it a fit trains on.
        sizes = replace(window_sums.sizes(len(lengths), float(lengths.mean())), spec=spec.deep)
        vectors = np.array(dataset.vectors)
        heads[models.DEEP] = deep = window_sums.WindowSums(
            vectors,
            sizes,
            classes,
            seed,
            *rates(sizes.pace),
            settings.freeze,
            task=spec.task,
            numbers=len(spec.numeric),
        )
        if dataset.start is not None:
            deep.start(layers_of(dataset.start, models.DEEP))
    sizes_of: dict[str, Any] = {
        "gram_rows": gram_rows,
        "deep": spec.deep,
        "task": spec.task,
        "numbers": len(spec.numeric),
    }
    build = partial(architecture.build, words, spec.max_length, classes, **sizes_of)
    return Heads(heads, build, fixed, settings.max_norm)


def _started(build: Callable[[], Any], weights: list[Floats]) -> Any:
    """A Keras model with these weights."""
    model = build()
    model.set_weights(weights)
    return model


def _keras_network(
    settings: TrainSettings,
    spec: ModelSpec,
    build: Callable[[], Any],
    seed: int,
    among: AllReduce,
    rates: tuple[Rate, Rate],
) -> Any:
    """The head of an architecture that TensorFlow trains."""
    import keras

    from sentray.training.fast_network import FAST
    from sentray.training.network import Network

    keras.utils.set_random_seed(seed)
    device = "/GPU:0" if settings.gpu else None
    if (fast := FAST.get(spec.architecture)) is not None and not spec.numeric:
        return fast(build(), *rates, task=spec.task, device=device)
    of_rows = rates[1] if settings.embedding_learning_rate else None
    about: dict[str, Any] = {"task": spec.task, "most": spec.max_length, "seed": seed, "device": device}
    about |= {"rank": among.rank, "rows": settings.batch_size // among.world or None}
    return Network(build(), rates[0], of_rows, **about)
