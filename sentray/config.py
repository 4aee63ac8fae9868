"""Settings of every verb: a validated model each, from which command line and config file are read."""

import json
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sentray.cluster import WorkerRange


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


EngineName = Literal["auto", "folded", "keras"]
ENGINE_HELP = "what computes the scores: the folded network without TensorFlow, or Keras"


ARGUMENT: dict[str, Any] = {"argument": True}
"""Marks a field that the command line takes by position."""


def argument(description: str) -> Any:
    """A field without default that the command line takes by position."""
    return Field(description=description, json_schema_extra=ARGUMENT)


def one_or_several(value: Any) -> Any:
    """One string as a tuple of it, for fields that take several."""
    return (value,) if isinstance(value, str) else value


class CorpusSettings(Settings):
    """Which reviews to read and what their columns are called."""

    panel = "Corpus"

    text_column: str = Field(default="text", description="column that holds the review")
    label_column: str = Field(default="label", description="column that holds the label")
    id_column: str = Field(default="id", description="column that holds a unique id; path and position where absent")
    split_column: str = Field(default="split", description="column that says train or test")
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1,
        description="share of rows held out for testing, by a hash of the id, where no split is given",
    )
    max_bad_rows: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="share of rows that may be quarantined before the run stops"
    )
    shard_size: Annotated[int, Field(ge=1)] = Field(default=64, description="size of a shard of input, in MB")


class TextSettings(Settings):
    """How a review becomes words."""

    panel = "Text"

    cleaning: Literal["tutorial", "reviews"] = Field(default="tutorial", description="preset of cleaning rules")
    stop_words: str | None = Field(
        default=None,
        description="none, nltk:LANGUAGE, or a file with a word a line; as the preset where not given",
    )
    strip_html: bool | None = Field(
        default=None, description="remove tags and decode entities; as the preset where not given"
    )
    lowercase: bool | None = Field(default=None, description="lower-case the text; as the preset where not given")
    min_token_length: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="least characters of a word; as the preset where not given"
    )
    min_count: Annotated[int, Field(ge=1)] = Field(default=2, description="least occurrences of a word in a vocabulary")
    max_words: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="most words in the vocabulary; no limit where not given"
    )
    unknown: Literal["drop", "share"] = Field(
        default="drop", description="words outside the vocabulary: drop them, or give them one id together"
    )


class ClusterSettings(Settings):
    """Where the work runs and what it logs."""

    panel = "Cluster and log"

    address: str | None = Field(
        default=None,
        description="HOST:PORT of a running Ray cluster; RAY_ADDRESS or a local one where not given",
    )
    stall_timeout: Annotated[int, Field(ge=0)] = Field(
        default=1800, description="seconds without any progress after which the run ends with an error; 0 for never"
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="lines for people, or JSON objects with time, level, run and what they are about"
    )
    verbose: bool = Field(default=False, description="show what Ray and TensorFlow print, else it goes to the log")


class PoolSettings(ClusterSettings):
    """How many processes share the work."""

    panel = "Cluster and log"

    workers: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="processes that work at the same time; one for each CPU where not given"
    )


class NetworkSettings(Settings):
    """What is trained: the network, how words get their ids, and the word vectors it starts from."""

    panel = "Network"

    model: str = Field(
        default="tutorial-cnn",
        description="network to train: tutorial-cnn, pretrained-cnn, embedding-mlp, embedding-average",
    )
    max_length: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="words of a review that are used; the longest training review where not given",
    )
    encoder: Literal["vocabulary", "hash"] = Field(
        default="vocabulary", description="how words get ids: counted and listed, or hashed without a count"
    )
    buckets: Annotated[int, Field(ge=1, lt=2**31)] = Field(default=65_536, description="ids of the encoder hash")
    embedding: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="word vectors to start from: word2vec text or binary or GloVe; also .gz, .bz2, .xz, .zip",
    )
    freeze: bool = Field(
        default=False,
        description="leave the word vectors of --embedding as they are, or train them on",
        json_schema_extra={"off": "fine-tune"},
    )
    oov: Literal["zero", "random", "mean"] = Field(
        default="zero", description="vector of a word that --embedding lacks; random and mean match the others"
    )
    center: bool = Field(
        default=False,
        description="subtract from the vectors of --embedding their mean over the words of the training reviews",
    )
    embedding_learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="step size of the word vectors; that of --learning-rate where not given"
    )
    dimensions: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="numbers of a word's vector; as in --embedding, or as the model has it"
    )


