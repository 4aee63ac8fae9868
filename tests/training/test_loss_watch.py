import math

from sentray.training.loss_watch import SPAN, LossWatch

CHANCE = math.log(2)


def said(*losses: float) -> list[str]:
    """What is said of a run that has each loss for a span of steps."""
    watch = LossWatch(CHANCE)
    return [line for loss in losses for _ in range(SPAN) if (line := watch.add(loss))]


def test_a_run_that_learns_and_then_rests_is_left_alone() -> None:
    assert said(0.6, 0.3, 0.3, 0.3) == []


def test_a_loss_at_chance_is_noticed_at_each_span_until_it_falls() -> None:
    lines = said(CHANCE, CHANCE, 0.5, CHANCE)
    assert len(lines) == 2
    assert "not begun to learn after 400 steps: its loss over 200 steps is 0.693, that of guessing 0.693" in lines[1]


def test_divergence_is_noticed_even_after_a_good_start() -> None:
    assert "diverges at step 400" in said(0.4, 3.0)[0]


def test_a_loss_that_is_no_number_is_noticed_at_once() -> None:
    watch = LossWatch(CHANCE)
    assert watch.add(0.7) is None
    assert "diverges at step 2" in (watch.add(math.nan) or "")
