"""The Python API: `load`, `Model`, `Predictor`, and each verb of the command line as a function."""

import contextlib
import importlib
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from sentray import cluster, config, options, watchdog
from sentray.bench import settings as bench
from sentray.config import STANDARD_INPUT, Settings
from sentray.console import Console
from sentray.errors import SentrayError, first_line

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from ray.data import Dataset

    from sentray.bundle import ModelSpec
    from sentray.corpus.check import Report
    from sentray.inference.explain import Explanations, Method
    from sentray.inference.predict import Prediction
    from sentray.inference.scorer import Scores
    from sentray.report.page import Page

Source: TypeAlias = str | os.PathLike[str]
"""A path or a URI."""
TABLES = ("corpus", "input")
"""Settings that may be a table in memory instead of a path or URI."""


class Model:
    """A trained model: a bundle, loaded and ready to score.

    Where the bundle has the folded network, neither TensorFlow nor Ray is imported. Threads may share a model, and a
    process may fork with one. It travels to other processes as the path of its bundle.

    Args:
        bundle: Folder or URI (`s3://…`) of the bundle, or a loaded `Model`, whose engine `auto` then means.
        engine: What computes the scores: `auto`, `folded` or `keras`.
        trust_model: Whether the code of the bundle's own layers may run: the module that it names is imported.

    Attributes:
        path: Folder or URI, as given.

    Raises:
        SentrayError: The bundle cannot be read, is damaged, or does not give its golden texts' scores here.
    """

    def __init__(self, bundle: "Source | Model", engine: str = "auto", trust_model: bool = False) -> None:
        from sentray import bundle as bundles
        from sentray.inference.scorer import Scorer

        self.path = os.fspath(bundle)
        self._engine: str = bundle._engine if engine == "auto" and isinstance(bundle, Model) else engine
        self._trusted: bool = trust_model or (isinstance(bundle, Model) and bundle._trusted)
        self._scorer = Scorer(bundles.load(self.path, self._trusted), self._engine)

    @property
    def labels(self) -> list[str]:
        """The labels, in the order of `predict_proba`'s columns."""
        return list(self._scorer.bundle.labels)

    @property
    def spec(self) -> "ModelSpec":
        """What the model takes and gives: architecture, cleaning rules, unknown words, length, labels."""
        return self._scorer.bundle.spec

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's content, 64 hexadecimal digits."""
        return self._scorer.bundle.digest

    @property
    def metrics(self) -> dict[str, Any]:
        """What training measured, as in `metrics.json`: rows, accuracy, and what the test rows gave."""
        return self._scorer.bundle.metrics

    def predict(self, texts: Any, numbers: Any = None) -> "NDArray[Any]":
        """The label of each text: the most probable one, or as the bundle's threshold says; or its labels, or number.

        Args:
            texts: A list or tuple, a NumPy or Arrow array, a pandas or Polars series, or any other column of texts.
            numbers: Where the model takes numbers besides the text (`spec.columns`), what has these columns by name, as
                long as the texts: a dict, a pandas frame, an Arrow table.

        Returns:
            The labels, an array [texts] of strings; of objects, None where the model is unsure, where it may be.
            Multilabel: of objects, a tuple of the labels of each text. Regression: float32, the numbers.

        Raises:
            SentrayError: These are no texts, one of them is null or blank, or a number is missing.
        """
        import numpy as np

        scores = self._score(texts, numbers)
        if scores.task == "regression":
            return scores.decided
        if scores.task == "multilabel":
            labels = np.empty(len(scores.words), object)
            labels[:] = [*map(tuple, scores.labels(self.labels).to_pylist())]
            return labels
        # What it is unsure of has the last position.
        names = np.array([*self.labels, None] if self._scorer.bundle.decision.unsure else self.labels)
        return np.asarray(names[scores.decided])

    def predict_proba(self, texts: Any, numbers: Any = None) -> "NDArray[np.float32]":
        """The probability of each label for each text, float32 [texts, labels], in the order of `labels`.

        Args:
            texts: As for `predict`.
            numbers: Likewise.

        Raises:
            SentrayError: As `predict`, or the model gives a number.
        """
        if self.spec.task == "regression":
            raise SentrayError(f"{self.path} gives a number and no probabilities: take `predict`")
        return self._score(texts, numbers).probabilities

    def explain(self, texts: Any, method: "Method" = "paths", label: str | None = None) -> "Explanations":
        """What each word and n-gram of the texts adds to their scores; a notebook shows the words in colours.

        Args:
            texts: As for `predict`.
            method: `paths`, by which the words' weights and the bias sum to the logit, or `leave-one-out`.
            label: Of more than two labels the one whose logit is explained; each text's own where not given.

        Raises:
            SentrayError: These are no texts, one of them is null or blank, or there is no such label.
        """
        from sentray.inference.explain import explain

        return explain(self._scorer, self._column(texts).to_pylist(), method, label)

    def _score(self, texts: Any, numbers: Any = None) -> "Scores":
        import numpy as np

        column = self._column(texts)
        values = self._numbers(numbers, len(column))
        if values is not None and not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
            raise SentrayError(
                f"text {row} (of {len(column):,}, counted from 0) lacks a number of {', '.join(self.spec.columns)}: "
                "leave such texts out, or use sentray.score, which sets them aside with a reason"
            )
        return self._scorer.score(column, values)

    def _numbers(self, given: Any, count: int) -> "NDArray[np.float64] | None":
        """The columns of numbers that the model takes, float64 [texts, columns], of whatever has them by name."""
        import numpy as np

        names = self.spec.columns
        if given is None:
            return None
        if not names:
            raise SentrayError(f"{self.path} takes no numbers besides the text: leave them out")
        try:
            values = np.column_stack([np.asarray(given[name], np.float64) for name in names])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SentrayError(
                f"these are not the numbers that {self.path} takes ({first_line(error)}): give the columns "
                f"{', '.join(names)} by name, as a dict, a frame or a table"
            ) from error
        if len(values) != count:
            raise SentrayError(f"there are {len(values):,} numbers for {count:,} texts: give one of each column a text")
        return values

    def _column(self, texts: Any) -> "pa.ChunkedArray":
        column = _texts(texts)
        if (bad := _blank(column).index(True).as_py()) >= 0:
            what = "null" if column[bad].as_py() is None else "blank"
            raise SentrayError(
                f"text {bad} (of {len(column):,}, counted from 0) is {what}, so that it has no label: leave such texts "
                "out, or use sentray.score, which sets them aside with a reason"
            )
        return column

    def report(self, corpus: Any = None, **options: Any) -> "Page":
        """A page about the model, which a notebook shows and `save(file)` writes; see `sentray.report`.

        Args:
            corpus: Labelled reviews to measure it on; what training measured where not given.
            **options: Other options of `sentray report`.

        Raises:
            SentrayError: What cannot be used, where, and the cure.
        """
        with tempfile.TemporaryDirectory() as scratch:
            return report(self, corpus, out=f"{scratch}/report.html", **options)

    def __fspath__(self) -> str:
        return self.path

    def __reduce__(self) -> tuple[type["Model"], tuple[str, str, bool]]:
        return Model, (self.path, self._engine, self._trusted)

    def __repr__(self) -> str:
        return f"sentray.load({self.path!r})  # {', '.join(self.labels) or 'a number'}"


