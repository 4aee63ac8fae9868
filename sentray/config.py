"""Settings of every verb: a validated model each, from which command line and config file are read."""

import codecs
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from sentray.cluster import WorkerRange
from sentray.task import Task


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors and values never change after validation.

    A field is an option of the command line (`test_fraction` is `--test-fraction`; an alias goes before the
    name) and a key of the config file. Help lists a verb's own options before those it inherits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    unused: ClassVar[frozenset[str]] = frozenset()
    """Inherited fields without meaning for this verb: they keep their defaults and are not offered."""
    panel: ClassVar[str] = "Options"
    """Heading in the help for the fields that a class itself declares."""


Lines = Literal["text", "label-first", "label-last", "fasttext"]
STANDARD_INPUT = "-"
"""Stands for the standard input, where reviews are asked for."""
DEFAULT_JOB_SERVER = "http://127.0.0.1:8265"
RUNTIME_ENV = "jobs/runtime_env.yaml"
EngineName = Literal["auto", "folded", "keras"]
ENGINE_HELP = "what computes the scores: the folded network without TensorFlow, or Keras"
TRUST_HELP = "run the code of the bundle's own layers: the module that it names is imported"


def setting(about: str, default: Any = ..., **more: Any) -> Any:
    """A field: what the help says of it, and its default where it need not be given.

    Args:
        about: One phrase, with the unit.
        default: As the attribute is.
        **more: What `pydantic.Field` takes, such as bounds; `argument=True` where the command line takes it by
            position, `off` as the name of the option that switches it off.
    """
    extra: dict[str, Any] = {name: more.pop(name) for name in ("argument", "off") if name in more}
    return Field(default, description=about, json_schema_extra=extra, **more)


def argument(about: str) -> Any:
    """A field that must be given, by position."""
    return setting(about, argument=True)


def _as_list(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(f"{old}:{new}" for old, new in value.items())
    return (value,) if isinstance(value, str) else value


Several = Annotated[
    tuple[str, ...], BeforeValidator(_as_list), AfterValidator(lambda values: tuple(dict.fromkeys(values)))
]
"""Type of an option that may be repeated: one string is a list of it, and each counts once; a mapping is OLD:NEW."""


def _sign(value: str) -> str:
    value = {"tab": "\t", "\\t": "\t"}.get(value, value)
    if value != "none" and (len(value) != 1 or not value.isascii() or value in "\r\n\0"):
        raise ValueError("it must be one ASCII character, tab or none")
    return value


def _encoding(value: str) -> str | None:
    try:
        codecs.getincrementaldecoder(value)
        name = codecs.lookup(value).name
        b"x".decode(name, "replace")
    except LookupError:
        raise ValueError("there is no such encoding; utf-8, cp1252, latin-1, gb18030 and shift_jis are some") from None
    return None if name == "utf-8" else name


def _is_share(value: str) -> bool:
    try:
        return 0 <= float(value) <= 1
    except ValueError:
        return False


def _is_fold(value: str) -> bool:
    number, _, folds = value.partition("/")
    return number.isdecimal() and folds.isdecimal() and 1 <= int(number) <= int(folds) and 2 <= int(folds) <= 1000


def _threshold(value: str) -> str:
    name, _, share = value.partition("=")
    if value not in ("f1", "balanced") and not _is_share(share if name == "precision" else value):
        raise ValueError("it must be f1, balanced, precision=P or a number, P and the number from 0 to 1")
    return value


def _unsure(value: str) -> str:
    low, _, high = value.partition(":")
    if not (_is_share(low) and _is_share(high) and float(low) <= float(high)):
        raise ValueError("it must be two probabilities, the lower first, as in 0.4:0.6")
    return value


def _budget(value: str) -> str:
    if re.fullmatch(r"[0-9]{1,6}[smh]", value) is None or not int(value[:-1]):
        raise ValueError("it must be a time in seconds, minutes or hours, as in 90s, 30m or 2h")
    return value


def _group_by(value: str) -> str:
    name, _, size = value.partition(":")
    if name != "id-block" or not size.isdecimal() or not 1 <= int(size) <= 10**9:
        raise ValueError("it must be id-block:N, as in id-block:100")
    return value


Sign = Annotated[str, AfterValidator(_sign)]
"""Type of an ASCII character, by itself or by its name; `none` is none."""
Encoding = Annotated[str, AfterValidator(_encoding)]
"""Type of the name of a text encoding; None is UTF-8."""
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    AfterValidator(lambda values: tuple(name.strip() for value in values for name in value.split(","))),
]
"""Type of an option that lists names, with commas between them or repeated."""
Distinct = Annotated[Names, AfterValidator(lambda names: tuple(dict.fromkeys(names)))]
"""The same where each counts once."""


