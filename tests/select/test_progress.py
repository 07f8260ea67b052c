"""Progress: rises of recorded rewards, and of rewards that a replay pays."""

from __future__ import annotations

import pytest
from vault import Vault, record

from atlas_tune.errors import UsageError
from atlas_tune.select import CannotLabel, Context, make_selector, select
from atlas_tune.select.auditing.ratings import CRITICAL
from atlas_tune.select.auditing.yardsticks import load_yardstick, score_rises
from atlas_tune.select.replaying.progress import ProgressOptions, ProgressSelector
from atlas_tune.select.replaying.replay import ReplayDiverged
from atlas_tune.trajectory import Kind, Step, ToolCall, Trajectory
from shared_data import shared_data


class Course(Vault):
    """The vault, but the key pays 0.25 and the jam costs 0.5."""

    def step(self, action: str):
        observation, reward, ended, truncated, info = super().step(action)
        paid = {"take red key": 0.25, "jam": -0.5}.get(action, 0.0) if info["valid"] else 0.0
        return observation, reward + paid, ended, truncated, info


def run(*metrics):
    """A run whose steps 2, 3, … record these metrics; a number is a reward."""
    steps = [Step(1, "user", "Go.")]
    for number, told in enumerate(metrics, start=2):
        told = {"reward": told} if isinstance(told, int | float) else told
        steps.append(Step(number, "agent", "Action: look", metrics=told))
    return Trajectory.create(tuple(steps))


def labels_of(trajectory, make_environment=None, **options):
    selector = ProgressSelector(ProgressOptions(**options), make_environment)
    return {label.step_id: label for label in selector.label(trajectory)}


def candidates(labels):
    return {step_id: label.score for step_id, label in labels.items() if label.kind is None}


def course(name):
    return Course()


# --- from the file -------------------------------------------------------------------------------


def test_only_rises_are_candidates_and_score_what_they_rise():
    labels = labels_of(run(0.0, 0.25, -0.5, {"extra": {"reward": 1.0}}, None))
    assert candidates(labels) == {3: 0.25, 5: 1.0}
    assert {step_id: label.kind for step_id, label in labels.items() if label.kind} == {
        2: Kind.NONE,
        4: Kind.NONE,
        6: Kind.NONE,
    }
    assert [labels[i].score for i in (2, 4, 6)] == [0.0, -0.5, None]
    assert [label.reason for label in labels.values()] == [
        "the reward stays at 0",
        "the reward rises by 0.25 to 0.25",
        "the reward falls by 0.5 to -0.25",
        "the reward rises by 1 to 0.75",
        "no reward is recorded for this step",
    ]


def test_scores_so_far_are_told_apart_by_their_rises():
    # The score was 20, 20, unknown, 50, 40 after the steps: rises of 20, 0, 30 and -10.
    labels = labels_of(run(20, 20, None, 50, 40), rewards="so_far")
    assert candidates(labels) == {2: 20.0, 5: 30.0}
    assert labels[6].score == -10.0
    assert labels[6].reason == "the reward falls by 10 to 40"
    assert candidates(labels_of(run(20, 20, None, 50, 40))).keys() == {2, 3, 5, 6}


def test_the_largest_rise_is_selected_first():
    trajectory = run(0.1, 0.0, 0.3, 0.2)

    def ids(share):
        [selection] = select([trajectory], ProgressSelector(), share).selections
        return set(selection.step_ids)

    assert [ids(0.3), ids(0.5), ids(1.0)] == [{4}, {4, 5}, {2, 4, 5}]


def test_a_run_without_rewards_is_listed_with_what_to_do():
    with pytest.raises(CannotLabel, match=r"no step .* play it again with --set source=replay"):
        labels_of(run(None, {"extra": 3}, {"reward": True}), course)
    with pytest.raises(CannotLabel, match=r"no step .* import a file that keeps the rewards"):
        labels_of(run(None), source="auto")
    chosen = select([run(None), run(1.0)], ProgressSelector())
    assert [len(chosen.selections), len(chosen.unlabelled)] == [1, 1]


def test_a_run_whose_reward_never_rises_has_no_candidate():
    assert candidates(labels_of(run(0.0, -1.0))) == {}


# --- by replaying --------------------------------------------------------------------------------

DENSE = record("look", "take red key", "jam", "unjam", "open door", "take gold")


def test_a_replay_pays_what_the_file_does_not_record():
    labels = labels_of(DENSE, course, source="replay")
    assert candidates(labels) == {3: 0.25, 7: 0.6}
    assert labels[4].score == -0.5
    assert labels[7].reason == "the reward rises by 0.6 to 0.35"
    assert labels[2].reason == "the reward stays at 0"


