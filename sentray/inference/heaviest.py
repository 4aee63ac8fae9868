"""`Heaviest`: the words that moved each of many scores most, at the speed of a scoring job.

It computes what `sentray.inference.explain` does by the method `paths`, with the folded engine's tables. Words that are
alike are one here, so that nobody has to know where an n-gram lies: it gives equal shares to its words, which its key
names, however often it occurs. (A gram of characters gives each word its share of all occurrences.)

Of the way back from the logit what lies behind the first dense layer is a number a unit, a *gate*: how much the unit
counts in this review. Of a network with one dense layer it is 1 for the unit of the label, and 0 for others.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentray.inference.explain import found_grams, paths, require_paths, through
from sentray.inference.folded import Branch, Floats, FoldedEngine, Mean, Sums
from sentray.inference.scorer import Scorer, Scores
from sentray.inference.simd import AHEAD, BLOCK, LANES, dense_back, pool, spread
from sentray.text.cleaning import clean
from sentray.text.encoding import Encoded, cut_from
from sentray.text.ngrams import MAX_WORD_ID, WORD_BITS, Grams
from sentray.text.simd import address, compiled, prefetch
from sentray.text.vocabulary import Vocabulary

AT_ONCE = 2048
"""Reviews whose n-grams and windows are noted while they are scored."""
Indices = NDArray[np.int64]
_Given = tuple[NDArray[np.int32], Indices, Indices]
"""The ids of reviews, where each one's begin that are not cut, and how many these are."""
WORDS_TYPE = pa.list_(pa.field("element", pa.struct([("word", pa.string()), ("weight", pa.float32())])))
"""A review's words with their weights, the heaviest first; null stands for all that the bundle does not know. A list's
values have the name that Parquet gives them, so that what is read back has the same type."""
_WORD, _SECOND, _THIRD = (np.uint64(number) for number in (MAX_WORD_ID + 1, WORD_BITS, 2 * WORD_BITS))


