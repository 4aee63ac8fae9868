"""A network's file from a stranger is refused before Keras makes anything of it."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sentray import bundle
from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.inference import networks
from sentray.inference.networks import load_network


@pytest.fixture
def forge(small_bundle: Bundle, tmp_path: Path) -> Callable[..., Bundle]:
    """A bundle whose network is changed, with digests that fit."""

    def forge(
        config: Callable[[dict[str, Any]], object] = lambda _: None,
        weights: Callable[[h5py.File], object] = lambda _: None,
        more: dict[str, bytes] | None = None,
        **how: int,
    ) -> Bundle:
        with zipfile.ZipFile(small_bundle.model_file) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        values = json.loads(members["config.json"])
        config(values)
        members["config.json"] = json.dumps(values).encode()
        stored = io.BytesIO(members["model.weights.h5"])
        with h5py.File(stored, "r+") as file:
            weights(file)
        members["model.weights.h5"] = stored.getvalue()
        for name, content in bundle.pack(small_bundle).items():
            (tmp_path / name).write_bytes(content)
        with zipfile.ZipFile(tmp_path / bundle.MODEL, "w", **how) as archive:
            for name, content in (members | (more or {})).items():
                archive.writestr(name, content)
        return bundle.update(small_bundle.__class__(**vars(small_bundle) | {"path": tmp_path}))

    return forge


def layer(number: int, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["config"]["layers"][number]["config"].update(changes)


def replaced(values: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["config"]["layers"].insert(4, values)


def external(file: h5py.File) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/passwd", "/")


def packed(file: h5py.File) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", (1 << 14, 1 << 14), np.float32, compression="gzip", fillvalue=1.0)


def hollow(file: h5py.File) -> None:
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", (1 << 14, 1 << 14), np.float32)


def test_an_honest_one_loads(forge: Callable[..., Bundle]) -> None:
    assert load_network(forge()).count_params() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": layer(1, input_dim=10**9)}, r"it asks for 100,0\d\d,\d{3},\d{3} weights and its file has"),
        ({"config": layer(6, units=10**10)}, "cannot load"),
        (
            {"config": replaced({"module": "keras.layers", "class_name": "RepeatVector", "config": {"n": 10**8}})},
            "cannot load",
        ),
        (
            {"config": replaced({"module": "keras.layers", "class_name": "Lambda", "config": {"function": "x"}})},
            r"it has a keras\.layers\.Lambda, which no bundle may have",
        ),
        (
            {"config": replaced({"module": "keras.layers", "class_name": "Attention", "config": {}})},
            r"it has a keras\.layers\.Attention, which no bundle may have",
        ),
        (
            {"config": replaced({"module": "builtins", "class_name": "exec", "config": "1"})},
            r"it has a builtins\.exec, which no bundle may have",
        ),
        (
            {
                "config": replaced(
                    {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}
                )
            },
            r"keras\.layers\.StringLookup, which no bundle may have",
        ),
        (
            {"config": layer(5, activation={"class_name": "function", "config": "exec", "module": "builtins"})},
            "exec|func",
        ),
        ({"config": lambda config: config["config"]["layers"][5].update(registered_name="evil>Dense")}, "another name"),
        ({"weights": external}, "has a link"),
        ({"weights": packed}, "an array that is not stored as it is"),
        ({"weights": hollow}, "an array that is not stored as it is"),
        ({"more": {"../../evil.py": b"x"}}, "no archive of"),
        ({"more": {"assets/x": b"x"}}, "no archive of"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed or too large"),
        ({"more": {"config.json": b"[" * 100_000}}, "nested too deeply"),
    ],
)
def test_a_hostile_one_is_refused(forge: Callable[..., Bundle], change: dict[str, Any], message: str) -> None:
    with pytest.raises(SentrayError, match=message) as error:
        load_network(forge(**change))
    assert "\n" not in str(error.value)


def test_a_network_within_the_network_is_looked_at(small_bundle: Bundle) -> None:
    import keras
    from keras import layers

    def around(size: int) -> dict[str, Any]:
        hidden = keras.Sequential([keras.Input((50, 8)), layers.UpSampling1D(size), layers.GlobalMaxPooling1D()])
        outer = keras.Sequential([keras.Input((50, 8)), hidden])
        return dict(keras.saving.serialize_keras_object(outer))

    networks._require_memory(around(2), small_bundle)
    with pytest.raises(ValueError, match=r"its layer up_sampling1d.* gives 400,000,000 numbers for a review"):
        networks._require_memory(around(10**6), small_bundle)


def test_wrapped_layers_are_no_obstacle(small_bundle: Bundle) -> None:
    import keras
    from keras import layers

    wrapped = [layers.Bidirectional(layers.LSTM(2, return_sequences=True)), layers.TimeDistributed(layers.Dense(1))]
    model = keras.Sequential([keras.Input((50, 8)), *wrapped])
    networks._require_memory(dict(keras.saving.serialize_keras_object(model)), small_bundle)