class TrainSettings(NetworkSettings, CorpusSettings, TextSettings, ClusterSettings):
    """Learn a model from a labelled corpus and write it as a bundle."""

    panel = "Training"

    corpus: str = argument("labelled reviews: nltk:movie_reviews, synthetic:N, a file, folder, glob or URL")
    out: str = Field(description="folder or URL for the bundle; a run that was stopped goes on there")
    workers: WorkerRange = Field(
        default=WorkerRange(min=1, max=1),
        description="data-parallel training processes, such as 4, or as many of 1:4 as the cluster has room for",
    )
    cpus_per_worker: Annotated[float, Field(gt=0)] = Field(default=1.0, description="CPUs of each training process")
    gpu: bool = Field(default=False, description="give each training process one GPU")
    epochs: Annotated[int, Field(ge=1)] = Field(default=10, description="passes over the training reviews")
    batch_size: Annotated[int, Field(ge=1)] = Field(default=32, description="reviews a step, all workers together")
    learning_rate: Annotated[float, Field(gt=0)] = Field(default=0.001, description="step size of Adam")
    class_weight: Literal["none", "balanced"] = Field(
        default="none", description="weigh every review alike, or every class alike"
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="fixes first weights and order of reviews")
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        default=5, description="new seeds to try when the network does not start to learn"
    )
    max_failures: Annotated[int, Field(ge=0)] = Field(
        default=3, description="lost workers after which to go on from the last checkpoint"
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.embedding is None and (needing := self._changed("freeze", "center", "oov")):
            raise ValueError(f"{needing} is about the word vectors of a file; name it with --embedding")
        if self.freeze and self.embedding_learning_rate is not None:
            raise ValueError("--embedding-learning-rate needs --fine-tune: with --freeze the word vectors do not move")
        hashed = self.encoder == "hash"
        if not hashed and self._changed("buckets"):
            raise ValueError("--buckets needs --encoder hash: a vocabulary has as many ids as words")
        if hashed and self.embedding is not None:
            raise ValueError("--embedding needs --encoder vocabulary: a bucket of the encoder hash is no word")
        # That every word counts, --min-count 1, is true of a hash.
        counting = ("max_words", "unknown", "min_count") if self.min_count > 1 else ("max_words", "unknown")
        if hashed and (needing := self._changed(*counting)):
            raise ValueError(f"{needing} needs --encoder vocabulary: a hash counts no word and knows each")
        return self

    def _changed(self, *names: str) -> str | None:
        """The option of the first of some settings that has another value than its default."""
        changed = (name for name in names if getattr(self, name) != type(self).model_fields[name].default)
        return next((f"--{name.replace('_', '-')}" for name in changed), None)


class EvaluateSettings(CorpusSettings, PoolSettings):
    """Measure a bundle on labelled reviews."""

    bundle: str = argument("folder or URL of the bundle")
    corpus: str = argument("labelled reviews, as for train")
    split: Literal["test", "train", "all"] | None = Field(
        default=None,
        description="reviews to use; those for testing, or all where there are none, where not given",
    )
    engine: EngineName = Field(default="auto", description=ENGINE_HELP)
    json_file: str | None = Field(default=None, alias="json", description="file to write the metrics to")


class ScoreSettings(CorpusSettings, PoolSettings):
    """Score reviews and write Parquet."""

    unused = frozenset({"label_column", "split_column", "test_fraction"})

    test_fraction: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="no row is held out, so that no id has to be hashed to see which"
    )
    bundle: str = argument("folder or URL of the bundle")
    input: str = argument("reviews to score: a file, folder, glob or URL; labels are not needed")
    out: str = Field(description="folder or URL for the scores")
    keep: tuple[str, ...] = Field(default=(), description="further column of the input to write out; may be repeated")
    engine: EngineName = Field(default="auto", description=ENGINE_HELP)
    gpu: bool = Field(default=False, description="give each worker one GPU; needs the engine keras")
    new_input: bool = Field(default=False, description="score the files that were added since the output was made")
    dry_run: bool = Field(
        default=False, description="say shards, workers and estimated core-hours from a sample, and write nothing"
    )
    rows_per_file: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="put the scores of small shards together in files of about so many rows"
    )
    partition_by: str | None = Field(
        default=None, description="column of the output whose values become folders, as in COLUMN=value/"
    )

    _keep_one = field_validator("keep", mode="before")(one_or_several)

    @field_validator("keep")
    @classmethod
    def _each_once(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(keep))


