from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.tune.batches import plan_steps

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


def plan(lengths, *, rows=4, epochs=1.0, tokens=1000, seed=0):
    return plan_steps(
        lengths, rows_per_step=rows, epochs=epochs, tokens_per_microbatch=tokens, seed=seed
    )


@given(LENGTHS, st.integers(1, 9), st.integers(1, 3), st.integers(1, 2000), st.integers(0, 5))
def test_every_row_comes_once_an_epoch_within_the_token_budget(lengths, rows, epochs, tokens, seed):
    steps = plan(lengths, rows=rows, epochs=epochs, tokens=tokens, seed=seed)
    counts = Counter(row for step in steps for micro in step for row in micro)
    assert counts == dict.fromkeys(range(len(lengths)), epochs)
    for step in steps:
        assert 1 <= sum(len(micro) for micro in step) <= rows
        for micro in step:
            padded = len(micro) * max(lengths[row] for row in micro)
            assert padded <= tokens or len(micro) == 1


@given(LENGTHS, st.integers(0, 5))
def test_the_microbatch_size_does_not_change_which_rows_meet(lengths, seed):
    one, other = (plan(lengths, tokens=tokens, seed=seed) for tokens in (1, 100_000))
    assert [sorted(r for m in s for r in m) for s in one] == [sorted(s[0]) for s in other]


def test_the_seed_decides_the_order():
    lengths = list(range(1, 30))
    assert plan(lengths, seed=1) == plan(lengths, seed=1)
    assert plan(lengths, seed=1) != plan(lengths, seed=2)


def test_half_an_epoch_takes_half_of_the_rows():
    steps = plan([10] * 20, rows=4, epochs=1.5)
    assert [sum(len(m) for m in s) for s in steps] == [4, 4, 4, 4, 4, 4, 4, 2]


@pytest.mark.parametrize("bad", [{"rows": 0}, {"epochs": 0}, {"tokens": 0}])
def test_settings_must_be_positive(bad):
    with pytest.raises(ValueError, match="must be positive"):
        plan([1, 2], **bad)
