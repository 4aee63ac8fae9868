"""The deep half of the network: `WindowSums`, windows of several widths and the mean vector, in NumPy and Numba.

A window's value in a unit is the sum of its words' vectors times one kernel, whatever a word's place in it (a
convolution whose kernel is the same at each offset; Johnson and Zhang 2015 call such windows bags of words), rectified;
the largest of a review's windows counts. So a batch's distinct words are multiplied with the kernels once, and the
windows are sums of these products. Beside it stands the review's mean vector, brought to one scale. The numbers are
those of `deep.v1` in `sentray.models`, as a test shows; TensorFlow is not needed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentray.models import EMBEDDING, OUTPUT, DeepSpec
from sentray.task import Task, outputs
from sentray.text.simd import contracted
from sentray.training.adam import Adam, Floats, Rate, TableAndDense
from sentray.training.batches import Reviews, laid_out, numbered
from sentray.training.gradients import Gradients
from sentray.training.losses import loss_of

EPSILON = 1e-12
"""Added to the variance of a mean vector's numbers, far below that of one word's share."""

NUMBERS = np.float32(10)
"""What numbers beside the text are multiplied by, and their weights divided by: a step of Adam moves what they add ten
times as far. Else in two epochs of 2,000 reviews a number's weight came to a fifth of what is best."""

LONG, FEW, MANY = 60, 5000, 20_000
"""Words of a review above which it is long; reviews below which there are few, and from which there are many."""

Ids = NDArray[np.int32]
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class DeepSizes:
    """Sizes of the deep half, and how it is trained.

    Attributes:
        spec: Widths, units and dimensions.
        drop_words: Share of a review's words that a step leaves out.
        drop_features: Share of a review's features that a step leaves out.
        pace: What the learning rate is multiplied with.
        reason: Why, for the user.
    """

    spec: DeepSpec
    drop_words: float
    drop_features: float
    pace: float
    reason: str


def sizes(reviews: int, average_length: float, dimensions: int | None = None) -> DeepSizes:
    """The sizes that did best on held-out rows of corpora of about this size.

    Args:
        reviews: How many are trained on.
        average_length: Words of a review.
        dimensions: Numbers of a word's vector, where that is settled.
    """
    is_long = average_length > LONG
    widths, filters = ((3, 7, 20), 64) if is_long else ((3, 5), 128)
    spec = DeepSpec(widths=widths, filters=filters, dimensions=dimensions or 100)
    # Few reviews make few steps an epoch.
    pace = 1 if reviews >= MANY else 2 if reviews >= FEW else 3
    reason = (
        f"{spec.filters} units for windows of each of {', '.join(map(str, spec.widths))} words, vectors of "
        f"{spec.dimensions} numbers{f', the learning rate times {pace}' if pace > 1 else ''}, for {reviews:,} "
        f"{'long' if is_long else 'short'} reviews (of {average_length:,.0f} words)"
    )
    return DeepSizes(spec, 0.2, 0.5, pace, reason)


@dataclass(frozen=True)
class PackedWords:
    """Reviews laid one after the other.

    Attributes:
        words: int32 [distinct words], ascending vocabulary ids; id 0, the padding, is always among them.
        ids: int32 [positions], the index of each word in `words`.
        offsets: int64 [reviews + 1], where each review begins.
        numbers: float32 [reviews, numbers], what a review has besides its text.
    """

    words: Ids
    ids: Ids
    offsets: Offsets
    numbers: Floats


