"""Those that follow a training fail without it."""

from pathlib import Path
from typing import Any

import pytest

from sentray import tracking
from sentray.config import TrainSettings
from sentray.storage import Folder
from sentray.tracking import Trackers
from sentray.tracking.mlflow_run import MlflowRun, without_password

SETTINGS = TrainSettings(corpus="synthetic:200", out="model")


@pytest.fixture
def notes(console: Any) -> list[str]:
    said: list[str] = []
    console.note = lambda line, **_: said.append(line)
    return said


def test_what_fails_is_said_once_and_the_training_goes_on(tmp_path: Path, console: Any, notes: list[str]) -> None:
    ended: list[bool] = []

    class Failing:
        name, cure = "tracking", "look there"

        def begin(self, fits: int) -> None:
            raise ConnectionError("no answer from http://me:secret@host\nfor a while")

        def end(self, finished: bool) -> None:
            ended.append(finished)
            raise ConnectionError("still none")

    with Trackers(SETTINGS, Folder(str(tmp_path)), console) as trackers:
        trackers._trackers.append(Failing())  # type: ignore[arg-type]
        trackers._working.append(trackers._trackers[-1])
        trackers.begin(1)
        trackers.history([])
    assert ended == [True]
    assert notes == [
        "warning: tracking failed (no answer from http://host), and the training goes on without; look there"
    ]


def test_mlflow_that_is_wanted_and_not_installed_is_said_with_the_cure(
    tmp_path: Path, console: Any, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    trackers = Trackers(SETTINGS, Folder(str(tmp_path)), console)
    assert notes == [
        "warning: MLFLOW_TRACKING_URI is set and mlflow is not installed, so that this training is not tracked there: "
        "pip install 'sentray[mlflow]'"
    ]
    monkeypatch.setattr(tracking, "find_spec", lambda _: True)
    more = Trackers(SETTINGS, Folder(str(tmp_path)), console)
    assert [type(tracker) for tracker in more._trackers] == [*map(type, trackers._trackers), MlflowRun]


def test_no_password_is_shown() -> None:
    assert without_password("at https://a:b@c/d failed, file://e@f") == "at https://c/d failed, file://f"
