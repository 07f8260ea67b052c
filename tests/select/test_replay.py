from dataclasses import replace

import pytest
from vault import Vault, record

from atlas_tune.agents.rollout import run_expert
from atlas_tune.environments.textcraft import TextCraft
from atlas_tune.errors import UsageError
from atlas_tune.select import Context, make_selector, select
from atlas_tune.select.replaying.replay import (
    Consequence,
    ReplayDiverged,
    ReplayOptions,
    ReplaySelector,
    consequence_of,
)
from atlas_tune.trajectory import Kind, LabelSource, Outcome, Step, StepLabel, ToolCall, Trajectory

WHOLE = record("look", "take red key", "light lamp", "open door", "take gold")


def replay() -> ReplaySelector:
    return ReplaySelector(lambda name: Vault())


def labels_of(trajectory):
    return {label.step_id: label for label in replay().label(trajectory)}


def test_the_score_is_the_loss_of_return():
    labels = labels_of(WHOLE)
    # By hand: the whole run returns 1.0.
    assert labels[2].score == 0.0  # look: nothing changes
    assert labels[3].score == 1.0  # without the key, door and gold are refused
    assert labels[4].score == pytest.approx(0.4, abs=1e-12)  # no lamp: 0.6, nothing refused
    assert labels[5].score == 1.0  # without the door, the gold is refused
    assert labels[6].score == 1.0  # nothing comes after the gold
    kinds = {step_id: label.kind for step_id, label in labels.items()}
    assert kinds == {2: Kind.NONE, 3: None, 4: None, 5: None, 6: None}


def test_reasons_tell_a_refused_action_from_a_lower_return():
    labels = labels_of(WHOLE)
    assert labels[2].reason == "without this step the run still ends with return 1.00"
    assert labels[3].reason == (
        "without this step the run ends with return 0.00 instead of 1.00; "
        "the later action 'open door' (step 5) then fails, and 1 more after it"
    )
    assert labels[4].reason == (
        "without this step the run ends with return 0.60 instead of 1.00; "
        "every later action is still admissible"
    )
    assert labels[6].reason.endswith("instead of 1.00; it is the last action")
    assert labels[5].reason.endswith("the later action 'take gold' (step 6) then fails")


def test_the_consequence_of_a_step_is_read_from_its_label():
    told = {step_id: consequence_of(label) for step_id, label in labels_of(WHOLE).items()}
    assert told == {
        2: Consequence.NOTHING,
        3: Consequence.REFUSED,
        4: Consequence.LOWER,
        5: Consequence.REFUSED,
        6: Consequence.LOWER,
    }


def test_words_inside_an_action_are_not_taken_for_a_consequence():
    sly = "x' then fails; it is the last action; every later action is still admissible"
    own = list(record("take red key", "open door").steps)
    own += [Step(4, "agent", f"Action: {sly}"), *record("take gold").steps[1:]]
    own[-1] = replace(own[-1], step_id=5)
    labels = labels_of(Trajectory.create(tuple(own), environment="vault", task_id="plain"))
    assert consequence_of(labels[2]) is Consequence.REFUSED
    assert consequence_of(labels[4]) is Consequence.NOTHING


def test_only_labels_of_replay_tell_a_consequence():
    with pytest.raises(ValueError, match="a label of 'random' tells no consequence"):
        consequence_of(StepLabel("t", 2, None, LabelSource("random")))
    with pytest.raises(ValueError, match="the reason of step 2's label was edited"):
        consequence_of(StepLabel("t", 2, None, LabelSource("replay"), reason="I say so"))


def test_the_budget_keeps_the_steps_that_lose_most():
    def ids(share):
        return set(select([WHOLE], replay(), share).selections[0].step_ids)

    assert len(ids(0.3)) == 1
    assert ids(0.3) < ids(0.4) < ids(0.6) == {3, 5, 6}
    assert ids(1.0) == {3, 4, 5, 6}


def test_of_two_steps_that_each_suffice_neither_is_necessary():
    labels = labels_of(record("take red key", "take blue key", "open door", "take gold"))
    assert [labels[i].kind for i in (2, 3)] == [Kind.NONE, Kind.NONE]
    assert [labels[i].kind for i in (4, 5)] == [None, None]
    assert labels[5].score == 0.6


def test_a_useless_step_that_costs_reward_scores_below_zero():
    labels = labels_of(record("look", "take red key", "open door", "take gold", task="timed"))
    assert labels[2].kind is Kind.NONE
    assert labels[2].score == pytest.approx(-0.001)
    assert labels[2].reason == "without this step the run ends with return 0.5980 instead of 0.5970"


