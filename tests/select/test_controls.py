import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.select import select
from atlas_tune.select.controls.controls import (
    AllSteps,
    ComplementSteps,
    FirstSteps,
    LastSteps,
    RandomSteps,
)
from atlas_tune.trajectory import Selection, Step, Trajectory, budget_steps


def run_of(steps: int, task: str = "1") -> Trajectory:
    """A trajectory with a user step (id 1) and ``steps`` agent steps (ids 2 …)."""
    agent = (Step(i + 2, "agent", f"Action: {i}") for i in range(steps))
    return Trajectory.create((Step(1, "user", "Go."), *agent), task_id=task)


def ids(trajectory, selector, share=0.3):
    [selection] = select([trajectory], selector, share).selections
    return selection.step_ids


runs = st.lists(st.integers(1, 40), min_size=1, max_size=5, unique=True).map(
    lambda lengths: [run_of(length) for length in lengths]
)
shares = st.floats(0.01, 1.0)
seeds = st.integers(0, 99)


def test_all_takes_every_step_whatever_the_budget():
    assert ids(run_of(5), AllSteps(), share=0.3) == (2, 3, 4, 5, 6)


def test_first_and_last_take_the_ends():
    assert ids(run_of(10), FirstSteps()) == (2, 3, 4)
    assert ids(run_of(10), LastSteps()) == (9, 10, 11)


def test_random_is_the_same_draw_on_every_machine():
    # A literal: a change here changes every published selection.
    twelve = Trajectory("f" * 64, run_of(12).steps)
    assert ids(twelve, RandomSteps(seed=0)) == (3, 6, 12)
    assert ids(twelve, RandomSteps(seed=1)) != (3, 6, 12)


def test_the_rule_says_how_a_selection_came_about():
    [selection] = select([run_of(10)], RandomSteps(seed=3)).selections
    assert selection.rule == "random 1+seed=3, at most 0.3 of the steps"


@given(runs, shares, seeds)
def test_random_takes_exactly_the_budget(trajectories, share, seed):
    for trajectory, selection in zip(
        trajectories, select(trajectories, RandomSteps(seed), share).selections, strict=True
    ):
        assert len(selection.step_ids) == budget_steps(len(trajectory.agent_steps), share)


@given(runs, shares, seeds)
def test_controls_do_not_depend_on_the_order_of_trajectories(trajectories, share, seed):
    other = select(trajectories, FirstSteps(), share).selections
    for forwards, backwards in [
        (RandomSteps(seed), RandomSteps(seed)),
        (RandomSteps(seed, other), RandomSteps(seed, other[::-1])),
        (ComplementSteps(other, seed), ComplementSteps(other[::-1], seed)),
    ]:
        one = select(trajectories, forwards, share).selections
        two = select(trajectories[::-1], backwards, share).selections
        assert one == two[::-1]


@given(runs, shares, seeds)
def test_a_complement_is_disjoint_and_as_large_as_it_can_be(trajectories, share, seed):
    others = select(trajectories, RandomSteps(seed), share).selections
    controls = select(trajectories, ComplementSteps(others, seed), share).selections
    for trajectory, other, control in zip(trajectories, others, controls, strict=True):
        left = len(trajectory.agent_steps) - len(other.step_ids)
        assert not set(other.step_ids) & set(control.step_ids)
        assert len(control.step_ids) == min(len(other.step_ids), left)


def test_a_complement_matches_an_arm_that_stayed_below_its_budget():
    trajectory = run_of(10)
    other = [Selection(trajectory.trajectory_id, (4,), "oracle")]
    assert len(ids(trajectory, ComplementSteps(other))) == 1
    assert len(ids(trajectory, RandomSteps(0, other))) == 1
    empty = [Selection(trajectory.trajectory_id, (), "oracle")]
    assert ids(trajectory, ComplementSteps(empty)) == ()


def test_complements_of_many_seeds_reach_every_step_that_was_left():
    trajectory = run_of(10)
    other = [Selection(trajectory.trajectory_id, (2, 3, 4), "first")]
    reached = {i for seed in range(30) for i in ids(trajectory, ComplementSteps(other, seed))}
    assert reached == {5, 6, 7, 8, 9, 10, 11}


@pytest.mark.parametrize("control", [ComplementSteps([]), RandomSteps(0, [])])
def test_what_the_other_arm_lacks_is_listed_and_not_invented(control):
    chosen = select([run_of(4)], control)
    assert chosen.selections == ()
    [missing] = chosen.unlabelled
    assert missing.trajectory_id == run_of(4).trajectory_id
    assert "other arm has no selection" in missing.reason


def test_controls_with_other_settings_are_other_sources():
    other = [Selection("t", (2,), "oracle")]
    sources = {
        RandomSteps(0).source,
        RandomSteps(1).source,
        RandomSteps(0, other).source,
        ComplementSteps(other).source,
        ComplementSteps([Selection("t", (3,), "oracle")]).source,
    }
    assert len(sources) == 5
