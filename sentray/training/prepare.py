"""From a corpus to a training set: one parallel pass counts the words, a second one encodes the reviews.

Where words are hashed there is nothing to count, and one pass does.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sentray import cluster, models, profile
from sentray.bundle import GRAMS, Bundle, ModelSpec, Number, TrainedOn, standardised
from sentray.config import TrainSettings
from sentray.console import Console, count
from sentray.corpus.dataset import Corpus, Tables
from sentray.corpus.groups import group_keys
from sentray.corpus.identity import TextHashes, content_in, content_of, digest, hashes_of
from sentray.corpus.inspect import Inspection, as_trained, counted, inspect_rows, listed
from sentray.corpus.rows import (
    NUMBERS,
    QUARANTINE_FILE,
    Hashes,
    kept_name,
    label_order,
    numbers_of,
    set_aside,
)
from sentray.corpus.vocab import survey, training_rows
from sentray.embeddings import ppmi
from sentray.embeddings.matrix import centred, coverage, embedding_matrix
from sentray.embeddings.read import dimensions_of, read_vectors
from sentray.errors import SentrayError, first_line
from sentray.inference.networks import described
from sentray.models import DEEP, EMBEDDING, WIDE, Architecture
from sentray.storage import Folder
from sentray.task import Task, outputs, split
from sentray.text.cleaning import preset_of, rules_from
from sentray.text.coverage import Left
from sentray.text.encoding import Encoder
from sentray.text.hashing import HashedWords, Words
from sentray.text.ngrams import MAX_WORD_ID, make_table
from sentray.text.vocabulary import Vocabulary
from sentray.training import training_set
from sentray.training.continuing import base_of, rehearsal, start_of, trained_before
from sentray.training.folds import NEVER, Folds, hold_out
from sentray.training.function import checked
from sentray.training.gram_counts import choose_grams
from sentray.training.window_sums import sizes

USUAL_LENGTH = 0.995
"""Share of the training reviews that the network takes whole, where nothing else is asked for."""

MAX_UNKNOWN = 50
"""Words outside the vocabulary that `metrics.json` lists."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Where nothing but the numbers decides in what order a matrix product sums: one corpus has the same vectors always."""

REVIEWS_SCHEMA = pa.schema(
    [
        pa.field("ids", pa.list_(pa.int32())),
        pa.field("label", pa.string()),
        pa.field("hash", pa.uint64()),
        pa.field("group", pa.uint64()),
        pa.field("given", pa.bool_()),
        pa.field("weight", pa.float32()),
        pa.field("words", pa.int32()),
        pa.field("known", pa.int32()),
        pa.field(NUMBERS, pa.list_(pa.float64())),
    ]
)
"""A row for an encoded training review: its word ids, its label, the hash of its text, what is equal for those that are
held out together, whether its split is validation, how much it counts, its words, those of them that a vocabulary of
the other reviews would have too, and its numbers."""
_FACTS = {"hash": np.uint64, "group": np.uint64, "given": np.bool_, "weight": np.float32}


