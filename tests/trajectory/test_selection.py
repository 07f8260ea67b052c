from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas_tune.trajectory import InvalidTrajectory, Kind, LabelSource, StepLabel
from atlas_tune.trajectory.selection import budget_steps, choose
from trajectory.runs import craft_run


@pytest.mark.parametrize(
    ("steps", "share", "budget"),
    [(1, 0.3, 1), (3, 0.3, 1), (6, 0.3, 1), (7, 0.3, 2), (10, 0.3, 3), (20, 0.3, 6), (7, 1.0, 7)],
)
def test_the_budget_is_the_papers_ceiling_and_at_least_one(steps, share, budget):
    assert budget_steps(steps, share) == budget


@given(st.integers(1, 500), st.integers(1, 100))
def test_a_share_that_means_a_whole_number_gives_it(steps, percent):
    assert budget_steps(steps, percent / 100) == max(1, steps * percent // 100)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_outside_zero_to_one_is_refused(share):
    with pytest.raises(ValueError, match="share of the steps"):
        budget_steps(10, share)


def labels(run, scores, kind=None):
    source = LabelSource("test")
    return [
        StepLabel(run.trajectory_id, step.step_id, kind, source, score=score)
        for step, score in zip(run.agent_steps, scores, strict=True)
    ]


def test_the_highest_scores_are_chosen():
    run = craft_run(steps=7)
    chosen = choose(run, labels(run, [0, 2, 5, 1, 4, 3, 0]), 0.3, "rule")
    assert chosen.step_ids == (6, 8)  # the third and the fifth of steps 4..10


def test_ties_are_drawn_by_lot_alike_everywhere_and_favour_no_position():
    chosen = Counter()
    for i in range(600):
        run = craft_run(steps=3, task_id=str(i))
        (step_id,) = choose(run, labels(run, [1, 1, 1]), 0.3, "rule").step_ids
        assert choose(run, labels(run, [1, 1, 1])[::-1], 0.3, "rule").step_ids == (step_id,)
        chosen[step_id] += 1
    assert set(chosen) == {4, 5, 6}
    assert min(chosen.values()) > 150  # 200 expected, standard deviation 12


def test_a_step_judged_uncritical_is_never_chosen():
    run = craft_run(steps=2)
    assert choose(run, labels(run, [9, 9], Kind.NONE), 1.0, "rule").step_ids == ()


def test_a_judge_that_names_steps_keeps_its_own_order():
    run = craft_run(steps=7)
    named = labels(run, [None] * 7, Kind.CRITICAL_ACTION)
    assert choose(run, [named[5], named[0], named[3]], 0.3, "rule").step_ids == (4, 9)


def test_a_label_of_a_step_that_is_not_the_agents_is_refused():
    run = craft_run()
    stray = StepLabel(run.trajectory_id, 2, None, LabelSource("test"), score=1.0)
    with pytest.raises(InvalidTrajectory, match="step 2"):
        choose(run, [stray], 0.3, "rule")


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_a_selection_never_exceeds_the_budget_and_takes_the_best(scores, share):
    run = craft_run(steps=len(scores))
    chosen = choose(run, labels(run, scores), share, "rule").step_ids
    assert len(chosen) == budget_steps(len(scores), share)
    by_id = dict(zip((s.step_id for s in run.agent_steps), scores, strict=True))
    left = [score for step_id, score in by_id.items() if step_id not in chosen]
    assert not left or min(by_id[i] for i in chosen) >= max(left)
