"""Measured criticality on corridors with trap doors: every figure worked out by hand."""

import json
from dataclasses import asdict
from itertools import pairwise, permutations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jumping import Always, Forward, Trapdoor, walk

from atlas_tune.errors import AtlasError
from atlas_tune.select.auditing.average_precision import (
    average_precision,
    by_lot,
    mean_average_precision,
)
from atlas_tune.select.auditing.marked import against, rises_of
from atlas_tune.select.auditing.matched_sets import CountedOnce, countable, matched_sets
from atlas_tune.select.auditing.measured import NECESSITY, measure
from atlas_tune.select.auditing.measurement import ROLLOUTS, Measurement, common_runs, work_of
from atlas_tune.select.auditing.overlap import overlaps
from atlas_tune.select.auditing.places import Player
from atlas_tune.select.auditing.ratings import Rater
from atlas_tune.select.auditing.sufficiency import Replays, sufficiency
from atlas_tune.select.auditing.taken import BY_LABELS, BY_SELECTION, Taken, order_of, read_taken
from atlas_tune.select.controls.step_tokens import Characters, ModelTokens
from atlas_tune.trajectory import (
    Kind,
    LabelSource,
    Selection,
    Step,
    StepLabel,
    ToolCall,
    Trajectory,
)
from atlas_tune.trajectory.store import append_labels, read_labels, write_selections

A, B = walk("lf^f"), walk("fl^^")
"""Agent steps 2 to 5 each; all but the looks (2 of A, 3 of B) are necessary."""


def groups(*members):
    return tuple(frozenset(member) for member in members)


def taken(name="s", a=(4,), b=(4,), **labels):
    return Taken(
        name, {A.trajectory_id: frozenset(a), B.trajectory_id: frozenset(b)}, labels or None
    )


def environment(name):
    if name != "trapdoor":
        raise AssertionError(f"asked for {name}")
    return Trapdoor()


# Average precision


@pytest.mark.parametrize(
    ("order", "marked", "value"),
    [
        (groups([1], [2], [3], [4]), {1, 3}, (1 + 2 / 3) / 2),
        (groups([1], [2], [3], [4]), {4}, 1 / 4),
        (groups([1, 2]), {1}, (1 + 1 / 2) / 2),
        # Tied 1, 2 and 3 with 1 and 2 marked: places {1,2}, {1,3} or {2,3}.
        (groups([1, 2, 3]), {1, 2}, (1 + (1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 3),
        # One hit before two tied steps of which one is marked: at place 2 or 3.
        (groups([1], [2, 3]), {1, 2}, (1 + (1 + 2 / 3) / 2) / 2),
        (groups([1], [2]), set(), None),
        (groups([1, 2, 3]), {1, 2, 3}, 1.0),
    ],
)
def test_average_precision_by_hand(order, marked, value):
    found = average_precision(order, marked)
    assert found == (None if value is None else pytest.approx(value, abs=1e-12))


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5))
def test_ties_give_the_mean_over_all_their_orders(steps):
    scores = [score for score, _ in steps]
    marked = {i for i, (_, mark) in enumerate(steps) if mark}
    order = tuple(
        frozenset(i for i, score in enumerate(scores) if score == level)
        for level in sorted(set(scores), reverse=True)
    )
    found = average_precision(order, marked)
    strict = [
        average_precision(groups(*([i] for i in one)), marked)
        for one in permutations(range(len(steps)))
        if all(scores[a] >= scores[b] for a, b in pairwise(one))
    ]
    assert found == (pytest.approx(fmean(strict)) if marked else None)


def test_the_mean_is_over_trajectories_with_a_marked_step():
    orders = {"a": groups([1], [2]), "b": groups([1], [2]), "c": groups([1], [2])}
    found = mean_average_precision(orders, {"a": {1}, "b": {2}, "c": set()})
    assert found.value == 0.75
    assert (found.low, found.high) == (0.5, 1.0)
    lot = mean_average_precision(by_lot(orders), {"a": {1}, "b": {2}, "c": set()})
    assert lot.value == 0.75
    assert mean_average_precision(orders, {"a": set()}).why == "no step is marked"


# Orders


def label(step_id, score, kind=None, source="surprisal", version="1", run=A, **more):
    return StepLabel(run.trajectory_id, step_id, kind, LabelSource(source, version), score, **more)