class Heaviest:
    """Scores reviews and finds the words that moved each score most.

    Args:
        scorer: With the bundle; whatever its engine, the words are the same.
        count: Most words of a review.

    Raises:
        SentrayError: The network has a shape that has no paths.
    """

    def __init__(self, scorer: Scorer, count: int) -> None:
        self._scorer, self._count = scorer, count
        engine, vocabulary = scorer.engine, scorer.bundle.vocabulary
        self._network, weights = engine.description
        require_paths(self._network)
        # Whatever is not known has the id behind the last.
        listed = [None, *vocabulary.words, None] if isinstance(vocabulary, Vocabulary) else None
        self._words = None if listed is None else pa.array(listed, pa.string())
        self._layers = [weights[f"weights{number}"] for number in range(len(self._network.activations))]
        self._folded: FoldedEngine | None
        try:
            self._folded = (
                engine
                if isinstance(engine, FoldedEngine)
                else FoldedEngine.of(engine.description, engine.grams, scorer.bundle.spec)
            )
        except ValueError:
            # Its tables would be too large: the reference needs none.
            self._folded = None
        free = self._folded.free if self._folded is not None else None
        self._tables = [] if free is None else free.tables
        self._in_mean = np.zeros((0, 1), np.float32)
        for branch, table, rows in self._tables:
            if isinstance(branch, Mean):
                self._in_mean = _in_mean(table, rows, weights["embedding"].shape[1])

    def score(
        self, texts: pa.Array | pa.ChunkedArray, numbers: NDArray[np.float64] | None = None
    ) -> tuple[Scores, pa.Array]:
        """Score texts, each on its own, and give of each the words that moved the score most, of `WORDS_TYPE`.

        Args:
            texts: As `Scorer.score` takes them.
            numbers: Likewise; what they add is no word's.
        """
        scorer, folded, spec = self._scorer, self._folded, self._scorer.bundle.spec
        encoded = scorer.encode(texts, numbers)
        own = folded is not None and folded is scorer.engine
        probabilities = np.empty((len(encoded), len(spec.scores)), np.float32) if own else scorer.engine.scores(encoded)
        where = np.empty((len(encoded), self._count), np.int32)
        weights, counts = np.empty(where.shape, np.float32), np.empty(len(encoded), np.int32)
        parts = np.zeros(len(encoded.ids), np.float32)
        begins, lengths = cut_from(encoded, spec.max_length, spec.truncating)
        for start in range(0, len(encoded), AT_ONCE):
            group, notes = slice(start, start + AT_ONCE), list[Any]()
            given = encoded.ids, begins[group], lengths[group]
            if folded is not None:
                layers = folded.layers(encoded.rows(start, start + AT_ONCE), notes)
                if own:
                    probabilities[group] = folded.probabilities(layers[-1])
            outputs = self._outputs(probabilities[group])
            grams = _NO_GRAMS
            if folded is not None:
                gates = self._gates(layers, outputs)
                grams = self._add(folded, given, gates, notes, parts)
            else:
                self._add_by_reference(given, outputs, parts)
            picked = where[group], weights[group], counts[group]
            _pick(*given, parts, scorer.bundle.vocabulary.size, *grams, *picked)
        return scorer.scores(probabilities, encoded), self._column(texts, encoded, begins, where, weights, counts)

    def _outputs(self, probabilities: Floats) -> Indices | None:
        """Which unit of the last layer is looked at for each review, that of its label; None where it is their mean.

        Of an ordinal scale the median may be another label than the most probable; where the model may be unsure there
        are two labels, and of these, as of a number, there is one unit.
        """
        spec = self._scorer.bundle.spec
        if spec.task == "ordinal":
            return None
        labels: Indices = probabilities.argmax(axis=1)
        return labels if self._layers[-1].shape[1] > 1 else np.zeros_like(labels)

    def _gates(self, layers: list[Floats], outputs: Indices | None) -> Floats:
        """How much each unit of the first dense layer counts, float32 [reviews, units].

        Args:
            layers: As `FoldedEngine.layers` gives them.
            outputs: Of each review which unit of the last layer; see `_outputs`.
        """
        network, (first, *others) = self._network, self._layers
        last = others[-1].T if others else np.eye(first.shape[1], dtype=np.float32)
        chosen = (
            np.broadcast_to(last.mean(axis=0), (len(layers[0]), last.shape[1])) if outputs is None else last[outputs]
        )
        if not others:
            return np.ascontiguousarray(chosen, np.float32)
        counts = chosen.astype(np.float64)
        for number in range(len(others) - 1, -1, -1):
            counts = through(counts, layers[number], network.activations[number], network.epsilon)
            if number:
                counts = counts @ others[number - 1].T.astype(np.float64)
        return counts.astype(np.float32)

    def _add(
        self, folded: FoldedEngine, given: _Given, gates: Floats, notes: list[Any], parts: Floats
    ) -> tuple[Any, ...]:
        """Add to the part of each word, float32 [ids], what it adds through all branches but n-grams.

        Returns:
            What `_pick` takes of n-grams.
        """
        grams = _NO_GRAMS
        for each in folded.branches:
            _runner(each.branch, gates.shape[1])(*given, each.arrays, *each.sizes, gates, parts)
        for (branch, table, rows), note in zip(self._tables, notes, strict=True):
            if isinstance(branch, Sums):
                _add_sums(branch.width, table, rows, *given, note, gates, parts)
            elif isinstance(branch, Mean):
                _add_mean(self._in_mean, *given, note, gates, parts)
            else:
                assert folded.grams is not None
                grams = self._grams(folded.grams, table, gates @ rows[:, : branch.columns], note)
        return grams

    def _grams(self, grams: Grams, rows: Floats, counts: Floats, note: Any) -> tuple[Any, ...]:
        """What `_pick` takes of n-grams."""
        counted = np.zeros(len(rows) if grams.spec.characters else 0, np.int32)
        return (
            *note,
            grams.table,
            rows,
            counts,
            grams.spec.scale,
            grams.spec.character_scale,
            *grams.of_characters,
            counted,
        )

    def _add_by_reference(self, given: _Given, outputs: Indices | None, parts: Floats) -> None:
        engine, words, ids = self._scorer.engine, self._words, given[0]
        count = self._layers[-1].shape[1]
        every = [np.full(count, 1 / count)] * len(given[1]) if outputs is None else np.eye(count)[outputs]
        for begin, length, output in zip(*given[1:], every, strict=True):
            own = ids[begin : begin + length]
            names = [""] * length if words is None else [name or "" for name in words.take(own).to_pylist()]
            found = found_grams(engine.grams, own, names)
            parts[begin : begin + length] = paths(*engine.description, own, found, output).words

    def _column(
        self,
        texts: pa.Array | pa.ChunkedArray,
        encoded: Encoded,
        begins: Indices,
        where: NDArray[np.int32],
        weights: Floats,
        counts: NDArray[np.int32],
    ) -> pa.Array:
        taken = np.arange(self._count) < counts[:, None]
        if self._words is not None:
            words = self._words.take(pa.array(encoded.ids[(begins[:, None] + where)[taken]]))
        else:
            # Every word has an id, of which several may be one to the network: the first in the text stands for them.
            first, rules = begins - encoded.offsets[:-1], self._scorer.bundle.spec.cleaning
            found = list[str]()
            for row, text in enumerate(texts.to_pylist()):
                tokens = clean(text or "", rules)
                found += [tokens[position] for position in (first[row] + where[row, : counts[row]]).tolist()]
            words = pa.array(found, pa.string())
        offsets = np.append(0, counts.cumsum()).astype(np.int32)
        values = pa.StructArray.from_arrays([words, pa.array(weights[taken])], fields=list(WORDS_TYPE.value_type))
        return pa.ListArray.from_arrays(pa.array(offsets), values, type=WORDS_TYPE)