class VerifySettings(Settings):
    """Prove from the files of a scoring job that each row is in its output or its quarantine exactly once."""

    directory: str = argument("folder or URL that `sentray score` wrote")
    input: str | None = Field(default=None, description="the job's input, to compare it with the output row by row")
    verbose: bool = Field(default=False, description="show what libraries print, else it goes to the log")


class PredictSettings(Settings):
    """Print label and probability of one review, or of each line of the standard input."""

    bundle: str = argument("folder or URL of the bundle")
    text: str = argument("the review, or - for one review a line on the standard input")
    engine: EngineName = Field(default="auto", description=ENGINE_HELP)
    verbose: bool = Field(default=False, description="show what TensorFlow prints, else it goes to the log")


class CheckSettings(CorpusSettings, PoolSettings):
    """Look at a corpus before training: rows, labels, lengths, duplicates, overlap of train and test."""

    corpus: str = argument("reviews, as for train")
    json_file: str | None = Field(default=None, alias="json", description="file to write the report to")


class VocabSettings(CorpusSettings, TextSettings, PoolSettings):
    """Count the words of a corpus's training reviews and write the vocabulary, a word a line."""

    corpus: str = argument("reviews, as for train")
    out: str = Field(description="file for the vocabulary")


class EmbedSettings(CorpusSettings, TextSettings, PoolSettings):
    """Learn word vectors (word2vec) from a corpus's reviews and write them, one word a line."""

    unused = frozenset({"label_column", "max_words", "unknown"})

    corpus: str = argument("reviews, as for train; those held out for testing are left out, labels are not needed")
    out: str = Field(description="file for the vectors, in word2vec's text format")
    algorithm: Literal["cbow", "skip-gram"] = Field(default="cbow", description="word2vec's way to learn")
    sentence: Literal["line", "review"] = Field(
        default="line", description="what a window of near words does not reach beyond"
    )
    dimensions: Annotated[int, Field(ge=1)] = Field(default=100, description="numbers of a word's vector")
    window: Annotated[int, Field(ge=1)] = Field(default=5, description="words to each side that count as near")
    epochs: Annotated[int, Field(ge=1)] = Field(default=5, description="passes over the reviews")
    workers: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="threads; one for each CPU where not given; with 1 the same vectors each time",
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="fixes the vectors where --workers is 1")


class WordsSettings(Settings):
    """Take a bundle's word vectors elsewhere, or print the words that are most like a word.

    `export` writes them in word2vec's text format, which gensim loads; `projector` as vectors.tsv and metadata.tsv,
    which TensorBoard's projector shows; `neighbours` prints the words whose vectors have the least angle to a word's.
    """

    bundle: str = argument("folder or URL of the bundle")
    action: Literal["export", "neighbours", "projector"] = argument("export, neighbours or projector")
    word: str | None = Field(
        default=None, description="for neighbours: a word of the vocabulary", json_schema_extra=ARGUMENT
    )
    out: str | None = Field(default=None, description="file for export, folder for projector")
    count: Annotated[int, Field(ge=1)] = Field(default=10, description="words to print as neighbours")
    verbose: bool = Field(default=False, description="show what libraries print, else it goes to the log")

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.action == "neighbours" and self.word is None:
            raise ValueError("neighbours needs a WORD, as in `sentray words BUNDLE neighbours terrific`")
        if self.action != "neighbours" and (self.out is None or self.word is not None):
            raise ValueError(
                f"{self.action} needs --out and no WORD, as in `sentray words BUNDLE {self.action} --out words`"
            )
        return self


class ReadSettings(CorpusSettings):
    """Read reviews as a Ray Dataset of id, text, label and split, for pipelines of your own."""

    unused = frozenset({"max_bad_rows"})

    uri: str = argument("reviews: nltk:movie_reviews, synthetic:N, a file, folder, glob or URL")


class QuickstartSettings(PoolSettings):
    """Train, evaluate and score on a small corpus, and show the result."""

    out: str = Field(default="runs/quickstart", description="folder for the bundle and the scores")
    corpus: str | None = Field(
        default=None,
        description="corpus to use; nltk:movie_reviews, or synthetic:4000 where it cannot be had",
    )
    epochs: Annotated[int, Field(ge=1)] = Field(default=10, description="passes over the training reviews")
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="fixes first weights and order of reviews")


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