def load(bundle: Source | Model, engine: str = "auto", trust_model: bool = False) -> Model:
    """Load a trained model; see `Model` for arguments and errors."""
    return Model(bundle, engine, trust_model)


class Predictor:
    """Scores batches within a pipeline of yours on Ray Data.

        dataset.map_batches(
            sentray.Predictor, fn_constructor_kwargs={"model": "models/stars"}, batch_format="pyarrow", concurrency=4
        )

    Each batch gets the columns `label` and `score`, the probability of that label; both are null where the text is
    null or blank, or lacks a number in a column that the model takes besides (`spec.columns`), the label also where the
    model is unsure. By task it is `labels` and `scores`, lists, or `value`, or `expected` beside the two, as in the
    output of `sentray.score`. This is the way without exactly-once: no ledger, no quarantine, no resume. Where each row
    has to be accounted for, use `sentray.score`.

    Args:
        model: Folder or URI of the bundle, which each node must see, or a loaded `Model`.
        text_column: Column of the texts.
        keep: Column or columns of the batch to give on; all where not given.
        engine: What computes the scores: `auto`, `folded` or `keras`.
        trust_model: As for `Model`.

    Raises:
        SentrayError: The bundle cannot be used.
    """

    def __init__(
        self,
        model: Source | Model,
        text_column: str = "text",
        keep: str | Sequence[str] | None = None,
        engine: str = "auto",
        trust_model: bool = False,
    ) -> None:
        self._model = Model(model, engine, trust_model)
        self._text_column, self._keep = text_column, [keep] if isinstance(keep, str) else keep

    def __call__(self, batch: Any) -> Any:
        """Score a batch.

        Args:
            batch: A `pyarrow.Table`, a pandas frame, or a dict of NumPy arrays (Ray's `batch_format="numpy"`).

        Returns:
            A batch of the same kind with the columns kept, and `label` and `score` or what the task has.

        Raises:
            SentrayError: A column is not there, holds no texts, or is called as one that is added.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from sentray.inference.scorer import ANSWERS

        names = list(getattr(batch, "column_names", batch))
        keep = names if self._keep is None else list(self._keep)
        columns = self._model.spec.columns
        for name in (self._text_column, *keep, *columns):
            if name not in names:
                raise SentrayError(f"the batch has no column {name!r}: it has {', '.join(names)}")
        if taken := ANSWERS[self._model.spec.task].keys() & set(keep):
            raise SentrayError(
                f"the batch has a column {min(taken)!r} already, which Predictor adds: rename it before "
                "(dataset.rename_columns), or name with keep= the columns to give on"
            )
        texts = _texts(batch[self._text_column])
        blank = _blank(texts).to_numpy()
        if (numbers := self._model._numbers(batch if columns else None, len(texts))) is not None:
            blank = blank | ~np.isfinite(numbers).all(axis=1)
        answers = self._model._scorer.score(texts, numbers).answers(self._model.labels)
        added = {name: pc.if_else(pa.array(blank), None, values) for name, values in answers.items()}
        if isinstance(batch, pa.Table):
            found = batch.select(keep)
            for name, values in added.items():
                found = found.append_column(name, values)
            return found
        added = {name: values.to_numpy(zero_copy_only=False) for name, values in added.items()}
        if isinstance(batch, Mapping):
            return {name: batch[name] for name in keep} | added
        return batch[keep].assign(**added)


@dataclass(frozen=True)
class Verb:
    """A verb of the command line: its settings, and what does the work.

    Attributes:
        settings: What may be set, and what it means.
        work: `module:function` of settings and console; imported when it is first used.
        gives: What the Python function returns, for its docstring.
    """

    settings: type[Settings]
    work: str
    gives: str = "Nothing."


VERBS = {
    "train": Verb(config.TrainSettings, "sentray.training.run:train", "The trained `Model`."),
    "crossvalidate": Verb(
        config.CrossvalidateSettings,
        "sentray.training.crossvalidation:crossvalidate",
        "The figures of each fold, their means and intervals, as in `crossvalidation.json`.",
    ),
    "tune": Verb(
        config.TuneSettings,
        "sentray.tuning.tune:tune",
        "The `trials`, the best first, as in `trials.json`, and the `metrics` of the bundle.",
    ),
    "evaluate": Verb(
        config.EvaluateSettings, "sentray.evaluation:evaluate", "The metrics by name, as in `metrics.json`."
    ),
    "compare": Verb(
        config.CompareSettings,
        "sentray.compare:compare",
        "The figures of both by name: `a`, `b`, `differences`, `intervals`, `mcnemar`, `differing` reviews, `passed`.",
    ),
    "score": Verb(config.ScoreSettings, "sentray.scoring.job:score", "The summary, as in `OUT/summary.json`."),
    "verify": Verb(config.VerifySettings, "sentray.scoring.verify:verify", "Nothing where all is well."),
    "predict": Verb(config.PredictSettings, "sentray.inference.predict:predict"),
    "explain": Verb(
        config.ExplainSettings,
        "sentray.inference.explain:explained",
        "An `Explanation` of each text; `to_dict()` has them as JSON values.",
    ),
    "check": Verb(config.CheckSettings, "sentray.corpus.check:check", "A report; `to_dict()` has it as JSON values."),
    "report": Verb(
        config.ReportSettings, "sentray.report.bundle:report", "The page; a notebook shows it, `save(file)` writes it."
    ),
    "vocab": Verb(config.VocabSettings, "sentray.corpus.vocab:write_vocabulary", "The vocabulary that was written."),
    "embed": Verb(
        config.EmbedSettings,
        "sentray.embeddings.learn:embed",
        "What was read and learnt, by name: `rows`, `words`, `kept`, `seconds` and more.",
    ),
    "words": Verb(config.WordsSettings, "sentray.words:words", "The bundle's word vectors, or near words and cosines."),
    "reproduce": Verb(bench.ReproduceSettings, "sentray.reproduce.run:reproduce", "The rows of the table."),
    "quickstart": Verb(config.QuickstartSettings, "sentray.quickstart:quickstart"),
    "submit": Verb(config.SubmitSettings, "sentray.submit:submit"),
    "bench train": Verb(bench.BenchTrainSettings, "sentray.bench.train:bench_train"),
    "bench score": Verb(bench.BenchScoreSettings, "sentray.bench.score:bench_score"),
    "bench driver": Verb(bench.BenchDriverSettings, "sentray.bench.driver:bench_driver"),
    "bench vectors": Verb(bench.BenchVectorsSettings, "sentray.bench.vectors:bench_vectors"),
    "bench grams": Verb(bench.BenchGramsSettings, "sentray.bench.grams:bench_grams"),
}
"""Every verb of the command line, in the order of its help."""
JOBS = {name: verb.settings for name, verb in VERBS.items() if name != "submit" and " " not in name}
"""The settings of each verb that can be sent to a cluster as a job; `jobs/` has a file for each."""
_READ = Verb(
    config.ReadSettings,
    "sentray.api:_reviews",
    "A `ray.data.Dataset` of strings, lazily read. Rows that cannot be used are left out; `check` counts them.",
)


def run(verb: Verb, settings: Settings, console: Console, end_process: bool = False) -> Any:
    """Do a verb's work, as both the command line and the Python functions do.

    Args:
        verb: What to do.
        settings: Of the verb's class.
        console: Where to say what happens.
        end_process: Whether the process may be ended where stalled work cannot be interrupted.

    Returns:
        What the work gives; it is also written as JSON where `settings.json_file` says so.

    Raises:
        SentrayError: A mistake of the user or of the input, however Ray wrapped it on its way here.
    """
    module, _, name = verb.work.partition(":")
    try:
        with contextlib.ExitStack() as stack:
            for key in TABLES:
                path = getattr(settings, key, None)
                # Also what a shell makes of <(…).
                if path == STANDARD_INPUT or (path and os.path.exists(path) and Path(path).is_fifo()):
                    standard = path == STANDARD_INPUT
                    piped = stack.enter_context(open(0 if standard else path, "rb", closefd=not standard))
                    spooled = stack.enter_context(_stored(piped, key, settings))
                    settings = settings.model_copy(update={key: spooled})
            if isinstance(settings, config.ClusterSettings):
                stack.enter_context(watchdog.watch(console, settings.stall_timeout, end_process))
            _require_possible(settings, console)
            work = getattr(importlib.import_module(module), name)
            simd = sys.modules.get("sentray.text.simd")
            if simd is not None and simd.CACHE_NOTE:
                console.note(simd.CACHE_NOTE)
            result = work(settings, console)
    except Exception as error:
        mistake = cluster.user_error(error)
        if mistake is None or mistake is error:
            raise
        raise mistake from error
    if file := getattr(settings, "json_file", None):
        from sentray.storage import write_text

        content = result.to_dict() if hasattr(result, "to_dict") else result
        write_text(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        config.write_settings_beside(file, settings)
    return result


def _function(verb: Verb, name: str) -> Callable[..., Any]:
    """A verb as a function, with the signature and the docstring that its settings make."""
    signature = options.signature(verb.settings)

    def call(*arguments: Any, progress: bool = False, **given: Any) -> Any:
        file = given.pop("config", None)
        # Python's own sentences for too many arguments and for one given twice.
        known = {key: given[key] for key in given.keys() & signature.parameters}
        bound = signature.bind_partial(*arguments, **known).arguments
        values = options.by_field(verb.settings, given | bound, f"sentray.{name}")
        if "trust_model" in verb.settings.model_fields and any(getattr(v, "_trusted", False) for v in values.values()):
            values.setdefault("trust_model", True)
        if callable(values.get("model")):
            from sentray import models

            values["model"] = models.name_of(values["model"])
        values = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in values.items()}
        tables = {key: values[key] for key in TABLES if not isinstance(values.get(key), str | None)}
        values |= dict.fromkeys(tables, "a table in memory")
        settings = options.resolve(verb.settings, values, file and os.fspath(file))
        with contextlib.ExitStack() as stack:
            files = {key: stack.enter_context(_stored(table, key, settings)) for key, table in tables.items()}
            settings = settings.model_copy(update=files)
            as_json = getattr(settings, "log_format", "text") == "json"
            # No output is redirected into a log, as the command line does: it belongs to the process that calls.
            stack.callback(cluster.show_workers.reset, cluster.show_workers.set(False))
            result = run(verb, settings, Console(as_json=as_json, verb=name, silent=not progress))
        # Who trained it has given its function.
        return load(settings.out, trust_model=True) if type(settings) is config.TrainSettings else result

    call.__name__ = call.__qualname__ = name
    call.__doc__ = (
        f"{inspect.getdoc(verb.settings)}\n\nArgs:\n{options.describe(verb.settings)}\n\nReturns:\n    {verb.gives}\n\n"
        "Raises:\n    SentrayError: What cannot be used, where, and the cure.\n"
    )
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _require_possible(settings: Settings, console: Console) -> None:
    """Refuse, before Ray is imported, a corpus that is not there or lacks a column, and an output of another kind.

    `score` looks for itself at its input, `embed` at its output.
    """
    from sentray.storage import require_writable

    out = getattr(settings, "out", None)
    for file in (getattr(settings, "json_file", None), out if isinstance(settings, config.VocabSettings) else None):
        if file is not None:
            require_writable(file)
    folder = isinstance(settings, config.TrainSettings | config.ScoreSettings | config.QuickstartSettings)
    if folder and os.path.isfile(str(out)):
        raise SentrayError(f"--out {out} is a file: name a folder, which need not be there")
    uri = getattr(settings, "uri", None) or getattr(settings, "corpus", None)
    if uri is None:
        return
    from sentray.corpus.readers import require_columns

    console.expect(f"the first rows of {uri}")
    columns = settings if isinstance(settings, config.CorpusSettings) else config.CorpusSettings()
    need_label = isinstance(settings, config.TrainSettings | config.EvaluateSettings | config.QuickstartSettings)
    require_columns(uri, columns, need_label)
    console.expect("Ray to start, or the first block of reviews to be read")


def _stored(table: Any, key: str, settings: Settings) -> contextlib.AbstractContextManager[str]:
    """A table or stream as a file: beside what it becomes where that may be resumed, else a temporary one."""
    from sentray.corpus import memory

    if not memory.is_table(table) and not hasattr(table, "read"):
        raise options.UsageError(
            f"{key} is a {type(table).__name__}: give a path or URI, a table with __arrow_c_stream__ (pyarrow, pandas, "
            "Polars, DuckDB) or a Ray Dataset (of Hugging Face's: dataset.with_format('arrow')[:])"
        )
    if not isinstance(settings, config.TrainSettings | config.ScoreSettings):
        return memory.stored(table)
    from sentray.training.run import work_folder

    return memory.stored(table, work_folder(settings.out), settings.out, add=not getattr(settings, "dry_run", False))


def predict(
    bundle: Source | Model, texts: Any, *, numbers: Any = None, engine: str = "auto", trust_model: bool = False
) -> "list[Prediction]":
    """Label and probability of each text, as `sentray predict` prints them.

    Args:
        bundle: Folder or URI of the bundle, or a loaded `Model`, which is faster where this is called again and again.
        texts: One text, or a column of them as for `Model.predict`.
        numbers: As for `Model.predict`.
        engine: What computes the scores: `auto`, `folded` or `keras`.
        trust_model: As for `Model`.

    Returns:
        For each text its `label`, `score`, the probability of that label, and `known_words`.

    Raises:
        SentrayError: The bundle cannot be used, or a text is null or blank.
    """
    from sentray.inference.predict import predictions

    model = _model(bundle, engine, trust_model)
    scores = model._score([texts] if isinstance(texts, str) else texts, numbers)
    return predictions(scores, model.labels)


def explain(
    bundle: Source | Model,
    texts: Any,
    *,
    method: "Method" = "paths",
    label: str | None = None,
    engine: str = "auto",
    trust_model: bool = False,
) -> "Explanations":
    """What each word and n-gram of the texts adds to their scores, as `sentray explain` prints it.

    Args:
        bundle: As for `predict`.
        texts: One text, or a column of them as for `Model.predict`.
        method: As for `Model.explain`.
        label: As for `Model.explain`.
        engine: What computes the scores: `auto`, `folded` or `keras`.
        trust_model: As for `Model`.

    Raises:
        SentrayError: As `predict`, or there is no such label.
    """
    return _model(bundle, engine, trust_model).explain([texts] if isinstance(texts, str) else texts, method, label)


def _model(bundle: Source | Model, engine: str, trusted: bool) -> Model:
    if isinstance(bundle, Model) and engine in ("auto", bundle._engine):
        return bundle
    return Model(bundle, engine, trusted)


def _reviews(settings: config.ReadSettings, console: Console) -> Any:
    from sentray.corpus.dataset import read_reviews

    return read_reviews(settings.uri, settings)


def _texts(texts: Any) -> "pa.ChunkedArray":
    """A column of texts in whatever form as `large_string`.

    Raises:
        SentrayError: It is one text, or none.
    """
    import pyarrow as pa

    from sentray.corpus.memory import decoded

    if isinstance(texts, str):
        raise SentrayError("one text was given where a list of texts is expected: write [text]")
    try:
        column = pa.chunked_array(texts) if hasattr(texts, "__arrow_c_stream__") else pa.array(texts, from_pandas=True)
        # More than 2 GB of text come in several chunks already.
        column = decoded(column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column]))
        # A column of nulls alone may have any type.
        if column.null_count == len(column):
            return pa.chunked_array([pa.nulls(len(column), pa.large_string())])
        if column.type in (pa.string(), pa.large_string(), pa.string_view()):
            return column.cast(pa.large_string())
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SentrayError(f"these are no texts ({first_line(error)}): give a list or a column of strings") from error
    raise SentrayError(f"these are no texts but {column.type}: give a list or a column of strings")


def _blank(texts: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Which texts are null or nothing but white space."""
    import pyarrow.compute as pc

    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(texts), ""), True)


