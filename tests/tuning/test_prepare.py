"""Which training sets trials share, and which are left out, without Ray."""

from pathlib import Path
from typing import Any

import pytest

from sentray.config import TuneSettings
from sentray.errors import SentrayError
from sentray.storage import Folder
from sentray.tuning import tune as tuning
from sentray.tuning.records import Records
from sentray.tuning.space import with_

SETTINGS = TuneSettings(corpus="reviews.csv", out="out")
CHANGES: dict[int, dict[str, Any]] = {
    1: {},
    2: {"batch_size": 16, "min_count": 3},
    3: {"batch_size": 64, "min_count": 3},
    4: {"learning_rate": 0.1},
    5: {"min_count": 9},
    6: {"min_count": 9, "batch_size": 16},
    7: {"max_grams": 9, "model": "deep"},
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The least counts that were prepared, and where."""
    made: list[tuple[int, str]] = []

    def prepare(settings: Any, architecture: Any, folder: str, console: Any) -> None:
        if settings.min_count == 9:
            raise SentrayError("no word is left")
        made.append((settings.min_count, folder))
        (Path(folder)).mkdir(parents=True)
        Path(folder, "dataset.json").write_text("{}")

    monkeypatch.setattr(tuning, "prepare", prepare)
    return made


def _prepared(folder: Path, console: Any, budget: float | None = None) -> tuple[dict[int, str], Records]:
    work = Folder(str(folder))
    records = Records(work, CHANGES, budget, console)
    trials = {number: with_(SETTINGS, changes) for number, changes in CHANGES.items()}
    return tuning._prepare(trials, records, work, console), records


def test_a_set_is_prepared_once_for_all_trials_that_share_it(
    tmp_path: Path, console: Any, made: list[tuple[int, str]]
) -> None:
    folders, records = _prepared(tmp_path, console)
    assert [count for count, _ in made] == [2, 3]
    assert folders == {1: made[0][1], 2: made[1][1], 3: made[1][1], 4: made[0][1]}
    assert {number: record["error"][:19] for number, record in records.done.items()} == {
        **dict.fromkeys((5, 6), "no word is left"),
        7: "--max-grams, --min-",
    }
    # What lies there is taken, and what was refused is not tried again.
    assert _prepared(tmp_path, console)[0] == folders
    assert len(made) == 2


def test_a_quarter_of_the_budget_prepares_the_first_trial_at_least(
    tmp_path: Path, console: Any, made: list[tuple[int, str]]
) -> None:
    Folder(str(tmp_path)).write_json("spent.json", {"seconds": 30})
    folders, _ = _prepared(tmp_path, console, 100)
    assert [count for count, _ in made] == [2]
    assert [*folders] == [1, 4]
    assert console.lines[-1].startswith("left out: 4 trials whose corpus")