FOLDS = frozenset({"test_fold", "fold_column", "group_column", "group_by", "numeric"})
"""Settings of a corpus that only training offers."""
LABELS = frozenset({"label_column", "label_from", "label_separator", "task"})
"""Settings of a corpus that say what its labels are."""


class LogSettings(Settings):
    """Whether to hear from the libraries."""

    panel = "Cluster and log"

    verbose: bool = setting("show what Ray, TensorFlow and others print, else it goes to the log", False)


class CorpusSettings(Settings):
    """Which reviews to read and what their columns are called."""

    panel = "Corpus"

    text_column: str = setting("column that holds the review; of CSV also its number, from 1", "text")
    label_column: str = setting("column that holds the label", "label")
    id_column: str = setting("column that holds a unique id; path and position where absent, or for none", "id")
    split_column: str = setting("column that says train, test or validation", "split")
    task: Task = setting(
        "what is asked of a review: its one label (classification), all labels that fit (multilabel), its step on a "
        "scale such as stars (ordinal), or a number (regression)",
        "classification",
    )
    label_separator: str | None = setting(
        "where a review has several labels, what parts them in a column of text, as in drama;comedy; alone in a cell "
        "it says that none fits",
        None,
        min_length=1,
    )
    label_from: Literal["column", "name"] = setting(
        "where a label is: in a column or a folder, or in the file's name, as in reviews.pos and reviews.neg", "column"
    )
    lines: Lines | None = setting(
        "what is on a line of a file without columns: a review, `label text`, `text TAB label`, or fastText's "
        "`__label__x text`, which is recognised",
        None,
    )
    test_fraction: float | None = setting(
        "share of rows kept for testing, by a hash, where no split is given", 0.0, ge=0, lt=1
    )
    split_by: Literal["text", "id"] = setting(
        "what is hashed to keep rows for testing: the text, so that copies fall together, or the id", "text"
    )
    test_fold: str | None = setting(
        "one fold to test on, all others to train on: K/N, as in 3/10, of the training rows by a hash of the text or, "
        "with a group, of that; or a value of --fold-column",
        None,
    )
    fold_column: str | None = setting(
        "column that says the fold of a row, whatever its split; nltk:movie_reviews has its authors' as `fold`",
        None,
    )
    group_column: str | None = setting("column whose equal values are held out together, such as the product", None)
    group_by: Annotated[str, AfterValidator(_group_by)] | None = setting(
        "id-block:N: reviews are held out together, N neighbouring numbers at the end of ids that are alike before it",
        None,
    )
    numeric: Distinct = setting(
        "columns of numbers, true or false that the network takes besides the text, as in helpful,price; each review "
        "must have them, in training and in scoring",
        (),
    )
    max_bad_rows: float = setting("share of rows that may be quarantined before the run stops", 0.01, ge=0, le=1)
    excerpts: bool = setting("keep the first 200 characters of a quarantined row's text", True)
    shard_size: int = setting("size of a shard of input, in MB", 64, ge=1)
    delimiter: Sign | None = setting(
        "between the fields of CSV: one character, or tab; found out by the first rows where not given", None
    )
    quote: Sign = setting("around fields of CSV: one character, or none", '"')
    escape: Sign = setting("before a character of CSV that is but text: one character, or none", "none")
    header: bool = setting("the first row of CSV names its columns", True)
    columns: Names = setting("names of the columns of CSV without a header, as in text,label", ())
    encoding: Encoding | None = setting(
        "of CSV, JSON Lines and text, such as cp1252; UTF-8, or UTF-16 by its mark, where not given", None
    )

    @model_validator(mode="after")
    def _dialect(self) -> Self:
        if self.columns and self.header:
            raise ValueError("--columns needs --no-header: else the first row names the columns")
        signs = [sign for sign in (self.delimiter or ",", self.quote, self.escape) if sign != "none"]
        if self.delimiter == "none" or len(signs) > len(set(signs)):
            raise ValueError("--delimiter must be given, and --quote and --escape be none or other characters")
        if self.group_column is not None and self.group_by is not None:
            raise ValueError("--group-column and --group-by both say what a group is: leave one out")
        if self.fold_column is None and self.test_fold is not None and not _is_fold(self.test_fold):
            raise ValueError("--test-fold must be K/N, as in 3/10, or a value of --fold-column")
        if self.fold_column is not None and self.test_fold is None and "test_fold" not in self.unused:
            raise ValueError("--fold-column needs --test-fold, which of its values to test on; crossvalidate takes all")
        if self.test_fold is not None and self.test_fraction:
            raise ValueError("--test-fold and --test-fraction both say which rows to test on: leave one out")
        for role in ("text", "label", "id", "split", "fold", "group"):
            if (name := getattr(self, f"{role}_column")) in self.numeric:
                raise ValueError(f"--numeric {name} is the --{role}-column, no number beside the text: leave it out")
        if self.label_separator is not None and self.task != "multilabel" and "task" not in self.unused:
            raise ValueError("--label-separator needs --task multilabel: else a review has one label")
        return self

    @property
    def reading(self) -> dict[str, Any]:
        """How files are taken apart, by the names of the fields, as far as it is not the default."""
        wanted = {"delimiter", "quote", "escape", "header", "columns", "encoding", "lines", "numeric"}
        return self.model_dump(mode="json", include=wanted, exclude_defaults=True)


