"""Leverage of the trap door, by hand: only the turn at the fork decides."""

import random

import pytest
from trap_door import TrapDoor, Walkers, guided

from atlas_tune.agents.making import LocalPolicies
from atlas_tune.agents.resume import Stand
from atlas_tune.agents.rollout import run_expert
from atlas_tune.agents.streams import hashed
from atlas_tune.environments.textcraft import TextCraft
from atlas_tune.errors import UsageError
from atlas_tune.select import Context, make_selector, select, selector_options
from atlas_tune.select.base import CannotLabel
from atlas_tune.select.rollouts.forced import Outcomes, smoothed_error
from atlas_tune.select.rollouts.leverage import LeverageOptions, LeverageSelector
from atlas_tune.trajectory import Kind, Outcome, Step, ToolCall, Trajectory
from tiny_model import tiny_llama, tiny_tokenizer

RUN = guided()


def leverage(policies, **options):
    return LeverageSelector(LeverageOptions(**options), policies, lambda name: TrapDoor())


def labels_of(selector, run=RUN):
    return {label.step_id: label for label in selector.label(run)}


def turns_left(number, seed=0, run=RUN, left=0.5):
    """Whether rollout ``number`` of a walker turns left at the fork, its turn 2 of the episode.

    The prefill is a message of the assistant too, so two stand before that turn.
    """
    return random.Random(hashed(seed, f"{run.trajectory_id}:{number}", 2)).random() < left


def test_under_greedy_decoding_one_rollout_is_exact():
    policies = Walkers(left=0.3)
    labels = labels_of(leverage(policies, temperature=0))
    # It falls from the start and from the fork; after the turn it arrives.
    assert {i: label.score for i, label in labels.items()} == {4: 0.0, 5: 1.0, 6: 0.0, 7: 0.0}
    assert [label.kind for label in labels.values()] == [Kind.NONE, None, Kind.NONE, Kind.NONE]
    assert labels[5].reason == (
        "leverage +1.00, exact under greedy decoding: success 1.00 with this step, 0.00 without it"
    )
    # Five places, the last of which is the end: four rollouts, each made once.
    assert policies.rollouts == 4


def test_what_the_policy_finds_by_itself_has_no_leverage():
    labels = labels_of(leverage(Walkers(left=0.9), temperature=0))
    assert {label.score for label in labels.values()} == {0.0}
    chosen = select([RUN], leverage(Walkers(left=0.9), temperature=0))
    assert chosen.selections[0].step_ids == ()


def test_paired_rollouts_differ_by_the_step_alone():
    policies = Walkers(left=0.5)
    labels = labels_of(leverage(policies, standard_error=0, seed=3))
    lucky = [turns_left(i, seed=3) for i in range(8)]
    assert 0 < sum(lucky) < 8
    # At the fork: 1 after the turn, and before it the walker's own luck.
    differences = [1 - x for x in lucky]
    mean, square = sum(differences) / 9, (sum(differences) + 1) / 9
    error = ((square - mean**2) / 9) ** 0.5
    score = sum(differences) / 8
    assert labels[5].score == pytest.approx(score)
    assert labels[5].reason.startswith(
        f"leverage {score:+.2f} ± {error:.2f} over 8 paired rollouts"
    )
    assert labels[5].reason.endswith(f"success 1.00 with this step, {1 - score:.2f} without it")
    # Before the fork both rollouts of a pair meet the same luck there: no noise at all.
    assert labels[4].score == 0.0
    assert policies.streams == {f"{RUN.trajectory_id}:{i}" for i in range(8)}


def test_each_step_stops_when_its_error_is_small_enough():
    policies = Walkers(left=0.5)
    labels = labels_of(leverage(policies))
    # Differences that are all 0 have error 1 / (n + 1): 0.2 after 4 pairs.
    assert "± 0.20 over 4 paired" in labels[4].reason
    assert "over 4 paired" not in labels[5].reason
    wanted = int(labels[5].reason.partition("over ")[2].split()[0])
    assert wanted in (6, 8)
    # The end is known: the last step's pairs are those of its start. Places 1 and 2 serve step 5.
    assert policies.rollouts == 4 + wanted + wanted + 4
    assert "± 0.20 over 4 paired" in labels[7].reason


