"""When a head has trained enough."""

import numpy as np

from sentray.training.stopping import best_epoch, has_ended, parted


def test_a_fit_ends_where_patience_does() -> None:
    losses = [0.6, 0.5, 0.55, 0.52]
    assert [has_ended(done, 10, losses[:done], patience=2) for done in range(5)] == [False, False, False, False, True]
    assert not has_ended(4, 10, losses, patience=3)
    assert has_ended(4, 4, losses, patience=3)
    assert [has_ended(done, 3) for done in range(4)] == [False, False, False, True]


def test_all_folds_together_choose_the_epoch_that_all_reached() -> None:
    assert best_epoch([[0.6, 0.5, 0.4, 0.3], [0.4, 0.35, 0.6]], [100, 100]) == 2
    assert best_epoch([[0.6, 0.5, 0.4, 0.3], [0.4, 0.35, 0.6]], [1000, 10]) == 3
    assert best_epoch([[0.5, np.nan, 0.5]], [1]) == 1
    assert best_epoch([[0.1, 0.2]], [1], fixed=7) == 7


def test_it_is_said_where_training_and_held_out_rows_part() -> None:
    def records(held_out: list[float]) -> list[dict]:
        return [{"loss": 1 / (at + 1), "held_out": {"network": loss}} for at, loss in enumerate(held_out)]

    assert parted(records([0.6, 0.5, 0.52]), 2) is None
    assert parted([{"loss": 0.5}], 2) is None
    line = parted([*records([0.6, 0.4, 0.7]), {"loss": 0.1}], 1)
    assert line is not None
    assert line.startswith("warning: training and held-out rows part after epoch 2: the loss of training rows falls")
    assert "from 0.5000 to 0.3333, that of held-out rows rises from 0.4000 to 0.7000" in line