class TextSettings(Settings):
    """How a review becomes words."""

    panel = "Text"

    cleaning: Literal["tutorial", "reviews", "unicode"] | None = setting(
        "preset of cleaning rules; where not given unicode, or tutorial for a tutorial's model of nltk:movie_reviews",
        None,
    )
    segment: Literal["icu"] | None = setting(
        "what parts words of scripts without spaces (Han, kana, Thai, Lao, Khmer, Burmese); nothing where not given",
        None,
    )
    stop_words: str | None = setting(
        "none, nltk:LANGUAGE, or a file with a word a line; as the preset where not given", None
    )
    strip_html: bool | None = setting("remove tags and decode entities; as the preset where not given", None)
    lowercase: bool | None = setting("lower-case the text; as the preset where not given", None)
    min_token_length: int | None = setting("least characters of a word; as the preset where not given", None, ge=1)
    min_count: int = setting("least occurrences of a word in a vocabulary", 2, ge=1)
    max_words: int | None = setting("most words in the vocabulary; no limit where not given", None, ge=1)
    unknown: Literal["drop", "share"] = setting(
        "words outside the vocabulary: drop them, or give them one id together", "drop"
    )


class ClusterSettings(LogSettings):
    """Where the work runs and what it logs."""

    panel = "Cluster and log"

    address: str | None = setting(
        "HOST:PORT of a running Ray cluster; RAY_ADDRESS or a local one where not given", None
    )
    stall_timeout: int = setting(
        "seconds without progress that end the run; in scoring more than a shard takes; 0 for never", 1800, ge=0
    )
    log_format: Literal["text", "json"] = setting(
        "lines for people, or JSON objects with time, level, run and what they are about", "text"
    )


class PoolSettings(ClusterSettings):
    """How many processes share the work."""

    panel = "Cluster and log"

    workers: int | None = setting("processes that work at the same time; one for each CPU where not given", None, ge=1)