def test_the_bounds_of_stopping():
    few = labels_of(leverage(Walkers(0.5), rollouts_min=1, rollouts_max=1))
    assert all("over 1 paired" in label.reason for label in few.values())
    loose = labels_of(leverage(Walkers(0.5), standard_error=1))
    assert all("over 2 paired" in label.reason for label in loose.values())
    odd = labels_of(leverage(Walkers(0.5), rollouts_min=3, rollouts_max=7, standard_error=0))
    assert all("over 7 paired" in label.reason for label in odd.values())


def test_the_mean_over_many_seeds_is_the_true_leverage():
    scores = {4: [], 5: []}
    for seed in range(60):
        labels = labels_of(leverage(Walkers(0.25), seed=seed, rollouts_min=4, rollouts_max=4))
        for step_id, found in scores.items():
            found.append(labels[step_id].score)
    assert sum(scores[4]) == 0
    # 0.75, with a standard error of √(0.75 · 0.25 / 240) = 0.028.
    assert sum(scores[5]) / 60 == pytest.approx(0.75, abs=0.1)


def test_the_return_counts_what_was_earned_before():
    labels = labels_of(leverage(Walkers(0.3), temperature=0, value="return"))
    # Falling after one cell returns 0.125; the whole way 0.125 + 0.125 + 1.
    assert {i: label.score for i, label in labels.items()} == {4: 0.0, 5: 1.125, 6: 0.0, 7: 0.0}
    assert "return 1.25 with this step, 0.12 without it" in labels[5].reason


def test_the_step_limit_of_a_run_can_be_set():
    # Two steps in all: only from the last place before the goal does one turn suffice.
    labels = labels_of(leverage(Walkers(0.9), temperature=0, max_steps=2))
    assert {i: label.score for i, label in labels.items()} == {4: 0.0, 5: 1.0, 6: 0.0, 7: 0.0}


def test_steps_after_the_end_and_without_an_action_are_no_candidates():
    steps = list(RUN.steps)
    steps[5] = Step(6, "agent", "I wonder.", observation=steps[5].observation)
    steps.append(Step(8, "agent", "Action: forward"))
    run = Trajectory.create(
        tuple(steps), environment="trap", task_id="trap/3", outcome=Outcome(success=True)
    )
    labels = labels_of(leverage(Walkers(0.3), temperature=0), run)
    assert labels[6].reason == "no action could be read in this step"
    assert labels[8].reason == "the run had ended before this step"
    assert (labels[6].kind, labels[8].kind, labels[5].score) == (Kind.NONE, Kind.NONE, 1.0)


CALL = (Step(1, "user", "go"), Step(2, "agent", "", tool_calls=(ToolCall("c", "go", {}),)))


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (guided(environment=None), "names no environment"),
        (guided(task_id=None), "names no task"),
        (guided(outcome=Outcome(success=False)), "the recording says success False"),
        (guided(outcome=Outcome(reward=0.0)), "not the one of the recording"),
        (Trajectory.create(CALL, environment="trap", task_id="trap/3"), "acts through tool calls"),
    ],
)
def test_what_cannot_be_rolled_out_says_why(run, words):
    with pytest.raises(CannotLabel, match=words):
        leverage(Walkers(0.5)).label(run)


def test_labels_are_a_function_of_the_trajectory_and_the_source():
    other = guided("safe/3")
    alone = leverage(Walkers(0.5)).label(RUN)
    selector = leverage(Walkers(0.5), batch_size=3)
    selector.label(other)
    assert selector.label(RUN) == alone
    versions = {
        leverage(Walkers(0.5), **options).version
        for options in (
            {},
            {"seed": 1},
            {"temperature": 0.1},
            {"value": "return"},
            {"rollouts_max": 9},
            {"standard_error": 0.1},
            {"max_steps": 5},
            {"max_new_tokens": 9},
            {"precision": "bfloat16"},
            {"precision": "bfloat16", "batch_size": 3},
        )
    }
    assert len(versions) == 10
    assert leverage(Walkers(0.5), batch_size=3).source == leverage(Walkers(0.5)).source
    assert leverage(Walkers(0.5)).source.model == "walker@0.5"


