"""Settings come from flags, config file and defaults, and what cannot be used is refused in one sentence."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from sentray import options
from sentray.bench.settings import ReproduceSettings
from sentray.config import (
    CheckSettings,
    CorpusSettings,
    EvaluateSettings,
    PredictSettings,
    QuickstartSettings,
    ReadSettings,
    ScoreSettings,
    Settings,
    TrainSettings,
    VocabSettings,
    write_settings_beside,
)
from sentray.models import ARCHITECTURES
from sentray.options import UsageError, flag, resolve, signature

MODELS = [
    TrainSettings,
    EvaluateSettings,
    ScoreSettings,
    PredictSettings,
    CheckSettings,
    VocabSettings,
    QuickstartSettings,
]
GIVEN = {"corpus": "reviews.csv", "out": "bundle"}


def _config(folder: Path, text: str, name: str = "run.toml") -> str:
    file = folder / name
    file.write_text(text)
    return str(file)


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    config = _config(tmp_path, 'epochs = 3\nbatch-size = 64\ngpu = true\nout = "from-file"\n')
    settings = resolve(TrainSettings, {"corpus": "c", "epochs": "5"}, config)
    assert (settings.epochs, settings.batch_size, settings.gpu, settings.out) == (5, 64, True, "from-file")
    assert settings.learning_rate == 0.001


@pytest.mark.parametrize(("written", "meant"), [("epoch", "epochs"), ("batch-sise", "batch_size")])
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, written: str, meant: str) -> None:
    with pytest.raises(UsageError, match=rf"run\.toml sets '{written}'.*did you mean '{meant}'\?"):
        resolve(TrainSettings, GIVEN, _config(tmp_path, f"{written} = 1\n"))


def test_a_key_that_is_like_none_gets_no_guess(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'bogus', which is no option here; it may set address, "):
        resolve(TrainSettings, GIVEN, _config(tmp_path, "bogus = 1\n"))


def test_the_settings_of_an_earlier_version_run_again(tmp_path: Path) -> None:
    old = {**GIVEN, "epochs": 3, "precision": "float32"}
    assert resolve(TrainSettings, {}, _config(tmp_path, json.dumps(old), "old.json")).epochs == 3
    with pytest.raises(UsageError, match="sets 'precision', which is no option here"):
        resolve(TrainSettings, {}, _config(tmp_path, json.dumps(old | {"precision": "bf16"}), "old.json"))
    with pytest.raises(UsageError, match="sets 'precision', which is no option here"):
        options.by_field(TrainSettings, old, "sentray.train")


def test_a_key_without_meaning_for_the_verb_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'test_fraction'"):
        resolve(ScoreSettings, {}, _config(tmp_path, "test_fraction = 0.5\n"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"test_fraction": "1.5"}, "--test-fraction is '1.5': input should be less than 1"),
        ({"epochs": "ten"}, "--epochs is 'ten': input should be a valid integer"),
        ({"epochs": "0"}, "--epochs is '0': input should be greater than or equal to 1"),
        ({"learning_rate": "nan"}, "--learning-rate is 'nan': input should be a finite number"),
        ({"cleaning": "none"}, "--cleaning is 'none': input should be 'tutorial', 'reviews' or 'unicode'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(TrainSettings, {**GIVEN, **given})
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"delimiter": ";;"}, "--delimiter is ';;': it must be one ASCII character, tab or none"),
        ({"delimiter": "none"}, "--delimiter must be given"),
        ({"escape": '"'}, "--delimiter must be given, and --quote and --escape be none or other"),
        ({"columns": "text,label"}, "--columns needs --no-header"),
        ({"encoding": "latin-99"}, "--encoding is 'latin-99': there is no such encoding; utf-8, cp1252"),
        ({"encoding": "base64"}, "--encoding is 'base64': there is no such encoding"),
        ({"test_fold": "11/10"}, "--test-fold must be K/N, as in 3/10, or a value of --fold-column"),
        ({"fold_column": "part"}, "--fold-column needs --test-fold"),
        ({"test_fold": "1/10", "test_fraction": "0.1"}, "--test-fold and --test-fraction both say"),
        ({"freeze": True}, "--freeze is about the word vectors of a file"),
        ({"center": "true"}, "--center is about the word vectors of a file"),
        ({"oov": "mean"}, "--oov is about the word vectors of a file"),
        ({"embedding": ""}, "--embedding is '': string should have at least 1 character"),
        (
            {"embedding": "v.txt", "freeze": True, "embedding_learning_rate": "0.1"},
            "--embedding-learning-rate needs --fine-tune",
        ),
        ({"buckets": "50"}, "--buckets needs --encoder hash"),
        ({"encoder": "hash", "embedding": "v.txt"}, "--embedding needs --encoder vocabulary"),
        ({"encoder": "hash", "min_count": "3"}, "--min-count needs --encoder vocabulary"),
        ({"encoder": "hash", "max_words": "9"}, "--max-words needs --encoder vocabulary"),
        ({"encoder": "hash", "unknown": "share"}, "--unknown needs --encoder vocabulary"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(given: dict[str, str | bool], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(TrainSettings, {**GIVEN, **given})
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"embedding": "v.txt", "freeze": True, "center": True, "oov": "mean"},
        {"embedding": "v.txt", "embedding_learning_rate": "0.1"},
        {"encoder": "hash", "buckets": "50", "min_count": "1"},
        {"encoder": "hash", "embedding_learning_rate": "0.1", "dimensions": "8"},
    ],
)
def test_options_that_fit_are_taken_and_can_be_given_again(given: dict[str, str | bool], tmp_path: Path) -> None:
    settings = resolve(TrainSettings, {**GIVEN, **given})
    write_settings_beside(str(tmp_path / "m"), settings)
    assert resolve(TrainSettings, {}, str(tmp_path / "m.settings.json")) == settings


def test_help_names_every_network() -> None:
    described = TrainSettings.model_fields["model"].description or ""
    assert all(name.rpartition(".v")[0] in described for name in ARCHITECTURES)


@pytest.mark.parametrize(
    ("model", "name", "rest"),
    [(ScoreSettings, "keep", {"bundle": "b", "input": "i", "out": "o"}), (ReproduceSettings, "only", {})],
)
def test_one_string_is_a_list_of_it(model: type[Settings], name: str, rest: dict[str, str]) -> None:
    assert getattr(resolve(model, {name: "customer", **rest}), name) == ("customer",)
    assert getattr(resolve(model, {name: ["year", "customer", "year"], **rest}), name) == ("year", "customer")


def test_reading_offers_no_bound_on_bad_rows() -> None:
    assert "max_bad_rows" not in signature(ReadSettings).parameters
    assert "test_fraction" in signature(ReadSettings).parameters


def test_the_sentence_on_a_table_is_one_short_line() -> None:
    for table in (pa.table({"text": ["good"] * 100}), [pa.table({"text": ["good"] * 100})]):
        with pytest.raises(UsageError) as error:
            resolve(ScoreSettings, {"bundle": table, "input": "i", "out": "o"})
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 200


def test_a_bad_value_of_the_file_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--epochs is 'x' in .*run\.toml: "):
        resolve(TrainSettings, GIVEN, _config(tmp_path, 'epochs = "x"\n'))


def test_all_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(UsageError, match=r"^CORPUS and --out must be given"):
        resolve(TrainSettings, {})


@pytest.mark.parametrize(("text", "name"), [("epochs = \n", "run.toml"), ("[1, 2]", "run.json"), ("{", "run.json")])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is not valid"):
        resolve(TrainSettings, GIVEN, _config(tmp_path, text, name))


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml cannot be read: No such file"):
        resolve(TrainSettings, GIVEN, "nowhere.toml")


def test_written_settings_run_the_same_again(tmp_path: Path) -> None:
    settings = resolve(
        ScoreSettings, {"bundle": "b", "input": "i", "out": "o", "keep": ["stars", "year"], "workers": "2"}
    )
    write_settings_beside(str(tmp_path / "out" / "metrics.json"), settings)
    file = tmp_path / "out" / "metrics.json.settings.json"
    assert json.loads(file.read_text())["keep"] == ["stars", "year"]
    assert resolve(ScoreSettings, {}, str(file)) == settings


def test_settings_are_written_to_any_file_system(tmp_path: Path) -> None:
    write_settings_beside(f"file://{tmp_path}/metrics", resolve(TrainSettings, GIVEN))
    assert json.loads((tmp_path / "metrics.settings.json").read_text())["corpus"] == "reviews.csv"


def test_settings_never_change() -> None:
    settings = resolve(TrainSettings, GIVEN)
    with pytest.raises(ValidationError):
        settings.epochs = 3


@pytest.mark.parametrize("model", MODELS)
def test_every_setting_is_described_and_has_an_option_of_its_own(model: type[Settings]) -> None:
    names = [flag(model, name) for name in model.model_fields]
    assert len(set(names)) == len(names)
    assert all(field.description for field in model.model_fields.values())
    assert all(not model.model_fields[name].is_required() for name in model.unused)


@pytest.mark.parametrize("in_file", [False, True])
def test_a_password_in_a_uri_is_refused_and_not_repeated(tmp_path: Path, in_file: bool) -> None:
    secret = {"corpus": "s3://AKIA:hush%2Fhush@bucket/reviews?region=us-west-2"}
    config = tmp_path / "c.json"
    config.write_text(json.dumps(secret))
    with pytest.raises(UsageError, match="CORPUS has a key in its URI") as error:
        resolve(TrainSettings, {"out": "o"} if in_file else {"out": "o", **secret}, str(config) if in_file else None)
    assert "hush" not in str(error.value)
    with pytest.raises(UsageError, match="--keep has a key"):
        resolve(ScoreSettings, {"bundle": "b", "input": "i", "out": "o", "keep": ["a", "s3://me:hush@b"]})


def test_other_addresses_are_no_passwords() -> None:
    for corpus in ("s3://bucket/a:b@c", "gs://bucket/x@y", "file:///a:b@c", "C:@x", "synthetic:5?seed=2"):
        assert resolve(TrainSettings, {"corpus": corpus, "out": "o"}).corpus == corpus


def test_what_a_job_must_know_to_take_files_apart():
    settings = CorpusSettings(delimiter="\\t", header=False, columns=("a, b", "c"), encoding="UTF8", excerpts=False)
    assert settings.reading == {"delimiter": "\t", "header": False, "columns": ["a", "b", "c"]}
    assert CorpusSettings(encoding="latin-1").reading == {"encoding": "iso8859-1"}
    assert CorpusSettings(**settings.reading).columns == ("a", "b", "c")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_separator": ";"}, "--label-separator needs --task multilabel"),
        ({"task": "multilabel", "unsure": "0.4:0.6"}, "--unsure is about --task classification, not multilabel"),
        ({"task": "regression", "class_weight": "balanced"}, "--class-weight is about --task classification"),
        ({"task": "ordinal", "threshold": "f1"}, "--threshold needs labels that a review has or not"),
    ],
)
def test_settings_that_do_not_fit_the_task(values, message):
    with pytest.raises(ValidationError, match=message):
        TrainSettings(corpus="c", out="o", **values)
    TrainSettings(corpus="c", out="o", task="multilabel", threshold="precision=0.9", label_separator=";")


@pytest.mark.parametrize("role", ["text", "label", "id", "split", "fold", "group"])
def test_a_column_with_a_part_of_its_own_is_no_number_beside_the_text(role):
    values = {"corpus": "c", "out": "o", f"{role}_column": "n", "test_fold": "1/3", "numeric": "m,n"}
    with pytest.raises(ValidationError, match=f"--numeric n is the --{role}-column, no number beside the text"):
        TrainSettings(**values)