class NetworkSettings(Settings):
    """What is trained: the network, how words get their ids, and the word vectors it starts from."""

    panel = "Network"

    model: str = setting(
        "network to train: wide-deep, wide, deep, tutorial-cnn, pretrained-cnn, embedding-mlp, embedding-average, "
        "kim-cnn, bilstm, or package.module:function, which gives a Keras model of a sentray.NetworkSpec",
        "wide-deep",
    )
    max_length: int | None = setting(
        "words of a review that are used; enough for 99.5 % of the training reviews where not given, with the cleaning "
        "tutorial for all",
        None,
        ge=1,
    )
    encoder: Literal["vocabulary", "hash"] = setting(
        "how words get ids: counted and listed, or hashed without a count", "vocabulary"
    )
    buckets: int = setting("ids of the encoder hash", 65_536, ge=1, lt=2**31)
    max_grams: int | None = setting(
        "most n-grams that the model knows, the most frequent ones; 2,000,000 where not given, fewer for many labels",
        None,
        ge=1,
        le=100_000_000,
    )
    min_gram_reviews: int | None = setting(
        "least reviews that have an n-gram; from 2 to 5 by the size of the corpus where not given", None, ge=1
    )
    characters: bool | None = setting(
        "take n-grams of characters too; for reviews of at most 60 words on average where not given", None
    )
    embedding: str | None = setting(
        "word vectors to start from: word2vec text or binary or GloVe; also .gz, .bz2, .xz, .zst, .zip",
        None,
        min_length=1,
    )
    freeze: bool = setting(
        "leave the word vectors of --embedding as they are, or train them on", False, off="fine-tune"
    )
    oov: Literal["zero", "random", "mean"] = setting(
        "vector of a word that --embedding lacks; random and mean match the others", "zero"
    )
    center: bool = setting(
        "subtract from the vectors of --embedding their mean over the words of the training reviews", False
    )
    embedding_learning_rate: float | None = setting(
        "step size of the word vectors; that of --learning-rate where not given", None, gt=0
    )
    dimensions: int | None = setting(
        "numbers of a word's vector; as in --embedding, or as the model has it", None, ge=1
    )


class HeldOutSettings(Settings):
    """Which training rows are held out, and what they decide."""

    panel = "Held-out rows"

    validation_fraction: float = setting(
        "share of the training rows that is held out, by a hash of the text, where no split is validation; of fewer "
        "than 5,000 rows each is held out once, by one of five fits; 0 for none, so that every epoch is trained and "
        "nothing is calibrated",
        0.1,
        ge=0,
        lt=1,
    )
    weight_column: str | None = setting(
        "column of numbers that say how much each training review counts; all alike where not given", None
    )
    patience: int = setting("epochs without a lower loss of the held-out rows after which a fit ends", 2, ge=1)
    refit: bool = setting("train the last fit on all training rows, those that were held out among them", True)
    calibrate: Literal["temperature", "none"] = setting(
        "make probabilities as sure as they are right on held-out rows, or leave them", "temperature"
    )
    threshold: Annotated[str, AfterValidator(_threshold)] | None = setting(
        "of two labels, probability above which a review gets the second, with --task multilabel each by its own: f1, "
        "balanced (accuracy) or precision=0.9, as held-out rows say, or a number; where not given 0.5, or f1 of each",
        None,
    )
    unsure: Annotated[str, AfterValidator(_unsure)] | None = setting(
        "LOW:HIGH: of two labels, a review gets none where the second's probability is between", None
    )

    @model_validator(mode="after")
    def _held_out(self) -> Self:
        rule = self.threshold
        if rule is not None and not _is_share(rule) and not self.validation_fraction:
            raise ValueError(
                f"--threshold {rule} needs held-out rows: leave out --validation-fraction 0, or give a number"
            )
        return self


