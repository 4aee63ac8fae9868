"""The Python API: light to import, every verb a function with the command line's options and sentences."""

import concurrent.futures
import importlib
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sentray
from sentray import api, cli, cluster, models, options
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.errors import SentrayError

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["a great film", "an awful film", "moving, moving, great"]
LABELS = ["pos", "neg", "pos"]
FUNCTIONS = {
    name: verb.settings for name, verb in api.VERBS.items() if name not in ("predict", "explain") and " " not in name
}


def python(program: str, *words: object, **variables: str) -> str:
    """What a program prints that runs in a process of its own, with this checkout."""
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_is_light() -> None:
    program = """
        import sys, time
        began = time.perf_counter()
        import sentray
        print(time.perf_counter() - began)
        print(sorted({'ray', 'tensorflow', 'keras', 'numpy', 'pyarrow', 'pydantic'} & sys.modules.keys()))
    """
    runs = [python(program).splitlines() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in runs) < 0.3
    assert runs[0][1] == "[]"


def test_load_and_predict_need_neither_ray_nor_tensorflow(stars: Path) -> None:
    program = """
        import sys, sentray
        model = sentray.load(sys.argv[1])
        print(model.predict(['a great film']).tolist(), model.predict_proba(['a great film']).shape)
        print(sorted({'ray', 'tensorflow', 'keras', 'gensim', 'nltk'} & sys.modules.keys()))
    """
    assert python(program, stars).splitlines() == ["['pos'] (1, 2)", "[]"]