def test_labels_order_candidates_by_score_then_what_a_judge_named_then_the_rest():
    labels = [label(2, 0.5), label(3, 0.9), label(4, 0.5), label(5, 2.0, Kind.NONE)]
    assert order_of([2, 3, 4, 5], labels) == groups([3], [2, 4], [5])
    judge = [label(5, None, Kind.CRITICAL_ACTION), label(3, None, Kind.PLAN_CREATION)]
    assert order_of([2, 3, 4, 5], judge) == groups([5], [3], [2, 4])


@pytest.fixture
def selected(tmp_path):
    """Writes a selection of both runs with a rule, and labels beside it."""

    def write(rule, labels=()):
        path = tmp_path / "s.jsonl"
        write_selections(path, [Selection(run.trajectory_id, (4,), rule) for run in (A, B)])
        if labels:
            append_labels(path.with_name("s.jsonl.labels.jsonl"), labels)
        return str(path)

    return write


def test_labels_beside_a_selection_give_its_order(selected):
    scores = [label(i, i / 10, run=run) for run in (A, B) for i in (2, 3, 4, 5)]
    other = [label(i, -i, version="2", run=run) for run in (A, B) for i in (2, 3, 4, 5)]
    found = read_taken(selected("surprisal 1, at most 0.3 of the steps", [*scores, *other]))
    by, orders = found.orders([A, B])
    assert (by, orders[A.trajectory_id]) == (BY_LABELS, groups([5], [4], [3], [2]))
    assert found.steps == {A.trajectory_id: {4}, B.trajectory_id: {4}}


def test_a_correction_changes_the_order(selected):
    first = [label(i, i / 10) for i in (2, 3, 4, 5)]
    fixed = label(5, None, Kind.NONE, source="carol", supersedes=first[-1].label_id)
    found = read_taken(selected("surprisal 1, at most 0.3 of the steps", [*first, fixed]))
    assert found.orders([A])[1][A.trajectory_id] == groups([4], [3], [2], [5])


@pytest.mark.parametrize(
    ("rule", "labels", "why"),
    [
        ("surprisal 1, at most 0.3", [], "there is no s.jsonl.labels.jsonl beside it"),
        ("leverage 1, at most 0.3", [label(2, 1.0)], "holds no labels of the selector that the"),
        (
            "surprisal 1, at most 0.3",
            [
                label(2, 1.0),
                StepLabel(A.trajectory_id, 2, None, LabelSource("surprisal", "1", "m"), 1.0),
            ],
            "holds labels of several sources",
        ),
    ],
)
def test_without_labels_of_its_own_the_order_is_the_selection(selected, rule, labels, why):
    found = read_taken(selected(rule, labels))
    assert why in found.why_no_labels
    assert found.orders([A]) == (BY_SELECTION, {A.trajectory_id: groups([4], [2, 3, 5])})


def test_a_labels_sidecar_is_taken_by_what_it_calls_critical(tmp_path):
    path = tmp_path / "labels.jsonl"
    append_labels(path, [label(2, None, Kind.NONE), label(3, 1.0), label(4, None, Kind.NONE)])
    assert read_taken(str(path), "x").steps == {A.trajectory_id: {3}}


# Overlap


def test_overlap_by_hand():
    one, other = taken("one", {2, 3}, {4}), taken("other", {3}, {4, 5})
    (found,) = overlaps([one, other], [A, B])
    assert (found.one, found.other, found.both, found.either) == ("one", "other", 2, 4)
    assert found.jaccard.value == 0.5
    # 8 steps: both 2, only one 1, only other 1, neither 4; p_e = (9 + 25) / 64.
    assert found.kappa.value == pytest.approx((6 / 8 - 34 / 64) / (1 - 34 / 64))


def test_an_overlap_that_cannot_be_told_says_why():
    nothing = taken("none", (), ())
    every = taken("all", {2, 3, 4, 5}, {2, 3, 4, 5})
    (found,) = overlaps([nothing, every], [A, B])
    assert found.kappa.why == "none takes no step; all takes every step"
    assert found.jaccard.value == 0.0
    (found,) = overlaps([nothing, nothing], [A, B])
    assert found.jaccard.why == "neither takes a step"


# Sufficiency


