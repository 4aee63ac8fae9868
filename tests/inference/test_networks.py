"""A network is rebuilt by name: what else its file says has no effect, and weights that do not fit are refused."""

import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sentray import bundle, models
from sentray.bundle import Bundle, ModelSpec
from sentray.errors import SentrayError
from sentray.inference.networks import load_network
from sentray.models import DeepSpec
from sentray.text.cleaning import preset
from sentray.text.hashing import HashedWords
from sentray.text.ngrams import GramSpec

Change = Callable[[Any], object]


def forge(
    made: Bundle,
    config: Change = lambda _: None,
    weights: Change = lambda _: None,
    more: dict[str, bytes] | None = None,
    spec: dict[str, Any] | None = None,
    **how: int,
) -> Bundle:
    """A bundle whose network's file is changed, with digests that fit."""
    with zipfile.ZipFile(io.BytesIO(made.files[bundle.MODEL])) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    values = json.loads(members["config.json"])
    config(values)
    members["config.json"] = json.dumps(values).encode()
    stored = io.BytesIO(members["model.weights.h5"])
    with h5py.File(stored, "r+") as file:
        weights(file)
    members["model.weights.h5"] = stored.getvalue()
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", **how) as archive:
        for name, member in (members | (more or {})).items():
            archive.writestr(name, member)
    forged = ModelSpec(**dict(made.spec) | (spec or {}))
    return bundle.make(forged, made.vocabulary, made.files | {bundle.MODEL: content.getvalue()})


def layer(number: int, **changes: Any) -> Change:
    return lambda config: config["config"]["layers"][number]["config"].update(changes)


def inserted(module: str, name: str, values: Any) -> Change:
    found = {"module": module, "class_name": name, "config": values, "registered_name": None}
    return lambda config: config["config"]["layers"].insert(4, found)


def weights_of(network: Any) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in network.get_weights()]


