"""A bundle from a stranger, who makes the digests fit: it loads, or gives one sentence."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import bundle
from sentray.inference import folded_files
from sentray.inference.folded_files import Branch, Spec
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary

WORDS = ["good", "bad", "film", "naïve"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder, chance = tmp_path_factory.mktemp("bundle"), np.random.default_rng(0)
    shapes = {
        "embedding": (5, 3),
        "kernel0": (2, 3, 4),
        "bias0": (4,),
        "kernel1": (1, 3, 2),
        "bias1": (2,),
        "weights0": (4 * 4 + 2, 3),
        "units0": (3,),
        "weights1": (3, 1),
        "units1": (1,),
    }
    branches = (Branch(2, 4, True, "max", 2, 2), Branch(1, 2, False, "average", None, 1))
    (folder / bundle.MODEL).write_bytes(b"a network")
    made = bundle.write(
        folder,
        architecture="tutorial-cnn.v1",
        rules=preset("reviews")[0],
        vocabulary=Vocabulary(WORDS),
        labels=["neg", "pos"],
        max_length=9,
        metrics={"coverage": 0.9, "test": {"accuracy": 0.5}},
        settings={"seed": 1, "workers": "1:4"},
        golden=[bundle.GoldenText(text="good film", scores={"neg": 0.25, "pos": 0.75})],
        engine_files=folded_files.pack(
            Spec(9, branches, ("relu", "sigmoid")),
            {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
        ),
    )
    return bundle.pack(made)


def load(folder: Path, files: dict[str, bytes], our_error: Any, fits: bool) -> None:
    """Load a bundle of such files; with digests that fit them where `fits`."""
    if fits:
        manifest = json.loads(files[bundle.MANIFEST])
        manifest["files"] = {n: hashlib.sha256(files[n]).hexdigest() for n in files if n != bundle.MANIFEST}
        files = files | {bundle.MANIFEST: json.dumps(manifest).encode()}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with our_error:
        made = bundle.load(folder)
        if made.folded:
            folded_files.load(made)


@pytest.mark.parametrize("name", ["bundle.json", "golden.json", "vocabulary.txt", "folded.json", "folded.npz"])
@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_a_file_of_it_holds(
    name: str, files: dict[str, bytes], mutate: Any, our_error: Any, tmp_path: Path, data: st.DataObject
) -> None:
    load(tmp_path, files | {name: mutate(data, files[name])}, our_error, fits=name != "bundle.json")


@pytest.mark.parametrize("name", ["bundle.json", "golden.json", "folded.json"])
@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_values_its_json_holds(
    name: str, files: dict[str, bytes], mutate_json: Any, our_error: Any, tmp_path: Path, data: st.DataObject
) -> None:
    content = json.dumps(mutate_json(data, json.loads(files[name]))).encode()
    load(tmp_path, files | {name: content}, our_error, fits=name != "bundle.json")


CHILD = """
import json, io, random, sys, zipfile
from pathlib import Path
from types import SimpleNamespace
import h5py, numpy as np
from sentray.inference import networks

file = Path(sys.argv[1]) / "model.keras"
layer = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 4}, "registered_name": None}
config = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer] * 3}, "registered_name": None}
weights = io.BytesIO()
with h5py.File(weights, "w") as stored:
    for number in range(3):
        stored[f"layers/dense_{number}/vars/0"] = np.ones((30, 4), np.float32)

def write(config, weights):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights)

for seed in range(int(sys.argv[2]), int(sys.argv[3])):
    chance = random.Random(seed)
    parts = [bytearray(json.dumps(config).encode()), bytearray(weights.getvalue())]
    which = chance.randrange(3)
    if which < 2:
        for _ in range(chance.randint(1, 5)):
            part = parts[which]
            part[chance.randrange(len(part))] = chance.randrange(256)
    write(*map(bytes, parts))
    if which == 2:
        content = bytearray(file.read_bytes())
        for _ in range(chance.randint(1, 5)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        file.write_bytes(content)
    print(seed, flush=True)
    try:
        networks.checked_config(SimpleNamespace(model_file=file))
    except Exception as error:
        str(error)
print("done", flush=True)
"""


def test_whatever_a_network_file_holds(tmp_path: Path) -> None:
    """In a process of its own: HDF5 is read by a library in C."""
    (tmp_path / "child.py").write_text(CHILD)
    last = os.environ.get("SENTRAY_FUZZ_EXAMPLES", "200")
    arguments = [sys.executable, str(tmp_path / "child.py"), str(tmp_path), "0", last]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
    assert (ran.returncode, ran.stdout.split()[-1]) == (0, "done"), ran.stderr[-2000:]


def test_the_unchanged_files_load(files: dict[str, bytes], our_error: Any, tmp_path: Path, monkeypatch: Any) -> None:
    found: list[Callable[..., Any]] = []
    monkeypatch.setattr(folded_files, "_require_sound", lambda *_: found.append(_))
    load(tmp_path, files, our_error, fits=True)
    assert found
