"""`explain`: what each word and n-gram of a text adds to its score, as an `Explanation`.

By the method `paths` a network is taken as the linear function that it is near a text: each maximum is the window that
won it, a rectifier lets through what it let through, and a normalizer divides by what it divided by. So each word has a
part of the logit and the rest, what no word makes, is the bias; they sum to the logit. It is the gradient times the
input (Shrikumar et al., "Not Just a Black Box", 2016) with the normalizer held fixed.

By `leave-one-out` a word's weight is how much the logit changes when padding takes the word's place, so that its
neighbours do not come together (Li et al., "Understanding Neural Networks through Representation Erasure", 2016).

This is the reference, in double precision and a text at a time; `sentray.inference.heaviest` computes the same for
scoring jobs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sentray import bundle as bundles
from sentray.config import STANDARD_INPUT, ExplainSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.inference.engines import Engine
from sentray.inference.folded import Branch, Mean, Network, Sums, Wide
from sentray.inference.predict import decoded
from sentray.inference.scorer import Scorer
from sentray.storage import write_text
from sentray.task import Task, outputs
from sentray.text.cleaning import clean
from sentray.text.encoding import Encoded, cut
from sentray.text.ngrams import MAX_WORD_ID, WORD_BITS, Grams, character_grams, character_keys
from sentray.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from markupsafe import Markup

Doubles = NDArray[np.float64]
Ids = NDArray[np.int32]
Method = Literal["paths", "leave-one-out"]

LINEAR = ("linear", "relu", "normalize")
"""What may follow a dense layer but the last: a path goes straight through."""
MAX_SHOWN, MAX_LETTERS = 2000, 60
"""Words of a text that are shown, and letters of a word."""
MIN_SHARE = 0.05
"""Of the heaviest word's weight: a word with less has no colour on a terminal."""
_BAR = 20
_AT_ONCE = 256
"""Texts with a word left out that are scored together."""
_FOR, _AGAINST = "30, 110, 230", "230, 110, 0"
"""Blue and orange, which few people take for each other; a line below says the same."""


@dataclass(frozen=True)
class Contribution:
    """What a word or an n-gram adds to the logit.

    Attributes:
        word: The word as cleaning leaves it, or the n-gram as `Grams.gram_texts` writes it.
        weight: What it adds.
        known: Whether the model knows the word.
    """

    word: str
    weight: float
    known: bool = True


@dataclass(frozen=True)
class Explanation:
    """What moved a text's score.

    By the method `paths` the words' weights and the bias sum to the logit. A word's weight is its own part and equal
    shares of the n-grams that it is in; an n-gram counts once a review, so that its occurrences share its weight.

    Attributes:
        text: As given.
        label: The label that the text got, or that was asked for; None where the model is unsure. Of several labels the
            most probable one; of a number `value`.
        score: Its probability, or that of the most probable label where there is none; or the number.
        logit: Of two classes the log-odds of the second, whatever the label; else the label's own. Of an ordinal scale
            the mean of the log-odds of each step; of a regression the number.
        bias: What no word makes: the network's biases, and windows of padding; None where one word is left out.
        words: Each word in the text's order; those that the model does not see have the weight 0.
        grams: N-grams of two words or more, or of characters, the heaviest first; their weights are the words' already.
        toward: What words above 0 speak for.
        against: What words below 0 speak for; of more than two classes all others.
    """

    text: str
    label: str | None
    score: float
    logit: float
    bias: float | None
    words: tuple[Contribution, ...]
    grams: tuple[Contribution, ...]
    toward: str
    against: str

    def heaviest(self, count: int) -> list[Contribution]:
        """The words that moved the score most, each once with the sum of its occurrences' weights; not those of 0."""
        return merged(self.words)[:count]

    def rows(self, count: int) -> list[tuple[str, float]]:
        """The heaviest words as rows of a table."""
        return [(each.word[:MAX_LETTERS], each.weight) for each in self.heaviest(count)]

    def gram_rows(self, count: int) -> list[tuple[str, float]]:
        """The heaviest n-grams as rows of a table."""
        return [(each.word[:MAX_LETTERS], each.weight) for each in self.grams[:count]]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def to_html(self) -> "Markup":
        """The words in colours, as a fragment of HTML for pages and notebooks, on light and on dark ground.

        Blue with a line below speaks for `toward`, orange with dots below for `against`.
        """
        from markupsafe import Markup

        largest = max((abs(each.weight) for each in self.words), default=0.0)
        spans = [_span(each, largest) for each in self.words[:MAX_SHOWN]]
        if (more := len(self.words) - MAX_SHOWN) > 0:
            spans.append(Markup("… and {:,} more words").format(more))
        return Markup('<span style="overflow-wrap:anywhere;line-height:1.8">{}</span>').format(Markup(" ").join(spans))

    def _repr_html_(self) -> str:
        from sentray.report.page import render

        return render("explanations.html", explanations=[self])


