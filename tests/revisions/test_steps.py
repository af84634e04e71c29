"""Steps in names, and which of them are chosen."""

from itertools import pairwise

import pytest

from jaynes_callbacks.revisions.steps import Thinning, step_in


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step0", 0),
        ("step143000", 143000),
        ("stage1-step150-tokens1B", 150),
        ("step1000-tokens4B", 1000),
        ("global_step5000", 5000),
        ("ckpt_358", 358),
        ("multiberts-seed_2-step_20k", 20000),
        ("step-001000-2BT", 1000),
        ("step-160000", 160000),
        ("epoch=3-step=700.ckpt", 700),
        ("checkpoint-500", 500),
        ("iter_2M", 2_000_000),
        ("main", None),
        ("v1.0", None),
        ("stepwise", None),
    ],
)
def test_names_of_real_histories(name: str, step: int | None) -> None:
    assert step_in(name) == step


def test_log_spaced_steps_have_both_ends_and_near_equal_ratios() -> None:
    steps = [0, *(2**power for power in range(10)), *range(1000, 144000, 1000)]
    chosen = Thinning(log_spaced=20).chosen(steps)
    assert len(chosen) <= 20
    assert (chosen[0], chosen[-1]) == (0, 143000)
    large = [step for step in chosen if step > 100]
    ratios = [after / before for before, after in pairwise(large)]
    assert max(ratios) < 4 * min(ratios)


def test_bounds_and_multiples() -> None:
    assert Thinning(first=2, last=8, every=2).chosen(range(20)) == [2, 4, 6, 8]
    with pytest.raises(ValueError, match="--every must be at least 1"):
        Thinning(every=0)
    with pytest.raises(ValueError, match="must not be beyond"):
        Thinning(first=3, last=2)
