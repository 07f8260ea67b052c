"""Value jumps of the trap door, with rollouts that share no luck."""

import math
import random

import pytest
from trap_door import TrapDoor, Walkers, guided

from atlas_tune.agents.streams import hashed
from atlas_tune.select.rollouts.forced import smoothed_error
from atlas_tune.select.rollouts.value_jump import ValueJumpOptions, ValueJumpSelector
from atlas_tune.trajectory import Kind

RUN = guided()


def value_jump(policies, **options):
    return ValueJumpSelector(ValueJumpOptions(**options), policies, lambda name: TrapDoor())


def labels_of(selector, run=RUN):
    return {label.step_id: label for label in selector.label(run)}


def arrives(place, number, left=0.5):
    """Whether a walker that starts at place 0 or 1 turns left at the fork."""
    stream = f"{RUN.trajectory_id}:{place}:{number}"
    return float(random.Random(hashed(0, stream, 2)).random() < left)


def test_a_jump_is_the_rise_of_the_value_with_independent_rollouts():
    policies = Walkers(0.5)
    labels = labels_of(value_jump(policies))
    start = [arrives(0, i) for i in range(5)]
    fork = [arrives(1, i) for i in range(5)]
    assert start != fork
    jumps = {4: (sum(fork) - sum(start)) / 5, 5: 1 - sum(fork) / 5, 6: 0.0, 7: 0.0}
    assert {i: label.score for i, label in labels.items()} == pytest.approx(jumps)
    assert labels[5].kind is None and labels[6].kind is Kind.NONE
    error = math.hypot(smoothed_error(fork, 0, 1), smoothed_error([1.0] * 5, 0, 1))
    assert labels[5].reason == (
        f"value jump {jumps[5]:+.2f} ± {error:.2f} over 5 rollouts a place: "
        f"success {sum(fork) / 5:.2f} before this step, 1.00 after"
    )
    # The end's value is known and has no error.
    assert f"± {smoothed_error([1.0] * 5, 0, 1):.2f} over" in labels[7].reason
    # Four places with five rollouts each; every one has random numbers of its own.
    assert policies.rollouts == len(policies.streams) == 20


def test_the_jumps_of_a_run_add_up_to_its_whole_rise():
    labels = value_jump(Walkers(0.5), rollouts=3).label(RUN)
    before = sum(arrives(0, i) for i in range(3)) / 3
    assert sum(label.score for label in labels) == pytest.approx(1 - before, abs=1e-5)


def test_under_greedy_decoding_the_jump_is_the_leverage():
    policies = Walkers(0.3)
    labels = labels_of(value_jump(policies, temperature=0))
    assert {i: label.score for i, label in labels.items()} == {4: 0.0, 5: 1.0, 6: 0.0, 7: 0.0}
    assert "exact under greedy decoding" in labels[5].reason
    assert policies.rollouts == 4


def test_of_returns_and_the_cost():
    selector = value_jump(Walkers(0.3), temperature=0, value="return")
    assert labels_of(selector)[5].score == 1.125
    cost = value_jump(Walkers(0.3), rollouts=2, max_new_tokens=10).cost([RUN, RUN])
    assert cost.rollouts == 2 * 2 * 5
    assert cost.written_tokens == 2 * 2 * (6 + 5 + 4 + 3 + 2) * 10
    assert cost.env_steps == 2 * (4 + 2 * 5 * 6)


def test_the_source_tells_the_settings():
    one, other = (value_jump(Walkers(0.5), rollouts=n).source for n in (4, 5))
    assert one.name == "value-jump"
    assert one != other
    assert "rollouts=4" in one.version
