"""A policy started inside runs: values, figures and the file of rollouts, worked out by hand."""

import json

import pytest
from jumping import Always, Forward, Trapdoor, walk

from atlas_tune.agents.making import ConversationTooLong
from atlas_tune.agents.resume import Rollouts, play_recorded
from atlas_tune.agents.streams import stream_of
from atlas_tune.select.auditing.places import Player, Value, read_known, values_of, wanted_names
from atlas_tune.select.auditing.started import baseline, places_of, started

A, B = walk("lf^f"), walk("fl^^")
"""Agent steps 2 to 5 each. Forward wins from where no trap is left."""
# After 0 to 4 steps. A: the trap is behind after 3. B: both are only behind at the end.
BY_HAND = {A.trajectory_id: [0, 0, 0, 1, 1], B.trajectory_id: [0, 0, 0, 0, 1]}


def player(policy=None, **settings):
    return Player(Always(policy or Forward()), {"model": "forward"}, **settings)


def stands_of(*runs):
    return {run.trajectory_id: play_recorded(Trapdoor(), run) for run in runs}


def value_all(path, who, runs=(A, B), places=range(5)):
    rollouts = Rollouts(lambda name: Trapdoor(), who.batch_size)
    return values_of(
        runs, {run.trajectory_id: places for run in runs}, stands_of(*runs), who, rollouts, path
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rollouts.jsonl"


def test_values_are_those_worked_out_by_hand(path):
    values, refused = value_all(path, player())
    assert refused == []
    found = {key: [value.success for value in at.values()] for key, at in values.items()}
    assert found == BY_HAND
    # The return includes what the recorded steps earned: a jump is worth 0.25, the end 1.
    assert [values[A.trajectory_id][t].reward for t in range(5)] == [0, 0, 0, 1.25, 1.25]
    assert [values[B.trajectory_id][t].reward for t in range(5)] == [0, 0, 0, 0.25, 1.5]


def test_an_ended_run_needs_no_rollout(path):
    policy = Forward()
    value_all(path, player(policy), places=[4])
    assert (policy.asked, path.exists()) == ([], False)
    places = {A.trajectory_id: [0, 4]}
    assert wanted_names(places, stands_of(A), 2) == [
        (A.trajectory_id, 0, 0),
        (A.trajectory_id, 0, 1),
    ]
    # Where nobody has played the run, each place may need one.
    assert len(wanted_names(places, {}, 2)) == 4


def test_the_figures_of_a_selection_and_its_controls():
    a, b = A.trajectory_id, B.trajectory_id
    values = {
        key: {t: Value(2.0 * success, success) for t, success in enumerate(found)}
        for key, found in BY_HAND.items()
    }
    own = {a: frozenset({4}), b: frozenset({4})}
    draws = [
        {a: frozenset({3}), b: frozenset({5})},
        {a: frozenset({5}), b: frozenset({2})},
    ]
    found = started([A, B], values, own, draws)
    success = found.success
    # After A's step 4 (the third) the value is 1, before it 0; after B's step 4 it is 0.
    assert (success.after.value, success.before.value, success.gain.value) == (0.5, 0.0, 0.5)
    # Draws: after 0 and 1, then 1 and 0; gains 0 and 1, then 0 and 0.
    assert (success.control_after.value, success.control_gain.value) == (0.5, 0.25)
    assert success.control_before.value == 0.25
    assert (success.after_difference.value, success.gain_difference.value) == (0.0, 0.25)
    assert found.reward.gain.value == 1.0
    assert found.steps == 2
    # A's difference is 1 and B's -0.5: the interval is what drawing one of them twice gives.
    assert (success.gain_difference.low, success.gain_difference.high) == (-0.5, 1.0)


def test_steps_are_pooled_and_empty_selections_have_no_figure():
    values = {
        key: {t: Value(0.0, success) for t, success in enumerate(found)}
        for key, found in BY_HAND.items()
    }
    uneven = {A.trajectory_id: frozenset({2, 3, 4}), B.trajectory_id: frozenset({5})}
    found = started([A, B], values, uneven, [uneven])
    # Three steps of A with values 0, 0, 1 after them and one of B with 1: the mean of four.
    assert found.success.after.value == 0.5
    assert (found.success.after_difference.value, found.success.after_difference.low) == (0, 0)
    nothing = dict.fromkeys(uneven, frozenset())
    found = started([A, B], values, nothing, [nothing])
    assert (found.success.after.value, found.success.after.why) == (None, "no step is selected")


def test_the_baseline_starts_at_the_beginning():
    values = {"a": {0: Value(0.5, 1.0), 3: Value(9, 9)}, "b": {0: Value(0.0, 0.0)}}
    found = baseline(values)
    assert (found.success.value, found.reward.value) == (0.5, 0.25)


def test_places_are_the_beginning_and_around_each_step_of_each_set():
    a, b = A.trajectory_id, B.trajectory_id
    sets = [
        {a: frozenset({3}), b: frozenset()},
        {a: frozenset({5}), b: frozenset({2})},
    ]
    assert places_of([A, B], sets) == {a: {0, 1, 2, 3, 4}, b: {0, 1}}


def test_a_killed_measurement_goes_on_where_it_was(path):
    value_all(path, player(batch_size=3))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 8  # 5 places each, of which the last one is known
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])  # killed while writing the sixth
    policy = Forward()
    values, _ = value_all(path, player(policy, batch_size=3))
    assert path.read_bytes() == whole
    assert {key: [v.success for v in at.values()] for key, at in values.items()} == BY_HAND
    assert {key.partition("#")[2].rpartition(".")[0] for key in policy.asked} == {
        f"{key[:16]}.{t}" for key, t in _names(lines[5:])
    }
    again = Forward()
    value_all(path, player(again))
    assert again.asked == []