def test_sufficiency_plays_the_steps_alone():
    replays = Replays(environment, [A, B])
    # A without its look still wins: 1.25. Of B only the first jump is played: refused, nothing.
    own = {A.trajectory_id: frozenset({3, 4, 5}), B.trajectory_id: frozenset({4})}
    # A: forward and jump, 0.25; B: forward and both jumps win, 1.5.
    lots = {A.trajectory_id: frozenset({3, 4}), B.trajectory_id: frozenset({2, 4, 5})}
    none = {A.trajectory_id: frozenset(), B.trajectory_id: frozenset()}
    found = sufficiency(replays, own, [lots, none])
    assert (found.reward.value, found.success.value) == (1.25 / 2, 0.5)
    assert found.control_reward.value == (0.25 / 2 + 1.5 / 2) / 2
    assert found.control_success.value == 0.25
    assert found.reward_gain.value == 1.25 / 2 - 1.75 / 4
    assert found.success_gain.value == 0.25
    # Run by run: A 1 - 0, B 0 - 0.5.
    assert (found.success_gain.low, found.success_gain.high) == (-0.5, 1.0)
    bare = sufficiency(replays, own)
    assert (bare.reward.value, bare.control_reward) == (1.25 / 2, None)


# Score rises


def test_rises_are_those_of_the_replay_where_the_run_records_none():
    recorded = Trajectory.create(
        (
            Step(1, "user", "go"),
            Step(2, "agent", "x", metrics={"reward": 0.5}),
            Step(3, "agent", "x", metrics={"reward": 0.0}),
        ),
        environment="trapdoor",
    )
    found = rises_of([A, B, recorded], environment)
    said = {
        key: {i for i, call in steps.items() if call == "critical"}
        for key, steps in found.said.items()
    }
    assert said == {A.trajectory_id: {4, 5}, B.trajectory_id: {4, 5}, recorded.trajectory_id: {2}}


def test_precision_is_held_against_that_of_the_controls():
    reference = Rater(
        "replay",
        {
            A.trajectory_id: {2: "none", 3: "critical", 4: "critical", 5: "none"},
            B.trajectory_id: {2: "none", 3: "none", 4: "critical", 5: "none"},
        },
    )
    one, other = taken("x", {3, 4}, {5}).steps, taken("x", {2, 3}, {4}).steps
    found = against(taken("s", {3, 4}, {2}), [A, B], reference, [one, other], 100, 0)
    # Of three steps two are marked; of the controls' two draws 2 of 3 each.
    assert found.scores.precision.value == pytest.approx(2 / 3)
    assert found.control_precision.value == pytest.approx((2 + 2) / 2 / 3)
    assert found.precision_gain.value == pytest.approx(0.0)
    # A: (2 - 1.5) / 2, B: (0 - 0.5) / 1.
    assert (found.precision_gain.low, found.precision_gain.high) == (-0.5, 0.25)


# Controls


def test_controls_keep_number_and_positions():
    runs = [walk("f" * n, prelude=f"{k} ") for k in range(6) for n in (4, 8)]
    chosen = Taken("last", {r.trajectory_id: frozenset({r.agent_steps[-1].step_id}) for r in runs})
    control = matched_sets(chosen, runs, Characters(), 3, 0)
    assert len(control.sets) == 3
    for drawn in control.sets:
        assert all(len(steps) == 1 for steps in drawn.values())
    # Every step has as many characters, so that tokens match exactly. The last tenth holds but
    # the last of eight steps, the next one the last of four: the draw is forced.
    assert (control.own, control.tokens) == (1.0, 0.0)
    wide = Taken("some", {r.trajectory_id: frozenset({2, 4}) for r in runs})
    control = matched_sets(wide, runs, Characters(), 4, 0)
    assert 0 < control.own < 1
    assert len({frozenset((k, s) for k, s in d.items()) for d in control.sets}) > 1
    empty = Taken("none", {r.trajectory_id: frozenset() for r in runs})
    assert matched_sets(empty, runs, Characters(), 1, 0).own is None


def test_a_run_whose_tokens_cannot_be_counted_is_told():
    class Picky(Characters):
        def __call__(self, trajectory):
            from atlas_tune.select.base import CannotLabel

            if trajectory is B:
                raise CannotLabel("its template rewrites the past")
            return super().__call__(trajectory)

    good, bad = countable([A, B], Picky())
    assert good == [A]
    assert bad[0].reason == "its template rewrites the past"


