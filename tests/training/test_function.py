"""A user's function: what is kept of it, how it travels, and what is refused before the corpus is read."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentray import bundle, models
from sentray.config import TrainSettings
from sentray.errors import SentrayError
from sentray.inference.networks import described, load_network
from sentray.training.crossvalidation import _at_work
from sentray.training.function import checked
from sentray.training.run import work_folder
from sentray.tuning.space import Space

HERE, OWN = Path(__file__).parent, "tests.training.own_networks"


def settings(model: str, **values: Any) -> TrainSettings:
    return TrainSettings(corpus="unused", out="unused", model=model, **values)


def test_name_source_and_layers_of_a_function_are_kept() -> None:
    function = checked(settings(f"{OWN}:build"))
    assert function is not None
    assert function.name == f"{OWN}:build"
    assert function.digest == hashlib.sha256((HERE / "own_networks.py").read_bytes()).hexdigest()
    assert function.layers == (f"{OWN}:Gate",)
    assert checked(settings("bilstm")) is None


def test_the_readme_s_example_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(
        r"^```py\n(.*?)^```$", (HERE.parents[1] / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "mine.py").write_text(f"import keras\n\n{example}")
    monkeypatch.syspath_prepend(tmp_path)
    function = checked(settings("mine:build"))
    assert function is not None
    assert function.layers == ("mine:Gate",)


@pytest.mark.parametrize(
    ("model", "values", "said"),
    [
        ("nowhere:build", {}, "the module 'nowhere' cannot be imported (ModuleNotFoundError"),
        (f"{OWN}:bild", {}, "has no function 'bild'; do you mean 'build'?"),
        (f"{OWN}:raising", {}, "raises ValueError: out of ideas; it is called with a sentray.NetworkSpec"),
        (f"{OWN}:no_model", {}, "gives a str, not a keras.Model"),
        (f"{OWN}:other_inputs", {}, "has the inputs words, not ids: make them with spec.ids()"),
        (f"{OWN}:other_end", {}, "is not spec.output() on the features of a review"),
        (f"{OWN}:of_each_word", {}, "is not spec.output() on the features of a review"),
        (f"{OWN}:with_lambda", {}, "has a Lambda layer with code of its own"),
        (f"{OWN}:forgetful", {}, "cannot be loaded again ("),
        (f"{OWN}:masked_mean", {}, "gives no number for a review without a known word: a mean over masked words"),
        (f"{OWN}:own_vectors", {"dimensions": 5}, "makes no use of --dimensions: take spec.embedding()"),
        (
            f"{OWN}:own_vectors",
            {"embedding": "x", "freeze": True},
            "makes no use of --embedding: take spec.embedding()",
        ),
        (f"{OWN}:build", {"learning_rate": 0.1}, "which --learning-rate does not change: leave one of both out"),
        (f"{OWN}:build", {"numeric": ("stars",)}, "has the inputs ids, not ids, numbers: make them with"),
    ],
)
def test_what_breaks_the_contract_is_refused(model: str, values: dict[str, Any], said: str) -> None:
    with pytest.raises(SentrayError, match=re.escape(said)) as caught:
        checked(settings(model, **values))
    assert str(caught.value).count("\n") == 0


def test_trials_leave_out_what_a_network_does_not_take_and_look_at_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.training import own_networks

    built: list[Any] = []

    def build(spec: Any) -> Any:
        built.append(spec)
        return own_networks.build(spec)

    monkeypatch.setattr(own_networks, "counted", build, raising=False)
    monkeypatch.setattr(build, "__module__", OWN)
    assert [*Space.suiting(settings(f"{OWN}:counted"))] == ["batch_size"]
    assert len(built) == 1


def test_what_of_keras_needs_trust_is_kept() -> None:
    function = checked(settings(f"{OWN}:own_vectors"))
    assert function is not None
    assert function.layers == ("keras.src.ops.numpy:Repeat",)
    assert function.own_layers == []
    assert described(function).endswith("do nothing but compute (keras.src.ops.numpy:Repeat)")


def test_a_function_travels_to_a_fold_with_the_digest_of_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIVEN", "DIGESTS"):
        monkeypatch.setattr(models, name, {})
    code, own = models.resolve(f"{OWN}:build"), settings(f"{OWN}:build")
    taken = [(models.packed([own.model]), {own.model: "0" * 64})]

    def work(fold: str, settings: TrainSettings, board: Any) -> dict[str, Any]:
        found = models.resolve(settings.model)
        return {"fold": fold, "by value": found.function is not code.function, "digest": found.digest}

    found = _at_work(work, "1/2", own, None, {}, taken)
    assert found == {"fold": "1/2", "by value": True, "digest": "0" * 64}


def test_a_function_of_a_model_in_python_is_named() -> None:
    assert models.name_of(settings) == f"{__name__}:settings"
    with pytest.raises(SentrayError, match="no function at the top of a module or notebook"):
        models.name_of(lambda spec: None)


def test_functions_and_layers_travel_to_a_process_that_cannot_import_them(tmp_path: Path) -> None:
    (tmp_path / "code").write_bytes(models.packed([f"{OWN}:build", f"{OWN}:Gate"]))
    read = (
        "import sys; from pathlib import Path; from sentray import models; models.prepare_tensorflow(1)\n"
        "models.unpack(Path('code').read_bytes())\n"
        f"model = models.resolve('{OWN}:build').build(9, 5, 2)\n"
        f"gate = models.custom_objects(['{OWN}:Gate'])['Gate']\n"
        "assert any(type(layer) is gate for layer in model.layers)\n"
        f"assert '{OWN}' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", read], cwd=tmp_path, check=True, timeout=120)


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_ends_with_the_bits_of_an_unbroken_one(tmp_path: Path) -> None:
    """LSTM, a layer of its own, dropout, statistics and half precision, by two workers under Ray."""

    def start(out: Path) -> subprocess.Popen[str]:
        options = "--workers 2 --cpus-per-worker 0.5 --epochs 6 --max-length 20 --dimensions 8 --validation-fraction 0"
        command = ["train", "synthetic:600", "--model", f"{OWN}:build", "--out", str(out), *options.split()]
        program = [sys.executable, "-m", "sentray", *command]
        outputs: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(program, cwd=HERE.parents[1], **outputs)

    def weights(out: Path) -> Any:
        return load_network(bundle.load(str(out), trusted=True)).get_weights()

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    unbroken = start(whole)
    unbroken.communicate(timeout=600)
    assert unbroken.returncode == 0
    run = start(broken)
    stored = Path(work_folder(str(broken)), "train", "checkpoint_manager_snapshot.json")
    while not stored.exists():
        assert run.poll() is None
        time.sleep(0.05)
    lines = subprocess.check_output(["ps", "-eo", "pid=,ppid=,args="], text=True).splitlines()
    processes = {int(pid): (int(parent), name) for pid, parent, name in (line.split(None, 2) for line in lines)}
    workers = [pid for pid, (_, name) in processes.items() if "RayTrainWorker" in name]
    mine = {pid for pid in workers if run.pid in (processes[pid][0], processes[processes[pid][0]][0])}
    os.kill(max(mine), signal.SIGKILL)
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0
    assert "1 training worker lost" in said
    assert "going on after epoch" in said
    for mine, other in zip(weights(broken), weights(whole), strict=True):
        np.testing.assert_array_equal(mine, other)
