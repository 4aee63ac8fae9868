"""What training stores: `State` and weights in a checkpoint of Ray Train each epoch, the bundle in the last."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentray import bundle, models
from sentray.config import TrainSettings
from sentray.errors import SentrayError
from sentray.training.training_set import TrainingSet

STATE_FILE, WEIGHTS_FILE, BUNDLE_FOLDER = "state.json", "weights.npz", "bundle"


class NothingToKeepError(SentrayError):
    """The same command would end so again: what was kept to go on with is of no use."""


@dataclass(frozen=True)
class State:
    """How far a run is; part of every checkpoint.

    Attributes:
        epoch: Epochs done with the present seed.
        seed: The present seed.
        restarts: Dead starts so far.
        history: One record an epoch done with the present seed; see `Replica.epoch`.
    """

    epoch: int
    seed: int
    restarts: int = 0
    history: tuple[dict[str, Any], ...] = ()


def write(folder: Path, state: State, network: Any) -> None:
    """Write what a run goes on with: the state, and all that training changes in a `Network`."""
    weights: dict[str, Any] = network.state()
    np.savez(folder / WEIGHTS_FILE, **weights)
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")


def read_state(folder: str) -> State:
    """The state that lies in a folder."""
    values = json.loads(Path(folder, STATE_FILE).read_text(encoding="utf-8"))
    return State(**values | {"history": tuple(values["history"])})


def restore(folder: str, network: Any) -> None:
    """Bring a `Network` to what lies in a folder."""
    with np.load(Path(folder, WEIGHTS_FILE)) as weights:
        network.restore(weights)


def write_bundle(folder: Path, model: Any, settings: TrainSettings, dataset: TrainingSet) -> None:
    """Write the bundle of a trained Keras model, without metrics, as `BUNDLE_FOLDER` in a folder."""
    from sentray.inference.folding import fold_if_possible
    from sentray.inference.scorer import golden_texts

    facts = dataset.facts
    files = {bundle.MODEL: models.keras_file(model), **fold_if_possible(model), bundle.TEXTS: dataset.texts.to_bytes()}
    if dataset.grams is not None:
        files[bundle.GRAMS] = dataset.grams.table.tobytes()
    configured = settings.model_dump(mode="json")
    made = bundle.make(facts.spec, dataset.vocabulary, files, settings=configured, trained_on=facts.trained_on)
    golden = golden_texts(made, dataset.vocabulary.samples())
    bundle.publish(bundle.update(made, golden=golden), str(folder / BUNDLE_FOLDER))