def test_a_removal_that_succeeds_earlier_ends_there():
    # Without the jam, the first grasp wins and what follows is not played.
    labels = labels_of(
        record("take red key", "open door", "jam", "take gold", "unjam", "take gold")
    )
    assert labels[4].kind is Kind.NONE
    assert labels[4].reason == "without this step the run still ends with return 0.60"
    # The first grasp was refused in the recording itself; nothing is lost without it.
    assert labels[5].kind is Kind.NONE
    assert labels[6].score == pytest.approx(0.6, abs=1e-12)


def test_steps_after_the_end_and_steps_without_an_action_are_not_necessary():
    own = list(record("take red key", "open door", "take gold", "look").steps)
    own.append(Step(6, "agent", "I think I am done."))
    trajectory = Trajectory.create(
        tuple(own), environment="vault", task_id="plain", outcome=Outcome(success=True)
    )
    labels = labels_of(trajectory)
    assert labels[5].reason == "the run had ended before this step"
    assert labels[6].reason == "no action could be read in this step"
    assert {labels[5].kind, labels[6].kind} == {Kind.NONE}


def test_a_run_that_earns_nothing_has_no_necessary_step():
    labels = labels_of(record("look", "take red key", success=False))
    assert {label.kind for label in labels.values()} == {Kind.NONE}


def test_a_replay_that_diverges_names_the_first_step_that_differs():
    stale = record("look", "take red key", "open door", "take gold", as_task="robbed")
    with pytest.raises(ReplayDiverged) as caught:
        replay().label(stale)
    words = str(caught.value)
    assert stale.trajectory_id[:12] in words
    assert "recorded with a success, but its replay in vault does not succeed" in words
    assert (
        "step 3 was answered 'Instruction: You take red key.' "
        "and is now answered 'You cannot take red key.'" in words
    )
    assert "In all, 3 of 4 observations differ from the recording (first at step 3" in words
    assert "The environment or the task is not the one of the recording." in words
    assert "tolerate_divergence" not in words


def test_a_recorded_failure_that_now_succeeds_has_diverged_too():
    with pytest.raises(ReplayDiverged, match="a failure, but its replay in vault succeeds"):
        replay().label(record("take red key", "open door", "take gold", success=False))


def test_where_only_a_reward_was_recorded_it_must_still_be_earned():
    steps = record("look", "take red key").steps
    foreign = Trajectory.create(
        steps, environment="vault", task_id="plain", outcome=Outcome(reward=100.0)
    )
    with pytest.raises(ReplayDiverged, match="recorded with reward 100"):
        replay().label(foreign)


# In task "robbed" there is no red key: the blue one still opens the door.
ROBBED = record("take red key", "take blue key", "open door", "take gold", as_task="robbed")


def test_where_only_observations_differ_the_labels_say_so():
    labels = labels_of(ROBBED)
    # "Instruction: You take red key." (5 words), "You cannot take red key." (5): 4 in common.
    note = "1 of 4 observations differ from the recording (first at step 2, similarity 0.80)"
    assert all(label.reason.endswith(f"; {note}") for label in labels.values())
    assert {step_id for step_id, label in labels.items() if label.kind is None} == {3, 4, 5}
    assert consequence_of(labels[3]) is Consequence.REFUSED


def test_a_replay_that_ends_otherwise_is_labelled_where_that_is_tolerated():
    lost = record("take blue key", "open door", "take gold", success=False)
    with pytest.raises(ReplayDiverged, match="by what the replay earns all the same, set tolerate"):
        replay().label(lost)
    selector = ReplaySelector(lambda name: Vault(), ReplayOptions(tolerate_divergence=True))
    labels = selector.label(lost)
    assert [label.score for label in labels] == [0.6, 0.6, 0.6]
    assert labels[2].reason == (
        "without this step the run ends with return 0.00 instead of 0.60; it is the last action; "
        "recorded with a failure, but the replay succeeds (return 0.60)"
    )
    assert consequence_of(labels[2]) is Consequence.LOWER
    # What agrees is labelled as ever, under a version of its own.
    assert [label.score for label in selector.label(WHOLE)] == [
        label.score for label in replay().label(WHOLE)
    ]