train: Callable[..., Model] = _function(VERBS["train"], "train")
crossvalidate: Callable[..., dict[str, Any]] = _function(VERBS["crossvalidate"], "crossvalidate")
tune: Callable[..., dict[str, Any]] = _function(VERBS["tune"], "tune")
evaluate: Callable[..., dict[str, Any]] = _function(VERBS["evaluate"], "evaluate")
compare: Callable[..., dict[str, Any]] = _function(VERBS["compare"], "compare")
score: Callable[..., dict[str, Any]] = _function(VERBS["score"], "score")
verify: Callable[..., None] = _function(VERBS["verify"], "verify")
check: Callable[..., "Report"] = _function(VERBS["check"], "check")
report: Callable[..., "Page"] = _function(VERBS["report"], "report")
vocab: Callable[..., Any] = _function(VERBS["vocab"], "vocab")
embed: Callable[..., dict[str, Any]] = _function(VERBS["embed"], "embed")
words: Callable[..., Any] = _function(VERBS["words"], "words")
reproduce: Callable[..., Any] = _function(VERBS["reproduce"], "reproduce")
quickstart: Callable[..., None] = _function(VERBS["quickstart"], "quickstart")
submit: Callable[..., None] = _function(VERBS["submit"], "submit")
read_reviews: Callable[..., "Dataset"] = _function(_READ, "read_reviews")