_NO_GRAMS: tuple[Any, ...] = (
    *(np.zeros(0, np.int32), np.zeros((0, 2), np.int64), np.zeros(0, np.uint64), np.zeros((0, 1), np.float32)),
    *(np.zeros((0, 1), np.float32), 1.0, 1.0, np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32)),
)
"""What `_pick` takes where the network looks at no n-grams."""


def _in_mean(table: Floats, rows: Floats, dimensions: int) -> Floats:
    """What each word adds to each unit, before mean and normalizer, float32 [words, units].

    Args:
        table: The words' vectors in blocks.
        rows: The weights that the normalized mean meets, [units, numbers in the blocks].
        dimensions: A vector's numbers.
    """
    centred = rows.copy()
    centred[:, :dimensions] -= rows[:, :dimensions].mean(axis=1, keepdims=True)
    blocks = centred.reshape(len(rows), len(table), BLOCK)
    of_words: Floats = sum((block @ blocks[:, number].T for number, block in enumerate(table)), np.zeros(1, np.float32))
    return of_words


@compiled
def _add_sums(
    width: int,
    table: Any,
    rows: Any,
    ids: Any,
    begins: Any,
    lengths: Any,
    where: Any,
    gates: Any,
    parts: Any,
) -> None:
    """Add what words add through windows' largest sums, of which `where` names the last words."""
    for block in range(len(table)):
        for review in range(len(lengths)):
            begin, length = begins[review], lengths[review]
            for column in range(BLOCK):
                last = where[review, block * BLOCK + column]
                if last >= 0:
                    count = np.float32(0)
                    for unit in range(len(rows)):
                        count += gates[review, unit] * rows[unit, block * BLOCK + column]
                    for word in range(begin + max(last - width + 1, 0), begin + min(last + 1, length)):
                        parts[word] += count * table[block, ids[word], column]


