"""One worker's part of training: the steps of an epoch, the exchange of gradients, the comparison of replicas."""

import hashlib
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sentray import models
from sentray.config import TrainSettings
from sentray.training import batches
from sentray.training.allreduce import Exchange
from sentray.training.training_set import TrainingSet

if TYPE_CHECKING:
    from sentray.training.network import Gradients, StepResult


Check = Callable[[], None]


@dataclass(frozen=True)
class Job:
    """What every worker is told.

    Attributes:
        settings: Of the run.
        dataset: Folder of the training set.
        progress: Handle of the `Progress` actor, or None.
        require_held: Raises when the work folder is no longer the run's; None where nobody else may want it.
    """

    settings: TrainSettings
    dataset: str
    progress: Any = None
    require_held: Check | None = None

    @property
    def threads(self) -> int:
        """CPU threads of a worker."""
        return max(int(self.settings.cpus_per_worker), 1)


class Trainer:
    """Trains one network on one worker's part of every batch.

    Args:
        job: What to do.
        dataset: The training reviews.
        exchange: The connection to the other workers.
        seed: Fixes first weights and order.
    """

    def __init__(self, job: Job, dataset: TrainingSet, exchange: Exchange, seed: int) -> None:
        import keras

        from sentray.training.network import TrainingNetwork

        keras.utils.set_random_seed(seed)
        settings, facts = job.settings, dataset.facts
        self._rows = dataset.vocabulary.size
        vectors = facts.dimensions if dataset.vectors is None else dataset.vectors
        model = models.architecture(facts.spec.architecture).build(
            self._rows, facts.spec.max_length, len(facts.spec.labels), vectors, settings.freeze
        )
        self.network = TrainingNetwork(
            model,
            settings.learning_rate,
            settings.embedding_learning_rate,
            precision=settings.precision,
            jit=settings.jit,
            device="/GPU:0" if settings.gpu else None,
        )
        self._batch_size, self._dataset, self._exchange, self._seed = settings.batch_size, dataset, exchange, seed
        self._lengths = np.minimum(dataset.lengths, facts.spec.max_length)
        counts = np.array(facts.label_rows, np.float64)
        even = len(dataset) / (len(counts) * np.maximum(counts, 1))
        self._class_weights = (even if settings.class_weight == "balanced" else np.ones_like(counts)).astype(np.float32)
        self._clock = Clock()

    def epoch(self, number: int) -> Iterator[dict[str, Any]]:
        """Train one epoch, the `number`-th from 0.

        Yields:
            A report after each step on this worker's rows so far; then, as the last, the epoch's record over all
            workers: `epoch` from 1, mean `loss`, `accuracy`, `rows_seen`, `steps`, `started_at` (Unix time),
            `seconds`, of them `first_step_seconds` and by part of a step `parts`, `peak_rss_mb`, and `dead`:
            whether the loss is no number, or no unit of some layer reacted to any row in the epoch's second half.
        """
        started_at, started, self._clock = time.time(), time.perf_counter(), Clock()
        first_step = 0.0
        exchange, batch_size = self._exchange, self._batch_size
        steps = batches.epoch_batches(len(self._dataset), batch_size, self._seed, number)
        sums = np.zeros(3)
        alive = False
        for step, batch in enumerate(steps):
            mine = batches.share(batch, self._lengths[batch], exchange.rank, exchange.world)
            result, reacts = self._step(batch, mine)
            first_step = first_step or time.perf_counter() - started
            sums += (result.loss, result.correct, len(mine))
            alive |= reacts and step >= len(steps) // 2
            seen = max(sums[2], 1)
            yield {
                "epoch": number + 1,
                "step": step + 1,
                "steps": len(steps),
                "loss": sums[0] / seen,
                "accuracy": sums[1] / seen,
                "rows": (step + 1) * batch_size,
                "seconds": time.perf_counter() - started,
            }
        loss, correct, rows = np.sum([np.frombuffer(part) for part in exchange.gather(sums.tobytes())], axis=0)
        yield {
            "epoch": number + 1,
            "loss": float(loss / rows),
            "accuracy": float(correct / rows),
            "rows_seen": int(rows),
            "steps": len(steps),
            "started_at": started_at,
            "seconds": time.perf_counter() - started,
            "first_step_seconds": first_step,
            "parts": self._clock.seconds,
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            # A network that has learnt every row by heart gets no gradient either.
            "dead": not np.isfinite(loss) or (not alive and bool(correct < rows)),
        }

    def check_replicas(self) -> str:
        """SHA-256 of the weights, the same on every worker.

        Raises:
            RuntimeError: The workers' weights differ.
        """
        # What is frozen is no part of the state.
        digest = hashlib.sha256(self.network.embedding.weights.data if self.network.frozen else b"")
        for name, values in sorted(self.network.state().items()):
            digest.update(name.encode())
            digest.update(values.data)
        if len(set(self._exchange.gather(digest.digest()))) > 1:
            raise RuntimeError("the training workers' weights differ")
        return digest.hexdigest()

    def _step(self, batch: batches.Rows, mine: batches.Rows) -> tuple["StepResult", bool]:
        dataset, clock = self._dataset, self._clock
        with clock.part("data"):
            packed = self.network.pack([dataset.review(row) for row in mine])
            labels = dataset.targets[mine]
        with clock.part("network"):
            weights = self._class_weights[labels]
            result, gradients = self.network.gradients(packed, labels, weights, len(batch))
        if self._exchange.world > 1:
            with clock.part("exchange"):
                gradients = self._sum(gradients, batch)
        with clock.part("optimizer"):
            reacts = self.network.apply(gradients)
        return result, reacts

    def _sum(self, gradients: "Gradients", batch: batches.Rows) -> "Gradients":
        """The global batch's gradients, from every worker's part of them."""
        dense = self._exchange.sum(gradients.dense)
        if self.network.frozen:
            return replace(gradients, dense=dense)
        # Every worker works out the batch's words by itself: nothing has to be agreed on first.
        words = batches.distinct_words([self._dataset.review(row) for row in batch], self._rows)
        rows = self._exchange.sum_rows(gradients.rows, gradients.words, words)
        return replace(gradients, words=words, rows=rows, dense=dense)


class Clock:
    """Adds up the seconds spent in the parts of a step."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("data", "network", "exchange", "optimizer"), 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block's time as this part's."""
        started = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - started