def test_steps_that_are_not_played_have_no_rise():
    own = (*DENSE.steps, Step(8, "agent", "Done, I think."), Step(9, "agent", "Action: look"))
    ended = Trajectory.create(own, environment="vault", task_id="plain")
    labels = labels_of(ended, course, source="replay")
    assert [labels[i].reason for i in (8, 9)] == ["the replay took no action in this step"] * 2
    assert [labels[i].kind for i in (8, 9)] == [Kind.NONE] * 2


def test_auto_replays_only_where_nothing_is_recorded():
    assert candidates(labels_of(DENSE, course, source="auto")) == {3: 0.25, 7: 0.6}
    # Names no environment, so it could not be replayed.
    assert candidates(labels_of(run(0.0, 2.0), course, source="auto")) == {3: 2.0}
    with pytest.raises(CannotLabel, match="names no environment"):
        labels_of(run(None), course, source="auto")


def test_a_replay_that_diverges_is_refused_unless_it_is_tolerated():
    lost = record("take red key", "open door", "take gold", success=False)
    with pytest.raises(ReplayDiverged, match="recorded with a failure"):
        labels_of(lost, course, source="replay")
    labels = labels_of(lost, course, source="replay", tolerate_divergence=True)
    assert candidates(labels) == {2: 0.25, 4: 0.6}
    assert labels[2].reason == (
        "the reward rises by 0.25 to 0.25; "
        "recorded with a failure, but the replay succeeds (return 0.85)"
    )


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (run(None), "names no environment"),
        (
            Trajectory.create(
                (Step(1, "agent", "", tool_calls=(ToolCall("c", "look", {}),)),),
                environment="vault",
            ),
            "step 1 acts through tool calls",
        ),
        (Trajectory.create((Step(1, "agent", "Action: look"),), environment="vault"), "no task"),
    ],
)
def test_what_cannot_be_replayed_cannot_be_labelled(broken, words):
    with pytest.raises(CannotLabel, match=words):
        labels_of(broken, course, source="replay")


# --- settings, cost and the registry -------------------------------------------------------------


def test_what_decides_the_labels_stands_in_the_version():
    assert ProgressSelector().source.version == "1"
    options = ProgressOptions(source="auto", rewards="so_far", tolerate_divergence=True)
    assert ProgressSelector(options).version == (
        "1+source=auto,rewards=so_far,tolerate_divergence=true"
    )


def test_the_registry_gives_it_the_environments_of_the_run():
    made = make_selector("progress", {"source": "replay"}, Context(make_environment=course))
    assert [label.step_id for label in made.label(DENSE) if label.kind is None] == [3, 7]
    assert make_selector("progress").name == "progress"
    with pytest.raises(UsageError, match="'replay' plays trajectories again and got no env"):
        make_selector("progress", {"source": "replay"})


def test_only_what_is_played_costs():
    def cost(source):
        selector = ProgressSelector(ProgressOptions(source=source), course)
        return selector.cost([DENSE, run(1.0), run(None)]).env_steps

    assert [cost("file"), cost("replay"), cost("auto")] == [0, 6, 6]


# --- the yardstick -------------------------------------------------------------------------------


def test_it_agrees_with_the_rater_of_score_rises():
    trajectory = run(0.0, 0.25, -0.5, {"extra": {"reward": 1.0}})
    said = score_rises([trajectory]).said[trajectory.trajectory_id]
    assert {i for i, one in said.items() if one == CRITICAL} == candidates(
        labels_of(trajectory)
    ).keys()


@pytest.mark.shared_data
def test_it_finds_every_score_rise_of_scienceworlds_gold_paths_and_nothing_else():
    yardstick = load_yardstick("scienceworld", shared_data())
    selector = ProgressSelector()
    steps = rises = 0
    for trajectory in yardstick.runs:
        said = yardstick.rater.said[trajectory.trajectory_id]
        labels = selector.label(trajectory)
        assert {label.step_id: label.kind is None for label in labels} == {
            step_id: one == CRITICAL for step_id, one in said.items()
        }
        # A whole path earns what its run is recorded with.
        assert sum(label.score or 0.0 for label in labels) == pytest.approx(
            trajectory.outcome.reward, abs=1e-6
        )
        steps += len(labels)
        rises += sum(label.kind is None for label in labels)
    assert (len(yardstick.runs), steps, rises) == (104, 2557, 657)