class Explanations(list[Explanation]):
    """Explanations of texts, in their order; a notebook shows them."""

    def to_dict(self) -> list[dict[str, Any]]:
        """The explanations as JSON values."""
        return [each.to_dict() for each in self]

    def _repr_html_(self) -> str:
        from sentray.report.page import render

        return render("explanations.html", explanations=self)


def merged(words: Iterable[Contribution]) -> list[Contribution]:
    """Words that are alike as one, the heaviest first; where weights are equal, in the text's order."""
    total: dict[str, Contribution] = {}
    for each in words:
        before = total.get(each.word)
        total[each.word] = each if before is None else replace(each, weight=before.weight + each.weight)
    return sorted((each for each in total.values() if each.weight), key=lambda each: -abs(each.weight))


def _span(each: Contribution, largest: float) -> "Markup":
    from markupsafe import Markup

    from sentray.report.page import harmless

    style = "unicode-bidi:isolate"
    if each.weight:
        colour, line = (_FOR, "solid") if each.weight > 0 else (_AGAINST, "dotted")
        share = abs(each.weight) / largest
        style += f";background:rgba({colour}, {0.45 * share:.2f});border-bottom:2px {line} rgba({colour}, {share:.2f})"
    title = f"{each.weight:+.4f}" if each.known else f"unknown, {each.weight:+.4f}"
    return Markup('<span style="{}" title="{}">{}</span>').format(style, title, harmless(each.word, MAX_LETTERS))


# --- From texts to explanations


def explained(settings: ExplainSettings, console: Console, stream: BufferedIOBase | None = None) -> Explanations:
    """Explain one text, or with the text `-` each line of a stream, and print it.

    Args:
        settings: Which bundle, which text, and how.
        console: Where to print.
        stream: Bytes to read the lines from; the standard input where not given.

    Raises:
        SentrayError: When the bundle or the label cannot be used, a line is not UTF-8, or the page cannot be written.
    """
    scorer = Scorer(bundles.load(settings.bundle, settings.trust_model), settings.engine)
    texts = [settings.text]
    if settings.text == STANDARD_INPUT:
        with open(0, "rb", closefd=False) if stream is None else stream as lines:
            content = lines.read()
            texts = decoded(content.removesuffix(b"\n").split(b"\n"), 1) if content else []
    found = explain(scorer, texts, settings.method, settings.label)
    if columns := scorer.bundle.spec.columns:
        console.say(f"the scores and logits are for the mean of {', '.join(columns)} in training")
    for number, each in enumerate(found, 1):
        if len(found) > 1:
            console.say(f"line {number:,}")
        _say(each, console, settings.count)
    if settings.html is not None:
        from sentray.report.page import render

        write_text(
            settings.html, render("explain.html", bundle=str(scorer.bundle), method=settings.method, explanations=found)
        )
        console.say(f"a page of it is in {settings.html}")
    return found


def _say(each: Explanation, console: Console, count: int) -> None:
    """Print an explanation: the text in colours where there are any, the heaviest words and n-grams, and the sum."""
    largest = max((abs(word.weight) for word in each.words), default=0.0) or 1.0
    console.coloured([_styled(word, largest) for word in each.words[:MAX_SHOWN]])
    console.say(f"{each.label or 'unsure'}\t{each.score:.6f}")
    console.say(f"above 0 speaks for {each.toward}, below 0 for {each.against}")
    for what, rows in (("word", each.rows(count)), ("n-gram (in its words' weights)", each.gram_rows(count))):
        if rows:
            console.table((what, "weight", ""), [(*row, _signs(row[1], largest)) for row in rows])
    if each.bias is not None:
        rest = sum(word.weight for word in each.words)
        console.table(("all words", "bias", "logit"), [(rest, each.bias, each.logit)])


