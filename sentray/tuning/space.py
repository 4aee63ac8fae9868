"""`Space`: which settings `sentray tune` tries. A TOML file or the model says so, and the seed draws each trial's."""

import contextlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from sentray import models
from sentray.config import NetworkSettings, TextSettings, TrainSettings, TuneSettings
from sentray.errors import SentrayError
from sentray.options import Option, UsageError, checked, near
from sentray.training.prepare import require_files

FITTING = (
    *("learning_rate", "embedding_learning_rate", "batch_size", "warmup", "decay", "max_norm", "class_weight"),
    "freeze",
)
"""Settings that a prepared training set does not depend on: trials that differ in these alone share one."""
SEARCHED = (*FITTING, *(name for kind in (NetworkSettings, TextSettings) for name in kind.model_fields))
"""Settings that may be tried. Others say which rows are held out, how long is trained, or where."""
_DIGITS = 3
"""Of a number that is drawn; more would only be hard to read."""


@dataclass(frozen=True)
class Values:
    """The values of a setting.

    Attributes:
        choices: All there are; none where it is a range.
        low: Least of a range.
        high: Largest of a range.
        log: Whether each doubling of the range is as probable as any other.
        whole: Whether they are whole numbers.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    whole: bool = False

    def at(self, share: float) -> Any:
        """The value at a share of all, from 0 to below 1."""
        if self.choices:
            return self.choices[int(share * len(self.choices))]
        # As if each whole number were as wide as any other.
        ends = np.array([self.low, self.high + self.whole], float)
        low, high = np.log(ends) if self.log else ends
        value = low + share * (high - low)
        value = float(np.exp(value) if self.log else value)
        value = int(value) if self.whole else float(f"{value:.{_DIGITS}g}")
        return min(max(value, self.low), self.high)

    def written(self) -> Any:
        """As the TOML file has them."""
        return list(self.choices) or {"log" if self.log else "between": [self.low, self.high]}


class Space(dict[str, Values]):
    """The values of each setting that is tried, by the settings' names."""

    @classmethod
    def of(cls, settings: TuneSettings) -> Self:
        """What the file says, or what suits the model.

        Raises:
            UsageError: The file cannot be read, or has a setting or a value that there is not.
        """
        return cls.suiting(settings) if settings.space is None else cls.read(settings.space, settings)

    @classmethod
    def suiting(cls, settings: TrainSettings) -> Self:
        """What matters most for the model: steps, and which n-grams it knows."""
        architecture = models.architecture(settings.model)
        # The wide half has step sizes of its own.
        space = cls(batch_size=Values((16, 32, 64, 128)))
        if architecture.heads != (models.WIDE,):
            rate = Values(low=2e-4, high=4e-3, log=True)
            for name in ("learning_rate", "embedding_learning_rate"):
                # A user's function may have an optimizer of its own, and frozen vectors have no rate.
                with contextlib.suppress(SentrayError):
                    require_files(with_(settings, {name: rate.low}))
                    space[name] = rate
        if models.WIDE in architecture.heads:
            space["min_gram_reviews"] = Values((2, 3, 5))
            if settings.encoder == "vocabulary":
                space["characters"] = Values((True, False))
        return space

    @classmethod
    def read(cls, file: str, settings: TrainSettings) -> Self:
        """What a TOML file says: a list of choices, `between = [LOW, HIGH]` or `log = [LOW, HIGH]` for each setting.

        Raises:
            UsageError: It cannot be read, or has a setting or a value that there is not.
        """
        try:
            content = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"--space {file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UsageError(f"--space {file} is not valid: {error}") from error
        space = cls()
        for key, value in content.items():
            name = key.replace("-", "_")
            if name not in SEARCHED:
                raise UsageError(f"--space {file} has {key!r}, which is no setting to try; {near(name, SEARCHED)}")
            space[name] = _values(value, Option(name, TrainSettings.model_fields[name]).kind, f"{key} in {file}")
            for each in space[name].choices or (space[name].low, space[name].high):
                tried = with_(settings, {name: each}, file)
                try:
                    require_files(tried)
                except SentrayError as error:
                    raise UsageError(f"{key} in {file}: {error}") from error
        if not space:
            raise UsageError(f"--space {file} has no setting: give one, as in `batch_size = [16, 32]`")
        return space

    def changes(self, seed: int) -> Iterator[dict[str, Any]]:
        """What each trial sets: nothing the first, others values spread evenly over the space (Halton 1964).

        The trial of a number is the same however many there are.
        """
        # SciPy takes its time to load.
        from scipy.stats import qmc

        yield {}
        points = qmc.Halton(len(self), rng=np.random.default_rng(seed))
        while True:
            shares = points.random()[0]
            yield {name: values.at(share) for (name, values), share in zip(self.items(), shares, strict=True)}

    def written(self) -> str:
        """As JSON of what the TOML file has."""
        return json.dumps({name: values.written() for name, values in self.items()})


def with_(settings: TrainSettings, changes: Mapping[str, Any], file: str | None = None) -> TrainSettings:
    """The settings of a training that has some of others.

    Args:
        settings: The others.
        changes: Values by the names of the settings.
        file: That says so, for the message.

    Raises:
        UsageError: They do not fit together.
    """
    values = {name: getattr(settings, name) for name in TrainSettings.model_fields}
    return checked(TrainSettings, values | dict(changes), changes.keys(), file)


def _values(written: Any, kind: Any, where: str) -> Values:
    if isinstance(written, list) and written:
        return Values(tuple(written))
    match written:
        case {"log": [low, high]} | {"between": [low, high]} if (
            len(written) == 1
            and kind in (int, float)
            and all(type(end) in (int, float) for end in (low, high))
            and low < high
            and ("log" not in written or low > 0)
        ):
            return Values(low=low, high=high, log="log" in written, whole=kind is int)
    raise UsageError(
        f"{where} is {json.dumps(written, default=str)}: give a list of values, as in [16, 32], or of a number "
        "`between = [LOW, HIGH]` or `log = [LOW, HIGH]`, of which log wants LOW above 0"
    )
