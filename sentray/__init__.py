"""Train sentiment models on review text and score millions of reviews, on a laptop or a Ray cluster.

    model = sentray.train("reviews.csv", out="models/stars", text_column="review", label_column="stars")
    model.predict(["not bad at all"])

Each verb of the command line is a function here, with the same options. They are imported when they are first used.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sentray.errors import SentrayError

if TYPE_CHECKING:
    from sentray.api import *  # noqa: F403
    from sentray.models import NetworkSpec

__version__ = "0.1.0"

__all__ = [  # noqa: F405
    "Model",
    "NetworkSpec",
    "Predictor",
    "SentrayError",
    "check",
    "compare",
    "crossvalidate",
    "embed",
    "evaluate",
    "explain",
    "load",
    "predict",
    "quickstart",
    "read_reviews",
    "report",
    "reproduce",
    "score",
    "submit",
    "train",
    "tune",
    "verify",
    "vocab",
    "words",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sentray' has no attribute {name!r}")
    module = importlib.import_module("sentray.models" if name == "NetworkSpec" else "sentray.api")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Door(ModuleType):
    """The package, in which a function stays what it is when the module of the same name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Door
