"""`sentray reproduce` with a trainer that only writes what training writes, and one system trained in earnest."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sentray.bench.settings import ReproduceSettings
from sentray.config import EmbedSettings, TrainSettings, settings_text, write_settings_beside
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.reproduce import run
from sentray.reproduce.systems import RECIPES, SYSTEMS
from sentray.reproduce.table import Row
from sentray.storage import write_text

NAMES = [system.name for system in SYSTEMS]


@dataclass
class Trainer:
    """Notes what it is asked for, and leaves the files of a training run and of learnt vectors."""

    trained: list[TrainSettings] = field(default_factory=list)
    learnt: list[EmbedSettings] = field(default_factory=list)
    fails: Callable[[TrainSettings], BaseException | None] = lambda settings: None

    def train(self, settings: TrainSettings, console: Console) -> dict[str, Any]:
        out = Path(settings.out)
        if (out / "bundle.json").exists():
            return dict(json.loads((out / "metrics.json").read_text()))
        self.trained.append(settings)
        if error := self.fails(settings):
            raise error
        if settings.embedding is not None:
            assert Path(settings.embedding).exists()
        accuracy = None if settings.corpus.endswith("phrases.jsonl") else 0.8 + settings.seed / 100
        metrics = {"test_accuracy": accuracy, "train_accuracy": 1.0, "restarts": 0}
        write_text(str(out / "settings.json"), settings_text(settings))
        write_text(str(out / "metrics.json"), json.dumps(metrics))
        write_text(str(out / "history.json"), json.dumps([{"seconds": 1.5}] * settings.epochs))
        write_text(str(out / "bundle.json"), "{}")
        return metrics

    def embed(self, settings: EmbedSettings, console: Console) -> dict[str, Any]:
        self.learnt.append(settings)
        write_text(settings.out, "1 1\nword 0.5\n")
        write_settings_beside(settings.out, settings)
        return {"lines": 3, "kept": 2, "mean_norm": 0.5, "seconds": 2.0}


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    made = Trainer()
    monkeypatch.setattr(run, "train", made.train)
    monkeypatch.setattr(run, "embed", made.embed)
    monkeypatch.setattr(run.cluster, "connect", lambda *_, **__: contextlib.nullcontext())
    return made


@pytest.fixture
def glove(tmp_path: Path) -> str:
    file = tmp_path / "glove.txt"
    row = " ".join(["0.5"] * 100)
    file.write_text(f"good {row}\nbad {row}\n", encoding="utf-8")
    return str(file)


def reproduce(folder: Path, **values: Any) -> list[Row]:
    return run.reproduce(ReproduceSettings(out=str(folder / "out"), **values), Console())


def test_every_system_with_every_seed(trainer: Trainer, glove: str, tmp_path: Path) -> None:
    rows = reproduce(tmp_path, seeds=2, glove=glove)
    assert [row.system.name for row in rows] == NAMES
    assert len(trainer.trained) == 2 * sum(system.train is not None for system in SYSTEMS)
    assert len(trainer.learnt) == 2 * len(RECIPES)  # learnt once a seed, whoever uses them
    by_name = {row.system.name: row.to_dict() for row in rows}
    assert by_name["tutorial-cnn"]["mean"] == pytest.approx(0.805)
    assert by_name["tutorial-cnn"]["seconds"] == 15
    assert by_name["embedding-mlp-hashed"]["mean"] == 1
    files = {settings.embedding for settings in trainer.trained if "frozen" in settings.out}
    assert glove in files
    written = json.loads((tmp_path / "out" / "reproduce.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in written["systems"]] == NAMES
    assert written["systems"] == [row.to_dict() for row in rows]
    assert "`word2vec`" in (tmp_path / "out" / "reproduce.md").read_text(encoding="utf-8")
    assert (tmp_path / "out" / "reproduce.png").exists()


def test_what_is_done_is_not_done_again(trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = ("tutorial-cnn", "word2vec", "pretrained-cnn-word2vec-frozen")
    first = reproduce(tmp_path, seeds=1, only=only)
    capsys.readouterr()
    second = reproduce(tmp_path, seeds=2, only=only, verbose=True)
    assert [settings.seed for settings in trainer.trained] == [0, 0, 1, 1]
    assert [settings.seed for settings in trainer.learnt] == [0, 1]
    assert capsys.readouterr().out.count("is there already") == 3  # of the first seed twice, of the second once
    assert [row.runs[0] for row in second] == [row.runs[0] for row in first]


def test_vectors_of_other_settings_are_not_taken(trainer: Trainer, tmp_path: Path) -> None:
    reproduce(tmp_path, only=("word2vec",))
    file = tmp_path / "out" / "vectors" / "word2vec-seed0.txt.settings.json"
    file.write_text(file.read_text().replace('"epochs": 5', '"epochs": 3'))
    with pytest.raises(SentrayError, match="1 system of 1 failed"):
        reproduce(tmp_path, only=("word2vec",))
    assert "was learnt with other settings" in (tmp_path / "out" / "reproduce.md").read_text(encoding="utf-8")
    assert len(trainer.learnt) == 1


def test_a_failure_leaves_the_other_systems_alone(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = {"tutorial-cnn": SentrayError("no reviews; get some"), "embedding-mlp-hashed": KeyError("odd")}
    trainer.fails = lambda settings: errors.get(Path(settings.out).parent.name) if settings.seed else None
    with pytest.raises(SentrayError, match=r"2 systems of 5 failed \(tutorial-cnn, embedding-mlp-hashed\)"):
        reproduce(tmp_path, seeds=2, only=[name for name in NAMES if "glove" not in name][:5])
    shown = capsys.readouterr()
    assert "tutorial-cnn, seed 1: no reviews; get some" in shown.out
    assert "embedding-mlp-hashed, seed 1: unexpected KeyError: 'odd'" in shown.out
    assert "Traceback" in shown.err  # which the command line sends to the log
    written = json.loads((tmp_path / "out" / "reproduce.json").read_text(encoding="utf-8"))
    means = [row["mean"] for row in written["systems"]]
    assert means == [0.8, None, pytest.approx(0.805), pytest.approx(0.805), 1]
    assert [len(row["runs"]) for row in written["systems"]] == [2] * 5


def test_an_interruption_is_none_of_the_failures(trainer: Trainer, tmp_path: Path) -> None:
    trainer.fails = lambda settings: KeyboardInterrupt() if settings.seed == 1 else None
    with pytest.raises(KeyboardInterrupt):
        reproduce(tmp_path, seeds=2, only=("tutorial-cnn",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"only": ("nothing",)}, "no system 'nothing'"),
        ({"glove": "missing.txt"}, "missing.txt"),
        ({"only": ("embedding-mlp-glove",)}, "needs GloVe vectors"),
    ],
)
def test_mistakes_are_reported_before_anything_is_trained(
    values: dict[str, Any], message: str, trainer: Trainer, tmp_path: Path
) -> None:
    with pytest.raises(SentrayError, match=message):
        reproduce(tmp_path, **values)
    assert not trainer.trained
    assert not trainer.learnt
    assert not (tmp_path / "out").exists()


def test_glove_of_other_dimensions_is_refused_at_once(trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("good 1 2\nbad 3 4\n", encoding="utf-8")
    with pytest.raises(SentrayError, match="has vectors of 2 dimensions; the tutorials' systems take those of 100"):
        reproduce(tmp_path, glove=str(tmp_path / "glove.txt"))
    assert not trainer.trained


def test_a_url_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(SentrayError, match="--out s3://b/c is no folder"):
        run.reproduce(ReproduceSettings(out="s3://b/c"), Console())


@pytest.mark.slow
def test_the_hashed_system_in_earnest(
    ray_session: None, in_process: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process()
    (row,) = reproduce(tmp_path, only=("embedding-mlp-hashed",))
    assert row.accuracies == [1.0]
    assert row.runs[0].figures["train_rows"] == 10
    # Finished runs are not made again.
    assert reproduce(tmp_path, only=("embedding-mlp-hashed",)) == [row]
    assert "nothing to do" in capsys.readouterr().out
