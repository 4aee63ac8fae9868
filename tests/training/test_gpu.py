"""Workers with GPUs, as Ray places them where it is said to have two; TensorFlow sees none of them here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

UNSEEN = "and TensorFlow sees none: install tensorflow[and-cuda] there, or leave out --gpu"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("gpu")
    script = Path(__file__).with_name("logical_gpus.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False, timeout=500
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    result: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return result


@pytest.mark.slow
def test_each_worker_gets_a_gpu_of_its_own(found: dict[str, Any]) -> None:
    first, second = found["placement"]
    assert {first["visible"], second["visible"]} == {"0", "1"}
    assert [first["visible"]] == first["given"]
    assert [second["visible"]] == second["given"]
    assert first["node"] == second["node"]


@pytest.mark.slow
def test_more_workers_than_gpus_are_refused(found: dict[str, Any]) -> None:
    three = found["three"]
    assert three["code"] == 1
    assert three["complained"] == [
        "sentray: the plan wants 3 workers with 0.5 CPUs and 1 GPU each; the cluster has 2 CPUs and 2 GPUs on 1 node, "
        "which cannot hold them: take fewer --workers, leave out --gpu or reach a larger cluster by --address"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["train", "score"])
def test_a_gpu_that_tensorflow_does_not_see_is_refused(found: dict[str, Any], verb: str) -> None:
    ended = found[verb]
    assert ended["code"] == 1
    sentence = ended["complained"][-1]
    assert sentence.startswith("sentray: the worker on ")
    assert sentence.endswith(UNSEEN)
    assert "was given GPU " in sentence


@pytest.mark.slow
def test_the_prepared_corpus_stays_for_a_run_without_gpus(found: dict[str, Any]) -> None:
    assert "dataset" in found["left"]


@pytest.mark.parametrize("given", [[], ["3"]])
def test_a_process_uses_the_gpu_it_was_given_and_no_other(monkeypatch: pytest.MonkeyPatch, given: list[str]) -> None:
    import tensorflow as tf

    from sentray import models

    visible: list[list[str]] = []
    growing: list[str] = []
    monkeypatch.setattr(models, "_given_gpus", lambda: given)
    # With a number given, Ray has set CUDA_VISIBLE_DEVICES and TensorFlow sees that one; with none it sees all.
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["3"] if given else ["0", "1"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda devices, kind: visible.append(devices))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda device, on: growing.append(device))
    models.prepare_tensorflow()
    assert visible == [given]
    assert growing == given
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