def prepare(settings: TrainSettings, architecture: Architecture, out: str, console: Console) -> None:
    """Read the corpus through Ray Data and write the training set and `quarantine.parquet` into the folder `out`.

    Raises:
        SentrayError: The corpus cannot be used, see `Inspection.check_trainable`, or the word vectors cannot.
    """
    base = base_of(settings)
    rules, about = rules_from(settings) if base is None else (base.spec.cleaning, ())
    for line in about:
        console.say(line)
    dimensions = _dimensions(settings)
    corpus = Corpus.open(settings.corpus, settings)
    console.say(f"corpus: {corpus.describe()}")
    function = checked(settings) if base is None else base.spec.function
    if function is not None and function.layers:
        console.say(f"the bundle loads with --trust-model alone: its network {described(function)}")
    folder = Folder(out)
    folder.delete("")
    uses_grams = WIDE in architecture.heads
    counts: Counter[str] = Counter()
    words: Words = HashedWords(settings.buckets) if base is None else base.vocabulary
    counted_first = settings.encoder == "vocabulary" and base is None
    if counted_first:
        inspection, counts = survey(corpus, rules, console, _splits(settings))
        inspection = _checked(inspection, corpus, folder, settings)
        max_words = settings.max_words
        if uses_grams:
            # The shared id of the unknown is one more.
            max_words = min(max_words or MAX_WORD_ID, MAX_WORD_ID - 1)
        words = Vocabulary.from_counts(counts, settings.min_count, max_words, settings.unknown)
    start = None
    if base is not None:
        console.expect(f"the weights of {base}")
        start, dimensions = start_of(base)
    _require_memory(words, dimensions or architecture.dimensions, settings.freeze)
    vectors, origin = None, None
    if settings.embedding is not None and isinstance(words, Vocabulary):
        vectors, origin = _vectors(settings.embedding, words, counts, settings, console)
    found = _write_reviews(corpus, Encoder(rules, words), words, counts, folder, settings, console, base)
    offsets, labels, targets, held, left = found.offsets, found.labels, found.targets, found.held, found.left
    if not counted_first:
        inspection = _checked(found.inspection, corpus, folder, settings)
    if not found.used:
        raise SentrayError(
            f"cleaning leaves no word of the {len(targets):,} reviews to train on; check --cleaning and --text-column"
        )
    lengths = np.diff(offsets)
    longest = int(lengths.max())
    usual = longest if preset_of(settings) == "tutorial" else usual_length(lengths)
    max_length = max(settings.max_length or usual, architecture.min_length)
    deep = None
    if DEEP in architecture.heads and start is not None:
        vectors, origin = start.pop(f"{DEEP}/{EMBEDDING}/0"), {"format": "bundle", "rows": words.size}
    elif DEEP in architecture.heads:
        average = float(np.minimum(lengths, max_length).mean())
        deep = sizes(len(lengths), average, dimensions)
        console.say(f"deep half: {deep.reason}")
        if vectors is None:
            vectors, origin = _learnt(out, offsets, words, deep.spec.dimensions, settings.seed, console)
    chosen, task = None, settings.task
    if uses_grams and base is None:
        chosen = choose_grams(settings, out, words, offsets, max_length, outputs(task, len(labels)), console)
    spec = (
        base.spec
        if base is not None
        else ModelSpec.of(
            words,
            architecture=architecture.name,
            cleaning=rules,
            labels=tuple(labels),
            max_length=max_length,
            grams=chosen and chosen.spec,
            deep=deep and deep.spec,
            numeric=_measured(settings.numeric, found.numbers) if settings.numeric else (),
            task=task,
            function=function,
        )
    )
    max_length = spec.max_length
    if task == "classification" and len(labels) > 2 and (settings.threshold or settings.unsure):
        raise SentrayError(
            f"--threshold and --unsure are about two labels, and {corpus.name} has {len(labels):,}: leave them out"
        )
    mean, scale, label_rows = 0.0, 1.0, list[int]()
    if task == "regression":
        mean, scale = float(targets.mean(dtype=np.float64)), float(targets.std(dtype=np.float64)) or 1.0
        mean, scale = (mean, scale) if base is None else base.metrics["target"]
    elif task == "multilabel":
        label_rows = targets.sum(axis=0, dtype=np.int64).tolist()
    else:
        label_rows = np.bincount(targets, minlength=len(labels)).tolist()
    held_out = np.bincount(held[held != NEVER]).tolist()
    metrics = {
        **(_word_metrics(words, counts, found.used, settings.excerpts) if base is None else _words_before(base, left)),
        "embedding": origin,
        "grams": chosen.metrics if chosen else base and base.metrics["grams"],
        "target": (mean, scale),
        "continued": found.continued,
        "longest_review": longest,
        "cleaning_left": asdict(left),
        "reference": found.reference,
        "test_rows": inspection.of_split("test").total(),
        "quarantined_rows": inspection.reasons.total(),
    }
    facts = training_set.Facts(
        spec, len(targets), tuple(label_rows), tuple(held_out), dimensions, metrics, found.trained_on, mean, scale
    )
    _tell(console, facts, targets, inspection, words, lengths, settings)
    for line in left.lines(rules, settings.encoder == "vocabulary"):
        console.say(line)
    if chosen:
        console.say(chosen.line)
    if spec.numeric:
        known = ", ".join(f"{each.name} (mean {each.mean:,.4g}, deviation {each.scale:,.4g})" for each in spec.numeric)
        console.say(f"numbers besides the text: {known}")
    table = make_table(chosen.keys) if chosen else None
    if base is not None and GRAMS in base.files:
        table = np.frombuffer(base.files[GRAMS], np.uint64)
    training_set.write(
        folder,
        facts,
        words,
        offsets,
        targets,
        held,
        found.texts,
        corpus.source,
        vectors,
        table,
        found.weights,
        found.hashes,
        standardised(spec.numeric, found.numbers) if spec.numeric else None,
        start,
    )


