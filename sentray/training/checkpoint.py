"""What training stores in a checkpoint of Ray Train: `State`, weights and `Logits` each epoch, at last the bundle."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from sentray import bundle, models
from sentray.config import TrainSettings
from sentray.console import count
from sentray.errors import SentrayError
from sentray.task import Task
from sentray.training.calibration import Floats, Mix, fit_mix, probabilities
from sentray.training.folds import NEVER
from sentray.training.stopping import best_epoch, has_ended
from sentray.training.training_set import TrainingSet

STATE_FILE, WEIGHTS_FILE, LOGITS_FILE, BUNDLE_FOLDER = "state.json", "weights.npz", "logits.npz", "bundle"
HELD_OUT_FILE = "held_out.npz"

Logits = dict[tuple[int, int], Floats]
"""By fit and epoch the logits of the rows that the fit holds out, float32 [rows, heads, outputs]."""


class NothingToKeepError(SentrayError):
    """The same command would end so again: what was kept to go on with is of no use."""


@dataclass(frozen=True)
class Choice:
    """What the last fit takes over from those that held rows out.

    Attributes:
        epochs: Of each head, to be trained.
        mix: What makes of the heads' logits calibrated ones; None where no row was held out.
    """

    epochs: dict[str, int]
    mix: Mix | None = None

    def describe(self) -> str:
        """What the held-out rows said, in words."""
        epochs = ", ".join(f"{head} {count(epochs, 'epoch')}" for head, epochs in self.epochs.items())
        if self.mix is None:
            return epochs
        shares = [weight * self.mix.temperature for weight in self.mix.weights]
        mixed = " and ".join(f"{share:.0%} {head}" for share, head in zip(shares, self.epochs, strict=True))
        return f"takes from the held-out rows: {epochs}; temperature {self.mix.temperature:.2f}" + (
            f" of a mix of {mixed}" if len(shares) > 1 else ""
        )


@dataclass(frozen=True)
class State:
    """How far a run is; part of every checkpoint.

    A run is one fit for each fold of held-out rows, and a last one.

    Attributes:
        epoch: Epochs done of the present fit with the present seed.
        seed: The present seed.
        restarts: Dead starts so far.
        history: One record an epoch done, but for those of dead starts; see `Replica.epoch`. The worker adds the
            number of its `fit`, and where rows are held out their loss and accuracy by head, `held_out` and
            `held_out_accuracy`.
        fit: Number of the present fit, which is that of its fold; the last one's is the number of folds.
        choice: Of epochs and mix, once the last fit begins.
    """

    epoch: int
    seed: int
    restarts: int = 0
    history: tuple[dict[str, Any], ...] = ()
    fit: int = 0
    choice: Choice | None = None

    def records_of(self, fit: int) -> list[dict[str, Any]]:
        """The records of a fit."""
        return [record for record in self.history if record["fit"] == fit]

    def ended(self, head: str, settings: TrainSettings, fixed: Mapping[str, int]) -> bool:
        """Whether a head has trained enough in the present fit.

        Args:
            head: Its name.
            settings: Of the run.
            fixed: Epochs of the heads whose schedule is fixed.
        """
        judged = self.choice is None and head not in fixed
        losses = self.losses(self.fit, head) if judged else ()
        return has_ended(self.epoch, self.most_epochs(head, settings, fixed), losses, settings.patience)

    def most_epochs(self, head: str, settings: TrainSettings, fixed: Mapping[str, int]) -> int:
        """Epochs that a head may train in the present fit; the arguments are those of `ended`."""
        return self.choice.epochs[head] if self.choice is not None else fixed.get(head, settings.epochs)

    def judges(self, heads: Sequence[str], settings: TrainSettings, fixed: Mapping[str, int]) -> bool:
        """Whether held-out rows matter after the next epoch; of a head whose schedule is fixed at its end alone.

        Args:
            heads: Of the network.
            settings: Of the run.
            fixed: Epochs of the heads whose schedule is fixed.
        """
        learning = any(head not in fixed and not self.ended(head, settings, fixed) for head in heads)
        return learning or self.epoch + 1 in fixed.values()

    def after(self, record: dict[str, Any]) -> "State":
        """The state when one more epoch is done, with its record."""
        return replace(self, epoch=self.epoch + 1, history=(*self.history, record))

    def restarted(self) -> "State":
        """The state before the present fit begins again with the next seed, after a dead start."""
        earlier = tuple(record for record in self.history if record["fit"] < self.fit)
        return replace(self, epoch=0, seed=self.seed + 1, restarts=self.restarts + 1, history=earlier)

    def losses(self, fit: int, head: str) -> list[float]:
        """The losses of a head on the rows that a fit holds out, by epoch, up to the first that was not scored."""
        scored = takewhile(lambda record: "held_out" in record, self.records_of(fit))
        return [record["held_out"][head] for record in scored]


def choose(
    state: State,
    logits: Logits,
    dataset: TrainingSet,
    settings: TrainSettings,
    heads: tuple[str, ...],
    fixed: Mapping[str, int],
) -> Choice:
    """Epochs and mix, from what the fits gave for the rows that they did not see.

    Args:
        state: After these fits.
        logits: Of the held-out rows.
        dataset: The training reviews.
        settings: Of the run.
        heads: Of the network.
        fixed: Epochs of the heads whose schedule is fixed.
    """
    rows = dataset.facts.held_out
    if not rows:
        return Choice({head: state.most_epochs(head, settings, fixed) for head in heads})
    epochs = {
        head: best_epoch([state.losses(fold, head) for fold in range(len(rows))], rows, fixed.get(head))
        for head in heads
    }
    if settings.calibrate == "none":
        return Choice(epochs, Mix.mean(len(heads)))
    found = HeldOut.of(logits, epochs, dataset)
    return Choice(epochs, fit_mix(found.logits, found.wanted, found.weights, dataset.facts.spec.task))


@dataclass(frozen=True)
class HeldOut:
    """All held-out rows as the fits that did not see them leave them, in the training set's order.

    Attributes:
        logits: Of each head after its chosen epoch, float32 [rows, heads, outputs]; of a regression standardised.
        labels: What is true of them, as `TrainingSet.targets`.
        weights: How much each row counts, float32 [rows]; 0 where its fit saw no row of its label.
        wanted: What the outputs should be; see `Facts.wanted`.
        mean: Of a regression what was subtracted from its numbers; see `Facts`.
        scale: What they were divided by then.
    """

    logits: Floats
    labels: Any
    weights: Floats
    wanted: Any
    mean: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, logits: Logits, epochs: Mapping[str, int], dataset: TrainingSet) -> "HeldOut":
        """The held-out rows of all folds, of each head after so many epochs."""
        held, targets, facts = np.asarray(dataset.held), np.asarray(dataset.targets), dataset.facts
        every = np.empty((len(held), *next(iter(logits.values())).shape[1:]), np.float32)
        weights = np.ones(len(held), np.float32) if dataset.weights is None else np.array(dataset.weights)
        for fold in range(len(facts.held_out)):
            mine = held == fold
            for column, epoch in enumerate(epochs.values()):
                every[mine, column] = logits[fold, epoch][:, column]
            if facts.spec.task == "classification":
                weights[mine] *= np.bincount(targets[~mine], minlength=len(facts.spec.labels))[targets[mine]] > 0
        some = held != NEVER
        return cls(every[some], targets[some], weights[some], facts.wanted(targets[some]), facts.mean, facts.scale)

    def scores(self, logits: Floats, task: Task) -> Any:
        """Probability of each label, float32 [rows, labels], or the numbers, from logits [rows, outputs]."""
        return probabilities(logits * self.scale + self.mean, task)

    @classmethod
    def read(cls, folder: str) -> "HeldOut | None":
        """What lies in a folder, None where no row was held out."""
        if not Path(folder, HELD_OUT_FILE).exists():
            return None
        with np.load(Path(folder, HELD_OUT_FILE)) as arrays:
            found = {name: arrays[name] for name in arrays}
        return cls(**found | {name: float(found[name]) for name in ("mean", "scale")})

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        np.savez(folder / HELD_OUT_FILE, **{each.name: getattr(self, each.name) for each in fields(self)})


def write(folder: Path, state: State, network: Any, logits: Logits) -> None:
    """Write what a run goes on with: the state, all that training changes in a `Network`, and held-out rows' logits."""
    weights: dict[str, Any] = network.state()
    np.savez(folder / WEIGHTS_FILE, **weights)
    arrays: dict[str, Any] = {f"{fit}-{epoch}": values for (fit, epoch), values in logits.items()}
    np.savez(folder / LOGITS_FILE, **arrays)
    (folder / STATE_FILE).write_text(json.dumps(asdict(state)), encoding="utf-8")


