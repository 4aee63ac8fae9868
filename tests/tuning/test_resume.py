"""What a search that is given again goes on with, without Ray."""

from pathlib import Path
from typing import Any

import pytest

from sentray import bundle
from sentray.config import TuneSettings
from sentray.errors import SentrayError
from sentray.storage import Folder
from sentray.training import run
from sentray.tuning import tune as tuning
from sentray.tuning.space import Space, with_


def _settings(folder: Path, **values: Any) -> TuneSettings:
    return TuneSettings(corpus="reviews.csv", out=str(folder / "out"), **values)


def test_a_function_that_was_edited_is_another_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "edited.py").write_text("def build(spec): ...")
    monkeypatch.syspath_prepend(tmp_path)
    settings = _settings(tmp_path, model="edited:build")
    work, space = Folder(str(tmp_path / "work")), Space()
    claim = tuning._claim(settings, space)
    work.write_json(run.CLAIM, claim)
    run.require_same(work, claim)
    (tmp_path / "edited.py").write_text("def build(spec): return 1")
    with pytest.raises(SentrayError, match=r"the source of the function of the run in .* has changed"):
        run.require_same(work, tuning._claim(settings, space))


def test_a_finished_search_within_a_budget_may_have_made_fewer_trials(tmp_path: Path) -> None:
    settings = _settings(tmp_path, trials=3, budget="30m")
    claim = tuning._claim(settings, Space())
    figures = {"trials": [{}, {}], "claim": claim}
    folder = Folder(settings.out)
    folder.write_json(tuning.TRIALS_FILE, figures)
    folder.write(bundle.MANIFEST, b"{}")
    assert tuning._finished(settings, claim) == figures
    with pytest.raises(SentrayError, match="holds the best of 2 trials"):
        tuning._finished(_settings(tmp_path, trials=3), claim)


def test_the_last_training_begins_anew_where_more_trials_chose_other_settings(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    first, other = with_(settings, {}), with_(settings, {"batch_size": 16})
    work = Folder(run.work_folder(settings.out))

    def names() -> list[str]:
        return sorted(work.names())

    # A training that is not of this search stays.
    work.write_json(run.CLAIM, run.claim_of(other))
    tuning._drop_other(first)
    assert len(names()) == 2
    work.write_json(run.CLAIM, run.claim_of(first))
    work.write_json(f"{run.DATASET}/dataset.json", {})
    tuning._drop_other(first)
    assert names() == ["dataset", "run.json", "tune"]
    tuning._drop_other(other)
    assert names() == ["tune"]
