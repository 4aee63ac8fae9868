from sentray.config import TrainSettings
from sentray.training.checkpoint import State
from sentray.training.stopping import best_epoch


def test_no_epoch_is_chosen_that_a_fold_did_not_score() -> None:
    """In the second fold the deep half ends after epoch 3; of the wide one's epochs only the last is scored then."""

    def record(fit: int, deep: float | None) -> dict[str, object]:
        return {"fit": fit, **({} if deep is None else {"held_out": {"wide": 0.5, "deep": deep}})}

    folds = [0.7, 0.7, 0.6, 0.5, 0.4], [0.6, 0.7, 0.7, None, 0.7]
    state = State(0, 0, history=tuple(record(fit, deep) for fit, fold in enumerate(folds) for deep in fold))
    losses = [state.losses(fit, "deep") for fit in range(2)]
    assert losses == [[0.7, 0.7, 0.6, 0.5, 0.4], [0.6, 0.7, 0.7]]
    assert best_epoch(losses, [10, 10]) == 1
    assert best_epoch(losses, [30, 10]) == 3


def test_rows_are_scored_while_a_head_is_judged_and_at_the_end_of_a_fixed_schedule() -> None:
    settings, heads, fixed = TrainSettings(corpus="", out="", epochs=3), ("wide", "deep"), {"wide": 5}
    asked = [State(epoch, 0).judges(heads, settings, fixed) for epoch in range(5)]
    assert asked == [True, True, True, False, True]