class TrainSettings(HeldOutSettings, NetworkSettings, CorpusSettings, TextSettings, ClusterSettings):
    """Learn a model from a labelled corpus and write it as a bundle.

    OUT/tensorboard has its curves; with MLFLOW_TRACKING_URI in the environment the run is tracked by MLflow as well.
    """

    panel = "Training"

    corpus: str = argument(
        "labelled reviews: nltk:movie_reviews, synthetic:N, a file, folder, glob or URL, or - for the standard input"
    )
    out: str = setting("folder or URL for the bundle; a run that was stopped goes on there")
    workers: WorkerRange = setting(
        "data-parallel training processes, such as 4, or as many of 1:4 as the cluster has room for",
        WorkerRange(min=1, max=1),
    )
    cpus_per_worker: float = setting("CPUs of each training process", 1.0, gt=0)
    gpu: bool = setting("give each training process one GPU", False)
    epochs: int = setting("most passes over the training reviews; fewer where held-out rows say so", 10, ge=1)
    batch_size: int = setting("reviews a step, all workers together", 32, ge=1)
    learning_rate: float = setting(
        "step size of Adam; the deep half takes 2 or 3 times as much of few reviews, and says so", 0.001, gt=0
    )
    warmup: int = setting("first steps over which Adam's step size grows to --learning-rate", 0, ge=0)
    decay: Literal["none", "linear"] = setting("how Adam's step size falls, linearly to 0 over all --epochs", "none")
    max_norm: float | None = setting("largest norm of a step's gradients; no limit where not given", None, gt=0)
    class_weight: Literal["none", "balanced"] = setting("weigh every review alike, or every class alike", "none")
    seed: int = setting("fixes first weights and order of reviews", 0, ge=0)
    continue_from: str | None = setting(
        "bundle to go on with, whose words, labels and first weights are taken; those of its own rows that CORPUS has "
        "count, together, as all that it was trained on",
        None,
    )
    report: bool = setting(
        "make report.html, a page to look at, and README.md, the model card, beside the bundle", True
    )
    max_restarts: int = setting("new seeds to try when the network does not start to learn", 5, ge=0)
    max_failures: int = setting("lost workers after which to go on from the last checkpoint", 3, ge=0)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.task != "classification":
            self._refuse(f"is about --task classification, not {self.task}: leave it out", "unsure", "class_weight")
        if self.task in ("ordinal", "regression"):
            self._refuse("needs labels that a review has or not: leave it out, or take --task multilabel", "threshold")
        if self.embedding is None:
            self._refuse("is about the word vectors of a file; name it with --embedding", "freeze", "center", "oov")
        if self.freeze:
            self._refuse("needs --fine-tune: with --freeze the word vectors do not move", "embedding_learning_rate")
        if self.encoder == "vocabulary":
            self._refuse("needs --encoder hash: a vocabulary has as many ids as words", "buckets")
        else:
            self._refuse("needs --encoder vocabulary: a bucket of the encoder hash is no word", "embedding")
            # That every word counts, --min-count 1, is true of a hash.
            counting = ("max_words", "unknown", *(("min_count",) if self.min_count > 1 else ()))
            self._refuse("needs --encoder vocabulary: a hash counts no word and knows each", *counting)
        if self.continue_from is not None:
            # Model, task and numbers are compared with the bundle's.
            theirs = {*TextSettings.model_fields, *NetworkSettings.model_fields} - {"model"}
            self._refuse("is the bundle's to say with --continue-from: leave it out", *sorted(theirs))
        return self

    def _refuse(self, why: str, *names: str) -> None:
        """Refuse settings that have another value than their default."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"--{name.replace('_', '-')} {why}")


class CrossvalidateSettings(TrainSettings):
    """Train and test on each of several folds, so that each row is tested on once, by a model that did not see it.

    Each fold is an ordinary `sentray train` with a bundle of its own, and those that are finished are not made again.
    """

    unused = frozenset({"test_fold", "test_fraction", "split_by", "continue_from"})
    panel = "Folds"

    out: str = setting("folder or URL for the figures and each fold's bundle; what was stopped goes on there")
    folds: int = setting(
        "how many, by a hash of the text or, with a group, of that; with --fold-column one for each of its values",
        10,
        ge=2,
        le=1000,
    )
    at_once: int | None = setting(
        "folds that are trained at the same time; as many as there are CPUs for where not given", None, ge=1
    )


class TuneSettings(TrainSettings):
    """Try settings on held-out rows, by Ray Tune with ASHA, and train with the best, as `sentray train` would.

    A trial is a training without the last fit, on the held-out rows of `train` and never on test rows. The first has
    the settings of this command, others draw some of them anew; those that do worse than half of the earlier ones after
    2, 4, 8 … epochs, or fits, are stopped. Where --space is not given they draw batch_size, learning_rate,
    embedding_learning_rate, min_gram_reviews and characters, as far as the model has them.
    """

    unused = frozenset({"continue_from"})
    panel = "Trials"

    out: str = setting("folder or URL for the bundle and trials.json; what was stopped goes on there")
    trials: int | None = setting("how many; 20 where --budget is not given either", None, ge=1, le=1000)
    budget: Annotated[str, AfterValidator(_budget)] | None = setting(
        "time after which no trial goes on, such as 90s, 30m or 2h; of it at most a quarter prepares the corpus", None
    )
    space: str | None = setting(
        "TOML file that says which settings are tried: batch_size = [16, 32], learning_rate.log = [1e-4, 1e-2], "
        "max_norm.between = [1, 5]",
        None,
    )
    at_once: int | None = setting(
        "trials at the same time, of --cpus-per-worker each; as many as there are CPUs for where not given", None, ge=1
    )
    workers: WorkerRange = setting(
        "data-parallel processes of the last training, such as 4, or as many of 1:4 as the cluster has room for",
        WorkerRange(min=1, max=1),
    )

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if not self.validation_fraction:
            raise ValueError("tune judges by held-out rows: leave out --validation-fraction 0")
        return self

    @property
    def seconds(self) -> float | None:
        """The budget; None where there is none."""
        return int(self.budget[:-1]) * {"s": 1, "m": 60, "h": 3600}[self.budget[-1]] if self.budget else None


class EvaluateSettings(CorpusSettings, PoolSettings):
    """Measure a bundle on labelled reviews."""

    unused = FOLDS | {"test_fraction", "split_by", "task"}

    bundle: str = argument("folder or URL of the bundle")
    corpus: str = argument("labelled reviews, as for train")
    split: Literal["test", "train", "validation", "all"] | None = setting(
        "reviews to use; where not given, the test rows of a corpus with splits, else those not trained on", None
    )
    engine: EngineName = setting(ENGINE_HELP, "auto")
    trust_model: bool = setting(TRUST_HELP, False)
    json_file: str | None = setting("file to write the metrics to", None, alias="json")


class CompareSettings(EvaluateSettings):
    """Measure two bundles on the same labelled reviews, which neither was trained on, and say whether B is better.

    `--require not-worse` is a test of non-inferiority: it fails unless the interval of 95 % of the difference of the
    shares of rows that are right, B - A, lies above -MARGIN. `better` wants it above 0. Of several labels a row is
    right where it got all its labels and no other; numbers are compared by their mean absolute error.
    """

    bundle: str = setting("folder or URL of the one bundle, such as the one in use", alias="a", argument=True)
    other: str = setting("folder or URL of the other bundle, such as the new one", alias="b", argument=True)
    corpus: str = argument("labelled reviews, as for train")
    html: str | None = setting("file to write the comparison to as a page", None)
    json_file: str | None = setting("file to write the comparison to as JSON", None, alias="json")
    require: Literal["none", "not-worse", "better"] = setting(
        "what B must be by the rows that it gets right, else the status is 1; in Python look at `passed`", "none"
    )
    margin: float = setting(
        "share of rows that B may get right less often, or of A's mean absolute error that B's may be larger, and "
        "still count as not worse",
        0.01,
        ge=0,
        lt=1,
    )
    excerpts: bool = setting("keep the first 200 characters of the texts that the page and quarantined rows show", True)


class ScoreSettings(CorpusSettings, PoolSettings):
    """Score reviews and write Parquet."""

    unused = FOLDS | LABELS | {"split_column", "test_fraction", "split_by"}

    bundle: str = argument("folder or URL of the bundle")
    input: str = argument(
        "reviews to score: a file, folder, glob or URL, or - for the standard input; labels are not needed"
    )
    out: str = setting("folder or URL for the scores")
    keep: Several = setting(
        "further column of the input to write out, as label:truth under another name; may be repeated", ()
    )
    scores: Literal["best", "all"] = setting(
        "probabilities to write out: that of the label, or a column score_LABEL for each label too", "best"
    )
    explain: int | None = setting(
        "write a column of so many words that moved each score most, with their weights", None, ge=1, le=1000
    )
    engine: EngineName = setting(ENGINE_HELP, "auto")
    trust_model: bool = setting(TRUST_HELP, False)
    gpu: bool = setting("give each worker one GPU; needs the engine keras", False)
    new_input: bool = setting("score the files that were added since the output was made", False)
    dry_run: bool = setting("say shards, workers and estimated core time from a sample, and write nothing", False)
    rows_per_file: int | None = setting(
        "put the scores of small shards together in files of about so many rows", None, ge=1
    )
    partition_by: str | None = setting("column of the output whose values become folders, as in COLUMN=value/", None)
    by: str | None = setting(
        "column by whose values the report shows the labels, such as a date; by file where not given", None
    )
    fail_on_drift: bool = setting(
        "end with status 1, when all is written, where the reviews are not like those that the bundle was trained on",
        False,
    )


class VerifySettings(LogSettings):
    """Prove from the files of a scoring job that each row is in its output or its quarantine exactly once."""

    directory: str = argument("folder or URL that `sentray score` wrote")
    input: str | None = setting("the job's input, to compare it with the output row by row", None)


class PredictSettings(LogSettings):
    """Print label and probability of one review, or of each line of the standard input."""

    bundle: str = argument("folder or URL of the bundle")
    text: str = argument("the review, or - for one review a line on the standard input")
    engine: EngineName = setting(ENGINE_HELP, "auto")
    trust_model: bool = setting(TRUST_HELP, False)


class ExplainSettings(LogSettings):
    """Show what each word and n-gram adds to a review's log-odds, or to those of each line of the standard input.

    With the method paths the words' weights and the bias sum to the logit: a word's weight is what it adds along the
    active paths of the network, and equal shares of the n-grams that it is in. With leave-one-out it is how much the
    logit changes when padding takes the word's place. Of two labels the logit is the log-odds of the second.
    """

    bundle: str = argument("folder or URL of the bundle")
    text: str = argument("the review, or - for one review a line on the standard input")
    method: Literal["paths", "leave-one-out"] = setting("what a word's weight is", "paths")
    label: str | None = setting(
        "of more than two labels, the one whose logit is explained; the review's own where not given", None
    )
    count: int = setting("heaviest words, and n-grams, to print", 10, ge=1)
    html: str | None = setting("file for a page with the words in colours", None)
    json_file: str | None = setting("file to write the explanations to", None, alias="json")
    engine: EngineName = setting(ENGINE_HELP, "auto")
    trust_model: bool = setting(TRUST_HELP, False)


class ReportSettings(EvaluateSettings):
    """Write a bundle's report, one HTML file to look at: data, figures, curves, words, label errors, mistakes.

    Without a corpus it shows what training measured; with one the bundle is measured anew, as `evaluate` does. A file
    whose name ends in .md gets the model card.
    """

    unused = FOLDS | {"test_fraction", "split_by", "task", "json_file"}

    bundle: str = argument("folder or URL of the bundle")
    corpus: str | None = setting(  # type: ignore[assignment]
        "labelled reviews to measure it on", None, argument=True
    )
    out: str = setting("file for the report, such as report.html")
    slice_column: str | None = setting(
        "column by whose values the accuracy is shown, the worst first", None, alias="slice"
    )

    @model_validator(mode="after")
    def _needs_corpus(self) -> Self:
        if self.corpus is None and (self.slice_column or self.split):
            raise ValueError("--slice and --split are about the rows of a CORPUS: give one")
        return self


class CheckSettings(CorpusSettings, TextSettings, PoolSettings):
    """Look at a corpus before training: rows, labels, lengths, words that cleaning leaves, duplicates, overlap."""

    unused = FOLDS | {"min_count", "max_words", "unknown"}

    corpus: str = argument("reviews, as for train")
    json_file: str | None = setting("file to write the report to", None, alias="json")
    label_errors: str | None = setting(
        "folder or URL of a bundle, by which labels are found that are likely wrong", None
    )
    trust_model: bool = setting(f"{TRUST_HELP}; for --label-errors", False)
    strict: bool = setting("end with status 1 where training would stop; in Python look at the report's problem", False)


class VocabSettings(CorpusSettings, TextSettings, PoolSettings):
    """Count the words of a corpus's training reviews and write the vocabulary, a word a line."""

    unused = FOLDS | (LABELS - {"label_from"})

    corpus: str = argument("reviews, as for train")
    out: str = setting("file for the vocabulary")