def test_names_stay_what_they_are_when_modules_of_the_same_name_are_imported() -> None:
    for name in ("submit", "words", "quickstart", "reproduce.run"):
        assert importlib.import_module(f"sentray.{name}").__name__ == f"sentray.{name}"
    assert sentray.submit is api.submit
    assert {*sentray.__all__} <= {*dir(sentray)}
    of_api = {*sentray.__all__} - {"NetworkSpec"}
    assert all(getattr(sentray, name) is getattr(api, name) for name in of_api)
    assert sentray.NetworkSpec is models.NetworkSpec
    with pytest.raises(AttributeError, match="module 'sentray' has no attribute 'nothing'"):
        _ = sentray.nothing


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_verb_is_a_function_with_the_options_of_the_command_line(name: str) -> None:
    function, model = getattr(sentray, name), FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    offered = {field.alias or known for known, field in model.model_fields.items() if known not in model.unused}
    assert {*parameters} == offered | {"config", "progress"}
    for known, field in model.model_fields.items():
        if known not in model.unused and not field.is_required():
            assert parameters[field.alias or known].default == field.default
    help_text = inspect.getdoc(function)
    assert help_text is not None
    assert all(f"    {parameter}: " in help_text for parameter in parameters)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sentray.train("c", out="o", epochs=0), ("train", "c", "--out", "o", "--epochs", "0")),
        (lambda: sentray.train("c"), ("train", "c")),
        (lambda: sentray.train("c", out="o", freeze=True), ("train", "c", "--out", "o", "--freeze")),
        (lambda: sentray.evaluate("nowhere", "c"), ("evaluate", "nowhere", "c")),
        (lambda: sentray.score("nowhere", "c", out="o"), ("score", "nowhere", "c", "--out", "o")),
        (lambda: sentray.score("b", "s3://u:p@h/x", out="o"), ("score", "b", "s3://u:p@h/x", "--out", "o")),
        (lambda: sentray.words("b", "neighbours"), ("words", "b", "neighbours")),
        (lambda: sentray.verify("nowhere"), ("verify", "nowhere")),
        (lambda: sentray.check("nowhere.csv"), ("check", "nowhere.csv")),
        (lambda: sentray.predict("nowhere", "text"), ("predict", "nowhere", "text")),
    ],
)
def test_a_mistake_is_the_sentence_of_the_command_line(
    call: Callable[[], Any],
    words: tuple[str, ...],
    ray_session: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(words)
    sentence = re.sub(r"'0'", "0", capsys.readouterr().err.splitlines()[-1].removeprefix("sentray: "))
    with pytest.raises(SentrayError) as caught:
        call()
    assert str(caught.value) == sentence
    assert capsys.readouterr() == ("", "")


def test_an_option_that_there_is_not_names_the_nearest() -> None:
    with pytest.raises(SentrayError, match=r"^sentray\.train sets 'epoch', .*did you mean 'epochs'\?$"):
        sentray.train("c", out="o", epoch=3)
    with pytest.raises(TypeError, match="too many positional arguments"):
        sentray.train("c", "o")
    with pytest.raises(TypeError, match="multiple values for argument 'corpus'"):
        sentray.train("c", corpus="d", out="o")


def test_a_config_file_sets_options_and_keywords_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sentray.corpus.vocab

    config = tmp_path / "run.toml"
    config.write_text('min-count = 7\nmax-words = 9\nout = "from-file"\n')
    found = []
    monkeypatch.setattr(sentray.corpus.vocab, "write_vocabulary", lambda settings, console: found.append(settings))
    sentray.vocab(Path("synthetic:9"), config=config, max_words=5)
    (settings,) = found
    assert (settings.corpus, settings.min_count, settings.max_words, settings.out) == ("synthetic:9", 7, 5, "from-file")


def test_a_mistake_in_a_process_of_rays_comes_as_it_was_made(
    ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    import sentray.corpus.check

    @ray.remote
    def wrong() -> None:
        raise SentrayError("row 3 is wrong: mend it")

    monkeypatch.setattr(sentray.corpus.check, "check", lambda settings, console: ray.get(wrong.remote()))
    with pytest.raises(SentrayError, match=r"^row 3 is wrong: mend it$"):
        sentray.check("synthetic:9")


def test_quiet_unless_progress_is_asked_for(stars: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts = pa.table({"text": TEXTS, "label": LABELS})
    assert sentray.evaluate(stars, texts, split="all")["accuracy"] == 1
    assert capfd.readouterr() == ("", "")
    report = sentray.check(texts, progress=True, json=str(tmp_path / "report.json"))
    assert report.to_dict()["rows"] == 3
    assert json.loads((tmp_path / "report.json").read_text())["rows"] == 3
    assert capfd.readouterr() == ("", "")
    sentray.score(stars, texts, out=tmp_path / "scored", progress=True)
    assert "3 rows in = 3 scored + 0 quarantined" in capfd.readouterr().out


@pytest.mark.parametrize(
    "column",
    [
        list,
        tuple,
        np.array,
        lambda texts: np.array(texts, object),
        pa.array,
        lambda texts: pa.chunked_array([texts[:1], texts[1:]]),
        lambda texts: pa.array(texts, pa.string_view()),
        lambda texts: pa.array(texts).dictionary_encode(),
        pd.Series,
        lambda texts: pd.Series(texts, index=[7, 8, 9], dtype=object),
        lambda texts: pd.Series(texts, dtype="category"),
        pl.Series,
        lambda texts: pl.Series(texts, dtype=pl.Categorical),
    ],
)
def test_a_model_takes_texts_in_any_form(column: Callable[[list[str]], Any], stars: Path) -> None:
    model = sentray.load(stars)
    labels, shares = model.predict(column(TEXTS)), model.predict_proba(column(TEXTS))
    assert isinstance(labels, np.ndarray)
    assert labels.tolist() == LABELS
    assert (shares.dtype, shares.shape) == (np.float32, (3, 2))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    assert [model.labels[best] for best in shares.argmax(axis=1)] == LABELS


def test_no_text_has_no_label(stars: Path) -> None:
    model = sentray.load(stars)
    assert model.predict([]).shape == (0,)
    assert model.predict_proba(pd.Series([], dtype=object)).shape == (0, 2)


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["good", None], "text 1 (of 2, counted from 0) is null, so that it has no label: leave such texts out"),
        (pd.Series(["good", np.nan, "bad"]), "text 1 (of 3, counted from 0) is null"),
        ([None], "text 0 (of 1, counted from 0) is null"),
        (["good", "\n\u00a0 "], "text 1 (of 2, counted from 0) is blank"),
        ("good", "one text was given where a list of texts is expected: write [text]"),
        ([1, 2], "these are no texts but int64: give a list or a column of strings"),
        (["a", 1], "these are no texts ("),
        (["\ud800"], "these are no texts ("),
        (7, "these are no texts ("),
        (pa.table({"text": TEXTS}), "these are no texts but struct<text: string>"),
        (pd.DataFrame({"text": TEXTS}), "these are no texts but struct<text: "),
    ],
)
def test_what_is_no_text_is_one_sentence(texts: Any, sentence: str, stars: Path) -> None:
    for predict in (sentray.load(stars).predict, sentray.load(stars).predict_proba):
        with pytest.raises(SentrayError) as caught:
            predict(texts)
        assert str(caught.value).startswith(sentence)
        assert "\n" not in str(caught.value)


def test_a_column_may_come_in_chunks_of_arrows_own(stars: Path) -> None:
    class Chunked:
        def __arrow_array__(self, type: Any = None) -> pa.ChunkedArray:
            return pa.chunked_array([TEXTS[:1], TEXTS[1:]])

    assert list(sentray.load(stars).predict(Chunked())) == LABELS