@pytest.mark.parametrize("name", models.ARCHITECTURES)
def test_every_architecture_comes_back_with_its_weights(name: str) -> None:
    words, architecture = HashedWords(30), models.architecture(name)
    deep = DeepSpec(widths=(2, 3), filters=4, dimensions=5) if models.DEEP in architecture.heads else None
    network = architecture.build(words.size, 12, 3, None if deep else 5, gram_rows=9, deep=deep)
    uses_grams = models.WIDE in architecture.heads
    spec = ModelSpec.of(
        words,
        architecture=name,
        cleaning=preset("reviews")[0],
        labels=("a", "b", "c"),
        max_length=12,
        grams=GramSpec() if uses_grams else None,
        deep=deep,
    )
    files = {bundle.MODEL: models.keras_file(network)} | ({bundle.GRAMS: bytes(64)} if uses_grams else {})
    found = load_network(bundle.make(spec, words, files))
    assert [type(each) for each in found.layers] == [type(each) for each in network.layers]
    for mine, theirs in zip(weights_of(found), weights_of(network), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_half_that_the_bundle_does_not_tell_of_is_refused(small_bundle: Bundle) -> None:
    deep = DeepSpec(widths=(2,), filters=4, dimensions=5)
    forged = forge(small_bundle, spec={"deep": deep})
    with pytest.raises(SentrayError, match="differ in whether there is a deep half"):
        load_network(forged)
    forged = forge(small_bundle, spec={"architecture": "deep.v1"})
    with pytest.raises(SentrayError, match="differ in whether there is a deep half"):
        load_network(forged)


@pytest.mark.parametrize(
    "change",
    [
        {"config": layer(1, input_dim=10**9)},
        {"config": layer(6, units=10**10)},
        {"config": layer(5, activation={"class_name": "function", "config": "exec", "module": "builtins"})},
        {"config": inserted("keras.layers", "RepeatVector", {"n": 10**8})},
        {"config": inserted("keras.layers", "Lambda", {"function": "x"})},
        {"config": inserted("keras.layers", "Attention", {})},
        {"config": inserted("builtins", "exec", "1")},
        {"config": inserted("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"})},
        {"config": lambda config: config["config"]["layers"][5].update(registered_name="evil>Dense")},
        {"config": lambda config: config.clear()},
        {"more": {"config.json": b"[" * 100_000}},
        {"more": {"../../evil.py": b"x"}},
        {"more": {"assets/x": b"x"}},
    ],
)
def test_what_the_file_says_of_layers_has_no_effect(
    small_bundle: Bundle, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_network(forge(small_bundle, **change))
    for mine, theirs in zip(weights_of(found), weights_of(load_network(small_bundle)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert list(tmp_path.iterdir()) == []


DENSE = "layers/dense/vars/0"


def external(file: h5py.File) -> None:
    del file[DENSE]
    file[DENSE] = h5py.ExternalLink("/etc/passwd", "/")


def soft(file: h5py.File) -> None:
    file.move("layers/dense", "elsewhere")
    file["layers/dense"] = h5py.SoftLink("/elsewhere")


def put(*given: Any, **how: Any) -> Change:
    def change(file: h5py.File) -> None:
        del file[DENSE]
        file.create_dataset(DENSE, *given, **how)

    return change


def virtual(file: h5py.File) -> None:
    shape = file[DENSE].shape
    del file[DENSE]
    layout = h5py.VirtualLayout(shape, np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape)
    file.create_virtual_dataset(DENSE, layout)


LARGE = (1 << 14, 1 << 14)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": external}, f"/{DENSE} in its .* is no array of 32-bit floats stored as it is"),
        ({"weights": soft}, "/layers/dense in its .* is no array"),
        ({"weights": virtual}, "is no array"),
        ({"weights": put(LARGE, np.float32, compression="gzip", fillvalue=1.0)}, "is no array"),
        ({"weights": put(LARGE, np.float32)}, "is no array"),
        ({"weights": put((512, 10), np.float32)}, "is no array"),
        ({"weights": put((512, 10), h5py.string_dtype())}, "is no array"),
        ({"weights": put(data=np.zeros((512, 10)))}, "is no array"),
        ({"weights": put(data=np.zeros((512, 9), np.float32))}, "its weights take .* bytes, those of the network"),
        ({"weights": put(data=np.zeros((10, 512), np.float32))}, "could not be loaded"),
        ({"weights": lambda file: file.move(DENSE, "layers/dense/x")}, "could not be loaded"),
        ({"weights": lambda file: file.__delitem__("layers")}, "has no array layers/embedding/vars/0"),
        ({"compression": zipfile.ZIP_DEFLATED}, "is compressed or too large"),
        ({"more": {"model.weights.h5": b"no HDF5"}}, "file signature not found"),
        # The dense layer would take 5 GB, or 160 MB.
        ({"spec": {"max_length": 1 << 23}}, r"those of the network 5,36\d,\d{3},\d{3}"),
        ({"spec": {"max_length": 1 << 18}}, r"those of the network 16\d,\d{3},\d{3}"),
        ({"spec": {"max_length": 8}}, "it takes 9 words at least, the bundle 8"),
        ({"spec": {"labels": ("a", "b", "c")}}, "its weights take"),
    ],
)
def test_weights_that_do_not_fit_are_refused(small_bundle: Bundle, change: dict[str, Any], message: str) -> None:
    if "labels" in change.get("spec", {}):
        small_bundle = bundle.update(small_bundle, golden=[])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SentrayError, match=message) as error:
        load_network(forge(small_bundle, **change))
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_length_at_which_a_batch_would_take_gigabytes_is_refused() -> None:
    """A network that averages its words has weights for any length."""
    words, length = HashedWords(30), 1 << 18
    network = models.architecture("embedding-average").build(words.size, 12, 2, 100)
    spec = ModelSpec.of(
        words,
        architecture="embedding-average.v1",
        cleaning=preset("reviews")[0],
        labels=("neg", "pos"),
        max_length=length,
    )
    with pytest.raises(SentrayError, match=r"its layer embedding.* gives 26,214,400 numbers for a review"):
        load_network(bundle.make(spec, words, {bundle.MODEL: models.keras_file(network)}))


def test_a_file_that_is_no_archive_is_refused(small_bundle: Bundle) -> None:
    damaged = bundle.make(small_bundle.spec, small_bundle.vocabulary, {bundle.MODEL: b"not a zip file"})
    with pytest.raises(SentrayError, match=r"the network in model\.keras of the bundle cannot be used \(File is not a"):
        load_network(damaged)


def test_fewer_vectors_than_words_are_refused(small_bundle: Bundle) -> None:
    fewer = models.architecture("tutorial-cnn").build(small_bundle.vocabulary.size - 1, 40, 2)
    forged = bundle.make(small_bundle.spec, small_bundle.vocabulary, {bundle.MODEL: models.keras_file(fewer)})
    with pytest.raises(SentrayError, match="it knows 16 words, the bundle 17"):
        load_network(forged)


def test_an_architecture_of_another_sentray_is_refused_with_the_cure(small_bundle: Bundle) -> None:
    strange = forge(small_bundle, spec={"architecture": "wide-deep.v9"})
    with pytest.raises(SentrayError, match=r"'wide-deep\.v9', which this sentray does not know; use the sentray that"):
        load_network(strange)