def require_files(settings: TrainSettings) -> None:
    """Look at the files of stop words and of word vectors, and whether the model has what is set, without Ray.

    Raises:
        SentrayError: One is not there, cannot be read, or does not fit.
    """
    architecture = models.architecture(settings.model)
    uses_grams = WIDE in architecture.heads
    if not architecture.dimensions and (settings.embedding or settings.dimensions or settings.embedding_learning_rate):
        raise SentrayError(
            "--embedding, --dimensions and --embedding-learning-rate are about word vectors, which --model "
            f"{settings.model} does not have; leave them out, or take --model wide-deep"
        )
    if settings.gpu and isinstance(architecture, models.Halves):
        raise SentrayError(f"--model {settings.model} is trained on CPUs, and no GPU makes it faster: leave out --gpu")
    if not uses_grams and (settings.max_grams or settings.min_gram_reviews or settings.characters is not None):
        raise SentrayError(
            "--max-grams, --min-gram-reviews and --characters are about n-grams, at which --model "
            f"{settings.model} does not look; leave them out, or take --model wide"
        )
    if settings.encoder == "hash" and uses_grams:
        if settings.characters:
            raise SentrayError("--characters needs --encoder vocabulary: of a hashed word no character is known")
        if settings.buckets > MAX_WORD_ID:
            raise SentrayError(f"with n-grams, as of --model {settings.model}, --buckets is at most {MAX_WORD_ID:,}")
    if settings.numeric and DEEP not in architecture.heads and uses_grams:
        raise SentrayError(
            f"--model {settings.model} looks at n-grams alone, not at --numeric: take --model wide-deep or deep"
        )
    rules_from(settings)
    _dimensions(settings)
    checked(settings)


def _dimensions(settings: TrainSettings) -> int | None:
    """Numbers of a word's vector, where the settings or the word vectors say it.

    The vectors' file is looked at and not read, so that a wrong one is refused before the corpus is read.
    """
    file = settings.embedding
    if file is None:
        return settings.dimensions
    found = dimensions_of(file)
    if settings.dimensions not in (None, found):
        raise SentrayError(
            f"the vectors of {file} have {found} numbers, not the {settings.dimensions} of --dimensions; leave it out, "
            "or give another file"
        )
    return found


def _require_memory(words: Words, dimensions: int, freeze: bool) -> None:
    """Refuse word vectors that no machine of the cluster can hold, where none larger can come.

    A training process holds them twice, in the network that is saved and as they are trained, and Adam's two moments.
    """
    import ray

    if cluster.resources().grows:
        return
    needed = words.size * dimensions * 4 * (2 if freeze else 4)
    living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max(node.get("memory", 0) + node.get("object_store_memory", 0) for node in living)
    if needed > largest:
        option = "--buckets" if isinstance(words, HashedWords) else "--max-words"
        raise SentrayError(
            f"the vectors of {words.size:,} ids with {dimensions:,} numbers each take {needed / 1e9:,.0f} GB in "
            f"training and the largest machine has {largest / 1e9:,.0f} GB: take fewer {option} or fewer --dimensions"
        )


def _splits(settings: TrainSettings) -> tuple[str, ...]:
    """The splits whose rows are in the training set."""
    return ("train", "validation") if settings.validation_fraction else ("train",)


def _checked(inspection: Inspection, corpus: Corpus, folder: Folder, settings: TrainSettings) -> Inspection:
    """The corpus's inspection, see `as_trained`; writes the rows set aside.

    Raises:
        SentrayError: see `Inspection.check_trainable`.
    """
    inspection = as_trained(
        inspection, lambda labels: corpus.map_blocks(inspect_rows, labels=labels), _splits(settings), settings.task
    )
    if inspection.rows:
        with folder.create(QUARANTINE_FILE) as stream:
            pq.write_table(set_aside(inspection.bad, corpus.settings.excerpts), stream)
    inspection.check_trainable(corpus.name, corpus.settings.max_bad_rows, settings.task)
    if settings.test_fold is not None and not inspection.of_split("test"):
        where = f"--fold-column {settings.fold_column}" if settings.fold_column else corpus.name
        raise SentrayError(f"no row of {where} is in --test-fold {settings.test_fold}: name another fold")
    return inspection