class WindowSums(TableAndDense):
    """Trains the deep half; a `Head`.

    What dropout leaves out follows from the seed, the step and a review's words, so that it does not depend on which
    worker has the review.

    Args:
        vectors: First vectors of the words, float32 [words, dimensions]; taken over, not copied. Row 0, the padding's,
            is 0 and stays so.
        sizes: Of the network.
        classes: How many labels.
        seed: Fixes the first kernels and the dropout.
        learning_rate: Adam's step size, or its schedule.
        embedding_learning_rate: That of the word vectors; the same where not given.
        freeze: Whether the vectors stay as they are.
        task: What is asked.
        numbers: How many a review has besides its text. They join the features, are never dropped, and start from 0.
    """

    def __init__(
        self,
        vectors: Floats,
        sizes: DeepSizes,
        classes: int,
        seed: int,
        learning_rate: Rate,
        embedding_learning_rate: Rate | None = None,
        freeze: bool = False,
        *,
        task: Task = "classification",
        numbers: int = 0,
    ) -> None:
        self._task, self._sizes, self._spec, self._seed = task, sizes, sizes.spec, seed
        self._pooled = sizes.spec.filters * len(sizes.spec.widths)
        dimensions, ends = sizes.spec.dimensions, outputs(task, classes)
        generator = np.random.default_rng(seed)
        shapes = [(dimensions, self._pooled), (self._pooled + dimensions + numbers, ends), (ends,)]
        # Glorot and Bengio 2010, as in Keras; but for the mean vector, whose many large numbers would drown the units.
        limits = [math.sqrt(6 / (dimensions + sizes.spec.filters)), math.sqrt(6 / sum(shapes[1])), 0.0]
        weights = [generator.uniform(-limit, limit, shape) for limit, shape in zip(limits, shapes, strict=True)]
        # A regression starts from the mean number: squares of random numbers would be unlearnt for two hundred steps.
        weights[1][0 if task == "regression" else self._pooled :] = 0
        dense = np.concatenate([part.ravel() for part in weights]).astype(np.float32)[None]
        table = Adam(vectors, None if freeze else embedding_learning_rate or learning_rate)
        super().__init__(table, Adam(dense, learning_rate), weights[0].size)
        self._shapes, self._ends = shapes, np.cumsum([math.prod(shape) for shape in shapes])
        self._widths = np.array(sizes.spec.widths, np.int64)

    def pack(self, reviews: Reviews, numbers: Floats | None = None) -> PackedWords:
        """See `Head`."""
        ids, offsets = laid_out(reviews)
        words, ids = numbered(ids, len(self.embedding.weights))
        given = np.zeros((len(reviews), 0), np.float32) if numbers is None else numbers * NUMBERS
        return PackedWords(words, ids, offsets, given)

    def gradients(self, packed: PackedWords, wanted: NDArray[Any], weights: Floats, batch_rows: int) -> Gradients:
        """See `Head`."""
        pooled = self._pooled
        kernels, output, bias = self._parts(self.dense.weights[0])
        dense = np.zeros_like(self.dense.weights[0])
        of_kernels, of_output, of_bias = self._parts(dense)
        vectors = self.embedding.rows(packed.words)
        numbers = packed.numbers
        from_words = len(output) - numbers.shape[1]
        ids, mask = self._dropout(packed, from_words)
        kept = replace(packed, ids=ids)
        pools, winners, means, norms = self._features(kept, vectors, kernels)
        features: Floats = np.concatenate([np.concatenate([pools, means], axis=1) * mask, numbers], axis=1)
        loss, correct, of_logits = loss_of(self._task, features @ output + bias, wanted, weights)
        of_logits /= np.float32(batch_rows)
        of_output[:], of_bias[:] = features.T @ of_logits, of_logits.sum(axis=0)
        of_features = (of_logits @ output[:from_words].T) * mask
        of_pools = np.where(pools > 0, of_features[:, :pooled], np.float32(0))
        of_products = np.zeros((len(packed.words), pooled), np.float32)
        _to_winners(ids, packed.offsets, winners, of_pools, self._widths, of_products)
        of_kernels[:] = vectors.T @ of_products
        if self.embedding.frozen:
            return Gradients(loss, correct, packed.words[:0], vectors[:0], dense)
        of_vectors = of_products @ kernels.T
        _to_words(ids, packed.offsets, _of_sums(of_features[:, pooled:], means, norms), of_vectors)
        # Where the words that are left out have their gradients too.
        of_vectors[0] = 0
        return Gradients(loss, correct, packed.words, of_vectors, dense)

    def logits(self, packed: PackedWords) -> Floats:
        """See `Head`."""
        kernels, output, bias = self._parts(self.dense.weights[0])
        pools, _, means, _ = self._features(packed, self.embedding.rows(packed.words), kernels)
        features: Floats = np.concatenate([means, packed.numbers], axis=1)
        logits: Floats = pools @ output[: self._pooled] + features @ output[self._pooled :] + bias
        return logits

    def layers(self) -> dict[str, list[Floats]]:
        """See `Head`. A window's sum is divided by the root of its width here, and by its width in the Keras model."""
        self.embedding.settle()
        kernels, output, bias = self._parts(self.dense.weights[0])
        parts = np.split(kernels[None], len(self._widths), axis=2)
        units = {
            f"units{width}": [part * np.float32(math.sqrt(width))]
            for width, part in zip(self._spec.widths, parts, strict=True)
        }
        scales = np.ones((len(output), 1), np.float32)
        scales[self._pooled + self._spec.dimensions :] = NUMBERS
        return {EMBEDDING: [self.embedding.weights], **units, OUTPUT: [output * scales, bias]}

    def start(self, layers: Mapping[str, list[Floats]]) -> None:
        """Take over weights as `layers` gives them, but for the words' vectors, with which it is made."""
        kernels, output, bias = self._parts(self.dense.weights[0])
        units = [layers[f"units{width}"][0][0] / np.float32(math.sqrt(width)) for width in self._spec.widths]
        kernels[:], output[:], bias[:] = np.concatenate(units, axis=1), *layers[OUTPUT]
        output[self._pooled + self._spec.dimensions :] /= NUMBERS

    def _parts(self, flat: Floats) -> list[Floats]:
        """Kernels, last layer and its bias as views of the flat weights."""
        return [part.reshape(shape) for part, shape in zip(np.split(flat, self._ends[:-1]), self._shapes, strict=True)]

    def _dropout(self, packed: PackedWords, features: int) -> tuple[Ids, Floats]:
        """The ids with 0 for words that are left out, and what each feature of each review is multiplied with."""
        ids, mask = packed.ids.copy(), np.ones((len(packed.offsets) - 1, features), np.float32)
        shares = self._sizes.drop_words, self._sizes.drop_features
        if any(shares):
            seed = np.random.SeedSequence((self._seed, self.dense.step)).generate_state(1, np.uint64)[0]
            _drop(packed.words, packed.offsets, seed, *shares, ids, mask)
        return ids, mask

    def _features(self, packed: PackedWords, vectors: Floats, kernels: Floats) -> tuple[Floats, Ids, Floats, Floats]:
        """Largest windows [reviews, pooled], where they begin; normalized means [reviews, dimensions], their norms."""
        reviews, pooled = len(packed.offsets) - 1, self._pooled
        pools, winners = np.zeros((reviews, pooled), np.float32), np.zeros((reviews, pooled), np.int32)
        sums = np.zeros((reviews, vectors.shape[1]), np.float32)
        _largest_windows(packed.ids, packed.offsets, vectors @ kernels, self._widths, pools, winners)
        _sums(packed.ids, packed.offsets, vectors, sums)
        centred = sums - sums.mean(axis=1, keepdims=True)
        norms = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(EPSILON))
        return pools, winners, centred / norms, norms