class EmbedSettings(CorpusSettings, TextSettings, PoolSettings):
    """Learn word vectors (word2vec) from a corpus's reviews and write them, one word a line."""

    unused = FOLDS | LABELS | {"max_words", "unknown"}

    corpus: str = argument("reviews, as for train; those held out for testing are left out, labels are not needed")
    out: str = setting("file for the vectors, in word2vec's text format")
    algorithm: Literal["cbow", "skip-gram"] = setting("word2vec's way to learn", "cbow")
    sentence: Literal["line", "review"] = setting("what a window of near words does not reach beyond", "line")
    dimensions: int = setting("numbers of a word's vector", 100, ge=1)
    window: int = setting("words to each side that count as near", 5, ge=1)
    epochs: int = setting("passes over the reviews", 5, ge=1)
    workers: int | None = setting(
        "threads; one for each CPU where not given; with 1 the same vectors each time", None, ge=1
    )
    seed: int = setting("fixes the vectors where --workers is 1", 0, ge=0)


class WordsSettings(LogSettings):
    """Take a bundle's word vectors elsewhere, or print the words that are most like a word, or the heaviest n-grams.

    `export` writes them in word2vec's text format, which gensim loads; `projector` as vectors.tsv and metadata.tsv,
    which TensorBoard's projector shows; `neighbours` prints the words whose vectors have the least angle to a word's;
    `grams` prints the n-grams that speak most for each label.
    """

    bundle: str = argument("folder or URL of the bundle")
    action: Literal["export", "neighbours", "projector", "grams"] = argument("export, neighbours, projector or grams")
    word: str | None = setting("for neighbours: a word of the vocabulary", None, argument=True)
    out: str | None = setting("file for export, folder for projector", None)
    count: int = setting("words to print as neighbours, or n-grams of each label", 10, ge=1)
    trust_model: bool = setting(TRUST_HELP, False)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.action == "neighbours" and self.word is None:
            raise ValueError("neighbours needs a WORD, as in `sentray words BUNDLE neighbours terrific`")
        if self.action == "grams":
            if self.out is not None or self.word is not None:
                raise ValueError("grams needs neither --out nor a WORD, as in `sentray words BUNDLE grams`")
        elif self.action != "neighbours" and (self.out is None or self.word is not None):
            raise ValueError(
                f"{self.action} needs --out and no WORD, as in `sentray words BUNDLE {self.action} --out words`"
            )
        return self