def clean_and_encode(
    rows: pa.Table, encoder: Encoder, settings: TrainSettings, counts: NDArray[np.int32] | None = None
) -> Tables:
    """A stage: `inspect_rows`, the training `reviews` of `REVIEWS_SCHEMA`, what is `left` of them, and `content_of`.

    Args:
        rows: A table of `ROW_SCHEMA`.
        encoder: Gives words their ids.
        settings: Of the run.
        counts: How often each id occurs in all training reviews; None where words are hashed.
    """
    chosen = training_rows(rows, _splits(settings))
    encoded = encoder.encode(chosen["text"])
    lists = pa.ListArray.from_arrays(encoded.offsets.astype(np.int32), encoded.ids)
    hashes, given = hashes_of(chosen), pc.equal(chosen["split"], "validation")
    known = encoded.known
    if counts is not None:
        strange = profile.strange_to_others(encoded.ids, encoded.offsets, counts, settings.min_count)
        known = (known - strange).astype(np.int32)
    columns = [lists, chosen["label"], hashes, group_keys(chosen, settings), given, _weights(chosen, settings)]
    columns += [pa.array(encoded.words), pa.array(known)]
    numbers = numbers_of(chosen, settings.numeric)
    columns += [pa.nulls(len(chosen)) if numbers is None else pa.array(list(numbers))]
    reviews = pa.table(columns, REVIEWS_SCHEMA)
    left = Left.of(encoded, chosen["text"]).table()
    return {**inspect_rows(rows), "reviews": reviews, "left": left, **content_of(rows)}


def _weights(rows: pa.Table, settings: TrainSettings) -> pa.Array:
    if settings.weight_column is None:
        return pa.repeat(1.0, len(rows))
    try:
        weights = rows[kept_name(settings.weight_column)].cast(pa.float32())
    except pa.ArrowInvalid as error:
        raise SentrayError(
            f"--weight-column {settings.weight_column} holds no numbers ({first_line(error)}): name another"
        ) from error
    if not pc.all(pc.and_(pc.is_finite(weights), pc.greater_equal(weights, 0)).fill_null(False)).as_py():
        raise SentrayError(
            f"--weight-column {settings.weight_column} has a row without a number from 0 on: give it one"
        )
    return weights


@dataclass(frozen=True)
class _Reviews:
    """What is known of a corpus's rows, and of the training reviews besides their ids.

    Attributes:
        inspection: Of all rows of the corpus.
        offsets: Where each review starts in the file of ids, and the end of the last, int64 [reviews + 1].
        labels: In order.
        targets: What each review has of them, as `TrainingSet.targets`.
        held: The fold that holds it out.
        weights: How much it counts, float32 [reviews], where they do not count alike.
        used: How many of the ids occur.
        left: What the cleaning and the vocabulary left.
        texts: Hashes of the texts that are trained on.
        trained_on: What is known of the corpus.
        hashes: Of each text.
        reference: What other reviews are compared with (see `scoring.drift.Reference`), without scores.
        numbers: Besides the texts, float64 [reviews, columns].
        continued: What is known of the rows where training goes on with a bundle.
    """

    inspection: Inspection
    offsets: NDArray[np.int64]
    labels: list[str]
    targets: NDArray[Any]
    held: Folds
    weights: NDArray[np.float32] | None
    used: int
    left: Left
    texts: TextHashes
    trained_on: TrainedOn
    hashes: Hashes
    reference: dict[str, Any]
    numbers: NDArray[np.float64]
    continued: dict[str, Any] | None


