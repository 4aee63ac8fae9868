"""An untrusted bundle, with digests that fit: it loads, or gives one sentence."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentray import bundle
from sentray.bundle import ModelSpec
from sentray.inference import folded
from sentray.inference.folded import Branch, Mean, Network, Sums, Wide
from sentray.models import DeepSpec
from sentray.text.cleaning import preset
from sentray.text.encoding import Encoder
from sentray.text.ngrams import GramSpec, key, make_table
from sentray.text.vocabulary import Vocabulary

WORDS = ["good", "bad", "film", "naïve"]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    chance = np.random.default_rng(0)
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
    rules = preset("reviews")[0]
    network = folded.pack(
        Network(9, branches, ("relu", "sigmoid")),
        {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
    )
    return bundle.make(
        ModelSpec(architecture="tutorial-cnn.v1", cleaning=rules, labels=("neg", "pos"), max_length=9),
        Vocabulary(WORDS),
        {bundle.MODEL: b"a network", **network},
        metrics={"coverage": 0.9, "test": {"accuracy": 0.5}},
        settings={"seed": 1, "workers": "1:4"},
        golden=[bundle.GoldenText(text="good film", scores={"neg": 0.25, "pos": 0.75})],
    ).files


@pytest.fixture(scope="module")
def halves() -> dict[str, bytes]:
    """A bundle of a network that looks at n-grams and takes reviews of any length."""
    chance = np.random.default_rng(0)
    table = make_table(np.array([key(1), key(2), key(1, 2), key(1, 0, 2)], np.uint64))
    shapes = {
        "embedding": (5, 3),
        "kernel0": (len(table) + 1, 1),
        "kernel1": (3, 4),
        "weights0": (1 + 4 + 3, 1),
        "units0": (1,),
    }
    weights = {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["embedding"][0] = 0
    network = folded.pack(Network(None, (Wide(1), Sums(2, 4), Mean(1e-20)), ("sigmoid",)), weights)
    deep = DeepSpec(widths=(2,), filters=4, dimensions=3)
    rules = preset("reviews")[0]
    return bundle.make(
        ModelSpec(
            architecture="wide-deep.v1",
            cleaning=rules,
            labels=("neg", "pos"),
            max_length=9,
            grams=GramSpec(characters=True),
            deep=deep,
        ),
        Vocabulary(WORDS),
        {bundle.MODEL: b"a network", bundle.GRAMS: table.tobytes(), **network},
    ).files


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
        if made.folded and folded.load(made)[0].length is None:
            # Nothing that is compiled depends on its shape.
            encoder = Encoder(made.spec.cleaning, made.vocabulary)
            folded.FoldedEngine(made).scores(encoder.encode(pa.array(["", "good bad film", "bad " * 20])))


ANY = {
    "files": ["bundle.json", "golden.json", "vocabulary.txt", "folded.json", "folded.npz"],
    "halves": ["grams.bin", "folded.json", "folded.npz"],
}
JSON = {"files": ["bundle.json", "golden.json", "folded.json"], "halves": ["bundle.json", "folded.json"]}
"""Files of each of the two bundles."""


def each(of: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(made, name) for made, names in of.items() for name in names]


@pytest.mark.parametrize(("made", "name"), each(ANY))
@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_a_file_of_it_holds(
    made: str, name: str, request: Any, mutate: Any, our_error: Any, tmp_path: Path, data: st.DataObject
) -> None:
    files = request.getfixturevalue(made)
    load(tmp_path, files | {name: mutate(data, files[name])}, our_error, fits=name != "bundle.json")


@pytest.mark.parametrize(("made", "name"), each(JSON))
@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_whatever_values_its_json_holds(
    made: str, name: str, request: Any, mutate_json: Any, our_error: Any, tmp_path: Path, data: st.DataObject
) -> None:
    files = request.getfixturevalue(made)
    content = json.dumps(mutate_json(data, json.loads(files[name]))).encode()
    load(tmp_path, files | {name: content}, our_error, fits=name != "bundle.json")


CHILD = """
import io, random, sys, zipfile
import numpy as np
from sentray import bundle, models
from sentray.bundle import ModelSpec
from sentray.errors import SentrayError
from sentray.inference.networks import load_network
from sentray.text.cleaning import preset
from sentray.text.hashing import HashedWords

words = HashedWords(5)
rules = preset("reviews")[0]
spec = ModelSpec.of(words, architecture="tutorial-cnn.v1", cleaning=rules, labels=("neg", "pos"), max_length=9)
network = models.keras_file(models.architecture("tutorial-cnn").build(6, 9, 2, 3))
with zipfile.ZipFile(io.BytesIO(network)) as archive:
    members = {name: archive.read(name) for name in archive.namelist()}

def spoilt(content):
    content = bytearray(content)
    for _ in range(chance.randint(1, 5)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)

refused = 0
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    chance = random.Random(seed)
    content = io.BytesIO()
    # Every second time so that the archive's own checksum fits.
    with zipfile.ZipFile(content, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, spoilt(member) if seed % 2 and name.endswith("h5") else member)
    file = content.getvalue() if seed % 2 else spoilt(content.getvalue())
    print(seed, flush=True)
    try:
        load_network(bundle.make(spec, words, {bundle.MODEL: file}))
    except SentrayError as error:
        refused += "\\n" not in str(error)
print("done", refused > 0, flush=True)
"""


def test_whatever_a_network_file_holds() -> None:
    """In a process of its own: HDF5 is read by a library in C."""
    last = os.environ.get("SENTRAY_FUZZ_EXAMPLES", "100")
    arguments = [sys.executable, "-c", CHILD, "0", last]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)
    assert (ran.returncode, ran.stdout.split()[-2:]) == (0, ["done", "True"]), ran.stderr[-2000:]


def test_the_unchanged_files_load(
    files: dict[str, bytes], halves: dict[str, bytes], our_error: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    found: list[Any] = []
    usual = folded.checked
    monkeypatch.setattr(folded, "checked", lambda *given: found.append(usual(*given)) or found[-1])
    load(tmp_path, files, our_error, fits=True)
    load(tmp_path, halves, our_error, fits=True)
    assert len(found) >= 3