def _of_sums(gradients: Floats, normalized: Floats, norms: Floats) -> Floats:
    """The gradient before layer normalization from that behind it (Ba et al. 2016)."""
    along = (gradients * normalized).mean(axis=1, keepdims=True)
    result: Floats = (gradients - gradients.mean(axis=1, keepdims=True) - normalized * along) / norms
    return result


_ODD = np.uint64(0x9E3779B97F4A7C15)


@contracted
def _largest_windows(
    ids: Ids, offsets: Offsets, products: Floats, widths: NDArray[np.int64], pools: Floats, winners: Ids
) -> None:
    """The largest value of each unit over a review's windows, 0 at least, and the window's first word in the review.

    A window holds a word of the review or more. It spans two blocks of `width` words: its value is the sum of the first
    block's end and the second's beginning, so that nothing is ever subtracted again and no rounding error builds up.
    """
    filters = pools.shape[1] // len(widths)
    ends = np.zeros((widths.max(), filters), np.float32)
    beginning = np.zeros(filters, np.float32)
    for review in range(len(offsets) - 1):
        begin, length = offsets[review], offsets[review + 1] - offsets[review]
        for number in range(len(widths)):
            width, column = widths[number], number * filters
            factor = np.float32(1 / np.sqrt(width))
            for first in range(1 - width, length, width):
                for offset in range(width - 1, -1, -1):
                    word = first + offset
                    row = ids[begin + word] if 0 <= word < length else 0
                    if offset == width - 1:
                        for unit in range(filters):
                            ends[offset, unit] = products[row, column + unit]
                    else:
                        for unit in range(filters):
                            ends[offset, unit] = ends[offset + 1, unit] + products[row, column + unit]
                for unit in range(filters):
                    beginning[unit] = 0
                for offset in range(min(width, length - first)):
                    window = first + offset
                    if offset > 0:
                        word = window + width - 1
                        row = ids[begin + word] if word < length else 0
                        for unit in range(filters):
                            beginning[unit] += products[row, column + unit]
                    for unit in range(filters):
                        value = (ends[offset, unit] + beginning[unit]) * factor
                        largest = pools[review, column + unit]
                        pools[review, column + unit] = value if value > largest else largest
                        winners[review, column + unit] = window if value > largest else winners[review, column + unit]