def test_tokens_of_a_run_are_counted_once(tmp_path):
    from tiny_model import tiny_tokenizer

    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    tokens = CountedOnce(str(tmp_path))
    assert tokens(A) is tokens(A)
    assert tokens(A) == ModelTokens(str(tmp_path))(A)


# All of it


def measurement(tmp_path, *selections, runs=(A, B), **more):
    return Measurement(selections, runs, environment, tmp_path, Characters(), draws=200, **more)


def player(policy=None, **settings):
    return Player(Always(policy or Forward()), {"model": "forward"}, **settings)


def test_everything_that_is_measured_by_hand(tmp_path):
    selections = [taken("jumps", {4}, {4, 5}), taken("looks", {2}, {3})]
    found = measure(measurement(tmp_path, *selections, player=player()))
    assert (found.trajectories, found.steps, found.environments) == (2, 8, {"trapdoor": 2})
    # Without a forward or a jump the run no longer arrives; the looks change nothing.
    assert found.necessary == 6
    assert (found.rises, found.rises_at_ends) == (4, 2)
    assert (found.whole.reward.value, found.whole.success.value) == (1.375, 1.0)
    jumps, looks = found.selections
    assert (jumps.steps, jumps.share) == (3, 3 / 8)
    assert jumps.positions == (0, 0, 0, 0, 0, 0, 2, 0, 1, 0)
    scores = jumps.necessity.scores
    assert (scores.precision.value, scores.recall.value) == (1.0, 0.5)
    assert scores.f1.value == pytest.approx(2 / 3)
    assert looks.necessity.scores.precision.value == 0.0
    assert looks.necessity.precision_gain.value == -looks.necessity.control_precision.value
    # A: 4 first, then 2, 3, 5 of which two are marked; B: 4 and 5, then 2 and 3 of which one is.
    ap_a = average_precision(groups([4], [2, 3, 5]), {3, 4, 5})
    ap_b = average_precision(groups([4, 5], [2, 3]), {2, 4, 5})
    assert jumps.necessity.average_precision.value == pytest.approx((ap_a + ap_b) / 2)
    by_lot = average_precision(groups([2, 3, 4, 5]), {3, 4, 5})
    assert jumps.necessity.average_precision_by_lot.value == pytest.approx(by_lot)
    assert jumps.rises.scores.recall.value == 0.75
    assert jumps.sufficiency.reward.value == 0.0
    # After A's jump the policy wins, after B's first not yet, after its second the run is won.
    assert jumps.started.success.after.value == pytest.approx(2 / 3)
    assert jumps.started.success.before.value == 0.0
    assert looks.started.success.gain.value == 0.0
    assert found.baseline.success.value == 0.0
    assert (found.policy.runs, found.policy.rollouts) == (2, 1)
    (pair,) = found.overlaps
    assert (pair.both, pair.either) == (0, 5)
    assert (found.left_out, found.not_selected, found.beyond) == ((), 0, 0)
    json.dumps(asdict(found), allow_nan=False)


def test_without_a_policy_its_rollouts_are_only_counted(tmp_path):
    found = measure(measurement(tmp_path, taken("every", {2, 3, 4, 5}, {2, 3, 4, 5})))
    assert (found.policy, found.baseline, found.selections[0].started) == (None, None, None)
    # Five places each; the last one is the end of the run.
    assert found.rollouts == 8
    assert not (tmp_path / ROLLOUTS).exists()


def test_selections_share_rollouts_and_nothing_is_measured_twice(tmp_path):
    first, second = Forward(), Forward()
    measure(measurement(tmp_path, taken("jumps", {4}, {4}), player=player(first)))
    held = (tmp_path / ROLLOUTS).read_bytes()
    measured = (tmp_path / NECESSITY).read_bytes()
    measure(measurement(tmp_path, taken("jumps", {4}, {4}), player=player(second)))
    assert second.asked == []
    assert (tmp_path / ROLLOUTS).read_bytes() == held
    assert (tmp_path / NECESSITY).read_bytes() == measured
    third = Forward()
    both = [taken("jumps", {4}, {4}), taken("every", {2, 3, 4, 5}, {2, 3, 4, 5})]
    measure(measurement(tmp_path, *both, player=player(third)))
    assert (tmp_path / ROLLOUTS).read_bytes().startswith(held)
    assert len((tmp_path / ROLLOUTS).read_bytes().splitlines()) == 8


