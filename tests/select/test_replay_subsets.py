"""Pairs and minimal subsets, in a vault whose necessities can be worked out by hand."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vault import Vault, record

from atlas_tune.select.replaying.playback import moves_of, play
from atlas_tune.select.replaying.removals import Consequence, Removals, consequence_of, each_alone
from atlas_tune.select.replaying.replay import ReplayOptions, ReplaySelector
from atlas_tune.select.replaying.replay_subsets import pairs_that_could_matter
from atlas_tune.trajectory import Kind, Outcome, Trajectory

ACTIONS = (
    "look",
    "take red key",
    "take blue key",
    "light lamp",
    "open door",
    "jam",
    "unjam",
    "take gold",
)


def labels_of(trajectory, **options):
    selector = ReplaySelector(lambda name: Vault(), ReplayOptions(**options))
    return {label.step_id: label for label in selector.label(trajectory)}


def scores(labels):
    return {step_id: label.score for step_id, label in labels.items() if label.kind is None}


def reward_of(trajectory, step_ids):
    moves = [move for move in moves_of(trajectory) if move.step_id in step_ids]
    return play(Vault(), trajectory, moves).reward


def as_it_ends(*actions: str, task: str = "plain") -> Trajectory:
    """A run that records how it really ends."""
    run = record(*actions, task=task)
    success = play(Vault(), run, moves_of(run)).success
    return Trajectory.create(
        run.steps, environment="vault", task_id=task, outcome=Outcome(success=success)
    )


# --- pairs ---------------------------------------------------------------------------------------

TWO_KEYS = record("look", "take red key", "take blue key", "open door", "take gold")


def test_two_steps_that_replace_each_other_have_half_of_what_both_lose():
    labels = labels_of(TWO_KEYS, measure="pairs")
    assert scores(labels) == {3: 0.3, 4: 0.3, 5: 0.6, 6: 0.6}
    assert labels[3].reason == (
        "without this step the run still ends with return 0.60; replaceable by step 4: without "
        "both the run ends with return 0.00 instead of 0.60; "
        "the later action 'open door' (step 5) then fails, and 1 more after it"
    )
    assert "replaceable by step 3: " in labels[4].reason
    assert labels[2].kind is Kind.NONE
    assert labels[2].reason == "without this step the run still ends with return 0.60"
    told = {step_id: consequence_of(label) for step_id, label in labels.items()}
    assert told == {
        2: Consequence.NOTHING,
        3: Consequence.REFUSED,
        4: Consequence.REFUSED,
        5: Consequence.REFUSED,
        6: Consequence.LOWER,
    }


def test_a_pair_is_scored_by_the_loss_alone_when_a_lamp_is_lit_twice():
    labels = labels_of(
        record("light lamp", "take red key", "light lamp", "open door", "take gold"),
        measure="pairs",
    )
    # 1.0 with a lamp and 0.6 without: half of 0.4, below the 1.0 of each other step.
    assert scores(labels) == {2: 0.2, 3: 1.0, 4: 0.2, 5: 1.0, 6: 1.0}
    assert consequence_of(labels[2]) is Consequence.LOWER


def test_of_three_that_each_suffice_no_pair_is_necessary():
    run = record("take red key", "take blue key", "take red key", "open door", "take gold")
    assert scores(labels_of(run, measure="pairs")) == {5: 0.6, 6: 0.6}


def test_steps_that_only_stand_in_are_named_but_are_no_candidates():
    # The first grasp is refused, and the last one is never reached.
    run = record("jam", "take red key", "open door", "take gold", "unjam", "take gold", "take gold")
    labels = labels_of(run, measure="pairs")
    # unjam (6) or no jam (2) would do for the refused grasp (5), so jam is no loss by itself.
    assert scores(labels) == {3: 0.6, 4: 0.6, 6: 0.6, 7: 0.3}
    assert labels[7].reason.startswith(
        "without this step the run still ends with return 0.60; replaceable by step 8: without both"
    )
    assert consequence_of(labels[7]) is Consequence.LOWER
    assert labels[8].kind is Kind.NONE
    assert labels[8].reason == "the run had ended before this step"
    assert labels[5].kind is Kind.NONE


def test_an_improved_return_is_not_taken_for_a_loss():
    # Timed: without either key the run earns 0.001 more, and without both nothing.
    run = record("take red key", "take blue key", "open door", "take gold", task="timed")
    label = labels_of(run, measure="pairs")[2]
    assert label.score == pytest.approx(0.597 / 2)
    assert label.reason.startswith(
        "without this step the run ends with return 0.5980 instead of 0.5970; replaceable by step 3"
    )
    assert consequence_of(label) is Consequence.REFUSED


def test_pairs_that_cannot_matter_are_not_tried():
    run = record("look", "take red key", "look", "take blue key", "open door", "take gold")
    removals = Removals(Vault(), run)
    _, spared = each_alone(removals)
    assert set(spared) == {2, 3, 4, 5}
    # Alike first (the looks, then the keys, which share two words of four), then the nearest.
    assert pairs_that_could_matter(removals.moves, spared) == [
        (2, 4),
        (3, 5),
        (2, 3),
        (3, 4),
        (4, 5),
        (2, 5),
    ]
    # An action that is refused with or without the other matters no more beside it than alone.
    for early in (("look", "take gold"), ("take gold", "look")):
        refused = record(*early, "take red key", "open door", "take gold")
        removals = Removals(Vault(), refused)
        _, spared = each_alone(removals)
        assert set(spared) == {2, 3}
        assert pairs_that_could_matter(removals.moves, spared) == []


def test_what_the_cap_leaves_untried_is_said():
    run = record("look", "take red key", "look", "take blue key", "open door", "take gold")
    capped = labels_of(run, measure="pairs", max_pairs=1)
    assert scores(capped) == {6: 0.6, 7: 0.6}
    assert capped[3].reason == (
        "without this step the run still ends with return 0.60; "
        "3 pairs with it were not tried (max_pairs is 1)"
    )
    assert capped[6].reason == labels_of(run)[6].reason
    found = labels_of(run, measure="pairs", max_pairs=2)
    assert scores(found) == {3: 0.3, 5: 0.3, 6: 0.6, 7: 0.6}
    assert found[3].reason.endswith("; 2 pairs with it were not tried (max_pairs is 2)")


def test_several_partners_are_counted():
    # The run ends with step 4; had it not, steps 5 and 6 would have done the same again.
    run = record("take red key", "open door", "take gold", "open door", "take gold")
    labels = labels_of(run, measure="pairs")
    assert scores(labels) == {2: 0.6, 3: 0.3, 4: 0.3}
    assert "; replaceable by step 5 and 1 other step: without both the run" in labels[3].reason
    assert "; replaceable by step 6: without both the run" in labels[4].reason


def test_two_useless_steps_that_cost_reward_are_no_pair():
    run = as_it_ends("look", "look", "take red key", "open door", "take gold", task="timed")
    assert scores(labels_of(run, measure="pairs")).keys() == {4, 5, 6}


@given(st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=8))
@example(["take red key", "open door", "jam", "take gold"])
@settings(max_examples=60)
def test_pairs_are_those_of_trying_all_of_them(actions):
    run = as_it_ends(*actions)
    labels = labels_of(run, measure="pairs", max_pairs=10_000)
    ids = {step.step_id for step in run.agent_steps}
    whole = Removals(Vault(), run).whole
    alone = {i: whole.reward - reward_of(run, ids - {i}) for i in ids}
    spared = [i for i in ids if alone[i] < 1e-9]
    best = dict.fromkeys(spared, 0.0)
    for pair in combinations(spared, 2):
        loss = whole.reward - reward_of(run, ids - set(pair))
        for step_id in pair:
            best[step_id] = max(best[step_id], loss)
    for step_id in spared:
        half = best[step_id] / 2 if whole.admissible.get(step_id) else 0.0
        # A step without which the run returns more has what it loses alone: less than nothing.
        assert labels[step_id].score == pytest.approx(half if half else alone[step_id])
        assert (labels[step_id].kind is None) == (half > 0)


# --- minimal -------------------------------------------------------------------------------------


def test_the_minimal_subset_keeps_the_earlier_of_two_that_suffice():
    labels = labels_of(TWO_KEYS, measure="minimal")
    assert scores(labels) == {3: 0.6, 5: 0.6, 6: 0.6}
    assert labels[4].reason == "not one of the 3 actions of 5 that suffice for return 0.60"
    assert labels[4].score == 0.0
    assert labels[3].reason == (
        "one of the 3 actions of 5 that suffice for return 0.60: without this step too the run "
        "ends with return 0.00 instead of 0.60; "
        "the later action 'open door' (step 5) then fails, and 1 more after it"
    )
    assert consequence_of(labels[3]) is Consequence.REFUSED
    assert consequence_of(labels[4]) is Consequence.NOTHING
    assert consequence_of(labels[6]) is Consequence.LOWER


def test_what_is_spared_later_is_taken_out_by_another_pass():
    # Backwards, unjam is needed as long as the door is jammed; without jam it is not.
    run = record("take red key", "open door", "jam", "unjam", "take gold")
    labels = labels_of(run, measure="minimal")
    assert scores(labels) == {2: 0.6, 3: 0.6, 6: 0.6}
    assert labels_of(run)[5].score == 0.6  # alone, it is necessary


def test_a_return_that_a_removal_raises_is_kept_from_then_on():
    run = record("look", "take red key", "light lamp", "open door", "take gold", task="timed")
    labels = labels_of(run, measure="minimal")
    assert labels[2].kind is Kind.NONE
    assert "4 actions of 5 that suffice for return 1.00" in labels[2].reason
    # Without the lamp: 0.6 - 2 moves instead of 1.0 - 3 moves.
    assert labels[4].score == pytest.approx(0.997 - 0.598)


def test_a_run_that_earns_nothing_needs_nothing():
    labels = labels_of(record("look", "take red key", success=False), measure="minimal")
    assert {label.kind for label in labels.values()} == {Kind.NONE}
    assert labels[2].reason == "not one of the 0 actions of 2 that suffice for return 0.00"


@given(
    st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=14),
    st.sampled_from(["plain", "timed"]),
)
@settings(max_examples=80)
def test_the_minimal_subset_suffices_and_nothing_of_it_can_be_left_out(actions, task):
    run = as_it_ends(*actions, task=task)
    kept = scores(labels_of(run, measure="minimal"))
    alone = reward_of(run, kept.keys())
    assert alone >= reward_of(run, {step.step_id for step in run.agent_steps}) - 1e-9
    for step_id, score in kept.items():
        lost = alone - reward_of(run, kept.keys() - {step_id})
        assert lost > 1e-9
        assert score == pytest.approx(lost, abs=1e-6)


# --- cost ----------------------------------------------------------------------------------------


class Counting(Vault):
    """A vault that counts what is played in it."""

    played = 0

    def step(self, action):
        Counting.played += 1
        return super().step(action)


@pytest.mark.parametrize("measure", ["single", "pairs", "minimal"])
@given(actions=st.lists(st.sampled_from(ACTIONS), min_size=1, max_size=9))
@settings(max_examples=25)
def test_no_run_takes_more_actions_than_the_cost_says(measure, actions):
    run = as_it_ends(*actions)
    selector = ReplaySelector(
        lambda name: Counting(), ReplayOptions(measure=measure, max_pairs=10_000)
    )
    Counting.played = 0
    selector.label(run)
    assert Counting.played <= selector.cost([run]).env_steps


def test_the_cost_of_four_necessary_steps_is_exact_for_single_and_minimal():
    run = record("take red key", "light lamp", "open door", "take gold")

    def cost(**options):
        return ReplaySelector(lambda name: Vault(), ReplayOptions(**options)).cost([run]).env_steps

    # The whole, and four times three of four; pairs of four steps: six, of two actions each.
    assert cost() == 4 + 4 * 3
    assert cost(measure="pairs") == 16 + 6 * 2
    assert cost(measure="pairs", max_pairs=5) == 16 + 5 * 2
    # At worst four tries before one is spared, then three, then two, then one.
    assert cost(measure="minimal") == 4 + 4 * 3 + 3 * 2 + 2 * 1
