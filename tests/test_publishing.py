"""A finished bundle appears at its place whole or not at all, and takes the place of no other thing."""

import contextlib
import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sentray import bundle, publishing
from sentray.bundle import Bundle
from sentray.errors import SentrayError
from sentray.storage import Folder
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary


@pytest.fixture
def finished(tmp_path: Path) -> Bundle:
    return made(tmp_path / "made", 0.5)


def made(folder: Path, accuracy: float) -> Bundle:
    """A bundle whose network is any bytes."""
    folder.mkdir()
    (folder / bundle.MODEL).write_bytes(b"a network of %f" % accuracy)
    return bundle.write(
        folder,
        architecture="tutorial-cnn.v1",
        rules=preset("reviews")[0],
        vocabulary=Vocabulary(["good", "bad"]),
        labels=("neg", "pos"),
        max_length=50,
        metrics={"test_accuracy": accuracy},
    )


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every folder pass for one that cannot rename, as an object store cannot."""
    made = Folder.__init__

    def init(folder: Folder, out: str) -> None:
        made(folder, out)
        folder.local = False

    monkeypatch.setattr(Folder, "__init__", init)


@pytest.fixture(params=["renamed", "uploaded"])
def way(request: pytest.FixtureRequest) -> str:
    if request.param == "uploaded":
        request.getfixturevalue("remote")
    return request.param


def test_a_bundle_is_replaced_whole(finished: Bundle, tmp_path: Path, way: str) -> None:
    out = tmp_path / "models" / "mine"
    out.parent.mkdir()
    out.mkdir()
    first = publishing.publish(finished, str(out), {"old.json": b"{}"})
    assert first.digest == finished.digest
    newer = publishing.publish(bundle.update(finished, metrics={}), str(out), {"metrics.json": b"{}"})
    assert newer.path == out
    assert newer.metrics == {}
    assert {path.name for path in out.iterdir()} == {*bundle.pack(newer), "metrics.json"}
    assert [path.name for path in out.parent.iterdir()] == ["mine"]


def test_what_is_no_bundle_is_spared(finished: Bundle, tmp_path: Path, way: str) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("much work")
    with pytest.raises(SentrayError, match=r"thesis exists and is not a bundle; choose another --out, or remove it$"):
        publishing.publish(finished, str(out))
    assert (out / "chapter1.tex").read_text() == "much work"


def test_a_file_is_spared(finished: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("much work")
    with pytest.raises(SentrayError, match="is not a bundle"):
        publishing.publish(finished, str(tmp_path / "thesis"))


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.usefixtures("remote")
def test_no_moment_shows_half_a_bundle(finished: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after each change: there is the old bundle, none, or the new one, and publishing can be done again."""
    newer, seen = made(tmp_path / "newer", 0.9), []
    for moment in itertools.count():
        out = tmp_path / f"out{moment}"
        out.mkdir()
        publishing.publish(finished, str(out), {"old.json": b"{}"})
        try:
            _publish_until(moment, newer, out, monkeypatch)
            break
        except Killed:
            seen.append(_accuracy(out))
            assert publishing.publish(newer, str(out)).digest == newer.digest
            assert not (out / publishing.UNFINISHED).exists()
    assert [accuracy for accuracy, _ in itertools.groupby(seen)] == [0.5, None, 0.9]


def _publish_until(moment: int, newer: Bundle, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish, and be killed after so many changes of the folder."""
    changes = iter(range(moment))

    def counted(change: Callable[..., None]) -> Callable[..., None]:
        def then(*arguments: object) -> None:
            if next(changes, None) is None:
                raise Killed
            change(*arguments)

        return then

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "write", counted(Folder.write))
        patched.setattr(Folder, "delete", counted(Folder.delete))
        publishing.publish(newer, str(out))


def _accuracy(out: Path) -> float | None:
    return bundle.load(str(out)).metrics["test_accuracy"] if (out / bundle.MANIFEST).exists() else None


@pytest.mark.parametrize("moment", range(5))
def test_a_stop_between_two_renames_leaves_the_old_or_the_new(
    finished: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    out, rename, done = tmp_path / "out", os.rename, []
    publishing.publish(finished, str(out))
    newer = made(tmp_path / "newer", 0.9)

    def interrupted(*names: str) -> None:
        done.append(names)
        if len(done) * 2 - 1 == moment:
            raise KeyboardInterrupt
        rename(*names)
        if len(done) * 2 == moment:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupted)
    with contextlib.suppress(KeyboardInterrupt):
        publishing.publish(newer, str(out))
    assert _accuracy(out) == (0.5 if moment in (1, 2, 3) else 0.9)
    assert {path.name for path in tmp_path.iterdir()} == {"made", "newer", "out"}


def test_a_full_disk_is_one_sentence(finished: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    publishing.publish(finished, str(tmp_path / "out"))
    for name in ("rename", "fsync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, full)
            with pytest.raises(SentrayError, match=r"cannot be written \(.*No space left on device.*; make room"):
                publishing.publish(made(tmp_path / name, 0.9), str(tmp_path / "out"))
    assert _accuracy(tmp_path / "out") == 0.5


def test_a_place_that_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SentrayError, match=r"nosuch://x cannot be opened"):
        publishing.check_free("nosuch://x")
    publishing.check_free(str(tmp_path / "nothing"))
    publishing.check_free((tmp_path / "nothing").as_uri())