def _write_reviews(
    corpus: Corpus,
    encoder: Encoder,
    words: Words,
    counts: Counter[str],
    folder: Folder,
    settings: TrainSettings,
    console: Console,
    base: Bundle | None = None,
) -> _Reviews:
    """Encode the training reviews, and write their ids to a file."""
    inspection, seen, left = Inspection(), np.zeros(words.size, np.bool_), Left()
    times = _times(words, counts) if isinstance(words, Vocabulary) else None
    bins: dict[str, Any] = {"lengths": 0, "known": 0, "words": 0}
    lengths, chunks, contents = [np.zeros(1, np.int64)], list[pa.Array](), list[int]()
    facts: dict[str, list[Any]] = {name: [np.empty(0, kind)] for name, kind in _FACTS.items()}
    numbers = [np.empty((0, len(settings.numeric)))]
    with folder.create(training_set.IDS_FILE) as stream:
        for found in corpus.map_blocks(clean_and_encode, encoder=encoder, settings=settings, counts=times):
            ids, label = found["reviews"]["ids"], found["reviews"]["label"]
            flat = pc.list_flatten(ids).to_numpy()
            stream.write(pa.py_buffer(flat))
            seen[flat] = True
            lengths.append(pc.list_value_length(ids).to_numpy().astype(np.int64))
            chunks += label.chunks
            for name, of_blocks in facts.items():
                # A copy, since the block's memory goes with any part of it.
                of_blocks.append(np.array(found["reviews"][name]))
            if settings.numeric:
                values = pc.list_flatten(found["reviews"][NUMBERS]).to_numpy()
                numbers.append(values.reshape(-1, len(settings.numeric)).copy())
            of_words, known = (found["reviews"][name].to_numpy() for name in ("words", "known"))
            bins["lengths"] += profile.of_lengths(of_words)
            bins["known"] += profile.of_known(of_words, known)
            bins["words"] += profile.of_words(flat)
            contents.append(content_in(found))
            inspection += Inspection.of(found)
            left += Left.sum(found["left"])
            console.progress(f"encoding: {inspection.rows:,} rows")
    of_reviews = pa.chunked_array(chunks, pa.string())
    labels, targets = _targets(of_reviews, settings.task, base)
    hash, group, given, weight = map(np.concatenate, facts.values())
    # What a bundle was trained on says nothing of what goes on with it.
    fresh, continued = np.ones(len(hash), np.bool_) if base is None else ~trained_before(base, hash), None
    held = np.full(len(hash), NEVER, np.uint8)
    # Nor do rows whose group has some of these, but for those that their split holds out.
    apart = fresh & (given | ~np.isin(group, group[~fresh]))
    if base is not None and settings.validation_fraction and not apart.any():
        raise SentrayError(
            f"each new row is of a group of which {base} was trained on other rows, so that none can be held out: "
            "leave these rows out, or give --validation-fraction 0"
        )
    held[apart] = hold_out(group[apart], given[apart], settings.validation_fraction, settings.refit)
    if base is not None:
        continued, line = rehearsal(base, ~fresh, weight)
        console.say(line)
        if together := int((fresh & ~apart).sum()):
            console.say(f"{together:,} new rows are never held out, since {base} was trained on others of their groups")
    if len(held) and np.bincount(held).max() == len(held) and held[0] != NEVER:
        raise SentrayError(
            f"all training rows of {corpus.name} would be held out together: give groups that are smaller, or "
            "--validation-fraction 0"
        )
    texts = TextHashes.of([hash if settings.refit else hash[held == NEVER]])
    if base is not None and base.texts is not None:
        texts |= base.texts
    trained_on = TrainedOn(
        split_by=corpus.settings.split_by,
        test_fraction=corpus.settings.test_fraction or 0.0,
        sampled=texts.sampled,
        bytes=corpus.source.bytes,
        digest=digest(corpus.source, contents),
    )
    used = int(np.count_nonzero(seen))
    offsets, weights = (
        np.cumsum(np.concatenate(lengths)),
        weight if settings.weight_column or base is not None else None,
    )
    # The buckets of hashed words are in no order.
    reference: dict[str, Any] = {
        name: np.asarray(found).tolist() for name, found in bins.items() if name != "words" or times is not None
    }
    reference["rows"] = len(targets)
    given = np.concatenate(numbers)
    return _Reviews(
        inspection,
        offsets,
        labels,
        targets,
        held,
        weights,
        used,
        left,
        texts,
        trained_on,
        hash,
        reference,
        given,
        continued,
    )


