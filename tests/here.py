"""Corpora that are read in this process: what maps their blocks needs no Ray, and no cluster is looked for."""

import contextlib
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sentray.corpus.dataset import Corpus


def read_here(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Let modules that connect to a cluster do without one, and corpora map their blocks one after the other."""

    def map_blocks(corpus: Corpus, stage: Any, **arguments: Any) -> Iterator[Any]:
        return (stage(rows, **arguments) for shard in corpus.shards for rows in corpus.read(shard))

    cluster = SimpleNamespace(
        connect=lambda *_, **__: contextlib.nullcontext(),
        resources=lambda: SimpleNamespace(max_cpus=2),
        plan=lambda *_, **__: SimpleNamespace(describe=lambda: "2 workers"),
    )
    for module in modules:
        monkeypatch.setattr(module, "cluster", cluster)
    monkeypatch.setattr(
        Corpus, "open", lambda uri, settings, need_label=True, **_: Corpus.plan(uri, settings, need_label)
    )
    monkeypatch.setattr(Corpus, "map_blocks", map_blocks)