def test_a_model_made_of_a_model_keeps_its_engine(stars: Path) -> None:
    model = sentray.load(stars, engine="folded")
    assert sentray.load(model)._engine == "folded"


def test_what_a_model_says_of_itself(stars: Path) -> None:
    model = sentray.load(stars)
    assert model.labels == ["neg", "pos"]
    assert (os.fspath(model), model.path) == (str(stars), str(stars))
    assert re.fullmatch("[0-9a-f]{64}", model.digest)
    assert (model.spec.architecture, model.spec.labels) == ("wide-deep.v1", ("neg", "pos"))
    assert model.metrics["train_rows"] > 300
    assert repr(model) == f"sentray.load({str(stars)!r})  # neg, pos"
    copied = pickle.loads(pickle.dumps(model))
    assert (copied.digest, copied.predict(TEXTS).tolist()) == (model.digest, LABELS)


def test_predict_gives_label_and_score(stars: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = sentray.load(stars)
    (single,) = sentray.predict(model, TEXTS[0])
    several = sentray.predict(stars, TEXTS, engine="folded")
    assert [found.label for found in several] == LABELS
    assert single == several[0]
    with pytest.raises(SystemExit):
        cli.main(["predict", str(stars), TEXTS[0]])
    assert capsys.readouterr().out == f"{single}\n"
    with pytest.raises(SentrayError, match="there is no engine 'abacus'"):
        sentray.predict(model, TEXTS, engine="abacus")


def test_words_gives_what_the_command_prints(stars: Path, tmp_path: Path) -> None:
    found = sentray.words(stars, "neighbours", "great", count=2)
    assert [type(cosine) for _, cosine in found] == [float, float]
    vectors = sentray.words(stars, "export", out=tmp_path / "vectors.txt")
    assert {word for word, _ in found} <= {*vectors.words} - {"great"}


def test_threads_share_a_model(stars: Path) -> None:
    model = sentray.load(stars)
    texts = [f"a {word} film {number}" for number in range(2_000) for word in ("great", "awful", "boring and great")]
    alone = model.predict_proba(texts)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: model.predict_proba(texts), range(24)):
            np.testing.assert_array_equal(found, alone)


def test_a_process_may_fork_with_a_model(stars: Path) -> None:
    # In a process of its own, since pytest's has threads of Ray and TensorFlow.
    program = """
        import multiprocessing, sys, sentray
        model = sentray.load(sys.argv[1])
        texts = ['a great film', 'an awful film'] * 3000
        before = model.predict(texts).tolist()
        def again(_):
            return model.predict(texts).tolist() == before
        with multiprocessing.get_context('fork').Pool(3) as pool:
            print(pool.map_async(again, range(6)).get(60), model.predict(texts).tolist() == before)
    """
    assert python(program, stars) == f"{[True] * 6} True\n"