def read_state(folder: str) -> State:
    """The state that lies in a folder."""
    return TypeAdapter(State).validate_json(Path(folder, STATE_FILE).read_bytes())


def read_logits(folder: str) -> Logits:
    """The logits of held-out rows that lie in a folder."""
    with np.load(Path(folder, LOGITS_FILE)) as arrays:
        keys = {name: tuple(map(int, name.split("-"))) for name in arrays}
        return {(fit, epoch): arrays[name] for name, (fit, epoch) in keys.items()}


def restore(folder: str, network: Any) -> None:
    """Bring a `Network` to what lies in a folder."""
    with np.load(Path(folder, WEIGHTS_FILE)) as weights:
        network.restore(weights)


def write_bundle(folder: Path, model: Any, settings: TrainSettings, dataset: TrainingSet) -> None:
    """Write the bundle of a trained Keras model, without metrics, as `BUNDLE_FOLDER` in a folder."""
    from sentray.inference.folding import fold_if_possible
    from sentray.inference.networks import needs_trust
    from sentray.inference.scorer import golden_texts

    facts = dataset.facts
    spec = facts.spec
    if (function := spec.function) is not None:
        layers = needs_trust(model, function.name.partition(":")[0])
        spec = spec.model_copy(update={"function": function.model_copy(update={"layers": layers})})
    files = {bundle.MODEL: models.keras_file(model), **fold_if_possible(model), bundle.TEXTS: dataset.texts.to_bytes()}
    if dataset.grams is not None:
        files[bundle.GRAMS] = dataset.grams.table.tobytes()
    configured = settings.model_dump(mode="json")
    made = bundle.make(spec, dataset.vocabulary, files, settings=configured, trained_on=facts.trained_on)
    samples = dataset.vocabulary.samples() + (dataset.grams.samples() if dataset.grams is not None else [])
    golden = golden_texts(made, samples)
    bundle.publish(bundle.update(made, golden=golden), str(folder / BUNDLE_FOLDER))