def test_a_tolerated_replay_tells_both_its_ending_and_its_observations():
    steps = ROBBED.steps
    foreign = Trajectory.create(
        steps, environment="vault", task_id="robbed", outcome=Outcome(success=False)
    )
    selector = ReplaySelector(lambda name: Vault(), ReplayOptions(tolerate_divergence=True))
    assert selector.label(foreign)[0].reason.endswith(
        "; recorded with a failure, but the replay succeeds (return 0.60), and 1 of 4 "
        "observations differ from the recording (first at step 2, similarity 0.80)"
    )


def test_a_replay_that_earns_nothing_is_not_tolerated():
    stale = record("take red key", "open door", "take gold", as_task="robbed")
    selector = ReplaySelector(lambda name: Vault(), ReplayOptions(tolerate_divergence=True))
    with pytest.raises(ReplayDiverged, match="A replay that earns nothing has nothing to lose"):
        selector.label(stale)


def test_everything_that_decides_the_labels_stands_in_the_version():
    def version(**options):
        return ReplaySelector(lambda name: Vault(), ReplayOptions(**options)).source.version

    assert replay().version == version() == version(max_pairs=3) == "2"
    assert version(measure="pairs") == "2+measure=pairs,max_pairs=500"
    assert version(measure="minimal", tolerate_divergence=True) == (
        "2+measure=minimal,tolerate_divergence=true"
    )


def test_options_come_from_a_recipe():
    context = Context(make_environment=lambda name: Vault())
    made = make_selector("replay", {"measure": "minimal"}, context)
    assert made.version == "2+measure=minimal"
    with pytest.raises(UsageError, match="option 'measure' of the selector 'replay' does not fit"):
        make_selector("replay", {"measure": "triples"}, context)
    with pytest.raises(UsageError, match="option 'max_pairs' of the selector 'replay'"):
        make_selector("replay", {"max_pairs": 0}, context)


def test_the_cost_counts_the_actions_of_what_can_be_replayed():
    calls = run(Step(1, "agent", "", tool_calls=(ToolCall("c", "look", {}),)))
    nowhere = run(Step(1, "agent", "Action: look"), environment=None)
    silent = run(Step(1, "agent", "I wait."))
    # Five actions, then five times the other four; the others play nothing.
    assert replay().cost([WHOLE, calls, nowhere, silent]).env_steps == 25


def run(*steps: Step, environment="vault", task_id="plain") -> Trajectory:
    return Trajectory.create(steps, environment=environment, task_id=task_id)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (run(Step(1, "agent", "Action: look"), environment=None), "names no environment"),
        (run(Step(1, "agent", "Action: look"), task_id=None), "names no task"),
        (run(Step(1, "agent", "Action: look"), task_id="moon"), "vault has no task 'moon'"),
        (
            run(Step(1, "agent", "", tool_calls=(ToolCall("c", "look", {}),))),
            "step 1 acts through tool calls",
        ),
        (record("look", "take red key", as_task="timed"), "does not succeed"),
    ],
)
def test_what_cannot_be_replayed_is_listed_and_the_rest_is_selected(broken, words):
    chosen = select([broken, WHOLE], replay())
    [selection] = chosen.selections
    assert selection.trajectory_id == WHOLE.trajectory_id
    [missing] = chosen.unlabelled
    assert missing.trajectory_id == broken.trajectory_id
    assert words in missing.reason


def test_an_environment_is_built_once_for_all_trajectories():
    built = []

    def build(name):
        built.append(name)
        if name != "vault":
            raise UsageError(f"There is no environment '{name}'.")
        return Vault()

    elsewhere = run(Step(1, "agent", "Action: look"), environment="moon")
    chosen = select([WHOLE, elsewhere, record("look", success=False)], ReplaySelector(build))
    assert built == ["vault", "moon"]
    assert [missing.reason for missing in chosen.unlabelled] == ["There is no environment 'moon'."]


def test_in_textcraft_looks_and_slips_are_not_necessary_and_the_last_craft_is():
    env = TextCraft()
    tasks = env.tasks("train")[:20]
    runs = [
        run_expert(env, task, env.expert, env.max_steps).trajectory({"name": "expert"})
        for task in tasks
    ]
    chosen = select(runs, ReplaySelector(lambda name: TextCraft()))
    assert chosen.unlabelled == ()
    labels = {(label.trajectory_id, label.step_id): label for label in chosen.labels}
    for trajectory in runs:
        *before, last = trajectory.agent_steps
        assert labels[trajectory.trajectory_id, last.step_id].score == 1.0
        for step in before:
            if step.observation.text.startswith(("Could not", "Inventory")):
                assert labels[trajectory.trajectory_id, step.step_id].kind is Kind.NONE