def _styled(word: Contribution, largest: float) -> tuple[str, str]:
    """A word and its style, as rich names styles."""
    share = abs(word.weight) / largest
    if share < MIN_SHARE:
        return word.word, "" if word.known else "dim"
    return word.word, f"{'blue underline' if word.weight > 0 else 'dark_orange'}{' bold' if share > 0.5 else ''}"


def _signs(weight: float, largest: float) -> str:
    return ("+" if weight > 0 else "-") * max(round(_BAR * min(abs(weight) / largest, 1)), 1)


def explain(scorer: Scorer, texts: Sequence[str], method: Method = "paths", label: str | None = None) -> Explanations:
    """What moved the scores of texts.

    Args:
        scorer: With the bundle and its engine; both engines' explanations are the same.
        texts: None of them null. Where the bundle takes numbers besides, they are as on average.
        method: `paths` or `leave-one-out`.
        label: Of several labels, or more than two classes, the one whose logit is looked at; the one that a text got
            where not given.

    Raises:
        SentrayError: When there is no such label, or the network has a shape that has no paths.
    """
    bundle, engine, task = scorer.bundle, scorer.engine, scorer.bundle.spec.task
    labels, words = bundle.labels, bundle.vocabulary
    if label is not None and task in ("ordinal", "regression"):
        what = "step of a scale" if task == "ordinal" else "number"
        raise SentrayError(f"{bundle} gives a {what}, which is explained as a whole: leave the label out")
    if label is not None and label not in labels:
        raise SentrayError(f"{bundle} has no label {label!r}; it has {', '.join(labels)}")
    encoded = scorer.encoder.encode(pa.array(texts, pa.large_string()))
    logits = engine.logits(encoded)
    scores = scorer.scores(engine.scores(encoded), encoded)
    given, best = scores.labels(labels).to_pylist(), scores.best.tolist()
    likeliest = scores.probabilities.argmax(axis=1)
    seen = cut(encoded.offsets, np.arange(len(texts)), bundle.spec.max_length, bundle.spec.truncating)
    found = Explanations()
    for row, (text, where) in enumerate(zip(texts, seen, strict=True)):
        name, score = given[row] if task != "multilabel" else labels[likeliest[row]], best[row]
        if label is not None:
            name, score = label, float(scores.probabilities[row, labels.index(label)])
        toward, against = sides(task, labels, name)
        output = output_of(task, labels, name)
        tokens = clean(text, bundle.spec.cleaning)
        known = np.array([not isinstance(words, Vocabulary) or word in words.ids for word in tokens], bool)
        # Those with an id, and of these the ones that the network sees: where they are in the text.
        positions = np.flatnonzero(known | (words.unknown == "share"))
        positions = positions[where.start - encoded.offsets[row] : where.stop - encoded.offsets[row]]
        weights, ids = np.zeros(len(tokens)), encoded.ids[where]
        grams, bias = list[Contribution](), None
        if method == "paths":
            had = found_grams(engine.grams, ids, [tokens[position] for position in positions])
            weights[positions], grams, bias = paths(*engine.description, ids, had, output)
            grams.sort(key=lambda each: -abs(each.weight))
        else:
            weights[positions] = logits[row] @ output - _without_each(engine, ids) @ output
        each = tuple(map(Contribution, tokens, weights.tolist(), known.tolist()))
        logit = float(logits[row] @ output)
        found.append(Explanation(text, name, score, logit, bias, each, tuple(grams), toward, against))
    return found


def output_of(task: Task, labels: Sequence[str], label: str | None) -> Doubles:
    """How much each output of a network counts in what is explained, float64 [outputs].

    Args:
        task: What is asked.
        labels: Of the bundle.
        label: The one whose output is explained, where outputs are of labels.
    """
    count = outputs(task, len(labels))
    if task == "ordinal":
        return np.full(count, 1 / count)
    return np.asarray(np.eye(count)[0 if count == 1 or label is None else labels.index(label)])