@compiled
def _add_mean(of_words: Any, ids: Any, begins: Any, lengths: Any, scales: Any, gates: Any, parts: Any) -> None:
    """Add what words add through the normalized mean; see `_in_mean` for `of_words`, and `halves` for `scales`."""
    for review in range(len(lengths)):
        for unit in range(of_words.shape[1]):
            gate = gates[review, unit] * scales[review]
            if gate:
                for word in range(begins[review], begins[review] + lengths[review]):
                    parts[word] += gate * of_words[ids[word], unit]


@lru_cache
def _runner(branch: Branch, units: int) -> Any:
    """The compiled loop over reviews that adds what words add through a branch; see `folded._runner`."""
    width, filters, stride = branch.width, branch.filters, branch.stride
    everything, average, relu = branch.window is None, int(branch.pooling == "average"), int(branch.relu)
    window = 1 if branch.window is None else branch.window
    largest_of_all = everything and not average
    lowest = np.float32(0 if relu else -np.inf)

    @compiled
    def run(ids: Any, begins: Any, lengths: Any, arrays: Any, windows: int, pools: int, gates: Any, parts: Any) -> None:
        table, bias, padding, weights, _ = arrays
        first = address(table)
        words = np.empty(windows + width + window, np.int64)
        sums = np.empty(windows + width + window, np.float32)
        counts = np.empty(pools * filters + LANES, np.float32)
        own = np.empty(units, np.float32)
        values, best, where = np.empty(filters, np.float32), np.empty(filters, np.float32), np.empty(filters, np.int64)
        words_at, sums_at, counts_at, bias_at = address(words), address(sums), address(counts), address(bias)
        weights_at, own_at, values_at = address(weights), address(own), address(values)
        share = np.float32(1 / (windows if everything else window) if average else 1)
        for review in range(len(begins)):
            length, begin = lengths[review], begins[review]
            for word in range(length):
                words[word] = first + 4 * width * filters * ids[begin + word]
            for word in range(length, min(length + width + window, len(words))):
                words[word] = first
            for word in range(min(length + width + window, len(sums))):
                sums[word] = 0
            for unit in range(units):
                own[unit] = gates[review, unit] * share
            seen = min(length, windows)
            reached = 1 if everything else min(-(-seen // stride), pools)
            dense_back(own_at, -(-reached * filters // LANES), weights_at, counts_at, units)
            if largest_of_all:
                for unit in range(filters):
                    best[unit], where[unit] = lowest, -1
                for start in range(seen):
                    pool(words_at + 8 * start, bias_at, values_at, width, filters, 1, 0, 0, 0)
                    for unit in range(filters):
                        if values[unit] > best[unit]:
                            best[unit], where[unit] = values[unit], start
                for unit in range(filters):
                    if where[unit] >= 0 and (seen == windows or best[unit] >= padding[unit]):
                        for word in range(where[unit], min(where[unit] + width, length)):
                            offset = word - where[unit]
                            sums[word] += counts[unit] * table[ids[begin + word], offset * filters + unit]
            elif everything:
                for start in range(seen):
                    spread(words_at + 8 * start, bias_at, counts_at, sums_at + 4 * start, width, filters, 1, 1, relu)
            else:
                for number in range(reached):
                    rows_at, to = words_at + 8 * stride * number, sums_at + 4 * stride * number
                    for word in range(stride * number + 12, min(stride * number + 12 + stride, length)):
                        for line in range(width * filters // 16):
                            prefetch(words[word] + 64 * line)
                    spread(
                        rows_at, bias_at, counts_at + 4 * filters * number, to, width, filters, window, average, relu
                    )
            for word in range(length):
                parts[begin + word] += sums[word]

    return run


@compiled
def _pick(
    ids: Any,
    begins: Any,
    lengths: Any,
    parts: Any,
    size: int,
    found: Any,
    ends: Any,
    keys: Any,
    rows: Any,
    gram_counts: Any,
    scale: float,
    character_scale: float,
    starts: Any,
    of_characters: Any,
    counted: Any,
    where: Any,
    weights: Any,
    counts: Any,
) -> None:
    """Add to words' parts their shares of n-grams, and pick the words that weigh most.

    Args:
        ids: Of all reviews.
        begins: Of each review where its ids begin that are not cut.
        lengths: How many these are.
        parts: What each of the words adds, but for n-grams.
        size: How many ids there are.
        found: Rows of the reviews' n-grams.
        ends: Where each review's of words and of characters end; empty where there are no n-grams.
        keys: The table of `Grams`.
        rows: Weights of n-grams, float32 [rows, columns].
        gram_counts: How much each column counts, float32 [reviews, columns].
        scale: Of `GramSpec`.
        character_scale: Of `GramSpec`.
        starts: Where the n-grams of a word's characters begin in the next.
        of_characters: Rows of n-grams of characters.
        counted: Zeros, a number a row, where there are any.
        where: Written with the words' positions, int32 [reviews, most words].
        weights: Written with their weights.
        counts: Written with how many there are.
    """
    of_ids, shares = np.zeros(size, np.float32), np.array([1, 1 / 2, 1 / 3], np.float32)
    keys_at, rows_at = address(keys), address(rows)
    first, final = 0, ends[-1, 1] - 1 if len(ends) else 0
    for review in range(len(lengths)):
        begin, length = begins[review], lengths[review]
        for position in range(begin, begin + length):
            of_ids[ids[position]] += parts[position]
        if len(ends):
            last, end = ends[review, 0], ends[review, 1]
            value = np.float32(scale / np.sqrt(max(last - first, 1)))
            for number in range(first, last):
                # All over the tables: what comes later is asked for.
                ahead = np.int64(found[min(number + AHEAD, final)])
                prefetch(keys_at + 8 * (ahead - 1))
                prefetch(rows_at + 4 * rows.shape[1] * ahead)
                row = found[number]
                weight = np.float32(0)
                for column in range(rows.shape[1]):
                    weight += rows[row, column] * gram_counts[review, column]
                # Of a shorter one the other words are 0, which is no word's id: so nothing has to be foretold.
                gram = keys[row - 1]
                one, two, three = gram & _WORD, (gram >> _SECOND) & _WORD, gram >> _THIRD
                weight *= value * shares[np.int64(two != 0) + np.int64(three != 0)]
                of_ids[one] += weight
                of_ids[two] += weight
                of_ids[three] += weight
            of_ids[0] = 0
            if end > last:
                value = np.float32(character_scale / np.sqrt(end - last))
                for position in range(begin, begin + length):
                    if ids[position] < len(starts) - 1:
                        for number in range(starts[ids[position]], starts[ids[position] + 1]):
                            counted[of_characters[number]] += 1
                for position in range(begin, begin + length):
                    if ids[position] < len(starts) - 1:
                        for number in range(starts[ids[position]], starts[ids[position] + 1]):
                            row = of_characters[number]
                            weight = np.float32(0)
                            for column in range(rows.shape[1]):
                                weight += rows[row, column] * gram_counts[review, column]
                            of_ids[ids[position]] += weight * value / np.float32(counted[row])
                for number in range(last, end):
                    counted[found[number]] = 0
            first = end
        count = 0
        for position in range(length):
            word = ids[begin + position]
            weight = of_ids[word]
            of_ids[word] = 0
            if weight and (count < where.shape[1] or abs(weight) > abs(weights[review, count - 1])):
                at = min(count, where.shape[1] - 1)
                while at and abs(weight) > abs(weights[review, at - 1]):
                    where[review, at], weights[review, at] = where[review, at - 1], weights[review, at - 1]
                    at -= 1
                where[review, at], weights[review, at] = position, weight
                count = min(count + 1, where.shape[1])
        counts[review] = count