def _names(lines):
    return [(record["trajectory_id"], record["t"]) for record in map(json.loads, lines)]


def test_what_was_rolled_out_before_the_policy_broke_is_kept(path):
    class Breaks(Forward):
        def replies(self, conversations):
            if len(self.asked) > 6:
                raise KeyboardInterrupt
            return super().replies(conversations)

    with pytest.raises(KeyboardInterrupt):
        value_all(path, player(Breaks(), batch_size=2))
    known = read_known(path, player().digest)
    assert 0 < len(known) < 8
    values, _ = value_all(path, player(batch_size=2))
    assert {key: [v.success for v in at.values()] for key, at in values.items()} == BY_HAND


def test_another_policy_is_not_mixed_in(path):
    value_all(path, player())
    assert len(read_known(path, player().digest)) == 8
    warm = player(temperature=0.7)
    assert read_known(path, warm.digest) == {}
    value_all(path, warm)
    assert len(path.read_bytes().splitlines()) == 16
    assert Player(Always(None), {"model": "other"}).digest != player().digest


def test_rollouts_of_a_run_share_their_random_numbers_and_runs_do_not(path):
    policy = Forward()
    value_all(path, player(policy, rollouts=2, temperature=1.0), places=[0, 1])
    streams = {stream_of(key) for key in policy.asked}
    assert streams == {f"{run.trajectory_id}.{n}" for run in (A, B) for n in (0, 1)}


def test_a_value_is_the_mean_of_its_rollouts(path):
    class Odd(Forward):
        """Jumps over the trap in every second rollout of a run."""

        def replies(self, conversations):
            jump = "Action:\njump"
            return {
                key: jump
                if stream_of(key).endswith(".1") and said[-1]["content"].startswith("Before you: ^")
                else "Action:\nforward"
                for key, said in conversations.items()
            }

    values, _ = value_all(path, player(Odd(), rollouts=2, temperature=1.0), [A])
    assert [v.success for v in values[A.trajectory_id].values()] == [0.5, 0.5, 0.5, 1, 1]


def test_a_run_too_long_for_the_policy_takes_no_other_along(path):
    long = walk("f^f", prelude="x" * 500)

    class Short(Forward):
        def replies(self, conversations):
            if any(len(said[0]["content"]) > 400 for said in conversations.values()):
                raise ConversationTooLong("The conversation has 500 tokens.")
            return super().replies(conversations)

    values, refused = value_all(path, player(Short()), [A, long], places=range(4))
    assert set(values) == {A.trajectory_id}
    assert [(one.trajectory_id, one.reason) for one in refused] == [
        (long.trajectory_id, "The conversation has 500 tokens.")
    ]
    assert {name[0] for name in read_known(path, player().digest)} == {A.trajectory_id}


def test_a_look_at_the_file_changes_nothing(path):
    value_all(path, player())
    torn = path.read_bytes()[:-10]
    path.write_bytes(torn)
    assert len(read_known(path, player().digest, mend=False)) == 7
    assert path.read_bytes() == torn