def _measured(names: Sequence[str], values: NDArray[np.float64]) -> tuple[Number, ...]:
    """The columns of these names with mean and deviation of their values, float64 [reviews, columns]."""
    both = zip(names, values.mean(axis=0).tolist(), values.std(axis=0).tolist(), strict=True)
    # Of equal values the mean may differ by a rounding error, of which no scale is to be made.
    return tuple(
        Number(name=name, mean=mean, scale=scale if scale > 1e-9 * abs(mean) else 1) for name, mean, scale in both
    )


def _targets(of_reviews: pa.ChunkedArray, task: Task, base: Bundle | None) -> tuple[list[str], NDArray[Any]]:
    """The labels in order, none of a regression, and `TrainingSet.targets`, from the column of labels.

    Raises:
        SentrayError: There are other labels than those of the bundle that training goes on with.
    """
    if task == "regression":
        return [], of_reviews.cast(pa.float32()).to_numpy()
    every = pc.unique(of_reviews).to_pylist()
    labels = sorted({label for each in every for label in split(each)}, key=label_order)
    if base is not None:
        if new := [label for label in labels if label not in base.labels]:
            raise SentrayError(
                f"{base} knows the labels {listed(base.labels)}, and the corpus has {listed(new)} as well: leave these "
                "rows out, or train anew without --continue-from"
            )
        labels = list(base.labels)
    if task != "multilabel":
        return labels, pc.index_in(of_reviews, pa.array(labels, pa.string())).to_numpy()
    at = {label: position for position, label in enumerate(labels)}
    has = np.zeros((len(every), len(labels)), np.uint8)
    for row, joined in enumerate(every):
        has[row, [at[label] for label in split(joined)]] = 1
    return labels, has[pc.index_in(of_reviews, pa.array(every, pa.string())).to_numpy()]


def _times(words: Vocabulary, counts: Counter[str]) -> NDArray[np.int32]:
    """How often each id occurs; the unknown's without end, and all where they are not counted."""
    times = np.full(words.size, np.iinfo(np.int32).max, np.int32)
    if not counts:
        return times
    times[1 : len(words) + 1] = [min(counts[word], times[0]) for word in words.words]
    return times


def _word_metrics(words: Words, counts: Counter[str], used: int, excerpts: bool) -> dict[str, Any]:
    """What `metrics.json` says of the words, of whose ids so many occur; rare words may be names of people."""
    if isinstance(words, Vocabulary):
        known = sum(counts[word] for word in words.words)
        distinct, coverage, sharing = len(counts), round(known / counts.total(), 6), None
        # What occurs once is no word to miss.
        left = ((times, word) for word, times in counts.items() if times > 1 and word not in words.ids)
        unknown = [[word, times] for times, word in heapq.nlargest(MAX_UNKNOWN, left)]
    else:
        distinct, sharing = words.estimate(used)
        coverage, unknown = 1.0, []
    return {
        "vocabulary_distinct": distinct,
        "vocabulary_distinct_estimated": sharing is not None,
        "coverage": coverage,
        "sharing_words": sharing,
        "unknown_words": unknown if excerpts else [],
    }


def _words_before(base: Bundle, left: Left) -> dict[str, Any]:
    """The same of a bundle's words, which are not counted again."""
    names = ("vocabulary_distinct", "vocabulary_distinct_estimated", "sharing_words")
    coverage = round(left.known / max(left.words, 1), 6)
    return {**{name: base.metrics.get(name) for name in names}, "coverage": coverage, "unknown_words": []}