def sides(task: Task, labels: Sequence[str], label: str | None = None) -> tuple[str, str]:
    """What words above 0 speak for, and what those below.

    Args:
        task: What is asked.
        labels: Of the bundle.
        label: The one whose output is explained, where outputs are of labels.
    """
    if task == "regression":
        return "more", "less"
    if task == "ordinal":
        return f"more, up to {labels[-1]}", f"less, down to {labels[0]}"
    if task == "multilabel":
        return str(label), f"not {label}"
    return (labels[1], labels[0]) if len(labels) == 2 else (str(label), "other labels")


def _without_each(engine: Engine, ids: Ids) -> Doubles:
    """The logits of a review with padding in the place of each of its words, float64 [words, outputs]."""
    count = len(ids)
    logits = np.zeros((count, engine.logits(_alike(ids[None])).shape[1]))
    for start in range(0, count, _AT_ONCE):
        left_out = np.arange(start, min(start + _AT_ONCE, count))
        changed = np.tile(ids, (len(left_out), 1))
        changed[np.arange(len(left_out)), left_out] = 0
        logits[left_out] = engine.logits(_alike(changed))
    return logits


def _alike(ids: Ids) -> Encoded:
    """Reviews of the same length, int32 [reviews, words]."""
    sizes = np.full(len(ids), ids.shape[1], np.int32)
    return Encoded(ids.ravel(), np.arange(len(ids) + 1, dtype=np.int64) * ids.shape[1], sizes, sizes, sizes)


# --- The paths through a network


class Found(NamedTuple):
    """The known n-grams of a review.

    Attributes:
        rows: Of the n-grams, int32 [n].
        values: What the network multiplies their weights by, float32 [n].
        names: What they are called, as `Grams.gram_texts` does.
        single: Whether each is a word, bool [n].
        owners: Of each word of each occurrence the n-gram, a number below n; int64 [m].
        positions: Its position among the review's words; int64 [m].
    """

    rows: Ids
    values: NDArray[np.float32]
    names: list[str]
    single: NDArray[np.bool_]
    owners: NDArray[np.int64]
    positions: NDArray[np.int64]


class Parts(NamedTuple):
    """What makes a logit.

    Attributes:
        words: What each word adds, float64 [words].
        grams: What each n-gram of more than a word adds; the words have it, too.
        bias: The rest.
    """

    words: Doubles
    grams: list[Contribution]
    bias: float