class ReadSettings(CorpusSettings):
    """Read reviews as a Ray Dataset of id, text, label and split, for pipelines of your own."""

    unused = FOLDS | {"max_bad_rows", "excerpts", "task", "label_separator"}

    uri: str = argument("reviews: nltk:movie_reviews, synthetic:N, a file, folder, glob or URL")


class QuickstartSettings(PoolSettings):
    """Train sentray's network and a tutorial's on a small corpus, test both, score, and show the result."""

    out: str = setting("folder for the bundles and the scores", "runs/quickstart")
    corpus: str | None = setting("corpus to use; nltk:movie_reviews, or synthetic:4000 where it cannot be had", None)
    epochs: int = setting("most passes over the training reviews", 10, ge=1)
    seed: int = setting("fixes first weights and order of reviews", 0, ge=0)


class SubmitSettings(LogSettings):
    """Run a verb as a job on a Ray cluster; follow its log and end as it ends.

    JOB is a verb with all that belongs to it, as in `sentray submit train s3://BUCKET/reviews --out /shared/model`. Its
    options are checked here. This folder travels along, but for what .rayignore and .gitignore name; the job runs the
    sentray in it, where it is a checkout, or else that of the nodes. Ctrl-C leaves the job running.
    """

    job: tuple[str, ...] = argument("verb, arguments and options of the job")
    address: str | None = setting(
        "http://HOST:PORT of the cluster's job server; RAY_API_SERVER_ADDRESS, RAY_ADDRESS or "
        f"{DEFAULT_JOB_SERVER} where not given",
        None,
    )
    install: bool = setting(f"install sentray with all it needs for this job on each node; see {RUNTIME_ENV}", False)


SETTINGS_FILE = "settings.json"


def write_settings_beside(file: str, settings: Settings) -> None:
    """Write the resolved settings as `FILE.settings.json`, for a result that is one file, local or a `pyarrow.fs` URI.

    It can be given to `--config` to run the same again.
    """
    # pyarrow takes its time to load, and help needs none of it.
    from sentray.storage import behind, write_text

    write_text(behind(file, f".{SETTINGS_FILE}"), settings_text(settings))


def settings_text(settings: Settings) -> str:
    """The resolved settings as JSON."""
    values = settings.model_dump(mode="json", by_alias=True, exclude=set(settings.unused))
    return json.dumps(values, indent=2) + "\n"
