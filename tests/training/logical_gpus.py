"""A Ray with two GPUs that are not there; `test_gpu` starts this and reads what it finds."""

import contextlib
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from sentray import bundle, cli, models
from sentray.bundle import ModelSpec
from sentray.config import TrainSettings
from sentray.console import Console
from sentray.errors import SentrayError
from sentray.text.cleaning import preset
from sentray.text.vocabulary import Vocabulary


def command(*words: str) -> dict[str, Any]:
    """How a verb ends in this process, which is connected."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            sys.argv[1:] = words
            cli.main()
        except SystemExit as end:
            code = end.code
    return {"code": code, "said": out.getvalue().splitlines(), "complained": err.getvalue().splitlines()}


def placement(folder: Path) -> list[dict[str, Any]]:
    """What each worker of a training run with a GPU each sees."""
    import ray
    import ray.train

    from sentray.training import trainer
    from sentray.training.allreduce import AllReduce

    def look(_: dict[str, Any]) -> SentrayError:
        context = ray.get_runtime_context()
        allreduce = AllReduce(ray.train.get_context().get_world_rank(), **trainer._met)
        seen = {
            "visible": os.environ["CUDA_VISIBLE_DEVICES"],
            "given": context.get_accelerator_ids()["GPU"],
            "node": context.get_node_id(),
        }
        parts = allreduce.gather(json.dumps(seen).encode())
        allreduce.close()
        return SentrayError(json.dumps([json.loads(part) for part in parts]))

    trainer._train_worker = look
    settings = TrainSettings(corpus="unused", out="unused", gpu=True, workers=2, cpus_per_worker=0.5)
    try:
        trainer.fit(settings, str(folder / "one.work" / "dataset"), str(folder / "placement"), Console())
    except SentrayError as looked:
        return json.loads(str(looked))
    return []


def small_bundle(folder: Path) -> None:
    vocabulary = Vocabulary(["good", "bad", "film"])
    network = models.keras_file(models.architecture("tutorial-cnn").build(vocabulary.size, 20, 2))
    rules = preset("reviews")[0]
    spec = ModelSpec(architecture="tutorial-cnn.v1", cleaning=rules, labels=("neg", "pos"), max_length=20)
    bundle.publish(bundle.make(spec, vocabulary, {bundle.MODEL: network}), str(folder))


def main(folder: Path) -> None:
    import ray

    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    train = ("train", "synthetic:200", "--epochs", "1", "--cpus-per-worker", "0.5", "--gpu")
    train = (*train, "--model", "tutorial-cnn", "--validation-fraction", "0", "--out")
    small_bundle(folder / "bundle")
    found = {
        "three": command(*train, str(folder / "three"), "--workers", "3"),
        "train": command(*train, str(folder / "one"), "--workers", "1"),
        "left": sorted(path.name for path in (folder / "one.work").iterdir()),
        "score": command("score", str(folder / "bundle"), "synthetic:50", "--out", str(folder / "scored"), "--gpu"),
        "placement": placement(folder),
    }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    main(Path(sys.argv[1]))