def test_a_table_is_scored_once_resumed_and_verified(stars: Path, tmp_path: Path) -> None:
    model, out = sentray.load(stars), tmp_path / "scored"
    frame = pd.DataFrame({"body": [*TEXTS, None] * 50, "customer": range(200)})
    first = sentray.score(model, frame, out=out, text_column="body", keep=["customer"], max_bad_rows=0.5)
    assert (first["rows"], first["rows_scored"], first["quarantined"]) == (200, 150, {"null_text": 50})
    files = {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")}
    same = pl.DataFrame(frame)
    assert sentray.score(model, same, out=out, text_column="body", keep=["customer"], max_bad_rows=0.5) == first
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")} == files
    sentray.score(model, frame, out=out, text_column="body", keep="customer", max_bad_rows=0.5, dry_run=True)
    with pytest.raises(SentrayError, match=r"scored was made from the input .* is not the same now; choose another"):
        sentray.score(model, frame[:9], out=out, text_column="body", keep=["customer"], max_bad_rows=0.5)
    assert len([*Path(f"{out}.work").iterdir()]) == 1

    sentray.verify(out, input=frame)
    with pytest.raises(SentrayError):
        sentray.verify(out, input=frame.assign(customer=0))
    rows = pq.read_table(out / "scores").to_pandas().sort_values("customer")
    assert rows["label"].tolist() == LABELS * 50


def test_training_on_a_table_is_resumed_and_other_data_refused(
    ray_session: None, in_process: Callable[[], None], tmp_path: Path
) -> None:
    in_process()
    out = tmp_path / "model"
    table = pa.table({"review": ["a great film", "an awful film"] * 100, "stars": [5, 1] * 100})
    settings = {"out": out, "text_column": "review", "label_column": "stars", "epochs": 1, "report": False}
    model = sentray.train(table, **settings)
    assert (model.labels, os.fspath(model)) == (["1", "5"], str(out))
    assert not Path(f"{out}.work").exists()
    assert sentray.train(table.to_pandas(), **settings).digest == model.digest
    with pytest.raises(SentrayError, match="model holds another bundle; choose another --out"):
        sentray.train(table.slice(2), **settings)


def test_a_table_stays_beside_an_output_that_the_config_file_names(tmp_path: Path, stars: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text(f'out = "{tmp_path}/scored"\n')
    sentray.score(stars, pa.table({"text": TEXTS}), config=config)
    assert len([*(tmp_path / "scored.work").iterdir()]) == 1


def test_what_cannot_be_used_is_said_before_a_table_is_written(tmp_path: Path) -> None:
    with pytest.raises(SentrayError, match=r"^--workers is 0: "):
        sentray.score("nowhere", pa.table({"text": TEXTS}), out=tmp_path / "scored", workers=0)
    assert [*tmp_path.iterdir()] == []


def test_every_corpus_may_be_a_table(stars: Path, ray_session: None, tmp_path: Path) -> None:
    import ray

    dataset = ray.data.from_items([{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)])
    assert sentray.check(dataset).to_dict()["rows"] == 3
    assert sentray.evaluate(stars, dataset, split="all")["accuracy"] == 1
    frame = pl.DataFrame({"text": TEXTS * 10, "label": LABELS * 10})
    sentray.vocab(frame, out=tmp_path / "vocabulary.txt", cleaning="reviews")
    assert "great" in (tmp_path / "vocabulary.txt").read_text().split()
    sentray.embed(frame, out=tmp_path / "vectors.txt", cleaning="reviews", dimensions=4, epochs=1)
    assert " 4\n" in (tmp_path / "vectors.txt").read_text()
    with pytest.raises(SentrayError, match=r"^corpus is a list: give a path or URI, a table with __arrow_c_stream__"):
        sentray.check([{"text": "a"}])


@pytest.mark.parametrize("kind", ["pyarrow", "pandas", "numpy"])
def test_predictor_maps_over_a_dataset(kind: str, stars: Path, ray_session: None) -> None:
    import ray

    rows = [{"body": text, "number": number} for number, text in enumerate([*TEXTS, None, " "])]
    dataset = ray.data.from_items(rows).map_batches(
        sentray.Predictor,
        fn_constructor_kwargs={"model": str(stars), "text_column": "body", "keep": ["number"]},
        batch_format=kind,
        concurrency=1,
    )
    found = sorted(dataset.take_all(), key=lambda row: row["number"])
    assert [row.keys() for row in found] == [{"number", "label", "score"}] * 5
    assert [row["label"] for row in found] == [*LABELS, None, None]
    scores = sentray.load(stars).predict_proba(TEXTS).max(axis=1)
    np.testing.assert_allclose([row["score"] for row in found[:3]], scores, rtol=1e-6)
    assert all(row["score"] is None or np.isnan(row["score"]) for row in found[3:])


def test_predictor_keeps_all_columns_and_refuses_what_it_cannot_add(stars: Path) -> None:
    predictor = sentray.Predictor(sentray.load(stars))
    table = pa.table({"text": TEXTS, "more": [1, 2, 3]})
    assert predictor(table).column_names == ["text", "more", "label", "score"]
    assert list(predictor(table.to_pandas())) == ["text", "more", "label", "score"]
    assert predictor(table.slice(0, 0)).num_rows == 0
    with pytest.raises(SentrayError, match="the batch has no column 'text': it has body"):
        predictor(table.select(["text"]).rename_columns(["body"]))
    labelled = table.append_column("label", pa.array(LABELS))
    with pytest.raises(SentrayError, match="has a column 'label' already, which Predictor adds: rename it"):
        predictor(labelled)
    assert sentray.Predictor(stars, keep=["more"])(labelled)["label"].to_pylist() == LABELS


def test_a_stalled_call_ends_and_another_thread_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    import sentray.corpus.check

    def stand_still(settings: Any, console: Console) -> None:
        ended = time.monotonic() + 20
        while time.monotonic() < ended:
            time.sleep(0.05)

    monkeypatch.setattr(sentray.corpus.check, "check", stand_still)
    with pytest.raises(SentrayError, match="nothing has moved for 1 s"):
        sentray.check("synthetic:9", stall_timeout=1)


def test_the_settings_of_a_function_are_those_of_the_command_line() -> None:
    words = ["c", "--out", "o", "--workers", "1:4", "--gpu", "--epochs", "3"]
    given = {"corpus": "c", "out": "o", "workers": "1:4", "gpu": True, "epochs": 3}
    assert options.parse(TrainSettings, words) == options.resolve(TrainSettings, given)
    assert cluster.show_workers.get()