def _vectors(
    file: str, words: Vocabulary, counts: Counter[str], settings: TrainSettings, console: Console
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Word vectors as an embedding to start from, float32 [ids, dimensions], and how they cover the vocabulary."""
    vectors, report = read_vectors(file, wanted=words.words)
    found = coverage(words.words, counts, vectors)
    for line in (*report.lines(), *found.lines()):
        console.say(line)
    if settings.center:
        vectors = centred(vectors, counts)
    matrix = embedding_matrix(words.words, words.size, vectors, settings.oov, settings.seed)
    origin = {
        "format": report.format,
        "rows": report.rows,
        "duplicates": report.duplicates,
        "bad_rows": report.bad_rows,
        "oov": settings.oov,
        "center": settings.center,
    }
    return matrix, origin | found.to_dict()


def _learnt(
    folder: str, offsets: NDArray[np.int64], words: Words, dimensions: int, seed: int, console: Console
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Word vectors of the training reviews to start from, as `_vectors`; a Ray task learns them."""
    import ray

    console.expect("word vectors to be learnt from the training reviews")
    task = ray.remote(num_cpus=1, runtime_env={"env_vars": _ONE_THREAD})(_learn)
    try:
        named = task.options(name="sentray learn word vectors")
        learnt = ray.get(named.remote(folder, offsets, words.size, dimensions, seed))
    except ray.exceptions.RayError as error:
        raise cluster.user_error(error) or error from None
    of = f"a sample of {learnt.reviews:,}" if learnt.sampled else f"{learnt.reviews:,}"
    console.say(
        f"word vectors: {dimensions} numbers for each of {learnt.words:,} words, learnt from {of} training reviews by "
        "what is near each word (--embedding FILE starts from others)"
    )
    return learnt.vectors, {"format": "ppmi", "rows": learnt.words, "reviews": learnt.reviews}


def _learn(folder: str, offsets: NDArray[np.int64], rows: int, dimensions: int, seed: int) -> ppmi.Learnt:
    """A task: learn word vectors from the ids that lie in a folder."""
    with training_set.ids_in(folder) as ids:
        return ppmi.learn(ids, offsets, rows, dimensions, seed=seed)


def usual_length(lengths: NDArray[np.int64]) -> int:
    """The length that so many reviews do not exceed; one review of a book's length makes no network as long."""
    return int(np.quantile(lengths, USUAL_LENGTH, method="inverted_cdf"))


def _tell(
    console: Console,
    facts: training_set.Facts,
    targets: NDArray[Any],
    inspection: Inspection,
    words: Words,
    lengths: NDArray[np.int64],
    settings: TrainSettings,
) -> None:
    found, training = facts.metrics, facts.rows
    shares = counted(dict(zip(facts.spec.labels, facts.label_rows, strict=True)))
    if facts.spec.task == "regression":
        shares = f"numbers from {targets.min():g} to {targets.max():g}, mean {facts.mean:.4g}"
    elif facts.spec.task == "multilabel":
        shares += f"; {sum(facts.label_rows) / training:.2f} labels a review"
    others = Counter[str]()
    for (part, label), rows in inspection.labels.items():
        if part not in (*_splits(settings), "test") or label is None:
            others[part if label is not None else "unlabelled"] += rows
    console.say(
        f"rows: {inspection.rows:,} read, {training:,} to train on ({shares}), {found['test_rows']:,} to test on, "
        f"{found['quarantined_rows']:,} quarantined"
        + (f", not used: {', '.join(f'{rows:,} {what}' for what, rows in others.items())}" if others else "")
    )
    for reason, rows in inspection.reasons.most_common():
        console.say(f"  quarantined as {reason}: {rows:,}")
    if facts.held_out:
        console.say(_held_out(facts.held_out, inspection, settings))
    longer = int(np.count_nonzero(lengths > facts.spec.max_length))
    cut = f" and cuts {longer:,} reviews ({longer / training:.1%}); --max-length takes more" if longer else ""
    about, kept = "", f"{len(words):,} in the vocabulary"
    if isinstance(words, HashedWords):
        about = "about "
        kept = f"hashed into {count(len(words), 'bucket')}, where about {found['sharing_words']:,} share theirs"
    console.say(
        f"words: {about}{found['vocabulary_distinct']:,} distinct, {kept}; the longest review has "
        f"{found['longest_review']:,}, the network takes {facts.spec.max_length:,}{cut}"
    )


def _held_out(folds: tuple[int, ...], inspection: Inspection, settings: TrainSettings) -> str:
    """Which training rows are held out, in words."""
    if given := inspection.of_split("validation").total():
        return f"held out: the {given:,} rows whose split is validation"
    groups = settings.group_by or (f"whole {settings.group_column}" if settings.group_column else "a hash of the text")
    if len(folds) > 1:
        return (
            f"held out: each training row once, by one of {len(folds)} fits, since a tenth of {sum(folds):,} rows "
            f"would say little; by {groups}"
        )
    return f"held out: {folds[0]:,} of the training rows, by {groups}"
