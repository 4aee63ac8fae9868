"""Event files, read back by TensorBoard's own reader."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentray.storage import Folder
from sentray.tables import METRICS
from sentray.tracking.tensorboard import EventFiles, event_files

# TensorBoard's own sign that it is to read without TensorFlow, which takes its time to load.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))


def record(fit: int, epoch: int, started_at: float = 1_700_000_000.0, **values: Any) -> dict[str, Any]:
    about = {"fit": fit, "epoch": epoch, "loss": 1 / epoch, "accuracy": 0.75, "rows_seen": 500, "seconds": 2.0}
    about |= {"started_at": started_at + 10 * epoch, "first_step_seconds": 0.25, "peak_rss_mb": 300.0}
    return about | {"parts": {"network": 1.0, "optimizer": 0.5}} | values


FITS = (record(0, 1, held_out={"wide": 0.5, "deep": 0.6}), record(0, 2, held_out={"wide": 0.4, "deep": 0.5}))
ALL = (*FITS, record(1, 1, 1_700_001_000.0))


def run(folder: Path, name: str) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard" / name)).Reload()


def points(folder: Path, name: str, tag: str) -> list[tuple[int, float, float]]:
    return [(point.step, point.value, point.wall_time) for point in run(folder, name).Scalars(tag)]


def test_each_fit_has_its_curves_with_true_times(tmp_path: Path) -> None:
    files = EventFiles(Folder(str(tmp_path)))
    files.begin(2)
    files.history(ALL)
    assert points(tmp_path, "fit-1", "loss") == [(1, 1.0, 1_700_000_012.0), (2, 0.5, 1_700_000_022.0)]
    assert points(tmp_path, "last", "loss") == [(1, 1.0, 1_700_001_012.0)]
    tags = {"loss", "accuracy", "rows_per_second", "peak_rss_mb"}
    tags |= {f"seconds/{part}" for part in ("epoch", "first_step", "network", "optimizer")}
    assert set(run(tmp_path, "last").Tags()["scalars"]) == tags
    assert set(run(tmp_path, "fit-1").Tags()["scalars"]) == {*tags, "held_out_loss/wide", "held_out_loss/deep"}
    assert points(tmp_path, "fit-1", "rows_per_second")[0][:2] == (1, 250.0)


def test_a_file_that_is_looked_at_only_grows_and_a_restart_doubles_no_step(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    files = EventFiles(folder)
    files.begin(2)
    files.history(FITS[:1])
    (name,) = folder.sizes("tensorboard")
    looking = EventAccumulator(str(tmp_path / name)).Reload()
    with open(tmp_path / name, "rb") as held:
        before = held.read()
        # A run that was killed as it wrote.
        with open(tmp_path / name, "ab") as torn:
            torn.write(event_files(FITS, 2)[name][len(before) :][:40])
        again = EventFiles(folder)
        again.begin(2)
        again.history(FITS)
        again.history(ALL)
        assert before + held.read() == event_files(ALL, 2)[name] == (tmp_path / name).read_bytes()
    for reader in (looking.Reload(), run(tmp_path, "fit-1")):
        assert [point.step for point in reader.Scalars("loss")] == [1, 2]
    # A dead start: the fit begins anew, at another time.
    again.history(())
    assert folder.sizes("tensorboard") == {}
    again.history((record(0, 1, 1_700_002_000.0),))
    assert [step for step, *_ in points(tmp_path, "fit-1", "loss")] == [1]


def test_the_finished_bundle_has_the_epochs_and_the_final_figures(tmp_path: Path) -> None:
    metrics: dict[str, Any] = {"test": dict.fromkeys(METRICS, 0.5) | {"roc_auc": None}}
    files = EventFiles(Folder(str(tmp_path / "work")))
    files.begin(2)
    files.finish(SimpleNamespace(path=str(tmp_path / "out"), metrics=metrics), json.loads(json.dumps(ALL)))
    assert {path.name for path in (tmp_path / "out" / "tensorboard").iterdir()} == {"fit-1", "last", "test"}
    defined = {f"final/{name}" for name in METRICS if name != "roc_auc"}
    assert set(run(tmp_path / "out", "test").Tags()["scalars"]) == defined
    assert points(tmp_path / "out", "test", "final/accuracy") == [(1, 0.5, pytest.approx(1_700_001_012.0))]