@contracted
def _to_winners(
    ids: Ids, offsets: Offsets, winners: Ids, gradients: Floats, widths: NDArray[np.int64], of_products: Floats
) -> None:
    """Add the gradients of the largest windows to those of their words' products."""
    filters = winners.shape[1] // len(widths)
    for review in range(len(offsets) - 1):
        begin, length = offsets[review], offsets[review + 1] - offsets[review]
        for column in range(winners.shape[1]):
            width = widths[column // filters]
            gradient = gradients[review, column] * np.float32(1 / np.sqrt(width))
            if gradient != 0:
                first = winners[review, column]
                for word in range(max(first, 0), min(first + width, length)):
                    of_products[ids[begin + word], column] += gradient


@contracted
def _sums(ids: Ids, offsets: Offsets, vectors: Floats, sums: Floats) -> None:
    """Add up the vectors of each review's words."""
    for review in range(len(offsets) - 1):
        for position in range(offsets[review], offsets[review + 1]):
            for number in range(vectors.shape[1]):
                sums[review, number] += vectors[ids[position], number]


@contracted
def _to_words(ids: Ids, offsets: Offsets, of_sums: Floats, of_vectors: Floats) -> None:
    """Add each review's gradient to that of each of its words."""
    for review in range(len(offsets) - 1):
        for position in range(offsets[review], offsets[review + 1]):
            for number in range(of_vectors.shape[1]):
                of_vectors[ids[position], number] += of_sums[review, number]


@contracted
def _drop(
    words: Ids, offsets: Offsets, seed: np.uint64, of_words: float, of_features: float, ids: Ids, mask: Floats
) -> None:
    """Set shares of the ids and of the mask to 0, and the rest of the mask to what makes up for it.

    What a review loses follows from the seed and its words.
    """
    kept = np.float32(1 / (1 - of_features))
    for review in range(len(offsets) - 1):
        state = seed
        for position in range(offsets[review], offsets[review + 1]):
            state = (state ^ np.uint64(words[ids[position]])) * _ODD
            state ^= state >> np.uint64(29)
        for position in range(offsets[review], offsets[review + 1]):
            state += _ODD
            ids[position] = 0 if _share(state) < of_words else ids[position]
        for column in range(mask.shape[1]):
            state += _ODD
            mask[review, column] = 0 if _share(state) < of_features else kept


@contracted
def _share(state: np.uint64) -> np.float32:
    """A random number from 0 to 1: SplitMix64 (Steele, Lea and Flood 2014), whose states are `_ODD` apart."""
    mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.float32(mixed >> np.uint64(40)) * np.float32(2.0**-24)