def test_the_cost_is_an_upper_bound_in_rollouts_tokens_and_actions():
    policies = Walkers(0.5)
    selector = leverage(policies, max_new_tokens=10)
    cost = selector.cost([RUN])
    # Five places, eight rollouts each; from place t at most 6 - t turns.
    assert cost.rollouts == 40
    assert cost.written_tokens == 8 * (6 + 5 + 4 + 3 + 2) * 10
    assert cost.env_steps == 4 + 8 * 5 * 6
    assert policies.asked == []
    selector.label(RUN)
    assert policies.rollouts <= cost.rollouts
    assert selector.cost([guided(environment=None)]).rollouts == 0
    assert leverage(Walkers(0.5), temperature=0).cost([RUN]).rollouts == 5


def test_an_outcome_is_played_once_and_a_known_one_never():
    played = []

    def play(wanted):
        played.extend(wanted)
        return [0.5 * place + number for place, number in wanted]

    open_, end = Stand("", 0.0, False, False), Stand("", 2.5, True, True)
    outcomes = Outcomes([open_, open_, end], "return", play)
    outcomes.make({0: 1, 1: 2, 2: 3})
    outcomes.make({0: 2, 1: 1})
    assert played == [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert (outcomes.at(0), outcomes.at(1), outcomes.at(2)) == ([0.0, 1.0], [0.5, 1.5], [2.5])
    assert outcomes.range() == (0.0, 2.5)


def test_the_standard_error_supposes_one_value_more():
    # (1, 0, 0, 1, 0) with half a -1 and half a 1: m = 2/6, square 3/6.
    expected = ((3 / 6 - (2 / 6) ** 2) / 6) ** 0.5
    assert smoothed_error([1, 0, 0, 1, 0], -1, 1) == pytest.approx(expected)
    # (1, 1) with half a 0 and half a 1: m = 2.5/3, square 2.5/3.
    assert smoothed_error([1, 1], 0, 1) == pytest.approx((2.5 / 3 * 0.5 / 3 / 3) ** 0.5)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    place = tmp_path_factory.mktemp("tiny")
    tiny_llama().save_pretrained(place)
    tiny_tokenizer().save_pretrained(place)
    return str(place)


@pytest.mark.parametrize("name", ["leverage", "value-jump"])
def test_a_real_model_plays_textcraft_from_the_inside_of_a_run(name, tiny):
    env = TextCraft()
    task = env.tasks("train", depth=1)[0]
    run = run_expert(env, task, env.expert, 20).trajectory({"name": "expert"})
    options = {"max_new_tokens": 4, "max_steps": 3, "standard_error": 1}
    if name == "value-jump":
        options = {"max_new_tokens": 4, "max_steps": 3, "rollouts": 2}
    context = Context(model=tiny, make_environment=lambda name: TextCraft())
    labels = make_selector(name, options, context).label(run)
    # Random weights craft nothing: no action has leverage but the last one, which succeeds.
    assert [label.score for label in labels] == [0.0] * (len(labels) - 1) + [1.0]
    assert labels[0].source.model == LocalPolicies(tiny, 4, "float32").identity
    assert make_selector(name, options, context).label(run) == labels


def test_a_conversation_too_long_for_the_model_is_not_labelled(tmp_path):
    tiny_llama(max_position_embeddings=30).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    policies = LocalPolicies(str(tmp_path), 8, "float32")
    with pytest.raises(CannotLabel, match="exceeds the 30 that the model can read"):
        leverage(policies).label(RUN)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rollouts_min": 4, "rollouts_max": 3}, "rollouts_max.*below rollouts_min, which is 4"),
        ({"rollouts_min": 9}, "below rollouts_min"),
        ({"temperature": -1}, "temperature"),
        ({"value": "luck"}, "value"),
        ({"rollout_max": 3}, "did you mean 'rollouts_max'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        selector_options("leverage", options)