def test_necessity_measured_halfway_goes_on(tmp_path):
    measure(measurement(tmp_path, taken()))
    path = tmp_path / NECESSITY
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 30])
    found = measure(measurement(tmp_path, taken()))
    assert found.necessary == 6
    assert {(x.trajectory_id, x.step_id) for x in read_labels(path)} == {
        (run.trajectory_id, i) for run in (A, B) for i in (2, 3, 4, 5)
    }


def test_runs_that_cannot_be_replayed_are_told_and_the_others_go_on(tmp_path):
    strange = walk("f^", "f^")
    stale = Trajectory.create(
        strange.steps, environment="trapdoor", task_id="trapdoor/^^^", outcome=strange.outcome
    )
    tools = Trajectory.create(
        (Step(1, "user", "go"), Step(2, "agent", "", tool_calls=(ToolCall("c", "f", {}),))),
        environment="trapdoor",
        task_id="trapdoor/f",
    )
    runs = [A, stale, tools]
    chosen = Taken("s", {run.trajectory_id: frozenset({2}) for run in runs})
    found = measure(measurement(tmp_path, chosen, runs=runs, player=player()))
    assert found.trajectories == 1
    reasons = {one.trajectory_id: one.reason for one in found.left_out}
    assert "does not succeed" in reasons[stale.trajectory_id]
    assert "acts through tool calls" in reasons[tools.trajectory_id]
    with pytest.raises(AtlasError, match="None of the 2 runs can be measured"):
        measure(measurement(tmp_path, chosen, runs=runs[1:]))


def test_a_run_that_begins_with_the_agent_is_measured_but_not_started(tmp_path):
    headless = Trajectory.create(
        tuple(
            Step(step.step_id - 1, "agent", step.message, observation=step.observation)
            for step in A.agent_steps
        ),
        environment="trapdoor",
        task_id=A.task_id,
        outcome=A.outcome,
    )
    chosen = Taken("s", {run.trajectory_id: frozenset({3}) for run in (headless, B)})
    runs = [headless, B]
    found = measure(measurement(tmp_path, chosen, runs=runs, player=player()))
    assert (found.trajectories, found.policy.runs, found.left_out) == (2, 1, ())
    assert "begins with a step of the agent" in found.not_started[0].reason
    with pytest.raises(AtlasError, match="inside none of the 1 runs"):
        measure(measurement(tmp_path, chosen, runs=[headless], player=player()))


def test_the_runs_are_those_of_all_selections_and_the_fewest_ids_first(tmp_path):
    runs = [walk("f" * n) for n in range(1, 7)]
    every = Taken("every", {run.trajectory_id: frozenset({2}) for run in runs})
    most = Taken("most", {run.trajectory_id: frozenset({2}) for run in runs[:5]})
    ids = sorted(run.trajectory_id for run in runs[:5])
    found = common_runs(measurement(tmp_path, every, most, runs=runs, most=3))
    assert [run.trajectory_id for run in found.runs] == ids[:3]
    assert (found.not_selected, found.beyond) == (1, 2)
    with pytest.raises(AtlasError, match="No run is in every selection"):
        common_runs(measurement(tmp_path, every, Taken("x", {}), runs=runs))
    stray = Taken("stray", {run.trajectory_id: frozenset({1}) for run in runs})
    with pytest.raises(AtlasError, match="stray names step 1 of trajectory"):
        common_runs(measurement(tmp_path, stray, runs=runs))


def test_work_is_counted_without_doing_it(tmp_path):
    every = taken("every", {2, 3, 4, 5}, {2, 3, 4, 5})
    work = work_of(measurement(tmp_path, every, controls=1))
    # Each run whole, then four times without a step, then whole for the score: 4 · 5 actions;
    # then the four steps of the selection and of its control.
    assert (work.trajectories, work.env_steps) == (2, 2 * 20 + 2 * 4 + 2 * 4)
    assert (work.rollouts, work.on_file) == (10, 0)
    assert list(tmp_path.iterdir()) == []
    measure(measurement(tmp_path, every, controls=1, player=player()))
    two = player(rollouts=2)
    work = work_of(measurement(tmp_path, every, controls=1, player=two))
    assert (work.rollouts, work.on_file) == (20, 8)