def found_grams(grams: Grams | None, ids: Ids, words: Sequence[str]) -> Found | None:
    """The known n-grams of a review, and where they are; see `word_grams` and `character_grams`.

    Args:
        grams: The table; None where the network looks at none.
        ids: Of the review's words.
        words: The same words.
    """
    if grams is None:
        return None
    had, spec = grams.of(ids, np.array([0, len(ids)])), grams.spec
    keys, numbers = grams.table[had.rows - 1], ids.astype(np.uint64)
    order = np.argsort(keys)
    names, single = [""] * len(keys), keys <= MAX_WORD_ID
    owners, positions = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]

    def match(wanted: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which of some keys the review has as n-grams, and which n-grams these are."""
        at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)] if len(keys) else order
        which = np.flatnonzero(keys[at] == wanted) if len(keys) else order
        return which, at[which]

    kinds = [(0,), *([(0, 1)] * (spec.max_n >= 2)), *([(0, 2)] * spec.skip), *([(0, 1, 2)] * (spec.max_n >= 3))]
    for kind in kinds:
        count = max(len(ids) - kind[-1], 0)
        wanted = np.zeros(count, np.uint64)
        for offset in kind:
            wanted |= numbers[offset : offset + count] << np.uint64(WORD_BITS * offset)
        which, found = match(wanted)
        for first, gram in zip(which.tolist(), found.tolist(), strict=True):
            names[gram] = " ".join(words[first + at] if at in kind else "_" for at in range(kind[-1] + 1))
        for offset in kind:
            owners.append(found)
            positions.append(which + offset)
    if spec.characters:
        at = dict[str, list[int]]()
        for position in np.flatnonzero(ids < len(grams.of_characters[0]) - 1).tolist():
            at.setdefault(words[position], []).append(position)
        spelt = [(text, word) for word in at for text in character_grams(word)]
        for number, gram in zip(*match(character_keys(list(at))[1]), strict=True):
            names[gram], word = spelt[number]
            owners.append(np.full(len(at[word]), gram))
            positions.append(np.array(at[word]))
    return Found(had.rows, had.values, names, single, np.concatenate(owners), np.concatenate(positions))


_Back = Callable[[Doubles], tuple[Doubles, list[Contribution], float]]
"""From how much each output of a branch counts to what each word and n-gram adds, and the bias."""


def paths(
    network: Network, weights: Mapping[str, NDArray[Any]], ids: Ids, found: Found | None, output: Doubles
) -> Parts:
    """What each word of a review adds to a logit along the active paths.

    Args:
        network: The whole network.
        weights: As `folded.pack` takes them.
        ids: Of the words as the network takes them, int [n].
        found: The known n-grams, where the network looks at them.
        output: How much each unit of the last layer counts, float64 [outputs]; see `output_of`.

    Raises:
        SentrayError: When a layer but the last has an activation that a path does not go straight through.
    """
    require_paths(network)
    made = [_branch(network, number, weights, ids, found) for number in range(len(network.branches))]
    values = np.concatenate([features for features, _ in made])
    layers = [(_doubles(weights[f"weights{n}"]), weights[f"units{n}"]) for n in range(len(network.activations))]
    inside: list[Doubles] = []
    for (inputs, units), activation in zip(layers, network.activations, strict=True):
        inside.append(values @ inputs + units)
        values = _activated(inside[-1], activation, network.epsilon)
    # From the logit back to the branches: how much each value counts.
    counts, bias = output, 0.0
    for number in range(len(layers) - 1, -1, -1):
        inputs, units = layers[number]
        bias += float(counts @ units)
        counts = inputs @ counts
        if number:
            counts = through(counts, inside[number - 1], network.activations[number - 1], network.epsilon)
    words, grams, first = np.zeros(len(ids)), list[Contribution](), 0
    for features, back in made:
        of_words, of_grams, more = back(counts[first : first + len(features)])
        first += len(features)
        words += of_words
        grams += of_grams
        bias += more
    return Parts(words, grams, bias)


def require_paths(network: Network) -> None:
    """Refuse a network through which no path goes straight.

    Raises:
        SentrayError: When a layer but the last has an activation of another kind.
    """
    if other := set(network.activations[:-1]) - set(LINEAR):
        raise SentrayError(f"a network with {other.pop()} between its layers has no paths: take --method leave-one-out")


def _activated(values: Doubles, activation: str, epsilon: float) -> Doubles:
    """What follows a dense layer but the last."""
    if activation == "normalize":
        return np.asarray((values - values.mean()) / np.sqrt(values.var() + epsilon))
    return np.maximum(values, 0) if activation == "relu" else values


def through(counts: Doubles, inside: NDArray[Any], activation: str, epsilon: float) -> Doubles:
    """How much what an activation takes counts, from how much it counts what it gives; of one review or of many."""
    if activation == "normalize":
        variance = inside.var(axis=-1, keepdims=True, dtype=np.float64)
        return np.asarray((counts - counts.mean(axis=-1, keepdims=True)) / np.sqrt(variance + epsilon))
    return counts * (inside > 0) if activation == "relu" else counts


def _branch(
    network: Network, number: int, weights: Mapping[str, NDArray[Any]], ids: Ids, found: Found | None
) -> tuple[Doubles, _Back]:
    """What a branch gives of a review, float64 [outputs], and the way back from there."""
    branch, kernel = network.branches[number], weights.get(f"kernel{number}")
    if isinstance(branch, Wide):
        assert found is not None
        return _grams(_doubles(weights[f"kernel{number}"][found.rows]), found, len(ids))
    if isinstance(branch, Mean):
        return _mean(_doubles(weights["embedding"][ids]), branch)
    if isinstance(branch, Sums):
        return _sums(_doubles(weights["embedding"][ids]) @ _doubles(weights[f"kernel{number}"]) / branch.width, branch)
    assert kernel is not None
    assert network.length is not None
    padded = np.zeros(network.length, np.int64)
    padded[: len(ids)] = ids
    width, dimensions, filters = kernel.shape
    side_by_side = _doubles(kernel).transpose(1, 0, 2).reshape(dimensions, width * filters)
    terms = (_doubles(weights["embedding"][padded]) @ side_by_side).reshape(-1, width, filters)
    return _windows(terms, _doubles(weights[f"bias{number}"]), branch, len(ids))


def _windows(terms: Doubles, bias: Doubles, branch: Branch, count: int) -> tuple[Doubles, _Back]:
    """A convolution and its pooling.

    Args:
        terms: What each word adds to a window that has it at an offset, [length, width, filters].
        bias: Of the filters.
        branch: Shape.
        count: Words; the others are padding.
    """
    windows, pools = branch.windows(len(terms)), branch.pools(len(terms))
    values = sum((terms[k : k + windows, k] for k in range(branch.width)), bias)
    pooled = np.arange(branch.window or windows) + branch.stride * np.arange(pools)[:, None]
    each = values[pooled]
    passes = each > 0 if branch.relu else np.ones(each.shape, bool)
    if branch.pooling == "max":
        passes &= np.arange(each.shape[1])[None, :, None] == each.argmax(axis=1)[:, None]
        share = 1.0
    else:
        share = 1 / each.shape[1]
    features = (each * passes).sum(axis=1) * share

    def back(counts: Doubles) -> tuple[Doubles, list[Contribution], float]:
        of_windows = np.zeros((windows, branch.filters))
        np.add.at(of_windows, pooled, passes * (counts.reshape(pools, 1, -1) * share))
        words = np.zeros(len(terms))
        for k in range(branch.width):
            words[k : k + windows] += (of_windows * terms[k : k + windows, k]).sum(axis=1)
        return words[:count], [], float((of_windows @ bias).sum() + words[count:].sum())

    return features.ravel(), back


def _sums(terms: Doubles, branch: Sums) -> tuple[Doubles, _Back]:
    """The largest of sums of windows, which reach over both ends; of what each word adds to each, [words, filters]."""
    count = len(terms)
    padded = np.zeros((count + 2 * branch.width - 1, branch.filters))
    padded[branch.width : branch.width + count] = terms
    totals = padded.cumsum(axis=0)
    values = totals[branch.width :] - totals[: -branch.width]
    values = values if count else np.zeros((1, branch.filters))
    first, most = values.argmax(axis=0), values.max(axis=0)

    def back(counts: Doubles) -> tuple[Doubles, list[Contribution], float]:
        words = np.zeros(count)
        for unit in np.flatnonzero(most > 0):
            window = slice(max(first[unit] - branch.width + 1, 0), first[unit] + 1)
            words[window] += counts[unit] * terms[window, unit]
        return words, [], 0.0

    return np.maximum(most, 0), back


def _mean(vectors: Doubles, branch: Mean) -> tuple[Doubles, _Back]:
    """The mean of vectors [words, dimensions], brought to mean 0 and variance 1."""
    mean = vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1])
    variance = mean.var() + branch.epsilon
    scale = 1 / np.sqrt(variance) if variance else 0.0

    def back(counts: Doubles) -> tuple[Doubles, list[Contribution], float]:
        return vectors @ (counts - counts.mean()) * (scale / max(len(vectors), 1)), [], 0.0

    return (mean - mean.mean()) * scale, back


def _grams(rows: Doubles, found: Found, count: int) -> tuple[Doubles, _Back]:
    """The sum of n-grams' rows [grams, columns], each times its value."""
    scaled = rows * found.values[:, None]

    def back(counts: Doubles) -> tuple[Doubles, list[Contribution], float]:
        weights = scaled @ counts
        shares = weights / np.maximum(np.bincount(found.owners, minlength=len(weights)), 1)
        words = np.bincount(found.positions, shares[found.owners], count).astype(np.float64)
        named = zip(found.names, weights.tolist(), found.single.tolist(), strict=True)
        return words, [Contribution(name, weight) for name, weight, single in named if not single], 0.0

    return scaled.sum(axis=0), back


def _doubles(values: NDArray[Any]) -> Doubles:
    return values.astype(np.float64)
