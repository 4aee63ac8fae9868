"""A pool of actors on Ray Data that works through shards; scoring and evaluation share it."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sentray import cluster
from sentray.corpus.dataset import quiet_ray_data
from sentray.errors import SentrayError

WORKER_CPUS = 1
RETRIES = 3
"""How often a shard is tried again when the process that works on it dies."""


def place(wish: int | None, shards: int) -> int:
    """How many actors to use: as many as wished, or one for each CPU, and no more than there are shards.

    An actor reads what it scores, so no CPU must stay free to read with.

    Raises:
        SentrayError: When the cluster cannot hold them.
    """
    workers = min(wish or max(1, int(cluster.resources().most_cpus)), shards)
    return cluster.place(workers, WORKER_CPUS).workers


def describe(workers: int) -> str:
    """The pool in a line for the user."""
    return f"workers that read and score: {workers}, with {WORKER_CPUS} CPU each"


def run(make: Callable[[], Callable[[Any], Any]], items: Sequence[Any], workers: int) -> Iterator[Any]:
    """What the actors make of the items, in the order in which they finish.

    Args:
        make: Called once in each actor; gives what is called with each item.
        items: Small values, usually a shard each.
        workers: Actors.

    Raises:
        SentrayError: When an actor raised one, or the processes working on one item died again and again.
    """
    import ray.data
    from ray.exceptions import RayActorError

    quiet_ray_data()
    packed = [{"item": pickle.dumps(item)} for item in items]
    # One block an item, because Ray Data hands out, retries and gives back blocks.
    results = ray.data.from_items(packed, override_num_blocks=len(packed)).map_batches(
        _Actor,
        fn_constructor_args=(ray.put(make),),
        compute=ray.data.ActorPoolStrategy(size=workers),
        batch_size=1,
        num_cpus=WORKER_CPUS,
        # Ray Data's own default is to try for ever.
        max_task_retries=RETRIES,
    )
    try:
        for row in results.iter_rows():
            result = pickle.loads(row["result"])
            if isinstance(result, SentrayError):
                raise result
            yield result
    except RayActorError as error:
        raise SentrayError(
            f"the processes that worked on one shard died, {RETRIES + 1} of them (out of memory?); take "
            "fewer --workers or a smaller --shard-size"
        ) from error


class _Actor:
    """Gives a SentrayError back as a result: Ray brings back little more than its text."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"result": [pickle.dumps(self._answer(pickle.loads(item))) for item in batch["item"]]}

    def _answer(self, item: Any) -> Any:
        try:
            if self._work is None:
                import ray

                self._work = ray.get(self._make)()
            return self._work(item)
        except SentrayError as error:
            return error
